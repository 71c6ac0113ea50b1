"""What the teacher is shown, what it is called, and what it writes."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from paced.wire import BatchProblem, GradingPolicy, Message, Profile, TeacherReference, TeacherReferences
from tests.worker.distill.tiny import tiny_folder
from worker.distill.config import DistillConfig
from worker.distill.data import encode_chat
from worker.distill.errors import ModelRefused, TeacherSilent
from worker.distill.model import load_model, load_tokenizer
from worker.distill.teachers.references import Judge, References
from worker.distill.teachers.teacher import Teacher, check_vocabulary, fingerprint, make_teacher, with_reference
from worker.distill.teachers.writer import TransformersEngine
from worker.rollout.engine import Answer, EngineFailure, Sampling

CPU = torch.device("cpu")
PROFILE = Profile(
    profile_id="sp_1",
    system_prompt=None,
    prompt_template="{prompt}",
    temperature=0.6,
    top_p=0.95,
    top_k=0,
    max_tokens=8,
    stop=[],
    grader=None,
    grader_version="2",
    is_truncated_fail=False,
    policy=None,
    created_at=datetime(2026, 11, 25, tzinfo=UTC),
)


def problem(number: int = 1, **fields: Any) -> BatchProblem:
    made = {"prompt": "Compute 7 * 8.", "answer": "56", "grader": "numeric", "solution": None, "tags": []}
    return BatchProblem(problem_id=number, **{**made, **fields})


def make_config(student: Path, **fields: Any) -> DistillConfig:
    return DistillConfig(curriculum_id="cur_1", student=student, dtype="float32", **fields)


def self_teacher(student: Path, profile: Profile = PROFILE, **fields: Any) -> Teacher:
    config = make_config(student, **fields)
    return make_teacher(config.by_tag["default"], config, profile, load_tokenizer(student))


def shown(student: Path, one: BatchProblem, **fields: Any) -> str:
    return with_reference([Message(role="user", content=str(one.prompt))], one, make_config(student, **fields))[
        -1
    ].content


def test_the_self_teacher_sees_the_answer_and_the_solution_where_there_is_one(student: Path) -> None:
    assert shown(student, problem()) == "Compute 7 * 8.\n\nThe correct answer is 56."
    with_solution = shown(student, problem(solution="7 * 8 = 56"))
    assert with_solution == "Compute 7 * 8.\n\nA correct solution:\n7 * 8 = 56\n\nThe correct answer is 56."


def test_braces_of_a_problem_are_left_alone(student: Path) -> None:
    content = shown(student, problem(prompt="Print {answer} and {x}."), teacher_context="{answer}: {prompt} {y}")
    assert content == "56: Print {answer} and {x}. {y}"


def test_the_reference_stands_in_the_last_user_turn(student: Path) -> None:
    chat = [Message(role=role, content=role) for role in ("system", "user", "assistant", "user")]
    changed = with_reference(chat, problem(), make_config(student, teacher_context="{prompt}={answer}"))
    assert [m.content for m in changed] == ["system", "user", "assistant", "user=56"]


def test_a_teacher_of_its_own_sees_the_plain_prompt(student: Path, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "teacher", seed=1)
    tokenizer = load_tokenizer(student)
    config = make_config(student, teacher=str(folder))
    teacher = make_teacher(config.by_tag["default"], config, PROFILE, tokenizer)
    assert teacher.prompt(problem()) == encode_chat(tokenizer, [Message(role="user", content="Compute 7 * 8.")])
    teacher.source.load(CPU, torch.float32)
    assert not any(p.requires_grad for p in teacher.source.model.parameters())


def test_the_name_changes_with_whatever_shapes_the_text(student: Path, tmp_path: Path) -> None:
    other = tiny_folder(tmp_path / "other", seed=1)

    def name(folder: Path = student, profile: Profile = PROFILE, **fields: Any) -> str:
        return self_teacher(folder, profile, **fields).name

    again = name()
    assert name(learning_rate=1e-3, engine="vllm", seed=0) == again
    others = [
        name(other),
        name(teacher_context="{prompt} {answer}"),
        name(teacher_temperature=1.0),
        name(teacher_attempts=1),
        name(max_answer_tokens=4),
        name(teacher=str(student)),
        name(profile=PROFILE.model_copy(update={"system_prompt": "Be brief."})),
    ]
    assert len({again, *others}) == 8
    assert all(len(one) <= 200 for one in [again, *others])


def test_a_teacher_with_other_tokens_is_refused(student: Path) -> None:
    ours, theirs = load_tokenizer(student), load_tokenizer(student)
    check_vocabulary(ours, theirs, student)
    theirs.add_tokens(["<new>"])
    with pytest.raises(ModelRefused, match=r"another vocabulary than the student \(1 tokens of 100 and 99"):
        check_vocabulary(ours, theirs, student)


def test_the_fingerprint_sees_weights_and_not_dates(tmp_path: Path) -> None:
    a, b = tiny_folder(tmp_path / "a"), tiny_folder(tmp_path / "b")
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(a) != fingerprint(tiny_folder(b, seed=1))


class Shelf:
    """The two calls of the client that concern references."""

    def __init__(self) -> None:
        self.stored: dict[int, TeacherReference] = {}

    def references(self, _teacher: str, problem_ids: list[int]) -> dict[int, TeacherReference]:
        return {number: self.stored[number] for number in problem_ids if number in self.stored}

    def store_references(self, body: TeacherReferences) -> None:
        self.stored |= {one.problem_id: one for one in body.references}


class Scripted:
    """An engine whose n-th answer to any chat is the n-th it was given."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers, self.n_starts, self.n_stops = answers, 0, 0
        self.asked: list[str] = []

    async def start(self) -> None:
        self.n_starts += 1

    async def generate(self, messages: list[Message], sampling: Sampling) -> list[Answer]:
        self.asked.append(messages[-1].content)
        return [self.answers[sampling.seed or 0]]

    async def stop(self) -> None:
        self.n_stops += 1


