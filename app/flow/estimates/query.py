r"""The query language over problems, shared by the API, the command line and the pages: text to terms and back. Pure.

    query   = { term }                                 separated by white space; all terms must hold
    term    = [ "-" ] ( words | number | bare )        a leading "-" turns a term round
            | "sort:" [ "-" ] NUMBER                   once; "-" is largest first
    words   = WORD ":" value { "," value }             any of the values
    number  = NUMBER ( "<" | "<=" | ">" | ">=" | "=" | ":" ) decimal
            | NUMBER ":" decimal ".." decimal          both ends included
    bare    = value                                    short for text:value
    value   = characters without space, comma and quotation mark
            | '"' any characters, with \" and \\ '"'

`terms.WORDS` and `terms.NUMBERS` name the fields. Equal queries print alike: `parse(str(query)) == query`.
"""

import difflib
import re
from collections.abc import Sequence
from typing import cast

from app.errors import Invalid
from app.flow.estimates.terms import CHOICES, NUMBERS, WORDS, Between, Compared, Operator, Query, Sort, Term, Words

MAX_LENGTH = 1000
MAX_TERMS = 32
_HEAD = re.compile(r"(?P<name>[A-Za-z_]+)(?P<operator><=|>=|[:<>=])")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r'[^\s,"]+')
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_ONE = re.compile(rf"{_NUMBER}\Z")
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})\Z")


class BadQuery(Invalid):
    """A query that cannot be read; `position` and `length` say where, `allowed` what could stand there."""

    def __init__(self, what: str, position: int, length: int, allowed: Sequence[str] = ()) -> None:
        super().__init__(
            f"query, character {position + 1}: {what}",
            code="bad_query",
            position=position,
            length=max(length, 1),
            allowed=list(allowed),
        )


def parse(text: str) -> Query:
    """The query that a text spells; raises BadQuery with the place and what is allowed there."""
    if len(text) > MAX_LENGTH:
        raise BadQuery(f"a query has at most {MAX_LENGTH} characters, this one {len(text)}", MAX_LENGTH, 1)
    if "\x00" in text:
        raise BadQuery("a NUL character stands in no problem", text.index("\x00"), 1)
    terms: list[Term] = []
    sort: Sort | None = None
    place = _skipped(text, 0)
    while place < len(text):
        found, end = _term(text, place)
        if not isinstance(found, Sort):
            terms.append(found)
        elif sort is None:
            sort = found
        else:
            raise BadQuery("sort is given twice; keep one", place, end - place)
        if end < len(text) and not text[end].isspace():
            raise BadQuery("a space is missing; a value with commas or quotation marks stands in quotes", end, 1)
        if len(terms) > MAX_TERMS:
            raise BadQuery(f"a query has at most {MAX_TERMS} terms", place, end - place)
        place = _skipped(text, end)
    return Query(tuple(dict.fromkeys(terms)), sort or Sort())


def _skipped(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _term(text: str, place: int) -> tuple[Term | Sort, int]:
    is_negated = text[place] == "-"
    start = place + is_negated
    head = _HEAD.match(text, start)
    if head is None:
        value, end = _value(text, start)
        return Words("text", (value,), is_negated, place), end
    name, operator, after = head["name"].lower(), head["operator"], head.end()
    if name == "sort":
        return _sort(text, place, after, is_negated=is_negated)
    if name in WORDS:
        if operator != ":":
            raise BadQuery(f"{name} takes a colon: {name}:VALUE", head.start("operator"), len(operator), [":"])
        values, end = _values(text, after)
        _check_choices(name, values, after)
        return Words(name, values, is_negated, place), end
    if name in NUMBERS:
        return _number(text, place, head, is_negated=is_negated)
    raise _unknown(head["name"], start, (*WORDS, *NUMBERS, "sort"), "to search for this text, put it in quotes")


def _sort(text: str, place: int, after: int, *, is_negated: bool) -> tuple[Sort, int]:
    written = _word(text, after)
    name = written.removeprefix("-").lower()
    if is_negated or text[after - 1] != ":":
        raise BadQuery("an order is written sort:FIELD, or sort:-FIELD for the largest first", place, after - place)
    if name not in NUMBERS:
        raise _unknown(name, after, tuple(NUMBERS), "problems are sorted by a number")
    return Sort(name, written.startswith("-"), place), after + len(written)


def _number(text: str, place: int, head: re.Match[str], *, is_negated: bool) -> tuple[Term, int]:
    name, operator, after = head["name"].lower(), head["operator"], head.end()
    written = _word(text, after)
    end = after + len(written)
    ends = _RANGE.match(written) if operator == ":" else None
    if ends is not None:
        low, high = (_finite(part, after, len(written)) for part in ends.groups())
        if low > high:
            raise BadQuery(f"the interval {written} ends below its beginning", after, len(written))
        return Between(name, low, high, is_negated, place), end
    if not _ONE.match(written):
        shown = f"{written!r} is no number" if written else "a number is missing"
        raise BadQuery(f"{shown}: {name} takes {name}<0.4, {name}>=8, {name}:3 or {name}:0.2..0.8", after, len(written))
    comparison = cast("Operator", "=" if operator == ":" else operator)
    return Compared(name, comparison, _finite(written, after, len(written)), is_negated, place), end


def _finite(written: str, place: int, length: int) -> float:
    number = float(written)
    if abs(number) > 1e18:
        raise BadQuery(f"{written} is beyond every number here", place, length)
    return number + 0.0  # -0 is 0


def _word(text: str, place: int) -> str:
    end = place
    while end < len(text) and not text[end].isspace():
        end += 1
    return text[place:end]


def _values(text: str, place: int) -> tuple[tuple[str, ...], int]:
    values = []
    while True:
        value, place = _value(text, place)
        values.append(value)
        if place >= len(text) or text[place] != ",":
            return tuple(dict.fromkeys(values)), place
        place += 1


def _value(text: str, place: int) -> tuple[str, int]:
    quoted = _QUOTED.match(text, place)
    if quoted is not None:
        if not quoted[1]:
            raise BadQuery("the quotes are empty", place, 2)
        return re.sub(r'\\(["\\])', r"\1", quoted[1]), quoted.end()
    if text[place : place + 1] == '"':
        raise BadQuery("the quotation mark is not closed", place, len(text) - place)
    plain = _PLAIN.match(text, place)
    if plain is None:
        raise BadQuery("a value is missing", min(place, max(len(text) - 1, 0)), 1)
    return plain[0], plain.end()


def _check_choices(name: str, values: Sequence[str], place: int) -> None:
    for value in values:
        if name in CHOICES and value not in CHOICES[name]:
            raise _unknown(value, place, tuple(map(str, CHOICES[name])), f"{name} takes one of them")


def _unknown(word: str, place: int, allowed: Sequence[str], advice: str) -> BadQuery:
    near = difflib.get_close_matches(word, allowed, 1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return BadQuery(f"{word!r} is none of {', '.join(allowed)}{guess} ({advice})", place, max(len(word), 1), allowed)
