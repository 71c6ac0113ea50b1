"""Abilities of skills in the database, and beliefs that move with them inside a report's transaction."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.tables import abilities
from app.db.transaction import rows_as_dicts, rows_in
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


def abilities_of(conn: Connection, measurement_id: int) -> list[dict[str, Any]]:
    """Rows of all skills of a measurement."""
    return rows_as_dicts(conn.execute(select(abilities).where(abilities.c.measurement_id == measurement_id)))


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
    columns, known = Columns.of_rows(before), [found[name] for name in names]
    k, n = (np.array([getattr(group, name) for group in wave], np.float64) for name in ("n_passed", "n_counted"))
    beliefs, after = observe(Beliefs.of(columns), _abilities(known), skills, k, n, index)
    alone_mean, alone_variance = observe_alone(LoneBeliefs.of(columns), k, n, index)
    is_uniform = np.array([group.source in UNIFORM for group in wave])
    sums = audited(np.array([[row[name] for name in AUDITS] for row in known]), skills, is_uniform, k, n)
    for i, n_groups in enumerate(np.bincount(skills).tolist()):
        found[names[i]] = {
            **known[i],
            "level": float(after.level[i]),
            "variance": float(after.variance[i]),
            "index": int(after.index[i]),
            "n_groups": known[i]["n_groups"] + n_groups,
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


def _abilities(rows: list[dict[str, Any]]) -> Abilities:
    return Abilities(
        np.array([row["level"] for row in rows]),
        np.array([row["variance"] for row in rows]),
        np.array([row["index"] for row in rows], np.int64),
    )


_UPDATE = (
    update(abilities)
    .where(abilities.c.measurement_id == bindparam("new_measurement_id"), abilities.c.skill == bindparam("new_skill"))
    .values({name: bindparam(f"new_{name}") for name in ("level", "variance", "index", "n_groups", *AUDITS)})
)
