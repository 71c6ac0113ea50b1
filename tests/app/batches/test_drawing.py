"""One draw from a pool: who may come, in what proportion, and every problem accounted for when too few do."""

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.batches import drawing
from app.flow.batches.drawing import REST, Draw, Memory, shares
from app.flow.batches.law import Law, Recent
from app.flow.curricula.rule import PRESETS, Rule
from app.flow.estimates.columns import AUDITS, NAMES, Columns
from app.flow.estimates.estimators import is_inside
from app.flow.estimates.pools import Pool
from app.flow.estimates.store import Change
from app.flow.rollouts.groups import holdout_threshold
from paced.wire import (
    DiscountedBeta,
    DriftFilter,
    Filters,
    Kernel,
    LogitFilter,
    Mode,
    PlugInNewest,
    Preset,
    Selection,
    Stratum,
)
from tests.app.batches.test_samplers import N_DRAWS, SIZE, successive_sampling, z_scores
from tests.app.pools import NOW, columns_of, draw_from, pool_of

SHARE = 0.25
NO_AUDITS = dict.fromkeys(AUDITS, 0.0)
Row = tuple[bool, int, bool, bool, bool, int | None]
problems = st.tuples(
    st.booleans(),  # ready
    st.integers(0, 65_535),  # hold-out key
    st.booleans(),  # in quarantine
    st.booleans(),  # in an open batch
    st.booleans(),  # cooling down
    st.one_of(st.none(), st.integers(0, 8)),  # of eight, if measured
)
rules = st.builds(
    Rule,
    estimator=st.sampled_from([PlugInNewest(), DiscountedBeta(), LogitFilter(), DriftFilter()]),
    kernel=st.builds(Kernel, alpha=st.floats(0, 3), beta=st.floats(0, 3)),
    gamma=st.floats(0, 4),
    mode=st.sampled_from(Mode),
    filters=st.builds(Filters, band=st.sampled_from([None, (0.1, 0.9)]), min_groups=st.integers(0, 1)),
    retest_share=st.sampled_from([0.0, 0.1]),
)


def pool_of_rows(rows: list[Row]) -> Pool:
    return pool_of(
        columns_of([row[5] for row in rows]),
        is_ready=np.array([row[0] for row in rows], np.bool_),
        holdout_keys=np.array([row[1] for row in rows], np.int64),
        quarantined_until=np.array([NOW.timestamp() + 60 if row[2] else 0.0 for row in rows]),
        n_groups=np.array([row[5] is not None for row in rows], np.int64),
    )


def places(rows: list[Row], field: int) -> list[int]:
    return [place for place, row in enumerate(rows) if row[field]]


@given(rows=st.lists(problems, min_size=1, max_size=30), size=st.integers(1, 40), rule=rules)
def test_every_problem_is_drawn_or_accounted_for(rows: list[Row], size: int, rule: Rule) -> None:
    pool = pool_of_rows(rows)
    found = draw_from(pool, rule, size, share=SHARE, in_flight=places(rows, 3), cooling=places(rows, 4), seq=2)
    threshold = holdout_threshold(SHARE)
    may_come = {
        place
        for place, (is_ready, key, is_quarantined, is_in_flight, is_cooling, _) in enumerate(rows)
        if is_ready and key >= threshold and not (is_quarantined or is_in_flight or is_cooling)
    }
    drawn = found.ordinals.tolist()
    assert set(drawn) <= may_come
    assert len(set(drawn)) == len(drawn)
    assert found.problem_ids.tolist() == [100 + place for place in drawn]
    assert (found.draw_probabilities > 0).all()
    if rule.filters.band is not None:
        assert ((found.pass_rates > 0.1) & (found.pass_rates < 0.9)).all()
    if rule.mode == Mode.SAMPLE and rule.retest_share == 0:
        assert (found.weights > 0).all()
    assert (found.loss_weights >= 0).all()
    assert found.watermark == 7
    assert (found.shortfall is None) == (len(drawn) == size)
    if found.shortfall is not None:
        counts = found.shortfall.model_dump()
        assert (counts.pop("n_requested"), counts.pop("n_problems")) == (size, len(rows))
        assert sum(counts.values()) == len(rows)
        assert counts["n_other_strata"] == 0


