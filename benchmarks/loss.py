"""The chunked distillation loss against plain autograd on full logits: memory, time and error, on the CPU in float32.

Each measurement is a process of its own that makes the same inputs, warms up on eight tokens, then runs forward and
backward once. Memory is the peak of resident memory during that run above what was resident before it (Linux's VmHWM,
reset first), so the inputs do not count, and gradients do. The sides take turns, and the median counts. Errors are
those of the loss and of both gradients against float64 autograd on full logits: the norm of the difference over the
norm. Each process has one thread: with more, whatever else keeps a core busy stalls every small operation at a barrier,
and the ratio measures that.
"""

# Dimension suffixes as in paced.losses are capitals:
# ruff: noqa: N806, N815

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paced.losses import KLSettings, Projection, weighted_kl

THREADS = 1
SLICE = 128  # tokens of the float64 reference at a time


@dataclass(frozen=True)
class Size:
    """What is projected: tokens [N] of width H onto a vocabulary V, student and teacher alike."""

    n_tokens: int
    n_vocabulary: int
    width: int


@dataclass(frozen=True)
class Inputs:
    """Student tensors collect gradients; the coefficients differ by token and sum to about 1."""

    student: Projection
    teacher: Projection
    coefficient_N: Tensor

    @classmethod
    def make(cls, size: Size) -> "Inputs":
        """Logits with a standard deviation of about 3; a teacher near its student."""
        generator = torch.Generator().manual_seed(7)

        def normal(*shape: int, scale: float) -> Tensor:
            return torch.empty(*shape).normal_(generator=generator).mul_(scale)

        hidden = normal(size.n_tokens, size.width, scale=1)
        weight = normal(size.n_vocabulary, size.width, scale=3 / size.width**0.5)
        teacher = Projection(
            hidden + normal(size.n_tokens, size.width, scale=0.2),
            normal(size.n_vocabulary, size.width, scale=0.5 / size.width**0.5).add_(weight),
        )
        coefficient = torch.rand(size.n_tokens, generator=generator).mul_(2 / size.n_tokens)
        return cls(Projection(hidden.requires_grad_(), weight.requires_grad_()), teacher, coefficient)

    def rows(self, rows: slice) -> "Inputs":
        """Some of the tokens, of the same tensors."""
        student = Projection(self.student.hidden[rows], self.student.weight_V_H)
        teacher = Projection(self.teacher.hidden[rows], self.teacher.weight_V_H)
        return Inputs(student, teacher, self.coefficient_N[rows])

    def take_gradients(self) -> list[Tensor]:
        """Return the gradients collected so far, and forget them."""
        tensors = (self.student.hidden, self.student.weight_V_H)
        gradients = [x.grad for x in tensors if x.grad is not None]
        for x in tensors:
            x.grad = None
        return gradients


def dense(inputs: Inputs) -> Tensor:
    """Forward KL as a trainer writes it: full logits, log-softmax, autograd."""
    with torch.no_grad():
        lt_N_V = (inputs.teacher.hidden @ inputs.teacher.weight_V_H.T).log_softmax(-1)
    ls_N_V = (inputs.student.hidden @ inputs.student.weight_V_H.T).log_softmax(-1)
    kl_N = torch.nn.functional.kl_div(ls_N_V, lt_N_V, reduction="none", log_target=True).sum(-1)
    return (inputs.coefficient_N * kl_N).sum()


def ours(inputs: Inputs) -> Tensor:
    """The same loss, chunk by chunk."""
    return weighted_kl(inputs.student, inputs.teacher, inputs.coefficient_N)[0]


SIDES: dict[str, Callable[[Inputs], Tensor]] = {"dense": dense, "ours": ours}


def measure(side: str, size: Size) -> dict[str, Any]:
    """Run one side once, in this process: peak of extra memory and wall time."""
    inputs = Inputs.make(size)
    SIDES[side](inputs.rows(slice(0, 8))).backward()
    inputs.take_gradients()
    Path("/proc/self/clear_refs").write_text("5")
    before_mb = _status_mb("VmRSS")
    started = time.perf_counter()
    SIDES[side](inputs).backward()
    time_s = time.perf_counter() - started
    return {"time_s": time_s, "extra_mb": _status_mb("VmHWM") - before_mb}


