"""The command `paced distill`: options in, exit code out."""

import json
import logging
import signal
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paced.client import Client
from worker.distill.config import DistillConfig, load_config, parse_setting
from worker.distill.errors import DistillError, Interrupted
from worker.distill.stages import Stop, obeying_signals

SIGNAL_EXIT = 128  # plus the signal's number, as shells do


def distill(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file of settings; options below override it.", dir_okay=False)
    ] = None,
    curriculum: Annotated[str | None, typer.Option(help="Id of the curriculum to train on.")] = None,
    student: Annotated[Path | None, typer.Option(help="Hugging Face folder of the student at step 0.")] = None,
    teacher: Annotated[str | None, typer.Option(help="'self', or the folder of a teacher. [self]")] = None,
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
) -> None:
    """Distil a student on a curriculum's batches: forward KL, then reverse KL, as its schedule says.

    Started again with the same settings, a run goes on where it was. Ctrl-C or SIGTERM finishes the step, saves and
    exits with 130 or 143; a second one drops the step. Exit code 1: the message says what to mend.
    """
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
    console = Console(stderr=True)
    _configure_logs(console)
    try:
        overrides = {**dict(parse_setting(text) for text in settings or []), **_given(chosen)}
        done = _run(load_config(config, overrides), url, key, console)
    except KeyboardInterrupt as error:
        _say(console, "dropped the step in hand; the same command resumes at the last saved step")
        raise typer.Exit(SIGNAL_EXIT + signal.SIGINT) from error
    except Interrupted as error:
        _say(console, str(error))
        raise typer.Exit(SIGNAL_EXIT + error.signal_number) from error
    except DistillError as error:
        _say(console, f"error: {error}")
        raise typer.Exit(1) from error
    _say(console, f"done: {done['n_steps']} steps, checkpoint {done['checkpoint_index']}, {done['out']}")
    if is_json:
        typer.echo(json.dumps(done))


def _given(chosen: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chosen.items() if value is not None}


def _run(config: DistillConfig, url: str | None, key: str | None, console: Console) -> dict[str, Any]:
    """Train under a progress bar."""
    from worker.distill.train import train  # torch takes seconds to import: not for --help

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    stop = Stop()
    with Client(url, key) as client, obeying_signals(stop), Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None)

        def watch(step: int, n_steps: int | None, values: dict[str, float]) -> None:
            total = config.max_steps if n_steps is None else min(n_steps, config.max_steps or n_steps)
            loss = f"loss {values['loss']:.4f}" if "loss" in values else "nothing to learn"
            progress.update(task, completed=step + 1, total=total, description=f"step {step}: {loss}")

        return train(config, client, stop, watch)


def _configure_logs(console: Console) -> None:
    handler = RichHandler(console=console, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("worker.distill").setLevel(logging.INFO)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
