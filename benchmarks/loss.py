"""The chunked distillation loss against full logits, TRL's and Liger's: memory, time and error of forward KL.

Without a GPU: V = 151,936, H = 1,024, 1,024 and 4,096 tokens in float32. With one: 8,192 tokens of H = 4,096 in
bfloat16. Each measurement is a process of its own that makes the same inputs, warms up, then runs forward and backward
once. Memory is the peak during that run above what was held before it (resident memory by Linux's VmHWM, reset first;
on a GPU the allocator's), so the inputs do not count, and gradients do. The sides take turns, and the median counts.
Errors are those of the loss and of both gradients against float64 autograd on full logits: the norm of the difference
over the norm. Each process has one thread: with more, whatever else keeps a core busy stalls every small operation at a
barrier, and the ratio measures that. A side that cannot run is a row that says why.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.sides import PEERS, SIDES, WARM_UP, Inputs, Size, dense, find_peers, install_peers
from paced.losses import KLSettings

THREADS = 1
SLICE = 128  # tokens of the float64 reference at a time
COMPARED = ("dense", "ours", *PEERS)
VARIANTS = ("ours_reverse_kl", "ours_jsd", "ours_akl")


def run(small: bool) -> dict[str, Any]:
    """Compare the sides at each size; `small` takes a minute or two, peers left out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = _plan(device, small)
    sides = COMPARED if not small else ("dense", "ours")
    _try_install(sides)
    rows = [row for size, n_repeats in plan for row in _rows(sides, size, n_repeats, device)]
    if not small:
        rows += _rows(VARIANTS, plan[0][0], 1, device)
    errors = _in_process("errors", plan[0][0] if device == "cpu" else Size(512, 151_936, 1_024), "cpu", sides)
    return {
        "settings": {
            "divergence": "forward_kl",
            "device": device,
            "dtype": "float32" if device == "cpu" else "bfloat16",
            "chunk_size": KLSettings().chunk_size if device == "cpu" else 1_024,
            "threads": THREADS,
            "sizes": [{**asdict(size), "repeats": n_repeats} for size, n_repeats in plan],
        },
        "rows": [*rows, {"errors_in_float32": errors}],
        "figures": _figures(rows, errors, plan),
    }


def _plan(device: str, small: bool) -> list[tuple[Size, int]]:
    """Sizes, and how often each is measured."""
    if device != "cpu":
        return [(Size(2_048 if small else 8_192, 151_936, 4_096), 3)]
    if small:
        return [(Size(1_024, 16_384, 1_024), 3)]
    return [(Size(1_024, 151_936, 1_024), 3), (Size(4_096, 151_936, 1_024), 1)]


def _figures(rows: list[dict[str, Any]], errors: dict[str, Any], plan: list[tuple[Size, int]]) -> dict[str, Any]:
    """Ours over the others at the first size, growth with tokens, errors."""
    at = {(row["side"], row["n_tokens"]): row for row in rows if "skipped" not in row}
    first, last = plan[0][0].n_tokens, plan[-1][0].n_tokens
    figures: dict[str, Any] = {}
    mine = at.get(("ours", first), {})
    for side in ("dense", *PEERS):
        prefix = "" if side == "dense" else f"{side}_"
        for name, field in (("memory_ratio", "extra_mb"), ("time_ratio", "time_s")):
            if mine and (side, first) in at:
                figures[prefix + name] = mine[field] / at[side, first][field]
    if last != first and mine and ("ours", last) in at:
        figures["memory_growth"] = at["ours", last]["extra_mb"] / mine["extra_mb"]
        if ("dense", last) in at:
            figures["time_ratio_at_most_tokens"] = at["ours", last]["time_s"] / at["dense", last]["time_s"]
    for side, of_side in errors.items():
        if "skipped" not in of_side:
            figures["max_rel_error" if side == "ours" else f"{side}_max_rel_error"] = max(of_side.values())
    return {**figures, "loss_rel_error": errors["ours"]["loss"]}


