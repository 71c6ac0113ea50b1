"""Rows to a file: JSONL and CSV with the standard library, Parquet with polars where it is installed."""

import csv
import json
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from paced.errors import PacedError


class Format(StrEnum):
    """File formats of an export."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def write_rows(path: Path, file_format: Format | None, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows and return their number; the file appears whole or not at all."""
    chosen = file_format or _by_ending(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        n_rows = _WRITERS[chosen](draft, rows)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return n_rows


def _by_ending(path: Path) -> Format:
    try:
        return Format(path.suffix.removeprefix("."))
    except ValueError as error:
        raise PacedError(f"cannot tell the format from {path.name!r}; name it with --format") from error


def _jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n_rows += 1
    return n_rows


def _csv(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            writer = writer or _started(csv.DictWriter(file, list(row)))
            writer.writerow({name: _cell(value) for name, value in row.items()})
            n_rows += 1
    return n_rows


def _started(writer: "csv.DictWriter[str]") -> "csv.DictWriter[str]":
    writer.writeheader()
    return writer


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _parquet(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    try:
        import polars
    except ModuleNotFoundError as error:
        raise PacedError("Parquet needs polars: `pip install polars`, or write JSONL or CSV") from error
    flat = [{name: _cell(value) for name, value in row.items()} for row in rows]
    polars.DataFrame(flat, infer_schema_length=None).write_parquet(path)
    return len(flat)


_WRITERS = {Format.JSONL: _jsonl, Format.CSV: _csv, Format.PARQUET: _parquet}
