"""A measurement on a running service, and the parts of a worker that tests put around the scripted engine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paced import Client, wire
from tests.service import ADMIN_KEY, Service
from worker import grading
from worker.grading import Grade

COMMAND = "import typer; from worker.rollout.command import rollout; typer.run(rollout)"
FAST = {"report_every_s": 0.05, "load_retry_s": 0.01, "grace_s": 2.0, "is_until_idle": True}


class InlinePool:
    """Grades in this process: what the loop needs of a pool, without its processes."""

    def __init__(self) -> None:
        self.n_graded = 0

    async def grade(self, text: str, answer: str, grader: wire.Grader, policy: wire.GradingPolicy) -> Grade:
        self.n_graded += 1
        return grading.grade(text, answer, grader, policy)


@dataclass(frozen=True)
class World:
    """One student's measurement on a running service."""

    service: Service
    client: Client
    measurement_id: str

    def measurement(self) -> wire.Measurement:
        return self.client.measurement(self.measurement_id)

    def observations(self) -> dict[int, list[wire.Observation]]:
        """Newest last, by problem id."""
        found = {}
        for estimate in self.client.estimates(self.measurement_id):
            detail = self.client.estimate(self.measurement_id, estimate.problem_id)
            found[estimate.problem_id] = detail.observations
        return found


MakeWorld = Callable[..., World]


def build(
    client: Client, service: Service, folder: Path, problems: list[tuple[str, str]], uri: str, **profile: object
) -> World:
    """A measurement of the student `tiny` on these prompts; `profile` sets fields of the sampling profile."""
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in problems))
    client.create_problem_set(wire.ProblemSetCreate(name="sums", grader=wire.GraderName.NUMERIC))
    assert client.import_problems("sums", path).n_imported == len(problems)
    client.create_student(wire.StudentCreate(name="tiny"))
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri=uri))
    made = client.create_profile(wire.ProfileCreate.model_validate({"max_tokens": 16, **profile}))
    measurement = client.create_measurement(
        wire.MeasurementCreate(student="tiny", problem_set="sums", profile_id=made.profile_id)
    )
    return World(service, client, measurement.measurement_id)


def sums(n: int) -> list[tuple[str, str]]:
    return [(f"Compute {i} + {i + 1}.", str(2 * i + 1)) for i in range(n)]


def start(world: World, *options: str) -> subprocess.Popen[str]:
    """The command as a process, with the scripted engine unless the options name another."""
    options = options if "--engine" in options else ("--engine", "scripted", *options)
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "tiny", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PACED_URL": world.service.url, "PACED_KEY": ADMIN_KEY, "PYTHONPATH": "."},
    )


def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
