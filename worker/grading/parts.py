r"""Take an answer apart: brackets, list elements, matrix cells, `name = value`, \pm, unions. Linear in the text."""

import re
from typing import NamedTuple

OPENING, CLOSING = "([{", ")]}"
TOKEN = re.compile(r"\\[{}]|\\[a-zA-Z]+|\\.|.", re.DOTALL)
AND = re.compile(
    r"\s*,?\s*(?:\\text\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|\b(?:and|or)\b)\s*|\\q?quad(?![a-z])", re.IGNORECASE
)
PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-z])")
SYMBOL = r"\\?[A-Za-z]+(?:_(?:\{[^{}=]*\}|[A-Za-z0-9]|\\[a-zA-Z]+))?'*"
NAME = re.compile(rf"\s*({SYMBOL}(?:\s*\([^()=]{{1,30}}\))?|\([A-Za-z0-9_, ]+\))\s*(?:=|\\equiv)(?!=)\s*(?=\S)")
FUNCTION = re.compile(r"\\?[A-Za-z]+\s*\(\s*(?:x|[a-z])\s*\)")
RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|approx|equiv|sim|in|subset)(?![a-z])")
MATRIX = re.compile(
    r"(?:[\[(]\s*)?\\begin\{((?:[pbBvV]|small)?matrix|array|cases|aligned)\}(?:\s*\{[^{}]*\})?(.*?)\\end\{\1\}(?:\s*[\])])?",
    re.DOTALL,
)
SET = re.compile(r"\\(?:cup|cap|setminus|mathbb|emptyset|varnothing)(?![a-z])")
UNION = re.compile(r"\\(?:cup|bigcup)(?![a-z])")


class Group(NamedTuple):
    """Elements in one pair of brackets: `kind` is the pair, such as `(]` or `{}` for a set, or "" where bare."""

    kind: str
    elements: list[str]

    @property
    def is_ordered(self) -> bool:
        """Whether the brackets say that the order counts."""
        return self.kind not in ("", r"\{\}")


class Matrix(NamedTuple):
    """Rows of cells; `kind` is the environment."""

    kind: str
    rows: list[list[str]]


def group(text: str) -> Group:
    """Return the elements that the text lists; a text that lists nothing is a bare group of itself.

    A LaTeX group `{1,2}` prints no brackets, so it is bare.
    """
    text = text.strip()
    kind, inner = _brackets(text)
    elements = split(inner)
    if kind and len(elements) < 2 and kind != r"\{\}":
        return Group("", [text])  # (x+1) is no list
    return Group("" if kind == "{}" else kind, elements)


def split(text: str) -> list[str]:
    """Split at commas, semicolons and "and" outside of brackets."""
    separator = ";" if len(_split_at(text, ";")) > 1 else ","
    return _split_at(AND.sub(separator, text), separator) or [text.strip()]


def _split_at(text: str, separator: str) -> list[str]:
    pieces, start, level = [], 0, 0
    for match in TOKEN.finditer(text):
        token = match[0].removeprefix("\\") if match[0] in (r"\{", r"\}") else match[0]
        if token in OPENING:
            level += 1
        elif token in CLOSING:
            level -= 1
        elif token == separator and level == 0:
            pieces.append(text[start : match.start()])
            start = match.end()
    return [piece.strip() for piece in [*pieces, text[start:]] if piece.strip()]


def _brackets(text: str) -> tuple[str, str]:
    r"""Return the pair that encloses the whole text, such as `(]` or `\{\}`, or "", and what it encloses."""
    opening = r"\{" if text.startswith(r"\{") else text[:1]
    closing = r"\}" if text.endswith(r"\}") else text[-1:]
    if len(text) < 2 or opening[-1:] not in OPENING or closing[-1:] not in CLOSING:
        return "", text
    level = 0
    for match in TOKEN.finditer(text):
        token = match[0].removeprefix("\\") if match[0] in (r"\{", r"\}") else match[0]
        level += (token in OPENING) - (token in CLOSING)
        if level == 0 and match.end() < len(text):
            return "", text
    return (opening + closing, text[len(opening) : -len(closing)]) if level == 0 else ("", text)


def matrix(text: str) -> Matrix | None:
    """Return the matrix, array or system of equations that the whole text is."""
    match = MATRIX.fullmatch(text.strip())
    if match is None or r"\begin" in match[2]:
        return None
    body = re.sub(r"\\hline", "", match[2]).replace(r"\cr", r"\\")
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", body) if row.strip()]
    return Matrix(match[1], [[cell.strip() for cell in row.split("&")] for row in rows])


def name_of(text: str) -> tuple[str | None, str]:
    """Return name and value of `name = value`; None and the whole text where it is not one such equation."""
    match = NAME.match(text)
    if match is None or RELATION.search(text, match.end()):
        return None, text
    return re.sub(r"\s+", "", match[1]), text[match.end() :].strip()


def plus_minus(text: str) -> list[str]:
    r"""Write one \pm as two values; several, or none, are left alone."""
    if len(PLUS_MINUS.findall(text)) != 1:
        return [text]
    return [PLUS_MINUS.sub("+", text).removeprefix("+"), PLUS_MINUS.sub("-", text)]


def union(text: str) -> list[str]:
    r"""Return the parts of a union of sets that \cup joins."""
    return [piece.strip() for piece in UNION.split(text)]
