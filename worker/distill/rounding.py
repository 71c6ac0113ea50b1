"""AdamW over bfloat16 weights: each new weight is rounded up or down by chance, so that on average nothing is lost.

Rounded to nearest, an update below 1/512 of its weight would vanish at every step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
LOW_BITS = 16  # of a float32 that a bfloat16 lacks


class RoundingAdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW` with moments and arithmetic in float32, weights and gradients in bfloat16.

    Draws from torch's global generator; seed it alike on ranks that hold the same weights.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a state back; torch alone would round the moments to the type of their weights."""
        super().load_state_dict(state_dict)
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        held = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(saved, held, strict=True):
            for name, moment in state_dict["state"].get(number, {}).items():
                if name in MOMENTS:
                    self.state[parameter][name] = moment.to(parameter.device, torch.float32, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        assert closure is None, "the loss is computed before"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in MOMENTS:
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1
        n_steps = float(state["step"])
        weight, gradient = _own(parameter), _own(parameter.grad).float()
        mean, square = _own(state["exp_avg"]), _own(state["exp_avg_sq"])
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (square / (1 - beta2**n_steps)).sqrt_().add_(group["eps"])
        exact = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
        weight.copy_(rounded(exact.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**n_steps))))


def rounded(exact: Tensor) -> Tensor:
    """Finite float32 values as bfloat16: one of the two neighbours, each the likelier the nearer it is."""
    noise = torch.randint_like(exact, 1 << LOW_BITS, dtype=torch.int32)
    return ((exact.view(torch.int32) + noise) & -(1 << LOW_BITS)).view(torch.float32).bfloat16()


def _own(tensor: Any) -> Tensor:
    """The part on this rank of a tensor that lies on several."""
    found: Tensor = tensor.to_local() if isinstance(tensor, distributed.tensor.DTensor) else tensor
    return found