def test_open_batches_of_a_longer_set_do_no_harm() -> None:
    found = draw_from(pool_of(columns_of([4] * 3)), PRESETS[Preset.DEFAULT], 3, in_flight=[1, 5])
    assert sorted(found.ordinals.tolist()) == [0, 2]


def test_no_weight_at_all_is_never_a_uniform_draw() -> None:
    pool = pool_of(columns_of([0, 8, 0, 8]))
    for mode in Mode:
        found = draw_from(pool, Rule(estimator=PlugInNewest(), gamma=1.0, mode=mode), 2)
        assert len(found.ordinals) == 0
        assert found.shortfall is not None
        assert found.shortfall.n_zero_weight == 4
    asked = draw_from(pool, Rule(estimator=PlugInNewest(), gamma=1.0, mode=Mode.SAMPLE, retest_share=0.01), 2)
    assert len(asked.ordinals) == 2, "a floor that was asked for gives a batch"


def test_a_law_follows_batches_that_open_and_close() -> None:
    pool = pool_of(columns_of([4] * 8), quarantined_until=np.array([0.0] * 7 + [NOW.timestamp() + 60]))
    rule = PRESETS[Preset.DEFAULT]
    first, second, over = np.array([0, 1]), np.array([2, 9]), np.array([3, 1, 7])
    with Law(pool, rule, 0.0, NOW) as law:
        law.follow(Recent([first], [over]))
        assert np.flatnonzero(pool.marks).tolist() == [0, 1, 3, 7]
        law.follow(Recent([first, second], [over, second]))
        assert np.flatnonzero(pool.marks).tolist() == [0, 1, 2, 3, 7], "a row beyond this pool is another's business"
        law.follow(Recent([first, second], []))
        assert np.flatnonzero(pool.marks).tolist() == [0, 1, 2, 7], "its other problems are still set aside"
    assert not pool.marks.any()


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("retest_share", [0.0, 0.2])
def test_the_law_is_successive_sampling(monkeypatch: pytest.MonkeyPatch, is_large: bool, retest_share: float) -> None:
    """Both ways through a draw, with a problem set aside, against brute force."""
    monkeypatch.setattr(drawing, "LARGE", 0 if is_large else 1000)
    monkeypatch.setattr(drawing, "MIN_ROOM", 1)
    ks = [1, 0, 4, 7, 2, 8, 3, 6, 5, 4, 1, 2]
    pool = pool_of(columns_of(ks))
    rule = Rule(estimator=PlugInNewest(), gamma=1.5, mode=Mode.SAMPLE, retest_share=retest_share)
    p = np.array(ks) / 8
    weights = (p * (1 - p) / 0.25) ** 1.5
    weights[3] = 0.0
    settled = np.isin(ks, [0, 8])
    weights += settled * retest_share / (1 - retest_share) * weights.sum() / settled.sum()
    first, included, memory = np.zeros(12), np.zeros(12), Memory()
    with Law(pool, rule, 0.0, NOW) as law:
        law.follow(Recent(in_flight=[np.array([3])]))
        if is_large:  # totals of a large pool are estimated: here they are exact, so that the law can be
            exact = drawing.Tally()
            exact.add(12, law.terms(np.flatnonzero(law.is_open(np.arange(12)))))
            monkeypatch.setattr(drawing.Tally, "add", lambda *_: None)
            memory.tallies[REST] = exact
        for seq in range(N_DRAWS):
            found = drawing.draw(law, {REST: None}, SIZE, 1, seq, memory)
            first[found.ordinals[0]] += 1
            included[found.ordinals] += 1
    assert not pool.marks.any()
    expected_first, expected = successive_sampling(weights, SIZE)
    assert np.abs(z_scores(first, expected_first)).max() < 4
    assert np.abs(z_scores(included, expected)).max() < 4
    assert (included[weights == 0] == 0).all()
    assert found.draw_probabilities == pytest.approx((weights / weights.sum())[found.ordinals])


