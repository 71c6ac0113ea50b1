"""What `--help` shows: paragraphs as wide as the terminal, with nothing swallowed."""

import inspect
import itertools
import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from docs.generate import commands
from paced.cli import build

COMMANDS = dict(commands(typer.main.get_command(build()), "paced"))


def shown(name: str, width: int = 80) -> str:
    done = CliRunner().invoke(build(), [*name.split()[1:], "--help"], env={"COLUMNS": str(width), "TERM": "dumb"})
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_explained_in_whole_paragraphs(name: str) -> None:
    text = shown(name).partition("\u256d")[0]
    *_, told = re.split(r"Usage:.*?\n\s*\n", text, maxsplit=1, flags=re.DOTALL)
    assert told.split() == inspect.cleandoc(COMMANDS[name].help).replace("`", "").split()
    for paragraph in re.split(r"\n\s*\n", told.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        for line, following in itertools.pairwise(lines):
            assert len(f"{line} {following.split()[0]}") > 76, "the line breaks before it is full"


def test_what_stands_in_brackets_is_shown() -> None:
    assert "[self]" in shown("paced distill", 120)


def test_every_option_is_explained() -> None:
    def silent(command: Any) -> list[str]:
        return [p.name for p in command.params if not p.help and not getattr(p, "hidden", False)]

    assert {name: silent(command) for name, command in COMMANDS.items() if silent(command)} == {}
