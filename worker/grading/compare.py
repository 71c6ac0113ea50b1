"""Whether two marked answers are one under a policy: element by element, then as numbers, then as formulas."""

import re
from collections.abc import Sequence

from paced.wire.grading import GradingPolicy

from . import clock, parts, symbolic
from .number import Number, is_same, read, with_decimal_comma
from .spelling import PROSE, TEXT, is_spelled_alike, normal

MAX_ELEMENTS = 40
PERCENT = re.compile(
    r"\s*(?:\\?[%％]|\\text\s*\{\s*(?:percent|per cent|\\?%)\s*\}|(?:percent|per cent|pct)\b)\s*$", re.IGNORECASE
)
BASED = re.compile(r"-?[0-9A-F]+\s*_\s*\{?\s*[0-9]+\s*\}?")
WORD = re.compile(r"@|\\(?:text|mbox|math(?:rm|bf|it|sf))(?![a-z])")
GLUED = re.compile(r"[0-9}][A-Za-z](?:\s*\^.*)?$")


def is_equal(gold: str, found: str, policy: GradingPolicy) -> bool:
    """Compare two answers that stand alone, without prose around them.

    Raises UngradableError where the reference, `gold`, cannot be parsed.
    """
    gold, found = normal(gold, policy), normal(found, policy)
    if is_spelled_alike(gold, found):
        return True
    for decide in (_letters, _bases, _clocks, _names, _numbers, _percents, _words, _matrices, _unions, _groups, _signs):
        verdict = decide(gold, found, policy)
        if verdict is not None:
            return verdict
    return symbolic.is_equal(gold, found, policy)


def _letters(gold: str, found: str, policy: GradingPolicy) -> bool | None:  # noqa: ARG001
    """Fail two different symbols: to math-verify, `a` and `A` are one."""
    return False if len(gold) == len(found) == 1 and gold.isalpha() and found.isalpha() else None


def _bases(gold: str, found: str, policy: GradingPolicy) -> bool | None:  # noqa: ARG001
    """Fail a number with a base against one without: to math-verify, `101_2` is 101."""
    is_based = [BASED.fullmatch(side) is not None for side in (gold, found)]
    return False if any(is_based) and not all(is_based) and read(found if is_based[0] else gold) else None


def _clocks(gold: str, found: str, policy: GradingPolicy) -> bool | None:  # noqa: ARG001
    return clock.is_same(gold, found)


def _numbers(gold: str, found: str, policy: GradingPolicy) -> bool | None:
    """Decide two numbers, with or without unit; a single letter glued to a number is a symbol and no unit."""
    glued = _is_glued(gold), _is_glued(found)
    a, b = _number(gold, policy), _number(found, policy)
    if a is None or b is None or all(glued):
        return None
    return is_same(a, b, policy) and not any(glued)


def _number(text: str, policy: GradingPolicy) -> Number | None:
    decimal = with_decimal_comma(text) if policy.comma == "either" else None
    return read(decimal or text)


def _is_glued(text: str) -> bool:
    return GLUED.search(text) is not None


def _percents(gold: str, found: str, policy: GradingPolicy) -> bool | None:
    """Decide formulas of which at least one ends in a percent sign."""
    bare = PERCENT.sub("", gold), PERCENT.sub("", found)
    is_percent = bare[0] != gold, bare[1] != found
    if not any(is_percent):
        return None
    if all(is_percent):
        return is_equal(bare[0], bare[1], policy)
    scales = {"number": ("{}",), "fraction": (r"\frac{{{}}}{{100}}",), "either": ("{}", r"\frac{{{}}}{{100}}")}
    as_percent = is_percent.index(True)
    for scale in scales[policy.percent]:
        sides = [bare[0], bare[1]]
        sides[as_percent] = scale.format(bare[as_percent])
        if is_equal(sides[0], sides[1], policy):
            return True
    return False


def _words(gold: str, found: str, policy: GradingPolicy) -> bool | None:  # noqa: ARG001
    """Fail two sentences, and words around other numbers: math-verify reads a part of them."""
    if all(PROSE.search(TEXT.sub(r"\1", side)) for side in (gold, found)):
        return False
    is_worded = WORD.search(gold) is not None and len(re.findall(r"[0-9]+", gold)) > 1
    return False if is_worded and re.sub(r"[0-9]+", "", gold) == re.sub(r"[0-9]+", "", found) else None


