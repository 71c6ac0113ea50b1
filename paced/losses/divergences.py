"""Divergences between two distributions over a vocabulary, with their gradients in closed form.

Each takes the log-probabilities `ls` of a student and `lt` of a teacher [C, V], and gives the divergence of each token
[C] in nats, and its gradient on the student's logits [C, V]. With p = exp:

    forward KL = KL(p_t ‖ p_s) = Σ_v p_t (lt − ls)      gradient p_s − p_t
    reverse KL = KL(p_s ‖ p_t) = Σ_v p_s (ls − lt)      gradient p_s (ls − lt − KL)
    JSD_β      = β KL(p_t ‖ m) + (1−β) KL(p_s ‖ m)      gradient (1−β) p_s (ls − log m − KL(p_s ‖ m))
                 with m = β p_t + (1−β) p_s
    AKL        = r · forward KL + (1−r) · reverse KL    gradient likewise; r is a constant
                 with r = g_head / (g_head + g_tail), g = Σ |p_t − p_s| over the teacher's head or tail

JSD_β is the generalised Jensen-Shannon divergence of Agarwal et al. (2024), AKL the adaptive KL of Wu et al. (2024).
"""

# Dimension suffixes are capitals: C tokens, V vocabulary, K likeliest tokens.
# ruff: noqa: N803, N806

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Divergence = Callable[..., tuple[Tensor, Tensor]]

FIRST_TRIED = 256  # tokens that mostly hold the head; sorting a whole vocabulary takes as long as projecting onto it


def forward_kl(ls_C_V: Tensor, lt_C_V: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p_t ‖ p_s) of each token [C], and its gradient on the student's logits [C, V]; overwrites its arguments."""
    p_t_C_V = lt_C_V.exp()
    ratio_C_V = lt_C_V.sub_(ls_C_V)
    dlogits_C_V = ls_C_V.exp_().sub_(p_t_C_V)
    # Adding Σ(p_s − p_t), which is 0, cancels the rounding of both normalisers: it matters when the two are close.
    kl_C = ratio_C_V.mul_(p_t_C_V).add_(dlogits_C_V).sum(-1)
    return kl_C, dlogits_C_V


def reverse_kl(ls_C_V: Tensor, lt_C_V: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p_s ‖ p_t) of each token [C], and its gradient on the student's logits [C, V]; overwrites its arguments."""
    p_s_C_V = ls_C_V.exp()
    ratio_C_V = ls_C_V.sub_(lt_C_V)
    kl_C = lt_C_V.exp_().sub_(p_s_C_V).addcmul_(p_s_C_V, ratio_C_V).sum(-1)  # with Σ(p_t − p_s), as above
    return kl_C, ratio_C_V.sub_(kl_C[:, None]).mul_(p_s_C_V)


