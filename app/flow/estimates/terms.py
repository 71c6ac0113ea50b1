"""What a query over problems is made of: fields, terms and an order, each printing as it is written. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from paced.wire import Flag, Verdict

STATES = ("ready", "flagged", "excluded", "holdout", "training", "quarantined", "measured")
WORDS = {
    "text": "the prompt holds this, in any case",
    "tag": "has this tag",
    "source": "comes from this source",
    "is": f"is {', '.join(STATES[:-1])} or {STATES[-1]}",
    "verdict": "an answer got this verdict",
    "flag": "was flagged for this",
}
NUMBERS = {
    "p": "pass rate shown: the mean of the posterior; no comparison holds where nothing was measured",
    "newest": "pass rate of the newest measured group",
    "weight": "E[w] under the curriculum's estimator and kernel, as its draws use it; needs a curriculum",
    "attempts": "answers that count for p",
    "groups": "measured groups",
    "passed": "answers that passed",
    "failed": "answers that failed",
    "truncated": "answers cut at the token limit",
    "timeout": "answers whose grading took too long",
    "grader_error": "answers that the grader could not judge",
    "infrastructure": "answers that never came",
    "checkpoint": "index of the checkpoint that was measured last",
    "served": "batches that held the problem: the curriculum's, or all of the measurement's",
    "ordinal": "place in the set",
}
CHOICES: dict[str, Sequence[str]] = {"is": STATES, "verdict": tuple(Verdict), "flag": tuple(Flag)}
Operator = Literal["<", "<=", ">", ">=", "="]


@dataclass(frozen=True, slots=True)
class Words:
    """The field has any of the values."""

    name: str
    values: tuple[str, ...]
    is_negated: bool = False
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """As it is written in a query."""
        return f"{'-' * self.is_negated}{self.name}:{','.join(map(written, self.values))}"


@dataclass(frozen=True, slots=True)
class Compared:
    """The field's number is below, above or at another."""

    name: str
    operator: Operator
    number: float
    is_negated: bool = False
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """As it is written in a query."""
        return f"{'-' * self.is_negated}{self.name}{self.operator}{_decimal(self.number)}"


@dataclass(frozen=True, slots=True)
class Between:
    """The field's number lies in an interval, its ends included."""

    name: str
    low: float
    high: float
    is_negated: bool = False
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """As it is written in a query."""
        return f"{'-' * self.is_negated}{self.name}:{_decimal(self.low)}..{_decimal(self.high)}"


Term = Words | Compared | Between


@dataclass(frozen=True, slots=True)
class Sort:
    """By which number; ties go by ordinal, and problems without the number come last."""

    name: str = "ordinal"
    is_descending: bool = False
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        """As it is written in a query; nothing for the order that needs no saying."""
        return "" if self == Sort() else f"sort:{'-' * self.is_descending}{self.name}"


@dataclass(frozen=True, slots=True)
class Query:
    """Terms that all hold, and an order."""

    terms: tuple[Term, ...] = ()
    sort: Sort = Sort()

    def __str__(self) -> str:
        """In one spelling: equal queries print alike."""
        return " ".join(filter(None, (*map(str, self.terms), str(self.sort))))

    @property
    def fields(self) -> set[str]:
        """Every field that is read."""
        return {term.name for term in self.terms} | {self.sort.name}

    def without(self, term: Term) -> "Query":
        """The query less one of its terms."""
        return replace(self, terms=tuple(other for other in self.terms if other != term))

    def sorted_by(self, name: str, *, is_descending: bool) -> "Query":
        """The query in another order."""
        return replace(self, sort=Sort(name, is_descending))


def written(value: str) -> str:
    """A value as it stands in a text of several, in quotes where it must."""
    if not re.search(r'[\s,"\\]', value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _decimal(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)
