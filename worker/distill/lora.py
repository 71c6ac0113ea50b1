"""LoRA by peft: small trained matrices beside frozen weights, merged into them wherever the student is written down.

Dimension suffixes: O outputs, I inputs.
"""

# The suffixes above are capitals:
# ruff: noqa: N803

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from worker.distill.config import DistillConfig
from worker.distill.errors import ModelRefused
from worker.distill.ranks import whole

MATRIX, FROZEN = ".lora_", ".base_layer."  # in the names of weights


def adapt(model: Any, config: DistillConfig) -> None:
    """Freeze a model and put adapters beside its linear layers, in place; float32, since they alone are trained.

    Raises ModelRefused.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelRefused("lora_rank needs peft, which is not installed: pip install 'paced[train]'") from error
    _check_targets(model, config)
    torch.manual_seed(config.seed)  # every rank begins with the same matrices
    wanted = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        target_modules=config.lora_targets or "all-linear",
    )
    try:
        inject_adapter_in_model(wanted, model)
    except ValueError as error:
        raise ModelRefused(f"lora_targets {config.lora_targets} do not fit {config.student}: {error}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(MATRIX in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapters(model: nn.Module) -> dict[str, Any]:
    """The layers that have adapters, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def merged(weight_O_I: Tensor, layer: Any) -> Tensor:
    """A frozen weight with its adapter added."""
    added = torch.zeros_like(weight_O_I, dtype=torch.float32)
    for name, scaling in layer.scaling.items():
        added += scaling * (whole(layer.lora_B[name].weight.detach()) @ whole(layer.lora_A[name].weight.detach()))
    return weight_O_I.float() + added


def _check_targets(model: Any, config: DistillConfig) -> None:
    """Refuse what the loss would pass by or what cannot be merged."""
    for name, module in model.named_modules():
        if not config.lora_targets and type(module).__name__ == "Conv1D":
            raise ModelRefused(
                f"{config.student} has a Conv1D at {name}, whose adapter cannot be merged: leave lora_rank out"
            )
        is_named = any(name == target or name.endswith(f".{target}") for target in config.lora_targets)
        if is_named and (module is model.get_output_embeddings() or not isinstance(module, nn.Linear)):
            raise ModelRefused(
                f"lora_targets name {name} of {config.student}, a {type(module).__name__}: name linear layers below "
                "the head, such as q_proj"
            )


class Unadapted:
    """A model as it was before its adapters: the frozen first student, without a second copy of it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As the model's."""
        with _switched_off(self._model):
            return self._model(*arguments, **options)

    def base_model(self, *arguments: Any, **options: Any) -> Any:
        """As the model's."""
        with _switched_off(self._model):
            return self._model.base_model(*arguments, **options)

    def generate(self, *arguments: Any, **options: Any) -> Any:
        """As the model's."""
        with _switched_off(self._model):
            return self._model.generate(*arguments, **options)


@contextlib.contextmanager
def _switched_off(model: Any) -> Iterator[None]:
    """Without adapters and without dropout; peft's own switch would also unfreeze what is trained."""
    layers, is_training = list(adapters(model).values()), model.training
    for layer in layers:
        layer._disable_adapters = True
    model.eval()
    try:
        yield
    finally:
        model.train(is_training)
        for layer in layers:
            layer._disable_adapters = False
