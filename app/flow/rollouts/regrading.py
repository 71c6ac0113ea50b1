"""Stored answers in the database, and new verdicts on them: a measurement under another grader without new rollouts."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, exists, insert, select, update

from app.db.engine import Database
from app.db.tables import measurements, observations, problem_sets, problems, rollouts
from app.db.transaction import reads, rows_as_dicts, rows_in, storable, writes
from app.errors import Invalid
from app.flow.rollouts.groups import Group, counted
from app.flow.rollouts.measurements import measurement_row, sync_rows
from app.flow.rollouts.observer import Observer
from app.flow.rollouts.store import profile_body
from app.ids import numbered
from paced.wire import NewVerdict, RegradedGroup, RegradeReceipt, StoredGroup, StoredRollout


class RegradingStore:
    """Every statement on stored answers and their new verdicts."""

    def __init__(self, db: Database, observer: Observer) -> None:
        self.db = db
        self._observer = observer

    @reads
    def page(
        self, conn: Connection, measurement_id: int, missing_in: int | None, after: int, limit: int
    ) -> list[StoredGroup]:
        """Observations with stored answers, oldest first; only those not yet regraded into `missing_in`."""
        profile = profile_body(conn, measurement_row(conn, measurement_id)["profile_id"])
        o, p = observations.c, problems.c
        query = (
            select(o.observation_id, o.problem_id, o.checkpoint_index, p.answer, p.grader, problem_sets.c.policy)
            .join(problems, p.problem_id == o.problem_id)
            .join(problem_sets, problem_sets.c.name == p.problem_set)
            .where(o.measurement_id == measurement_id, o.observation_id > after, o.batch_id.is_(None))
            .order_by(o.observation_id)
            .limit(limit)
        )
        if missing_in is not None:
            copies = observations.alias()
            known = (copies.c.measurement_id == missing_in) & (copies.c.regraded_from == o.observation_id)
            query = query.where(~exists().where(known))
        rows = rows_as_dicts(conn.execute(query))
        answers = _answers(conn, [row["observation_id"] for row in rows])
        return [
            StoredGroup.model_validate(
                {
                    **row,
                    "grader": profile["grader"] or row["grader"],
                    "policy": profile["policy"] or row["policy"],
                    "rollouts": answers[row["observation_id"]],
                }
            )
            for row in rows
        ]

    @reads
    def answers(self, conn: Connection, observation_ids: Sequence[int]) -> dict[int, list[StoredRollout]]:
        """Stored answers by observation, each in its order."""
        found = _answers(conn, list(observation_ids))
        return {number: [StoredRollout.model_validate(row) for row in rows] for number, rows in found.items()}

    @writes
    def take(
        self, conn: Connection, measurement_id: int, groups: Sequence[RegradedGroup], now: dt.datetime
    ) -> RegradeReceipt:
        """Copy observations into this measurement under their new verdicts, each once."""
        measurement = measurement_row(conn, measurement_id)
        profile = profile_body(conn, measurement["profile_id"])
        by_id = {group.observation_id: group for group in groups}
        if len(by_id) < len(groups):
            raise Invalid("an observation stands twice in this report; send each group once", code="duplicate_group")
        old = self._origins(conn, measurement, list(by_id))
        known = _known(conn, measurement_id, list(by_id))
        new = [old[i] for i in sorted(by_id) if i not in known]
        answers = _answers(conn, [row["observation_id"] for row in new])
        n_changed = 0
        sync_rows(conn, measurement_id)
        for wave in _waves(new):
            taken = [
                _regraded(row, by_id[row["observation_id"]], answers[row["observation_id"]], profile) for row in wave
            ]
            n_changed += sum(n for _, n in taken)
            ids = self._observer.write(conn, measurement_id, [group for group, _ in taken], now)
            rows = [
                {**values, "observation_id": ids[row["problem_id"]]}
                for row in wave
                for values in _rows(answers[row["observation_id"]], by_id[row["observation_id"]].verdicts)
            ]
            conn.execute(insert(rollouts), rows)
        return RegradeReceipt(
            measurement_id=numbered("mea", measurement_id),
            n_accepted=len(new),
            n_replayed=len(known),
            n_changed=n_changed,
        )

    def _origins(self, conn: Connection, measurement: dict[str, Any], ids: list[int]) -> dict[int, dict[str, Any]]:
        o = observations.c
        rows = {row["observation_id"]: row for row in rows_in(conn, select(observations), o.observation_id, ids)}
        strangers = [i for i in ids if i not in rows or rows[i]["batch_id"] is not None]
        if strangers:
            raise Invalid(f"observations {strangers[:10]} hold no stored answers", code="unknown_observation")
        for origin in {row["measurement_id"] for row in rows.values()}:
            other = measurement_row(conn, origin)
            if (other["student"], other["problem_set"]) != (measurement["student"], measurement["problem_set"]):
                raise Invalid(
                    f"{numbered('mea', origin)} is of another student or problem set than "
                    f"{numbered('mea', measurement['measurement_id'])}",
                    code="other_measurement",
                )
            if origin == measurement["measurement_id"]:
                raise Invalid("answers are regraded into another measurement than their own", code="same_measurement")
            _hold_out(conn, measurement, other["holdout_share"])
        return rows


def _hold_out(conn: Connection, measurement: dict[str, Any], share: float) -> None:
    """What the origin held out stays held out, so that hold-out pass rates compare."""
    if share > measurement["holdout_share"]:
        mine = measurements.c.measurement_id == measurement["measurement_id"]
        conn.execute(update(measurements).where(mine).values(holdout_share=share))


def _answers(conn: Connection, observation_ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    r = rollouts.c
    query = select(rollouts).order_by(r.observation_id, r.position)
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_in(conn, query, r.observation_id, observation_ids):
        found[row["observation_id"]].append(row)
    return found


def _known(conn: Connection, measurement_id: int, ids: list[int]) -> set[int]:
    o = observations.c
    query = select(o.regraded_from).where(o.measurement_id == measurement_id)
    return {row["regraded_from"] for row in rows_in(conn, query, o.regraded_from, ids)}


def _waves(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows in order, split so that no problem stands twice in a wave: estimates follow one group at a time."""
    waves: list[list[dict[str, Any]]] = []
    n_seen: Counter[int] = Counter()
    for row in rows:
        place = n_seen[row["problem_id"]]
        n_seen[row["problem_id"]] += 1
        if place == len(waves):
            waves.append([])
        waves[place].append(row)
    return waves


