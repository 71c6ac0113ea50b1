"""Packed rows, token budgets, recomputed activations: another layout, the same step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from paced.wire import Stage
from tests.worker.distill.test_step import CPU, EXAMPLES, gradients, make_session
from tests.worker.distill.tiny import tiny_folder
from worker.distill.data import Example, micro_batches, pack
from worker.distill.errors import ModelRefused
from worker.distill.model import check_packing, load_model
from worker.distill.teachers.local import LocalModel
from worker.distill.train import group_loss


def test_a_packed_row_holds_each_sequence_from_place_0() -> None:
    packed = pack([[5, 6, 7], [8]], [[1, 2], [3, 4, 9]])
    assert packed.input_ids_B_T.tolist() == [[5, 6, 7, 1, 2, 8, 3, 4, 9]]
    assert packed.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert "attention_mask" not in packed.inputs
    assert packed.position_B_A.tolist() == [[2, 3, 0], [5, 6, 7]]
    assert packed.mask_B_A.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("fields", [{"packing": True}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("stage", list(Stage))
def test_loss_and_gradients_are_those_of_padded_rows(
    student: Path, tmp_path: Path, stage: Stage, fields: dict[str, Any]
) -> None:
    teacher = tiny_folder(tmp_path / "teacher", seed=1)
    padded, other = make_session(student, teacher), make_session(student, teacher, **fields)
    if "packing" in fields:
        packing = LocalModel(teacher, is_packing=True)
        packing.load(CPU, torch.float32)
        other.lessons.teachers.side = lambda examples, _device: packing.side(examples)
    else:
        other.student.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        other.student.train()
    found = [group_loss(session, EXAMPLES, stage, 3.0)[0] for session in (padded, other)]
    assert found[1].item() == pytest.approx(found[0].item(), rel=1e-5)
    for ours, theirs in zip(gradients(other, found[1]), gradients(padded, found[0]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_model_that_mixes_packed_sequences_is_refused(student: Path) -> None:
    model = load_model(student, torch.float32, CPU)
    check_packing(model, student)
    body = model.model.forward
    model.model.forward = lambda input_ids, use_cache, **_: body(input_ids=input_ids, use_cache=use_cache)
    with pytest.raises(ModelRefused, match=r"LlamaForCausalLM, attention sdpa.* otherwise than alone"):
        check_packing(model, student)


def test_a_budget_of_tokens_counts_what_is_laid_out_on_the_longer_side() -> None:
    examples = [Example(n, [0] * n, [0], [1], 1.0) for n in (3, 1, 5, 4, 2)]

    def sizes(n_tokens: int, *, is_packed: bool) -> list[list[int]]:
        groups = micro_batches(examples, 99, n_tokens, is_packed=is_packed)
        return [[e.problem_id for e in group] for group in groups]

    assert sizes(12, is_packed=False) == [[5, 4], [3, 2, 1]]
    assert sizes(12, is_packed=True) == [[5, 4], [3, 2, 1]]
    assert sizes(15, is_packed=True) == [[5, 4, 3], [2, 1]]
    assert sizes(1, is_packed=False) == [[5], [4], [3], [2], [1]]
    wordy = [Example(1, [0], [0] * 9, [1], 1.0), Example(2, [0], [0], [1], 1.0)]
    assert [len(group) for group in micro_batches(wordy, 99, 19)] == [1, 1]
    assert [len(group) for group in micro_batches(wordy, 99, 20)] == [2]
