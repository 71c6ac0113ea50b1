"""Commands of the GPU side: rollout, distill, arm."""

import typer

from worker.distill.arm import arm
from worker.distill.command import distill
from worker.rollout.command import rollout


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(rollout)
    cli.command()(distill)
    cli.command()(arm)
