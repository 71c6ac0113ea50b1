"""verifiers, and prime-rl which takes its environments, on a curriculum: a taskset of a run's draws that never ends.

A module of yours makes it an environment: `from paced.integrations.verifiers import CurriculumTaskset` and
`__all__ = ["CurriculumTaskset"]`; its name is the taskset's id. Tested with verifiers 0.4.
"""

import asyncio
import functools
import sys
from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf

from paced import wire
from paced.client import Client
from paced.integrations.graded import Graded
from paced.integrations.rows import Row, Rows, Ticket


class CurriculumData(vf.TaskData):  # type: ignore[misc]  # verifiers' types are not read
    """One problem of a draw, as it travels to the environment's workers; `answer` is the reference answer.

    `n_answers` counts the answers to all problems of the draw, `loss_weight` is for losses that have a place for it.
    """

    answer: str
    grader: str
    policy: dict[str, Any]
    loss_weight: float
    student: str
    n_answers: int
    ticket: str


class CurriculumTask(vf.Task[CurriculumData]):  # type: ignore[misc]
    """Judges the last reply and counts the verdict: a draw is acknowledged when all its answers have been judged.

    They must be judged by one process: serve the environment by a pool of one worker.
    """

    @vf.reward  # type: ignore[untyped-decorator]
    async def is_right(self, trace: vf.Trace) -> float:
        """1 for a right answer, else 0; one that cannot be judged is no observation."""
        found = await asyncio.to_thread(self.judge, trace.last_reply)
        counter = _graded(self.data.student, self.data.n_answers)
        ticket = Ticket.read(self.data.ticket)
        await asyncio.to_thread(counter.add, ticket, found, is_truncated=trace.is_truncated)
        return found or 0.0

    def judge(self, reply: str) -> float | None:
        """1 for right, 0 for wrong, None without a verdict: by the service's graders. Yours goes in a subclass."""
        data = self.data
        asked = wire.AnswerToGrade(text=reply, answer=data.answer, grader=data.grader, policy=data.policy)
        (grade,) = _client().grade([asked]).grades
        return {wire.Verdict.PASS: 1.0, wire.Verdict.FAIL: 0.0}.get(grade.verdict)


class CurriculumConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Names of curriculum and run, problems of a draw, and answers to each problem: the trainer's group size."""

    curriculum: str
    run: str
    size: int = 16
    group_size: int = 8


class CurriculumTaskset(vf.Taskset[CurriculumTask, CurriculumConfig]):  # type: ignore[misc]
    """The problems of each draw in turn, for as long as the curriculum's schedule lasts.

    What is passed over to resume is drawn again under its Idempotency-Key: the same problems, and none counted twice.
    """

    INFINITE = True

    def load(self) -> Iterator[CurriculumTask]:
        """Draw when the first problem of a draw is asked for."""
        config = self.config
        rows = Rows(_client(), config.curriculum, config.run, config.size, sys.maxsize // config.size)
        policy = rows.client.problem_set(rows.problem_set).policy.model_dump()
        for index in range(len(rows)):
            data = _data(rows[index], policy, rows.student, config.size * config.group_size)
            yield type(self).task_type()(data, config.task)


def _data(row: Row, policy: dict[str, Any], student: str, n_answers: int) -> CurriculumData:
    """A chat of one turn goes as text, which every harness takes."""
    system = row.prompt[0]["content"] if row.prompt[0]["role"] == "system" else None
    turns = row.prompt if system is None else row.prompt[1:]
    is_text = len(turns) == 1 and turns[0]["role"] == "user"
    return CurriculumData(
        prompt=turns[0]["content"] if is_text else turns,
        system_prompt=system,
        answer=row.ticket.answer,
        grader=row.grader,
        policy=policy,
        loss_weight=row.loss_weight,
        student=student,
        n_answers=n_answers,
        ticket=row.ticket.label(),
    )


@functools.cache
def _client() -> Client:
    """One for the process: workers are made anew from the environment's configuration."""
    return Client()


@functools.cache
def _graded(student: str, n_answers: int) -> Graded:
    return Graded(_client(), student, n_answers)
