"""Pieces of Markdown that the generated pages share. Pure."""

import inspect
import json
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

HEADER = "<!-- Written by docs/generate.py from the code; change the code, then run it again. -->\n\n"


def code(value: Any) -> str:
    """A default value as code; nothing for one that is absent."""
    if value is None or value is PydanticUndefined:
        return ""
    plain = value.value if isinstance(value, Enum) else str(value) if isinstance(value, Path) else value
    shown = plain.replace("\n", "\\n") if isinstance(plain, str) and plain else json.dumps(plain)
    return f"`{shown}`"


def prose(text: str | None) -> str:
    """A docstring without its indentation."""
    return inspect.cleandoc(text or "")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
