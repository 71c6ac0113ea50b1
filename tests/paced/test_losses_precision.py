"""float32 at the vocabulary of a real model, where a product's rounding errors add up."""

import pytest
import torch

from paced.losses import KLSettings, Projection, TeacherLogits, TopK, chunked, weighted_kl
from tests.paced.dense import NAMES, assert_close, dense_log_probs, dense_reference, gradients, leaves

N_TOKENS, N_VOCABULARY, WIDTH = 24, 151_936, 256


def sides() -> tuple[Projection, Projection]:
    """Logits with a standard deviation of 3, and a teacher near its student."""
    generator = torch.Generator().manual_seed(3)

    def normal(*size, scale=1.0):
        return torch.randn(*size, generator=generator) * scale

    hidden, weight = normal(N_TOKENS, WIDTH), normal(N_VOCABULARY, WIDTH, scale=3 / WIDTH**0.5)
    near = weight + normal(N_VOCABULARY, WIDTH, scale=0.5 / WIDTH**0.5)
    student, teacher = Projection(hidden, weight), Projection(hidden + normal(N_TOKENS, WIDTH, scale=0.2), near)
    return leaves(student, torch.float32), leaves(teacher, torch.float32)


@pytest.mark.parametrize("divergence", NAMES)
def test_loss_and_gradients_are_within_a_millionth(divergence):
    student, teacher = sides()
    coefficient, config = torch.linspace(0.1, 1, N_TOKENS), KLSettings(divergence, chunk_size=16)
    loss, kl, grads = dense_reference(student, teacher, coefficient, config)
    ours, our_kl = weighted_kl(student, teacher, coefficient, config)
    ours.backward()
    assert_close(ours, loss, 1e-6)
    assert_close(our_kl, kl, 1e-6)
    for our_grad, grad in zip(gradients(student), grads, strict=True):
        assert_close(our_grad, grad, 1e-6)


def test_it_is_the_likeliest_tokens_logits_that_matter(monkeypatch):
    student, teacher = sides()
    _, _, grads = dense_reference(student, teacher, torch.ones(N_TOKENS), KLSettings())

    def error():
        fresh = leaves(student, torch.float32)
        weighted_kl(fresh, teacher, torch.ones(N_TOKENS))[0].backward()
        return float((fresh.weight_V_H.grad.double() - grads[1]).norm() / grads[1].norm())

    refined = error()
    monkeypatch.setattr(chunked, "N_REFINED", 1)
    assert refined < 0.6 * error()


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_teacher_by_logits_or_top_k_is_as_exact(is_listed):
    student, teacher = sides()
    exact = leaves(student, torch.float64)
    lt = dense_log_probs(leaves(teacher, torch.float64), N_VOCABULARY, 1.0).detach()
    ls = dense_log_probs(exact, N_VOCABULARY, 1.0)
    given = TeacherLogits(lt)
    if is_listed:
        top = lt.topk(64)
        given = TopK(top.indices, top.values)
        lt, ls = (
            torch.cat([x.gather(-1, top.indices), x.exp().scatter(-1, top.indices, 0).sum(-1, keepdim=True).log()], -1)
            for x in (lt, ls)
        )
    (lt.exp() * (lt - ls)).sum().backward()
    weighted_kl(student, given, torch.ones(N_TOKENS))[0].backward()
    for our_grad, grad in zip(gradients(student), gradients(exact), strict=True):
        assert_close(our_grad, grad, 1e-6)