def measure_errors(size: Size) -> dict[str, Any]:
    """Relative error of loss and gradients of both sides, in this process, against dense autograd in float64."""
    inputs = Inputs.make(size)
    exact = Inputs(_doubled(inputs.student), _doubled(inputs.teacher), inputs.coefficient_N.double())
    loss = torch.zeros((), dtype=torch.float64)
    exact.student.hidden.requires_grad_()
    exact.student.weight_V_H.requires_grad_()
    for start in range(0, size.n_tokens, SLICE):
        part = dense(exact.rows(slice(start, start + SLICE)))
        part.backward()
        loss += part.detach()
    references = [loss, *exact.take_gradients()]
    errors: dict[str, Any] = {}
    for side, compute in SIDES.items():
        value = compute(inputs)
        value.backward()
        results = [value.detach(), *inputs.take_gradients()]
        names = ("loss", "grad_hidden", "grad_head")
        errors[side] = {n: _relative(a, b) for n, a, b in zip(names, results, references, strict=True)}
    return errors


def run(small: bool) -> dict[str, Any]:
    """Compare both sides at each size; `small` takes under a minute on two cores."""
    full = [(Size(1_024, 151_936, 1_024), 3), (Size(4_096, 151_936, 1_024), 1)]
    plan = [(Size(1_024, 16_384, 1_024), 3)] if small else full
    rows = [_compare(size, n_repeats) for size, n_repeats in plan]
    errors = _in_process("errors", plan[0][0])
    return {
        "settings": {
            "divergence": "forward_kl",
            "dtype": "float32",
            "chunk_size": KLSettings().chunk_size,
            "threads": THREADS,
            "repeats": [n_repeats for _, n_repeats in plan],
            "errors_at": asdict(plan[0][0]),
        },
        "rows": [*rows, {"errors": errors}],
        "figures": {
            "memory_ratio": rows[0]["memory_ratio"],
            "time_ratio": rows[0]["time_ratio"],
            "max_rel_error": max(errors["ours"].values()),
            "loss_rel_error": errors["ours"]["loss"],
            "dense_max_rel_error": max(errors["dense"].values()),
        },
    }


def _compare(size: Size, n_repeats: int) -> dict[str, Any]:
    """Medians of both sides, which take turns, and their ratios (ours over dense)."""
    measured: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(n_repeats):
        for side in SIDES:
            measured[side].append(_in_process(side, size))
    row: dict[str, Any] = asdict(size)
    for side, results in measured.items():
        row[f"{side}_s"] = statistics.median(result["time_s"] for result in results)
        row[f"{side}_extra_mb"] = statistics.median(result["extra_mb"] for result in results)
    row["memory_ratio"] = row["ours_extra_mb"] / row["dense_extra_mb"]
    row["time_ratio"] = row["ours_s"] / row["dense_s"]
    return row


def _in_process(what: str, size: Size) -> dict[str, Any]:
    """Measure in a fresh process, and read the JSON that it prints."""
    command = [sys.executable, "-m", "benchmarks.loss", what, *(str(n) for n in asdict(size).values())]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode} (−9: out of memory):\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _doubled(side: Projection) -> Projection:
    return Projection(side.hidden.detach().double(), side.weight_V_H.detach().double())


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value.double() - reference).norm() / reference.norm())


def _status_mb(field: str) -> float:
    """Read a field of /proc/self/status, which is in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024 / 1e6


def main() -> None:
    """Measure one side, or the errors, in this process: `python -m benchmarks.loss ours 1024 151936 1024`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", choices=[*SIDES, "errors"])
    for name in ("n_tokens", "n_vocabulary", "width"):
        parser.add_argument(name, type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    size = Size(arguments.n_tokens, arguments.n_vocabulary, arguments.width)
    print(json.dumps(measure_errors(size) if arguments.what == "errors" else measure(arguments.what, size)))


if __name__ == "__main__":
    main()
