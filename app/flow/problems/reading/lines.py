"""Text files as lines of bounded length, and what the first bytes of a file say."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .drafts import MIB, RowRefused, UnreadableFile
from .unpacking import DAMAGE, UTF16, Source, damaged_head, open_text

PARQUET = b"PAR1"
ARROW = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"
_BOM = b"\xef\xbb\xbf"
_DRAIN_BYTES = MIB
_HEAD_BYTES = 4096
_OTHER_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x1f\x8b": "gzip inside gzip",
}


class Head(NamedTuple):
    """The first bytes of the content as UTF-8, without its mark, if it is text."""

    content: bytes
    is_utf16: bool


class Line(NamedTuple):
    """One line without its end; `content` is None if the line is longer than allowed."""

    number: int
    content: bytes | None


def read_head(path: Path, packing: str) -> Head:
    """The first bytes of the content.

    Raises UnreadableFile if there are none, or they are those of something that is not read here.
    """
    head = _peek(path, packing, is_utf16=False)
    is_utf16 = head.startswith(UTF16)
    if is_utf16:
        head = _peek(path, packing, is_utf16=True)
    if not head:
        raise UnreadableFile("empty_file", "the file is empty; send one with a problem in each row")
    for magic, kind in _OTHER_MAGIC.items():
        if head.startswith(magic):
            raise UnreadableFile(
                "unknown_format", f"the file is {kind}; send JSON, CSV, Parquet or Arrow, plain, gzip or zstandard"
            )
    return Head(head.removeprefix(_BOM), is_utf16)


def _peek(path: Path, packing: str, *, is_utf16: bool) -> bytes:
    with open_text(path, packing, is_utf16=is_utf16) as file:
        try:
            head = file.read(1)
            return head + (file.peek(_HEAD_BYTES)[:_HEAD_BYTES] if head else b"")
        except DAMAGE as error:
            raise damaged_head(packing, error) from None


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
        yield damaged(number, f"the packed or encoded data ends or breaks here ({error})")


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
