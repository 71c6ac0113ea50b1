"""Leases on problems, and the graded answers that come back."""

import datetime as dt
import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from app.db.engine import Database
from app.db.tables import estimates, leases, measurements, observations, problem_sets, problems, profiles, rollouts
from app.db.transaction import reads, rows_as_dicts, rows_in, storable, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.rollouts import activity, demand
from app.flow.rollouts.groups import from_rollouts, holdout_threshold
from app.flow.rollouts.measurements import NEVER, measurement_row, sync_rows
from app.flow.rollouts.observer import Observer
from app.flow.rollouts.reroll import Target, choose
from app.flow.students.store import checkpoint_at, latest_checkpoint
from app.http.idempotency import Idempotency
from app.ids import new_id, numbered
from paced.wire import (
    Lease,
    LeaseClaim,
    LeasedProblem,
    LeaseReport,
    LeaseState,
    LeaseStatus,
    ObservationSource,
    Profile,
    ReportReceipt,
    RolloutGroup,
)

AT_ONCE = 16  # groups counted in one transaction


class LeaseStore:
    """Every statement on leases and rollouts."""

    def __init__(self, db: Database, observer: Observer) -> None:
        self.db = db
        self._observer = observer

    @writes
    def claim(
        self,
        conn: Connection,
        measurement_ids: Sequence[int],
        body: LeaseClaim,
        identity: Idempotency,
        now: dt.datetime,
        rng: np.random.Generator,
    ) -> Lease | None:
        """Lease due problems of the first measurement that has any; None when none has."""
        _expire(conn, now)
        activity.forget_old(conn, now)
        known = _lease_of_key(conn, identity)
        if known is not None:
            return _lease(conn, known)
        for measurement_id in measurement_ids:
            measurement = measurement_row(conn, measurement_id)
            _check_student(measurement, body.student)
            checkpoint = latest_checkpoint(conn, measurement["student"])
            if checkpoint is None:
                continue
            sync_rows(conn, measurement_id)
            target = Target(measurement, checkpoint, demand.may_remeasure(conn, measurement))
            chosen, audit_ids = choose(conn, target, body.max_problems, now, rng)
            if chosen:
                lease_id = _insert_lease(conn, target, chosen, audit_ids, body, identity, now)
                return _lease(conn, _locked(conn, lease_id))
        return None

    @reads
    def page(
        self, conn: Connection, measurement_id: int, after: str, limit: int, now: dt.datetime
    ) -> list[LeaseStatus]:
        """Active leases of a measurement by id, each with the problems that it holds."""
        measurement_row(conn, measurement_id)
        query = select(leases).where(leases.c.measurement_id == measurement_id, leases.c.state == LeaseState.ACTIVE)
        rows = rows_as_dicts(
            conn.execute(query.where(leases.c.lease_id > after).order_by(leases.c.lease_id).limit(limit))
        )
        e = estimates.c
        held = select(e.lease_id, e.problem_id).where(e.measurement_id == measurement_id).order_by(e.ordinal)
        missing: dict[str, list[int]] = defaultdict(list)
        for row in rows_in(conn, held, e.lease_id, [row["lease_id"] for row in rows]):
            missing[row["lease_id"]].append(row["problem_id"])
        return [
            LeaseStatus.model_validate(
                {**row, "missing_problem_ids": missing[row["lease_id"]], "is_late": row["expires_at"] <= now}
            )
            for row in rows
        ]

    @writes
    def renew(self, conn: Connection, lease_id: str, token: str, ttl_s: float, now: dt.datetime) -> ReportReceipt:
        """Hold a lease for `ttl_s` from now."""
        _held(_locked(conn, lease_id), token, now)
        expires_at = now + dt.timedelta(seconds=ttl_s)
        conn.execute(update(leases).where(leases.c.lease_id == lease_id).values(expires_at=expires_at))
        mine = estimates.c.lease_id == lease_id
        conn.execute(update(estimates).where(mine).values(lease_expires_at=expires_at))
        return _receipt(conn, lease_id, LeaseState.ACTIVE, 0, 0)

    @writes
    def release(self, conn: Connection, lease_id: str, token: str, now: dt.datetime) -> ReportReceipt:
        """Hand back what was not reported; releasing again changes nothing."""
        lease = _locked(conn, lease_id)
        if lease["state"] == LeaseState.RELEASED and lease["token"] == token:
            return _receipt(conn, lease_id, LeaseState.RELEASED, 0, 0)
        _held(lease, token, now)
        _clear(conn, estimates.c.lease_id == lease_id)
        _set_state(conn, lease_id, LeaseState.RELEASED)
        return _receipt(conn, lease_id, LeaseState.RELEASED, 0, 0)

    @writes
    def report(self, conn: Connection, lease_id: str, body: LeaseReport, now: dt.datetime) -> ReportReceipt:
        """Count each group once: a group known from this lease is replayed, a late one refused.

        No more than AT_ONCE new groups are counted, since draws wait for the writer; report the rest again, later.
        """
        lease = _locked(conn, lease_id)
        if not secrets.compare_digest(lease["token"].encode(), body.token.encode()):
            raise lost(lease, "its token is another one")
        known = _reported(conn, lease_id)
        new = [group for group in body.groups if group.problem_id not in known]
        if new:
            _held(lease, body.token, now)
            self._check(conn, lease, new)
            self._count(conn, lease, new[:AT_ONCE], now)
        n_known = len(body.groups) - len(new)
        receipt = _receipt(conn, lease_id, LeaseState(lease["state"]), len(new[:AT_ONCE]), n_known)
        if receipt.state == LeaseState.ACTIVE and receipt.n_open == 0:
            _set_state(conn, lease_id, LeaseState.DONE)
            receipt = receipt.model_copy(update={"state": LeaseState.DONE})
        return receipt

    def _check(self, conn: Connection, lease: dict[str, Any], new: Sequence[RolloutGroup]) -> None:
        ids = [group.problem_id for group in new]
        if len(set(ids)) < len(ids):
            raise Invalid("a problem stands twice in this report; send each group once", code="duplicate_group")
        mine = select(estimates.c.problem_id).where(estimates.c.lease_id == lease["lease_id"])
        strangers = set(ids) - {row.problem_id for row in conn.execute(mine)}
        if strangers:
            raise Invalid(f"problems {sorted(strangers)[:10]} are not leased by {lease['lease_id']}", code="not_leased")
        wanted = measurement_row(conn, lease["measurement_id"])["n_rollouts"]
        for group in new:
            if len(group.rollouts) != wanted:
                raise Invalid(
                    f"problem {group.problem_id} has {len(group.rollouts)} answers, its measurement asks for {wanted}",
                    code="wrong_group_size",
                )
            if group.checkpoint_index > lease["checkpoint_index"]:
                raise Invalid(
                    f"problem {group.problem_id} names checkpoint {group.checkpoint_index}, but the lease is for "
                    f"{lease['checkpoint_index']}",
                    code="unknown_checkpoint",
                )

    def _count(self, conn: Connection, lease: dict[str, Any], new: Sequence[RolloutGroup], now: dt.datetime) -> None:
        measurement = measurement_row(conn, lease["measurement_id"])
        profile = profile_body(conn, measurement["profile_id"])
        sources, n_known = _sources(conn, lease, measurement, [group.problem_id for group in new])
        groups = [
            from_rollouts(
                group.problem_id,
                group.checkpoint_index,
                group.rollouts,
                sources[group.problem_id],
                lease["lease_id"],
                is_truncated_fail=profile["is_truncated_fail"],
            )
            for group in new
        ]
        observation_ids = self._observer.write(conn, lease["measurement_id"], groups, now)
        conn.execute(insert(rollouts), _rollout_rows(new, observation_ids))
        activity.record(conn, lease["measurement_id"], lease["worker"], new, now)
        if n_known:
            m = measurements.c
            mine = m.measurement_id == lease["measurement_id"]
            conn.execute(update(measurements).where(mine).values(n_remeasured=m.n_remeasured + n_known))
        ids = [group.problem_id for group in new]
        _clear(conn, (estimates.c.lease_id == lease["lease_id"]) & estimates.c.problem_id.in_(ids))


