"""From a file to problem drafts: JSON, CSV, Parquet or Arrow, packed or not, told apart by content before name."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import orjson

from .arrays import name_of_array, read_array
from .drafts import ProblemDraft, ReadOptions, RowRefused, UnreadableFile
from .fields import known_fields
from .lines import ARROW, ARROW_STREAM, PARQUET, Head, not_utf8, read_head, read_lines, too_long
from .shapes import Shaper
from .tables import Row, read_columns, read_csv, read_frames, unpacked
from .unpacking import Source, open_text, packing_of

COLUMNAR = frozenset({"parquet", "arrow", "arrow_stream"})
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


class ImportStream:
    """The rows of one file as drafts and refusals, in file order, with bounded memory.

    `format` is jsonl, json, csv, parquet, arrow or arrow_stream, with `.gz` or `.zst` if packed. `shape` is that of
    most rows shaped so far, so it is final after iterating; `notes` say what else was found. Each iteration reads the
    file anew. Iterating never raises for a row; it raises UnreadableFile if there is no row to begin with.
    """

    def __init__(self, path: Path, file_name: str, options: ReadOptions, kind: str, packing: str, head: Head) -> None:
        self.format = f"{kind}.{packing}" if packing else kind
        self.notes = ["the file is UTF-16 and was read as such"] if head.is_utf16 else []
        self._path = path
        self._file_name = file_name
        self._options = options
        self._kind = kind
        self._packing = packing
        self._head = head
        self._shaper = Shaper(file_name, options)

    @property
    def shape(self) -> str:
        """The name of the shape of most rows, `unknown` if none was shaped."""
        return self._shaper.shape

    def __iter__(self) -> Iterator[ProblemDraft | RowRefused]:
        rows = self._columnar_rows() if self._kind in COLUMNAR else self._text_rows()
        with closing(rows):
            self._shaper = Shaper(self._file_name, self._options)
            for row in rows:
                yield row if isinstance(row, RowRefused) else self._shaper.draft(*row)

    def _text_rows(self) -> Generator[Row | RowRefused, None, None]:
        with open_text(self._path, self._packing, is_utf16=self._head.is_utf16) as file:
            if self._kind == "json":
                name = name_of_array(self._head.content)
                yield from read_array(file, self._options.max_line_bytes, name)
            else:
                yield from READERS[self._kind](file, self._options.max_line_bytes)

    def _columnar_rows(self) -> Generator[Row | RowRefused, None, None]:
        with unpacked(self._path, self._packing) as path:
            columns = read_columns(path, self._kind)
            self._shaper = Shaper(self._file_name, self._options, columns)
            yield from read_frames(path, self._kind, self._wanted(columns))

    def _wanted(self, columns: Sequence[str]) -> list[str]:
        known = known_fields(self._options) | self._shaper.template_fields
        return [name for name in columns if name.lower() in known or name in known] or list(columns[:1])


def read_problems(path: Path, file_name: str, options: ReadOptions | None = None) -> ImportStream:
    """Opens a file of problems; `file_name` is what the user called it, `path` where its bytes lie.

    Raises UnreadableFile if the file is empty, of no known format, or damaged from its start, or if a template is
    not Jinja.
    """
    packing = packing_of(path)
    head = read_head(path, packing)
    kind = _find_format(head.content, file_name)
    if kind in COLUMNAR and not packing:
        read_columns(path, kind)
    return ImportStream(path, file_name, options or ReadOptions(), kind, packing, head)


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


READERS: dict[str, Callable[[Source, int], Iterator[Row | RowRefused]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
}
_MAGIC = {PARQUET: "parquet", ARROW: "arrow", ARROW_STREAM: "arrow_stream"}


def _find_format(head: bytes, file_name: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(file_name).suffixes]
    named = next((_SUFFIXES[suffix] for suffix in reversed(suffixes) if suffix in _SUFFIXES), None)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if named == "parquet":
        raise UnreadableFile("bad_parquet", "not a Parquet file: it does not begin with PAR1; write or send it again")
    if named == "arrow":
        raise UnreadableFile("bad_arrow", "not an Arrow file: it begins with no mark of one; write or send it again")
    first = head.lstrip()[:2]
    if (first.startswith(b"[") and _is_array(head)) or name_of_array(head):
        return "json"
    if first.startswith(b"{") or named == "jsonl":
        return "jsonl"
    if named == "csv" or b"," in head.partition(b"\n")[0]:
        return "csv"
    raise UnreadableFile(
        "unknown_format", f"'{file_name}' is not known as JSON, CSV, Parquet or Arrow; name it .jsonl or .csv"
    )


def _is_array(head: bytes) -> bool:
    """Whether an array of objects begins, in whatever layout, and not a line that is a list."""
    return head.lstrip()[1:].lstrip()[:1] in (b"{", b"")
