"""Which arithmetic is fast here: bfloat16 needs hardware that multiplies it."""

from typing import Literal

Dtype = Literal["auto", "bfloat16", "float32"]


def resolved(dtype: str, device_type: str) -> str:
    """What `auto` stands for on a device: float32 on a CPU that only emulates bfloat16 (some 50 times slower)."""
    if dtype != "auto":
        return dtype
    import torch

    if device_type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32"
    return "bfloat16"
