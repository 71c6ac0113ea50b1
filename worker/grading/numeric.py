"""The numeric grader: one number, the marked one or else the last in the text, compared as exact fractions."""

import re

from paced.wire.grading import GradingPolicy

from .base import DEFAULT_POLICY, Judged, UngradableError
from .extract import find_answer
from .number import IN_PROSE, LISTED, Number, is_same, number_in, read, tidy, with_decimal_comma

SIGN_AFTER = re.compile(r"\s*(?:\\?[%％]|per ?cent\b|pct\b)", re.IGNORECASE)


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:
    """Pass where the number in the text equals the reference; a text without a number fails.

    Raises UngradableError where the reference is not one number.
    """
    marked = find_answer(answer) or answer
    wanted = read(marked) or _read_comma(marked, policy)
    if wanted is None:
        raise UngradableError(f"the reference answer {answer[:80]!r} is not a number")
    extracted, found = find_number(text, policy)
    return Judged(found is not None and is_same(wanted, found, policy), extracted)


def find_number(text: str, policy: GradingPolicy = DEFAULT_POLICY) -> tuple[str | None, Number | None]:
    """Return the judged part and its number: a marked answer or the whole reply, else the last number in prose."""
    marked = find_answer(text)
    candidate = text.strip() if marked is None else marked
    number = read(candidate) or _read_comma(candidate, policy)
    if number is not None or (marked is not None and "\\boxed" in text):
        return candidate, number  # a box is the answer, whatever else the text says
    if marked is not None:
        tail = _with_percent(marked).rsplit("=", 1)[-1]
        if match := IN_PROSE.search(tail):
            return match[0].strip(), None if LISTED.match(tail, match.end()) else _in_prose(match)
    return _last_number(_with_percent(text))


def _last_number(text: str) -> tuple[str | None, Number | None]:
    last = None
    for match in IN_PROSE.finditer(text):
        last = match
    return (None, None) if last is None else (last[0].strip(), _in_prose(last))


def _in_prose(match: re.Match[str]) -> Number | None:
    sign = SIGN_AFTER.match(match.string, match.end())
    return number_in(match, "", sign[0] if sign else "")


def _with_percent(text: str) -> str:
    """Tidy, but keep percent signs as a word."""
    return tidy(re.sub(r"\\?[%％]", " percent ", text))


def _read_comma(text: str, policy: GradingPolicy) -> Number | None:
    decimal = with_decimal_comma(text) if policy.comma == "either" else None
    return read(decimal) if decimal else None
