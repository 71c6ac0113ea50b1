"""Results on disk, one JSON line for each arm and seed, so that an interrupted experiment goes on; their figures."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from app.flow.estimates.columns import FloatArray
from benchmarks.learning.arms import Arm

Result = dict[str, Any]  # arm, seed, and what `run_trial` returns
BASELINE = "uniform"
RATES = ("all", "mastered", "between", "hopeless", "kept")


class Log:
    """The results of one experiment; a line that was cut off half-way counts as not there.

    So does one of an arm that has another rule or schedule by now. Each says of which commit it is.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        text = json.dumps(settings, sort_keys=True)
        self.path = folder / f"results-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"

    def read(self, digests: Mapping[str, str]) -> list[Result]:
        """The results of these arms (by name: `digest`), each (arm, seed) once."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = {(result["arm"], result["seed"]): result for result in _parsed(lines)}
        return [result for result in found.values() if digests.get(result["arm"]) == result["digest"]]

    def append(self, result: Result) -> None:
        """Add a result, on a line of its own."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_cut = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write(("\n" if is_cut else "") + json.dumps(result) + "\n")


def digest(arm: Arm) -> str:
    """Of all that an arm means."""
    return hashlib.sha256(repr(arm).encode()).hexdigest()[:12]


def missing(results: Iterable[Result], arms: Iterable[str], seeds: Iterable[int]) -> list[tuple[int, str]]:
    """(seed, arm) that are still to be run, seed by seed, so that what is there can always be compared."""
    done = {(result["seed"], result["arm"]) for result in results}
    arms = list(arms)
    return [(seed, arm) for seed in seeds for arm in arms if (seed, arm) not in done]


def interval(values: FloatArray) -> tuple[float, float | None]:
    """The mean and the half width of its 95 % interval (Student's t); None of a single value."""
    n = len(values)
    if n < 2:
        return float(values.mean()), None
    return float(values.mean()), float(student_t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))


def summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row an arm: each number as [mean, half width of its 95 % interval] over seeds; see `numbers`."""
    baseline = {result["seed"]: result for result in results if result["arm"] == BASELINE}
    rows = []
    for arm in dict.fromkeys(result["arm"] for result in results):
        mine = sorted((result for result in results if result["arm"] == arm), key=lambda result: result["seed"])
        found = [numbers(result, baseline.get(result["seed"])) for result in mine]
        row: dict[str, Any] = {"arm": arm, "n_seeds": len(mine)}
        for name in found[0]:
            values = [one[name] for one in found if name in one]
            row[name] = _rounded(interval(np.array(values, np.float64)))
        rows.append({**row, "curve": _curve(mine)})
    return rows


def numbers(result: Result, baseline: Result | None) -> dict[str, float]:
    """What one run comes to.

    For each of `RATES`: the rate at the end, `_gain` over the start, `_over_uniform` the difference to the baseline of
    the same seed. `examples_ratio`: share of the budget at which the run reached the baseline's final rate, 1 where it
    did not. Tokens by what they were spent on.
    """
    end, start = result["curve"][-1], result["curve"][0]
    found = {name: end[name] for name in RATES}
    found |= {f"{name}_gain": end[name] - start[name] for name in RATES}
    if baseline is not None:
        theirs = baseline["curve"][-1]
        found |= {f"{name}_over_uniform": end[name] - theirs[name] for name in RATES}
        found["examples_ratio"] = tokens_to(result["curve"], theirs["all"]) / end["tokens"]
    found |= {f"{name}_tokens": n for name, n in result["spent"].items()}
    return {**found, "n_steps": result["n_steps"]}


def tokens_to(curve: Sequence[dict[str, Any]], rate: float) -> float:
    """Optimiser tokens at which the rate on all of the hold-out was first reached, between checkpoints by a line."""
    for before, after in itertools.pairwise(curve):
        if after["all"] >= rate:
            rise = after["all"] - before["all"]
            share = (rate - before["all"]) / rise if rise > 0 and before["all"] < rate else 0.0
            return float(before["tokens"] + share * (after["tokens"] - before["tokens"]))
    return float(curve[-1]["tokens"])


def _curve(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Means at each checkpoint."""
    points = zip(*(result["curve"] for result in results), strict=True)
    return [
        {name: round(float(np.mean([p[name] for p in point])), 4) for name in ("tokens", *RATES)} for point in points
    ]


def _rounded(found: tuple[float, float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in found]


def _parsed(lines: Iterable[str]) -> Iterator[Result]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut off by a kill
            continue
