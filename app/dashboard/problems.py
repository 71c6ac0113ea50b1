"""Every problem with what is known of it: searched, sorted and paged by the query language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request

from app.dashboard.choice import Choice, Chosen
from app.dashboard.twins import page
from app.errors import Invalid
from app.flow.estimates.finding import Found, Wanted
from app.flow.estimates.query import BadQuery, parse
from app.flow.estimates.terms import NUMBERS, WORDS
from app.flow.estimates.terms import Query as Parsed
from app.http.pages import PageQuery, cursor_at
from paced.wire import ListedEstimate

router = APIRouter(include_in_schema=False)
PATH = "/problems"
SIZES = (50, 100, 250, 1000)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table; `sort` is the number by which its heading sorts, largest first if `is_falling`."""

    name: str
    title: str
    sort: str = ""
    is_falling: bool = False
    is_number: bool = True
    is_usual: bool = True


COLUMNS = (
    Column("ordinal", "#", "ordinal"),
    Column("prompt", "Problem", is_number=False),
    Column("tags", "Tags", is_number=False),
    Column("p", "p, 90 %", "p"),
    Column("attempts", "Attempts", "attempts", is_falling=True),
    Column("weight", "Weight", "weight", is_falling=True),
    Column("served", "Served", "served", is_falling=True),
    Column("verdicts", "Other verdicts", is_number=False),
    Column("state", "State", is_number=False),
    Column("newest", "Newest k/n", "newest", is_usual=False),
    Column("groups", "Groups", "groups", is_falling=True, is_usual=False),
    Column("checkpoint", "Checkpoint", "checkpoint", is_falling=True, is_usual=False),
    Column("measured", "Measured", is_number=False, is_usual=False),
    Column("answer", "Answer", is_number=False, is_usual=False),
    Column("source", "Source", is_number=False, is_usual=False),
)
EXAMPLES = (
    ("p:0.1..0.9", "on the frontier"),
    ("p<0.1 attempts>=16", "out of reach"),
    ("-is:measured", "never measured"),
    ("is:quarantined", "in quarantine"),
    ("is:flagged", "flagged"),
    ("is:holdout", "held out"),
    ("verdict:timeout,grader_error", "grader in trouble"),
    ("served>0 sort:-served", "served most"),
)


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """A problem in the table, and a line of the CSV; `weight` is None without a curriculum."""

    ordinal: int
    problem_id: int
    prompt: str
    tags: list[str]
    source: str
    answer: str
    state: str
    is_holdout: bool
    pass_rate: float | None
    low: float | None
    high: float | None
    n_passed: int
    n_counted: int
    n_groups: int
    last_passed: int
    last_counted: int
    weight: float | None
    n_served: int
    verdicts: dict[str, int]
    checkpoint_index: int | None
    measured_at: Any
    quarantine_reason: str | None


@dataclass(frozen=True, slots=True)
class Problems:
    """One page of the table; `fault` says what is wrong with the query, and nothing is selected then."""

    choice: Choice
    query: str
    fault: str | None
    rows: list[ProblemRow]
    n_matches: int
    next_cursor: str | None
    _address: "Address"  # in no twin

    @property
    def address(self) -> "Address":
        """Where the page stands, and where its links go."""
        return self._address

    @property
    def columns(self) -> list[Column]:
        """Those that are shown."""
        return self._address.shown

    @property
    def help(self) -> dict[str, Any]:
        """The language, examples of it, and what can be chosen."""
        return HELP

    @property
    def command(self) -> str:
        """What prints all of them."""
        quoted = self.query.replace("'", "'\\''")
        named = f"--curriculum {self.choice.curriculum.curriculum_id}" if self.choice.curriculum else ""
        if not named and self.choice.measurement is not None:
            named = f"--measurement {self.choice.measurement.measurement_id}"
        return f"paced problems '{quoted}' {named} --csv"


