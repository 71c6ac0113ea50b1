"""The prior of each skill, fitted to the groups that were chosen uniformly and to no others."""

import datetime as dt
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.estimates.columns import AUDITS, EDGE, ENOUGH, KEPT, STRENGTH, Columns, audited, fitted_prior
from app.flow.estimates.estimators import Beta, Estimator, make_estimator
from app.flow.estimates.moves import fresh_row, moved_row
from app.flow.estimates.skills import AbilityRows, fresh_ability, with_beliefs
from app.flow.estimates.store import Change
from app.flow.rollouts.groups import Group
from paced.wire import DiscountedBeta, Kernel, ObservationSource, Verdict
from tests.app.pools import columns_of, pool_of

NONE = np.zeros((1, len(AUDITS)))
NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
groups_of_one_skill = st.lists(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))


def after(sums: np.ndarray, groups: list[tuple[int, int]], skill: int = 0, *, is_audit: bool = True) -> np.ndarray:
    """The sums after one report."""
    k, n = (np.array([float(group[i]) for group in groups]) for i in (0, 1))
    return audited(sums, np.full(len(groups), skill), np.full(len(groups), is_audit), k, n)


def simulated(a: float, b: float, size: int, seed: int, least: int = 2) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    n = rng.integers(least, 13, size)
    return list(zip(rng.binomial(n, rng.beta(a, b, size)).tolist(), n.tolist(), strict=True))


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.5), (1.0, 1.0), (2.0, 3.0), (0.5, 4.0)])
def test_the_fit_recovers_the_beta_that_the_groups_come_from(a: float, b: float) -> None:
    """Whatever the sizes of the groups: their binomial noise is taken away."""
    found = fitted_prior(after(NONE, simulated(a, b, 40_000, seed=1)))
    assert (found[0][0], found[1][0]) == pytest.approx((a, b), rel=0.06)


def test_it_recovers_it_from_groups_that_come_one_by_one_on_average() -> None:
    """About 63 groups are remembered, so that a single fit is rough; mean and spread are right over many."""
    means, spreads = [], []
    for seed in range(60):
        sums = NONE
        for group in simulated(0.6, 1.4, 150, seed):
            sums = after(sums, [group])
        a, b = (float(part[0]) for part in fitted_prior(sums))
        means.append(a / (a + b))
        spreads.append(a * b / ((a + b) ** 2 * (a + b + 1)))
    assert np.mean(means) == pytest.approx(0.3, abs=0.02)
    assert np.std(means) < 0.07
    assert np.mean(spreads) == pytest.approx(0.07, rel=0.12)


