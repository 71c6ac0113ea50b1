"""Judge one answer in this process: bounds on what is read, the registry of graders, and no exception for content."""

import importlib
import re
import time
from collections.abc import Mapping

from paced.wire.grading import GraderName, Verdict

from . import choice, exact, latex, numeric
from .base import Grade, Grader, UngradableError

GRADERS: dict[GraderName, Grader] = {
    GraderName.EXACT: exact.judge,
    GraderName.NUMERIC: numeric.judge,
    GraderName.CHOICE: choice.judge,
    GraderName.MATH: latex.judge,
}
MAX_CHARS = 20_000  # only the end of a longer answer is judged
MAX_EXTRACTED = 1_000
MAX_DETAIL = 500
UNREADABLE = re.compile(r"[\x00\ud800-\udfff]")


def grade(text: str, answer: str, grader: GraderName | str, graders: Mapping[GraderName, Grader] = GRADERS) -> Grade:
    """Judge an answer's text against the reference answer: pass, fail or grader_error, in wall seconds.

    Never raises for what the two strings hold. There is no deadline here: a hostile formula under the math
    grader can run for ever or take all memory, which is what GraderPool is for. Raises ValueError for an unknown
    grader.
    """
    judge = graders[GraderName(grader)]
    start = time.perf_counter()
    verdict, extracted, detail = _judge(judge, text[-MAX_CHARS:], answer)
    return Grade(verdict, _cut(extracted, MAX_EXTRACTED), time.perf_counter() - start, _cut(detail, MAX_DETAIL))


def _judge(judge: Grader, text: str, answer: str) -> tuple[Verdict, str | None, str | None]:
    if problem := _flaw(answer) or ("too long" if len(answer) > MAX_CHARS else None):
        return Verdict.GRADER_ERROR, None, f"the reference answer is {problem}"
    if problem := _flaw(text):
        return Verdict.FAIL, None, f"refused: the answer is {problem}"
    try:
        judged = judge(text, answer)
    except UngradableError as error:
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
