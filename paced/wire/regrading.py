"""Stage 3: stored answers, judging them again, and the verdicts that someone should look at."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from .base import Count, Request, Resource, example
from .grading import Grader, GradingPolicy, Verdict

ObservationId = Annotated[int, Field(ge=0, lt=2**63)]
_ROLLOUT: dict[str, Any] = {
    "text": "The sum is 54.",
    "verdict": "fail",
    "n_tokens": 6,
    "extracted": "54",
    "grading_s": 0.001,
    "detail": "unequal numbers",
}


class StoredRollout(Resource):
    """One stored answer with its verdict."""

    text: str
    verdict: Verdict
    n_tokens: int
    extracted: str | None
    grading_s: float | None
    detail: str | None


class StoredGroup(Resource):
    """All stored answers of one observation, and what they are judged by."""

    model_config = example(
        observation_id=812,
        problem_id=41,
        checkpoint_index=1,
        answer="56",
        grader="numeric",
        policy=GradingPolicy().model_dump(),
        rollouts=[_ROLLOUT],
    )

    observation_id: int
    problem_id: int
    checkpoint_index: int
    answer: str
    grader: Grader
    policy: GradingPolicy
    rollouts: list[StoredRollout]


class NewVerdict(Request):
    """What a grader now says of one stored answer."""

    verdict: Verdict
    extracted: str | None = None
    grading_s: Annotated[float, Field(ge=0)] | None = None
    detail: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class RegradedGroup(Request):
    """New verdicts for the answers of one observation, in their order."""

    observation_id: ObservationId
    verdicts: Annotated[list[NewVerdict], Field(min_length=1, max_length=1024)]


class RegradeReport(Request):
    """Groups judged again; one already taken is replayed, not counted again."""

    model_config = example(groups=[{"observation_id": 812, "verdicts": [{"verdict": "pass", "extracted": "56"}]}])

    groups: Annotated[list[RegradedGroup], Field(min_length=1, max_length=1024)]


class RegradeReceipt(Resource):
    """What the service did with regraded groups; `n_changed` answers have another verdict than before."""

    model_config = example(measurement_id="mea_9", n_accepted=64, n_replayed=0, n_changed=3)

    measurement_id: str
    n_accepted: Count
    n_replayed: Count
    n_changed: Count


class DisputeKind(StrEnum):
    """Why someone should look at a verdict."""

    GRADERS_DIFFER = "graders_differ"
    REFERENCE_IN_ANSWER = "reference_in_answer"


class Dispute(Resource):
    """A stored answer whose verdict is in doubt.

    `graders_differ`: the same answer got `other_verdict` in `other_measurement_id`. `reference_in_answer`: the problem
    never passed, yet this failed answer holds the reference verbatim.
    """

    model_config = example(
        dispute_id=831488,
        kind="graders_differ",
        observation_id=812,
        position=0,
        problem_id=41,
        ordinal=40,
        answer="56",
        text="The sum is 56.0",
        extracted="56.0",
        verdict="fail",
        other_verdict="pass",
        other_measurement_id="mea_9",
    )

    dispute_id: int
    kind: DisputeKind
    observation_id: int
    position: int
    problem_id: int
    ordinal: int
    answer: str
    text: str
    extracted: str | None
    verdict: Verdict
    other_verdict: Verdict | None
    other_measurement_id: str | None
