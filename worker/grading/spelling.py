r"""Write a formula in one way, so that spellings such as \dfrac, \left( and doubled backslashes make no difference."""

import re

from paced.wire.grading import GradingPolicy

from .extract import strip_math

BACKSLASHES = re.compile(r"\\+")
DOUBLED = re.compile(r"\\\\(?:begin|[dtc]?frac|sqrt|text|left|boxed|pi)(?![a-z])")
SIZE = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])(?:\.(?![0-9]))?|\\displaystyle(?![a-zA-Z])|\\!|\\limits"
)
SUBSCRIPT = re.compile(r"_\s*\{?\s*\\(?:mathrm|text|rm|mathit)\s*\{\s*([A-Za-z0-9]+)\s*\}\s*\}?")
SIGN_BELOW = re.compile(r"_\s*\{?\s*\\(odot|oplus|star|ast|perp|parallel)(?![a-z])\s*\}?")
ELLIPSIS = re.compile(r"\.{3,}|…|\\[lc]?dots(?![a-z])")
REPEATING = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]*)\\overline\s*\{([0-9]{1,30})\}")
MEMBER = re.compile(r"^\s*[A-Za-z]\s*\\in(?![a-z])\s*")
DEGREES = re.compile(
    r"([0-9.]+|\\frac\{[0-9]+\}\{[0-9]+\})\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-z])|\s*degrees?\b)"
)
DOLLAR = re.compile(r"(?<!\\)\$")
PROSE = re.compile(r"(?<![\\\w])[^\W\d_]{3,}\s+[^\W\d_]{2,}|[\u3040-\u30ff\u4e00-\u9fff]")
SPACE = re.compile(r"(?<![0-9])\s+|\s+(?![0-9])|\\[,;:!]|\$|\.$")
TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox|textit)\s*\{([^{}]*)\}")
NAMES = {"×": "times", "·": "cdot", "≤": "le", "≥": "ge", "∞": "infty", "∪": "cup", "±": "pm", "∈": "in", "π": "pi"}
SYMBOLS = str.maketrans({"−": "-"} | {sign: f"\\{name} " for sign, name in NAMES.items()})


def normal(text: str, policy: GradingPolicy) -> str:
    """Write a marked answer in one way; what it means stays."""
    text = _single_backslashes(strip_math(text.strip())).translate(SYMBOLS)
    text = REPEATING.sub(_as_fraction, ELLIPSIS.sub(r"\\ldots ", text))
    text = SIZE.sub("", tidy_fractions(text if PROSE.search(text) else DOLLAR.sub("", text)))
    text = SIGN_BELOW.sub(r"_{\1}", SUBSCRIPT.sub(r"_{\1}", text))
    text = re.sub(r"\\(leq|geq|neq|leqslant|geqslant)(?![a-z])", lambda match: f"\\{match[1][:2]}", text)
    if policy.degrees == "radians":
        text = DEGREES.sub(r"\\frac{\1 \\pi}{180}", text)
    return MEMBER.sub("", strip_math(text.strip().rstrip(".。;, "))).strip()


def is_spelled_alike(gold: str, found: str) -> bool:
    """Whether two differ in white space and LaTeX spacing only; in case as well where the first is prose."""
    a, b = (SPACE.sub("", TEXT.sub(r"\1", text)) for text in (gold, found))
    return bool(b) and (a == b or (PROSE.search(TEXT.sub(r"\1", gold)) is not None and a.casefold() == b.casefold()))


def tidy_fractions(text: str) -> str:
    r"""Write \dfrac, \tfrac and \cfrac as \frac."""
    return re.sub(r"\\[dtc]frac", r"\\frac", text)


def depth(text: str) -> int:
    """Return how deep brackets of any kind nest; a closing one that opens nothing counts for nothing."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(depth - 1, 0)
    return deepest


def _as_fraction(match: re.Match[str]) -> str:
    r"""Write `0.1\overline{6}` as the fraction that it is."""
    whole, fixed, repeated = match.groups()
    top = int(whole + fixed + repeated) - int(whole + fixed or "0")
    return rf"\frac{{{top}}}{{{'9' * len(repeated)}{'0' * len(fixed)}}}"


def _single_backslashes(text: str) -> str:
    """Undo escaping for JSON that was done twice: every run of backslashes is even and some begin a command."""
    runs = BACKSLASHES.findall(text)
    if DOUBLED.search(text) and all(len(run) % 2 == 0 for run in runs):
        return BACKSLASHES.sub(lambda match: match[0][: len(match[0]) // 2], text)
    return text
