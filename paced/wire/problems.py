"""Stage 1: problem sets, problems, imports."""

from datetime import datetime
from enum import StrEnum

from .base import Name, Prompt, Request, Resource, Text, example
from .grading import Grader, GraderName, GradingPolicy


class ProblemState(StrEnum):
    """Only ready problems are leased, drawn and held out; flagged ones wait for someone to decide."""

    READY = "ready"
    FLAGGED = "flagged"
    EXCLUDED = "excluded"


class Flag(StrEnum):
    """Why a problem waits for a decision."""

    CONFLICTING_ANSWERS = "conflicting_answers"
    NO_ANSWER = "no_answer"
    PROOF = "proof"
    PLACEHOLDER = "placeholder"
    MISSING_FIGURE = "missing_figure"
    MULTI_PART = "multi_part"
    OVERLAP = "overlap"
    REVIEW = "review"


class ProblemSetCreate(Request):
    """A named collection of problems; `grader` judges the problems that name none."""

    model_config = example(name="gsm8k", description="Grade-school word problems", grader="math")

    name: Name
    description: Text = ""
    grader: Grader = GraderName.MATH
    policy: GradingPolicy = GradingPolicy()


class ProblemSet(Resource):
    """A problem set; `n_rows` counts imported rows, twins included, `n_problems` distinct problems.

    `n_flagged` of the problems wait for a decision.
    """

    model_config = example(
        name="gsm8k",
        description="Grade-school word problems",
        grader="math",
        policy=GradingPolicy().model_dump(),
        n_problems=1319,
        n_flagged=0,
        n_rows=1319,
        created_at="2026-11-25T08:00:00Z",
    )

    name: str
    description: str
    grader: Grader
    policy: GradingPolicy
    n_problems: int
    n_flagged: int
    n_rows: int
    created_at: datetime


class Problem(Resource):
    """A prompt with its reference answer; `ordinal` is dense in its set, from 0."""

    model_config = example(
        problem_id=41,
        problem_set="gsm8k",
        ordinal=40,
        fingerprint="9b74c9897bac770ffc029102a200c5de",
        prompt="Compute 7 * 8. Reply with the number only.",
        answer="56",
        grader="numeric",
        tags=["product"],
        source="arithmetic.jsonl",
        solution="7 * 8 = 56",
        multiplicity=1,
        state="ready",
        flag="no_answer",
        flag_detail="the answer field is empty",
        created_at="2026-11-25T08:00:00Z",
    )

    problem_id: int
    problem_set: str
    ordinal: int
    fingerprint: str
    prompt: Prompt
    answer: str
    grader: Grader
    tags: list[str]
    source: str
    solution: str | None
    multiplicity: int
    state: ProblemState
    flag: Flag | None
    flag_detail: str | None
    created_at: datetime


class Refusal(Resource):
    """A row that was not imported: where it stands, why, and a stable code."""

    file: str
    line: int
    code: str
    reason: str


class ImportReport(Resource):
    """What an import did: every row read is imported, a twin, or refused."""

    model_config = example(
        import_id="imp_2mZq",
        problem_set="gsm8k",
        file="gsm8k_test.jsonl",
        format="jsonl",
        shape="gsm8k",
        n_rows=1321,
        n_imported=1319,
        n_twins=1,
        n_refused=1,
        refusals=[
            {
                "file": "gsm8k_test.jsonl",
                "line": 7,
                "code": "bad_json",
                "reason": "not JSON: Expecting ',' delimiter at column 18",
            }
        ],
        is_refusals_cut=False,
        duration_s=0.21,
    )

    import_id: str
    problem_set: str
    file: str
    format: str
    shape: str
    n_rows: int
    n_imported: int
    n_twins: int
    n_refused: int
    refusals: list[Refusal]
    is_refusals_cut: bool
    duration_s: float
