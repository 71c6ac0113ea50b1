"""A learning laboratory: does a curriculum teach a small student more, at equal optimiser tokens?

Teacher and student are small language models trained in code on graded synthetic reasoning (skills.py): the teacher
for long and on nearly every length, the student for a while and mostly on short ones. A pool is a third problems that
the student has mastered, a third in between, a third hopeless (mixes.py): in the mix `hard` the teacher is mostly
wrong there too, in `easy` it is right. The teacher writes one text a problem; every arm (arms.py) starts from the same
student, sees the same pool, and trains on the same number of tokens, drawn, weighted and estimated by the service's
own code, with the exact KL of `paced.losses`. Further experiments change one thing: the share of problems in between,
how long the student was taught before.

Pass rates on the hold-out are exact (models.py); what the arms know of the pool comes from sampled, graded answers,
whose tokens are counted. Intervals are over seeds, each a pool, a hold-out, texts, answers and draws of its own;
teacher and student are one pair, so they say nothing of other models. Results are kept under `.benchmarks/learning`,
and a run does what is missing: stop it at any time, or let PACED_LEARNING_SECONDS, of processor time, stop it.
"""

import os
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.learning import models
from benchmarks.learning.arms import ARMS
from benchmarks.learning.mixes import EASY, HARD, SCARCE
from benchmarks.learning.plots import plot
from benchmarks.learning.results import Log, Result, digest, missing, summary
from benchmarks.learning.settings import STUDENT, TEACHER, Settings
from benchmarks.learning.trial import run_trial
from benchmarks.learning.world import make_world
from benchmarks.machine import commit

N_SEEDS = 5
PLOT = models.HOME / "curves.html"
SMALL_ARMS = ("uniform", "hard_filter", "paper", "default")
MAIN_ARMS = (*SMALL_ARMS, "akl", "uniform_reverse", "default_reverse")


@dataclass(frozen=True, slots=True)
class Experiment:
    """Settings, and the arms that are run with them."""

    settings: Settings
    arms: tuple[str, ...] = tuple(ARMS)


EXPERIMENTS = {
    **{mix.name: Experiment(Settings(mix=mix)) for mix in (HARD, EASY, SCARCE)},
    "weaker student": Experiment(Settings(student=replace(STUDENT, n_steps=350)), MAIN_ARMS),
    "stronger student": Experiment(Settings(student=replace(STUDENT, n_steps=700)), MAIN_ARMS),
}


def run(small: bool, n_seeds: int | None = None) -> dict[str, Any]:
    """Every experiment, arm and seed that is not there yet, then all figures."""
    until = time.process_time() + float(os.environ.get("PACED_LEARNING_SECONDS", "inf"))
    experiments = {"hard": Experiment(small_settings(), SMALL_ARMS)} if small else EXPERIMENTS
    rows: list[dict[str, Any]] = []
    commits: set[str] = set()
    for name, experiment in experiments.items():
        print(f"experiment {name}", file=sys.stderr, flush=True)
        results = complete(experiment, range(n_seeds or (1 if small else N_SEEDS)), until)
        rows += [{"experiment": name, **row} for row in summary(results)]
        commits |= {result["commit"] for result in results}
    plot(rows, PLOT)
    return {
        "commits": sorted(commits),
        "settings": {name: experiment.settings.as_dict() for name, experiment in experiments.items()},
        "rows": rows,
        "figures": {**_figures(rows), "plot": str(PLOT)},
    }


def complete(experiment: Experiment, seeds: range, until: float = float("inf")) -> list[Result]:
    """The results of one experiment: those on disk, and those that were missing, as far as the time allows."""
    settings, arms = experiment.settings, experiment.arms
    log = Log(models.HOME, settings.as_dict())
    digests = {arm: digest(ARMS[arm]) for arm in arms}
    left = missing(log.read(digests), arms, seeds)
    if left and time.process_time() < until:
        teacher, student = models.load(settings.teacher), models.load(settings.student)
        worlds: dict[int, Any] = {}
        for seed, arm in left:
            if time.process_time() >= until:
                break
            started = time.process_time()
            if seed not in worlds:
                worlds = {seed: make_world(settings, seed, student, teacher)}
            result = run_trial(settings, ARMS[arm], seed, worlds[seed], student, teacher)
            known = {"arm": arm, "digest": digests[arm], "seed": seed, "commit": commit()}
            log.append({**known, **result, "start": worlds[seed].start})
            print(
                f"seed {seed} {arm}: hold-out {result['curve'][0]['all']:.3f} -> "
                f"{result['curve'][-1]['all']:.3f} ({time.process_time() - started:.0f} s of CPU)",
                file=sys.stderr,
                flush=True,
            )
    return [result for result in log.read(digests) if result["seed"] in seeds]


def small_settings() -> Settings:
    """A minute or two in all; the models are too little taught to say anything of the method."""
    return Settings(
        teacher=replace(TEACHER, width=64, n_layers=2, n_steps=500, lengths=(1.0,) * 4),
        student=replace(STUDENT, n_layers=2, n_steps=250, lengths=(4.0, 4.0, 1.0)),
        n_pool=144,
        n_held_out=32,
        n_candidates=4_000,
        budget=8_000,
        n_checkpoints=4,
    )


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The first experiment's: tokens to uniform's final pass rate, as a share of its own, and final pass rates."""
    first = {row["arm"]: row for row in rows if row["experiment"] == rows[0]["experiment"]} if rows else {}
    figures: dict[str, Any] = {}
    for short, arm in (("uniform", "uniform"), ("hard", "hard_filter"), ("paper", "paper"), ("default", "default")):
        if arm in first:
            figures[f"accuracy_{short}"] = first[arm]["all"][0]
            figures[f"gain_over_uniform_{short}"] = first[arm]["all_over_uniform"]
            figures[f"examples_ratio_{short}"] = first[arm]["examples_ratio"][0]
            figures[f"measuring_tokens_{short}"] = first[arm]["measuring_tokens"][0]
    return {**figures, "seeds": min((row["n_seeds"] for row in rows), default=0)}
