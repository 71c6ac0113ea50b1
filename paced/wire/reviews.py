"""Stage 3: what people say of stored answers whose verdict is in doubt."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from .base import Label, Request, Resource, Text, example
from .grading import Verdict
from .regrading import ObservationId


class ReviewCreate(Request):
    """Someone looked at a stored answer: it is right, or wrong, whatever the grader said."""

    model_config = example(observation_id=812, position=0, is_right=True, note="56.0 is 56", decided_by="ada")

    observation_id: ObservationId
    position: Annotated[int, Field(ge=0, lt=1024)]
    is_right: bool
    note: Text = ""
    decided_by: Label


class Review(Resource):
    """A review as it was made; `counted_at` is null until the log and the estimates took it up."""

    model_config = example(
        review_id=5,
        observation_id=812,
        position=0,
        problem_id=41,
        ordinal=40,
        verdict_before="fail",
        verdict_after="pass",
        note="56.0 is 56",
        decided_by="ada",
        created_at="2026-11-25T08:00:00Z",
        counted_at="2026-11-25T09:00:00Z",
    )

    review_id: int
    observation_id: int
    position: int
    problem_id: int
    ordinal: int
    verdict_before: Verdict
    verdict_after: Verdict
    note: str
    decided_by: str
    created_at: datetime
    counted_at: datetime | None


class ReviewsCounted(Resource):
    """What counting the reviews did: `n_changed` answers and `n_estimates` estimates are others now."""

    model_config = example(measurement_id="mea_8", n_reviews=10, n_changed=7, n_estimates=120)

    measurement_id: str
    n_reviews: int
    n_changed: int
    n_estimates: int
