"""Every estimate again from the observation log: proof that nothing else moves them, and the way back if it did."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select

from app.db.engine import Database
from app.db.tables import abilities, estimates, measurements, observations
from app.db.transaction import reads, rows_as_dicts, writes
from app.flow.estimates.moves import MOVED, NOT_PASSED, fresh_row, moved_row
from app.flow.estimates.skills import AbilityRows, fresh_ability, with_beliefs
from app.flow.estimates.store import UPDATE_ROWS, parameters
from app.flow.rollouts.groups import Group
from app.ids import numbered
from paced.wire import Verdict

N_READ = 10_000
MAX_GAP = 50_000  # ids between two observations of one report, when many report at once


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the rebuild of one measurement found; `changed` are problem ids whose estimate was another."""

    measurement_id: str
    n_observations: int
    n_estimates: int
    changed: list[int]
    n_abilities_changed: int


class RebuildStore:
    """Replays observations in the order of their ids, report by report."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def measurement_ids(self, conn: Connection) -> list[int]:
        """Every measurement, oldest first."""
        c = measurements.c.measurement_id
        return [row.measurement_id for row in conn.execute(select(c).order_by(c))]

    @reads
    def check(self, conn: Connection, measurement_id: int) -> Rebuilt:
        """Compare, change nothing."""
        return (_compared(conn, measurement_id, rows_of(measurement_id)))[0]

    @writes
    def rebuild(self, conn: Connection, measurement_id: int) -> Rebuilt:
        """Overwrite what differs. A running service would not see it: stop it first."""
        found, made = _compared(conn, measurement_id, rows_of(measurement_id).with_for_update())
        if found.changed:
            conn.execute(UPDATE_ROWS, [parameters(made.rows[problem_id]) for problem_id in found.changed])
        if found.n_abilities_changed:
            conn.execute(delete(abilities).where(abilities.c.measurement_id == measurement_id))
            if made.skills:
                conn.execute(insert(abilities), list(made.skills.values()))
        return found


def rows_of(measurement_id: int) -> Select[Any]:
    """The estimate rows of a measurement."""
    return select(estimates).where(estimates.c.measurement_id == measurement_id)


class Replay:
    """The log of one measurement, counted report by report; `rows` and `skills` are what is known so far."""

    def __init__(self, conn: Connection, measurement_id: int, stored: Iterable[dict[str, Any]]) -> None:
        """`stored` are the estimate rows, of which only what observations do not move is read."""
        self._conn = conn
        self._measurement_id = measurement_id
        self.rows = {row["problem_id"]: fresh_row(row) for row in stored}
        self.skills: AbilityRows = {}

    def reports(self) -> Iterator[list[Group]]:
        """The groups of each report in turn; they are counted when the next one is asked for."""
        for report in _reports(self._conn, self._measurement_id):
            groups = [_group(row) for row in sorted(report, key=lambda row: int(row["problem_id"]))]
            yield groups
            self._count(groups, report[0]["created_at"])

    def _count(self, groups: Sequence[Group], now: dt.datetime) -> None:
        for group in groups:
            if group.n_counted:
                skill = self.rows[group.problem_id]["skill"]
                self.skills.setdefault(skill, fresh_ability(self._measurement_id, skill))
        moved = [moved_row(self.rows[group.problem_id], group, now) for group in groups]
        for row in with_beliefs(self.rows, groups, moved, self.skills):
            self.rows[row["problem_id"]] = row


def _compared(conn: Connection, measurement_id: int, query: Select[Any]) -> tuple[Rebuilt, Replay]:
    a = abilities.c
    stored = {row["problem_id"]: row for row in rows_as_dicts(conn.execute(query))}
    known = rows_as_dicts(conn.execute(select(abilities).where(a.measurement_id == measurement_id)))
    made = Replay(conn, measurement_id, stored.values())
    n_observations = 0
    for groups in made.reports():
        n_observations += len(groups)
    found = Rebuilt(
        measurement_id=numbered("mea", measurement_id),
        n_observations=n_observations,
        n_estimates=len(stored),
        changed=[i for i, row in made.rows.items() if any(row[name] != stored[i][name] for name in MOVED)],
        n_abilities_changed=_n_different(made.skills, {row["skill"]: row for row in known}),
    )
    return found, made


def _n_different(made: AbilityRows, stored: AbilityRows) -> int:
    return sum(made.get(skill) != stored.get(skill) for skill in made.keys() | stored.keys())


def _reports(conn: Connection, measurement_id: int) -> Iterator[list[dict[str, Any]]]:
    """Observations as they were written: by report, in the order of each report's first id.

    Ids of reports that were written at once interleave. A report is one origin at one time, and names no problem
    twice (a regrade at one time may: each turn of a problem is a report of its own).
    """
    open_reports: dict[Any, dict[int, dict[str, Any]]] = {}
    for row in _log(conn, measurement_id):
        while open_reports and _is_over(next(iter(open_reports.values())), row):
            yield list(open_reports.pop(next(iter(open_reports))).values())
        origin = (row["created_at"], row["lease_id"], row["batch_id"], row["regraded_from"] is not None)
        turn = 0
        while row["problem_id"] in open_reports.get((origin, turn), {}):
            turn += 1
        open_reports.setdefault((origin, turn), {})[row["problem_id"]] = row
    for report in open_reports.values():
        yield list(report.values())


def _is_over(report: dict[int, dict[str, Any]], row: dict[str, Any]) -> bool:
    newest = next(reversed(report.values()))
    return bool(row["observation_id"] - newest["observation_id"] > MAX_GAP)


def _log(conn: Connection, measurement_id: int) -> Iterator[dict[str, Any]]:
    c, last = observations.c, -1
    while True:
        query = (
            select(observations)
            .where(c.measurement_id == measurement_id, c.observation_id > last)
            .order_by(c.observation_id)
            .limit(N_READ)
        )
        rows = rows_as_dicts(conn.execute(query))
        yield from rows
        if len(rows) < N_READ:
            return
        last = rows[-1]["observation_id"]


def _group(row: dict[str, Any]) -> Group:
    verdicts = Counter({Verdict.PASS: row["n_passed"], **{v: row[f"n_{name}"] for name, v in NOT_PASSED.items()}})
    return Group(row["problem_id"], row["checkpoint_index"], row["source"], row["n_passed"], row["n_counted"], verdicts)
