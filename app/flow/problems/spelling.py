r"""One spelling for answers that say the same, to tell a conflict from a manner of writing.

No judge of mathematics: it knows marks, numbers and simple fractions. `64`, `64.0`, `$64$` and `\boxed{64}` are one,
as are `1/2`, `\frac12` and `0.5`.
"""

import re
from fractions import Fraction
from unicodedata import normalize

_MAX_NUMBER_CHARS = 60
_WRAPPED = re.compile(r"\\(?:boxed|text|textbf|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[0-9}])\s*\\(?:text|textrm|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?$")
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|[,;:!> ])|\^\{?\\circ\}?|\\degree|\\?[$%]|°")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_GROUPS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_ASSIGNED = re.compile(r"^[A-Za-z]=(?=.)")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:/[0-9]+)?")


def answer_key(answer: str) -> str:
    """A spelling that is equal for answers which differ only in how they are written."""
    text = normalize("NFKC", answer).strip().replace("−", "-")
    text = _UNIT.sub("", text.strip("$ ").rstrip("."))
    text = _WRAPPED.sub(r"\1", _DROPPED.sub("", text))
    text = _FRACTION.sub(lambda found: f"{found[1] or found[2]}/{found[3] or found[4]}", text)
    text = "".join(text.replace("{,}", ",").split()).rstrip(".").casefold()
    bare = _ASSIGNED.sub("", text)
    bare = bare.replace(",", "") if _GROUPS.fullmatch(bare) else bare
    if len(bare) <= _MAX_NUMBER_CHARS and _NUMBER.fullmatch(bare):
        return _as_number(bare)
    return bare or answer.strip()


def _as_number(text: str) -> str:
    above, _, below = text.partition("/")
    divisor = int(below or 1)
    return str(Fraction(above) / divisor) if divisor else text
