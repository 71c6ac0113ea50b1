"""Weights in bfloat16: rounding that is right on average, and AdamW over it."""

from pathlib import Path

import pytest
import torch

from paced import Client
from tests.worker.distill.test_train import weights
from tests.worker.distill.world import Killed, Killing, losses, make_config, make_curriculum, run
from worker.distill.rounding import RoundingAdamW, rounded

ULP = 2.0**-7  # between bfloat16 values from 1 to 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_each_neighbour_is_chosen_as_often_as_it_is_near(share: float, sign: float) -> None:
    torch.manual_seed(0)
    n = 100_000
    found = rounded(torch.full((n,), sign * (1 + share * ULP))).float()
    assert set(found.tolist()) <= {sign, sign * (1 + ULP)}
    away = float((found != sign).float().mean())
    assert away == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5 + 1e-5)


def test_small_updates_add_up_where_rounding_to_nearest_loses_them() -> None:
    def moved(kind: type[torch.optim.Optimizer], dtype: torch.dtype) -> float:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.ones(4096, dtype=dtype))
        optimizer = kind([weight], lr=1e-4, weight_decay=0.0)
        for _ in range(50):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        return 1 - float(weight.detach().float().mean())

    exact = moved(torch.optim.AdamW, torch.float32)
    assert exact == pytest.approx(50 * 1e-4, rel=1e-3)
    assert moved(torch.optim.AdamW, torch.bfloat16) == 0
    assert moved(RoundingAdamW, torch.bfloat16) == pytest.approx(exact, rel=0.05)


def test_in_float32_steps_it_is_adamw_up_to_rounding() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(2000).bfloat16(), torch.randn(5, 2000).bfloat16()
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    options = {"lr": 1e-2, "betas": (0.8, 0.9), "weight_decay": 0.1}
    pairs = ((ours, RoundingAdamW([ours], **options)), (theirs, torch.optim.AdamW([theirs], **options)))
    for gradient in gradients:
        for weight, optimizer in pairs:
            weight.grad = gradient.to(weight.dtype)
            optimizer.step()
    assert float((ours.detach().float() - theirs.detach()).mean().abs()) < 1e-4
    torch.testing.assert_close(ours.detach().float(), theirs.detach(), rtol=0.03, atol=3e-3)


def test_a_run_with_bfloat16_weights_resumes_exactly(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    fields = {"weights_dtype": "bfloat16", "dtype": "bfloat16", "save_every": 2, "max_steps": 5}
    first, second = (
        make_curriculum(sqlite_client, tmp_path, preset="uniform", suffix=suffix) for suffix in ("", "-again")
    )
    straight, killed = (make_config(made, student, tmp_path / made.name, **fields) for made in (first, second))
    run(straight, sqlite_client)
    with pytest.raises(Killed):
        run(killed, Killing(sqlite_client, "append_metrics", 4, "after"))
    run(killed, sqlite_client)
    assert losses(killed.out) == pytest.approx(losses(straight.out), abs=1e-6)
    for name, tensor in weights(straight.out).items():
        assert tensor.dtype is torch.bfloat16
        assert torch.equal(weights(killed.out)[name], tensor)