def _matrices(gold: str, found: str, policy: GradingPolicy) -> bool | None:
    a, b = parts.matrix(gold), parts.matrix(found)
    if a is None and b is None:  # math-verify reads the numbers of a matrix within a formula as they come
        return False if r"\begin" in gold and r"\begin" in found else None
    if a is None or b is None:
        matrix, other = a or b, parts.group(found if a else gold)
        vector = _vector(matrix)
        return (
            _all_equal(*((vector, other.elements) if a else (other.elements, vector)), policy)
            if vector and other.is_ordered
            else None
        )
    if [len(row) for row in a.rows] != [len(row) for row in b.rows] or a.kind.startswith("v") != b.kind.startswith("v"):
        return False
    if a.kind == b.kind == "cases" and all(len(row) == 1 for row in a.rows):
        return _same_set([row[0] for row in a.rows], [row[0] for row in b.rows], policy)
    cells = [(x, y) for rows in zip(a.rows, b.rows, strict=True) for x, y in zip(*rows, strict=True)]
    return all(is_equal(x, y, policy) for x, y in cells)


def _vector(matrix: parts.Matrix | None) -> list[str] | None:
    """Return the entries of a single row or column."""
    if matrix is None or matrix.kind in ("cases", "aligned") or not (len(matrix.rows) == 1 or len(matrix.rows[0]) == 1):
        return None
    return [cell for row in matrix.rows for cell in row]


def _unions(gold: str, found: str, policy: GradingPolicy) -> bool | None:
    """Pass unions of the same parts; others may still be the same set."""
    a, b = parts.union(gold), parts.union(found)
    if len(a) < 2 or len(a) != len(b):
        return None
    return True if _same_set(a, b, policy) else None


def _groups(gold: str, found: str, policy: GradingPolicy) -> bool | None:
    a, b = parts.group(gold), parts.group(found)
    if any(PROSE.search(TEXT.sub(r"\1", text)) for text in (gold, found)):
        return None
    if not a.is_ordered and not b.is_ordered:
        a, b = _expanded(a), _expanded(b)
    if len(a.elements) == len(b.elements) == 1 and not (a.kind and b.kind):
        return None
    if max(len(a.elements), len(b.elements)) > MAX_ELEMENTS:
        return None
    if len(a.elements) != len(b.elements) and (parts.RELATION.search(gold + found) or parts.SET.search(gold + found)):
        return None  # a set in other words
    if a.kind and b.kind and a.kind != b.kind and (policy.brackets == "kept" or _is_half_open(a.kind, b.kind)):
        return False
    if a.is_ordered or b.is_ordered or (policy.order == "kept" and not (a.kind or b.kind)):
        return _all_equal(a.elements, b.elements, policy)
    return _same_set(a.elements, b.elements, policy)


def _signs(gold: str, found: str, policy: GradingPolicy) -> bool | None:  # noqa: ARG001
    r"""Fail what differs in how many \pm it holds: math-verify passes over those that it cannot read."""
    n_gold, n_found = len(parts.PLUS_MINUS.findall(gold)), len(parts.PLUS_MINUS.findall(found))
    return None if n_gold == n_found else False


def _is_half_open(*kinds: str) -> bool:
    return any(kind in ("(]", "[)") for kind in kinds)


def _expanded(group: parts.Group) -> parts.Group:
    return parts.Group(group.kind, [value for element in group.elements for value in parts.plus_minus(element)])


def _names(gold: str, found: str, policy: GradingPolicy) -> bool | None:
    """Compare the values of `name = value`: names agree, or only one side has one; `y` may be called `f(x)`."""
    (a, x), (b, y) = parts.name_of(gold), parts.name_of(found)
    if a is None and b is None:
        return None
    if a is None or b is None:
        return None if parts.RELATION.search(x if a is None else y) else is_equal(x, y, policy)
    are_functions = "y" in (a, b) and any(map(parts.FUNCTION.fullmatch, (a, b)))
    if is_spelled_alike(a, b) or are_functions:
        return is_equal(x, y, policy)
    return False if read(x) and read(y) else None


def _all_equal(a: Sequence[str], b: Sequence[str], policy: GradingPolicy) -> bool:
    return len(a) == len(b) and all(is_equal(x, y, policy) for x, y in zip(a, b, strict=True))


def _same_set(a: Sequence[str], b: Sequence[str], policy: GradingPolicy) -> bool:
    """Whether each element of either side has an equal on the other; how often does not count."""
    matches = [{i for i, y in enumerate(b) if is_equal(x, y, policy)} for x in a]
    return all(matches) and len(set().union(*matches)) == len(b)
