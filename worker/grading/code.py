"""The code grader."""

from paced.wire.grading import GradingPolicy

from .base import DEFAULT_POLICY, GraderMissingError, Judged


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:  # noqa: ARG001
    """Refuse."""
    raise GraderMissingError("the code grader is off")
