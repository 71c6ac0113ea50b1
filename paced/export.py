"""Rows to a file, or to a folder as Hugging Face `datasets` reads it; Parquet through polars where it is installed."""

import csv
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from paced.errors import PacedError

Row = dict[str, Any]


class Format(StrEnum):
    """File formats of an export; `dataset` is a folder with a card, that `datasets.load_dataset` reads."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    DATASET = "dataset"


def write_rows(path: Path, file_format: Format | None, rows: Iterator[Row]) -> int:
    """Write rows and return their number; the file or folder appears whole or not at all."""
    chosen = file_format or _by_ending(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        n_rows = _dataset(draft, rows) if chosen == Format.DATASET else _WRITERS[chosen](draft, rows)
        if path.is_dir():
            raise PacedError(f"{path} is a folder that exists; name another, or remove it")
        draft.replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)
    return n_rows


def _by_ending(path: Path) -> Format:
    try:
        return Format(path.suffix.removeprefix("."))
    except ValueError as error:
        raise PacedError(f"cannot tell the format from {path.name!r}; name it with --format") from error


def _dataset(folder: Path, rows: Iterator[Row]) -> int:
    """One file a split, the hold-out being `test`; and a card that names them."""
    chosen = Format.PARQUET if importlib.util.find_spec("polars") else Format.JSONL
    (folder / "data").mkdir(parents=True)
    held: dict[str, list[Row]] = {"train": [], "test": []}
    for row in rows:
        held["test" if row["is_holdout"] else "train"].append(row)
    found = {split: kept for split, kept in held.items() if kept}
    for split, kept in found.items():
        name = f"{split}-00000-of-00001.{chosen}"
        _WRITERS[chosen](folder / "data" / name, iter(_uniform(kept, is_chat=_has_chats(rows=held))))
    splits = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in found)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n\n# Problems with pass rates\n\n{_CARD}"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return sum(map(len, found.values()))


_CARD = """`pass_rate` is the posterior mean of the student's chance to solve the problem, `interval` its central 90 %,
`n_passed` of `n_counted` the answers behind it, `weight` what a weighted draw would give it, relative to the heaviest
possible. Problems of the split `test` are held out: they measure progress and are not for training.
"""


def _has_chats(rows: dict[str, list[Row]]) -> bool:
    return any(not isinstance(row["prompt"], str) for kept in rows.values() for row in kept)


def _uniform(rows: list[Row], *, is_chat: bool) -> list[Row]:
    """Rows of one type a column: where some prompts are chats all are, and counts by verdict are JSON."""

    def prompt(value: Any) -> Any:
        return [{"role": "user", "content": value}] if is_chat and isinstance(value, str) else value

    return [{**row, "prompt": prompt(row["prompt"]), "verdicts": _cell(row["verdicts"])} for row in rows]


def _jsonl(path: Path, rows: Iterator[Row]) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n_rows += 1
    return n_rows


def _csv(path: Path, rows: Iterator[Row]) -> int:
    with path.open("w", encoding="utf-8", newline="") as file:
        return write_csv(file, rows)


def write_csv(file: TextIO, rows: Iterable[Row]) -> int:
    """Write rows under the names of the first one's fields and return their number; lists and objects are JSON."""
    n_rows = 0
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


def _parquet(path: Path, rows: Iterator[Row]) -> int:
    """Lists stay lists; what is not of one type in all rows is JSON."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise PacedError("Parquet needs polars: `pip install polars`, or write JSONL or CSV") from error
    kept = list(rows)
    is_text = {name for row in kept for name, value in row.items() if isinstance(value, str | dict)}
    flat = [{name: _cell(value) if name in is_text else value for name, value in row.items()} for row in kept]
    real, text = polars.Float64, ("solution", "flag", "flag_detail", "measured_at", "quarantine_reason")
    types: dict[str, Any] = {"pass_rate": real, "weight": real, "interval": polars.List(real)}
    types |= {"checkpoint_index": polars.Int64, **dict.fromkeys(text, polars.String)}
    empty = {name: kind for name, kind in types.items() if kept and name in kept[0]}  # the same in every split
    polars.DataFrame(flat, infer_schema_length=None, schema_overrides=empty).write_parquet(path)
    return len(flat)


_WRITERS: dict[Format, Callable[[Path, Iterator[Row]], int]] = {
    Format.JSONL: _jsonl,
    Format.CSV: _csv,
    Format.PARQUET: _parquet,
}
