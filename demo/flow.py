"""The demo, step by step; every step is idempotent, so that a rerun continues where the last one stopped."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from demo import arithmetic
from demo.model import smollm2_folder
from demo.processes import ChildFailed, Children, first_json_line, free_port
from demo.report import Report, build
from paced import Client, wire

STUDENT = "smollm2"
PROBLEM_SET = "arithmetic"
OWN_PROBLEMS = Path(__file__).with_name("own_problems.jsonl")
# The distributions are compared as they are sampled, and the teacher is surer than at its own temperature.
TEACHING = {"temperature": 0.6, "teacher_sharpness": 1.67}
PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # a trainer's threads that spin while they wait take the worker's cores
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much the demo does; the defaults take some 25 minutes on 2 CPU cores."""

    data: Path
    problems: Path
    port: int
    n_per_kind: int
    forward_steps: int
    reverse_steps: int
    batch_size: int
    learning_rate: float
    reverse_learning_rate: float

    @property
    def n_steps(self) -> int:
        """Optimiser steps in all."""
        return self.forward_steps + self.reverse_steps


@dataclass(frozen=True, slots=True)
class World:
    """What the demo made in the service."""

    model: Path
    curriculum: wire.Curriculum


def start_service(data: Path, port: int, children: Children) -> Client:
    """Run `paced serve` on SQLite in a folder, on a port if it is free, and a client with its first key."""
    child = children.start(
        "serve", "serve", "--data", str(data), "--port", str(free_port(port)), "--log-level", "warning", "--json"
    )
    said = first_json_line(child.stdout)
    if "url" not in said:
        child.wait()
        children.check("serve")
    client = Client(said["url"], Path(said["key_file"]).read_text().strip())
    client.ready()
    return client


def prepare(plan: Plan, client: Client, say: Callable[[str], None]) -> World:
    """Import the problems, register the student, make profile, curriculum and run."""
    say("unpacking SmolLM2-135M-Instruct")
    model = smollm2_folder(plan.data / "models")
    client.create_problem_set(wire.ProblemSetCreate(name=PROBLEM_SET, grader=wire.GraderName.NUMERIC))
    made = arithmetic.write(plan.data / "arithmetic.jsonl", plan.n_per_kind)
    for file in (made, plan.problems):
        report = client.import_problems(PROBLEM_SET, file)
        say(f"imported {file.name}: {report.n_imported} new, {report.n_twins} known, {report.n_refused} refused")
    client.create_student(wire.StudentCreate(name=STUDENT, description="SmolLM2-135M-Instruct"))
    client.register_checkpoint(STUDENT, wire.CheckpointCreate(uri=str(model.resolve())), key="base")
    profile = client.create_profile(
        wire.ProfileCreate(temperature=0.6, top_p=1.0, max_tokens=32, is_truncated_fail=True)
    )
    schedule = [
        wire.StagePlan(stage=wire.Stage.FORWARD_KL, steps=plan.forward_steps),
        wire.StagePlan(stage=wire.Stage.REVERSE_KL, steps=plan.reverse_steps),
    ]
    curriculum = client.create_curriculum(
        wire.CurriculumCreate(
            name="demo",
            student=STUDENT,
            problem_set=PROBLEM_SET,
            profile_id=profile.profile_id,
            schedule=schedule,
            holdout_share=0.3,
        )
    )
    return World(model, curriculum)


def training_run(client: Client, world: World) -> wire.Run | None:
    """The trainer's run, once it has registered it."""
    return next(client.runs(world.curriculum.curriculum_id), None)


def start_worker(client: Client, children: Children, world: World, student: str = STUDENT) -> None:
    """Run `paced rollout` with vLLM until the children are stopped."""
    model = ("--model", str(world.model.resolve()))
    children.start("rollout", "rollout", student, *model, "--json", environment=access(client))


def start_trainer(plan: Plan, client: Client, children: Children, world: World, *more: str) -> None:
    """Run `paced distill`: forward KL, a pause until the new checkpoint is measured, reverse KL; `more` options."""
    arguments = (
        "distill",
        *("--curriculum", world.curriculum.curriculum_id),
        *("--run", "demo"),
        *("--student", str(world.model.resolve())),
        *("--teacher", "self"),
        *("--out", str((plan.data / "run").resolve())),
        *("--batch-size", str(plan.batch_size)),
        *("--learning-rate", str(plan.learning_rate)),
        *("--reverse-learning-rate", str(plan.reverse_learning_rate)),
        *(part for name, value in TEACHING.items() for part in ("--set", f"{name}={value}")),
        "--json",
        *more,
    )
    children.start("distill", *arguments, environment=access(client) | PASSIVE)


