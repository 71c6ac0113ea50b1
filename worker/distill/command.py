"""The command `paced distill`: options in, exit code out."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from worker.distill.config import DistillConfig, load_config, parse_setting
from worker.distill.shell import exits, train_shown


def distill(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file of settings; options below override it.", dir_okay=False)
    ] = None,
    curriculum: Annotated[str | None, typer.Option(help="Id of the curriculum to train on.")] = None,
    student: Annotated[Path | None, typer.Option(help="Hugging Face folder of the student at step 0.")] = None,
    teacher: Annotated[str | None, typer.Option(help="'self', or a teacher's folder or URL. [self]")] = None,
    run: Annotated[str | None, typer.Option(help="The run's name. [distill]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of checkpoints, metrics and state. [distill]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Problems a step. [16]")] = None,
    micro_batch_size: Annotated[int | None, typer.Option(help="Sequences at once. [16]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's. [2e-5]")] = None,
    reverse_learning_rate: Annotated[float | None, typer.Option(help="In the reverse stage. [the same]")] = None,
    reduction: Annotated[
        Literal["seq_mean", "token_mean", "seq_sum"] | None, typer.Option(help="Over a sequence's tokens. [seq_mean]")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="End here even if the schedule goes on.")] = None,
    engine: Annotated[
        Literal["auto", "transformers", "vllm"] | None, typer.Option(help="Writes the teacher's text. [auto]")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between registered checkpoints; 0: at stage ends. [0]")
    ] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between saved resume states. [20]")] = None,
    wait_for_measurement: Annotated[
        bool | None,
        typer.Option(
            "--wait-for-measurement/--no-wait-for-measurement",
            help="Before each stage wait until the student is measured. [wait]",
        ),
    ] = None,
    wait_s: Annotated[float | None, typer.Option(help="Longest wait for rollout workers, seconds. [3600]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. [0]")] = None,
    device: Annotated[str | None, typer.Option(help="'auto' or a torch device. [auto]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as NAME=VALUE; repeatable.")
    ] = None,
    url: Annotated[str | None, typer.Option(envvar="PACED_URL", help="The service.")] = None,
    key: Annotated[str | None, typer.Option(envvar="PACED_KEY", help="An API key with the scope train.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print the final report as JSON.")] = False,
    is_check: Annotated[
        bool, typer.Option("--check", help="Only prove that the teachers can teach this student; trains nothing.")
    ] = False,
    parity: Annotated[
        Path | None,
        typer.Option(help="With --check: a folder of the served teacher's weights, to compare both.", file_okay=False),
    ] = None,
) -> None:
    """Distil a student on a curriculum's batches: forward KL, then reverse KL, as its schedule says.

    Started again with the same settings, a run goes on where it was. Ctrl-C or SIGTERM finishes the step, saves and
    exits with 130 or 143; a second one drops the step. Exit code 1: the message says what to mend.
    """
    if parity is not None and not is_check:
        raise typer.BadParameter("it is compared by --check, which trains nothing: give both", param_hint="--parity")
    chosen = {
        "curriculum_id": curriculum,
        "student": student,
        "teacher": teacher,
        "run_name": run,
        "out": out,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "learning_rate": learning_rate,
        "reverse_learning_rate": reverse_learning_rate,
        "reduction": reduction,
        "max_steps": max_steps,
        "engine": engine,
        "checkpoint_every": checkpoint_every,
        "save_every": save_every,
        "wait_for_measurement": wait_for_measurement,
        "wait_s": wait_s,
        "seed": seed,
        "device": device,
    }
    with exits() as console:
        overrides = {**dict(parse_setting(text) for text in settings or []), **_given(chosen)}
        if is_check:
            _check(load_config(config, overrides, {"curriculum_id": "unchecked"}), parity, is_json)
        else:
            train_shown(load_config(config, overrides), url, key, console, is_json=is_json)


def _given(chosen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chosen.items() if value is not None}


def _check(config: DistillConfig, parity: Path | None, is_json: bool) -> None:
    from worker.distill.check import check, told

    rows = check(config, parity)
    typer.echo(json.dumps({"teachers": rows}) if is_json else "\n".join(map(told, rows)))