def _rows(sides: tuple[str, ...], size: Size, n_repeats: int, device: str) -> list[dict[str, Any]]:
    """Medians of the sides, which take turns; one that fails is not tried again."""
    measured: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    failed: dict[str, str] = {}
    for _ in range(n_repeats):
        for side in sides:
            if side in failed:
                continue
            try:
                measured[side].append(_in_process(side, size, device, sides))
            except RuntimeError as error:
                failed[side] = str(error)
    return [
        {"side": side, **asdict(size), **({"skipped": failed[side]} if side in failed else _medians(results))}
        for side, results in measured.items()
    ]


def _medians(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {field: statistics.median(result[field] for result in results) for field in ("time_s", "extra_mb")}


def _try_install(sides: tuple[str, ...]) -> None:
    if not set(PEERS).isdisjoint(sides):
        try:
            install_peers()
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            print(f"loss: peers cannot be installed: {error}", file=sys.stderr, flush=True)  # their rows say so too


def _in_process(what: str, size: Size, device: str, sides: tuple[str, ...]) -> dict[str, Any]:
    """Measure in a fresh process, and read the JSON that it prints. Raises RuntimeError with the last line it wrote."""
    print(f"loss: {what}, {size.n_tokens} tokens", file=sys.stderr, flush=True)
    numbers = [str(n) for n in asdict(size).values()]
    command = [sys.executable, "-m", "benchmarks.loss", what, *numbers, "--device", device, "--sides", *sides]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = ["", *done.stderr.splitlines()][-1]
        raise RuntimeError(f"{what} ended with {done.returncode} (−9: out of memory): {last[-300:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# From here on: inside a process of its own.


def measure(side: str, size: Size, device: str) -> dict[str, Any]:
    """Run one side once: peak of extra memory and wall time."""
    inputs = Inputs.make(size, device)
    for _ in range(1 if device == "cpu" else 3):
        SIDES[side](inputs.rows(slice(0, WARM_UP.get(side, 8)))).backward()
        inputs.take_gradients()
    before_mb = _start(device)
    started = time.perf_counter()
    SIDES[side](inputs).backward()
    if device != "cpu":
        torch.cuda.synchronize()
    return {"time_s": time.perf_counter() - started, "extra_mb": _peak_mb(device) - before_mb}


def measure_errors(size: Size, sides: list[str]) -> dict[str, Any]:
    """Relative errors of the sides in float32, against dense autograd in float64."""
    inputs = Inputs.make(size, "cpu")
    exact = inputs.doubled()
    loss = torch.zeros((), dtype=torch.float64)
    for start in range(0, size.n_tokens, SLICE):
        part = dense(exact.rows(slice(start, start + SLICE)))
        part.backward()
        loss += part.detach()
    references = [loss, *exact.take_gradients()]
    del exact
    errors: dict[str, Any] = {}
    for side in sides:
        try:
            value = SIDES[side](inputs)
            value.backward()
        except Exception as error:
            errors[side] = {"skipped": f"{type(error).__name__}: {error}"[:300]}
            continue
        results = [value.detach(), *inputs.take_gradients()]
        names = ("loss", "grad_hidden", "grad_head")
        errors[side] = {n: _relative(a, b) for n, a, b in zip(names, results, references, strict=True)}
    return errors


def _relative(value: Tensor, reference: Tensor) -> float:
    return float((value.double() - reference).norm() / reference.norm())


def _start(device: str) -> float:
    """Reset the peak of memory, and return what is held now, in MB."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 1e6


def _peak_mb(device: str) -> float:
    return _status_mb("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / 1e6


def _status_mb(field: str) -> float:
    """Read a field of /proc/self/status, which is in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024 / 1e6


def main() -> None:
    """Measure one side, or the errors: `python -m benchmarks.loss ours 1024 151936 1024`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", choices=[*SIDES, "errors"])
    for name in ("n_tokens", "n_vocabulary", "width"):
        parser.add_argument(name, type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sides", nargs="+", default=["dense", "ours"], choices=list(SIDES))
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    find_peers()
    size = Size(arguments.n_tokens, arguments.n_vocabulary, arguments.width)
    is_errors = arguments.what == "errors"
    result = measure_errors(size, arguments.sides) if is_errors else measure(arguments.what, size, arguments.device)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
