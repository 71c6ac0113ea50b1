"""Judge one answer in this process: bounds on what is read, the registry of graders, and no exception for content."""

import importlib
import re
import time
from collections.abc import Mapping

from paced.wire.grading import Grader as Name
from paced.wire.grading import GraderName, GradingPolicy, Verdict

from . import choice, code, exact, latex, numeric, reasoning
from .base import DEFAULT_POLICY, Grade, Grader, GraderMissingError, UngradableError
from .installed import load_installed

GRADERS: dict[str, Grader] = {
    GraderName.EXACT: exact.judge,
    GraderName.NUMERIC: numeric.judge,
    GraderName.CHOICE: choice.judge,
    GraderName.MATH: latex.judge,
    GraderName.CODE: code.judge,
    GraderName.REASONING_GYM: reasoning.judge,
}
MAX_CHARS = 20_000  # only the end of a longer answer is judged
MAX_REFERENCE = {GraderName.CODE: 1_000_000, GraderName.REASONING_GYM: 1_000_000}  # tests and puzzles are long
MAX_EXTRACTED = 1_000
MAX_DETAIL = 500
UNREADABLE = re.compile(r"[\x00\ud800-\udfff]")
INSTALLED = re.compile(r"user:[A-Za-z0-9_.-]{1,64}")


def grade(
    text: str,
    answer: str,
    grader: str,
    policy: GradingPolicy = DEFAULT_POLICY,
    graders: Mapping[str, Grader] = GRADERS,
) -> Grade:
    """Judge an answer's text against the reference answer: pass, fail or grader_error, in wall seconds.

    Never raises for what the two strings hold. There is no deadline here: a hostile formula under the math
    grader can run for ever or take all memory, which is what GraderPool is for. Raises ValueError for an unknown
    grader; a `user:NAME` that no package declares gives grader_error.
    """
    name = checked_name(grader)
    start = time.perf_counter()
    verdict, extracted, detail = _judge(name, text[-MAX_CHARS:], answer, policy, graders)
    return Grade(verdict, _cut(extracted, MAX_EXTRACTED), time.perf_counter() - start, _cut(detail, MAX_DETAIL))


def checked_name(grader: str) -> Name:
    """Return the grader's name as the contract has it. Raises ValueError for any other."""
    return grader if INSTALLED.fullmatch(grader) else GraderName(grader)


def max_reference(name: Name) -> int:
    """Return how many characters a reference answer of this grader may have."""
    return MAX_REFERENCE.get(name, MAX_CHARS) if isinstance(name, GraderName) else MAX_CHARS


def _judge(
    name: Name, text: str, answer: str, policy: GradingPolicy, graders: Mapping[str, Grader]
) -> tuple[Verdict, str | None, str | None]:
    if problem := _flaw(answer) or ("too long" if len(answer) > max_reference(name) else None):
        return Verdict.GRADER_ERROR, None, f"the reference answer is {problem}"
    if problem := _flaw(text):
        return Verdict.FAIL, None, f"refused: the answer is {problem}"
    try:
        judge = graders.get(name) or load_installed(name)
        judged = judge(text, answer, policy)
    except (UngradableError, GraderMissingError) as error:
        return Verdict.GRADER_ERROR, None, str(error)
    except Exception as error:  # a grader's fault must not count against the student
        return Verdict.GRADER_ERROR, None, f"{type(error).__name__}: {error}"
    return Verdict.PASS if judged.is_right else Verdict.FAIL, judged.extracted, judged.detail


def _flaw(text: str) -> str | None:
    if not text.strip():
        return "empty"
    return "not text: it holds a NUL byte or half a surrogate pair" if UNREADABLE.search(text) else None


def _cut(text: str | None, n_chars: int) -> str | None:
    if text is None or len(text) <= n_chars:
        return text
    return text[: n_chars - 1] + "…"


def load_grader(path: str) -> Grader:
    """Return the grader at a dotted path such as `package.module:function`."""
    module, _, name = path.partition(":")
    grader: Grader = getattr(importlib.import_module(module), name)
    return grader
