"""The chunked loss against plain autograd in float64 on full logits, and what it promises besides."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from paced.losses import (
    DIVERGENCES,
    KLSettings,
    Projection,
    chunked,
    distillation_loss,
    sequence_coefficients,
    weighted_kl,
)
from paced.losses.divergences import forward_kl
from tests.paced.dense import (
    NAMES,
    TOLERANCE,
    assert_close,
    cases,
    dense_kl,
    dense_reference,
    gradients,
    leaves,
    projection,
)

# --- exactness --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(case=cases(), reduction=st.sampled_from(["seq_mean", "seq_sum"]))
def test_loss_and_gradients_match_dense_float64_autograd(case, reduction):
    dtype = case.student.hidden.dtype
    coefficient = sequence_coefficients(case.mask_B_T, case.weights_B, reduction, denominator=1.7)
    loss, kl, grads = dense_reference(case.student, case.teacher, coefficient, case.config)

    ours, metrics = distillation_loss(
        case.student,
        case.teacher,
        case.mask_B_T,
        case.weights_B,
        denominator=1.7,
        reduction=reduction,
        settings=case.config,
    )
    ours.backward()

    assert ours.dtype is dtype
    assert_close(ours, loss, TOLERANCE[dtype])
    for our_grad, grad in zip(gradients(case.student), grads, strict=True):
        assert our_grad.dtype is dtype
        assert_close(our_grad, grad, TOLERANCE[dtype])
    assert gradients(case.teacher) == [None] * len(grads)
    is_scored = coefficient != 0
    for i in range(len(kl)):
        if is_scored[i].any():
            assert metrics.kl_B[i].item() == pytest.approx(kl[i][is_scored[i]].mean().item(), rel=TOLERANCE[dtype])
        else:
            assert math.isnan(metrics.kl_B[i])
    assert metrics.n_tokens == is_scored.sum()
    if is_scored.any():
        assert metrics.kl_token_mean.item() == pytest.approx(kl[is_scored].mean().item(), rel=TOLERANCE[dtype])


@pytest.mark.parametrize("divergence", NAMES)
def test_chunks_of_more_rows_than_are_compared_at_a_time(divergence):
    n_tokens = 2 * chunked.ROWS_COMPARED["cpu"] + 5
    student, teacher = projection((n_tokens,), 30, 8, seed=1, soft_cap=3.0), projection((n_tokens,), 30, 4, seed=2)
    coefficient, config = torch.linspace(0, 1, n_tokens), KLSettings(divergence, chunk_size=n_tokens - 2)
    loss, kl, grads = dense_reference(student, teacher, coefficient, config)
    ours, our_kl = weighted_kl(student, teacher, coefficient, config)
    ours.backward()
    assert_close(ours, loss, 1e-12)
    assert_close(our_kl[1:], kl[1:], 1e-12)
    for our_grad, grad in zip(gradients(student), grads, strict=True):
        assert_close(our_grad, grad, 1e-12)


@given(case=cases())
@settings(max_examples=50, deadline=None)
def test_kl_is_never_negative_and_zero_against_itself(case):
    coefficient = torch.ones(case.mask_B_T.shape)
    _, kl = weighted_kl(case.student, case.teacher, coefficient, case.config)
    assert (kl >= 0).all()

    itself = replace(case.config, vocab_size=None)
    loss, kl = weighted_kl(case.student, case.student, coefficient, itself)
    loss.backward()
    assert (kl == 0).all()
    assert all((grad == 0).all() for grad in gradients(case.student))


@pytest.mark.parametrize("divergence", NAMES)
def test_a_small_kl_keeps_its_digits_in_float32(divergence):
    """Near the end of training p_s ≈ p_t: the plain sum would lose half the digits to the normalisers' rounding."""
    teacher = projection((16,), 500, 8, seed=1, dtype=torch.float32)
    student = leaves(replace(teacher, hidden=teacher.hidden * 1.001), torch.float32)
    config = KLSettings(divergence)
    _, kl, _ = dense_reference(student, teacher, torch.ones(16), config)
    _, ours = weighted_kl(student, teacher, torch.ones(16), config)
    plain = dense_kl(student, teacher, config).double()
    assert kl.max() < 1e-5
    assert (ours - kl).abs().max() < (plain - kl).abs().max() / 4
    assert_close(ours, kl, 0.02)


