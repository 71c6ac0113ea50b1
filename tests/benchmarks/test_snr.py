"""Signal and noise of gradients, and the kernel fitted to them."""

import numpy as np
import pytest
import torch

from benchmarks.snr.kernels import (
    EDGES,
    N_PROJECTED,
    Groups,
    Projector,
    describe,
    fit_kernel,
    fit_with_interval,
    grouped,
    signal_and_noise,
)
from benchmarks.snr.plots import plot


def test_the_signal_is_unbiased_by_noise() -> None:
    rng = np.random.default_rng(0)
    found = [signal_and_noise(rng.normal(0.1, 1.0, (20, 50))) for _ in range(2_000)]
    signal, noise = np.mean(found, axis=0)
    assert signal == pytest.approx(50 * 0.1**2, abs=0.02)  # the mean's own square would add 50/20
    assert noise == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (2.0, 0.3)])
def test_a_kernel_is_found_again(alpha: float, beta: float) -> None:
    p = np.array([0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
    assert fit_kernel(p, 3 * p**alpha * (1 - p) ** beta) == pytest.approx((alpha, beta, 1.0))


def test_a_projection_keeps_inner_products() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(20_000, generator=generator), torch.randn(20_000, generator=generator)
    y = y + x
    found = np.array([Projector(20_000, seed)(x) @ Projector(20_000, seed)(y) for seed in range(20)])
    assert found.mean() == pytest.approx(float(x @ y), rel=0.05)
    assert len(Projector(20_000)(x)) == N_PROJECTED


def test_groups_lie_between_edges_and_small_ones_are_left_out() -> None:
    rates = np.concatenate([np.full(20, 0.4), np.full(9, 0.6), np.full(7, 0.9), np.full(8, 1.0)])
    found = grouped(rates, np.arange(len(rates)), 12, np.random.default_rng(0))
    assert [len(group) for group in found] == [12, 9, 8]
    assert all(len({int(np.digitize(rates[row], EDGES)) for row in group}) == 1 for group in found)


def test_a_bell_curve_is_seen_in_gradients(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    rates = [np.full(200, p) for p in (0.05, 0.2, 0.5, 0.8, 0.95)]
    gradients = [rng.normal((p[0] * (1 - p[0])) ** 0.5, 1.0, (200, 30)) for p in rates]
    groups = Groups(gradients, rates)
    rows = describe(groups)
    assert max(rows, key=lambda row: row["snr"])["pass_rate"] == 0.5
    assert all(row["useful"] > 0.5 for row in rows)
    kernel = fit_with_interval(groups, "snr", rng)
    assert kernel["alpha_interval"][0] < 1 < kernel["alpha_interval"][1]
    assert kernel["peak"] == pytest.approx(0.5, abs=0.1)
    tagged = [{"pool": "all", "divergence": "forward_kl", **row} for row in rows]
    plot(tagged, {"kernel_forward_kl_all": kernel}, tmp_path / "snr.html")
    page = (tmp_path / "snr.html").read_text()
    assert "Plotly" in page
    assert 'src="http' not in page  # opens without a network
