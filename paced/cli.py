"""The `paced` command: gathers the commands of every part that is installed."""

import importlib
import sys
from collections.abc import Callable

import typer

from paced.errors import PacedError

# part -> (module with `register`, its commands, the extra that brings it)
PARTS = {
    "import": ("paced.importing", (), ""),
    "client": ("paced.commands", (), ""),
    "problems": ("paced.listing", (), ""),
    "rates": ("paced.rates", (), ""),
    "review": ("paced.review", (), ""),
    "watching": ("paced.watching", (), ""),
    "compare": ("paced.compare", (), ""),
    "service": ("app.cli", ("serve", "migrate", "rebuild", "replay"), "service"),
    "grading": ("worker.grading.command", ("grade", "regrade"), "grade"),
    "worker": ("worker.cli", ("rollout", "distill", "arm"), "rollout-cpu,train"),
    "demo": ("demo.cli", ("demo",), "service,rollout-cpu,train,demo"),
}
ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def build() -> typer.Typer:
    """The command line; parts that are not installed leave a command that says how to get them."""
    cli = typer.Typer(
        help="Train on what the student is about to learn: pass rates, Beta-weighted batches, distillation.",
        no_args_is_help=True,
        rich_markup_mode="markdown",  # else square brackets vanish: E[w]
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module, names, extra in PARTS.values():
        try:
            importlib.import_module(module).register(cli)
        except ModuleNotFoundError as error:
            for name in names:
                about = f"Not installed here: needs the extra [{extra}]."
                cli.command(name, help=about, context_settings=ANY_ARGUMENTS)(_missing(name, extra, error))
    return cli


def _missing(name: str, extra: str, error: ModuleNotFoundError) -> Callable[[], None]:
    def command() -> None:
        raise typer.BadParameter(
            f"`paced {name}` is not installed here ({error}). In a checkout of the project run "
            f"`pip install -e '.[{extra}]'`, or `make install`."
        )

    return command


def main() -> None:
    """Entry point: errors of the client end the command with one plain line and exit code 1."""
    try:
        build()()
    except PacedError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        raise SystemExit(1) from error
