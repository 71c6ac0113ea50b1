"""From a file to problem drafts: JSONL, CSV or Parquet, plain or gzipped, told apart by content before name."""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import orjson

from .drafts import ProblemDraft, ReadOptions, RowRefused, UnreadableFile
from .fields import known_fields
from .lines import PARQUET, Source, is_gzip, not_utf8, open_bytes, read_head, read_lines, too_long
from .shapes import Shaper
from .tables import Row, parquet_columns, read_csv, read_parquet, unpacked

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class ImportStream:
    """The rows of one file as drafts and refusals, in file order, with bounded memory.

    `format` is jsonl, csv or parquet, with `.gz` if packed. `shape` is that of most rows shaped so far, so it is
    final after iterating. Each iteration reads the file anew. Iterating never raises for a row; it raises
    UnreadableFile if there is no row to begin with.
    """

    def __init__(self, path: Path, file_name: str, options: ReadOptions, kind: str, is_packed: bool) -> None:
        self.format = f"{kind}.gz" if is_packed else kind
        self._path = path
        self._file_name = file_name
        self._options = options
        self._kind = kind
        self._is_packed = is_packed
        self._shaper = Shaper(file_name, options)

    @property
    def shape(self) -> str:
        """The name of the shape of most rows, `unknown` if none was shaped."""
        return self._shaper.shape

    def __iter__(self) -> Iterator[ProblemDraft | RowRefused]:
        rows = self._parquet_rows() if self._kind == "parquet" else self._text_rows()
        with closing(rows):
            self._shaper = Shaper(self._file_name, self._options)
            for row in rows:
                yield row if isinstance(row, RowRefused) else self._shaper.draft(*row)

    def _text_rows(self) -> Generator[Row | RowRefused, None, None]:
        read = read_csv if self._kind == "csv" else read_jsonl
        with open_bytes(self._path, is_packed=self._is_packed) as file:
            yield from read(file, self._options.max_line_bytes)

    def _parquet_rows(self) -> Generator[Row | RowRefused, None, None]:
        known = known_fields(self._options)
        with unpacked(self._path, is_packed=self._is_packed) as path:
            columns = parquet_columns(path)
            self._shaper = Shaper(self._file_name, self._options, columns)
            yield from read_parquet(path, [name for name in columns if name.lower() in known] or columns[:1])


def read_problems(path: Path, file_name: str, options: ReadOptions | None = None) -> ImportStream:
    """Opens a file of problems; `file_name` is what the user called it, `path` where its bytes lie.

    Raises UnreadableFile if the file is empty, of no known format, damaged from its start, or UTF-16.
    """
    is_packed = is_gzip(path)
    head = read_head(path, is_packed=is_packed)
    kind = _find_format(head, file_name)
    if kind == "parquet" and not is_packed:
        parquet_columns(path)
    return ImportStream(path, file_name, options or ReadOptions(), kind, is_packed)


def read_jsonl(file: Source, max_bytes: int) -> Iterator[Row | RowRefused]:
    """Rows of a file with one JSON value a line; blank lines are passed over but counted as lines."""
    loads = orjson.loads
    for line in read_lines(file, max_bytes):
        if isinstance(line, RowRefused):
            yield line
        elif line.content is None:
            yield too_long(line.number, max_bytes)
        elif line.content:
            try:
                row = loads(line.content)
            except orjson.JSONDecodeError as error:
                refusal = _bad_line(line.number, line.content, error)
                if refusal:
                    yield refusal
            else:
                yield line.number, row


def _bad_line(number: int, content: bytes, error: orjson.JSONDecodeError) -> RowRefused | None:
    """Why the line is not JSON; None if it is only white space."""
    try:
        text = content.decode()
    except UnicodeDecodeError as undecoded:
        return not_utf8(number, undecoded)
    if not text.strip():
        return None
    reason = f"not JSON: {error.msg} at column {error.colno}; write one JSON object a line"
    return RowRefused(number, "bad_json", reason)


def _find_format(head: bytes, file_name: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(file_name).suffixes]
    named = next((_SUFFIXES[suffix] for suffix in reversed(suffixes) if suffix in _SUFFIXES), None)
    if head.startswith(PARQUET):
        return "parquet"
    if named == "parquet":
        raise UnreadableFile("bad_parquet", "not a Parquet file: it does not begin with PAR1; write or send it again")
    first = head.lstrip()[:1]
    if first == b"[" and _is_array(head):
        raise UnreadableFile("json_array", "one JSON array; write one object a line: jq -c '.[]' FILE > FILE.jsonl")
    if first == b"{" or named == "jsonl":
        return "jsonl"
    if named == "csv" or b"," in head.partition(b"\n")[0]:
        return "csv"
    raise UnreadableFile(
        "unknown_format", f"'{file_name}' is not known as JSONL, CSV or Parquet; name it .jsonl or .csv"
    )


def _is_array(head: bytes) -> bool:
    """Whether an array begins that goes on over lines, as pretty-printed or one element a line."""
    first, end, _ = head.lstrip().partition(b"\n")
    first = first.strip()
    return bool(end) and (first in (b"[", b"[{") or first.endswith(b","))