def _insert_lease(
    conn: Connection,
    target: Target,
    chosen: list[int],
    audit_ids: list[int],
    body: LeaseClaim,
    identity: Idempotency,
    now: dt.datetime,
) -> str:
    lease_id, expires_at = new_id("lea"), now + dt.timedelta(seconds=body.ttl_s)
    values = {
        "lease_id": lease_id,
        "measurement_id": target.measurement["measurement_id"],
        "worker": body.worker,
        "token": secrets.token_hex(16),
        "checkpoint_index": target.checkpoint.index,
        "state": LeaseState.ACTIVE,
        "n_problems": len(chosen),
        "audit_ids": audit_ids,
        "idempotency_key": identity.key,
        "request_hash": identity.request_hash,
        "created_at": now,
        "expires_at": expires_at,
    }
    conn.execute(insert(leases).values(**values))
    mine = (estimates.c.measurement_id == values["measurement_id"]) & estimates.c.problem_id.in_(chosen)
    conn.execute(update(estimates).where(mine).values(lease_id=lease_id, lease_expires_at=expires_at))
    return lease_id


def _lease(conn: Connection, lease: dict[str, Any]) -> Lease:
    measurement = measurement_row(conn, lease["measurement_id"])
    profile = profile_body(conn, measurement["profile_id"])
    c = problems.c
    query = (
        select(c.problem_id, c.prompt, c.answer, c.grader, problem_sets.c.policy)
        .join(problem_sets, problem_sets.c.name == c.problem_set)
        .join(estimates, estimates.c.problem_id == c.problem_id)
        .where(estimates.c.lease_id == lease["lease_id"])
        .order_by(estimates.c.ordinal)
    )
    items = [
        LeasedProblem(
            problem_id=row.problem_id,
            prompt=orjson.loads(row.prompt),
            answer=row.answer,
            grader=profile["grader"] or row.grader,
            policy=profile.get("policy") or row.policy,
            n_rollouts=measurement["n_rollouts"],
        )
        for row in conn.execute(query)
    ]
    checkpoint = checkpoint_at(conn, measurement["student"], lease["checkpoint_index"])
    return Lease(
        lease_id=lease["lease_id"],
        token=lease["token"],
        state=lease["state"],
        measurement_id=numbered("mea", lease["measurement_id"]),
        checkpoint=checkpoint,
        profile=Profile.model_validate(profile),
        expires_at=lease["expires_at"],
        problems=items,
    )