@given(audits=groups_of_one_skill, others=groups_of_one_skill.filter(bool))
def test_groups_not_chosen_uniformly_do_not_move_it(
    audits: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    sums = after(NONE, audits)
    assert after(sums, others, is_audit=False).tolist() == sums.tolist()


@given(reports=st.lists(groups_of_one_skill.filter(bool), max_size=8), skills=st.lists(st.integers(0, 2), min_size=8))
def test_it_stays_within_its_bounds(reports: list[list[tuple[int, int]]], skills: list[int]) -> None:
    sums = np.zeros((3, len(AUDITS)))
    for groups, skill in zip(reports, skills, strict=False):
        sums = after(sums, groups, skill)
    a, b = fitted_prior(sums)
    strength = a + b
    assert np.isfinite(strength).all()
    assert ((strength >= STRENGTH[0] * (1 - 1e-9)) & (strength <= STRENGTH[1] * (1 + 1e-9))).all()
    assert (np.minimum(a, b) >= EDGE * strength * (1 - 1e-9)).all()
    if sums[:, 0].sum() < ENOUGH:
        assert a.tolist() == b.tolist() == [0.5] * 3


def test_few_groups_leave_the_plain_prior_and_a_skill_with_few_has_nearly_that_of_all() -> None:
    sums = np.zeros((3, len(AUDITS)))
    few = after(sums, [(1, 8)] * (int(ENOUGH) - 1))
    assert [part.tolist() for part in fitted_prior(few)] == [[0.5] * 3, [0.5] * 3]
    sums = after(after(sums, simulated(1, 4, 400, seed=2)), simulated(4, 1, 400, seed=3), skill=1)
    mean = _mean(sums)
    assert mean == pytest.approx([0.2, 0.8, 0.5], abs=0.04)
    moved = _mean(after(sums, [(8, 8)] * 2, skill=2))
    assert mean[2] < moved[2] < mean[2] + 2 / 10
    assert moved[:2] == pytest.approx(mean[:2], abs=0.01)


def test_groups_of_one_answer_fit_the_mean_only() -> None:
    a, b = fitted_prior(after(NONE, [(1, 1)] * 30 + [(0, 1)] * 90))
    assert (a[0], b[0]) == pytest.approx((0.25, 0.75))


def test_it_follows_a_student_that_changes() -> None:
    sums = NONE
    for group in [(1, 8)] * 400 + [(7, 8)] * 96:
        sums = after(sums, [group])
    assert _mean(sums)[0] == pytest.approx(7 / 8 - 0.75 * KEPT**96, abs=0.01)


def _mean(sums: np.ndarray) -> list[float]:
    a, b = fitted_prior(sums)
    return list(a / (a + b))


@pytest.mark.parametrize("source", ObservationSource)
def test_a_report_counts_for_the_prior_if_its_problem_was_chosen_uniformly(source: ObservationSource) -> None:
    rows = {7: fresh_row({"problem_id": 7, "skill": "algebra"})}
    found: AbilityRows = {"algebra": fresh_ability(1, "algebra")}
    group = Group(7, 0, source, 6, 8, Counter({Verdict.PASS: 6, Verdict.FAIL: 2}))
    with_beliefs(rows, [group], [moved_row(rows[7], group, NOW)], found)
    is_uniform = source in {ObservationSource.AUDIT, ObservationSource.HOLDOUT}
    assert found["algebra"]["n_groups"] == 1
    assert [found["algebra"][name] for name in AUDITS] == ([1, 0.75, 0.5625, 0.125] if is_uniform else [0] * 4)


def test_problems_never_measured_get_the_prior_of_their_skill() -> None:
    """Through the arrays in memory, which follow committed changes."""
    columns = columns_of([None, None, 8])
    columns.skill, columns.levels, columns.audits = np.array([0, 1, 0]), np.zeros(2), np.zeros((2, len(AUDITS)))
    pool, estimator = pool_of(columns, skills=["algebra", "geometry"]), make_estimator(DiscountedBeta())
    assert estimator.pass_rate(pool.columns)[:2].tolist() == [0.5, 0.5]
    for place, (name, groups) in enumerate({"algebra": [(1, 8)] * 50, "geometry": [(7, 8)] * 50}.items()):
        sums = dict(zip(AUDITS, after(NONE, groups)[0].tolist(), strict=True))
        row = {"skill": name, "level": 0.0, "index": place, "n_groups": 50, **sums}
        pool.apply(Change(1, [], [row], place))
    p = estimator.pass_rate(pool.columns)
    assert p[0] < 0.25 < 0.75 < p[1]
    assert p[2] > p[0]
    w = estimator.expected_weight(pool.columns.take(np.array([0])), Kernel())
    assert w[0] < Beta().expected_weight(Columns.zeros(1), Kernel())[0] * 1.5


@pytest.mark.parametrize(
    ("config", "made"),
    [
        (DiscountedBeta(), Beta(is_fitted=True)),
        (DiscountedBeta(prior_a=0.5, prior_b=0.5), Beta(0.5, 0.5)),
        (DiscountedBeta(prior_a=2.0), Beta(2.0, 0.5)),
        (DiscountedBeta(prior_b=2.0), Beta(0.5, 2.0)),
    ],
)
def test_a_prior_that_is_given_is_kept(config: DiscountedBeta, made: Estimator) -> None:
    assert make_estimator(config) == made
