"""What each way to draw buys a real small model: SmolLM2-135M-Instruct on arithmetic, by the product's own commands.

Each seed has a problem set of its own, of ten kinds from those that this model half knows to hopeless ones. Each arm is
one `paced arm`, whose teacher is a frozen copy of the student that sees the answers, and one `paced rollout` of its own
lineage: the base is measured whole before the first step, checkpoints on the way as far as the worker gets, the last
one's hold-out whole. Every arm takes the same number of steps of the same number of problems, and its rollouts are
counted. The table is that of `paced compare`: arms are compared seed by seed, on one hold-out.

Everything is kept under `.benchmarks/arms`, and a run does what is missing: stop it at any time. PACED_BENCH_ARMS names
other arms, separated by commas. Worker and trainer share this machine's cores, so minutes depend on it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from demo import arithmetic
from demo.flow import PASSIVE, TEACHING, access, start_service
from demo.model import smollm2_folder
from demo.processes import Children
from paced import Client, wire
from worker.distill.arm import Chosen, make_curriculum
from worker.distill.arms import find_arm

ARMS = ("uniform", "hard_filter", "default")
SMALL_ARMS = ("uniform", "default")
N_SEEDS = 3
STUDENT = "smollm2"
POLL_S = 2.0
PROFILE = wire.ProfileCreate(temperature=0.6, top_p=1.0, max_tokens=24, is_truncated_fail=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done; the same in every arm."""

    home: Path = Path(".benchmarks/arms")
    n_per_kind: int = 24
    n_steps: int = 32
    batch_size: int = 16
    learning_rate: float = 5e-5
    checkpoint_every: int = 16
    n_rollouts: int = 8
    holdout_share: float = 0.4


SMALL = Plan(Path(".benchmarks/arms-small"), n_per_kind=5, n_steps=4, batch_size=4, checkpoint_every=2, n_rollouts=4)


def run(small: bool, n_seeds: int | None = None) -> dict[str, Any]:
    """The runs that are missing, then `paced compare` over all."""
    plan, seeds = SMALL if small else Plan(), range(n_seeds or (1 if small else N_SEEDS))
    arms = tuple(os.environ.get("PACED_BENCH_ARMS", ",".join(SMALL_ARMS if small else ARMS)).split(","))
    model = smollm2_folder(plan.home / "models").resolve()
    with Children(plan.home / "logs") as children, start_service(plan.home / "service", 0, children) as client:
        runs = [train(plan, client, children, model, arm, seed) for seed in seeds for arm in arms]
        table = compare(client, runs)
    return {
        "settings": {**asdict(plan), "home": str(plan.home), "profile": PROFILE.model_dump(), "arms": arms},
        "rows": runs,
        "arms": table,
        "figures": figures(table, runs),
    }


def train(plan: Plan, client: Client, children: Children, model: Path, arm: str, seed: int) -> dict[str, Any]:
    """One arm and seed to its measured end, from wherever it is; its rollouts and minutes."""
    started, curriculum = time.monotonic(), make(plan, client, model, arm, seed)

    def state() -> wire.Measurement:
        return client.measurement(curriculum.measurement_id)

    def is_trained() -> bool:
        return any(run.state == wire.RunState.FINISHED for run in client.runs(curriculum.curriculum_id))

    if not (is_trained() and is_measured(state())):
        with worker(client, children, curriculum, model):
            await_base(client, children, curriculum)
            say(f"{curriculum.name}: base measured after {(time.monotonic() - started) / 60:.1f} minutes")
            if not is_trained():
                options = arm_options(plan, arm, model, curriculum, seed)
                children.start("arm", *options, environment=access(client) | PASSIVE)
                await_(lambda: not children.is_running("arm"), children)
                children.check("arm")
                children.stop("arm")
            await_(lambda: is_measured(state()), children)
        keep_minutes(plan, curriculum.name, (time.monotonic() - started) / 60)
    (made_run,) = client.runs(curriculum.curriculum_id)
    rates = {point.checkpoint_index: point.pass_rate for point in client.holdout(curriculum.measurement_id)}
    say(f"{curriculum.name}: hold-out {rates[0]:.3f} -> {rates[max(rates)]:.3f}")
    return {
        "run_id": made_run.run_id,
        "begun_at": made_run.created_at.isoformat(),
        "arm": find_arm(arm)[0],
        "seed": seed,
        "n_rollouts": (state().n_measured + state().n_remeasured) * plan.n_rollouts,
        "minutes": round(minutes(plan).get(curriculum.name, 0.0), 1),
        **answers(client, curriculum),
    }


def make(plan: Plan, client: Client, model: Path, arm: str, seed: int) -> wire.Curriculum:
    """The problem set of a seed and the curriculum of an arm on it, made or found."""
    problem_set, (name, found) = f"arithmetic-s{seed}", find_arm(arm)
    if problem_set not in {known.name for known in client.problem_sets()}:
        made = arithmetic.write(plan.home / f"{problem_set}.jsonl", plan.n_per_kind, seed, arithmetic.GRADED)
        client.create_problem_set(wire.ProblemSetCreate(name=problem_set, grader=wire.GraderName.NUMERIC))
        client.import_problems(problem_set, made)
    profile_id = client.create_profile(PROFILE).profile_id
    chosen = Chosen(model, STUDENT, problem_set, profile_id, plan.n_rollouts, plan.holdout_share, plan.n_steps, seed)
    return make_curriculum(client, name, found, chosen)


