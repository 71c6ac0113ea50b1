"""Commands of the GPU side: rollout, distill."""

import typer

from worker.distill.command import distill
from worker.rollout.command import rollout


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(rollout)
    cli.command()(distill)
