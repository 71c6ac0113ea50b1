"""The table of a large pool: what a full pass computes, kept up row by row, and the law of successive sampling."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.batches import service as batch_service
from app.flow.batches import table as tables
from app.flow.batches.drawing import draw
from app.flow.batches.table import WeightTable, peak
from app.flow.curricula.rule import Rule
from app.flow.curricula.weighting import weighting
from app.flow.estimates.columns import NAMES, Columns, observed
from app.flow.estimates.pools import N_MOVES_KEPT, Pool
from app.flow.estimates.store import Change
from paced import wire
from paced.wire import DiscountedBeta, DriftFilter, Kernel, Mode, PlugInNewest
from tests.app.batches.test_samplers import N_DRAWS, SIZE, successive_sampling, z_scores
from tests.app.world import World, build
from tests.service import TestClock, serve

NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
N = 40
SKILLS = ["a", "b", ""]
estimators = st.sampled_from([PlugInNewest(), DiscountedBeta(), DriftFilter()])
rules = st.builds(
    Rule,
    estimator=estimators,
    kernel=st.builds(Kernel, alpha=st.floats(0, 3), beta=st.floats(0, 3)),
    gamma=st.floats(0, 4),
    mode=st.sampled_from(Mode),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("group"), st.integers(0, N - 1), st.integers(0, 8)),
        st.tuples(st.just("ability"), st.sampled_from(SKILLS), st.floats(-3, 3)),
        st.tuples(st.just("quarantine"), st.integers(0, N - 1), st.booleans()),
    ),
    max_size=12,
)


def pool_of(n: int = N) -> Pool:
    skills = np.array(SKILLS)[np.arange(n) % len(SKILLS)]
    return Pool(
        problem_ids=np.arange(100, 100 + n),
        holdout_keys=(np.arange(n, dtype=np.int64) * 7919) % 65_536,
        is_ready=np.arange(n) % 11 != 5,
        n_groups=np.zeros(n, np.int64),
        quarantined_until=np.zeros(n),
        columns=Columns.zeros(n),
        rows_of_skill={skill: np.flatnonzero(skills == skill) for skill in SKILLS},
        n_groups_of_skill={},
        watermark=0,
        state_version=0,
    )


def change(pool: Pool, step: tuple[Any, ...], place: int) -> Change:
    """A committed change of the kind that reports make."""
    kind, what, value = step
    if kind == "ability":
        return Change(1, [], [{"skill": what, "level": value, "index": place // 4, "n_groups": place + 1}], place)
    row: dict[str, Any] = {name: getattr(pool.columns, name)[what] for name in NAMES}
    row |= {"ordinal": what, "n_groups": int(pool.n_groups[what]) + 1, "quarantined_until": None}
    if kind == "group":
        row |= observed(row, value, 8)
        row |= {"logit_mean": value - 4.0, "logit_variance": 0.3, "ability_seen": 0.1, "belief_index": place // 4}
    elif value:
        row["quarantined_until"] = NOW + dt.timedelta(seconds=60)
    return Change(1, [row], [], place)


@given(rule=rules, before=steps, after=steps, in_flight=st.sets(st.integers(0, N + 5), max_size=6))
def test_a_table_that_follows_gives_what_a_full_pass_does(
    rule: Rule, before: list[Any], after: list[Any], in_flight: set[int]
) -> None:
    pool = pool_of()
    for place, step in enumerate(before):
        pool.apply(change(pool, step, place))
    table = WeightTable(pool, rule, 0.25)
    for place, step in enumerate(after, len(before)):
        pool.apply(change(pool, step, place))
        if place % 3 == 0:
            table.follow()
    table.follow()
    aside = np.array(sorted(in_flight), np.int64)
    is_allowed = table.is_candidate & ~pool.is_quarantined(NOW)
    is_allowed[aside[aside < N]] = False
    full = weighting(rule, pool.columns, is_allowed)
    rows = np.flatnonzero(is_allowed)
    kept = np.unique(np.concatenate([aside[aside < N], pool.quarantined(NOW)]))
    left = tables.Sums.of(table, kept[table.power[kept] > 0])
    if left.w <= 0.0:  # where nothing has weight, a full pass says so, and the table leaves it to that
        assert not full.draw_probability.any()
        assert table.draw(aside, 1, 0, 0, NOW) is None
        return
    assert left.n == int((full.draw_probability > 0).sum())
    if left.n:
        assert table.power[rows] / left.power == pytest.approx(full.draw_probability[rows], rel=1e-9, abs=1e-12)
        assert table.w[rows] == pytest.approx(np.where(full.is_known, full.weight, 0.0)[rows], rel=1e-12)
    inside = (full.draw_probability > 0) & (full.pass_rate > 0.2) & (full.pass_rate < 0.8)
    assert left.n_inside == int(inside.sum())


def test_the_law_is_successive_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MIN_ROOM", 0)
    pool = pool_of(12)
    for place, k in enumerate([1, 0, 4, 7, 2, 8, 3, 6, 5, 4, 1, 2]):
        pool.apply(change(pool, ("group", place, k), place))
    rule = Rule(estimator=PlugInNewest(), gamma=1.5, mode=Mode.SAMPLE)
    table = WeightTable(pool, rule, 0.0)
    first, included = np.zeros(12), np.zeros(12)
    for seq in range(N_DRAWS):
        found = table.draw(np.array([3]), SIZE, 1, seq, NOW)
        assert found is not None
        first[found[0][0]] += 1
        included[found[0]] += 1
    weights = table.power.copy()
    weights[3] = 0.0
    assert (weights > 0).sum() >= 7
    expected_first, expected = successive_sampling(weights, SIZE)
    assert np.abs(z_scores(first, expected_first)).max() < 4
    assert np.abs(z_scores(included, expected)).max() < 4
    assert (included[weights == 0] == 0).all()


@given(rule=rules, history=steps)
def test_the_same_state_and_seed_give_the_same_batch(rule: Rule, history: list[Any]) -> None:
    pool = pool_of(4000)
    table = WeightTable(pool, rule, 0.1)
    for place, step in enumerate(history):
        pool.apply(change(pool, step, place))
        table.follow()
    nothing = np.empty(0, np.int64)
    followed = table.draw(nothing, 16, 3, 4, NOW)
    fresh = WeightTable(pool, rule, 0.1).draw(nothing, 16, 3, 4, NOW)
    assert (followed is None) == (fresh is None)
    if followed is not None and fresh is not None:
        assert followed[0].tolist() == fresh[0].tolist()
        assert len(set(followed[0].tolist())) == 16


def test_a_full_pass_is_taken_where_rejection_does_not_pay() -> None:
    pool, nothing = pool_of(4000), np.empty(0, np.int64)
    beta = Rule(estimator=DiscountedBeta(), gamma=1.0, mode=Mode.SAMPLE)
    assert WeightTable(pool, beta, 0.0).draw(nothing, 100, 0, 0, NOW) is not None
    assert WeightTable(pool, beta, 0.0).draw(nothing, 1000, 0, 0, NOW) is None  # a quarter of all
    sharp = Rule(estimator=DiscountedBeta(), gamma=40.0, mode=Mode.SAMPLE)
    assert WeightTable(pool, sharp, 0.0).draw(nothing, 16, 0, 0, NOW) is None  # hardly any proposal is accepted
    newest = Rule(estimator=PlugInNewest(), gamma=1.0, mode=Mode.SAMPLE)
    table = WeightTable(pool, newest, 0.0)
    assert table.draw(nothing, 16, 0, 0, NOW) is None  # nothing is measured
    found = draw(pool, newest, 0.0, nothing, 16, 0, 0, NOW, table)
    assert (len(found.ordinals), found.shortfall is not None) == (0, True)


def test_a_table_left_behind_is_made_anew() -> None:
    pool = pool_of()
    table = WeightTable(pool, Rule(estimator=DiscountedBeta(), gamma=1.0, mode=Mode.SAMPLE), 0.0)
    for place in range(N_MOVES_KEPT + 5):
        pool.apply(change(pool, ("group", place % N, place % 9), 0))
    table.follow()
    fresh = WeightTable(pool, Rule(estimator=DiscountedBeta(), gamma=1.0, mode=Mode.SAMPLE), 0.0)
    assert table.w.tolist() == fresh.w.tolist()
    assert table.sum_w == fresh.sum_w


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 0.5), (0, 3), (0, 0)])
def test_no_weight_is_above_the_peak(alpha: float, beta: float) -> None:
    p = np.linspace(0, 1, 10_001)
    w = p**alpha * (1 - p) ** beta
    assert w.max() == pytest.approx(peak(Kernel(alpha=alpha, beta=beta)), rel=1e-6)


def test_batches_of_a_large_pool_over_http(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Distinct problems that may come, with probabilities that follow reports, and a shortfall at the end."""
    monkeypatch.setattr(batch_service, "LARGE", 10)
    monkeypatch.setattr(tables, "MIN_ROOM", 2)
    clock = TestClock()
    with serve(tmp_path / "data", None, clock) as service, service.client() as client:
        world = World(service, client, clock, build(client, tmp_path, 120, holdout_share=0.2))
        world.measure(lambda i: i % 9)
        held = {e.problem_id for e in world.estimates().values() if e.is_holdout}
        batch = world.draw(10)
        assert len(set(batch.problem_id)) == 10
        assert not held & set(batch.problem_id)
        n_open = client.explain(batch.batch_id).n_eligible
        assert n_open == 120 - len(held)
        outcomes = [wire.Outcome(problem_id=p, checkpoint_index=0, n_passed=8, n_failed=0) for p in batch.problem_id]
        client.acknowledge(batch.batch_id, outcomes)
        client.acknowledge(world.draw(8).batch_id)
        item = {e.problem_id: e for e in world.estimates().values()}[batch.problem_id[0]]
        assert item.last_passed == 8
        rest = world.draw(n_open)
        assert (rest.size, len(set(rest.problem_id))) == (n_open, n_open)
        chance = dict(zip(rest.problem_id, rest.draw_probability, strict=True))
        assert sum(chance.values()) == pytest.approx(1.0)
