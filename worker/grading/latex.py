r"""The math grader: plain numbers and equal strings by our own rules, all else by math-verify (Apache-2.0).

math-verify's own deadlines are turned off: they rest on SIGALRM, which fails outside the main thread
(Math-Verify #11, #50). A nested power can therefore run for ever here; GraderPool is the deadline.
"""

import logging
import re
from itertools import product
from typing import Any

from .base import Judged, UngradableError
from .extract import find_answer, strip_math
from .numeric import is_close, tidy, value_of

MAX_DEPTH = 40  # brackets within brackets: the parser takes time exponential in them
MAX_BARE = 2_000  # characters of a text without math delimiters that may be one formula
SLACK = 1e-6  # relative; math-verify compares to six decimals, so that to it every tiny number is equal
DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed")
INTEGER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
PROSE = re.compile(r"(?<![\\\w])[^\W\d_]{3,}\s+[^\W\d_]{2,}|[\u3040-\u30ff\u4e00-\u9fff]")
COMMAND = re.compile(r"\\(?:[dtc]?frac|times|cdot)")
SPELLING = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])|\\left(?![a-z])|\\right(?![a-z])|\\[,;!:]|\$|\.$")


def judge(text: str, answer: str) -> Judged:
    """Pass where the answer in the text is mathematically equal to the reference.

    Raises UngradableError where the reference cannot be parsed, ImportError without math-verify.
    """
    marked, wanted = find_answer(text), find_answer(answer) or strip_math(answer)
    extracted = strip_math(text) if marked is None else marked
    if text.strip() == answer.strip() or _is_spelled_alike(extracted, wanted):
        return Judged(True, extracted)
    verdict = _judge_numbers(extracted, wanted)
    if verdict is not None:
        return Judged(verdict, extracted)
    if max(_depth(extracted), _depth(wanted)) > MAX_DEPTH:
        return Judged(False, extracted, f"refused: brackets nested more than {MAX_DEPTH} deep")
    return _judge_symbolic(extracted, wanted, is_marked=marked is not None)


def _judge_numbers(extracted: str, wanted: str) -> bool | None:
    """Decide two plain numbers: equal ones pass, unequal integers fail, all else is left to math-verify."""
    a, b = value_of(extracted), value_of(wanted)
    if a is None or b is None or not _is_bare(extracted) or not _is_bare(wanted):
        return None
    if is_close(a, b):
        return True
    is_integers = INTEGER.fullmatch(tidy(extracted).strip()) and INTEGER.fullmatch(tidy(wanted).strip())
    return False if is_integers else None


def _is_bare(text: str) -> bool:
    """Whether the text is a number without name, unit or percent sign."""
    return not re.search(r"[A-Za-z=%]", COMMAND.sub("", text))


def _judge_symbolic(extracted: str, wanted: str, *, is_marked: bool) -> Judged:
    gold = _parse(wanted)
    if not gold:
        raise UngradableError(f"math-verify cannot parse the reference answer {wanted[:80]!r}")
    found = _parse(extracted)
    if not is_marked and found and isinstance(found[-1], str):
        extracted = found[-1]  # what math-verify picked out of the prose
    return Judged(any(_is_equal(g, f) for g, f in product(gold, found)), extracted)


def _parse(text: str) -> list[Any]:
    """Return SymPy expressions, then the string they came from, as `math_verify.parse` does."""
    from math_verify import parse  # half a second to import, and absent from the base install

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its deadlines are off
    is_bare = len(text) <= MAX_BARE and "\n" not in text and not DELIMITED.search(text) and not PROSE.search(text)
    parsed: list[Any] = parse(f"${text}$" if is_bare else text, parsing_timeout=None)
    return parsed


def _is_equal(gold: Any, found: Any) -> bool:
    from math_verify import verify

    if not verify(gold, found, timeout_seconds=None):
        return False
    if not (getattr(gold, "is_number", False) and getattr(found, "is_number", False)):
        return True
    try:
        a, b = complex(gold.evalf()), complex(found.evalf())
    except (TypeError, OverflowError):
        return True  # no number after all, or beyond a float: math-verify's word stands
    return abs(a - b) <= SLACK * max(abs(a), abs(b))


def _is_spelled_alike(extracted: str, wanted: str) -> bool:
    """Whether the two differ in white space and spelling of LaTeX only, or in case where the reference is prose."""
    a, b = _spelling(extracted), _spelling(wanted)
    return bool(b) and (a == b or (PROSE.search(wanted) is not None and a.casefold() == b.casefold()))


def _spelling(text: str) -> str:
    return SPELLING.sub("", tidy_fractions(text))


def tidy_fractions(text: str) -> str:
    r"""Write \dfrac, \tfrac and \cfrac as \frac."""
    return re.sub(r"\\[dtc]frac", r"\\frac", text)


def _depth(text: str) -> int:
    """Return how deep brackets of any kind nest; a closing one that opens nothing counts for nothing."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(depth - 1, 0)
    return deepest
