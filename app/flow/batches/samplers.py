"""Drawing without replacement. Pure: a sampler is an object with one method. Target law: successive sampling."""

from typing import Protocol

import numpy as np

from app.flow.estimates.columns import FloatArray, IntArray


class Sampler(Protocol):
    """Draws distinct rows."""

    def draw(self, weights: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
        """Up to `size` distinct indices in draw order; rows of weight 0 are never drawn, so fewer may come."""
        ...


class ExponentialKeys:
    """One exponential clock a row, of rate w: the order in which they ring is successive (Plackett–Luce) sampling.

    Efraimidis and Spirakis 2006, in its exponential form. O(N) a draw, exact for any weights.
    """

    def draw(self, weights: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
        """The `size` clocks that ring first."""
        rows = np.flatnonzero(weights > 0.0)
        # without rows of weight 0 there is no 0/0 when a clock's exponential is exactly 0
        with np.errstate(over="ignore"):  # the clock of a weight near 0 rings at infinity: last
            rings = rng.standard_exponential(len(rows)) / weights[rows]
        size = min(size, len(rows))
        if size == 0:
            return np.empty(0, np.int64)
        first = np.argpartition(rings, size - 1)[:size]
        return rows[first[np.argsort(rings[first], kind="stable")]]


def generator(seed: int, seq: int) -> np.random.Generator:
    """The generator of a curriculum's draw number `seq`: the same seed and state give the same batch."""
    return np.random.default_rng([seed, seq])