def large_pool(n: int = 60_000) -> Pool:
    rng = np.random.default_rng(3)
    columns = columns_of(rng.integers(0, 9, n).tolist())
    columns.skill = np.arange(n) % 3
    columns.levels = np.zeros(3)
    return pool_of(columns, skills=["a", "b", "c"], holdout_keys=rng.integers(0, 65_536, n))


@pytest.mark.parametrize(
    "estimator", [PlugInNewest(), DiscountedBeta(), LogitFilter(), DriftFilter()], ids=lambda e: e.name
)
@pytest.mark.parametrize("mode", Mode)
def test_a_large_pool_is_drawn_as_a_full_pass_would(
    monkeypatch: pytest.MonkeyPatch, estimator: Any, mode: Mode
) -> None:
    pool = large_pool()
    rule = Rule(estimator=estimator, gamma=2.0, mode=mode)
    quick = draw_from(pool, rule, 256, share=0.1)
    monkeypatch.setattr(drawing, "LARGE", 10**9)
    full = draw_from(pool, rule, 40_000, share=0.1)
    chance = dict(zip(full.ordinals.tolist(), full.draw_probabilities.tolist(), strict=True))
    factor = dict(zip(full.ordinals.tolist(), full.loss_weights.tolist(), strict=True))
    assert len(set(quick.ordinals.tolist())) == 256
    assert pool.is_trained(0.1)[quick.ordinals].all()
    same = [i for i, row in enumerate(quick.ordinals.tolist()) if row in chance]
    rows = quick.ordinals[same].tolist()
    assert len(rows) > 100
    assert quick.draw_probabilities[same] == pytest.approx([chance[row] for row in rows], rel=0.03)
    assert quick.loss_weights[same] == pytest.approx([factor[row] for row in rows], rel=0.06)
    assert quick.n_eligible == pytest.approx(full.n_eligible, rel=0.03)
    assert quick.n_hard_filter == pytest.approx(full.n_hard_filter, rel=0.03)


def in_turn(law: Law, size: int, count: int, seq: int, memory: Memory, *, at_once: int) -> list[Draw]:
    """Draws that are in flight for each other, as the service makes them, up to `at_once` together."""
    drawn: list[Draw] = []
    while len(drawn) < count:
        law.follow(Recent(in_flight=[*IN_FLIGHT, *(one.ordinals for one in drawn)]))
        asked = min(at_once, count - len(drawn))
        drawn += drawing.draw_several(law, {REST: None}, size, asked, 1, seq + len(drawn), memory)
    return drawn


IN_FLIGHT = [np.array([3])]


@pytest.mark.parametrize("rule", [PRESETS[Preset.DEFAULT], PRESETS[Preset.PAPER], PRESETS[Preset.HARD_FILTER]])
def test_several_draws_of_a_large_pool_are_what_single_draws_would_be(rule: Rule) -> None:
    pool = large_pool()
    with Law(pool, rule, 0.1, NOW) as law:
        singles = in_turn(law, 64, 16, 5, Memory(), at_once=1)
        several = in_turn(law, 64, 16, 5, Memory(), at_once=16)
        law.follow(Recent(in_flight=IN_FLIGHT))
        rows = np.arange(len(pool))
        p, left = law.terms(rows).pass_rate, law.terms(rows).power * law.is_open(rows)
    assert not pool.marks.any()
    for single, one in zip(singles, several, strict=True):
        assert one.ordinals.tolist() == single.ordinals.tolist()
        assert one.posteriors.tolist() == single.posteriors.tolist()
        assert one.draw_probabilities == pytest.approx(left[one.ordinals] / left.sum(), rel=0.03)
        assert one.loss_weights == pytest.approx(single.loss_weights, rel=0.06)
        assert one.n_eligible == pytest.approx((left > 0.0).sum(), rel=0.03)
        assert one.n_hard_filter == pytest.approx(((left > 0.0) & is_inside(p)).sum(), rel=0.03)
        left[one.ordinals] = 0.0


