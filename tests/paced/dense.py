"""Dense float64 autograd that the chunked losses are held against, and material for both."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from paced.losses import DIVERGENCES, KLSettings, Projection

NAMES = sorted(DIVERGENCES)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def dense_log_probs(side: Projection, n_vocabulary: int, temperature: float) -> Tensor:
    logits = side.hidden @ side.weight_V_H.T
    if side.bias_V is not None:
        logits = logits + side.bias_V
    if side.soft_cap is not None:
        logits = side.soft_cap * torch.tanh(logits / side.soft_cap)
    return torch.log_softmax(logits[..., :n_vocabulary] / temperature, dim=-1)


def dense_divergence(ls: Tensor, lt: Tensor, config: KLSettings) -> Tensor:
    """Divergence of each token [...] from log-probabilities [..., V], by the definition."""
    p_s, p_t = ls.exp(), lt.exp()

    def kl(p, log_p, log_q):
        return torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)

    if config.divergence == "forward_kl":
        return kl(p_t, lt, ls)
    if config.divergence == "reverse_kl":
        return kl(p_s, ls, lt)
    if config.divergence == "jsd":
        m = config.beta * p_t + (1 - config.beta) * p_s
        return config.beta * kl(p_t, lt, m.log()) + (1 - config.beta) * kl(p_s, ls, m.log())
    share = head_share(p_s.detach(), p_t, config.head_mass)
    return share * kl(p_t, lt, ls) + (1 - share) * kl(p_s, ls, lt)


def head_share(p_s: Tensor, p_t: Tensor, head_mass: float) -> Tensor:
    """g_head / (g_head + g_tail) of Wu et al. (2024), by sorting."""
    order = p_t.argsort(-1, descending=True)
    gap = (p_t - p_s).abs().gather(-1, order)
    is_head = p_t.gather(-1, order).cumsum(-1) <= head_mass
    is_head[..., 0] = True
    return torch.where(gap.sum(-1) > 0, (gap * is_head).sum(-1) / gap.sum(-1), 0.5)


def dense_kl(student: Projection, teacher: Projection, config: KLSettings) -> Tensor:
    """Divergence of each token [...], from full logits."""
    n_vocabulary = config.vocab_size or min(len(student.weight_V_H), len(teacher.weight_V_H))
    ls = dense_log_probs(student, n_vocabulary, config.temperature)
    with torch.no_grad():
        lt = dense_log_probs(teacher, n_vocabulary, config.temperature)
    return dense_divergence(ls, lt, config)


def dense_reference(student: Projection, teacher: Projection, coefficient: Tensor, config: KLSettings):
    """Loss, KL of each token, and gradients of the student's tensors: float64, full logits, plain autograd."""
    student, teacher = leaves(student, torch.float64), leaves(teacher, torch.float64)
    kl = dense_kl(student, teacher, config)
    loss = (coefficient.double() * kl).sum()
    loss.backward()
    return loss.detach(), kl.detach(), gradients(student)


def leaves(side: Projection, dtype: torch.dtype) -> Projection:
    """The same numbers as fresh tensors that collect gradients."""

    def leaf(x):
        return None if x is None else x.detach().to(dtype).clone().requires_grad_()

    return Projection(leaf(side.hidden), leaf(side.weight_V_H), leaf(side.bias_V), side.soft_cap)


def gradients(side: Projection) -> list[Tensor]:
    return [x.grad for x in (side.hidden, side.weight_V_H, side.bias_V) if x is not None]


def projection(shape, n_vocabulary, width, *, seed, dtype=torch.float64, bias=False, soft_cap=None) -> Projection:
    """Random logits with a standard deviation of about 1.

    Far greater ones saturate the softmax, far smaller ones make all KL small: there float32 logits have lost digits
    before any formula sees them, dense autograd's too.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    weight = normal(n_vocabulary, width) * (1 / math.sqrt(width))
    return leaves(
        Projection(normal(*shape, width), weight, normal(n_vocabulary) / 2 if bias else None, soft_cap), dtype
    )


def assert_close(ours: Tensor, reference: Tensor, tolerance: float) -> None:
    """The difference's norm is within `tolerance` of the reference's."""
    assert (ours.double() - reference.double()).norm() <= tolerance * reference.double().norm()


@dataclass(frozen=True)
class Case:
    student: Projection
    teacher: Projection
    mask_B_T: Tensor
    weights_B: Tensor
    config: KLSettings


@st.composite
def cases(draw) -> Case:
    n_sequences, n_positions = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    n_vocabulary = draw(st.sampled_from([16, 60, 300]))
    padding = st.integers(0, 9)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    seed = draw(st.integers(0, 2**31))
    options = {"dtype": dtype, "bias": draw(st.booleans()), "soft_cap": draw(st.sampled_from([None, 3.0]))}
    shape = (n_sequences, n_positions)
    mask = draw(st.lists(st.booleans(), min_size=n_sequences * n_positions, max_size=n_sequences * n_positions))
    weights = draw(st.lists(st.sampled_from([0.0, 0.1094, 0.25, 1.0, 7.0]), min_size=shape[0], max_size=shape[0]))
    return Case(
        student=projection(shape, n_vocabulary + draw(padding), draw(st.integers(4, 12)), seed=seed, **options),
        teacher=projection(shape, n_vocabulary + draw(padding), draw(st.integers(4, 12)), seed=seed + 1, **options),
        mask_B_T=torch.tensor(mask).view(shape),
        weights_B=torch.tensor(weights, dtype=dtype),
        config=KLSettings(
            divergence=draw(st.sampled_from(NAMES)),
            temperature=draw(st.sampled_from([0.8, 1.0, 1.5])),
            vocab_size=draw(st.sampled_from([None, n_vocabulary])),
            chunk_size=draw(st.integers(1, n_sequences * n_positions + 1)),
            beta=draw(st.sampled_from([0.1, 0.5, 0.9])),
            head_mass=draw(st.sampled_from([0.2, 0.5])),
        ),
    )
