"""What every grader returns, and what it raises when there is nothing to judge against."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from paced.wire.grading import GradingPolicy, Verdict

DEFAULT_POLICY = GradingPolicy()


@dataclass(frozen=True)
class Grade:
    """One answer judged: the verdict, the part that was judged, and how long it took (wall seconds).

    `detail` says why where there is no verdict, or why the answer was refused unread.
    """

    verdict: Verdict
    extracted: str | None
    seconds: float
    detail: str | None = None


class Judged(NamedTuple):
    """What a grader found: right or not, the part of the text it looked at, and a reason where one helps."""

    is_right: bool
    extracted: str | None
    detail: str | None = None


class UngradableError(ValueError):
    """The reference answer cannot be judged against: no verdict, whatever the student wrote."""


class GraderMissingError(RuntimeError):
    """The grader is not there to judge: not installed, not unique, or not allowed to run. No verdict."""


Grader = Callable[[str, str, GradingPolicy], Judged]
"""From (answer text, reference answer, policy) to a judgement; pure, and free to be slow or to raise."""