@dataclass(frozen=True, slots=True)
class Address:
    """What the page's address holds, and addresses that differ from it in one thing."""

    choice: str
    parsed: Parsed
    columns: tuple[str, ...]
    limit: int
    is_first: bool

    @property
    def shown(self) -> list[Column]:
        """Columns as they stand in the table."""
        return [column for column in COLUMNS if column.name in self.columns]

    @property
    def is_usual(self) -> bool:
        """Whether nobody chose columns."""
        return self.columns == tuple(column.name for column in COLUMNS if column.is_usual)

    def of(self, query: Any, cursor: str | None = None) -> str:
        """The table under another query, or its next page."""
        fields: list[tuple[str, str]] = [("q", str(query))] if str(query) else []
        fields += [] if self.is_usual else [("columns", name) for name in self.columns]
        fields += [] if self.limit == SIZES[0] else [("limit", str(self.limit))]
        fields += [] if cursor is None else [("cursor", cursor)]
        return "/problems?" + "&".join(filter(None, (self.choice, urlencode(fields))))

    def chips(self) -> list[tuple[str, str]]:
        """Each filter as it is written, and the address without it."""
        return [(str(term), self.of(self.parsed.without(term))) for term in self.parsed.terms]

    def sorted_by(self, column: Column) -> str:
        """The table by a column: the other way round where it is sorted by that already."""
        sort = self.parsed.sort
        is_falling = not sort.is_descending if sort.name == column.sort else column.is_falling
        return self.of(self.parsed.sorted_by(column.sort, is_descending=is_falling))

    def order(self, column: Column) -> str:
        """The `aria-sort` of a column."""
        if self.parsed.sort.name != column.sort:
            return "none"
        return "descending" if self.parsed.sort.is_descending else "ascending"


@page(
    router,
    PATH,
    "problems.html",
    rows=ProblemRow,
    live=("observations", "decisions", "problems", "batches"),
)
async def problems(
    request: Request,
    choice: Chosen,
    q: str = "",
    columns: Annotated[Sequence[str], Query()] = (),
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = SIZES[0],
) -> Problems:
    """The problems of a measurement that a query selects."""
    usual = tuple(column.name for column in COLUMNS if column.is_usual)
    chosen = tuple(column.name for column in COLUMNS if column.name in columns) or usual
    try:
        parsed = parse(q)
        wanted = Wanted(parsed, after=PageQuery(cursor=cursor).after(list), limit=limit, with_problems=True)
        found = await find(request, choice, wanted)
    except BadQuery as error:
        if request.url.path != PATH:  # a twin has no place for it
            raise
        address = Address(choice.query, Parsed(), chosen, limit, is_first=True)
        return Problems(choice, q, error.detail, [], 0, None, address)
    address = Address(choice.query, parsed, chosen, limit, is_first=cursor is None)
    next_cursor = None if found.last is None else cursor_at(found.last)
    return Problems(choice, q, None, [_row(item) for item in found.items], found.n_matches, next_cursor, address)


async def find(request: Request, choice: Choice, wanted: Wanted) -> Found:
    """A page of the measurement's list, weighed by the curriculum if one is there."""
    state: Any = request.app.state
    found: Found
    if choice.measurement is None:
        found = Found([], 0, None)
    elif choice.curriculum is None:
        found = await state.estimates.find(choice.number, wanted)
    else:
        found = await state.curricula.find(choice.curriculum.curriculum_id, wanted)
    return found


def plain(prompt: Any) -> str:
    """A prompt on one line: of a chat, what it asks last."""
    text = prompt if isinstance(prompt, str) else prompt[-1].content
    return " ".join(text.split())


def _row(item: ListedEstimate) -> ProblemRow:
    if item.problem is None:
        raise Invalid("the list was read without its problems")
    problem = item.problem
    low, high = item.interval or (None, None)
    return ProblemRow(
        ordinal=item.ordinal,
        problem_id=item.problem_id,
        prompt=plain(problem.prompt),
        tags=problem.tags,
        source=problem.source,
        answer=problem.answer,
        state=problem.state.value,
        is_holdout=item.is_holdout,
        pass_rate=item.pass_rate,
        low=low,
        high=high,
        n_passed=item.n_passed,
        n_counted=item.n_counted,
        n_groups=item.n_groups,
        last_passed=item.last_passed,
        last_counted=item.last_counted,
        weight=item.weight,
        n_served=item.n_served,
        verdicts=item.verdicts,
        checkpoint_index=item.checkpoint_index,
        measured_at=item.measured_at,
        quarantine_reason=item.quarantine_reason,
    )


HELP = {"words": WORDS, "numbers": NUMBERS, "examples": EXAMPLES, "sizes": SIZES, "columns": COLUMNS}
