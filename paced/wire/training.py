"""Stage 7: training runs, their metrics, and the teacher's stored texts."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from .base import Count, Id, Index, Label, Name, ProblemId, Request, Resource, example
from .curricula import Stage


class RunState(StrEnum):
    """A run is running until its trainer says otherwise."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


def _encodable(config: dict[str, Any]) -> dict[str, Any]:
    json.dumps(config, ensure_ascii=False).encode()  # a lone surrogate raises UnicodeEncodeError, a ValueError
    return config


Config = Annotated[dict[str, JsonValue], AfterValidator(_encodable)]


class RunCreate(Request):
    """One training job on a curriculum; `config` is the trainer's own record."""

    model_config = example(curriculum_id="cur_3hGw", name="first-run", config={"learning_rate": 2e-5})

    curriculum_id: Id
    name: Name
    config: Config = {}


class RunUpdate(Request):
    """How a run ended (or that it goes on)."""

    model_config = example(state="finished")

    state: RunState


class Run(Resource):
    """One training job; `last_step` is the newest step with metrics."""

    model_config = example(
        run_id="run_4tYb",
        curriculum_id="cur_3hGw",
        name="first-run",
        config={"learning_rate": 2e-5},
        state="running",
        last_step=59,
        created_at="2026-11-25T08:00:00Z",
        updated_at="2026-11-25T08:04:00Z",
    )

    run_id: str
    curriculum_id: str
    name: str
    config: dict[str, Any]
    state: RunState
    last_step: int | None
    created_at: datetime
    updated_at: datetime


class MetricPoint(Request):
    """Metrics of one optimiser step; sending a step again replaces it."""

    model_config = example(step=0, stage="forward_kl", values={"loss": 0.61, "grad_norm": 1.9})

    step: Index
    stage: Stage
    values: dict[Annotated[str, StringConstraints(max_length=64)], float]


class Metrics(Request):
    """Metrics of several steps, in order."""

    model_config = example(points=[{"step": 0, "stage": "forward_kl", "values": {"loss": 0.61, "grad_norm": 1.9}}])

    points: Annotated[list[MetricPoint], Field(max_length=10_000)]


class TeacherReference(Request):
    """One text of the teacher on one problem."""

    problem_id: ProblemId
    text: Annotated[str, StringConstraints(max_length=1_000_000)]
    n_tokens: Count
    finish_reason: Literal["stop", "length"]


class TeacherReferences(Request):
    """Texts of one teacher, one a problem; storing a problem again replaces its text."""

    model_config = example(
        teacher="self-with-answer",
        references=[{"problem_id": 41, "text": "56", "n_tokens": 3, "finish_reason": "stop"}],
    )

    teacher: Label
    references: Annotated[list[TeacherReference], Field(max_length=4096)]


class TeacherReferencesQuery(Request):
    """Which problems' teacher texts to return; those without a text are left out."""

    model_config = example(teacher="self-with-answer", problem_ids=[41, 7])

    teacher: Label
    problem_ids: Annotated[list[ProblemId], Field(max_length=65_536)]


class Axis(StrEnum):
    """What runs are laid over: steps, tokens trained on, or seconds of steps, both summed from the run's first step."""

    STEP = "step"
    TOKENS = "tokens"
    TIME = "time"


class RunSeries(Resource):
    """One metric of one run in buckets of steps: their mean, and the least and the largest, so that no spike is lost.

    The arrays are aligned; `x` is the mean place of a bucket's steps. `switches` are the places where a stage begins
    after another. `group` is the name without its seed, shared by runs whose settings differ in nothing but seeds.
    """

    run_id: str
    name: str
    group: str
    state: RunState
    n_points: int
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    switches: list[float]


class PooledSeries(Resource):
    """Mean over the runs of a group where all of them have values, with a 95 % interval (Student's t, over runs)."""

    group: str
    run_ids: list[str]
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


class RunComparison(Resource):
    """One metric of several runs; `metrics` are the names that any of them has."""

    model_config = example(
        metric="loss",
        by="step",
        metrics=["grad_norm", "loss"],
        runs=[
            {
                "run_id": "run_4tYb",
                "name": "first-seed1",
                "group": "first",
                "state": "running",
                "n_points": 4,
                "x": [0.5, 2.5],
                "mean": [0.6, 0.5],
                "low": [0.58, 0.46],
                "high": [0.62, 0.54],
                "switches": [2.0],
            }
        ],
        groups=[
            {
                "group": "first",
                "run_ids": ["run_4tYb", "run_5uZc"],
                "x": [0.5],
                "mean": [0.6],
                "low": [0.5],
                "high": [0.7],
            }
        ],
    )

    metric: str
    by: Axis
    metrics: list[str]
    runs: list[RunSeries]
    groups: list[PooledSeries]