def access(client: Client) -> dict[str, str]:
    """How a child reaches the service."""
    return {"PACED_URL": client.url, "PACED_KEY": client.key or ""}


def wait_until_measured(
    client: Client, children: Children, measurement_id: str, progress: Progress, what: str, share: float = 1.0
) -> None:
    """Wait until every problem, or a share of them, is measured at the newest checkpoint."""
    task = progress.add_task(what, total=None)
    while True:
        m = client.measurement(measurement_id)
        wanted = math.ceil(share * m.n_measurable)
        progress.update(task, total=wanted, completed=min(m.n_at_latest, wanted))
        if m.n_at_latest >= wanted:
            return
        children.check("rollout")
        time.sleep(POLL_S)


def watch_training(plan: Plan, client: Client, children: Children, world: World, progress: Progress) -> None:
    """Show the trainer's steps and the re-measuring between its stages until it ends."""
    steps = progress.add_task("distilling", total=plan.n_steps)
    measuring: dict[int, TaskID] = {}
    while children.is_running("distill"):
        run = training_run(client, world)
        done = 0 if run is None or run.last_step is None else run.last_step + 1
        progress.update(steps, completed=done, description=_stage(plan, done))
        if done < plan.n_steps:  # the last checkpoint has a bar of its own
            _show_measuring(client, world, progress, measuring)
        children.check("rollout")
        time.sleep(POLL_S)
    children.check("distill")
    progress.update(steps, completed=plan.n_steps, description="distilled")


def _stage(plan: Plan, n_done: int) -> str:
    return "forward KL" if n_done < plan.forward_steps else "reverse KL"


def _show_measuring(client: Client, world: World, progress: Progress, tasks: dict[int, TaskID]) -> None:
    m = client.measurement(world.curriculum.measurement_id)
    index = m.latest_checkpoint.index if m.latest_checkpoint else 0
    if index == 0:
        return
    if index not in tasks:
        tasks[index] = progress.add_task(f"measuring checkpoint {index}", total=m.n_problems)
    progress.update(tasks[index], completed=m.n_at_latest, total=m.n_measurable)


def make_progress() -> Progress:
    """Bars on standard error, so that standard output holds the report alone."""
    from rich.console import Console

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total}"))
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))


def dashboard_of(client: Client) -> str:
    """A link to the dashboard that works once."""
    return client.url + client.create_sign_in_link().path


def run_demo(plan: Plan, children: Children, say: Callable[[str], None]) -> tuple[Client, Report]:
    """The whole loop: measure, train forward, measure, train reverse, measure."""
    started = time.monotonic() - minutes_before(plan) * 60
    client = start_service(plan.data / "service", plan.port, children)
    say(f"service on {client.url}")
    say(f"dashboard: {dashboard_of(client)} signs a browser in once")
    world = prepare(plan, client, say)
    say("loading vLLM (half a minute on a CPU)")
    start_worker(client, children, world)
    with make_progress() as progress:
        first = client.measurement(world.curriculum.measurement_id)
        if first.latest_checkpoint is None or first.latest_checkpoint.index == 0:
            wait_until_measured(client, children, world.curriculum.measurement_id, progress, "measuring checkpoint 0")
        run = training_run(client, world)
        is_rerun = run is not None and run.state == wire.RunState.FINISHED
        if run is None or run.state != wire.RunState.FINISHED:
            start_trainer(plan, client, children, world)
            watch_training(plan, client, children, world, progress)
        wait_until_measured(
            client, children, world.curriculum.measurement_id, progress, "measuring the last checkpoint"
        )
        run = training_run(client, world)
    if run is None:
        raise ChildFailed(f"the trainer registered no run; see {plan.data / 'logs' / 'distill.log'}")
    minutes = minutes_before(plan) if is_rerun else (time.monotonic() - started) / 60
    keep_minutes(plan, minutes)
    return client, build(client, world.curriculum, run, minutes)


def minutes_before(plan: Plan) -> float:
    """Minutes that interrupted runs of this demo took already."""
    file = plan.data / "minutes.json"
    return float(json.loads(file.read_text())) if file.exists() else 0.0


def keep_minutes(plan: Plan, minutes: float) -> None:
    """Keep the time that all runs of this demo took so far."""
    (plan.data / "minutes.json").write_text(json.dumps(minutes))
