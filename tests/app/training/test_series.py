"""Series: what is made short keeps its extremes, what is pooled has an interval over runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t

from app.flow.training.series import Series, bucketed, enveloped, group_name, grouped, pooled, smoothed

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


def series(values: list[float]) -> Series:
    return Series(np.arange(len(values), dtype=float), np.array(values))


@given(VALUES, st.integers(2, 50))
def test_buckets_keep_the_extremes_and_the_mean(values: list[float], n_buckets: int) -> None:
    band = bucketed(series(values), n_buckets)
    assert len(band.x) == min(len(values), n_buckets)
    assert band.low.min() == min(values)
    assert band.high.max() == max(values)
    assert (band.low <= band.mean + 1e-6).all()
    assert (band.mean <= band.high + 1e-6).all()
    assert (np.diff(band.x) > 0).all()
    if len(values) % len(band.x) == 0:
        assert band.mean.mean() == pytest.approx(np.mean(values), abs=1e-6)


def test_one_spike_in_a_hundred_thousand_is_seen() -> None:
    values = [0.0] * 100_000
    values[54_321] = 9.0
    band = bucketed(series(values), 300)
    assert band.high.max() == 9.0
    assert abs(band.x[band.high.argmax()] - 54_321) < 100_000 / 300


@given(VALUES, st.integers(1, 40))
def test_smoothing_stays_within_the_values(values: list[float], window: int) -> None:
    found = smoothed(np.array(values), window)
    assert len(found) == len(values)
    assert found.min() >= min(values) - 1e-6
    assert found.max() <= max(values) + 1e-6


def test_smoothing_by_one_changes_nothing_and_a_line_stays_a_line() -> None:
    line = np.arange(20.0)
    assert smoothed(line, 1) is line
    assert smoothed(line, 5)[2:-2] == pytest.approx(line[2:-2])


@given(VALUES, st.integers(1, 30), st.integers(2, 40))
def test_what_is_smoothed_keeps_its_extremes(values: list[float], window: int, n_buckets: int) -> None:
    band = enveloped(series(values), window, n_buckets)
    assert (band.low.min(), band.high.max()) == (min(values), max(values))
    assert (band.low <= band.mean + 1e-6).all()
    assert (band.mean <= band.high + 1e-6).all()


def test_a_spike_stands_in_the_band_and_not_in_the_line() -> None:
    band = enveloped(series([0.0] * 20 + [9.0] + [0.0] * 20), 11, 100)
    assert band.high.max() == 9.0
    assert band.mean.max() == pytest.approx(9.0 / 11)


def test_pooled_runs_have_student_s_interval() -> None:
    runs = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    band = pooled([series(run) for run in runs], 10)
    assert band is not None
    half = student_t.ppf(0.975, 2) * 1.0 / np.sqrt(3)
    assert band.mean == pytest.approx(2.0)
    assert band.low == pytest.approx(2.0 - half)
    assert band.high == pytest.approx(2.0 + half)


def test_pooled_runs_end_where_the_shortest_does() -> None:
    band = pooled([series([1.0] * 10), series([2.0] * 4)], 100)
    assert band is not None
    assert (band.x[0], band.x[-1]) == (0.0, 3.0)
    assert pooled([series([1.0] * 10)], 100) is None
    assert pooled([series([1.0] * 10), series([])], 100) is None
    assert pooled([series([1.0]), Series(np.array([5.0]), np.array([1.0]))], 100) is None


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("first-seed1", "first"),
        ("first_seed_22", "first"),
        ("first-s3", "first"),
        ("first.4", "first"),
        ("firstseed5", "first"),
        ("first", "first"),
        ("gpt2", "gpt2"),
        ("7", "7"),
    ],
)
def test_a_group_is_the_name_without_its_seed(name: str, group: str) -> None:
    assert group_name(name) == group


def test_only_seeds_and_names_may_differ_in_a_group() -> None:
    runs = [("a-1", {"lr": 1, "seed": 1}), ("a-2", {"lr": 1, "seed": 2}), ("a-3", {"lr": 2, "seed": 3}), ("b-1", {})]
    assert grouped(runs) == [[0, 1], [2], [3]]
    arms = [(f"uniform-s{seed}", {"arm": "uniform", "seed": seed, "curriculum_id": f"cur_{seed}"}) for seed in (1, 2)]
    assert grouped(arms) == [[0, 1]]
    assert grouped([(name, {**config, "arm": None}) for name, config in arms]) == [[0], [1]]
