"""Drawing without replacement. Pure. Target law of both engines: successive (Plackett-Luce) sampling.

`exponential_keys` looks at every candidate; `rejection` looks at what it proposes, so that its cost is that of the
batch, not of the pool. `top` is for Thompson sampling, where the randomness is in the weights.
"""

import math
from collections.abc import Callable

import numpy as np

from app.flow.estimates.columns import FloatArray, IntArray

MAX_PROPOSALS = 100  # for each problem asked for, or as many as there are rows: beyond, the full pass is faster
SPARE = 32  # proposals that a round has beside those it is expected to need
Accept = Callable[[IntArray, FloatArray], IntArray]


def exponential_keys(weights: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """Up to `size` distinct indices in draw order; an index of weight 0 is never drawn, so fewer may come.

    One exponential clock an index, of rate w: the order in which they ring is successive sampling (Efraimidis and
    Spirakis 2006). O(N) a draw, exact for any weights.
    """
    rows = np.flatnonzero(weights > 0.0)
    # without rows of weight 0 there is no 0/0 when a clock's exponential is exactly 0
    with np.errstate(over="ignore"):  # the clock of a weight near 0 rings at infinity: last
        rings = rng.standard_exponential(len(rows)) / weights[rows]
    size = min(size, len(rows))
    if size == 0:
        return np.empty(0, np.int64)
    first = np.argpartition(rings, size - 1)[:size]
    return rows[first[np.argsort(rings[first], kind="stable")]]


def rejection(n: int, size: int, accept: Accept, rng: np.random.Generator, chance: float) -> IntArray | None:
    """The first `size` distinct rows below `n` that `accept` takes, or None where it takes too few.

    `accept` gets rows proposed uniformly, with a uniform number in [0, 1) each, and returns the places of those it
    takes: with probability w/bound. The first distinct ones are a successive sample; returned are their places among
    all rows taken. Row and number are the whole and the fraction of one uniform number below n, so that the same
    generator proposes the same, however many at once: that follows from `chance`, the share expected to be taken.
    """
    taken = np.empty(0, np.int64)
    n_left, missing = max(n, MAX_PROPOSALS * (size + SPARE)), size
    while n_left > 0:
        chunk = min(n_left, n_proposals(missing, chance))
        n_left -= chunk
        both = rng.random(chunk) * n
        rows = both.astype(np.int64)
        taken = np.concatenate([taken, rows[accept(rows, both - rows)]])
        first = distinct(taken)
        missing = size - len(first)
        if missing <= 0:
            return first[:size]
    return None


def n_proposals(size: int, chance: float) -> int:
    """How many rows to propose so that `size` are taken, with three standard deviations to spare: a round is dear."""
    return int((size + 3.0 * math.sqrt(size)) / max(chance, 1.0 / MAX_PROPOSALS)) + SPARE


def distinct(rows: IntArray) -> IntArray:
    """Places of the first of each, in order."""
    first: IntArray = np.sort(np.unique(rows, return_index=True)[1])
    return first


def top(values: FloatArray, size: int) -> IntArray:
    """Indices of the `size` largest positive values, largest first; fewer where fewer are positive."""
    rows = np.flatnonzero(values > 0.0)
    return rows[np.argsort(-values[rows], kind="stable")[:size]]


def generator(seed: int, seq: int) -> np.random.Generator:
    """The generator of a curriculum's draw number `seq`: the same seed and state give the same batch."""
    return np.random.Generator(np.random.Philox(key=[seed, seq]))
