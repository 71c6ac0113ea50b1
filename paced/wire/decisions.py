"""Stage 1: what people decide about flagged or disputed problems."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from .base import NO_NUL, Label, Request, Resource, Text, example
from .problems import ProblemState


class ProblemDecision(Request):
    """What someone decided about a problem: serve it (with a corrected answer), set it aside, or leave it out.

    `answer` may change only while no answer was judged against the old one.
    """

    model_config = example(state="ready", answer="42", note="checked against the source", decided_by="ada")

    state: ProblemState
    answer: Annotated[str, Field(min_length=1, max_length=1_000_000, pattern=NO_NUL)] | None = None
    note: Text = ""
    decided_by: Label


class Decision(Resource):
    """One decision on a problem, as it was made."""

    model_config = example(
        decision_id=3,
        problem_id=41,
        ordinal=40,
        state_before="flagged",
        state_after="ready",
        answer_before="",
        answer_after="42",
        note="checked against the source",
        decided_by="ada",
        created_at="2026-11-25T08:00:00Z",
    )

    decision_id: int
    problem_id: int
    ordinal: int
    state_before: ProblemState
    state_after: ProblemState
    answer_before: str
    answer_after: str
    note: str
    decided_by: str
    created_at: datetime
