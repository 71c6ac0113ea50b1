"""Drawing without replacement. Pure. Target law of both engines: successive (Plackett-Luce) sampling.

`exponential_keys` looks at every candidate; `rejection` looks at what it proposes, so that its cost is that of the
batch, not of the pool. `top` is for Thompson sampling, where the randomness is in the weights.
"""

from collections.abc import Callable

import numpy as np

from app.flow.estimates.columns import FloatArray, IntArray

MAX_PROPOSALS = 100  # for each problem asked for; beyond, the full pass is faster
MIN_PROPOSALS = 256
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


def rejection(n: int, size: int, accept: Accept, rng: np.random.Generator) -> IntArray | None:
    """`size` distinct indices below `n` in draw order, or None where too few proposals are taken.

    `accept` gets indices proposed uniformly, with a uniform number in [0, 1) each, and returns those it takes: with
    probability w/bound. The first distinct ones are a successive sample. How many are proposed at once follows from
    what was taken so far, so that the same state and generator give the same batch.
    """
    found = np.empty(0, np.int64)
    n_proposed, chunk = 0, 5 * size // 2 + MIN_PROPOSALS
    while n_proposed < MAX_PROPOSALS * (size + MIN_PROPOSALS):
        taken = accept(rng.integers(0, n, chunk), rng.random(chunk))
        n_proposed += chunk
        both = np.concatenate([found, taken])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
        if len(found) >= size:
            first: IntArray = found[:size]
            return first
        missing = size - len(found)
        chunk = min(max(MIN_PROPOSALS, 5 * missing * n_proposed // (4 * max(len(found), 1))), 4 * size + MIN_PROPOSALS)
    return None


def top(values: FloatArray, size: int) -> IntArray:
    """Indices of the `size` largest positive values, largest first; fewer where fewer are positive."""
    rows = np.flatnonzero(values > 0.0)
    return rows[np.argsort(-values[rows], kind="stable")[:size]]


def generator(seed: int, seq: int) -> np.random.Generator:
    """The generator of a curriculum's draw number `seq`: the same seed and state give the same batch."""
    return np.random.Generator(np.random.Philox(key=[seed, seq]))
