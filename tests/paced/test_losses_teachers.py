"""Teachers of which only logits, or only some log-probabilities, are known."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paced.losses import KLSettings, Projection, TeacherLogits, TopK, distillation_loss, weighted_kl
from tests.paced.dense import (
    NAMES,
    TOLERANCE,
    assert_close,
    dense_divergence,
    dense_log_probs,
    dense_reference,
    gradients,
    leaves,
    projection,
)

BUCKETED = ["forward_kl", "reverse_kl", "jsd"]

# --- logits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("divergence", NAMES)
def test_logits_of_a_teacher_do_as_well_as_its_head(divergence, dtype):
    student = projection((3, 7), 310, 8, seed=1, dtype=dtype, bias=True, soft_cap=3.0)
    teacher = projection((3, 7), 300, 5, seed=2, dtype=torch.float64)
    coefficient, config = torch.linspace(0, 1, 21).view(3, 7), KLSettings(divergence, temperature=1.5, chunk_size=4)
    logits = (teacher.hidden @ teacher.weight_V_H.T).to(dtype)
    same = Projection(logits, torch.eye(300, dtype=dtype))
    loss, kl, grads = dense_reference(student, same, coefficient, config)
    ours, our_kl = weighted_kl(student, TeacherLogits(logits), coefficient, config)
    ours.backward()
    assert_close(ours, loss, TOLERANCE[dtype])
    assert_close(our_kl.view(-1)[1:], kl.view(-1)[1:], TOLERANCE[dtype])
    for our_grad, grad in zip(gradients(student), grads, strict=True):
        assert_close(our_grad, grad, TOLERANCE[dtype])


def test_a_teachers_log_probabilities_are_logits_too_and_are_left_alone():
    student, logits = projection((4,), 30, 8, seed=1), torch.randn(4, 30, dtype=torch.float64)
    before = logits.clone()
    a, _ = weighted_kl(student, TeacherLogits(logits), torch.ones(4))
    b, _ = weighted_kl(student, TeacherLogits(logits.log_softmax(-1)), torch.ones(4))
    assert_close(a, b, 1e-12)
    assert torch.equal(logits, before)


def test_a_token_that_the_teacher_rules_out_counts_nothing_in_forward_kl_and_everything_in_reverse():
    student, logits = projection((4,), 30, 8, seed=1), torch.randn(4, 30, dtype=torch.float64)
    logits[:, ::3] = -torch.inf
    lt, ls = logits.log_softmax(-1), dense_log_probs(student, 30, 1.0)
    reference = dense_divergence(ls, lt, KLSettings())
    loss, kl = weighted_kl(student, TeacherLogits(logits), torch.ones(4))
    assert_close(kl, reference, 1e-12)
    loss.backward()
    grads = gradients(student)
    fresh = leaves(student, torch.float64)
    dense_divergence(dense_log_probs(fresh, 30, 1.0), lt, KLSettings()).sum().backward()
    for our_grad, grad in zip(grads, gradients(fresh), strict=True):
        assert_close(our_grad, grad, 1e-12)
    _, kl = weighted_kl(student, TeacherLogits(logits), torch.ones(4), KLSettings("reverse_kl"))
    assert (kl > 1e20).all()


def test_logits_that_do_not_fit_are_refused():
    student = projection((3,), 30, 8, seed=1)
    with pytest.raises(ValueError, match=r"teacher's logits are \[2, 30\] and the coefficients \[3\]"):
        weighted_kl(student, TeacherLogits(torch.zeros(2, 30)), torch.ones(3))
    with pytest.raises(ValueError, match="differ by more than padding"):
        weighted_kl(student, TeacherLogits(torch.zeros(3, 600)), torch.ones(3))


# --- top-k and the rest -----------------------------------------------------------------------------------------------


def served(teacher: Projection, n_listed: int) -> TopK:
    """What a server sends: the teacher's likeliest tokens, with their log-probabilities."""
    top = dense_log_probs(teacher, len(teacher.weight_V_H), 1.0).detach().topk(n_listed)
    return TopK(top.indices, top.values)


