"""Long series made short without losing their spikes, and runs of one kind made one series with its interval. Pure."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.stats import t as student_t

from app.flow.estimates.columns import FloatArray

LEVEL = 0.95  # of pooled intervals
SEED_KEYS = frozenset({"seed", "run_name", "name", "out"})
_SEED = re.compile(r"(?:[-_.]+(?:seed|s)?[-_.]*|seed[-_.]*)\d+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Series:
    """Points in the order of their places, which do not fall."""

    x: FloatArray
    y: FloatArray

    def __len__(self) -> int:
        """Number of points."""
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Band:
    """Aligned: a place, and the least, middle and largest value there."""

    x: FloatArray
    low: FloatArray
    mean: FloatArray
    high: FloatArray

    def lists(self) -> dict[str, list[float]]:
        """For JSON."""
        return {name: getattr(self, name).tolist() for name in ("x", "low", "mean", "high")}


def bucketed(series: Series, n_buckets: int) -> Band:
    """At most `n_buckets` of equally many points each, with their mean, least and largest; few points stay as they are.

    Of equally many points, not of equal width: where a run logs often, it is drawn as finely as elsewhere.
    """
    n = len(series)
    if n <= n_buckets:
        return Band(series.x, series.y, series.y, series.y)
    starts = np.linspace(0, n, n_buckets, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, n))
    return Band(
        x=np.add.reduceat(series.x, starts) / sizes,
        low=np.minimum.reduceat(series.y, starts),
        mean=np.add.reduceat(series.y, starts) / sizes,
        high=np.maximum.reduceat(series.y, starts),
    )


def smoothed(y: FloatArray, window: int) -> FloatArray:
    """Centred mean over up to `window` points, over those there are at the ends."""
    if window <= 1 or len(y) == 0:
        return y
    sums = np.concatenate([[0.0], np.cumsum(y)])
    places = np.arange(len(y))
    first, last = np.maximum(places - window // 2, 0), np.minimum(places + window // 2 + 1, len(y))
    means: FloatArray = (sums[last] - sums[first]) / (last - first)
    return means


def enveloped(series: Series, window: int, n_buckets: int) -> Band:
    """Smoothed over `window` points and in buckets, between the least and the largest value of every window."""
    if window <= 1 or len(series) == 0:
        return bucketed(series, n_buckets)
    size = 2 * (window // 2) + 1
    low, mean, high = (
        bucketed(Series(series.x, y), n_buckets)
        for y in (
            minimum_filter1d(series.y, size, mode="nearest"),
            smoothed(series.y, window),
            maximum_filter1d(series.y, size, mode="nearest"),
        )
    )
    return Band(mean.x, low.low, mean.mean, high.high)


def pooled(many: Sequence[Series], n_buckets: int) -> Band | None:
    """Mean over series where all of them have values, with a Student interval over them; None where none do.

    Each is first averaged over the window that a bucket of the common range covers, so that a spike of one step does
    not stand for its surroundings.
    """
    full = [series for series in many if len(series)]
    if len(full) < 2:
        return None
    first, last = max(series.x[0] for series in full), min(series.x[-1] for series in full)
    if first >= last:
        return None
    n = min(n_buckets, *(len(series) for series in full))
    grid = np.linspace(first, last, n)
    rows = np.stack([np.interp(grid, s.x, smoothed(s.y, len(s) // n)) for s in full])
    mean = rows.mean(axis=0)
    quantile = float(student_t.ppf((1.0 + LEVEL) / 2.0, len(full) - 1))
    half = quantile * rows.std(axis=0, ddof=1) / np.sqrt(len(full))
    return Band(grid, mean - half, mean, mean + half)


def group_name(name: str) -> str:
    """A run's name without its seed: `first-seed1`, `first_2` and `first` are of one group."""
    return _SEED.sub("", name) or name


def grouped(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[int]]:
    """Places of runs of one kind: names alike, and settings that differ in nothing but seeds and names.

    In an arm of a comparison each seed has a curriculum of its own.
    """
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, (name, config) in enumerate(runs):
        differing = SEED_KEYS | {"curriculum_id"} if config.get("arm") else SEED_KEYS
        kept = {key: value for key, value in sorted(config.items()) if key not in differing and "_seed" not in key}
        found[group_name(name), repr(kept)].append(place)
    return list(found.values())
