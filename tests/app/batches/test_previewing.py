"""Previews follow the law of draws: the same chances, without a second formula."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.batches.drawing import REST
from app.flow.batches.law import Law
from app.flow.batches.previewing import Spread, candidates, side, spread
from app.flow.curricula.rule import PRESETS, Rule
from app.flow.estimates.columns import Columns
from app.flow.estimates.pools import Pool
from paced.wire import CurriculumUpdate, Filters, Kernel, Mode, Preset, Selection, Stratum
from tests.app.pools import NOW, columns_of, draw_from, pool_of

DEFAULT = PRESETS[Preset.DEFAULT]


def spread_of(pool: Pool, rule: Rule, size: int = 8, share: float = 0.0) -> Spread:
    law = Law(pool, rule, share, NOW)
    return spread(law, candidates(law), {REST: None}, size, 0)


def changed(preset: Preset = Preset.DEFAULT, **fields: object) -> Rule:
    return PRESETS[preset].changed(CurriculumUpdate.model_validate(fields))


@given(
    st.lists(st.integers(0, 8) | st.none(), min_size=4, max_size=40),
    st.sampled_from([*Preset]),
    st.floats(0.0, 8.0),
    st.floats(0.0, 0.5),
    st.sampled_from([*Mode]),
)
def test_chances_and_loss_weights_are_those_of_a_draw(
    ks: list[int | None], preset: Preset, gamma: float, retest: float, mode: Mode
) -> None:
    """A draw of everything shows each row's chance of the first draw and its loss weight."""
    rule, pool = changed(preset, gamma=gamma, retest_share=retest, mode=mode), pool_of(columns_of(ks))
    drawn, found = draw_from(pool, rule, len(ks)), spread_of(pool, rule)
    assert set(np.flatnonzero(found.draw > 0.0)) == set(drawn.ordinals)
    assert found.draw[drawn.ordinals] == pytest.approx(drawn.draw_probabilities, rel=1e-9)
    assert found.loss[drawn.ordinals] == pytest.approx(drawn.draw_probabilities * drawn.loss_weights, rel=1e-9)
    assert found.pass_rate[drawn.ordinals] == pytest.approx(drawn.pass_rates)


def test_what_may_not_be_drawn_has_no_chance_and_no_mark_is_left() -> None:
    pool = pool_of(
        columns_of([4] * 6),
        quarantined_until=np.array([NOW.timestamp() + 60, 0.0, 0.0, 0.0, 0.0, 0.0]),
        is_ready=np.array([True, False, True, True, True, True]),
        holdout_keys=np.array([65_535, 65_535, 0, 65_535, 65_535, 65_535]),
    )
    found = spread_of(pool, DEFAULT, share=0.1)
    assert np.flatnonzero(found.draw).tolist() == [3, 4, 5]
    assert not pool.marks.any()


@given(
    st.lists(st.integers(0, 8) | st.none(), min_size=4, max_size=40), st.sampled_from([*Preset]), st.floats(0.0, 8.0)
)
def test_terms_of_another_gamma_are_raised_to_this_one(ks: list[int | None], preset: Preset, gamma: float) -> None:
    pool = pool_of(columns_of(ks))
    first, second = (Law(pool, changed(preset, gamma=each), 0.0, NOW) for each in (1.0, gamma))
    raised, made = second.powered(candidates(first)), candidates(second)
    assert (raised.power == made.power).all()
    assert (raised.rows == made.rows).all()


def test_strata_get_their_shares_and_an_empty_one_is_told() -> None:
    pool = pool_of(columns_of([4] * 4 + [2] * 4), skills=["a"])
    rule = changed(strata=[Stratum(tag="a", share=0.5), Stratum(tag="none", share=0.25)])
    subsets = {REST: None, "a": np.arange(4), "none": np.array([], np.int64)}
    law = Law(pool, rule, 0.0, NOW)
    found = spread(law, candidates(law), subsets, 2, 0)
    assert found.draw.sum() == pytest.approx(0.75)
    assert found.draw[:4].sum() > 0.5
    (note,) = side(law, found, 2, []).warnings
    assert note.startswith("25% of every batch stays empty")


def test_a_sharper_draw_is_narrower_and_says_when_it_repeats() -> None:
    pool = pool_of(columns_of([k for k in range(9) for _ in range(30)]))
    wide, sharp = (changed(gamma=gamma) for gamma in (0.0, 12.0))
    sides = [side(Law(pool, rule, 0.0, NOW), spread_of(pool, rule), 48, []) for rule in (wide, sharp)]
    assert sides[0].effective_problems == pytest.approx(270)
    assert sides[0].effective_problems > 4 * (sides[1].effective_problems or 0.0)
    assert (sides[1].frontier_share or 0.0) > (sides[0].frontier_share or 0.0)
    assert sides[0].warnings == []
    assert "batches of 48 will repeat them" in sides[1].warnings[0]
    assert sum(sides[1].draw_shares) == pytest.approx(1.0)
    assert [(share.tag, share.n_problems) for share in sides[0].tags] == [("", 270)]


def test_nothing_to_draw_is_said() -> None:
    rule, pool = changed(filters=Filters(band=(0.9, 0.95))), pool_of(columns_of([4] * 5))
    found = side(Law(pool, rule, 0.0, NOW), spread_of(pool, rule), 8, ["before"])
    assert (found.n_admitted, found.n_drawable, found.effective_problems, found.mean_pass_rate) == (0, 0, None, None)
    assert found.draw_shares == [0.0] * 20
    assert found.warnings[0] == "before"
    assert "nothing can be drawn" in found.warnings[1]


def test_thompson_is_simulated() -> None:
    pool = pool_of(columns_of([0] * 50 + [4] * 50))
    rule = changed(selection=Selection.THOMPSON)
    found = spread_of(pool, rule, size=10)
    assert found.draw.sum() == pytest.approx(1.0)
    assert found.draw[50:].sum() > 0.6
    assert "16 batches of 10" in side(Law(pool, rule, 0.0, NOW), found, 10, []).warnings[-1]


def test_the_paper_s_rule_shows_its_weights_in_the_loss() -> None:
    pool = pool_of(columns_of([1] * 10 + [4] * 10))
    law = Law(pool, PRESETS[Preset.PAPER], 0.0, NOW)
    found = side(law, spread_of(pool, PRESETS[Preset.PAPER]), 8, [])
    low, middle = found.draw_shares[2], found.draw_shares[10]
    assert (low, middle) == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.loss_shares[10] / found.loss_shares[2] == pytest.approx(0.25 / (1 / 8 * 7 / 8))


def test_a_million_problems_take_no_wait() -> None:
    columns = Columns.zeros(1_000_000)
    rng = np.random.default_rng(0)
    columns.last_counted = columns.first_counted = 8
    columns.last_passed = columns.first_passed = rng.integers(0, 9, len(columns))
    columns.logit_mean, columns.logit_variance = rng.normal(0, 2, len(columns)), 0.5
    pool, rule = pool_of(columns), changed(kernel=Kernel(alpha=2.0, beta=1.0))
    started = time.perf_counter()
    law = Law(pool, rule, 0.1, NOW)
    found = side(law, spread_of(pool, rule, share=0.1), 64, [])
    assert time.perf_counter() - started < 5, "0.6 s when nothing else runs"
    assert found.n_drawable == len(columns)