def _check_student(measurement: dict[str, Any], student: str) -> None:
    if measurement["student"] != student:
        raise Invalid(
            f"measurement {numbered('mea', measurement['measurement_id'])} is of student {measurement['student']!r}, "
            f"not of {student!r}; claim from a measurement of this student",
            code="measurement_of_other_student",
        )


def lost(lease: dict[str, Any], why: str) -> Conflict:
    """The caller no longer holds the lease."""
    return Conflict(
        f"lease {lease['lease_id']} of worker {lease['worker']!r} is not yours any more: {why}; "
        "drop its unreported answers and claim a new lease",
        code="lease_lost",
        state=lease["state"],
    )


def _held(lease: dict[str, Any], token: str, now: dt.datetime) -> None:
    if not secrets.compare_digest(lease["token"].encode(), token.encode()):
        raise lost(lease, "its token is another one")
    if lease["state"] != LeaseState.ACTIVE:
        raise lost(lease, f"it is {lease['state']}")
    if lease["expires_at"] <= now:
        raise lost({**lease, "state": LeaseState.EXPIRED}, f"it expired at {lease['expires_at']:%H:%M:%S} UTC")


def _locked(conn: Connection, lease_id: str) -> dict[str, Any]:
    query = select(leases).where(leases.c.lease_id == lease_id).with_for_update()
    row = conn.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"there is no lease {lease_id!r}")
    return dict(row)


