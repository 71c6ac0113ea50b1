"""Units of measure after a number: which are one unit, and which need a factor. Unknown words count as no unit."""

import re
from fractions import Fraction

_TABLE = {  # dimension: {factor to its first unit: names}
    "length": {
        "1": "m meter metre",
        "1/100": "cm centimeter centimetre",
        "1/1000": "mm millimeter millimetre",
        "1000": "km kilometer kilometre",
        "0.0254": "inch inches",
        "0.3048": "ft foot feet",
        "0.9144": "yd yard",
        "1609.344": "mile mi",
    },
    "mass": {"1": "kg kilogram", "1/1000": "g gram", "1/1000000": "mg milligram", "1000": "ton tonne"},
    "time": {"1": "s sec second", "60": "min minute", "3600": "h hr hour", "86400": "day", "604800": "week"},
    "volume": {"1": "l liter litre", "1/1000": "ml milliliter millilitre"},
    "money": {"1": "dollar usd", "1/100": "cent"},
    "force": {"1": "N newton", "1000": "kN kilonewton"},
    "energy": {"1": "J joule", "1000": "kJ kilojoule"},
}
KNOWN = {
    name: (dimension, Fraction(factor))
    for dimension, names in _TABLE.items()
    for factor, words in names.items()
    for name in words.split()
}
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}|\\[,;:! ]|[~{}]")
SHAPE = re.compile(r"(?:(square|sq|cubic|cu)\.?\s+)?([A-Za-z]+)\.?\s*(?:\^\s*([0-9])|([²³]))?")


def factors(wanted: str, found: str, *, is_required: bool) -> tuple[Fraction, Fraction] | None:
    """Return what to multiply each side's number by, or None where the units forbid that they are the same.

    Two known units of one dimension convert; of two dimensions, they differ. An unknown or absent unit is ignored,
    unless the reference's is required: then the answer's must be the same word or convert.
    """
    one = Fraction(1)
    known = _scale(wanted), _scale(found)
    if known[0] and known[1]:
        return (known[0][1], known[1][1]) if known[0][0] == known[1][0] else None
    if is_required and plain(wanted) and plain(wanted) != plain(found):
        return None
    return one, one


def plain(unit: str) -> str:
    """Write a unit in one way: no LaTeX, no stop, one space, singular, small letters."""
    words = WRAPPED.sub(lambda match: match[1] or " ", unit).strip(" .").casefold().split()
    return " ".join(word if len(word) < 4 else word.removesuffix("s") for word in words)


def _scale(unit: str) -> tuple[tuple[str, int], Fraction] | None:
    """Return the dimension with its power, and the factor to its first unit."""
    match = SHAPE.fullmatch(WRAPPED.sub(lambda found: found[1] or " ", unit).strip(" ."))
    known = _known(match[2]) if match else None
    if match is None or known is None:
        return None
    power = POWERS.get(match[1] or "", 0) or int(match[3] or {"²": 2, "³": 3}.get(match[4] or "", 1))
    return (known[0], power), known[1] ** power


def _known(word: str) -> tuple[str, Fraction] | None:
    small = word.casefold()
    singular = small.removesuffix("s") if len(small) > 2 else small
    return KNOWN.get(word) or (KNOWN.get(small) or KNOWN.get(singular) if len(word) > 1 else None)
