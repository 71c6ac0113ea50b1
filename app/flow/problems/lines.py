"""Files as bytes and as lines: gzip by its magic bytes, encodings by their marks, lines of bounded length."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .drafts import MIB, RowRefused, UnreadableFile

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
Source = io.BufferedReader | gzip.GzipFile
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_DRAIN_BYTES = MIB
_BUFFER_BYTES = MIB // 4
_HEAD_BYTES = 4096
_OTHER_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"ARROW1": "an Arrow (Feather) file",
    b"\x1f\x8b": "gzip inside gzip",
}


class Line(NamedTuple):
    """One line without its end; `content` is None if the line is longer than allowed."""

    number: int
    content: bytes | None


def is_gzip(path: Path) -> bool:
    """Whether the file begins with gzip's magic bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def open_bytes(path: Path, *, is_packed: bool) -> Source:
    """The file's content, unpacked if it is gzip."""
    # No buffer around GzipFile: filling one would lose the rows before damage.
    return gzip.GzipFile(path) if is_packed else io.BufferedReader(io.FileIO(path), _BUFFER_BYTES)


def read_head(path: Path, *, is_packed: bool) -> bytes:
    """The first bytes of the content, without UTF-8's mark.

    Raises UnreadableFile if there are none, or they are those of something that is neither text nor Parquet.
    """
    with open_bytes(path, is_packed=is_packed) as file:
        try:
            head = file.read(1)
            head += file.peek(_HEAD_BYTES)[:_HEAD_BYTES] if head else b""
        except DAMAGE as error:
            raise UnreadableFile(
                "damaged_gzip", f"the gzip file is damaged at its start ({error}); send it again"
            ) from None
    if not head:
        raise UnreadableFile("empty_file", "the file is empty; send one with a problem in each row")
    if head.startswith(_UTF16):
        raise UnreadableFile("utf16", "the file is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    for magic, kind in _OTHER_MAGIC.items():
        if head.startswith(magic):
            raise UnreadableFile("unknown_format", f"the file is {kind}; send JSONL, CSV or Parquet, plain or gzipped")
    return head.removeprefix(_BOM)


def read_lines(file: Source, max_bytes: int) -> Iterator[Line | RowRefused]:
    """The lines of a file from 1, without their ends and without UTF-8's mark, at most `max_bytes` held at a time.

    Damage in the compression ends the file with one refusal that names the line.
    """
    number = 1
    limit = max_bytes + 2  # the line's end, CRLF at most
    try:
        raw = file.readline(limit).removeprefix(_BOM)
        while raw:
            content = raw.rstrip(b"\r\n")
            is_cut = len(raw) == limit and not raw.endswith(b"\n")
            if is_cut:
                _skip_line(file)
            yield Line(number, None if is_cut or len(content) > max_bytes else content)
            number += 1
            raw = file.readline(limit)
    except DAMAGE as error:
        yield damaged(number, f"the compressed data ends or breaks here ({error})")


def too_long(number: int, max_bytes: int) -> RowRefused:
    """The refusal of a line or row that is longer than allowed."""
    return RowRefused(number, "line_too_long", f"longer than {max_bytes} bytes; shorten the row or raise the limit")


def not_utf8(number: int, error: UnicodeDecodeError) -> RowRefused:
    """The refusal of a line that is not UTF-8."""
    found = f"byte 0x{error.object[error.start]:02X} at byte offset {error.start} of the line is not UTF-8"
    return RowRefused(number, "bad_encoding", f"{found}; save the file as UTF-8")


def damaged(number: int, found: str) -> RowRefused:
    """The refusal that stands for everything from this row on."""
    reason = f"{found}; rows before it were read, nothing from it on: send the file again"
    return RowRefused(number, "damaged_file", reason)


def _skip_line(file: Source) -> None:
    while True:
        rest = file.readline(_DRAIN_BYTES)
        if not rest or rest.endswith(b"\n"):
            return
