"""initial schema"""

import sqlalchemy as sa
from alembic import op

from app.db.tables import current_transaction

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_keys")),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("link_hash", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.key_id"], name=op.f("fk_sign_in_links_key_id")),
        sa.PrimaryKeyConstraint("link_hash", name=op.f("pk_sign_in_links")),
    )
    op.create_table(
        "problem_sets",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("grader", sa.String(length=80), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("n_problems", sa.Integer(), nullable=False),
        sa.Column("n_flagged", sa.Integer(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            '"n_problems" >= 0 AND "n_flagged" >= 0 AND "n_rows" >= 0 AND "state_version" >= 0',
            name=op.f("ck_problem_sets_from_zero"),
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_problem_sets")),
    )
    op.create_table(
        "profiles",
        sa.Column("profile_id", sa.String(length=32), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("profile_id", name=op.f("pk_profiles")),
    )
    op.create_table(
        "students",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_students")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("student", sa.String(length=64), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("parent_index", sa.Integer(), nullable=True),
        sa.Column("forked_after", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.String(length=64), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint('"index" >= 0', name=op.f("ck_checkpoints_index_from_zero")),
        sa.CheckConstraint(
            '(forked_after IS NOT NULL) = (parent_index IS NOT NULL AND parent_index < "index" - 1)',
            name=op.f("ck_checkpoints_fork_has_place"),
        ),
        sa.ForeignKeyConstraint(
            ["student", "parent_index"],
            ["checkpoints.student", "checkpoints.index"],
            name=op.f("fk_checkpoints_student_parent_index"),
        ),
        sa.ForeignKeyConstraint(["student"], ["students.name"], name=op.f("fk_checkpoints_student")),
        sa.PrimaryKeyConstraint("student", "index", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("student", "idempotency_key", name=op.f("uq_checkpoints_student_idempotency_key")),
    )
    op.create_index(
        "ix_checkpoints_forks",
        "checkpoints",
        ["student", "index"],
        unique=False,
        sqlite_where=sa.text("forked_after IS NOT NULL"),
        postgresql_where=sa.text("forked_after IS NOT NULL"),
    )
    op.create_table(
        "imports",
        sa.Column("import_id", sa.String(length=32), nullable=False),
        sa.Column("problem_set", sa.String(length=64), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["problem_set"], ["problem_sets.name"], name=op.f("fk_imports_problem_set")),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_imports")),
    )
    op.create_table(
        "measurements",
        sa.Column(
            "measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("student", sa.String(length=64), nullable=False),
        sa.Column("problem_set", sa.String(length=64), nullable=False),
        sa.Column("profile_id", sa.String(length=32), nullable=False),
        sa.Column("n_rollouts", sa.Integer(), nullable=False),
        sa.Column("holdout_share", sa.Float(), nullable=False),
        sa.Column("n_problems", sa.Integer(), nullable=False),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("n_remeasured", sa.Integer(), nullable=False),
        sa.Column("samples_per_measurement", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("samples_per_measurement >= 0", name=op.f("ck_measurements_samples_per_measurement")),
        sa.CheckConstraint(
            '"n_problems" >= 0 AND "state_version" >= 0 AND "n_remeasured" >= 0', name=op.f("ck_measurements_from_zero")
        ),
        sa.CheckConstraint("holdout_share >= 0 AND holdout_share < 1", name=op.f("ck_measurements_holdout_share")),
        sa.CheckConstraint("n_rollouts >= 1", name=op.f("ck_measurements_n_rollouts")),
        sa.ForeignKeyConstraint(["problem_set"], ["problem_sets.name"], name=op.f("fk_measurements_problem_set")),
        sa.ForeignKeyConstraint(["profile_id"], ["profiles.profile_id"], name=op.f("fk_measurements_profile_id")),
        sa.ForeignKeyConstraint(["student"], ["students.name"], name=op.f("fk_measurements_student")),
        sa.PrimaryKeyConstraint("measurement_id", name=op.f("pk_measurements")),
        sa.UniqueConstraint(
            "student", "problem_set", "profile_id", name=op.f("uq_measurements_student_problem_set_profile_id")
        ),
    )
    op.create_table(
        "problems",
        sa.Column(
            "problem_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("problem_set", sa.String(length=64), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=32), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("grader", sa.String(length=80), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("solution", sa.Text(), nullable=True),
        sa.Column("multiplicity", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("ready", "flagged", "excluded", name="state", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column(
            "flag",
            sa.Enum(
                "conflicting_answers",
                "no_answer",
                "proof",
                "placeholder",
                "missing_figure",
                "multi_part",
                "overlap",
                "review",
                name="flag",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("flag_detail", sa.Text(), nullable=True),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("import_id", sa.String(length=32), nullable=False),
        sa.Column("import_count", sa.Integer(), nullable=False),
        sa.Column("holdout_key", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state = 'ready' OR flag IS NOT NULL", name=op.f("ck_problems_flag_says_why")),
        sa.CheckConstraint('"ordinal" >= 0 AND "import_count" >= 0', name=op.f("ck_problems_from_zero")),
        sa.CheckConstraint("holdout_key BETWEEN 0 AND 65535", name=op.f("ck_problems_holdout")),
        sa.CheckConstraint("multiplicity >= 1", name=op.f("ck_problems_multiplicity")),
        sa.ForeignKeyConstraint(["problem_set"], ["problem_sets.name"], name=op.f("fk_problems_problem_set")),
        sa.PrimaryKeyConstraint("problem_id", name=op.f("pk_problems")),
        sa.UniqueConstraint("problem_set", "fingerprint", name=op.f("uq_problems_problem_set_fingerprint")),
        sa.UniqueConstraint("problem_set", "ordinal", name=op.f("uq_problems_problem_set_ordinal")),
    )
    op.create_index("ix_problems_changed", "problems", ["problem_set", "state_version"], unique=False)
    op.create_index("ix_problems_flagged", "problems", ["problem_set", "state", "ordinal"], unique=False)
    op.create_table(
        "activity",
        sa.Column("measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n_groups", sa.Integer(), nullable=False),
        sa.Column("n_tokens", sa.Integer(), nullable=False),
        sa.Column("n_pass", sa.Integer(), nullable=False),
        sa.Column("n_fail", sa.Integer(), nullable=False),
        sa.Column("n_truncated", sa.Integer(), nullable=False),
        sa.Column("n_timeout", sa.Integer(), nullable=False),
        sa.Column("n_grader_error", sa.Integer(), nullable=False),
        sa.Column("n_infrastructure", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            '"n_groups" >= 0 AND "n_tokens" >= 0 AND "n_pass" >= 0 AND "n_fail" >= 0 AND "n_truncated" >= 0 '
            'AND "n_timeout" >= 0 AND "n_grader_error" >= 0 AND "n_infrastructure" >= 0',
            name=op.f("ck_activity_from_zero"),
        ),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurements.measurement_id"], name=op.f("fk_activity_measurement_id")
        ),
        sa.PrimaryKeyConstraint("measurement_id", "worker", "minute", name=op.f("pk_activity")),
    )
    op.create_index("ix_activity_minute", "activity", ["minute"], unique=False)
    op.create_table(
        "abilities",
        sa.Column("measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("skill", sa.String(length=64), nullable=False),
        sa.Column("level", sa.Float(), nullable=False),
        sa.Column("variance", sa.Float(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("n_groups", sa.Integer(), nullable=False),
        sa.Column("audit_n", sa.Float(), nullable=False),
        sa.Column("audit_sum", sa.Float(), nullable=False),
        sa.Column("audit_square", sa.Float(), nullable=False),
        sa.Column("audit_noise", sa.Float(), nullable=False),
        sa.CheckConstraint('"index" >= 0 AND "n_groups" >= 0', name=op.f("ck_abilities_from_zero")),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurements.measurement_id"], name=op.f("fk_abilities_measurement_id")
        ),
        sa.PrimaryKeyConstraint("measurement_id", "skill", name=op.f("pk_abilities")),
    )
    op.create_table(
        "curricula",
        sa.Column("curriculum_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "preset",
            sa.Enum(
                "default",
                "paper",
                "hard_filter",
                "uniform",
                name="preset",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_curricula_version")),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurements.measurement_id"], name=op.f("fk_curricula_measurement_id")
        ),
        sa.PrimaryKeyConstraint("curriculum_id", name=op.f("pk_curricula")),
        sa.UniqueConstraint("name", name=op.f("uq_curricula_name")),
    )
    op.create_table(
        "decisions",
        sa.Column(
            "decision_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("problem_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "state_before",
            sa.Enum(
                "ready",
                "flagged",
                "excluded",
                name="state_before",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "state_after",
            sa.Enum(
                "ready", "flagged", "excluded", name="state_after", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("answer_before", sa.Text(), nullable=False),
        sa.Column("answer_after", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.problem_id"], name=op.f("fk_decisions_problem_id")),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_problem_id"), "decisions", ["problem_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.String(length=32), nullable=False),
        sa.Column("measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("checkpoint_index", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "active",
                "done",
                "released",
                "expired",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("n_problems", sa.Integer(), nullable=False),
        sa.Column("audit_ids", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint('"n_problems" >= 0', name=op.f("ck_leases_from_zero")),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurements.measurement_id"], name=op.f("fk_leases_measurement_id")
        ),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_leases")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_leases_idempotency_key")),
    )
    op.create_index("ix_leases_state_expires_at", "leases", ["state", "expires_at"], unique=False)
    op.create_table(
        "teacher_references",
        sa.Column("teacher", sa.String(length=200), nullable=False),
        sa.Column("problem_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("n_tokens", sa.Integer(), nullable=False),
        sa.Column("finish_reason", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("finish_reason IN ('stop', 'length')", name=op.f("ck_teacher_references_finish_reason")),
        sa.CheckConstraint('"n_tokens" >= 0', name=op.f("ck_teacher_references_from_zero")),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.problem_id"], name=op.f("fk_teacher_references_problem_id")),
        sa.PrimaryKeyConstraint("teacher", "problem_id", name=op.f("pk_teacher_references")),
    )
    op.create_table(
        "curriculum_versions",
        sa.Column("curriculum_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["curriculum_id"], ["curricula.curriculum_id"], name=op.f("fk_curriculum_versions_curriculum_id")
        ),
        sa.PrimaryKeyConstraint("curriculum_id", "version", name=op.f("pk_curriculum_versions")),
    )
    op.create_table(
        "estimates",
        sa.Column("measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("problem_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("holdout_key", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("ready", "flagged", "excluded", name="state", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("n_groups", sa.Integer(), nullable=False),
        sa.Column("n_passed", sa.Integer(), nullable=False),
        sa.Column("n_counted", sa.Integer(), nullable=False),
        sa.Column("first_passed", sa.Integer(), nullable=False),
        sa.Column("first_counted", sa.Integer(), nullable=False),
        sa.Column("last_passed", sa.Integer(), nullable=False),
        sa.Column("last_counted", sa.Integer(), nullable=False),
        sa.Column("discounted_passed", sa.Float(), nullable=False),
        sa.Column("discounted_failed", sa.Float(), nullable=False),
        sa.Column("logit_mean", sa.Float(), nullable=False),
        sa.Column("logit_variance", sa.Float(), nullable=False),
        sa.Column("ability_seen", sa.Float(), nullable=False),
        sa.Column("belief_index", sa.Integer(), nullable=False),
        sa.Column("alone_mean", sa.Float(), nullable=False),
        sa.Column("alone_variance", sa.Float(), nullable=False),
        sa.Column("skill", sa.String(length=64), nullable=False),
        sa.Column("n_failed", sa.Integer(), nullable=False),
        sa.Column("n_truncated", sa.Integer(), nullable=False),
        sa.Column("n_timeout", sa.Integer(), nullable=False),
        sa.Column("n_grader_error", sa.Integer(), nullable=False),
        sa.Column("n_infrastructure", sa.Integer(), nullable=False),
        sa.Column("checkpoint_index", sa.Integer(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_streak", sa.Integer(), nullable=False),
        sa.Column("quarantine_reason", sa.Text(), nullable=True),
        sa.Column("quarantined_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_id", sa.String(length=32), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            '"ordinal" >= 0 AND "n_groups" >= 0 AND "n_passed" >= 0 AND "n_counted" >= 0 AND "first_passed" >= 0 AND "first_counted" >= 0 AND "last_passed" >= 0 AND "last_counted" >= 0 AND "n_failed" >= 0 AND "n_truncated" >= 0 AND "n_timeout" >= 0 AND "n_grader_error" >= 0 AND "n_infrastructure" >= 0 AND "failure_streak" >= 0 AND "belief_index" >= 0',
            name=op.f("ck_estimates_from_zero"),
        ),
        sa.CheckConstraint(
            "(lease_id IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_estimates_lease_has_expiry")
        ),
        sa.CheckConstraint("first_passed <= first_counted", name=op.f("ck_estimates_first_within_counted")),
        sa.CheckConstraint("last_passed <= last_counted", name=op.f("ck_estimates_last_within_counted")),
        sa.CheckConstraint("n_passed <= n_counted", name=op.f("ck_estimates_passed_within_counted")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.lease_id"], name=op.f("fk_estimates_lease_id")),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurements.measurement_id"], name=op.f("fk_estimates_measurement_id")
        ),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.problem_id"], name=op.f("fk_estimates_problem_id")),
        sa.PrimaryKeyConstraint("measurement_id", "problem_id", name=op.f("pk_estimates")),
        sa.UniqueConstraint("measurement_id", "ordinal", name=op.f("uq_estimates_measurement_id_ordinal")),
    )
    op.create_index("ix_estimates_due", "estimates", ["measurement_id", "checkpoint_index", "ordinal"], unique=False)
    op.create_index(
        "ix_estimates_holdout", "estimates", ["measurement_id", "holdout_key", "checkpoint_index"], unique=False
    )
    op.create_index("ix_estimates_lease_id", "estimates", ["lease_id"], unique=False)
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("curriculum_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "running", "finished", "failed", name="state", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["curriculum_id"], ["curricula.curriculum_id"], name=op.f("fk_runs_curriculum_id")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
        sa.UniqueConstraint("curriculum_id", "name", name=op.f("uq_runs_curriculum_id_name")),
    )
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(length=32), nullable=False),
        sa.Column("curriculum_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column(
            "stage",
            sa.Enum("forward_kl", "reverse_kl", name="stage", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column(
            "mode",
            sa.Enum("sample", "reweight", name="mode", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "open", "acknowledged", "expired", name="state", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("watermark", sa.BigInteger(), nullable=False),
        sa.Column("n_served", sa.Integer(), nullable=False),
        sa.Column("n_eligible", sa.Integer(), nullable=False),
        sa.Column("n_hard_filter", sa.Integer(), nullable=False),
        sa.Column("ordinals", sa.LargeBinary(), nullable=False),
        sa.Column("problem_ids", sa.LargeBinary(), nullable=False),
        sa.Column("pass_rates", sa.LargeBinary(), nullable=False),
        sa.Column("weights", sa.LargeBinary(), nullable=False),
        sa.Column("draw_probabilities", sa.LargeBinary(), nullable=False),
        sa.Column("loss_weights", sa.LargeBinary(), nullable=False),
        sa.Column("posteriors", sa.LargeBinary(), nullable=False),
        sa.Column("shortfall", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("idempotency_key", sa.String(length=210), nullable=True),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'acknowledged') = (acknowledged_at IS NOT NULL)", name=op.f("ck_batches_acknowledged_has_time")
        ),
        sa.CheckConstraint(
            '"seq" >= 0 AND "step" >= 0 AND "n_served" >= 0 AND "n_eligible" >= 0 AND "n_hard_filter" >= 0',
            name=op.f("ck_batches_from_zero"),
        ),
        sa.CheckConstraint("size >= 1", name=op.f("ck_batches_size")),
        sa.ForeignKeyConstraint(["curriculum_id"], ["curricula.curriculum_id"], name=op.f("fk_batches_curriculum_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_batches_run_id")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batches")),
        sa.UniqueConstraint("curriculum_id", "idempotency_key", name=op.f("uq_batches_curriculum_id_idempotency_key")),
        sa.UniqueConstraint("curriculum_id", "seq", name=op.f("uq_batches_curriculum_id_seq")),
    )
    op.create_index("ix_batches_open", "batches", ["curriculum_id", "state", "expires_at"], unique=False)
    op.create_index("ix_batches_step", "batches", ["run_id", "step"], unique=False)
    op.create_table(
        "run_metrics",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column(
            "stage",
            sa.Enum("forward_kl", "reverse_kl", name="stage", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("step >= 0", name=op.f("ck_run_metrics_step_from_zero")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_metrics_run_id")),
        sa.PrimaryKeyConstraint("run_id", "step", name=op.f("pk_run_metrics")),
    )
    op.create_table(
        "observations",
        sa.Column(
            "observation_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("measurement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("problem_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("checkpoint_index", sa.Integer(), nullable=False),
        sa.Column(
            "source",
            sa.Enum(
                "holdout",
                "oldest",
                "audit",
                "trainer",
                name="source",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("lease_id", sa.String(length=32), nullable=True),
        sa.Column("batch_id", sa.String(length=32), nullable=True),
        sa.Column("regraded_from", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("n_passed", sa.Integer(), nullable=False),
        sa.Column("n_counted", sa.Integer(), nullable=False),
        sa.Column("n_failed", sa.Integer(), nullable=False),
        sa.Column("n_truncated", sa.Integer(), nullable=False),
        sa.Column("n_timeout", sa.Integer(), nullable=False),
        sa.Column("n_grader_error", sa.Integer(), nullable=False),
        sa.Column("n_infrastructure", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("xact", sa.BigInteger(), server_default=current_transaction(), nullable=False),
        sa.CheckConstraint(
            '"n_passed" >= 0 AND "n_counted" >= 0 AND "n_failed" >= 0 AND "n_truncated" >= 0 AND "n_timeout" >= 0 AND "n_grader_error" >= 0 AND "n_infrastructure" >= 0',
            name=op.f("ck_observations_from_zero"),
        ),
        sa.CheckConstraint(
            "CASE WHEN lease_id IS NULL THEN 0 ELSE 1 END + CASE WHEN batch_id IS NULL THEN 0 ELSE 1 END + CASE WHEN regraded_from IS NULL THEN 0 ELSE 1 END = 1",
            name=op.f("ck_observations_one_origin"),
        ),
        sa.CheckConstraint("n_passed <= n_counted", name=op.f("ck_observations_passed_within_counted")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.batch_id"], name=op.f("fk_observations_batch_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.lease_id"], name=op.f("fk_observations_lease_id")),
        sa.ForeignKeyConstraint(
            ["measurement_id", "problem_id"],
            ["estimates.measurement_id", "estimates.problem_id"],
            name=op.f("fk_observations_measurement_id_problem_id"),
        ),
        sa.ForeignKeyConstraint(
            ["regraded_from"], ["observations.observation_id"], name=op.f("fk_observations_regraded_from")
        ),
        sa.PrimaryKeyConstraint("observation_id", name=op.f("pk_observations")),
        sa.UniqueConstraint("batch_id", "problem_id", name=op.f("uq_observations_batch_id_problem_id")),
        sa.UniqueConstraint("lease_id", "problem_id", name=op.f("uq_observations_lease_id_problem_id")),
        sa.UniqueConstraint(
            "measurement_id", "regraded_from", name=op.f("uq_observations_measurement_id_regraded_from")
        ),
    )
    op.create_index("ix_observations_checkpoint", "observations", ["measurement_id", "checkpoint_index"], unique=False)
    op.create_index(
        "ix_observations_problem", "observations", ["measurement_id", "problem_id", "observation_id"], unique=False
    )
    op.create_index("ix_observations_xact", "observations", ["measurement_id", "xact"], unique=False)
    op.create_table(
        "rollouts",
        sa.Column("observation_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "verdict",
            sa.Enum(
                "pass",
                "fail",
                "truncated",
                "timeout",
                "grader_error",
                "infrastructure",
                name="verdict",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("n_tokens", sa.Integer(), nullable=False),
        sa.Column("extracted", sa.Text(), nullable=True),
        sa.Column("grading_s", sa.Float(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.CheckConstraint('"n_tokens" >= 0', name=op.f("ck_rollouts_from_zero")),
        sa.ForeignKeyConstraint(
            ["observation_id"], ["observations.observation_id"], name=op.f("fk_rollouts_observation_id")
        ),
        sa.PrimaryKeyConstraint("observation_id", "position", name=op.f("pk_rollouts")),
    )
    op.create_table(
        "reviews",
        sa.Column(
            "review_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("observation_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column(
            "verdict_before",
            sa.Enum(
                "pass",
                "fail",
                "truncated",
                "timeout",
                "grader_error",
                "infrastructure",
                name="verdict_before",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "verdict_after",
            sa.Enum(
                "pass",
                "fail",
                "truncated",
                "timeout",
                "grader_error",
                "infrastructure",
                name="verdict_after",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["observation_id", "position"],
            ["rollouts.observation_id", "rollouts.position"],
            name=op.f("fk_reviews_observation_id_position"),
        ),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("observation_id", "position", name=op.f("uq_reviews_observation_id_position")),
    )


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_table("rollouts")
    op.drop_index("ix_observations_xact", table_name="observations")
    op.drop_index("ix_observations_problem", table_name="observations")
    op.drop_index("ix_observations_checkpoint", table_name="observations")
    op.drop_table("observations")
    op.drop_table("run_metrics")
    op.drop_index("ix_batches_step", table_name="batches")
    op.drop_index("ix_batches_open", table_name="batches")
    op.drop_table("batches")
    op.drop_table("runs")
    op.drop_index("ix_estimates_lease_id", table_name="estimates")
    op.drop_index("ix_estimates_holdout", table_name="estimates")
    op.drop_index("ix_estimates_due", table_name="estimates")
    op.drop_table("estimates")
    op.drop_table("curriculum_versions")
    op.drop_table("teacher_references")
    op.drop_index("ix_leases_state_expires_at", table_name="leases")
    op.drop_table("leases")
    op.drop_index(op.f("ix_decisions_problem_id"), table_name="decisions")
    op.drop_table("decisions")
    op.drop_table("curricula")
    op.drop_table("abilities")
    op.drop_index("ix_activity_minute", table_name="activity")
    op.drop_table("activity")
    op.drop_index("ix_problems_flagged", table_name="problems")
    op.drop_index("ix_problems_changed", table_name="problems")
    op.drop_table("problems")
    op.drop_table("measurements")
    op.drop_table("imports")
    op.drop_table("checkpoints")
    op.drop_table("students")
    op.drop_table("profiles")
    op.drop_table("problem_sets")
    op.drop_table("sign_in_links")
    op.drop_table("keys")
