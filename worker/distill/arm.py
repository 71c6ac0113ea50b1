"""The command `paced arm`: one arm of a comparison with one seed, from its curriculum to its trained student."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from paced import wire
from paced.client import Client
from paced.options import Key, Url
from worker.distill.arms import ALIASES, ARMS, Arm, find_arm
from worker.distill.config import DistillConfig, load_config, parse_setting
from worker.distill.errors import ConfigRefused
from worker.distill.shell import exits, train_shown


@dataclass(frozen=True, slots=True)
class Chosen:
    """What stays the same in all arms of a comparison, and the seed."""

    student: Path
    student_name: str
    problem_set: str
    profile_id: str | None
    n_rollouts: int
    holdout_share: float
    n_steps: int
    seed: int


def arm(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join([*ARMS, *ALIASES])}.")],
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file of settings of `paced distill`.", dir_okay=False)
    ] = None,
    *,
    student: Annotated[Path, typer.Option(help="Hugging Face folder of the student at step 0.")],
    problem_set: Annotated[str, typer.Option(help="Name of the problem set.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps in all stages.")],
    seed: Annotated[int, typer.Option(min=0, help="Of draws and of everything random in training.")] = 0,
    student_name: Annotated[
        str | None, typer.Option(help="Lineage's name, before arm and seed. [the folder's]")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Sampling profile's id. [the only one]")] = None,
    n_rollouts: Annotated[int, typer.Option(min=1, help="Answers a problem when it is measured.")] = 8,
    holdout_share: Annotated[float, typer.Option(min=0, max=0.99, help="Share of problems never trained on.")] = 0.1,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [runs/NAME-ARM-sSEED]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of `paced distill`, as NAME=VALUE; repeatable.")
    ] = None,
    url: Url = None,
    key: Key = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print the final report as JSON.")] = False,
) -> None:
    """Run one arm of a comparison with one seed: make its curriculum, train, register what was made.

    Each arm and seed trains a lineage of its own, NAME-ARM-sSEED, so that no arm sees another's pass rates; `paced
    rollout NAME-ARM-sSEED` measures it. Run again, it goes on where it was. `paced compare` tables the runs.
    """
    with exits() as console:
        own, found = find_arm(name)
        label = student_name or student.resolve().name
        chosen = Chosen(student, label, problem_set, profile, n_rollouts, holdout_share, steps, seed)
        with Client(url, key) as client:
            curriculum = make_curriculum(client, own, found, chosen)
        defaults = {"checkpoint_every": found.checkpoint_every(steps), "out": Path("runs") / curriculum.name}
        given = {"student": student, "out": out, **dict(parse_setting(text) for text in settings or [])}
        asked = load_config(config, {"curriculum_id": curriculum.curriculum_id, **given}, defaults)
        train_shown(as_arm(asked, fixed(own, found, curriculum, chosen)), url, key, console, is_json=is_json)


def as_arm(asked: DistillConfig, arms_own: dict[str, Any]) -> DistillConfig:
    """The settings with an arm's own. Raises ConfigRefused where they ask for others."""
    other = [name for name in asked.model_fields_set & arms_own.keys() if getattr(asked, name) != arms_own[name]]
    if other:
        lines = [f"  {name}: this arm has {arms_own[name]!r}, asked for is {getattr(asked, name)!r}" for name in other]
        raise ConfigRefused("\n".join(["an arm decides these settings itself:", *sorted(lines)]))
    return DistillConfig.model_validate({**asked.model_dump(exclude_unset=True), **arms_own})


def fixed(own: str, found: Arm, curriculum: wire.Curriculum, chosen: Chosen) -> dict[str, Any]:
    """The settings that make an arm what it is."""
    return {
        "curriculum_id": curriculum.curriculum_id,
        "run_name": f"{own}-s{chosen.seed}",
        "arm": own,
        "forward_divergence": found.divergence,
        "seed": chosen.seed,
    }


def make_curriculum(client: Client, own: str, found: Arm, chosen: Chosen) -> wire.Curriculum:
    """The curriculum of an arm and seed, with its student at checkpoint 0; made again, it is the same one."""
    name = f"{chosen.student_name}-{own}-s{chosen.seed}"
    client.create_student(wire.StudentCreate(name=name, description=f"{chosen.student_name}, arm {own}"))
    if next(iter(client.checkpoints(name)), None) is None:
        uri = str(chosen.student.resolve())
        client.register_checkpoint(name, wire.CheckpointCreate(uri=uri), key=f"{name}:ckpt:base")
    body = wire.CurriculumCreate(
        name=name,
        student=name,
        problem_set=chosen.problem_set,
        profile_id=chosen.profile_id or _only_profile(client),
        n_rollouts=chosen.n_rollouts,
        preset=found.preset,
        schedule=found.schedule(chosen.n_steps),
        holdout_share=chosen.holdout_share,
        seed=chosen.seed,
    )
    return client.create_curriculum(body)


def _only_profile(client: Client) -> str:
    found = [profile.profile_id for profile in client.profiles()]
    if len(found) == 1:
        return found[0]
    raise ConfigRefused(f"there are {len(found)} sampling profiles: name one by --profile ({', '.join(found[:20])})")