@contextmanager
def worker(client: Client, children: Children, curriculum: wire.Curriculum, model: Path) -> Iterator[None]:
    """A `paced rollout` of the curriculum's student until the block ends."""
    options = ("rollout", curriculum.student, "--model", str(model), "--json")
    children.start("rollout", *options, environment=access(client))
    yield
    children.stop("rollout")


def await_base(client: Client, children: Children, curriculum: wire.Curriculum) -> None:
    """Wait until checkpoint 0 is measured whole, unless a later one is there already."""

    def is_there() -> bool:
        found = client.measurement(curriculum.measurement_id)
        is_later = found.latest_checkpoint is not None and found.latest_checkpoint.index > 0
        return is_later or found.n_at_latest >= found.n_measurable

    await_(is_there, children)


def answers(client: Client, curriculum: wire.Curriculum) -> dict[str, Any]:
    """Of the held-out problems, before and after: the share of answers that were cut, and pass rates by kind."""
    measurement = client.measurement(curriculum.measurement_id)
    assert measurement.latest_checkpoint is not None
    ends = (0, measurement.latest_checkpoint.index)
    kinds = {problem.problem_id: problem.tags[0] for problem in client.problems(curriculum.problem_set)}
    cut: list[list[int]] = [[0, 0], [0, 0]]
    found: dict[str, list[list[int]]] = {kind: [[0, 0], [0, 0]] for kind in kinds.values()}
    for estimate in client.estimates(curriculum.measurement_id, query="is:holdout"):
        for seen in client.estimate(curriculum.measurement_id, estimate.problem_id).observations:
            if seen.checkpoint_index in ends:
                place = ends.index(seen.checkpoint_index)
                n_cut = seen.verdicts.get(wire.Verdict.TRUNCATED, 0)
                by_kind = found[kinds[estimate.problem_id]]
                for sums, n in ((cut[place], n_cut), (by_kind[place], seen.n_passed)):
                    sums[0] += n
                    sums[1] += seen.n_counted
    return {
        "cut": [_share(*sums) for sums in cut],
        "by_kind": {kind: [_share(*sums) for sums in both] for kind, both in found.items()},
    }


def _share(n: int, of: int) -> float | None:
    return round(n / of, 3) if of else None


def arm_options(plan: Plan, arm: str, model: Path, curriculum: wire.Curriculum, seed: int) -> tuple[str, ...]:
    """`paced arm` as a user would call it."""
    settings = {
        "batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "checkpoint_every": plan.checkpoint_every,
        **TEACHING,
    }
    return (
        *("arm", arm, "--student", str(model), "--student-name", STUDENT, "--steps", str(plan.n_steps)),
        *("--problem-set", curriculum.problem_set, "--profile", curriculum.profile_id, "--seed", str(seed)),
        *("--n-rollouts", str(plan.n_rollouts), "--holdout-share", str(plan.holdout_share)),
        *("--out", str((plan.home / "runs" / curriculum.name).resolve()), "--json"),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    )


def compare(client: Client, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `paced compare --json`."""
    command = [sys.executable, "-m", "paced", "compare", *(run["run_id"] for run in runs), "--by", "step", "--json"]
    answer = subprocess.run(command, env={**os.environ, **access(client)}, check=True, capture_output=True, text=True)
    found: list[dict[str, Any]] = json.loads(answer.stdout)["arms"]
    return found


def figures(table: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, and half widths of 95 % intervals over seeds, by arm."""
    found: dict[str, Any] = {}
    for row in table:
        mine = [run for run in runs if run["arm"] == row["arm"]]
        found |= {f"{row['arm']}_{name}": row[name] for name in ("before", "after", "over_baseline") if row[name]}
        found[f"{row['arm']}_cut"] = [round(fmean(run["cut"][place] or 0 for run in mine), 3) for place in (0, 1)]
        found[f"{row['arm']}_rollouts"] = round(fmean(run["n_rollouts"] for run in mine))
        found[f"{row['arm']}_minutes"] = round(fmean(run["minutes"] for run in mine), 1)
    return found


def is_measured(measurement: wire.Measurement) -> bool:
    """True once the hold-out is measured whole at the newest checkpoint."""
    return measurement.n_holdout_at_latest >= measurement.n_holdout


def await_(is_done: Callable[[], bool], children: Children) -> None:
    """Wait until something is so; raises ChildFailed if the worker ends badly before."""
    while not is_done():
        children.check("rollout")
        time.sleep(POLL_S)


def minutes(plan: Plan) -> dict[str, float]:
    """Minutes by curriculum, over all starts that got to an end."""
    file = plan.home / "minutes.json"
    found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return found


def keep_minutes(plan: Plan, name: str, more: float) -> None:
    """Add to them."""
    found = minutes(plan)
    found[name] = found.get(name, 0.0) + more
    (plan.home / "minutes.json").write_text(json.dumps(found))


def say(line: str) -> None:
    """Progress, beside the figures."""
    print(line, file=sys.stderr, flush=True)
