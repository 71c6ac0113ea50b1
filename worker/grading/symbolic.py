r"""Formulas: parsed and simplified by math-verify (Apache-2.0), numbers evaluated, the rest tried at sample points.

math-verify's own deadlines are turned off: they rest on SIGALRM, which fails outside the main thread
(Math-Verify #11, #50). A nested power can therefore run for ever here; GraderPool is the deadline.
"""

import logging
import re
from itertools import product
from typing import Any

from paced.wire.grading import GradingPolicy

from .base import UngradableError
from .sampling import agree_at_points, equations_agree
from .spelling import PROSE

MAX_BARE = 2_000  # characters of a text without math delimiters that may be one formula
DIGITS = 30  # to which numbers are evaluated
EXACT = 1e-15  # relative difference that evaluation may leave between equal numbers
DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed")
DECIMAL = re.compile(r"\.[0-9]|[0-9][eE]-?[0-9]")


def is_equal(gold: str, found: str, policy: GradingPolicy) -> bool:
    """Whether two formulas are mathematically equal. Raises UngradableError where the reference cannot be parsed."""
    return judge(gold, found, policy)[0]


def judge(gold: str, found: str, policy: GradingPolicy) -> tuple[bool, str | None]:
    """Return the verdict, and what math-verify picked out where the answer is prose."""
    golds = _parse(gold)
    if not golds:
        raise UngradableError(f"math-verify cannot parse the reference answer {gold[:80]!r}")
    candidates = _parse(found)
    picked = candidates[-1] if candidates and isinstance(candidates[-1], str) else None
    is_rounded = DECIMAL.search(gold) is not None or DECIMAL.search(found if picked is None else picked) is not None
    alike = [(g, f) for g, f in product(golds, candidates) if isinstance(g, str) == isinstance(f, str)]
    return any(_is_same(g, f, policy, is_rounded) for g, f in alike), picked


def _parse(text: str) -> list[Any]:
    """Return SymPy expressions, then the string they came from, as `math_verify.parse` does."""
    from math_verify import parse  # half a second to import, and absent from the base install

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its deadlines are off
    is_bare = len(text) <= MAX_BARE and "\n" not in text and not DELIMITED.search(text) and not PROSE.search(text)
    parsed: list[Any] = parse(f"${text}$" if is_bare else text, parsing_timeout=None)
    return parsed


def _is_same(gold: Any, found: Any, policy: GradingPolicy, is_rounded: bool) -> bool:
    from math_verify import verify

    if _is_number(gold) and _is_number(found):
        is_close = _are_close(gold, found, policy, is_rounded)
        if is_close is not None:
            return is_close
    agree = equations_agree(gold, found)
    if agree is None:
        agree = agree_at_points(gold, found, policy.rel_tolerance if is_rounded else 0.0)
    if agree is not None:
        return agree  # SymPy would take a hundred times as long to simplify
    return bool(verify(gold, found, allow_set_relation_comp=True, timeout_seconds=None))


def _is_number(value: Any) -> bool:
    return bool(getattr(value, "is_number", False)) and not getattr(value, "is_Relational", False)


def _are_close(gold: Any, found: Any, policy: GradingPolicy, is_rounded: bool) -> bool | None:
    """Compare evaluated numbers, or return None where evaluation does not tell."""
    try:
        size = max(abs(gold.evalf(DIGITS)), abs(found.evalf(DIGITS)))  # of SymPy: a float has no 1/2004!
        difference = abs((gold - found).evalf(DIGITS))
        if not (size.is_finite and size.is_Float and difference.is_finite):
            return None
    except (TypeError, OverflowError, AttributeError):
        return None
    relative = policy.rel_tolerance if is_rounded else EXACT
    if difference > max(relative * size, policy.abs_tolerance):
        return False
    if size == 0:
        return True
    # 10^100 and 10^100 + 1 are as near as equal roots are
    is_close = is_rounded or difference <= max(EXACT * min(size, 1), policy.abs_tolerance)
    return is_close or _is_zero(gold - found)


def _is_zero(value: Any) -> bool:
    from sympy import simplify

    return bool(simplify(value) == 0)