def _regraded(
    row: dict[str, Any], group: RegradedGroup, answers: list[dict[str, Any]], profile: dict[str, Any]
) -> tuple[Group, int]:
    """The group under its new verdicts, and how many of them are new."""
    if len(group.verdicts) != len(answers):
        raise Invalid(
            f"observation {group.observation_id} has {len(answers)} answers, not {len(group.verdicts)}",
            code="wrong_group_size",
        )
    verdicts = Counter(new.verdict for new in group.verdicts)
    n_passed, n_counted = counted(verdicts, is_truncated_fail=profile["is_truncated_fail"])
    n_changed = sum(new.verdict != old["verdict"] for new, old in zip(group.verdicts, answers, strict=True))
    made = Group(
        row["problem_id"],
        row["checkpoint_index"],
        row["source"],
        n_passed,
        n_counted,
        verdicts,
        regraded_from=row["observation_id"],
    )
    return made, n_changed


def _rows(answers: list[dict[str, Any]], verdicts: Sequence[NewVerdict]) -> list[dict[str, Any]]:
    return [
        {
            "position": old["position"],
            "text": old["text"],
            "n_tokens": old["n_tokens"],
            **{name: storable(value) if isinstance(value, str) else value for name, value in new},
        }
        for old, new in zip(answers, verdicts, strict=True)
    ]
