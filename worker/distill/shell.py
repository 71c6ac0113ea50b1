"""Around every command that trains: logs, a progress bar, and errors as plain lines and exit codes."""

import contextlib
import json
import logging
import signal
import time
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paced.client import Client
from worker.distill.config import DistillConfig
from worker.distill.errors import DistillError, Interrupted
from worker.distill.stages import Stop, obeying_signals

SIGNAL_EXIT = 128  # plus the signal's number, as shells do
SAY_EVERY_S = 20.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exits() -> Iterator[Console]:
    """A console on standard error; what ends a run early ends the command with a plain line and an exit code."""
    console = Console(stderr=True)
    _configure_logs(console)
    try:
        yield console
    except KeyboardInterrupt as error:
        say(console, "dropped the step in hand; the same command resumes at the last saved step")
        raise typer.Exit(SIGNAL_EXIT + signal.SIGINT) from error
    except Interrupted as error:
        say(console, str(error))
        raise typer.Exit(SIGNAL_EXIT + error.signal_number) from error
    except DistillError as error:
        say(console, f"error: {error}")
        raise typer.Exit(1) from error


def train_shown(config: DistillConfig, url: str | None, key: str | None, console: Console, *, is_json: bool) -> None:
    """Train under a progress bar, and say what came of it."""
    from worker.distill.ranks import is_first_launched  # torch takes seconds to import: not for --help
    from worker.distill.train import train

    is_first = is_first_launched()
    if not is_first:
        logging.getLogger("worker.distill").setLevel(logging.ERROR)  # the first process says it
    stop = Stop()
    with Client(url, key) as client, obeying_signals(stop), _bar(console, is_shown=is_first) as progress:
        task = progress.add_task("starting", total=None)

        def watch(step: int, n_steps: int | None, values: dict[str, float]) -> None:
            total = config.max_steps if n_steps is None else min(n_steps, config.max_steps or n_steps)
            loss = f"loss {values['loss']:.4f}" if "loss" in values else "nothing to learn"
            progress.update(task, completed=step + 1, total=total, description=f"step {step}: {loss}")

        done = train(config, client, stop, watch)
    if not is_first:
        return
    say(console, f"done: {done['n_steps']} steps, checkpoint {done['checkpoint_index']}, {done['out']}")
    if is_json:
        typer.echo(json.dumps(done))


def _bar(console: Console, *, is_shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not is_shown)


def say(console: Console, text: str) -> None:
    """A plain line."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _configure_logs(console: Console) -> None:
    handler = RichHandler(console=console, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("worker.distill").setLevel(logging.INFO)
    with contextlib.suppress(ModuleNotFoundError):  # only a teacher behind a URL needs it
        from stamina.instrumentation import RetryDetails, set_on_retry_hooks

        said_s = -SAY_EVERY_S

        def hook(details: RetryDetails) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= SAY_EVERY_S:  # many requests wait at once
                said_s = time.monotonic()
                log.warning("the teacher does not answer (%s): trying again", details.caused_by)

        set_on_retry_hooks([hook])
