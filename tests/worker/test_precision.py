"""auto picks the arithmetic that the machine multiplies in hardware."""

import pytest
import torch

from worker.precision import resolved


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_asked_for_stays(dtype: str, device: str) -> None:
    assert resolved(dtype, device) == dtype


@pytest.mark.parametrize(("is_fast", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_that_emulates_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, is_fast: bool, dtype: str
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_fast)
    assert resolved("auto", "cpu") == dtype
    assert resolved("auto", "cuda") == "bfloat16"
