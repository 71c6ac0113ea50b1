"""Abilities of skills in the database, and beliefs that move with them inside a report's transaction."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.tables import abilities
from app.db.transaction import rows_in
from app.flow.estimates.columns import AUDITS, Columns, audited
from app.flow.estimates.filters import ABILITY_VARIANCE, Abilities, Beliefs, LoneBeliefs, observe, observe_alone
from app.flow.rollouts.groups import Group
from paced.wire import ObservationSource

AbilityRows = dict[str, dict[str, Any]]
UNIFORM = (ObservationSource.AUDIT, ObservationSource.HOLDOUT)  # what priors may be fitted to


def locked_abilities(conn: Connection, measurement_id: int, skills: AbstractSet[str]) -> AbilityRows:
    """Rows of these skills, locked in the order of their names, and made where there is none yet."""
    found = _locked(conn, measurement_id, skills)
    missing = sorted(skills - found.keys())
    if not missing:
        return found
    # another report may make the same rows at this moment: whoever comes second finds them
    upsert = sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert
    rows = [fresh_ability(measurement_id, skill) for skill in missing]
    conn.execute(upsert(abilities).on_conflict_do_nothing(), rows)
    return _locked(conn, measurement_id, skills)


def _locked(conn: Connection, measurement_id: int, skills: AbstractSet[str]) -> AbilityRows:
    c = abilities.c
    query = select(abilities).where(c.measurement_id == measurement_id).order_by(c.skill).with_for_update()
    return {row["skill"]: row for row in rows_in(conn, query, c.skill, sorted(skills))}


def fresh_ability(measurement_id: int, skill: str) -> dict[str, Any]:
    """The row of a skill of which nothing was seen."""
    start = {"level": 0.0, "variance": ABILITY_VARIANCE, "index": 0, "n_groups": 0, **dict.fromkeys(AUDITS, 0.0)}
    return {"measurement_id": measurement_id, "skill": skill, **start}


def store_abilities(conn: Connection, rows: AbilityRows) -> None:
    """Overwrite rows that were locked before."""
    if rows:
        conn.execute(_UPDATE, [{f"new_{name}": value for name, value in row.items()} for row in rows.values()])


def with_beliefs(
    rows: dict[int, dict[str, Any]], groups: Sequence[Group], moved: Sequence[dict[str, Any]], found: AbilityRows
) -> list[dict[str, Any]]:
    """`moved` with the beliefs that the groups lead to; the abilities in `found` move too.

    Groups of one report are taken together, by checkpoint: the rebuild does the same.
    """
    by_problem = {row["problem_id"]: row for row in moved}
    counted = [group for group in groups if group.n_counted]
    for index in sorted({group.checkpoint_index for group in counted}):
        wave = [group for group in counted if group.checkpoint_index == index]
        made = _observed([rows[group.problem_id] for group in wave], wave, found, index)
        for group, values in zip(wave, made, strict=True):
            by_problem[group.problem_id] = {**by_problem[group.problem_id], **values}
    return [by_problem[row["problem_id"]] for row in moved]


def _observed(before: list[dict[str, Any]], wave: list[Group], found: AbilityRows, index: int) -> list[dict[str, Any]]:
    names = sorted({row["skill"] for row in before})
    place = {name: i for i, name in enumerate(names)}
    skills = np.array([place[row["skill"]] for row in before], np.int64)
    columns = Columns.of_rows(before)
    n_passed = np.array([group.n_passed for group in wave], np.float64)
    n_counted = np.array([group.n_counted for group in wave], np.float64)
    beliefs, after = observe(
        Beliefs.of(columns),
        Abilities(
            np.array([found[name]["level"] for name in names]),
            np.array([found[name]["variance"] for name in names]),
            np.array([found[name]["index"] for name in names], np.int64),
        ),
        skills,
        n_passed,
        n_counted,
        index,
    )
    alone_mean, alone_variance = observe_alone(LoneBeliefs.of(columns), n_passed, n_counted, index)
    sums = np.array([[found[name][sum_name] for sum_name in AUDITS] for name in names])
    sums = audited(sums, skills, np.array([group.source in UNIFORM for group in wave]), n_passed, n_counted)
    n_groups = np.bincount(skills, minlength=len(names))
    for i, name in enumerate(names):
        found[name] = {
            **found[name],
            "level": float(after.level[i]),
            "variance": float(after.variance[i]),
            "index": int(after.index[i]),
            "n_groups": found[name]["n_groups"] + int(n_groups[i]),
            **dict(zip(AUDITS, sums[i].tolist(), strict=True)),
        }
    made = {
        "logit_mean": beliefs.mean,
        "logit_variance": beliefs.variance,
        "ability_seen": beliefs.ability_seen,
        "belief_index": beliefs.index,
        "alone_mean": alone_mean,
        "alone_variance": alone_variance,
    }
    lists = [array.tolist() for array in made.values()]
    return [dict(zip(made, values, strict=True)) for values in zip(*lists, strict=True)]


_UPDATE = (
    update(abilities)
    .where(abilities.c.measurement_id == bindparam("new_measurement_id"), abilities.c.skill == bindparam("new_skill"))
    .values({name: bindparam(f"new_{name}") for name in ("level", "variance", "index", "n_groups", *AUDITS)})
)
