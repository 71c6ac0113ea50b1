"""Every estimate again from the observation log: proof that nothing else moves them, and the way back if it did."""

import datetime as dt
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select

from app.db.engine import Database
from app.db.tables import abilities, estimates, measurements, observations
from app.db.transaction import reads, rows_as_dicts, writes
from app.flow.estimates.branches import forked_ability, forked_row, reported
from app.flow.estimates.moves import MOVED, NOT_PASSED, fresh_row
from app.flow.estimates.skills import AbilityRows, abilities_of, fresh_ability, store_abilities
from app.flow.estimates.store import UPDATE_ROWS, parameters
from app.flow.estimates.turns import wait_to_rebuild
from app.flow.rollouts.groups import Group
from app.flow.students.lines import Fork, Line, line_of
from app.ids import numbered
from paced.wire import Verdict

N_READ = 2_000  # of them at a time: on PostgreSQL the event loop is busy between two reads
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
        return (_compared(conn, measurement_id, rows_of(measurement_id), line_of(conn, measurement_id)))[0]

    @writes
    def rebuild(self, conn: Connection, measurement_id: int) -> Rebuilt:
        """Overwrite what differs. A running service would not see it: stop it first."""
        wait_to_rebuild(conn, measurement_id)
        return overwrite(conn, measurement_id, line_of(conn, measurement_id))


def overwrite(conn: Connection, measurement_id: int, line: Line) -> Rebuilt:
    """Make every estimate that differs what the log says along a line of checkpoints; the caller had to wait for it."""
    found, made = _compared(conn, measurement_id, rows_of(measurement_id), line)
    if found.changed:
        conn.execute(UPDATE_ROWS, [parameters(made.rows[problem_id]) for problem_id in found.changed])
    if found.n_abilities_changed:
        _overwrite_abilities(conn, measurement_id, made.skills)
    return found


def _overwrite_abilities(conn: Connection, measurement_id: int, made: AbilityRows) -> None:
    """Rows that are there are updated: on PostgreSQL an insert would wait for whoever has the measurement's row."""
    c = abilities.c
    known = set(conn.execute(select(c.skill).where(c.measurement_id == measurement_id)).scalars())
    for skill in known - made.keys():
        conn.execute(delete(abilities).where(c.measurement_id == measurement_id, c.skill == skill))
    missing = [row for skill, row in made.items() if skill not in known]
    if missing:
        conn.execute(insert(abilities), missing)
    store_abilities(conn, {skill: row for skill, row in made.items() if skill in known})


def rows_of(measurement_id: int) -> Select[Any]:
    """The estimate rows of a measurement."""
    return select(estimates).where(estimates.c.measurement_id == measurement_id)


class Replay:
    """The log of one measurement, counted report by report; `rows` and `skills` are what is known so far.

    Posteriors are the fold over the observations on `line`, widened where each of its forks stands in the log.
    """

    def __init__(self, conn: Connection, measurement_id: int, stored: Iterable[dict[str, Any]], line: Line) -> None:
        """`stored` are the estimate rows, of which only what observations do not move is read."""
        self.line = line
        self._conn = conn
        self._measurement_id = measurement_id
        self.rows = {row["problem_id"]: fresh_row(row) for row in stored}
        self.skills: AbilityRows = {}

    def reports(self) -> Iterator[list[Group]]:
        """The groups of each report in turn; they are counted when the next one is asked for."""
        forks = deque(self.line.forks)
        for report in _reports(self._conn, self._measurement_id, [fork.after for fork in forks]):
            while forks and forks[0].after < report[0]["observation_id"]:
                self._fork(forks.popleft())
            groups = [_group(row) for row in sorted(report, key=lambda row: int(row["problem_id"]))]
            yield groups
            self._count(groups, report[0]["created_at"])
        for fork in forks:
            self._fork(fork)

    def _count(self, groups: Sequence[Group], now: dt.datetime) -> None:
        for group in groups:
            if group.n_counted:
                skill = self.rows[group.problem_id]["skill"]
                self.skills.setdefault(skill, fresh_ability(self._measurement_id, skill))
        for row in reported(self.rows, groups, self.skills, self.line, now):
            self.rows[row["problem_id"]] = row

    def _fork(self, fork: Fork) -> None:
        self.rows = {problem_id: forked_row(row, fork) for problem_id, row in self.rows.items()}
        self.skills = {skill: forked_ability(row, fork) for skill, row in self.skills.items()}


def _compared(conn: Connection, measurement_id: int, query: Select[Any], line: Line) -> tuple[Rebuilt, Replay]:
    stored = {row["problem_id"]: row for row in rows_as_dicts(conn.execute(query))}
    known = abilities_of(conn, measurement_id)
    made = Replay(conn, measurement_id, stored.values(), line)
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


def _reports(conn: Connection, measurement_id: int, cuts: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    """Observations as they were written: by report, in the order of each report's first id.

    Ids of reports that were written at once interleave. A report is one origin at one time, and names no problem
    twice (a regrade at one time may: each turn of a problem is a report of its own). None is on both sides of a cut.
    """
    open_reports: dict[Any, dict[int, dict[str, Any]]] = {}
    for row in _log(conn, measurement_id):
        while open_reports and _is_over(next(iter(open_reports.values())), row):
            yield list(open_reports.pop(next(iter(open_reports))).values())
        place = bisect_left(cuts, row["observation_id"])
        origin = (row["created_at"], row["lease_id"], row["batch_id"], row["regraded_from"] is not None, place)
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
