"""Every table. Illegal states are unstorable: enums, CHECKs, unique indexes.

problem_sets < problems < decisions        students < checkpoints       profiles
measurements (student, set, profile) < estimates (one row a problem; the leased row) < observations < rollouts < reviews
measurements < abilities (one row a skill), activity (one row a worker and minute)
curricula < curriculum_versions, batches      runs < run_metrics      teacher_references      keys < sign_in_links
"""

import datetime as dt
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from paced import wire

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER key


class UtcDateTime(TypeDecorator[dt.datetime]):
    """An aware UTC time on both databases; SQLite itself keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Store as UTC."""
        if value is None:
            return None
        utc = value.astimezone(dt.UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Return as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class current_transaction(FunctionElement[int]):  # noqa: N801 - a function of SQL
    """The number of the transaction that writes a row; 0 on SQLite, where one process writes."""

    inherit_cache = True


@compiles(current_transaction)
def _of_postgresql(*_: Any, **__: Any) -> str:
    return "(pg_current_xact_id()::text::bigint)"


@compiles(current_transaction, "sqlite")
def _of_sqlite(*_: Any, **__: Any) -> str:
    return "0"


def one_of(kind: type[StrEnum], name: str) -> Enum:
    """A text column that holds only the values of an enum."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def count(name: str) -> Column[int]:
    """A count; list it in the table's `from_zero`."""
    return Column(name, Integer, nullable=False)


def from_zero(*names: str) -> CheckConstraint:
    """A CHECK that none of the counts is negative."""
    return CheckConstraint(" AND ".join(f'"{name}" >= 0' for name in names), name="from_zero")


problem_sets = Table(
    "problem_sets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("grader", String(80), nullable=False),
    Column("policy", JSON, nullable=False),
    count("n_problems"),
    count("n_flagged"),
    count("n_rows"),
    # grows when a problem's state changes: measurements follow
    Column("state_version", Integer, nullable=False, default=0),
    Column("created_at", UtcDateTime, nullable=False),
    from_zero("n_problems", "n_flagged", "n_rows", "state_version"),
)

problems = Table(
    "problems",
    metadata,
    Column("problem_id", BigId, primary_key=True, autoincrement=True),
    Column("problem_set", ForeignKey("problem_sets.name"), nullable=False),
    count("ordinal"),
    Column("fingerprint", String(32), nullable=False),
    Column("prompt", Text, nullable=False),  # JSON: a string, or a list of messages
    Column("answer", Text, nullable=False),
    Column("grader", String(80), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("solution", Text),
    Column("multiplicity", Integer, nullable=False),
    Column("state", one_of(wire.ProblemState, "state"), nullable=False),
    Column("flag", one_of(wire.Flag, "flag")),
    Column("flag_detail", Text),
    Column("state_version", Integer, nullable=False, default=0),  # the set's, when its state last changed
    # a re-import must not count its own rows as twins of themselves: rows are counted within one import
    Column("import_id", String(32), nullable=False),
    count("import_count"),
    Column("holdout_key", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("problem_set", "ordinal"),
    UniqueConstraint("problem_set", "fingerprint"),
    CheckConstraint("multiplicity >= 1", name="multiplicity"),
    CheckConstraint("state = 'ready' OR flag IS NOT NULL", name="flag_says_why"),
    Index("ix_problems_changed", "problem_set", "state_version"),
    Index("ix_problems_flagged", "problem_set", "state", "ordinal"),
    CheckConstraint("holdout_key BETWEEN 0 AND 65535", name="holdout"),
    from_zero("ordinal", "import_count"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", BigId, primary_key=True, autoincrement=True),
    Column("problem_id", ForeignKey("problems.problem_id"), nullable=False, index=True),
    Column("state_before", one_of(wire.ProblemState, "state_before"), nullable=False),
    Column("state_after", one_of(wire.ProblemState, "state_after"), nullable=False),
    Column("answer_before", Text, nullable=False),
    Column("answer_after", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

imports = Table(
    "imports",
    metadata,
    Column("import_id", String(32), primary_key=True),
    Column("problem_set", ForeignKey("problem_sets.name"), nullable=False),
    Column("report", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

students = Table(
    "students",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("student", ForeignKey("students.name"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("uri", Text, nullable=False),
    Column("parent_index", Integer),  # null: the newest one
    Column("forked_after", BigInteger),  # of a fork: the greatest observation id when it was registered
    Column("run_id", String(64)),
    Column("step", Integer),
    Column("idempotency_key", String(200)),
    Column("request_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("student", "idempotency_key"),
    ForeignKeyConstraint(["student", "parent_index"], ["checkpoints.student", "checkpoints.index"]),
    CheckConstraint('"index" >= 0', name="index_from_zero"),
    CheckConstraint(
        '(forked_after IS NOT NULL) = (parent_index IS NOT NULL AND parent_index < "index" - 1)',
        name="fork_has_place",
    ),
    Index(
        "ix_checkpoints_forks",
        "student",
        "index",
        sqlite_where=text("forked_after IS NOT NULL"),
        postgresql_where=text("forked_after IS NOT NULL"),
    ),
)

profiles = Table(
    "profiles",
    metadata,
    Column("profile_id", String(32), primary_key=True),
    Column("body", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("measurement_id", BigId, primary_key=True, autoincrement=True),
    Column("student", ForeignKey("students.name"), nullable=False),
    Column("problem_set", ForeignKey("problem_sets.name"), nullable=False),
    Column("profile_id", ForeignKey("profiles.profile_id"), nullable=False),
    Column("n_rollouts", Integer, nullable=False),
    Column("holdout_share", Float, nullable=False),  # the largest that one of its curricula asks for
    count("n_problems"),  # estimate rows made so far; the set may have grown since
    count("state_version"),  # of the set, as copied to the estimates
    count("n_remeasured"),  # groups from workers of problems measured before
    Column("samples_per_measurement", Float, nullable=False),  # problems served for each of them; 0 sets no bound
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("student", "problem_set", "profile_id"),
    CheckConstraint("n_rollouts >= 1", name="n_rollouts"),
    CheckConstraint("holdout_share >= 0 AND holdout_share < 1", name="holdout_share"),
    CheckConstraint("samples_per_measurement >= 0", name="samples_per_measurement"),
    from_zero("n_problems", "state_version", "n_remeasured"),
)

leases = Table(
    "leases",
    metadata,
    Column("lease_id", String(32), primary_key=True),
    Column("measurement_id", ForeignKey("measurements.measurement_id"), nullable=False),
    Column("worker", Text, nullable=False),
    Column("token", String(64), nullable=False),
    Column("checkpoint_index", Integer, nullable=False),
    Column("state", one_of(wire.LeaseState, "state"), nullable=False),
    count("n_problems"),
    Column("audit_ids", JSON, nullable=False),  # which of its problems were chosen uniformly
    Column("idempotency_key", String(200), unique=True),
    Column("request_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("ix_leases_state_expires_at", "state", "expires_at"),
    from_zero("n_problems"),
)

activity = Table(
    "activity",
    metadata,
    Column("measurement_id", ForeignKey("measurements.measurement_id"), primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("minute", UtcDateTime, primary_key=True),
    Column("last_at", UtcDateTime, nullable=False),
    count("n_groups"),
    count("n_tokens"),
    count("n_pass"),
    count("n_fail"),
    count("n_truncated"),
    count("n_timeout"),
    count("n_grader_error"),
    count("n_infrastructure"),
    Index("ix_activity_minute", "minute"),
    from_zero(
        "n_groups", "n_tokens", "n_pass", "n_fail", "n_truncated", "n_timeout", "n_grader_error", "n_infrastructure"
    ),
)

estimates = Table(
    "estimates",
    metadata,
    Column("measurement_id", ForeignKey("measurements.measurement_id"), primary_key=True),
    Column("problem_id", ForeignKey("problems.problem_id"), primary_key=True),
    count("ordinal"),
    Column("holdout_key", Integer, nullable=False),
    Column("state", one_of(wire.ProblemState, "state"), nullable=False),  # the problem's
    count("n_groups"),
    count("n_passed"),
    count("n_counted"),
    count("first_passed"),
    count("first_counted"),
    count("last_passed"),
    count("last_counted"),
    Column("discounted_passed", Float, nullable=False),
    Column("discounted_failed", Float, nullable=False),
    # belief of the drift filter once measured: N(mean, variance) of logit p, the ability and checkpoint it last saw
    Column("logit_mean", Float, nullable=False),
    Column("logit_variance", Float, nullable=False),
    Column("ability_seen", Float, nullable=False),
    count("belief_index"),
    # belief of the logit filter, of each problem alone; it shares the checkpoint
    Column("alone_mean", Float, nullable=False),
    Column("alone_variance", Float, nullable=False),
    Column("skill", String(64), nullable=False),  # the problem's first tag
    count("n_failed"),
    count("n_truncated"),
    count("n_timeout"),
    count("n_grader_error"),
    count("n_infrastructure"),
    Column("checkpoint_index", Integer, nullable=False),  # last measured; -1 = never
    Column("measured_at", UtcDateTime),
    count("failure_streak"),
    Column("quarantine_reason", Text),
    Column("quarantined_until", UtcDateTime),
    # the lease id is the fencing token on the leased row
    Column("lease_id", ForeignKey("leases.lease_id")),
    Column("lease_expires_at", UtcDateTime),
    UniqueConstraint("measurement_id", "ordinal"),
    CheckConstraint("n_passed <= n_counted", name="passed_within_counted"),
    CheckConstraint("first_passed <= first_counted", name="first_within_counted"),
    CheckConstraint("last_passed <= last_counted", name="last_within_counted"),
    CheckConstraint("(lease_id IS NULL) = (lease_expires_at IS NULL)", name="lease_has_expiry"),
    Index("ix_estimates_due", "measurement_id", "checkpoint_index", "ordinal"),
    Index("ix_estimates_holdout", "measurement_id", "holdout_key", "checkpoint_index"),
    Index("ix_estimates_lease_id", "lease_id"),
    from_zero(
        "ordinal",
        "n_groups",
        "n_passed",
        "n_counted",
        "first_passed",
        "first_counted",
        "last_passed",
        "last_counted",
        "n_failed",
        "n_truncated",
        "n_timeout",
        "n_grader_error",
        "n_infrastructure",
        "failure_streak",
        "belief_index",
    ),
)

abilities = Table(
    "abilities",
    metadata,
    Column("measurement_id", ForeignKey("measurements.measurement_id"), primary_key=True),
    Column("skill", String(64), primary_key=True),
    Column("level", Float, nullable=False),
    Column("variance", Float, nullable=False),
    count("index"),
    count("n_groups"),
    # of its uniformly chosen groups, old ones faded: how many, and sums of k/n, of its square and of 1/n
    Column("audit_n", Float, nullable=False),
    Column("audit_sum", Float, nullable=False),
    Column("audit_square", Float, nullable=False),
    Column("audit_noise", Float, nullable=False),
    from_zero("index", "n_groups"),
)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", String(32), primary_key=True),
    Column("curriculum_id", ForeignKey("curricula.curriculum_id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", ForeignKey("runs.run_id")),
    count("seq"),  # of the curriculum: the draw's seed
    count("step"),  # of the run: the schedule's clock
    Column("stage", one_of(wire.Stage, "stage"), nullable=False),
    Column("mode", one_of(wire.Mode, "mode"), nullable=False),
    Column("state", one_of(wire.BatchState, "state"), nullable=False),
    Column("size", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("watermark", BigInteger, nullable=False),  # newest observation known to the draw
    count("n_served"),  # problems in the curriculum's batches, this one included
    count("n_eligible"),
    count("n_hard_filter"),  # of them, those with 0.2 < p < 0.8
    # aligned little-endian arrays, in draw order
    Column("ordinals", LargeBinary, nullable=False),
    Column("problem_ids", LargeBinary, nullable=False),
    Column("pass_rates", LargeBinary, nullable=False),
    Column("weights", LargeBinary, nullable=False),
    Column("draw_probabilities", LargeBinary, nullable=False),
    Column("loss_weights", LargeBinary, nullable=False),
    Column("posteriors", LargeBinary, nullable=False),
    Column("shortfall", JSON(none_as_null=True)),
    Column("idempotency_key", String(210)),  # with the place of each, where several were drawn at once
    Column("request_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("acknowledged_at", UtcDateTime),
    UniqueConstraint("curriculum_id", "seq"),
    UniqueConstraint("curriculum_id", "idempotency_key"),
    CheckConstraint("(state = 'acknowledged') = (acknowledged_at IS NOT NULL)", name="acknowledged_has_time"),
    Index("ix_batches_open", "curriculum_id", "state", "expires_at"),
    Index("ix_batches_step", "run_id", "step"),  # not unique: an expired batch gives its step up
    CheckConstraint("size >= 1", name="size"),
    from_zero("seq", "step", "n_served", "n_eligible", "n_hard_filter"),
)

observations = Table(
    "observations",
    metadata,
    Column("observation_id", BigId, primary_key=True, autoincrement=True),
    Column("measurement_id", BigId, nullable=False),
    Column("problem_id", BigId, nullable=False),
    Column("checkpoint_index", Integer, nullable=False),
    Column("source", one_of(wire.ObservationSource, "source"), nullable=False),
    Column("lease_id", ForeignKey("leases.lease_id")),
    Column("batch_id", ForeignKey("batches.batch_id")),
    Column("regraded_from", ForeignKey("observations.observation_id")),
    count("n_passed"),
    count("n_counted"),
    count("n_failed"),
    count("n_truncated"),
    count("n_timeout"),
    count("n_grader_error"),
    count("n_infrastructure"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("xact", BigInteger, nullable=False, server_default=current_transaction()),  # for other processes: following
    ForeignKeyConstraint(["measurement_id", "problem_id"], ["estimates.measurement_id", "estimates.problem_id"]),
    UniqueConstraint("lease_id", "problem_id"),
    UniqueConstraint("batch_id", "problem_id"),
    UniqueConstraint("measurement_id", "regraded_from"),
    CheckConstraint(
        "CASE WHEN lease_id IS NULL THEN 0 ELSE 1 END + CASE WHEN batch_id IS NULL THEN 0 ELSE 1 END"
        " + CASE WHEN regraded_from IS NULL THEN 0 ELSE 1 END = 1",
        name="one_origin",
    ),
    CheckConstraint("n_passed <= n_counted", name="passed_within_counted"),
    Index("ix_observations_problem", "measurement_id", "problem_id", "observation_id"),
    Index("ix_observations_checkpoint", "measurement_id", "checkpoint_index"),
    Index("ix_observations_xact", "measurement_id", "xact"),
    from_zero("n_passed", "n_counted", "n_failed", "n_truncated", "n_timeout", "n_grader_error", "n_infrastructure"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("observation_id", ForeignKey("observations.observation_id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("verdict", one_of(wire.Verdict, "verdict"), nullable=False),
    count("n_tokens"),
    Column("extracted", Text),
    Column("grading_s", Float),
    Column("detail", Text),
    from_zero("n_tokens"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("review_id", BigId, primary_key=True, autoincrement=True),
    Column("observation_id", BigId, nullable=False),
    Column("position", Integer, nullable=False),
    Column("verdict_before", one_of(wire.Verdict, "verdict_before"), nullable=False),
    Column("verdict_after", one_of(wire.Verdict, "verdict_after"), nullable=False),
    Column("note", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("counted_at", UtcDateTime),  # when the log and the estimates took it up
    ForeignKeyConstraint(["observation_id", "position"], ["rollouts.observation_id", "rollouts.position"]),
    UniqueConstraint("observation_id", "position"),
)

curricula = Table(
    "curricula",
    metadata,
    Column("curriculum_id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("measurement_id", ForeignKey("measurements.measurement_id"), nullable=False),
    Column("preset", one_of(wire.Preset, "preset"), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("request_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("version >= 1", name="version"),
)

curriculum_versions = Table(
    "curriculum_versions",
    metadata,
    Column("curriculum_id", ForeignKey("curricula.curriculum_id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("rule", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("curriculum_id", ForeignKey("curricula.curriculum_id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("config", JSON, nullable=False),
    Column("state", one_of(wire.RunState, "state"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("curriculum_id", "name"),
)

run_metrics = Table(
    "run_metrics",
    metadata,
    Column("run_id", ForeignKey("runs.run_id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("stage", one_of(wire.Stage, "stage"), nullable=False),
    Column("values", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("step >= 0", name="step_from_zero"),
)

teacher_references = Table(
    "teacher_references",
    metadata,
    Column("teacher", String(200), primary_key=True),
    Column("problem_id", ForeignKey("problems.problem_id"), primary_key=True),
    Column("text", Text, nullable=False),
    count("n_tokens"),
    Column("finish_reason", String(16)),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("finish_reason IN ('stop', 'length')", name="finish_reason"),
    from_zero("n_tokens"),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("is_revoked", Boolean, nullable=False),
)

sign_in_links = Table(
    "sign_in_links",
    metadata,
    Column("link_hash", String(64), primary_key=True),
    Column("key_id", ForeignKey("keys.key_id"), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)
