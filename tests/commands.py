"""`paced` command lines in texts: found in shell code, and parsed by the real command line without being run."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from paced.cli import build

FILES = (".jsonl", ".csv", ".parquet", ".gz", ".toml")


def paced_commands(script: str) -> Iterator[list[str]]:
    """The words of each `paced` command in a shell script; variables stay as they are written."""
    for line in script.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*_words(line), ";"]:
            if set(word) <= set("();<>|&"):
                yield from _after_paced(words)
                words = []
            else:
                words.append(word)


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:  # a quotation that goes on over lines is no `paced` command
        return []


def _after_paced(words: Sequence[str]) -> Iterator[list[str]]:
    start = 0
    while start < len(words) and ("=" in words[start] or words[start] == "export"):
        start += 1
    if start < len(words) and Path(words[start]).name == "paced":
        yield list(words[start + 1 :])


def check_command(words: Sequence[str], folder: Path) -> None:
    """Parse a command with the real command line; raises its usage error. Files that it names are made in `folder`."""
    command: Any = typer.main.get_command(build())
    left = [str(_file(folder, word)) if word.endswith(FILES) and "=" not in word else word for word in words]
    while hasattr(command, "commands"):
        assert left, f"`paced {' '.join(words)}` names no command"
        name = left.pop(0)
        assert name in command.commands, f"there is no command `paced {name}`"
        command = command.commands[name]
    command.make_context("paced", left)


def _file(folder: Path, name: str) -> Path:
    path = folder / Path(name).name
    path.touch()
    return path
