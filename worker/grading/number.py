r"""One number as people write it, read to an exact fraction, with its percent sign and unit.

Read: thousands commas, fractions (`1/2`, `\frac{1}{2}`, `1 1/2`), decimals, `1.5e3`, `2 \times 10^{-3}`, currency
(dropped), percent signs, the Unicode minus, a unit after the number. Never evaluated: anything with a variable, or a
power above MAX_EXPONENT.
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from paced.wire.grading import GradingPolicy

from . import units

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
PERCENT = re.compile(r"[%％]|\b(?:per ?cent|pct)\b", re.IGNORECASE)
DEGREES = re.compile(r"°|\\circ|\bdegrees?\b", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"(?P<whole>[+-]?[0-9]+),(?P<rest>[0-9]+)")
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+")


@dataclass(frozen=True)
class Number:
    """A number that was read: its value before percent and unit count, and whether no decimals were rounded off."""

    value: Fraction
    is_exact: bool = True
    is_percent: bool = False
    is_degrees: bool = False
    unit: str = ""


def read(text: str) -> Number | None:
    """Return the number that the whole text is, or None: `x = 1,200 cm^2` is 1200 `cm^2`, `3, 5` is no number."""
    tidied = tidy(text)
    name = NAME.match(tidied)
    match = VALUE.match(tidied, name.end() if name else 0)
    unit = UNIT.fullmatch(tidied, match.end()) if match else None
    if match is None or unit is None:
        return None
    return number_in(match, unit[0], text)


def number_in(match: re.Match[str], unit: str, text: str) -> Number | None:
    """Return the number of a match of VALUE; `text`, as it was written, tells percent and degrees."""
    value = _read(match)
    if value is None:
        return None
    is_percent, is_degrees = PERCENT.search(text) is not None, DEGREES.search(text) is not None
    is_exact = value.denominator == 1 or not re.search(r"\.|[eE]", match[0])
    return Number(value, is_exact, is_percent, is_degrees, "" if is_percent or is_degrees else unit)


def is_same(wanted: Number, found: Number, policy: GradingPolicy) -> bool:
    """Whether two numbers are one under the policy; symmetric but for a required unit."""
    factors = units.factors(wanted.unit, found.unit, is_required=policy.units == "required")
    if factors is None:
        return False
    values = _values(wanted, found, policy), _values(found, wanted, policy)
    is_exact = wanted.is_exact and found.is_exact
    return any(is_close(a * factors[0], b * factors[1], policy, is_exact) for a in values[0] for b in values[1])


def is_close(a: Fraction, b: Fraction, policy: GradingPolicy, is_exact: bool) -> bool:
    """Compare within the policy's tolerances; the relative one is for numbers with decimals. Symmetric."""
    relative = Fraction(0) if is_exact else Fraction(policy.rel_tolerance)
    return abs(a - b) <= max(relative * max(abs(a), abs(b)), Fraction(policy.abs_tolerance))


def with_decimal_comma(text: str) -> str | None:
    """Write `3,5` as `3.5`; None for anything else, and for what thousands commas explain."""
    text = text.strip()
    match = DECIMAL_COMMA.fullmatch(text)
    return f"{match['whole']}.{match['rest']}" if match and not THOUSANDS.fullmatch(text) else None


def _values(number: Number, other: Number, policy: GradingPolicy) -> list[Fraction]:
    if number.is_degrees and policy.degrees == "radians":
        return [number.value * Fraction(math.pi) / 180]
    if not number.is_percent or other.is_percent or policy.percent == "number":
        return [number.value]
    as_fraction = number.value / 100
    return [as_fraction] if policy.percent == "fraction" else [number.value, as_fraction]


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