# --- weights, reductions, accumulation --------------------------------------------------------------------------------


def loss_and_gradients(weights, *, n_positions=6, rows=slice(None), **options):
    student = projection((4, n_positions), 40, 8, seed=3, dtype=torch.float32)
    teacher = projection((4, n_positions), 40, 5, seed=4, dtype=torch.float32)
    student, teacher = (leaves(replace(side, hidden=side.hidden[rows]), torch.float32) for side in (student, teacher))
    lengths = torch.tensor([1, 3, 6, 4])
    mask = (torch.arange(n_positions) < lengths[:, None])[rows]
    loss, metrics = distillation_loss(student, teacher, mask, torch.tensor(weights)[rows], **options)
    loss.backward()
    return loss.detach(), gradients(student), metrics


def test_a_weight_of_two_doubles_the_gradient_exactly():
    loss, grads, _ = loss_and_gradients([1.0, 1.0, 1.0, 1.0], denominator=3.0)
    doubled_loss, doubled, _ = loss_and_gradients([2.0, 2.0, 2.0, 2.0], denominator=3.0)
    assert doubled_loss == 2 * loss
    assert all(torch.equal(b, 2 * a) for a, b in zip(grads, doubled, strict=True))

    _, [hidden_once, _], _ = loss_and_gradients([1.0, 1.0, 1.0, 1.0], denominator=3.0)
    _, [hidden_twice, _], _ = loss_and_gradients([1.0, 2.0, 1.0, 1.0], denominator=3.0)
    assert torch.equal(hidden_twice[1], 2 * hidden_once[1])
    assert torch.equal(hidden_twice[2], hidden_once[2])


@pytest.mark.parametrize("reduction", ["seq_mean", "seq_sum", "token_mean"])
def test_four_micro_batches_equal_one_batch_under_the_same_denominator(reduction):
    weights = [0.25, 0.25, 0.25, 0.25] if reduction == "token_mean" else [0.25, 0.1094, 0.0, 1.5]
    options = {"denominator": 14.0, "reduction": reduction}
    loss, [grad_hidden, grad_weight], _ = loss_and_gradients(weights, **options)
    parts = [loss_and_gradients(weights, rows=slice(i, i + 1), **options) for i in range(4)]
    assert_close(sum(part[0] for part in parts), loss, 1e-6)
    assert_close(torch.cat([part[1][0] for part in parts]), grad_hidden, 1e-6)
    assert_close(sum(part[1][1] for part in parts), grad_weight, 1e-6)


def test_reductions_by_hand():
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    weights = torch.tensor([0.5, 2.0, 1.0])
    expected = {
        "seq_mean": [[0.125, 0, 0, 0], [0.125, 0.125, 0.125, 0.125], [0, 0, 0, 0]],
        "seq_sum": [[0.125, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]],
    }
    for reduction, coefficients in expected.items():
        assert sequence_coefficients(mask, weights, reduction, denominator=4).tolist() == coefficients
    token_mean = sequence_coefficients(mask, torch.tensor([1, 1, 1]), "token_mean", denominator=5)
    assert torch.equal(token_mean, mask / 5)


def test_sequence_weights_are_refused_under_a_token_mean():
    with pytest.raises(ValueError, match=r"sequence weights differ under reduction 'token_mean'.*use 'seq_mean'"):
        sequence_coefficients(torch.ones(2, 3), torch.tensor([1.0, 0.5]), "token_mean", denominator=6)


# --- what is computed, and what is not --------------------------------------------------------------------------------


def test_tokens_of_coefficient_zero_are_never_projected(monkeypatch):
    n_rows = []

    def spy(ls, lt):
        n_rows.append(len(ls))
        assert (ls.exp().sum(-1) - 1).abs().max() < 1e-12
        return forward_kl(ls, lt)

    monkeypatch.setitem(DIVERGENCES, "forward_kl", spy)
    student, teacher = projection((10,), 20, 4, seed=1), projection((10,), 20, 4, seed=2)
    coefficient = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1, 1, 0]) / 5
    with torch.no_grad():
        student.hidden[coefficient == 0] = math.nan
        teacher.hidden[coefficient == 0] = math.nan
    loss, kl = weighted_kl(student, teacher, coefficient, KLSettings(chunk_size=2))
    loss.backward()
    assert n_rows == [2, 2, 1]
    assert loss.isfinite()
    assert ((kl > 0) == (coefficient > 0)).all()
    assert (student.hidden.grad[coefficient == 0] == 0).all()
    assert all(grad.isfinite().all() for grad in gradients(student))


