"""How an answer is judged: grader names, the policy where conventions differ, and verdicts on request."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from .base import Request, Resource, example


class GraderName(StrEnum):
    """The graders that ship: see worker/grading."""

    EXACT = "exact"
    NUMERIC = "numeric"
    CHOICE = "choice"
    MATH = "math"
    CODE = "code"
    REASONING_GYM = "reasoning_gym"


USER_GRADER = r"^user:[A-Za-z0-9_.-]{1,64}$"
UserGrader = Annotated[
    str,
    StringConstraints(pattern=USER_GRADER),
    Field(description="A grader that an installed package declares as entry point NAME of the group paced.graders"),
]
Grader = GraderName | UserGrader


class Verdict(StrEnum):
    """What became of one answer; only pass and fail (and, by profile, truncated) move the pass rate."""

    PASS = "pass"
    FAIL = "fail"
    TRUNCATED = "truncated"
    TIMEOUT = "timeout"
    GRADER_ERROR = "grader_error"
    INFRASTRUCTURE = "infrastructure"


class GradingPolicy(Request):
    """What counts as the same answer where conventions differ; part of a problem set, fixed once it is measured."""

    model_config = example(percent="either", order="any")

    percent: Annotated[
        Literal["number", "fraction", "either"],
        Field(description="10% is 10 (number), 0.1 (fraction), or whichever of the two the other side says"),
    ] = "either"
    order: Annotated[
        Literal["any", "kept"], Field(description="Whether values listed without brackets may come in any order")
    ] = "any"
    brackets: Annotated[
        Literal["kept", "ignored"], Field(description="Whether (1,2), [1,2] and {1,2} are different answers")
    ] = "kept"
    units: Annotated[
        Literal["ignored", "required"],
        Field(description="Whether an answer without the reference's unit fails; another unit of measure always does"),
    ] = "ignored"
    comma: Annotated[
        Literal["either", "list"],
        Field(description="Whether 3,5 written without a space may also be the decimal 3.5, or is always a list"),
    ] = "either"
    degrees: Annotated[Literal["number", "radians"], Field(description="Whether 180 degrees are 180 or pi")] = "number"
    rel_tolerance: Annotated[
        float, Field(ge=0, lt=1, description="Relative tolerance where one of two numbers has decimals")
    ] = 1e-6
    abs_tolerance: Annotated[float, Field(ge=0, description="Absolute tolerance of all numbers")] = 0.0


class AnswerToGrade(Request):
    """One answer text and the reference answer it is held against."""

    text: Annotated[str, StringConstraints(max_length=4_000_000)]
    answer: Annotated[str, StringConstraints(max_length=1_000_000)]
    grader: Grader = GraderName.MATH
    policy: GradingPolicy = GradingPolicy()


class GradeRequest(Request):
    """Answers to judge; verdicts come back in the same order."""

    model_config = example(
        answers=[{"text": "The total is \\boxed{56}.", "answer": "56", "grader": "math", "policy": {}}]
    )

    answers: Annotated[list[AnswerToGrade], Field(min_length=1, max_length=1024)]


class GradedAnswer(Resource):
    """A verdict, the part of the text that was judged, wall seconds, and a reason where one helps."""

    verdict: Verdict
    extracted: str | None
    seconds: float
    detail: str | None


class Grades(Resource):
    """Verdicts in the order of the request, and the version of the graders that gave them."""

    model_config = example(
        grader_version="2",
        grades=[{"verdict": "pass", "extracted": "56", "seconds": 0.0002, "detail": "equal numbers"}],
    )

    grader_version: str
    grades: list[GradedAnswer]


class SlowAnswer(Resource):
    """An answer that took long to judge: wall seconds, its grader, and how its text begins."""

    seconds: float
    grader: str
    head: str


class GraderStats(Resource):
    """Counts since the service started; `n_replaced` processes were killed or lost; slowest answers first."""

    model_config = example(
        grader_version="2",
        n_graded=1024,
        n_waiting=0,
        n_replaced=1,
        n_out_of_memory=0,
        n_by_verdict={"pass": 700, "fail": 323, "timeout": 1},
        n_by_grader={"math": 1024},
        seconds_by_grader={"math": 1.9},
        slowest=[{"seconds": 5.0, "grader": "math", "head": "9^9^9^9"}],
    )

    grader_version: str
    n_graded: int
    n_waiting: int
    n_replaced: int
    n_out_of_memory: int
    n_by_verdict: dict[str, int]
    n_by_grader: dict[str, int]
    seconds_by_grader: dict[str, float]
    slowest: list[SlowAnswer]
