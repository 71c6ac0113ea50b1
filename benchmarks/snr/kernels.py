"""Signal and noise of projected gradients, and the Beta kernel that describes them by pass rate. Pure but for torch.

In a group of n gradients g with mean ḡ and spread S = Σ‖g − ḡ‖²/(n − 1),

    signal² = ‖ḡ‖² − S/n  (without the part of ‖ḡ‖² that is noise),    SNR = signal² / S.

log SNR is fitted by c + α log p + β log(1 − p), that is by the Beta kernel w = p^α (1 − p)^β; so is log signal², for
the size of what a group teaches. Intervals are quantiles over random halves of each group, whose spread is that of
the whole's (the delete-half jackknife); resampling with repeats would take the repeats for signal. `useful` is the
cosine between the mean gradient of half a group and that of the other halves of all groups inside the frontier.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.estimates.estimators import is_settled

EDGES = (0.0, 0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99, 1.0)
N_PROJECTED = 1024
N_RESAMPLED = 200
FLOOR = 1e-4  # of SNR and p, before logarithms
LEAST = 8  # problems that make a group


@dataclass(frozen=True, slots=True)
class Groups:
    """Projected gradients [n, N_PROJECTED] and exact pass rates [n] of each group of problems."""

    gradients: list[FloatArray]
    rates: list[FloatArray]

    @property
    def centres(self) -> FloatArray:
        """Mean pass rate of each group."""
        return np.array([rates.mean() for rates in self.rates])


def grouped(rates: FloatArray, rows: IntArray, n_each: int, rng: np.random.Generator) -> list[IntArray]:
    """Up to `n_each` of the rows between each two edges of the pass rate; groups of fewer than `LEAST` are left out."""
    places = np.clip(np.digitize(rates[rows], EDGES) - 1, 0, len(EDGES) - 2)
    found = [rows[places == place] for place in range(len(EDGES) - 1)]
    return [rng.permutation(group)[:n_each] for group in found if len(group) >= LEAST]


def signal_and_noise(gradients: FloatArray) -> tuple[float, float]:
    """(signal², S) of gradients [n, d]; signal² is unbiased, and so below 0 by chance where there is none."""
    n, mean = len(gradients), gradients.mean(axis=0)
    spread = float(((gradients - mean) ** 2).sum() / (n - 1))
    return float(mean @ mean) - spread / n, spread


def describe(groups: Groups) -> list[dict[str, Any]]:
    """A row for each group."""
    is_inside = ~is_settled(groups.centres)
    middle = np.concatenate([g[1::2] for g, inside in zip(groups.gradients, is_inside, strict=True) if inside])
    wanted = middle.mean(axis=0)
    rows = []
    for gradients, rate in zip(groups.gradients, groups.centres, strict=True):
        signal, spread = signal_and_noise(gradients)
        mean = gradients[::2].mean(axis=0)
        rows.append(
            {
                "pass_rate": round(float(rate), 4),
                "n": len(gradients),
                "signal": signal,
                "noise": spread,
                "snr": round(signal / spread, 5),
                "useful": round(float(mean @ wanted / np.linalg.norm(mean) / np.linalg.norm(wanted)), 4),
            }
        )
    return rows


def fit_kernel(rates: FloatArray, values: FloatArray) -> tuple[float, float, float]:
    """(α, β, R²) of log value = c + α log p + β log(1 − p), by least squares over groups."""
    p = np.clip(rates, FLOOR, 1 - FLOOR)
    design = np.stack([np.ones(len(p)), np.log(p), np.log1p(-p)], axis=1)
    target = np.log(np.maximum(values, FLOOR * values.max()))
    found, *_ = np.linalg.lstsq(design, target, rcond=None)
    spread = float(((target - target.mean()) ** 2).sum())
    missed = float(((target - design @ found) ** 2).sum())
    return float(found[1]), float(found[2]), 1 - missed / spread if spread else 1.0


def fit_with_interval(groups: Groups, what: str, rng: np.random.Generator) -> dict[str, Any]:
    """The kernel of SNR or of signal², with 95 % intervals; `peak` is α/(α+β) where both are positive."""

    def fit(gradients: list[FloatArray]) -> tuple[float, float, float]:
        both = np.array([signal_and_noise(g) for g in gradients])
        return fit_kernel(groups.centres, both[:, 0] / both[:, 1] if what == "snr" else both[:, 0])

    alpha, beta, r_squared = fit(groups.gradients)
    halves = ([rng.permutation(g)[: len(g) // 2] for g in groups.gradients] for _ in range(N_RESAMPLED))
    again = np.array([fit(half) for half in halves])
    low, high = np.quantile(again[:, :2], (0.025, 0.975), axis=0).round(3).tolist()
    return {
        "alpha": round(alpha, 3),
        "beta": round(beta, 3),
        "alpha_interval": [low[0], high[0]],
        "beta_interval": [low[1], high[1]],
        "peak": round(alpha / (alpha + beta), 3) if alpha > 0 and beta > 0 else None,
        "r_squared": round(r_squared, 3),
    }


class Projector:
    """Random signs, and a random place for each parameter: a sparse projection that keeps inner products."""

    def __init__(self, n_parameters: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (n_parameters,)
        self._places = torch.randint(0, N_PROJECTED, shape, generator=generator, dtype=torch.int32)
        self._signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8) * 2 - 1

    def __call__(self, gradient: torch.Tensor) -> FloatArray:
        """A gradient [n_parameters], projected."""
        out = torch.zeros(N_PROJECTED).index_add_(0, self._places, gradient * self._signs)
        return np.asarray(out.numpy(), np.float64)