def test_the_first_right_text_is_stored_and_never_written_again(student: Path) -> None:
    teacher = self_teacher(student)
    shelf = Shelf()
    engine = Scripted(
        [Answer("54", 3, False), Answer("Is it 56", 5, True), Answer("56", 3, False), Answer("0", 2, False)]
    )
    with asyncio.Runner() as runner, Judge(runner, PROFILE, GradingPolicy()) as judge:
        references = References(shelf, teacher, judge, runner, lambda: engine)  # type: ignore[arg-type]
        found = references.of([problem(1), problem(2, answer="12")])
        assert (found[1].text, found[1].is_right, found[1].is_complete) == ("56", True, True)
        assert (found[2].text, found[2].is_right) == ("54", False)
        assert len(engine.asked) == 3 + 4  # the right one is asked no fourth time
        again = References(shelf, teacher, judge, runner, lambda: pytest.fail("nothing is missing"))  # type: ignore[arg-type]
        assert again.of([problem(1), problem(2, answer="12")]) == found
        references.close()
    assert (engine.n_starts, engine.n_stops) == (1, 1)


async def test_calls_made_together_are_answered_in_one_batch(student: Path) -> None:
    model = load_model(student, torch.float32, CPU)
    shapes: list[tuple[int, ...]] = []
    generate = model.generate

    def counted(input_ids: torch.Tensor, **options: Any) -> Any:
        shapes.append(tuple(input_ids.shape))
        return generate(input_ids, **options)

    model.generate = counted
    engine = TransformersEngine(model, load_tokenizer(student), batch_size=64)
    sampling = Sampling(n=2, temperature=0.6, top_p=0.95, top_k=0, max_tokens=6, stop=(), seed=1)
    chats = [[Message(role="user", content="x" * n)] for n in (5, 1, 9)]
    answers = await asyncio.gather(*(engine.generate(chat, sampling) for chat in chats))
    assert [len(group) for group in answers] == [2, 2, 2]
    assert len(shapes) == 1
    assert shapes[0][0] == 3
    assert answers == await asyncio.gather(*(engine.generate(chat, sampling) for chat in chats))
    with pytest.raises(EngineFailure, match="trainer's own model"):
        await engine.load_checkpoint("/models/other")


def test_an_engine_that_fails_ends_the_run_with_its_reason(student: Path) -> None:
    class Failing(Scripted):
        async def start(self) -> None:
            raise EngineFailure("vLLM cannot be imported")

    teacher = self_teacher(student)
    with asyncio.Runner() as runner, Judge(runner, PROFILE, GradingPolicy()) as judge:
        references = References(Shelf(), teacher, judge, runner, lambda: Failing([]))  # type: ignore[arg-type]
        with pytest.raises(TeacherSilent, match="could not be written: vLLM cannot be imported"):
            references.of([problem()])