def jsd(ls_C_V: Tensor, lt_C_V: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """JSD_β of each token [C], and its gradient on the student's logits [C, V]; overwrites its arguments."""
    p_s_C_V, p_t_C_V = ls_C_V.exp(), lt_C_V.exp()
    gap_C_V = lt_C_V.sub_(ls_C_V)
    # log(p_s/m) = −log(1−β + β exp(gap)), taken from the side on which exp cannot overflow.
    share_C_V = torch.where(gap_C_V > 0, gap_C_V.new_tensor(1 - beta), gap_C_V.new_tensor(beta))
    outer_C_V = share_C_V.mul_(gap_C_V.abs().neg_().expm1_()).log1p_().neg_()
    log_s_m_C_V = torch.sub(outer_C_V, gap_C_V.clamp_min(0), out=ls_C_V)
    log_t_m_C_V = outer_C_V.add_(gap_C_V.clamp_max_(0))
    kl_s_C = (p_s_C_V * log_s_m_C_V).sum(-1)
    jsd_C = beta * log_t_m_C_V.mul_(p_t_C_V).sum(-1) + (1 - beta) * kl_s_C
    return jsd_C, log_s_m_C_V.sub_(kl_s_C[:, None]).mul_(p_s_C_V).mul_(1 - beta)


def akl(ls_C_V: Tensor, lt_C_V: Tensor, *, head_mass: float) -> tuple[Tensor, Tensor]:
    """AKL of each token [C], and its gradient on the student's logits [C, V]; overwrites its arguments.

    The head is the teacher's likeliest token, and the next ones for as long as their probabilities add up to no more
    than `head_mass`.
    """
    share_C = _head_share(ls_C_V, lt_C_V, head_mass)
    forward_C, forward_C_V = forward_kl(ls_C_V.clone(), lt_C_V.clone())
    reverse_C, reverse_C_V = reverse_kl(ls_C_V, lt_C_V)
    return torch.lerp(reverse_C, forward_C, share_C), torch.lerp(reverse_C_V, forward_C_V, share_C[:, None])


def _head_share(ls_C_V: Tensor, lt_C_V: Tensor, head_mass: float) -> Tensor:
    """Return the head's share [C] of Σ|p_t − p_s|; ½ where the distributions are one."""
    n_vocabulary, n_tried = lt_C_V.shape[-1], FIRST_TRIED
    while True:
        top_C_K, ids_C_K = lt_C_V.topk(min(n_tried, n_vocabulary))
        mass_C_K = top_C_K.double().exp_().cumsum(-1)
        if n_tried >= n_vocabulary or bool((mass_C_K[:, -1] > head_mass).all()):
            break
        n_tried *= 16
    is_head_C_K = mass_C_K <= head_mass
    is_head_C_K[:, 0] = True
    gap_C_V = lt_C_V.exp().sub_(ls_C_V.exp()).abs_()
    head_C, total_C = (gap_C_V.gather(-1, ids_C_K) * is_head_C_K).sum(-1), gap_C_V.sum(-1)
    return torch.where(total_C > 0, (head_C / total_C).clamp_max(1), 0.5)


# A new divergence is one more function, without other effects, a line here, and its settings' names if it has any.
DIVERGENCES: dict[str, Divergence] = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd, "akl": akl}
PARAMETERS: dict[str, tuple[str, ...]] = {"jsd": ("beta",), "akl": ("head_mass",)}

# What trains something else than its name says.
REFUSED = {
    "k1": "k1, log p_s − log p_t of sampled tokens, has an expected gradient of zero: as a loss it is noise. Use "
    "'reverse_kl', which is exact",
    "k3": "k3 estimates the reverse KL of the student's own tokens, but its gradient is that of the forward KL. Name "
    "which you mean: 'forward_kl' or 'reverse_kl', both exact",
    "top_k": "a KL cut to the top-k tokens leaves out the mass of all others, and its gradient is wrong. Give the "
    "teacher as TopK and name 'forward_kl' or 'reverse_kl': the rest is then one more bucket",
}


@dataclass(frozen=True)
class KLSettings:
    """What is compared, and how: raises ValueError on a setting that means nothing.

    `divergence` is a name in `DIVERGENCES`; `beta` is the teacher's share of the mixture in 'jsd', `head_mass` what the
    head of 'akl' holds. Both heads are cut to their first `vocab_size` rows, over which both distributions are
    normalised; when None, to the shorter head's, if they differ by no more than padding. `chunk_size` tokens are
    projected at a time, each on about 10 · V bytes; the result does not depend on it.
    """

    divergence: str = "forward_kl"
    temperature: float = 1.0
    vocab_size: int | None = None
    chunk_size: int = 256
    beta: float = 0.5
    head_mass: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what would fail later, or silently mean something else."""
        if self.divergence not in DIVERGENCES:
            why = REFUSED.get(self.divergence, f"choose one of {', '.join(DIVERGENCES)}")
            raise ValueError(f"divergence {self.divergence!r} is not known: {why}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: it must be positive and finite")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size is {self.chunk_size}: at least one token must be projected at a time")
        if not 0 < self.beta < 1:
            raise ValueError(
                f"beta is {self.beta}: it must lie between 0 and 1, at which the JSD is 0 whatever the student does. "
                "Near 0 it is beta times 'forward_kl', near 1 it is 1 − beta times 'reverse_kl': choose these"
            )
        if not 0 < self.head_mass < 1:
            raise ValueError(f"head_mass is {self.head_mass}: it must lie between 0 and 1")

    def compare(self, ls_C_V: Tensor, lt_C_V: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence of each token [C], and its gradient [C, V]; overwrites its arguments."""
        parameters = {name: getattr(self, name) for name in PARAMETERS.get(self.divergence, ())}
        return DIVERGENCES[self.divergence](ls_C_V, lt_C_V, **parameters)
