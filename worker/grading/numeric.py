r"""The numeric grader: one number, compared exactly as a fraction, to a relative 1e-9.

Read: thousands commas, fractions (`1/2`, `\frac{1}{2}`, `1 1/2`), decimals, `1.5e3`, `2 \times 10^{-3}`, currency and
percent signs (dropped), the Unicode minus, a unit after the number. Never evaluated: anything with a variable, or a
power above MAX_EXPONENT. A decimal comma is not read.
"""

import re
import unicodedata
from fractions import Fraction

from .base import Judged, UngradableError
from .extract import find_answer

RELATIVE_TOLERANCE = Fraction(1, 10**9)
MAX_EXPONENT = 400
MAX_DIGITS = 400

NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
ARGUMENT = rf"(?:\{{\s*-?{NUMBER}\s*\}}|[0-9])"
POWER = r"\^\s*(?:\{\s*[+-]?[0-9]+\s*\}|[+-]?[0-9]+)"
VALUE = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:"
    rf"(?:(?P<whole>[0-9]+)\s*)?\\frac\s*(?P<top>{ARGUMENT})\s*(?P<bottom>{ARGUMENT})"
    rf"|(?P<mixed>[0-9]+)\s+(?P<mixed_top>[0-9]+)\s*/\s*(?P<mixed_bottom>[0-9]+)"
    rf"|(?P<number>{NUMBER})(?:[eE](?P<e>[+-]?[0-9]+)|\s*/\s*(?P<over>-?{NUMBER}))?"
    rf")"
    rf"(?:\s*(?:\\times|\\cdot|[*×x])\s*10\s*(?P<ten>{POWER}))?"
    rf"(?:\s*(?P<power>{POWER}))?"
)
NAME = re.compile(r"\s*(?:[A-Za-z][A-Za-z_ ]{0,30}=|=)?\s*")
UNIT = re.compile(
    r"\s*(?:(?!π|(?:pi|sqrt|[eiknxyz])\b)[^\W\d_][^0-9^+*=()<>,]{0,60}(?:\^\s*\{?[0-9]\}?)?|°|\^\s*\{?\\circ\}?)?"
    r"\s*\.?\s*"
)
# A number that stands in prose. What it multiplies or is raised to belongs to it: 9^9^9^9 is not read as its last 9.
MORE = r"\s*(?:\^|π|pi\b|sqrt|\\(?:pi|sqrt|frac|log|ln|sin|cos|tan)\b)"
IN_PROSE = re.compile(rf"(?<![0-9A-Za-z_^.{{}}\\])(?![+-]\s){VALUE.pattern}(?![0-9])(?P<more>{MORE})?")
LISTED = re.compile(r"\s*(?:,?\s*(?:and|or)\b|[,;])\s*-?[0-9.]")
WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
NOISE = re.compile(r"\\[$%,!;: ]|[$€£¥₹₩%％]|\\left|\\right|\\displaystyle|\*\*")
DIALECT = str.maketrans(dict(zip("−－﹣–，．⁄∕＝~", "---" + "-,.//= ", strict=True)))


def judge(text: str, answer: str) -> Judged:
    """Pass where the number in the text equals the reference; a text without a number fails.

    Raises UngradableError where the reference is not one number.
    """
    wanted = value_of(find_answer(answer) or answer)
    if wanted is None:
        raise UngradableError(f"the reference answer {answer[:80]!r} is not a number")
    extracted, value = find_value(text)
    return Judged(value is not None and is_close(value, wanted), extracted)


def is_close(a: Fraction, b: Fraction) -> bool:
    """Compare to a relative 1e-9; symmetric, and exact at zero."""
    return abs(a - b) <= RELATIVE_TOLERANCE * max(abs(a), abs(b))


def value_of(text: str) -> Fraction | None:
    """Return the number that the whole text is, or None: `x = 1,200 cm^2` is 1200, `3, 5` is no number."""
    text = tidy(text)
    name = NAME.match(text)
    match = VALUE.match(text, name.end() if name else 0)
    if match is None or UNIT.fullmatch(text, match.end()) is None:
        return None
    return _read(match)


def find_value(text: str) -> tuple[str | None, Fraction | None]:
    """Return the judged part and its number: a marked answer or the whole reply, else the last number in prose."""
    marked = find_answer(text)
    candidate = text.strip() if marked is None else marked
    value = value_of(candidate)
    if value is not None or (marked is not None and "\\boxed" in text):
        return candidate, value  # a box is the answer, whatever else the text says
    if marked is not None:
        tail = tidy(marked).rsplit("=", 1)[-1]
        if match := IN_PROSE.search(tail):
            return match[0].strip(), None if LISTED.match(tail, match.end()) else _read(match)
    return _last_value(tidy(text))


def _last_value(text: str) -> tuple[str | None, Fraction | None]:
    last = None
    for match in IN_PROSE.finditer(text):
        last = match
    return (None, None) if last is None else (last[0].strip(), _read(last))


def tidy(text: str) -> str:
    """Write numbers in one way: ASCII digits and minus, one kind of fraction, no currency, percent or text command."""
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(c, c)) for c in text)
    text = WRAPPER.sub(r" \1 ", text.translate(DIALECT)).replace("{,}", ",")
    return re.sub(r"\\[dtc]frac", r"\\frac", NOISE.sub("", text))


def _read(match: re.Match[str]) -> Fraction | None:
    """Return the value of a match of VALUE, or None for one that is divided by zero or too large to compute."""
    is_part = bool(match.groupdict().get("more"))
    is_unclear = bool(match["power"]) and bool(match["over"] or match["top"] or match["ten"])
    if len(match[0]) > MAX_DIGITS or is_part or is_unclear:
        return None
    try:
        value = _magnitude(match) * Fraction(10) ** (_exponent(match["e"]) + _exponent(match["ten"]))
        value = value ** _exponent(match["power"]) if match["power"] else value
    except (ValueError, ZeroDivisionError):
        return None
    return -value if match["sign"] == "-" else value


def _magnitude(match: re.Match[str]) -> Fraction:
    if match["mixed"]:
        return int(match["mixed"]) + Fraction(int(match["mixed_top"]), int(match["mixed_bottom"]))
    if match["top"]:
        return int(match["whole"] or 0) + _decimal(match["top"]) / _decimal(match["bottom"])
    return _decimal(match["number"]) / _decimal(match["over"] or "1")


def _decimal(text: str) -> Fraction:
    return Fraction(text.strip("{} ").replace(",", "").rstrip("."))


def _exponent(text: str | None) -> int:
    digits = (text or "0").strip("^{} ")
    if len(digits) > 5 or abs(int(digits)) > MAX_EXPONENT:
        raise ValueError("exponent too large")
    return int(digits)
