"""The reasoning_gym grader: an entry of a procedural dataset, scored by that dataset's own function.

The reference answer is the entry as JSON, `{"source_dataset": ..., "answer": ..., "metadata": {...}}`; `question` may
be left out. A score of PASS_SCORE passes: reasoning-gym gives less for answers that are right but badly written.
"""

import json
from typing import Any

from paced.wire.grading import GradingPolicy

from .base import DEFAULT_POLICY, GraderMissingError, Judged, UngradableError
from .extract import find_answer, find_tagged

PASS_SCORE = 1.0


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:  # noqa: ARG001
    """Pass where the dataset scores the answer at PASS_SCORE or above.

    Raises UngradableError where the reference is no entry of a known dataset, GraderMissingError without the package.
    """
    name, entry = _read(answer)
    try:
        from reasoning_gym import get_score_answer_fn
    except ImportError as error:
        raise GraderMissingError(
            f"the reasoning_gym grader needs its package: pip install reasoning-gym ({error})"
        ) from None
    try:
        score = get_score_answer_fn(name)
    except ValueError as error:
        raise UngradableError(f"the reference answer names no dataset of reasoning-gym: {error}") from None
    extracted = find_tagged(text) or find_answer(text) or text.strip()
    points = float(score(answer=extracted, entry=entry))
    return Judged(points >= PASS_SCORE, extracted, f"score {points:g} of {PASS_SCORE:g}")


def _read(answer: str) -> tuple[str, dict[str, Any]]:
    try:
        entry = json.loads(answer)
        metadata = dict(entry.get("metadata") or {})
        name = str(entry.get("source_dataset") or metadata["source_dataset"])
        return name, {"question": "", **entry, "answer": entry["answer"], "metadata": metadata}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = "is no JSON object with source_dataset, answer and metadata"
        raise UngradableError(f"the reference answer {what}: {type(error).__name__} {error}") from None
