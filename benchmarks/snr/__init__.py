"""Gradient signal-to-noise by pass rate: the bell curve that PACED's weight rests on, measured.

On the student of the learning laboratory, whose pass rates are exact (laboratory.py), and on SmolLM2-135M-Instruct,
whose problems are measured by rollouts and whose loss is the trainer's own (real.py). Problems are grouped by pass
rate; of each, the gradient of its distillation loss (sequence mean of the exact KL, on one text of the teacher for
forward KL, of the student for reverse KL) is projected to `N_PROJECTED` numbers by random signs, which keeps inner
products in expectation. kernels.py says what is made of them.

Both sides are measured, or those that PACED_BENCH_SNR names, separated by commas. The real one is kept under
`.benchmarks/snr`: its problems are measured once, and its teacher's texts written once.
"""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.snr import laboratory, real
from benchmarks.snr.kernels import EDGES, N_PROJECTED, Groups, describe, fit_with_interval
from benchmarks.snr.plots import PLOT, plot

Measured = Iterator[tuple[str, str, Groups]]
SIDES: dict[str, Callable[[bool], Measured]] = {"laboratory": laboratory.groups, "real": real.groups}


def run(small: bool) -> dict[str, Any]:
    """Signal, noise and kernels of each pool of problems and divergence; writes a plot."""
    chosen = os.environ.get("PACED_BENCH_SNR", ",".join(SIDES)).split(",")
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for side in chosen:
        for pool, divergence, groups in SIDES[side](small):
            rows += [{"pool": pool, "divergence": divergence, **row} for row in describe(groups)]
            for name, what in (("kernel", "snr"), ("kernel_signal", "signal")):
                figures[f"{name}_{divergence}_{pool}"] = fit_with_interval(groups, what, rng)
            print(f"{pool}, {divergence}: {figures[f'kernel_{divergence}_{pool}']}", file=sys.stderr, flush=True)
    plot(rows, figures, PLOT)
    return {
        "settings": {"sides": chosen, "edges": EDGES, "n_projected": N_PROJECTED},
        "rows": rows,
        "figures": {**figures, "plot": str(PLOT)},
    }
