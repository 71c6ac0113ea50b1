"""Verdicts in doubt, one at a time: right, wrong, or skip; and what each would do to p."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from app.dashboard.choice import Choice, Chosen
from app.dashboard.forms import Nothing, back, posted
from app.dashboard.formulas import extraction, with_formulas
from app.dashboard.problem import place_of
from app.dashboard.twins import page
from app.flow.estimates.timeline import Effect
from paced.wire import NO_NUL, Dispute, DisputeKind, Problem, Review, ReviewCreate, Scope

router = APIRouter(include_in_schema=False)
PATH = "/disputes"
N_ROWS = 1000  # of the twins; the page needs one, and to know whether another follows
N_REVIEWS = 12
KINDS = {
    DisputeKind.REFERENCE_IN_ANSWER: "Failed, but holds the reference",
    DisputeKind.GRADERS_DIFFER: "Graders differ",
}
After = Annotated[int, Query(ge=-1, lt=2**63)]


@dataclass(frozen=True, slots=True)
class Disputes:
    """The dispute to decide, those after it (`rows`, itself the first), and what was decided lately."""

    choice: Choice
    kind: DisputeKind
    after: int
    rows: list[Dispute]
    problem: Problem | None
    effect: Effect | None
    n_waiting: int
    n_reviewed: int
    reviews: list[Review]

    @property
    def current(self) -> Dispute | None:
        """The one that is shown."""
        return self.rows[0] if self.rows else None

    @property
    def kinds(self) -> list[tuple[str, str, bool]]:
        """Title and address of each kind, and whether it is shown."""
        return [(title, self.place(kind), kind == self.kind) for kind, title in KINDS.items()]

    @property
    def problem_place(self) -> str:
        """The address of the problem's page."""
        assert self.problem is not None
        return place_of(self.problem.problem_set, self.problem.ordinal, self.choice)

    def place(self, kind: DisputeKind | None = None, after: int = -1) -> str:
        """The address of the disputes after one."""
        return place(self.choice, kind or self.kind, after)

    @property
    def skipped(self) -> str:
        """The address of what follows the dispute that is shown."""
        return self.place(after=self.rows[0].dispute_id)

    @property
    def prompt(self) -> Sequence[tuple[str, Markup]]:
        """Who says what in the prompt."""
        assert self.problem is not None
        asked = self.problem.prompt
        turns = [("", asked)] if isinstance(asked, str) else [(turn.role, turn.content) for turn in asked]
        return [(role, with_formulas(text)) for role, text in turns]

    @property
    def answer(self) -> Markup:
        """The answer, with the reference marked where it holds that, and else what was judged."""
        dispute = self.rows[0]
        is_reference = dispute.kind == DisputeKind.REFERENCE_IN_ANSWER
        return with_formulas(
            dispute.text, extraction(dispute.text, dispute.answer.strip() if is_reference else dispute.extracted)
        )

    @staticmethod
    def drawn(text: str) -> Markup:
        """A text with its formulas."""
        return with_formulas(text)


class ReviewForm(BaseModel):
    """What the buttons post."""

    dispute_id: int = Field(ge=0, lt=2**63)
    observation_id: int = Field(ge=0, lt=2**63)
    position: int = Field(ge=0, lt=1024)
    is_right: bool
    kind: DisputeKind
    note: Annotated[str, StringConstraints(pattern=NO_NUL, max_length=10_000)] = ""


def place(choice: Choice, kind: DisputeKind, after: int = -1) -> str:
    """An address of the page."""
    fields = {"kind": kind.value, **({} if after < 0 else {"after": after})}
    return f"{PATH}?" + "&".join(filter(None, (choice.query, urlencode(fields))))


@page(router, PATH, "disputes.html", rows=Dispute, live=("reviews", "problems"))
async def disputes(
    request: Request, choice: Chosen, kind: DisputeKind = DisputeKind.REFERENCE_IN_ANSWER, after: After = -1
) -> Disputes:
    """The queue after a place in it."""
    state: Any = request.app.state
    if choice.measurement is None:
        return Disputes(choice, kind, after, [], None, None, 0, 0, [])
    n_rows = 2 if request.url.path == PATH else N_ROWS
    rows = await state.review.disputes(choice.number, kind, after, n_rows)
    problem = effect = None
    if rows:
        problem = await state.problems.problem(choice.measurement.problem_set, rows[0].ordinal)
        effect = await state.estimates.effect(choice.number, rows[0])
    n_waiting, n_reviewed = await state.review.n_waiting(choice.number)
    reviews = await state.review.newest_reviews(choice.number, N_REVIEWS)
    return Disputes(choice, kind, after, rows, problem, effect, n_waiting, n_reviewed, reviews)


@router.post(PATH)
async def decide(
    request: Request, choice: Chosen, form: Annotated[ReviewForm, posted(ReviewForm, Scope.IMPORT)]
) -> Response:
    """Keep a review in the name of the session's key, and go on to the next dispute."""
    who = request.state.session.key.name
    fields = form.model_dump(include={"observation_id", "position", "is_right", "note"})
    await request.app.state.review.review(choice.number, ReviewCreate(**fields, decided_by=who))
    return back(place(choice, form.kind, form.dispute_id))


@router.post(PATH + "/count")
async def count(request: Request, choice: Chosen, _form: Annotated[Nothing, posted(Nothing, Scope.IMPORT)]) -> Response:
    """Put the verdicts of reviews into the log."""
    await request.app.state.review_counting.count(choice.number)
    return back(f"{PATH}?{choice.query}#reviews")
