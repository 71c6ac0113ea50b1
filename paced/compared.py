"""Runs side by side: what each came to, means over seeds with 95 % intervals, and curves. Pure."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

FIGURES = ("before", "after", "gain", "over_baseline", "tokens", "minutes", "kl")
N_CURVE = 8
# Student's t at 97.5 % for 1 to 9 degrees of freedom; beyond, a series in 1/ν is exact to four digits.
FEW = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
SERIES = (1.959964, 2.372271, 2.822499, 2.555852)


@dataclass(frozen=True, slots=True)
class Point:
    """A value after so many steps, and so many tokens that were trained on."""

    step: int
    tokens: float
    value: float


@dataclass(frozen=True, slots=True)
class Seen:
    """One run: `trial` is what it shares with all runs it is compared to, `problem_set` what with those of its seed.

    `before` and `after` are hold-out pass rates of its first and last measured checkpoint.

    `measured_step`: how many steps the last measured checkpoint has, fewer than `n_steps` while workers are behind.
    `tokens` were trained on in `minutes` of steps, waiting left out; `kl` is the mean of the last tenth of its steps,
    in nats per token; `curve` is of the metric that was asked for.
    """

    run_id: str
    name: str
    trial: str
    problem_set: str
    arm: str
    seed: int | None
    state: str
    n_steps: int
    measured_step: int
    before: float | None
    after: float | None
    tokens: float
    minutes: float
    kl: float | None
    curve: tuple[Point, ...]

    def figures(self) -> dict[str, float | None]:
        """Its numbers by name, without the comparison to another arm."""
        gain = None if self.before is None or self.after is None else self.after - self.before
        rates = {"before": self.before, "after": self.after, "gain": gain}
        return {**rates, "tokens": self.tokens, "minutes": self.minutes, "kl": self.kl}


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the half width of its 95 % interval by Student's t; None of a single value."""
    n = len(values)
    if n < 2:
        return fmean(values), None
    return fmean(values), quantile(n - 1) * stdev(values) / math.sqrt(n)


def quantile(n_free: int) -> float:
    """Student's t that is exceeded with a chance of 2.5 %."""
    if n_free <= len(FEW):
        return FEW[n_free - 1]
    return math.fsum(c * n_free**-power for power, c in enumerate(SERIES))


def table(runs: Sequence[Seen], baseline: str | None, by: str) -> list[dict[str, Any]]:
    """A row for each arm of each trial, the baseline's first: figures as [mean, half width], and its curve.

    `over_baseline` pairs runs of one trial, problem set and seed. Raises ValueError where two runs are one's pair.
    """
    rows = []
    for trial in sorted({run.trial for run in runs}):
        of_trial = [run for run in runs if run.trial == trial]
        pairs = _pairs([run for run in of_trial if run.arm == baseline])
        grid = _grid(of_trial, by)
        for arm in sorted({run.arm for run in of_trial}, key=lambda arm: (arm != baseline, arm)):
            mine = [run for run in of_trial if run.arm == arm]
            row: dict[str, Any] = {"trial": trial, "arm": arm, "n_runs": len(mine)}
            found = [run.figures() for run in mine]
            for run, one in zip(mine, found, strict=True):
                pair = pairs.get((run.problem_set, run.seed)) if arm != baseline else None
                one["over_baseline"] = None if run.after is None or pair is None else run.after - pair
            for name in FIGURES:
                row[name] = _rounded([value for one in found if (value := one[name]) is not None])
            rows.append({**row, "curve": _curve(mine, grid, by)})
    return rows


def _pairs(baselines: Sequence[Seen]) -> dict[tuple[str, int | None], float]:
    """The last pass rate of the one baseline run of each problem set and seed."""
    found: dict[tuple[str, int | None], Seen] = {}
    for run in baselines:
        other = found.setdefault((run.problem_set, run.seed), run)
        if other is not run:
            raise ValueError(
                f"runs {other.name} ({other.run_id}) and {run.name} ({run.run_id}) of the baseline have one problem "
                "set and seed: name the runs to compare, with one of them"
            )
    return {place: run.after for place, run in found.items() if run.after is not None}


def value_at(curve: Sequence[Point], x: float, by: str) -> float | None:
    """The value at a step or number of tokens, between points by a line; None outside of the curve."""
    for before, after in itertools.pairwise(curve):
        low, high = getattr(before, by), getattr(after, by)
        if low <= x <= high:
            share = (x - low) / (high - low) if high > low else 1.0
            return before.value + share * (after.value - before.value)
    return None


def _grid(runs: Iterable[Seen], by: str) -> list[float]:
    """Where all curves are read: evenly up to where the shortest ends."""
    curves = [run.curve for run in runs if len(run.curve) > 1]
    if not curves:
        return []
    start = max(getattr(curve[0], by) for curve in curves)
    end = min(getattr(curve[-1], by) for curve in curves)
    if end <= start:
        return []
    return [start + (end - start) * place / N_CURVE for place in range(N_CURVE + 1)]


def _curve(runs: Sequence[Seen], grid: Sequence[float], by: str) -> list[dict[str, Any]]:
    found = []
    for x in grid:
        values = [value for run in runs if (value := value_at(run.curve, x, by)) is not None]
        if values:
            found.append({by: round(x, 1), "value": _rounded(values), "n_runs": len(values)})
    return found


def _rounded(values: Sequence[float]) -> list[float | None] | None:
    if not values:
        return None
    return [None if number is None else round(number, 5) for number in interval(values)]
