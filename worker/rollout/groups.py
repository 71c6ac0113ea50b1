"""One leased problem from prompt to graded answers."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from paced.prompts import chat_messages
from paced.wire import Grader, GradingPolicy, LeasedProblem, Message, Profile, Rollout, Verdict
from worker.grading import Grade
from worker.rollout.engine import Answer, Sampling

MAX_DETAIL_CHARS = 10_000


class Pool(Protocol):
    """What grades: `worker.grading.GraderPool`."""

    async def grade(self, text: str, answer: str, grader: Grader, policy: GradingPolicy) -> Grade:
        """Judge one answer; never raises for content."""
        ...


def ask(problem: LeasedProblem, profile: Profile, seed: int | None) -> tuple[list[Message], Sampling]:
    """The chat and the sampling that the profile prescribes for a problem."""
    sampling = Sampling(
        n=problem.n_rollouts,
        temperature=profile.temperature,
        top_p=profile.top_p,
        top_k=profile.top_k,
        max_tokens=profile.max_tokens,
        stop=tuple(profile.stop),
        seed=seed,
    )
    return chat_messages(problem.prompt, profile), sampling


async def grade(pool: Pool, problem: LeasedProblem, profile: Profile, answers: Sequence[Answer]) -> list[Rollout]:
    """Each answer with its verdict, in order; equal texts are judged once, truncated ones not at all."""
    texts = list(dict.fromkeys(answer.text for answer in answers if not answer.is_truncated))
    grader, policy = profile.grader or problem.grader, profile.policy or problem.policy
    grades = await asyncio.gather(*(pool.grade(text, problem.answer, grader, policy) for text in texts))
    by_text = dict(zip(texts, grades, strict=True))
    return [_rollout(answer, by_text) for answer in answers]


def failed(problem: LeasedProblem, error: Exception) -> list[Rollout]:
    """The answers that an engine failure leaves: verdicts that do not move the pass rate, with the reason."""
    detail = str(error)[:MAX_DETAIL_CHARS]
    return [Rollout(text="", verdict=Verdict.INFRASTRUCTURE, n_tokens=0, detail=detail)] * problem.n_rollouts


def _rollout(answer: Answer, by_text: dict[str, Grade]) -> Rollout:
    if answer.is_truncated:
        return Rollout(text=answer.text, verdict=Verdict.TRUNCATED, n_tokens=answer.n_tokens)
    grade = by_text[answer.text]
    return Rollout(
        text=answer.text,
        verdict=grade.verdict,
        n_tokens=answer.n_tokens,
        extracted=grade.extracted,
        grading_s=grade.seconds,
        detail=None if grade.detail is None else grade.detail[:MAX_DETAIL_CHARS],
    )
