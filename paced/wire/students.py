"""Stage 2: students, their checkpoints, and the sampling profiles under which they answer."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from .base import NO_NUL, Id, Index, Name, Request, Resource, Text, example
from .grading import Grader, GradingPolicy


class StudentCreate(Request):
    """A model lineage."""

    model_config = example(name="smollm2", description="SmolLM2-135M-Instruct, arithmetic")

    name: Name
    description: Text = ""


class CheckpointCreate(Request):
    """One set of weights; the service gives it the next index of its student."""

    model_config = example(uri="/models/smollm2/step-60", parent_index=0, run_id="run_4tYb", step=60)

    uri: Annotated[
        str,
        Field(min_length=1, max_length=4096, pattern=NO_NUL, description="A folder or URL that the workers can read"),
    ]
    parent_index: Index | None = None
    run_id: Id | None = None
    step: Index | None = None


CHECKPOINT: dict[str, Any] = {
    "student": "smollm2",
    "index": 1,
    "uri": "/models/smollm2/step-60",
    "parent_index": 0,
    "run_id": "run_4tYb",
    "step": 60,
    "created_at": "2026-11-25T08:00:00Z",
}


class Checkpoint(Resource):
    """One set of a student's weights; `index` increases from 0."""

    model_config = example(**CHECKPOINT)

    student: str
    index: int
    uri: str
    parent_index: int | None
    run_id: str | None
    step: int | None
    created_at: datetime


class Student(Resource):
    """A model lineage with its newest checkpoint."""

    model_config = example(
        name="smollm2",
        description="SmolLM2-135M-Instruct, arithmetic",
        latest_checkpoint=CHECKPOINT,
        created_at="2026-11-25T08:00:00Z",
    )

    name: str
    description: str
    latest_checkpoint: Checkpoint | None
    created_at: datetime


class ProfileCreate(Request):
    """How answers are sampled and judged; its hash is its id, so pass rates of different profiles never mix.

    `prompt_template` holds `{prompt}` once; it wraps the last user turn. `grader` and `policy` override
    the problem's and its set's.
    """

    model_config = example(temperature=0.6, top_p=0.95, max_tokens=64, grader_version="2")

    system_prompt: Text | None = None
    prompt_template: Annotated[str, Field(max_length=100_000, pattern=r"\{prompt\}")] = "{prompt}"
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=0, lt=2**31, description="0 keeps all tokens")] = 0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    stop: Annotated[list[str], Field(max_length=16)] = []
    grader: Grader | None = None
    policy: GradingPolicy | None = None
    grader_version: Annotated[str, Field(min_length=1, max_length=32)] = "2"
    is_truncated_fail: Annotated[bool, Field(description="Count truncated answers as fail instead of apart")] = False


PROFILE: dict[str, Any] = {
    "profile_id": "sp_5f0c8b1d2a3e4f60",
    "system_prompt": "Answer briefly.",
    "prompt_template": "{prompt}",
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 0,
    "max_tokens": 64,
    "stop": [],
    "grader": "numeric",
    "policy": GradingPolicy().model_dump(),
    "grader_version": "2",
    "is_truncated_fail": False,
    "created_at": "2026-11-25T08:00:00Z",
}


class Profile(Resource):
    """A sampling profile; `profile_id` is the hash of everything else."""

    model_config = example(**PROFILE)

    profile_id: str
    system_prompt: str | None
    prompt_template: str
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: list[str]
    grader: Grader | None
    policy: GradingPolicy | None
    grader_version: str
    is_truncated_fail: bool
    created_at: datetime