def dense_buckets(log_probs: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of the listed tokens, and of all others together: [..., K + 1]."""
    others = log_probs.exp().scatter(-1, ids, 0).sum(-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, ids), others.log()], -1)


@st.composite
def sparse_cases(draw):
    seed, n_vocabulary = draw(st.integers(0, 2**31)), draw(st.sampled_from([20, 300]))
    options = {"bias": draw(st.booleans()), "soft_cap": draw(st.sampled_from([None, 3.0]))}
    student = projection((2, 5), n_vocabulary, 8, seed=seed, **options)
    teacher = projection((2, 5), n_vocabulary, 5, seed=seed + 1)
    top = served(teacher, draw(st.integers(1, 19)))
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=10, max_size=10))).view(2, 5)
    config = KLSettings(draw(st.sampled_from(BUCKETED)), chunk_size=draw(st.integers(1, 11)))
    return student, top, mask, config


@settings(max_examples=150, deadline=None)
@given(case=sparse_cases())
def test_top_k_and_the_rest_match_dense_float64_autograd_over_buckets(case):
    student, top, mask, config = case
    weights = torch.tensor([0.25, 2.0], dtype=torch.float64)
    fresh = leaves(student, torch.float64)
    n_vocabulary = len(student.weight_V_H)
    rest = 1 - top.logprobs.exp().sum(-1, keepdim=True)  # as far as it can be known
    lt = torch.cat([top.logprobs, rest.log()], -1)
    ls = dense_buckets(dense_log_probs(fresh, n_vocabulary, 1.0), top.ids)
    kl = dense_divergence(ls, lt, config) * mask
    loss = (weights * kl.sum(-1) / mask.sum(-1).clamp_min(1)).sum() / 3
    loss.backward()

    ours, metrics = distillation_loss(student, top, mask, weights, denominator=3, settings=config)
    ours.backward()
    assert_close(ours, loss, 1e-11)  # a small rest is known to so many digits of float64
    for our_grad, grad in zip(gradients(student), gradients(fresh), strict=True):
        assert_close(our_grad, grad, 1e-11)
    assert metrics.n_tokens == mask.sum()


@pytest.mark.parametrize("divergence", BUCKETED)
def test_the_divergence_over_buckets_grows_to_the_exact_one(divergence):
    student, teacher = projection((20,), 200, 8, seed=1), projection((20,), 200, 8, seed=2)
    config = KLSettings(divergence)
    exact, _ = weighted_kl(student, teacher, torch.ones(20), config)
    sparse = [weighted_kl(student, served(teacher, k), torch.ones(20), config)[0] for k in (1, 8, 64, 198)]
    assert sparse == sorted(sparse)
    assert sparse[0] < 0.5 * exact
    assert sparse[-1] <= exact
    assert_close(sparse[-1], exact, 0.01)


def test_the_rest_as_a_bucket_keeps_the_gradients_direction_and_renormalising_does_not():
    wide, noise = (projection((100,), 2_000, 32, seed=seed) for seed in (1, 2))
    student = leaves(replace(wide, hidden=wide.hidden * 3), torch.float64)
    teacher = leaves(replace(wide, hidden=wide.hidden * 3 + noise.hidden / 2), torch.float64)

    def gradient(other):
        fresh = leaves(student, torch.float64)
        weighted_kl(fresh, other, torch.ones(100))[0].backward()
        return fresh.hidden.grad.flatten()

    exact, top = gradient(teacher), served(teacher, 64)
    renormalised = torch.full((100, 2_000), -torch.inf, dtype=torch.float64).scatter(-1, top.ids, top.logprobs)
    assert torch.cosine_similarity(gradient(top), exact, dim=0) > 0.99
    assert torch.cosine_similarity(gradient(TeacherLogits(renormalised)), exact, dim=0) < 0.95


def test_empty_slots_count_nothing_wherever_they_are():
    student, top = projection((6,), 40, 8, seed=1), served(projection((6,), 40, 5, seed=2), 5)
    ids, logprobs = (x.repeat_interleave(2, -1)[:, :-1].clone() for x in (top.ids, top.logprobs))
    ids[:, 1::2], logprobs[:, 1::2] = -1, torch.nan
    losses_and_grads = []
    for teacher in (top, TopK(ids, logprobs)):
        fresh = leaves(student, torch.float64)
        loss, _ = weighted_kl(fresh, teacher, torch.ones(6))
        loss.backward()
        losses_and_grads.append([loss.detach(), *gradients(fresh)])
    for a, b in zip(*losses_and_grads, strict=True):
        assert_close(a, b, 1e-12)


@pytest.mark.parametrize("divergence", BUCKETED)
def test_a_teacher_whose_list_rounds_to_certainty_stays_finite(divergence):
    student = projection((1,), 40, 8, seed=1)
    top = TopK(torch.tensor([[7, 3]]), torch.tensor([[0.0, -20.0]]))
    loss, _ = weighted_kl(student, top, torch.ones(1), KLSettings(divergence))
    loss.backward()
    assert 0 < loss < 20
    assert all(grad.isfinite().all() for grad in gradients(student))


@pytest.mark.parametrize(
    ("ids", "logprobs", "options", "message"),
    [
        ([[1, 2]], [[-1.0, -2.0]], {"temperature": 2.0}, "temperature is 2.0, but served .* temperature 1"),
        ([[1, 2]], [[-1.0, -2.0]], {"divergence": "akl"}, "'akl' compares the teacher's head with its tail"),
        ([[1, 1]], [[-1.0, -2.0]], {}, "lists a token twice"),
        ([[1, 2]], [[3.0, 2.0]], {}, "add up to .* not logits"),
        ([[1, 2]], [[-1.0, float("-inf")]], {}, "not finite: mark an empty slot by id −1"),
        ([[-1, 2]], [[-1.0, -2.0]], {}, "lists nothing in the first slot"),
        ([[1, 40]], [[-1.0, -2.0]], {}, "lists token 40, but the student's vocabulary has 40"),
        ([[1, 2]], [[-1.0, -2.0]], {"vocab_size": 2}, "lists 2 of 2 tokens: give all of it as logits"),
        ([[1, 2]], [[-1.0]], {}, r"are \[1, 2\] and \[1, 1\]: give both as \[1\] and K"),
    ],
)
def test_lists_that_would_silently_mean_something_else_are_refused(ids, logprobs, options, message):
    student = projection((1,), 40, 8, seed=1)
    with pytest.raises(ValueError, match=message):
        weighted_kl(student, TopK(torch.tensor(ids), torch.tensor(logprobs)), torch.ones(1), KLSettings(**options))


def test_what_is_not_scored_may_hold_anything():
    student = projection((2,), 40, 8, seed=1)
    top = TopK(torch.tensor([[1, 2], [-1, -1]]), torch.tensor([[-1.0, -2.0], [torch.nan, torch.nan]]))
    loss, _ = weighted_kl(student, top, torch.tensor([1.0, 0.0]))
    assert loss > 0
