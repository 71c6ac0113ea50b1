"""Abilities of skills in the database, and beliefs that move with them inside a report's transaction."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.tables import abilities
from app.db.transaction import rows_in
from app.flow.estimates.columns import Columns
from app.flow.estimates.filters import ABILITY_VARIANCE, Abilities, Beliefs, observe
from app.flow.rollouts.groups import Group

AbilityRows = dict[str, dict[str, Any]]


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
    start = {"level": 0.0, "variance": ABILITY_VARIANCE, "index": 0, "n_groups": 0}
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
    beliefs, after = observe(
        Beliefs.of(Columns.of_rows(before)),
        Abilities(
            np.array([found[name]["level"] for name in names]),
            np.array([found[name]["variance"] for name in names]),
            np.array([found[name]["index"] for name in names], np.int64),
        ),
        np.array([place[row["skill"]] for row in before], np.int64),
        np.array([group.n_passed for group in wave], np.float64),
        np.array([group.n_counted for group in wave], np.float64),
        index,
    )
    n_groups = np.bincount([place[row["skill"]] for row in before], minlength=len(names))
    for i, name in enumerate(names):
        level, variance, seen = float(after.level[i]), float(after.variance[i]), int(after.index[i])
        n = found[name]["n_groups"] + int(n_groups[i])
        found[name] = {**found[name], "level": level, "variance": variance, "index": seen, "n_groups": n}
    return [
        {"logit_mean": mean, "logit_variance": variance, "ability_seen": seen, "belief_index": at}
        for mean, variance, seen, at in zip(
            beliefs.mean.tolist(),
            beliefs.variance.tolist(),
            beliefs.ability_seen.tolist(),
            beliefs.index.tolist(),
            strict=True,
        )
    ]


_UPDATE = (
    update(abilities)
    .where(abilities.c.measurement_id == bindparam("new_measurement_id"), abilities.c.skill == bindparam("new_skill"))
    .values({name: bindparam(f"new_{name}") for name in ("level", "variance", "index", "n_groups")})
)
