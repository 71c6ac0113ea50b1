"""Write the reference pages from the code: docs/api.md, docs/settings.md, docs/cli.md and docs/python.md.

`python docs/generate.py` writes them; with `--check` it only names those out of date and exits with 1.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from app.main import create_app
from app.settings import Settings
from docs.markdown import HEADER, code, prose, table
from docs.openapi import api_page
from docs.python import python_page
from paced.cli import build
from worker.distill.config import DistillConfig

DOCS = Path(__file__).resolve().parent
CLIENT_VARIABLES = (
    ("PACED_URL", "http://127.0.0.1:8420", "Address of the service"),
    ("PACED_KEY", None, "API key; on the service's own machine its first admin key is found without this"),
    ("PACED_DATA", "data", "Folder in which the client looks for that first key (`admin.key`)"),
)


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {
        "api.md": api_page(create_app(Settings())),
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "python.md": python_page(),
    }


def settings_page() -> str:
    """Settings of the service, the variables that its clients read, and the settings of a training run."""
    head = ("variable", "default", "meaning")
    rows = [
        (f"`PACED_{name.upper()}`", code(field.default), _meaning(field))
        for name, field in Settings.model_fields.items()
    ]
    clients = [(f"`{name}`", code(default), text) for name, default, text in CLIENT_VARIABLES]
    training = [
        (f"`{name}`", "required" if field.is_required() else code(field.default), _meaning(field))
        for name, field in DistillConfig.model_fields.items()
    ]
    return (
        f"{HEADER}# Settings\n\n## Of the service\n\n"
        "Environment variables of `paced serve`; `paced migrate`, `paced rebuild` and `paced replay` read those that "
        "name the data folder and the database. An option of the same name wins.\n\n"
        f"{table(head, rows)}\n## Of its clients\n\n"
        "Commands that talk to a service and `paced.Client` read these; `--url` and `--key` win.\n\n"
        f"{table(head, clients)}\n## Of a training run\n\n"
        "`paced distill FILE.toml` reads these from a file; each can be given as `--set NAME=VALUE`, the usual ones as "
        "options of their own.\n\n"
        f"{table(('setting', *head[1:]), training)}\n## Elsewhere\n\n"
        "What a curriculum, a sampling profile or a measurement can be set to stands with their requests in "
        "[the API](api.md#models), the options of workers in [the command line](cli.md).\n"
    )


def _meaning(field: FieldInfo) -> str:
    """A field's description, choices and bounds; those of an optional field stand inside its type."""
    inside = [item for part in get_args(field.annotation) for item in getattr(part, "__metadata__", ())]
    infos = [field, *(item for item in inside if isinstance(item, FieldInfo))]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [item for info in infos for item in info.metadata]
    found = [f"{signs[name]} {getattr(item, name):,}" for item in bounds for name in signs if hasattr(item, name)]
    choices = [f"`{item}`" for item in _choices(field.annotation)]
    notes = [*([f"one of {', '.join(choices)}"] if choices else []), *found]
    text = next((info.description for info in infos if info.description), None)
    return " ".join(filter(None, [text, f"({', '.join(notes)})" if notes else None]))


def _choices(annotation: Any) -> list[str]:
    """The values that a type allows, where it names them."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(item.value) for item in annotation]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def cli_page() -> str:
    """Every command with its arguments and options."""
    parts = [HEADER, "# Command line\n\n", "`paced COMMAND --help` shows the same in a terminal.\n"]
    for name, command in commands(typer.main.get_command(build()), "paced"):
        parts.append(f"\n## {name}\n\n{prose(command.help)}\n")
        rows = [_parameter(p) for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
        if rows:
            parts.append("\n" + table(("argument or option", "default", "meaning"), rows))
    return "".join(parts)


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Commands with their full names, in the order of registration."""
    for name, child in group.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, f"{path} {name}")
        else:
            yield f"{path} {name}", child


def _parameter(parameter: Any) -> tuple[str, str, str]:
    is_option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name.upper()]
    told = getattr(parameter, "show_default", None)
    shown = "required" if parameter.required else "off" if parameter.default is False else code(parameter.default)
    shown = told if isinstance(told, str) else shown
    choices = ", ".join(f"`{item}`" for item in _choices(parameter.type_descriptor.annotation))
    notes = [f"(one of {choices})" if choices else None, f"(`{parameter.envvar}`)" if parameter.envvar else None]
    meaning = " ".join(filter(None, [parameter.help, *notes]))
    return ", ".join(f"`{name}`" for name in names), shown, meaning


def stale() -> dict[str, str]:
    """Pages whose file differs from what the code says, with the text that they should have."""
    made = {DOCS / name: text for name, text in pages().items()}
    return {
        path.name: text for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check name those out of date; returns the exit code."""
    old, is_check = stale(), "--check" in arguments
    for name, text in old.items():
        sys.stdout.write(f"docs/{name} {'is out of date' if is_check else 'written'}\n")
        if not is_check:
            (DOCS / name).write_text(text, encoding="utf-8")
    return 1 if old and is_check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
