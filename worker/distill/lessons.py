"""What a batch teaches: whose text is scored, after which prompts, with which weights.

Forward KL scores the teacher's stored text, the student teacher-forced on it; reverse KL scores text that the student
itself has just written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paced.prompts import chat_messages
from paced.wire import Batch, BatchProblem, Outcome, Profile, Stage, Verdict
from worker.distill.config import DistillConfig
from worker.distill.data import Example, encode_answer, encode_chat, end_of_turn
from worker.distill.errors import ConfigRefused
from worker.distill.generate import Generated, Generator, answer_text
from worker.distill.model import DTYPES, copy_weights, load_model
from worker.distill.teachers.by_tag import Teachers
from worker.distill.teachers.references import Judge, Library
from worker.rollout.engine import Sampling

Prompted = tuple[BatchProblem, float, list[int], list[int]]
"""A problem, its loss weight, and the prompts of student and teacher."""


@dataclass(frozen=True)
class Graded:
    """One on-policy answer, judged."""

    problem_id: int
    verdict: Verdict


@dataclass(frozen=True)
class Lesson:
    """The sequences of one step, figures about them, and the on-policy answers among them."""

    examples: list[Example]
    metrics: dict[str, float]
    graded: list[Graded] = field(default_factory=list)

    def outcomes(self, checkpoint_index: int) -> list[Outcome]:
        """The on-policy answers as free observations of the newest checkpoint; the weights have moved on since it.

        An answer that a grader failed on says nothing of the student, and is left out.
        """
        return [
            Outcome(
                problem_id=one.problem_id,
                checkpoint_index=checkpoint_index,
                n_passed=int(one.verdict == Verdict.PASS),
                n_failed=int(one.verdict == Verdict.FAIL),
                n_truncated=int(one.verdict == Verdict.TRUNCATED),
            )
            for one in self.graded
            if one.verdict in {Verdict.PASS, Verdict.FAIL, Verdict.TRUNCATED}
        ]


def check_outcomes(config: DistillConfig, profile: Profile) -> None:
    """Refuse to report answers that were not sampled as the profile says. Raises ConfigRefused."""
    if not config.report_outcomes:
        return
    given = {
        "on_policy_temperature": (config.on_policy_temperature, profile.temperature),
        "on_policy_top_p": (config.on_policy_top_p, profile.top_p),
        "max_answer_tokens": (min(config.max_answer_tokens, profile.max_tokens), profile.max_tokens),
    }
    other = [f"{name} {ours:g}, not {theirs:g}" for name, (ours, theirs) in given.items() if ours not in (None, theirs)]
    if other:
        raise ConfigRefused(
            f"report_outcomes would mix pass rates: these settings answer otherwise than profile {profile.profile_id} "
            f"({'; '.join(other)}). Leave them as the profile has them, or leave report_outcomes out"
        )


class Lessons:
    """Turns batches into sequences; on-policy text comes from the student as it is when `of` is called."""

    def __init__(
        self,
        config: DistillConfig,
        profile: Profile,
        student: Any,
        tokenizer: Any,
        teachers: Teachers,
        library: Library,
        judge: Judge,
    ) -> None:
        self.teachers = teachers
        self._config = config
        self._profile = profile
        self._student = student
        self._tokenizer = tokenizer
        self._library = library
        self._judge = judge
        self._end = end_of_turn(tokenizer)
        self._writer: Any = None

    def of(self, batch: Batch) -> Lesson:
        """The sequences of one batch, by the KL that its stage asks for."""
        prompted = [self._prompted(problem, weight) for problem, weight in batch.items()]
        limit = self._config.max_prompt_tokens
        fitting = [one for one in prompted if max(len(one[2]), len(one[3])) <= limit]
        lesson = self._forward(fitting) if batch.stage == Stage.FORWARD_KL else self._reverse(fitting)
        examples, n_scored = self.teachers.told(lesson.examples, batch.stage)
        counts = {"n_too_long": len(prompted) - len(fitting), "n_scored": n_scored}
        return Lesson(examples, {**lesson.metrics, **counts}, lesson.graded)

    def _prompted(self, problem: BatchProblem, weight: float) -> Prompted:
        chat = chat_messages(problem.prompt, self._profile)
        return problem, weight, encode_chat(self._tokenizer, chat), self.teachers.of(problem).prompt(problem)

    def _forward(self, prompted: Sequence[Prompted]) -> Lesson:
        texts = self._library.of([problem for problem, *_ in prompted])
        examples = []
        for problem, weight, ours, theirs in prompted:
            reference = texts[problem.problem_id]
            teacher = self.teachers.of(problem)
            if teacher.is_dropping_wrong and not reference.is_right:
                continue
            limit = self._config.max_answer_tokens
            answer = encode_answer(self._tokenizer, reference.text, self._end, limit, is_complete=reference.is_complete)
            if answer:
                examples.append(Example(problem.problem_id, ours, theirs, answer, weight, teacher.name))
        n_right = sum(reference.is_right for reference in texts.values())
        return Lesson(
            examples,
            {
                "reference_right_share": n_right / max(1, len(texts)),
                "n_dropped": len(prompted) - len(examples),
            },
        )

    def _reverse(self, prompted: Sequence[Prompted]) -> Lesson:
        self._library.close()  # an engine's memory is better used elsewhere
        texts = self._student_texts([ours for _, _, ours, _ in prompted])
        graded = self._grade([problem for problem, *_ in prompted], texts)
        examples = [
            Example(problem.problem_id, ours, theirs, text.token_ids, weight, self.teachers.of(problem).name)
            for (problem, weight, ours, theirs), text in zip(prompted, texts, strict=True)
            if text.token_ids
        ]
        n_answers = max(1, len(graded))
        return Lesson(
            examples,
            {
                "on_policy_right_share": sum(one.verdict == Verdict.PASS for one in graded) / n_answers,
                "on_policy_truncated_share": sum(one.verdict == Verdict.TRUNCATED for one in graded) / n_answers,
            },
            graded,
        )

    def _student_texts(self, prompts: list[list[int]]) -> list[Generated]:
        profile, config = self._profile, self._config
        sampling = Sampling(
            n=1,
            temperature=profile.temperature if config.on_policy_temperature is None else config.on_policy_temperature,
            top_p=profile.top_p if config.on_policy_top_p is None else config.on_policy_top_p,
            top_k=profile.top_k,
            max_tokens=min(profile.max_tokens, config.max_answer_tokens),
            stop=tuple(profile.stop),
        )
        return [group[0] for group in self._generator().answers(prompts, sampling)]

    def _generator(self) -> Generator:
        """The student of this moment; a copy where its weights would be cast, gathered or merged at every token."""
        writer = self._student
        if self._config.is_writing_with_copy:
            if self._writer is None:
                self._writer = load_model(self._config.student, DTYPES[self._config.dtype], self._student.device)
            copy_weights(self._student, self._writer)
            writer = self._writer
        return Generator(writer, self._tokenizer, [self._end], self._config.generate_batch_size)

    def _grade(self, problems: Sequence[BatchProblem], texts: Sequence[Generated]) -> list[Graded]:
        stop = self._profile.stop
        written = [answer_text(self._tokenizer, text, stop) for text in texts]
        verdicts = self._judge.verdicts(list(zip(problems, written, strict=True)))
        return [
            Graded(problem.problem_id, Verdict.TRUNCATED if text.is_truncated else verdict)
            for problem, text, verdict in zip(problems, texts, verdicts, strict=True)
        ]