def test_nothing_to_score_is_a_loss_of_zero_with_zero_gradients():
    student, teacher = projection((2, 3), 20, 4, seed=1), projection((2, 3), 20, 4, seed=2)
    loss, metrics = distillation_loss(student, teacher, torch.ones(2, 3), torch.zeros(2), denominator=1)
    loss.backward()
    assert loss == 0
    assert all((grad == 0).all() for grad in gradients(student))
    assert metrics.n_tokens == 0
    assert metrics.kl_B.isnan().all()
    assert metrics.kl_token_mean.isnan()


class Largest(TorchDispatchMode):
    """Notes the most elements that any operation returned."""

    n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.n_elements = max(self.n_elements, x.numel())
        return out


@pytest.mark.parametrize("divergence", NAMES)
def test_full_logits_never_exist(divergence):
    n_tokens, n_vocabulary, width = 64, 97, 5
    student, teacher = (projection((n_tokens,), n_vocabulary, width, seed=seed) for seed in (1, 2))
    with Largest() as largest:
        loss, _ = weighted_kl(student, teacher, torch.ones(n_tokens), KLSettings(divergence, chunk_size=4))
        loss.backward()
    assert largest.n_elements == n_vocabulary * width  # the head's gradient; logits are 6,208


def test_only_what_needs_a_gradient_gets_one():
    student, teacher = projection((6,), 20, 4, seed=1, bias=True), projection((6,), 20, 4, seed=2)
    frozen_head = Projection(student.hidden, student.weight_V_H.detach(), student.bias_V.detach())
    weighted_kl(frozen_head, teacher, torch.ones(6))[0].backward()
    assert student.hidden.grad is not None
    assert gradients(student)[1:] == [None, None]

    with torch.no_grad():
        loss, _ = weighted_kl(student, teacher, torch.ones(6))
    assert not loss.requires_grad


def test_a_head_tied_to_the_embedding_gets_both_gradients():
    def run(loss_of):
        embedding = projection((1,), 20, 4, seed=1).weight_V_H
        tokens = torch.tensor([3, 5, 3, 7])
        loss_of(Projection(torch.tanh(embedding[tokens]), embedding)).backward()
        return embedding.grad

    teacher, coefficient = projection((4,), 20, 6, seed=2), torch.tensor([0.5, 0.0, 1.0, 2.0])
    ours = run(lambda student: weighted_kl(student, teacher, coefficient)[0])
    dense = run(lambda student: (coefficient * dense_kl(student, teacher, KLSettings())).sum())
    assert_close(ours, dense, 1e-12)


def test_a_self_teacher_may_share_the_head_and_stays_constant():
    student = projection((6,), 20, 4, seed=1)
    teacher = Projection(student.hidden * 0.5, student.weight_V_H)
    _, _, grads = dense_reference(student, teacher, torch.ones(6), KLSettings())
    weighted_kl(student, teacher, torch.ones(6))[0].backward()
    for our_grad, grad in zip(gradients(student), grads, strict=True):
        assert_close(our_grad, grad, 1e-12)


def test_rows_of_padding_get_no_gradient():
    student, teacher = projection((6,), 24, 4, seed=1, bias=True), projection((6,), 30, 4, seed=2)
    weighted_kl(student, teacher, torch.ones(6), KLSettings(vocab_size=20))[0].backward()
    assert (student.weight_V_H.grad[20:] == 0).all()
    assert (student.bias_V.grad[20:] == 0).all()
    assert (student.weight_V_H.grad[:20] != 0).all()


def test_backward_scales_by_what_comes_in_and_works_once():
    student, teacher = projection((6,), 20, 4, seed=1), projection((6,), 20, 4, seed=2)
    loss, _ = weighted_kl(student, teacher, torch.ones(6))
    loss.backward()
    once = gradients(student)
    again = leaves(student, torch.float64)
    loss, _ = weighted_kl(again, teacher, torch.ones(6))
    (loss * 4).backward(retain_graph=True)
    assert all(torch.equal(b, 4 * a) for a, b in zip(once, gradients(again), strict=True))
    with pytest.raises(RuntimeError, match="compute the loss again"):
        loss.backward()


