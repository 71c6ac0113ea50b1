"""The teacher's texts for forward KL: written once, judged, stored in the service, looked up ever after."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from paced.client import Client
from paced.wire import BatchProblem, GradingPolicy, Profile, TeacherReference, TeacherReferences, Verdict
from worker.distill.errors import TeacherSilent
from worker.distill.teachers.by_tag import Teachers
from worker.distill.teachers.teacher import Teacher
from worker.grading import GraderPool
from worker.rollout.engine import Answer, Engine, EngineFailure

MAX_STORED = 4096  # references a request, the contract's bound


@dataclass(frozen=True)
class Reference:
    """One stored text of the teacher; truncated texts count as wrong."""

    text: str
    is_complete: bool
    is_right: bool


class Judge:
    """Judges answers in a killable process of its own, since a formula can hang a grader; started when first used."""

    def __init__(self, runner: asyncio.Runner, profile: Profile, policy: GradingPolicy) -> None:
        self._runner = runner
        self._grader = profile.grader
        self._policy = profile.policy or policy
        self._pool: GraderPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._runner.run(self._pool.close())

    def are_right(self, answers: Sequence[tuple[BatchProblem, str]]) -> list[bool]:
        """Whether each text answers its problem."""
        return [verdict == Verdict.PASS for verdict in self.verdicts(answers)]

    def verdicts(self, answers: Sequence[tuple[BatchProblem, str]]) -> list[Verdict]:
        """What the grader says of each text."""
        return self._runner.run(self._judged(answers)) if answers else []

    async def _judged(self, answers: Sequence[tuple[BatchProblem, str]]) -> list[Verdict]:
        if self._pool is None:
            self._pool = await GraderPool(n_workers=1).__aenter__()
        pool = self._pool
        calls = [pool.grade(text, p.answer, self._grader or p.grader, self._policy) for p, text in answers]
        return [grade.verdict for grade in await asyncio.gather(*calls)]


class References:
    """Texts of one teacher by problem; `make_engine` is called, and the engine started, when one is missing."""

    def __init__(
        self, client: Client, teacher: Teacher, judge: Judge, runner: asyncio.Runner, make_engine: Callable[[], Engine]
    ) -> None:
        self._client = client
        self._teacher = teacher
        self._judge = judge
        self._runner = runner
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._is_right: dict[int, bool] = {}

    def of(self, problems: Sequence[BatchProblem]) -> dict[int, Reference]:
        """The teacher's text on each problem; what is not stored yet is written and stored first."""
        stored = self._client.references(self._teacher.name, [p.problem_id for p in problems])
        missing = [p for p in problems if p.problem_id not in stored]
        if missing:
            stored |= self._write(missing)
        self._judge_new(problems, stored)
        return {number: self._reference(reference) for number, reference in stored.items()}

    def close(self) -> None:
        """Free the engine; it comes back if a text is missing again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._runner.run(engine.stop())

    def _write(self, problems: Sequence[BatchProblem]) -> dict[int, TeacherReference]:
        """Write one text a problem, another for those that came out wrong, and so on; store the first right ones."""
        written: dict[int, TeacherReference] = {}
        waiting = list(problems)
        for attempt in range(self._teacher.config.teacher_attempts):
            answers = self._answers(waiting, attempt)
            verdicts = self._judge.are_right([(p, a.text) for p, a in zip(waiting, answers, strict=True)])
            wrong = []
            for problem, answer, verdict in zip(waiting, answers, verdicts, strict=True):
                is_right = verdict and not answer.is_truncated
                if is_right or attempt == 0:
                    written[problem.problem_id] = _stored(problem, answer)
                if not is_right:
                    wrong.append(problem)
            waiting = wrong
            if not waiting:
                break
        self._store(list(written.values()))
        return written

    def _answers(self, problems: Sequence[BatchProblem], attempt: int) -> list[Answer]:
        try:
            return self._runner.run(self._generated(problems, attempt))
        except EngineFailure as error:
            raise TeacherSilent(f"the teacher's texts could not be written: {error}") from error

    async def _generated(self, problems: Sequence[BatchProblem], attempt: int) -> list[Answer]:
        if self._engine is None:
            engine = self._make_engine()
            await engine.start()
            self._engine = engine
        engine, sampling = self._engine, self._teacher.attempt(attempt)
        groups = await asyncio.gather(*(engine.generate(self._teacher.messages(p), sampling) for p in problems))
        return [group[0] for group in groups]

    def _store(self, references: list[TeacherReference]) -> None:
        for start in range(0, len(references), MAX_STORED):
            part = references[start : start + MAX_STORED]
            self._client.store_references(TeacherReferences(teacher=self._teacher.name, references=part))

    def _judge_new(self, problems: Sequence[BatchProblem], stored: dict[int, TeacherReference]) -> None:
        new = [(p, stored[p.problem_id].text) for p in problems if p.problem_id not in self._is_right]
        for (problem, _), is_right in zip(new, self._judge.are_right(new), strict=True):
            self._is_right[problem.problem_id] = is_right

    def _reference(self, stored: TeacherReference) -> Reference:
        is_complete = stored.finish_reason == "stop"
        return Reference(stored.text, is_complete, is_complete and self._is_right[stored.problem_id])


class Library:
    """The texts of every problem's own teacher."""

    def __init__(
        self,
        client: Client,
        teachers: Teachers,
        judge: Judge,
        runner: asyncio.Runner,
        make_engine: Callable[[Teacher], Engine],
    ) -> None:
        self._teachers = teachers
        self._shelves = {
            teacher.name: References(client, teacher, judge, runner, partial(make_engine, teacher))
            for teacher in teachers
        }

    def of(self, problems: Sequence[BatchProblem]) -> dict[int, Reference]:
        """A text on each problem; what is not stored yet is written and stored first."""
        found: dict[int, Reference] = {}
        for name, shelf in self._shelves.items():
            mine = [problem for problem in problems if self._teachers.of(problem).name == name]
            if mine:
                found |= shelf.of(mine)
        return found

    def close(self) -> None:
        """Free the engines; they come back if a text is missing again."""
        for shelf in self._shelves.values():
            shelf.close()


def _stored(problem: BatchProblem, answer: Answer) -> TeacherReference:
    return TeacherReference(
        problem_id=problem.problem_id,
        text=answer.text,
        n_tokens=answer.n_tokens,
        finish_reason="length" if answer.is_truncated else "stop",
    )
