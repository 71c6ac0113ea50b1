"""The weight acts once: in the draw and corrected in the loss, or in the loss alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Conflict
from app.flow.curricula.rule import PRESETS, Rule
from app.flow.curricula.weighting import peak
from app.flow.estimates.estimators import make_estimator
from paced.wire import (
    CurriculumUpdate,
    DiscountedBeta,
    DriftFilter,
    EstimatorConfig,
    Kernel,
    LogitFilter,
    Mode,
    PlugInNewest,
    Preset,
    Stage,
    StagePlan,
)
from tests.app.pools import columns_of, draw_from, pool_of

UNCLIPPED = 1e6
groups = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30)  # k of 8, allowed
kernels = st.builds(Kernel, alpha=st.floats(0, 4), beta=st.floats(0, 4))
estimators = st.sampled_from([PlugInNewest(), DiscountedBeta(), LogitFilter(), DriftFilter()])


@dataclass(frozen=True)
class Weighed:
    """Aligned with the problems; 0 where a problem cannot be drawn."""

    weight: np.ndarray
    draw_probability: np.ndarray
    loss_weight: np.ndarray


def weigh(rule: Rule, rows: Sequence[tuple[int | None, bool]]) -> Weighed:
    """All that can be drawn, drawn: each with its chance to be the first."""
    pool = pool_of(columns_of([k for k, _ in rows]), is_ready=np.array([is_allowed for _, is_allowed in rows]))
    drawn = draw_from(pool, rule, len(rows))
    made = Weighed(*(np.zeros(len(rows)) for _ in range(3)))
    made.weight[:] = make_estimator(rule.estimator).expected_weight(pool.columns, rule.kernel)
    assert drawn.weights == pytest.approx(made.weight[drawn.ordinals], abs=1e-6), "a draw weighs to six digits"
    made.weight[drawn.ordinals] = drawn.weights
    made.draw_probability[drawn.ordinals] = drawn.draw_probabilities
    made.loss_weight[drawn.ordinals] = drawn.loss_weights
    return made


@given(rows=groups, kernel=kernels, estimator=estimators, gamma=st.floats(0, 8), mode=st.sampled_from(Mode))
def test_the_expected_loss_is_weighted_once(
    rows: list[tuple[int, bool]], kernel: Kernel, estimator: EstimatorConfig, gamma: float, mode: Mode
) -> None:
    """E[loss_weight · 1{i}] = q_i · loss_weight_i ∝ w_i, sums to 1, in either mode and for any γ."""
    rule = Rule(estimator=estimator, kernel=kernel, gamma=gamma, mode=mode, loss_weight_clip=UNCLIPPED)
    made = weigh(rule, rows)
    is_allowed = np.array([allowed for _, allowed in rows])
    w = np.where(is_allowed, made.weight, 0.0)
    assert (made.draw_probability[~is_allowed] == 0).all()
    if w.sum() == 0:
        assert not made.draw_probability.any()
        assert not made.loss_weight.any()
        return
    assert made.draw_probability.sum() == pytest.approx(1.0)
    is_exact = made.loss_weight < UNCLIPPED
    expected = w / w.sum()
    assert (made.draw_probability * made.loss_weight)[is_exact] == pytest.approx(expected[is_exact], abs=1e-12)


@given(rows=groups, gamma=st.floats(0, 64), clip=st.floats(1, 10))
def test_loss_weights_are_clipped(rows: list[tuple[int, bool]], gamma: float, clip: float) -> None:
    made = weigh(Rule(estimator=DiscountedBeta(), gamma=gamma, mode=Mode.SAMPLE, loss_weight_clip=clip), rows)
    assert ((made.loss_weight >= 0) & (made.loss_weight <= clip)).all()
    assert np.isfinite(made.draw_probability).all()


def test_gamma_sharpens_and_zero_flattens() -> None:
    rows = [(k, True) for k in range(9)]
    flat, plain, sharp = (
        weigh(Rule(estimator=DiscountedBeta(), gamma=gamma, mode=Mode.SAMPLE), rows) for gamma in (0.0, 1.0, 2.0)
    )
    assert flat.draw_probability == pytest.approx([1 / 9] * 9)
    assert plain.draw_probability == pytest.approx(plain.weight / plain.weight.sum())
    assert sharp.draw_probability == pytest.approx(plain.weight**2 / (plain.weight**2).sum())
    assert plain.loss_weight == pytest.approx([1.0] * 9)


def test_the_paper_draws_uniformly_and_weighs_the_loss() -> None:
    made = weigh(PRESETS[Preset.PAPER], [(k, True) for k in (0, 2, 4, 8)])
    assert made.draw_probability == pytest.approx([0.25] * 4)
    w = np.array([0, 0.1875, 0.25, 0])
    assert made.loss_weight == pytest.approx(w / w.mean())


def test_unmeasured_problems_are_open_to_a_posterior_only() -> None:
    plug_in = weigh(Rule(estimator=PlugInNewest(), gamma=1.0, mode=Mode.SAMPLE), [(None, True)] * 3)
    assert not plug_in.draw_probability.any()
    for estimator in (DiscountedBeta(), LogitFilter(), DriftFilter()):
        posterior = weigh(Rule(estimator=estimator, gamma=1.0, mode=Mode.SAMPLE), [(None, True)] * 3)
        assert posterior.draw_probability == pytest.approx([1 / 3] * 3)


@given(ks=st.lists(st.integers(0, 8), min_size=2, max_size=30), share=st.floats(0.01, 0.5), gamma=st.floats(0, 4))
def test_a_share_of_the_chance_goes_to_settled_problems(ks: list[int], share: float, gamma: float) -> None:
    """Evenly on top of what their own weight gives; where nothing has weight, all of it."""
    rule = Rule(estimator=PlugInNewest(), gamma=gamma, mode=Mode.SAMPLE, retest_share=share)
    made = weigh(rule, [(k, True) for k in ks])
    is_settled = np.isin(ks, [0, 8])
    assert made.draw_probability.sum() == pytest.approx(1.0)
    if is_settled.all():
        assert made.draw_probability == pytest.approx(1 / len(ks))
    elif is_settled.any():
        assert made.draw_probability[is_settled].sum() == pytest.approx(share)
        assert np.ptp(made.draw_probability[is_settled]) == pytest.approx(0.0, abs=1e-12)
        assert not made.loss_weight[is_settled].any(), "they are looked at again, not trained on"
    else:
        assert made.draw_probability == pytest.approx(
            weigh(rule.model_copy(update={"retest_share": 0.0}), [(k, True) for k in ks]).draw_probability
        )


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (2, 0.5), (0, 3), (0, 0)])
def test_no_weight_is_above_the_peak(alpha: float, beta: float) -> None:
    p = np.linspace(0, 1, 10_001)
    w = p**alpha * (1 - p) ** beta
    assert w.max() == pytest.approx(peak(Kernel(alpha=alpha, beta=beta)), rel=1e-6)


def test_the_schedule_is_walked_batch_by_batch() -> None:
    plans = [StagePlan(stage=Stage.FORWARD_KL, steps=2), StagePlan(stage=Stage.REVERSE_KL, steps=1)]
    rule = PRESETS[Preset.DEFAULT].model_copy(update={"schedule": plans})
    assert [rule.stage_at(step) for step in range(3)] == ["forward_kl", "forward_kl", "reverse_kl"]
    with pytest.raises(Conflict, match="ended after 3 batches") as caught:
        rule.stage_at(3)
    assert (caught.value.code, caught.value.members) == ("schedule_complete", {"n_steps": 3})
    endless = PRESETS[Preset.DEFAULT]
    assert [endless.stage_at(step) for step in (0, 99, 100, 10**9)] == ["forward_kl"] * 2 + ["reverse_kl"] * 2


def test_an_update_changes_only_what_it_names() -> None:
    rule = PRESETS[Preset.PAPER]
    changed = rule.changed(CurriculumUpdate(gamma=3.0))
    assert changed == rule.model_copy(update={"gamma": 3.0})
    assert rule.changed(CurriculumUpdate()) == rule
