"""One optimiser step against dense autograd."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paced.losses import Projection
from paced.wire import Stage, StagePlan
from tests.worker.distill.tiny import tiny_folder
from worker.distill.config import DistillConfig
from worker.distill.data import Example
from worker.distill.errors import ConfigRefused, DistillError, ModelRefused
from worker.distill.lessons import Lesson
from worker.distill.model import Body, check_projection, load_model, load_tokenizer, sharpened, words_compared
from worker.distill.ranks import Ranks
from worker.distill.teachers.local import LocalModel
from worker.distill.train import group_loss, loss_denominator, update

CPU = torch.device("cpu")
EXAMPLES = [
    Example(1, [5, 6, 7, 8], [9, 10, 5, 6, 7, 8], [20, 21, 2], 0.5),
    Example(2, [30, 31], [33, 34, 35, 30, 31], [40, 41, 42, 43, 2], 2.0),
    Example(3, [50, 51, 52], [52], [60], 1.25),
]


def make_session(student: Path, teacher: Path, *, ranks: Ranks | None = None, **fields: Any) -> Any:
    config = DistillConfig(curriculum_id="cur_1", student=student, dtype="float32", chunk_tokens=2, **fields)
    ours, theirs = load_model(student, torch.float32, CPU), LocalModel(teacher, config.teacher_sharpness)
    theirs.load(CPU, torch.float32)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    teachers = SimpleNamespace(model=theirs.model, side=lambda examples, _device: theirs.side(examples))
    lessons = SimpleNamespace(teachers=teachers)
    return SimpleNamespace(
        config=config, curriculum=SimpleNamespace(schedule=[StagePlan(stage=Stage.FORWARD_KL)]),
        ranks=ranks or Ranks(), student=ours, body=Body(ours), optimizer=optimizer, lessons=lessons,
        tokenizer=load_tokenizer(student), dtype=torch.float32, saved_step=-1,
    )  # fmt: skip


def heavier(examples: list[Example], factor: float) -> list[Example]:
    return [replace(one, weight=factor * one.weight) for one in examples]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "teacher", seed=1)


def dense_loss(session: Any, stage: Stage, denominator: float) -> torch.Tensor:
    """Σ w · mean_t KL / D from full logits, one sequence at a time, without padding."""
    total = torch.zeros(())
    for one in EXAMPLES:
        ours, theirs = (
            (sharpness * model(torch.tensor([prompt + one.answer])).logits[0, len(prompt) - 1 : -1]).log_softmax(-1)
            for model, prompt, sharpness in (
                (session.student, one.student_prompt, 1.0),
                (session.lessons.teachers.model, one.teacher_prompt, session.config.teacher_sharpness),
            )
        )
        a, b = (theirs, ours) if stage == Stage.FORWARD_KL else (ours, theirs)
        total = total + one.weight * (a.exp() * (a - b)).sum(-1).mean() / denominator
    return total


def gradients(session: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(session.student.parameters())))


@pytest.mark.parametrize("sharpness", [1.0, 1.67])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_micro_batch_equals_dense_autograd(student: Path, teacher: Path, stage: Stage, sharpness: float) -> None:
    session = make_session(student, teacher, teacher_sharpness=sharpness)
    loss, kl_sum, n_tokens = group_loss(session, EXAMPLES, stage, 3.0)
    dense = dense_loss(session, stage, 3.0)
    assert loss.item() == pytest.approx(dense.item(), rel=1e-5)
    assert n_tokens == 9
    assert kl_sum > 0
    for ours, theirs in zip(gradients(session, loss), gradients(session, dense), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_step_moves_the_weights_as_one_adamw_step_on_the_dense_loss(student: Path, teacher: Path, size: int) -> None:
    session = make_session(student, teacher, micro_batch_size=size, learning_rate=1e-3)
    dense = make_session(student, teacher, learning_rate=1e-3)
    values = update(session, Lesson(EXAMPLES, {}), Stage.FORWARD_KL, step=0)
    dense_loss(dense, Stage.FORWARD_KL, 3.0).backward()
    norm = torch.nn.utils.clip_grad_norm_(dense.student.parameters(), 1.0)
    dense.optimizer.step()
    assert values["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert values["n_tokens"] == 9
    for ours, theirs in zip(session.student.parameters(), dense.student.parameters(), strict=True):
        # AdamW's first step is ±lr, whatever the gradient: where that is rounding, so is the step's sign
        assert float((ours - theirs).abs().gt(1e-5).float().mean()) < 0.01


def test_twice_the_weight_is_twice_the_gradient(student: Path, teacher: Path) -> None:
    session = make_session(student, teacher)
    one = EXAMPLES[0]
    once, twice = (
        gradients(session, group_loss(session, [Example(1, *_tokens(one), w)], Stage.REVERSE_KL, 1.0)[0])
        for w in (1.0, 2.0)
    )
    for single, double in zip(once, twice, strict=True):
        assert torch.equal(2 * single, double)


def _tokens(example: Example) -> tuple[list[int], list[int], list[int]]:
    return example.student_prompt, example.teacher_prompt, example.answer


def test_a_student_that_is_its_teacher_and_reads_the_same_prompt_has_nothing_to_learn(student: Path) -> None:
    session = make_session(student, student)
    same = [Example(1, [5, 6], [5, 6], [7, 8], 1.0)]
    loss, _, _ = group_loss(session, same, Stage.FORWARD_KL, 1.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_denominators(student: Path) -> None:
    def d(**fields: Any) -> float:
        return loss_denominator(DistillConfig(curriculum_id="cur_1", student=student, **fields), EXAMPLES)

    assert d() == 3
    assert d(denominator="batch") == 3.75
    assert loss_denominator(DistillConfig(curriculum_id="cur_1", student=student), []) == 0
    with pytest.raises(ConfigRefused, match="token_mean"):
        d(reduction="token_mean")


def test_an_empty_lesson_moves_nothing(student: Path, teacher: Path) -> None:
    session = make_session(student, teacher)
    before = [p.clone() for p in session.student.parameters()]
    assert update(session, Lesson([], {}), Stage.FORWARD_KL, step=0) == {"n_sequences": 0}
    assert all(torch.equal(a, b) for a, b in zip(before, session.student.parameters(), strict=True))


def test_a_loss_that_is_not_finite_ends_the_run_before_it_spoils_the_weights(student: Path, teacher: Path) -> None:
    session = make_session(student, teacher)
    with torch.no_grad():
        session.lessons.teachers.model.model.norm.weight.fill_(torch.nan)
    before = [p.clone() for p in session.student.parameters()]
    with pytest.raises(DistillError, match="step 7: the loss is nan"):
        update(session, Lesson(EXAMPLES, {}), Stage.FORWARD_KL, step=7)
    assert all(torch.equal(a, b) for a, b in zip(before, session.student.parameters(), strict=True))


def test_a_model_that_scales_its_logits_is_refused(student: Path) -> None:
    model = load_model(student, torch.float32, CPU)
    check_projection(model, student)
    head = model.lm_head.forward
    model.lm_head.forward = lambda hidden: 2 * head(hidden)
    with pytest.raises(ModelRefused, match="chunked loss does not fit"):
        check_projection(model, student)


def test_capped_logits_cannot_be_sharpened() -> None:
    side = Projection(torch.ones(1, 2), torch.ones(3, 2), torch.ones(3))
    scaled = sharpened(side, 2.0)
    assert scaled.bias_V is not None
    assert (scaled.hidden.tolist(), scaled.bias_V.tolist()) == ([[2, 2]], [2, 2, 2])
    assert sharpened(side, 1.0) is side
    with pytest.raises(ModelRefused, match="capped"):
        sharpened(replace(side, soft_cap=30.0), 2.0)


def test_bfloat16_autocast_stays_near_float32(student: Path, teacher: Path) -> None:
    exact, rounded = make_session(student, teacher), make_session(student, teacher)
    rounded.dtype = torch.bfloat16
    losses = [group_loss(s, EXAMPLES, Stage.FORWARD_KL, 3.0)[0].item() for s in (exact, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[1] != losses[0]


def test_heads_padded_otherwise_are_compared_over_the_tokens_they_share(student: Path, tmp_path: Path) -> None:
    padded = tiny_folder(tmp_path / "padded", seed=1, vocab_size=2000)
    session = make_session(student, padded)
    ours = session.student.get_output_embeddings().weight
    loss, *_ = group_loss(session, EXAMPLES, Stage.FORWARD_KL, denominator=1.0)
    assert torch.isfinite(loss)
    assert words_compared(Projection(ours, ours), Projection(ours, ours), 10) is None
    assert words_compared(Projection(ours, ours), Projection(ours, torch.zeros(2000, 32)), 98) == 98
