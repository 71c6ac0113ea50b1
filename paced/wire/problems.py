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


class AnswerConflict(Resource):
    """One text with two answers: the problem keeps the first and is flagged, unless someone decided about it before.

    `first_line` is null where the first answer was stored before this import.
    """

    line: int
    answer: str
    first_line: int | None
    first_answer: str
    fingerprint: str


class Overlap(Resource):
    """A row whose text is also a problem of a set that training must not see."""

    line: int
    problem_set: str
    ordinal: int
    fingerprint: str


class NearTwin(Resource):
    """A new row that says nearly what an earlier one says, with the same numbers and formulas.

    `similarity` estimates the Jaccard index of their words and word pairs, 0 to 1. `other_line` is null and
    `other_ordinal` given where the earlier one was stored before. `is_merged`: it counts as a twin, or would.
    """

    line: int
    other_line: int | None
    other_ordinal: int | None
    similarity: float
    is_merged: bool
    prompt: str
    other_prompt: str
    answer: str
    other_answer: str


class NearTwins(StrEnum):
    """What an import does with near-twins: list them, count them as twins, only count them, or not look."""

    REPORT = "report"
    MERGE = "merge"
    KEEP = "keep"
    OFF = "off"


class ProblemPreview(Resource):
    """A row as an import would store it."""

    line: int
    fingerprint: str
    prompt: Prompt
    answer: str
    grader: Grader
    tags: list[str]
    source: str
    solution: str | None
    state: ProblemState
    flag: Flag | None
    flag_detail: str | None


class ImportReport(Resource):
    """What an import did: every row read is imported, a twin, or refused.

    `n_flagged` problems wait for a decision because of this import; `flags` counts them by reason. `n_answered` had no
    answer before and got one. The lists hold the first 1,000 entries, 200 of `near_twins`; the counts go on. `preview`
    holds the first rows of a dry run.
    """

    model_config = example(
        import_id="imp_2mZq",
        problem_set="gsm8k",
        file="gsm8k_test.jsonl",
        format="jsonl",
        shape="gsm8k",
        is_dry_run=False,
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
        n_flagged=1,
        n_answered=0,
        flags={"no_answer": 1},
        n_conflicts=0,
        conflicts=[],
        n_overlaps=0,
        overlaps=[],
        n_near_twins=0,
        near_twins=[],
        warnings=[],
        preview=[],
        duration_s=0.21,
    )

    import_id: str
    problem_set: str
    file: str
    format: str
    shape: str
    is_dry_run: bool = False
    n_rows: int
    n_imported: int
    n_twins: int
    n_refused: int
    refusals: list[Refusal]
    is_refusals_cut: bool
    n_flagged: int = 0
    n_answered: int = 0
    flags: dict[str, int] = {}
    n_conflicts: int = 0
    conflicts: list[AnswerConflict] = []
    n_overlaps: int = 0
    overlaps: list[Overlap] = []
    n_near_twins: int = 0
    near_twins: list[NearTwin] = []
    warnings: list[str] = []
    preview: list[ProblemPreview] = []
    duration_s: float
