"""Samplers: the contract that all keep, and the law of successive sampling by brute force."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flow.batches.samplers import exponential_keys, generator, rejection, top

N_DRAWS = 60_000
WEIGHTS = np.array([0.0, 0.25, 0.1094, 1.0, 0.03, 0.25, 0.5, 0.0, 0.18, 2.0, 0.07, 0.9])
SIZE = 4
Sampler = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def rejected(weights: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rejection on fixed weights, which are far from even."""
    found = rejected_by(weights / weights.max(), size, rng, chance=0.3)
    assert found is not None
    return found


def rejected_by(chances: np.ndarray, size: int, rng: np.random.Generator, chance: float) -> np.ndarray | None:
    taken: list[int] = []

    def accept(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        assert ((numbers >= 0) & (numbers < 1)).all()
        places = np.flatnonzero(numbers < chances[rows])
        taken.extend(rows[places].tolist())
        return places

    places = rejection(len(chances), size, accept, rng, chance)
    return None if places is None else np.array(taken)[places]


SAMPLERS = {"exponential_keys": exponential_keys, "rejection": rejected}


def successive_sampling(weights: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Chance of each row to be drawn first, and to be drawn at all, over every ordered sample."""
    first, included = np.zeros(len(weights)), np.zeros(len(weights))
    for sample in permutations(np.flatnonzero(weights), size):
        left, chance = weights.sum(), 1.0
        for row in sample:
            chance *= weights[row] / left
            left -= weights[row]
        first[sample[0]] += chance
        included[list(sample)] += chance
    return first, included


def z_scores(counts: np.ndarray, chances: np.ndarray) -> np.ndarray:
    spread = np.sqrt(N_DRAWS * chances * (1 - chances))
    return np.divide(counts - N_DRAWS * chances, spread, out=np.zeros_like(spread), where=spread > 0)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_the_law_is_successive_sampling(sampler: Sampler) -> None:
    rng = np.random.default_rng(1)
    first, included = np.zeros(len(WEIGHTS)), np.zeros(len(WEIGHTS))
    for _ in range(N_DRAWS):
        rows = sampler(WEIGHTS, SIZE, rng)
        first[rows[0]] += 1
        included[rows] += 1
    expected_first, expected = successive_sampling(WEIGHTS, SIZE)
    assert expected.sum() == pytest.approx(SIZE)
    assert (included[WEIGHTS == 0] == 0).all()
    assert np.abs(z_scores(first, expected_first)).max() < 4
    assert np.abs(z_scores(included, expected)).max() < 4


@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(5e-324, 1e300)), max_size=40),
    size=st.integers(1, 50),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_full_pass_takes_what_has_weight_and_nothing_else(weights: list[float], size: int, seed: int) -> None:
    array = np.array(weights, np.float64)
    rows = exponential_keys(array, size, generator(seed, 0))
    assert rows.dtype == np.int64
    assert len(rows) == min(size, int((array > 0).sum()))
    assert len(set(rows.tolist())) == len(rows)
    assert (array[rows] > 0).all()
    assert rows.tolist() == exponential_keys(array, size, generator(seed, 0)).tolist()


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    size=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    expected=st.floats(0, 1),
)
def test_rejection_is_complete_or_says_that_it_does_not_pay(
    weights: list[float], size: int, seed: int, expected: float
) -> None:
    array = np.array(weights)
    found = rejected_by(array, size, generator(seed, 0), array.mean())
    again = rejected_by(array, size, generator(seed, 0), expected)
    if found is None:
        assert array.mean() < 0.05 or (array > 0.05).sum() < 2 * size, "given up although there was enough to take"
        return
    assert len(set(found.tolist())) == size
    assert (array[found] > 0).all()
    assert again is None or found.tolist() == again.tolist(), "how many are proposed at once changes nothing"


@given(values=st.lists(st.floats(0, 10), max_size=30), size=st.integers(0, 40))
def test_top_takes_the_largest(values: list[float], size: int) -> None:
    array = np.array(values, np.float64)
    assert array[top(array, size)].tolist() == sorted((v for v in values if v > 0), reverse=True)[:size]


def test_each_draw_of_a_curriculum_has_its_own_generator() -> None:
    draws = {(seed, seq): tuple(generator(seed, seq).random(4)) for seed in range(3) for seq in range(3)}
    assert len(set(draws.values())) == 9
    assert draws[1, 2] == tuple(generator(1, 2).random(4))