def _lease_of_key(conn: Connection, identity: Idempotency) -> dict[str, Any] | None:
    if identity.key is None:
        return None
    row = conn.execute(select(leases).where(leases.c.idempotency_key == identity.key)).mappings().first()
    if row is None:
        return None
    identity.check(row["request_hash"])
    return dict(row)


def _expire(conn: Connection, now: dt.datetime) -> None:
    late = (leases.c.state == LeaseState.ACTIVE) & (leases.c.expires_at <= now)
    statement = update(leases).where(late).values(state=LeaseState.EXPIRED).returning(leases.c.lease_id)
    expired = [row.lease_id for row in conn.execute(statement)]
    if expired:
        _clear(conn, estimates.c.lease_id.in_(expired))


def _clear(conn: Connection, condition: ColumnElement[bool]) -> None:
    conn.execute(update(estimates).where(condition).values(lease_id=None, lease_expires_at=None))


def _set_state(conn: Connection, lease_id: str, state: LeaseState) -> None:
    conn.execute(update(leases).where(leases.c.lease_id == lease_id).values(state=state))


def _reported(conn: Connection, lease_id: str) -> set[int]:
    query = select(observations.c.problem_id).where(observations.c.lease_id == lease_id)
    return {row.problem_id for row in conn.execute(query)}


def _receipt(conn: Connection, lease_id: str, state: LeaseState, n_accepted: int, n_replayed: int) -> ReportReceipt:
    query = select(func.count()).select_from(estimates).where(estimates.c.lease_id == lease_id)
    n_open = conn.execute(query).scalar_one()
    return ReportReceipt(lease_id=lease_id, state=state, n_accepted=n_accepted, n_replayed=n_replayed, n_open=n_open)


def profile_body(conn: Connection, profile_id: str) -> dict[str, Any]:
    """A profile's content with its id and time."""
    row = rows_as_dicts(conn.execute(select(profiles).where(profiles.c.profile_id == profile_id)))[0]
    return {**row["body"], "profile_id": profile_id, "created_at": row["created_at"]}


def _sources(
    conn: Connection, lease: dict[str, Any], measurement: dict[str, Any], ids: Sequence[int]
) -> tuple[dict[int, ObservationSource], int]:
    """Why each problem was measured, and how many training problems were measured before."""
    c = estimates.c
    query = select(c.problem_id, c.holdout_key, c.checkpoint_index).where(
        c.measurement_id == lease["measurement_id"], c.problem_id.in_(ids)
    )
    threshold, audit = holdout_threshold(measurement["holdout_share"]), set(lease["audit_ids"])
    sources, n_known = {}, 0
    for row in conn.execute(query):
        trained = ObservationSource.AUDIT if row.problem_id in audit else ObservationSource.OLDEST
        is_held_out = row.holdout_key < threshold
        sources[row.problem_id] = ObservationSource.HOLDOUT if is_held_out else trained
        n_known += not is_held_out and row.checkpoint_index > NEVER
    return sources, n_known


def _rollout_rows(groups: Sequence[RolloutGroup], observation_ids: dict[int, int]) -> list[dict[str, Any]]:
    return [
        {
            "observation_id": observation_ids[group.problem_id],
            "position": position,
            **{name: storable(value) if isinstance(value, str) else value for name, value in vars(rollout).items()},
        }
        for group in groups
        for position, rollout in enumerate(group.rollouts)
    ]