# --- lower precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_are_compared_in_float32(dtype):
    student = projection((12,), 300, 16, seed=1, dtype=dtype)
    teacher = projection((12,), 300, 24, seed=2, dtype=dtype)
    coefficient = torch.linspace(0.1, 1, 12)
    loss, kl, grads = dense_reference(student, teacher, coefficient, KLSettings())
    ours, our_kl = weighted_kl(student, teacher, coefficient, KLSettings(chunk_size=5))
    ours.backward()
    assert ours.dtype is our_kl.dtype is torch.float32
    assert_close(ours, loss, 1e-6)
    assert_close(our_kl, kl, 1e-6)
    for our_grad, grad in zip(gradients(student), grads, strict=True):
        assert our_grad.dtype is dtype
        assert_close(our_grad, grad, torch.finfo(dtype).eps / 2)  # rounded once, at the end


def test_autocast_does_not_reach_the_loss():
    teacher, coefficient = projection((6,), 50, 4, seed=2, dtype=torch.float32), torch.ones(6)
    plain, cast = (projection((6,), 50, 4, seed=1, dtype=torch.float32) for _ in range(2))
    loss, _ = weighted_kl(plain, teacher, coefficient)
    loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        cast_loss, _ = weighted_kl(cast, teacher, coefficient)
    cast_loss.backward()
    assert torch.equal(loss, cast_loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients(plain), gradients(cast), strict=True))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_vocabularies_that_differ_beyond_padding_are_refused_until_the_size_is_told():
    student, teacher = projection((3,), 600, 4, seed=1), projection((3,), 40, 4, seed=2)
    with pytest.raises(ValueError, match=r"student's head has 600 rows and the teacher's 40.*vocab_size=len"):
        weighted_kl(student, teacher, torch.ones(3))
    loss, _ = weighted_kl(student, teacher, torch.ones(3), KLSettings(vocab_size=40))
    assert loss > 0
    for size in (0, 41):
        with pytest.raises(ValueError, match=f"vocab_size is {size}: it must be from 1 to 40"):
            weighted_kl(student, teacher, torch.ones(3), KLSettings(vocab_size=size))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divergence": "kl"}, "divergence 'kl' is not known: choose one of forward_kl, reverse_kl, jsd, akl"),
        ({"divergence": "k1"}, "'k1' .* expected gradient of zero.*Use 'reverse_kl'"),
        ({"divergence": "k3"}, "'k3' .* its gradient is that of the forward KL"),
        ({"divergence": "top_k"}, "'top_k' .* leaves out the mass of all others.*Give the teacher as TopK"),
        ({"divergence": "jsd", "beta": 1.0}, "beta is 1.0: .* the JSD is 0 whatever the student does"),
        ({"divergence": "akl", "head_mass": 0.0}, "head_mass is 0.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"chunk_size": 0}, "chunk_size is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        KLSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_B_T": torch.ones(3)}, r"mask has shape \[3\]"),
        ({"weights_B": torch.ones(3)}, r"weights \[3\]: give \[B, T\] and \[B\]"),
        ({"weights_B": torch.tensor([1.0, -1.0])}, "finite and not negative"),
        ({"weights_B": torch.tensor([1.0, math.nan])}, "finite and not negative"),
        ({"denominator": 0.0}, "denominator is 0.0"),
        ({"denominator": math.nan}, "denominator is nan"),
        ({"reduction": "mean"}, "reduction 'mean' is not known"),
    ],
)
def test_coefficients_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sequence_coefficients(
            **{"mask_B_T": torch.ones(2, 3), "weights_B": torch.ones(2), "denominator": 1.0} | changes
        )


def test_tensors_that_do_not_fit_are_refused_by_name():
    student, teacher = projection((3,), 20, 4, seed=1), projection((2,), 20, 4, seed=2)
    with pytest.raises(ValueError, match=r"teacher's hidden states are \[2, 4\] and the coefficients \[3\]"):
        weighted_kl(student, teacher, torch.ones(3))
    with pytest.raises(ValueError, match=r"student's head and hidden states are \[4, 20\] and \[3, 4\]"):
        weighted_kl(replace(student, weight_V_H=student.weight_V_H.T), teacher, torch.ones(3))
    with pytest.raises(ValueError, match="coefficients require grad"):
        weighted_kl(student, student, torch.ones(3, requires_grad=True))


def test_paced_itself_imports_without_torch():
    code = "import sys, paced; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
