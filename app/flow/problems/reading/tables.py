"""Rows of CSV, Parquet and Arrow files, a bounded number of bytes or rows in memory at a time."""

import csv
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from .drafts import RowRefused, UnreadableFile
from .lines import Line, damaged, not_utf8, read_lines, too_long
from .unpacking import DAMAGE, Source, damaged_head, open_bytes

PARQUET_ROWS = 2048
_DELIMITERS = ",;\t|"
_ENGINE_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
Row = tuple[int, dict[str, Any]]
Cells = tuple[int, list[str]]


def read_csv(file: Source, max_bytes: int) -> Iterator[Row | RowRefused]:
    """Rows of a CSV file with a header line; quoted fields may hold line ends.

    The delimiter is the one of comma, semicolon, tab and bar that the header holds most of. Numbers stay text.
    Raises UnreadableFile if the header cannot be read.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    feed = _Feed(read_lines(file, max_bytes), max_bytes)
    delimiter = feed.sniff()
    rows = _read_cells(feed, delimiter)
    header = _read_header(next(rows, (1, [])))
    for row in rows:
        if isinstance(row, RowRefused):
            yield row
            continue
        line, cells = row
        if len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:
            found = f"{len(cells)} columns, the header has {len(header)}"
            yield RowRefused(line, "bad_csv", f"{found}; quote fields that hold '{delimiter}' or line ends")


def read_frames(path: Path, kind: str, columns: Sequence[str]) -> Iterator[Row | RowRefused]:
    """Rows of a Parquet or Arrow file from 1, only these columns.

    A part that cannot be read ends the file with one refusal. An Arrow stream is held as a whole: it has no index.
    """
    number = 1
    try:
        for frame in _frames(path, kind, columns):
            for start in range(0, frame.height, PARQUET_ROWS):
                for row in frame.slice(start, PARQUET_ROWS).iter_rows(named=True):
                    yield number, row
                    number += 1
    except _ENGINE_ERRORS as error:
        name = "Parquet" if kind == "parquet" else "Arrow"
        yield damaged(number, f"the {name} data cannot be read from this row on ({_first_line(error)})")


def read_columns(path: Path, kind: str) -> list[str]:
    """The names of the columns; raises UnreadableFile if the file is not of its kind or its schema is lost."""
    try:
        if kind == "arrow_stream":
            return pl.read_ipc_stream(path, n_rows=0, use_pyarrow=False).columns
        return _scan(path, kind).collect_schema().names()
    except _ENGINE_ERRORS as error:
        reason = f"({_first_line(error)}); write or send it again"
        if kind == "parquet":
            raise UnreadableFile("bad_parquet", f"not a whole Parquet file {reason}") from None
        raise UnreadableFile("bad_arrow", f"not a whole Arrow file {reason}") from None


def _scan(path: Path, kind: str) -> pl.LazyFrame:
    return pl.scan_parquet(path) if kind == "parquet" else pl.scan_ipc(path)


def _frames(path: Path, kind: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    if kind == "arrow_stream":
        yield pl.read_ipc_stream(path, columns=list(columns), use_pyarrow=False)
    else:
        yield from _scan(path, kind).select(columns).collect_batches(chunk_size=PARQUET_ROWS, maintain_order=True)


@contextmanager
def unpacked(path: Path, packing: str) -> Iterator[Path]:
    """The file itself, or a packed one unpacked to a temporary file: Parquet is read from its end.

    Raises UnreadableFile if the packed data is damaged.
    """
    if not packing:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="paced-import-") as folder:
        plain = Path(folder) / "rows"
        try:
            with open_bytes(path, packing) as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
        except DAMAGE as error:
            raise damaged_head(packing, error) from None
        yield plain


class _StoppedError(Exception):
    """Ends the row that the CSV parser is in; `is_last` ends the file."""

    def __init__(self, refusal: RowRefused, *, is_last: bool = False) -> None:
        self.refusal = refusal
        self.is_last = is_last


class _Feed:
    """Decoded lines for the CSV parser; knows where the current row began, how long it is, what was not UTF-8."""

    def __init__(self, lines: Iterator[Line | RowRefused], max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self.begin_row()

    def begin_row(self) -> None:
        self.first_line = 0
        self.undecoded: RowRefused | None = None
        self._n_bytes = 0

    def sniff(self) -> str:
        """The delimiter that the first line holds most of."""
        first = next(self._lines, None)
        if first is None:
            return _DELIMITERS[0]
        self._lines = chain([first], self._lines)
        text = first.content if isinstance(first, Line) else None
        return max(_DELIMITERS, key=lambda delimiter: (text or b"").count(delimiter.encode()))

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if isinstance(line, RowRefused):
            raise _StoppedError(line, is_last=True)
        self.first_line = self.first_line or line.number
        if line.content is None or self._n_bytes + len(line.content) > self._max_bytes:
            raise _StoppedError(too_long(self.first_line, self._max_bytes))
        self._n_bytes += len(line.content) + 1
        try:
            return line.content.decode() + "\n"
        except UnicodeDecodeError as error:
            self.undecoded = self.undecoded or not_utf8(line.number, error)
            return line.content.decode(errors="replace") + "\n"


def _read_cells(feed: _Feed, delimiter: str) -> Iterator[Cells | RowRefused]:
    """The line and cells of each row; after a refused one, reading goes on at the next line."""
    rows = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin_row()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except _StoppedError as stopped:
            yield stopped.refusal
            if stopped.is_last:
                return
        except csv.Error as error:
            yield _bad_csv(feed, error)
        else:
            yield feed.undecoded or (feed.first_line, cells)


def _read_header(row: Cells | RowRefused) -> list[str]:
    if isinstance(row, RowRefused):
        raise UnreadableFile(row.code, f"the header cannot be read: {row.reason}")
    header = [cell.strip() for cell in row[1]]
    if len(set(header)) < len(header) or not any(header):
        found = ", ".join(header) or "nothing"
        raise UnreadableFile("bad_header", f"line 1 must hold distinct column names, it holds {found}")
    return header


def _bad_csv(feed: _Feed, error: csv.Error) -> RowRefused:
    if "unexpected end of data" in str(error):
        found = f"the quote opened in the row of line {feed.first_line} is never closed; nothing after it was read"
        return RowRefused(feed.first_line, "bad_csv", f'{found}: close it, and write "" for a quote inside a field')
    return RowRefused(feed.first_line, "bad_csv", f'not CSV: {error}; write "" for a quote inside a quoted field')


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
