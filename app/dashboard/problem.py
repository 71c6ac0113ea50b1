"""One problem: its text, its pass rate over checkpoints, its answers, why it is served, and what people decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from markupsafe import Markup
from pydantic import BaseModel, StringConstraints
from starlette.responses import Response

from app.dashboard.choice import Choice, Chosen, chosen
from app.dashboard.figures import Figure, axis, layout
from app.dashboard.forms import back, posted
from app.dashboard.formulas import extraction, with_formulas
from app.dashboard.rendering import render
from app.dashboard.twins import page
from app.errors import Conflict, Invalid, NotFound
from app.flow.batches.standing import Standing
from app.flow.estimates.timeline import HistoryPoint
from paced.wire import (
    NO_NUL,
    Decision,
    Estimate,
    ObservationSource,
    Problem,
    ProblemDecision,
    ProblemState,
    Scope,
    StoredRollout,
    TeacherReference,
)

router = APIRouter(include_in_schema=False)
PATH = "/problems/{problem_set}/{ordinal}"
LIVE = ("observations", "decisions", "batches", "curricula")
N_GROUPS = 3  # whose answers are shown at first
MAX_GROUPS = 200
Ordinal = Annotated[int, Path(ge=0, lt=2**31)]


@dataclass(frozen=True, slots=True)
class Group:
    """The stored answers of one observation."""

    point: HistoryPoint
    answers: list[StoredRollout]


@dataclass(frozen=True, slots=True)
class ProblemPage:
    """All that is known of a problem; without a measurement of its set only its text and decisions are."""

    choice: Choice
    problem: Problem
    estimate: Estimate | None
    history: list[HistoryPoint]
    groups: list[Group]
    n_groups: int
    said: dict[str, TeacherReference]
    standing: Standing | None
    decisions: list[Decision]
    n_problems: int

    @property
    def path(self) -> str:
        """The page's own address."""
        return place_of(self.problem.problem_set, self.problem.ordinal, self.choice)

    @property
    def turns(self) -> list[tuple[str, Markup]]:
        """Who says what in the prompt, formulas drawn."""
        prompt = self.problem.prompt
        if isinstance(prompt, str):
            return [("", with_formulas(prompt))]
        return [(turn.role, with_formulas(turn.content)) for turn in prompt]

    @property
    def neighbours(self) -> tuple[str | None, str | None]:
        """Addresses of the problems before and after it in the set."""
        ordinal, name = self.problem.ordinal, self.problem.problem_set
        before = place_of(name, ordinal - 1, self.choice) if ordinal else None
        return before, place_of(name, ordinal + 1, self.choice) if ordinal + 1 < self.n_problems else None

    @property
    def may_fix_answer(self) -> bool:
        """Whether no answer was judged against the reference yet, as far as this measurement knows."""
        return not self.history

    @staticmethod
    def drawn(text: str) -> Markup:
        """A text with its formulas."""
        return with_formulas(text)

    @staticmethod
    def judged(answer: StoredRollout) -> Markup:
        """An answer with its formulas, the part that was judged marked where it stands there word for word."""
        return with_formulas(answer.text, extraction(answer.text, answer.extracted))


class DecisionForm(BaseModel):
    """What the forms of the page post."""

    state: ProblemState
    answer: Annotated[str, StringConstraints(pattern=NO_NUL, max_length=1_000_000)] | None = None
    note: Annotated[str, StringConstraints(pattern=NO_NUL, max_length=10_000)] = ""


def place_of(problem_set: str, ordinal: int, choice: Choice) -> str:
    """The address of a problem's page."""
    query = f"?{choice.query}" if choice.query else ""
    return f"/problems/{quote(problem_set)}/{ordinal}{query}"


