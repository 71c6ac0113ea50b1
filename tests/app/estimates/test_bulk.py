"""Rows of a measurement, read here and read by another process, are the same arrays."""

import asyncio

import numpy as np
import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.flow.estimates import bulk
from app.flow.estimates.store import EstimateStore, LoadedRows
from app.flow.estimates.totals import COUNTED, Totals
from app.flow.rollouts.measurements import measurement_number
from tests.app.conftest import MakeWorld


def test_both_ways_of_loading_give_the_same(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(60, holdout_share=0.2)
    world.measure(lambda i: i % 9)
    number = measurement_number(world.curriculum.measurement_id)

    odd = "UPDATE estimates SET state = 'flagged', quarantined_until = '2026-11-25 08:00:00.25' WHERE ordinal = 7"
    even = "UPDATE estimates SET state = 'ready', quarantined_until = NULL WHERE ordinal = 7"

    async def load(many: int) -> LoadedRows:
        monkeypatch.setattr(bulk, "MANY", many)
        async with Database(world.service.settings.database_url) as db:
            await db.transact(lambda conn: conn.execute(text(odd)))
            found = await EstimateStore(db).load(number)
            await db.transact(lambda conn: conn.execute(text(even)))
            return found

    here, apart = asyncio.run(load(10**9)), asyncio.run(load(0))
    for name in ("problem_ids", "holdout_keys", "is_ready", "n_groups"):
        assert getattr(here, name).tolist() == getattr(apart, name).tolist()
        assert getattr(here, name).dtype == getattr(apart, name).dtype
    assert apart.quarantined_until == pytest.approx(here.quarantined_until, abs=0.001)
    assert here.quarantined_until[7] > 1.7e9
    assert not here.is_ready[7]
    assert (here.skills, here.abilities, here.watermark) == (apart.skills, apart.abilities, apart.watermark)
    assert np.array_equal(here.columns.records, apart.columns.records)


def test_counts_by_verdict_are_the_same_either_way(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(40, holdout_share=0.0)
    world.measure(lambda i: i % 9)
    number = measurement_number(world.curriculum.measurement_id)

    async def totals(many: int) -> Totals:
        monkeypatch.setattr(bulk, "MANY", many)
        async with Database(world.service.settings.database_url) as db:
            return await EstimateStore(db).totals(number, 35)

    here, apart = asyncio.run(totals(10**9)), asyncio.run(totals(0))
    rows = np.arange(35)
    assert len(here) == len(apart) == 35
    for field in COUNTED:
        assert here.number(field, rows).tolist() == apart.number(field, rows).tolist()
    assert here.number("attempts", rows).tolist() == [8.0] * 35
    passed = [e.n_passed for e in world.estimates().values()][:35]
    assert apart.number("passed", rows).tolist() == passed


def test_a_load_that_fails_says_why(make_world: MakeWorld) -> None:
    world = make_world(3)
    url = world.service.settings.database_url
    missing = url.set(database="/nowhere/paced.sqlite3" if url.get_backend_name() == "sqlite" else "nowhere")
    with pytest.raises(RuntimeError, match="loading estimates failed"):
        bulk.read_apart(missing, 1, 3)