def test_the_law_of_several_draws_is_successive_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two draws of two are one sample of four, and the second's chances leave out what the first took."""
    monkeypatch.setattr(drawing, "LARGE", 0)
    monkeypatch.setattr(drawing, "MIN_ROOM", 1)
    ks = [1, 0, 4, 7, 2, 8, 3, 6, 5, 4, 1, 2]
    pool = pool_of(columns_of(ks))
    weights = np.array(ks) / 8
    weights = (weights * (1 - weights) / 0.25) ** 1.5
    weights[3] = 0.0
    included, memory = np.zeros(12), Memory()
    with Law(pool, Rule(estimator=PlugInNewest(), gamma=1.5, mode=Mode.SAMPLE), 0.0, NOW) as law:
        law.follow(Recent(in_flight=IN_FLIGHT))
        memory.tallies[REST] = exact = drawing.Tally()
        exact.add(12, law.terms(np.flatnonzero(law.is_open(np.arange(12)))))
        monkeypatch.setattr(drawing.Tally, "add", lambda *_: None)
        for seq in range(0, 2 * N_DRAWS, 2):
            first, second = in_turn(law, SIZE // 2, 2, seq, memory, at_once=2)
            included[first.ordinals] += 1
            included[second.ordinals] += 1
        together = drawing.draw_several(law, {REST: None}, SIZE // 2, 2, 1, 0, memory)
    _, expected = successive_sampling(weights, SIZE)
    assert np.abs(z_scores(included, expected)).max() < 4
    first, second = together
    left = weights.sum() - weights[first.ordinals].sum()
    assert second.draw_probabilities == pytest.approx(weights[second.ordinals] / left)


def moved(pool: Pool, place: int) -> Change:
    row = {name: getattr(pool.columns, name)[place] for name in NAMES}
    row |= {"ordinal": place, "n_groups": 2, "quarantined_until": None, "last_passed": 4, "logit_mean": 0.1}
    return Change(1, [row], [{"skill": "b", "level": 0.4, "index": 3, "n_groups": 5, **NO_AUDITS}], 9)


@pytest.mark.parametrize("rule", [PRESETS[Preset.DEFAULT], PRESETS[Preset.PAPER], PRESETS[Preset.HARD_FILTER]])
def test_the_same_state_and_seed_give_the_same_batch(rule: Rule) -> None:
    """Whatever was drawn before, and whenever the process was started."""
    pool, memory = large_pool(), Memory()
    for seq in range(3):
        draw_from(pool, rule, 64, memory=memory, seq=seq)
    pool.apply(moved(pool, 5))
    old = draw_from(pool, rule, 64, memory=memory, seq=9)
    other = large_pool()
    other.apply(moved(other, 5))
    assert draw_from(other, rule, 64, seq=9).ordinals.tolist() == old.ordinals.tolist()


def test_a_full_pass_is_taken_where_rejection_does_not_pay() -> None:
    pool = large_pool()
    sharp = Rule(estimator=DiscountedBeta(), kernel=Kernel(alpha=64, beta=0), gamma=64.0, mode=Mode.SAMPLE)
    found = draw_from(pool, sharp, 64)
    assert len(found.ordinals) == 64
    assert found.pass_rates.min() > 0.9
    newest = Rule(estimator=PlugInNewest(), gamma=1.0, mode=Mode.SAMPLE)
    nothing = draw_from(pool_of(Columns.zeros(30_000)), newest, 16)
    assert nothing.shortfall is not None
    assert (len(nothing.ordinals), nothing.shortfall.n_unmeasured) == (0, 30_000)


def test_a_pool_that_had_no_weight_is_looked_at_again() -> None:
    newest, memory = Rule(estimator=PlugInNewest(), gamma=1.0, mode=Mode.SAMPLE), Memory()
    pool = pool_of(Columns.zeros(30_000))
    assert len(draw_from(pool, newest, 16, memory=memory).ordinals) == 0
    measured = columns_of([4] * 30_000)
    for name in NAMES:
        getattr(pool.columns, name)[:] = getattr(measured, name)
    pool.n_moves += 1
    assert len(draw_from(pool, newest, 16, memory=memory).ordinals) == 16
    assert memory.tallies[REST].totals(30_000)[0].w == pytest.approx(30_000 / 4, rel=0.01)


def test_an_ability_that_moves_changes_the_next_draw() -> None:
    pool = large_pool(1000)
    rule = Rule(estimator=DriftFilter(), gamma=2.0, mode=Mode.SAMPLE)
    memory = Memory()
    before = draw_from(pool, rule, 900, memory=memory)
    pool.apply(Change(1, [], [{"skill": "b", "level": 5.0, "index": 1, "n_groups": 1, **NO_AUDITS}], 9))
    after = draw_from(pool, rule, 900, memory=memory)
    mean = lambda d: float(d.pass_rates[d.ordinals % 3 == 1].mean())  # noqa: E731
    assert mean(after) > mean(before) + 0.2


@given(size=st.integers(1, 500), parts=st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_shares_are_whole_and_add_up(size: int, parts: list[float]) -> None:
    total = max(1.0, sum(parts))
    strata = [Stratum(tag=str(i), share=part / total) for i, part in enumerate(parts)]
    rule = Rule(estimator=DiscountedBeta(), gamma=1.0, mode=Mode.SAMPLE, strata=strata)
    law = Law(pool_of(columns_of([4])), rule, 0.0, NOW)
    counts = shares(law, size)
    assert sum(counts.values()) == size
    for stratum in strata:
        assert abs(counts[stratum.tag] - stratum.share * size) < 1


def test_strata_give_each_tag_its_share_and_a_short_one_is_named() -> None:
    pool = pool_of(columns_of([4] * 30))
    strata = [Stratum(tag="a", share=0.5), Stratum(tag="b", share=0.25)]
    rule = Rule(estimator=DiscountedBeta(), gamma=1.0, mode=Mode.SAMPLE, strata=strata)
    subsets = {REST: None, "a": np.arange(0, 10), "b": np.arange(10, 12)}
    found = draw_from(pool, rule, 16, subsets=subsets)
    drawn = found.ordinals
    assert (drawn < 10).sum() >= 8
    assert len(set(drawn.tolist())) == len(drawn)
    assert found.shortfall is not None, "two problems cannot give four"
    assert (found.shortfall.n_returned, found.shortfall.n_other_strata) == (14, 16)
    assert draw_from(pool, rule, 8, subsets=subsets).shortfall is None


def test_thompson_prefers_what_may_be_on_the_frontier() -> None:
    """Each draw takes the largest weights of sampled pass rates: unsure problems come, settled ones hardly do."""
    columns = columns_of([4] * 10 + [8] * 10)
    columns.discounted_passed[10:] = 400.0
    pool = pool_of(columns)
    rule = Rule(estimator=DiscountedBeta(), gamma=1.0, mode=Mode.SAMPLE, selection=Selection.THOMPSON)
    draws = [draw_from(pool, rule, 5, seq=seq) for seq in range(200)]
    counts = np.bincount(np.concatenate([d.ordinals for d in draws]), minlength=20)
    assert counts[:10].min() > 50
    assert counts[10:].sum() == 0
    assert np.isnan(draws[0].draw_probabilities).all()
    assert (draws[0].loss_weights == 1).all()


def test_quarantine_ends_by_the_clock() -> None:
    until = np.array([NOW.timestamp() - 1, NOW.timestamp() + 1])
    pool = pool_of(columns_of([4, 4]), quarantined_until=until)
    assert pool.quarantined(NOW).tolist() == [1]
    assert pool.quarantined(NOW + dt.timedelta(seconds=2)).tolist() == []