def figures(found: ProblemPage) -> dict[str, Figure]:
    """Pass rate over observations."""
    if found.estimate is None:
        return {}
    points = [point for point in found.history if point.is_on_line and point.pass_rate is not None]
    x = list(range(1, len(points) + 1))
    names = [f"checkpoint {point.checkpoint_index}<br>{point.created_at:%Y-%m-%d %H:%M}" for point in points]
    low = {"x": x, "y": [point.low for point in points], "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    high = {**low, "y": [point.high for point in points], "fill": "tonexty", "fillcolor": "$blue-soft"}
    mean = {"x": x, "y": [point.pass_rate for point in points], "text": names, "mode": "lines+markers"}
    seen = {"x": x, "y": [_rate(point) for point in points], "mode": "markers", "name": "k/n of the group"}
    ticks = _ticks(points)
    return {
        "history": Figure(
            title="Pass rate over checkpoints",
            data=[
                {**low, "showlegend": False},
                {**high, "name": "90 % interval"},
                {**mean, "name": "posterior mean", "line": {"color": "$blue"}, "marker": {"size": 6}},
                {
                    **seen,
                    "text": [f"{point.n_passed} of {point.n_counted} ({point.source.value})" for point in points],
                    "marker": {"color": "$orange", "symbol": "diamond", "size": 9},
                },
            ],
            layout=layout(
                xaxis=axis("checkpoint", tickvals=[place for place, _ in ticks], ticktext=[name for _, name in ticks]),
                yaxis=axis("pass rate p", range=[-0.04, 1.04]),
            ),
            columns=("checkpoint", "measured", "why", "passed", "counted", "p", "from", "to"),
            rows=[
                (
                    point.checkpoint_index,
                    f"{point.created_at:%Y-%m-%d %H:%M}",
                    point.source.value + ("" if point.is_on_line else ", abandoned branch"),
                    point.n_passed,
                    point.n_counted,
                    point.pass_rate,
                    point.low,
                    point.high,
                )
                for point in reversed(found.history)
            ],
            about="Diamonds are single groups of answers; the line is what the service believes after each.",
        )
    }


def _rate(point: HistoryPoint) -> float | None:
    return point.n_passed / point.n_counted if point.n_counted else None


def _ticks(points: Sequence[HistoryPoint]) -> list[tuple[int, str]]:
    """Each checkpoint where it is measured first, at most about a dozen."""
    first: dict[int, int] = {}
    for place, point in enumerate(points, 1):
        first.setdefault(point.checkpoint_index, place)
    step = max(1, len(first) // 12)
    return [(place, str(index)) for index, place in list(first.items())[::step]]


async def built(request: Request, choice: Choice, problem_set: str, ordinal: int, n_groups: int) -> ProblemPage:
    """The page; NotFound for a problem that is none."""
    state: Any = request.app.state
    problem: Problem = await state.problems.problem(problem_set, ordinal)
    choice = await _of_set(request, choice, problem_set)
    history: list[HistoryPoint] = []
    estimate = standing = None
    if choice.measurement is not None:
        estimate = await _estimate(state, choice.number, problem.problem_id)
        history = [] if estimate is None else await state.estimates.timeline(choice.number, problem.problem_id)
        if choice.curriculum is not None:
            standing = await state.standing.standing(choice.curriculum.curriculum_id, ordinal)
    stored = [point for point in history[::-1] if point.source != ObservationSource.TRAINER]
    newest = stored[:n_groups]
    answers = await state.review.answers([point.observation_id for point in newest])
    return ProblemPage(
        choice=choice,
        problem=problem,
        estimate=estimate,
        history=history,
        groups=[Group(point, answers[point.observation_id]) for point in newest if point.observation_id in answers],
        n_groups=len(stored),
        said=await state.training.said_of(problem.problem_id),
        standing=standing,
        decisions=await state.problems.decisions_on(problem_set, ordinal),
        n_problems=(await state.problems.get_set(problem_set)).n_problems,
    )


async def _estimate(state: Any, number: int, problem_id: int) -> Estimate | None:
    """The estimate; its row is made by the next draw or lease where the problem was imported since."""
    try:
        found: Estimate = await state.estimates.get(number, problem_id)
    except NotFound:
        return None
    return found


async def _of_set(request: Request, choice: Choice, problem_set: str) -> Choice:
    """The choice if it is of this set, else the newest measurement of it."""
    if choice.measurement is None or choice.measurement.problem_set == problem_set:
        return choice
    theirs = [item for item in choice.measurements if item.problem_set == problem_set]
    if not theirs:
        return Choice(choice.measurements, None, [], None)
    newest = max(theirs, key=lambda item: item.created_at)
    return await chosen(request, measurement=newest.measurement_id)


@page(router, PATH, "problem.html", figures=figures, live=LIVE)
async def problem(
    request: Request,
    choice: Chosen,
    problem_set: str,
    ordinal: Ordinal,
    groups: Annotated[int, Query(ge=0, le=MAX_GROUPS)] = N_GROUPS,
) -> ProblemPage:
    """The page of one problem."""
    return await built(request, choice, problem_set, ordinal, groups)


@router.post(PATH)
async def decide(
    request: Request,
    choice: Chosen,
    problem_set: str,
    ordinal: Ordinal,
    form: Annotated[DecisionForm, posted(DecisionForm, Scope.IMPORT)],
) -> Response:
    """Take a decision in the name of the session's key; what the service refuses is said on the page."""
    who = request.state.session.key.name
    body = ProblemDecision(state=form.state, answer=form.answer, note=form.note, decided_by=who)
    try:
        await request.app.state.problems.decide(problem_set, ordinal, body)
    except (Conflict, Invalid) as error:
        found = await built(request, choice, problem_set, ordinal, N_GROUPS)
        values = {"found": found, "figures": figures(found), "choice": found.choice, "refused": error, "form": form}
        return render(request, "problem.html", status=error.status, **values)
    return back(place_of(problem_set, ordinal, choice) + "#decisions")
