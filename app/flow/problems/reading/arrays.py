"""Rows of one JSON array, an element at a time; it may stand in an object, as in `{"data": [...]}`."""

import re
from collections.abc import Iterator

import ijson

from .drafts import RowRefused
from .tables import Row
from .unpacking import DAMAGE, Source

_READ_BYTES = 1 << 16
# Names under which data sets keep their rows; `prompt` or `messages` would be those of a row.
_NAMED_ARRAY = re.compile(
    rb"\s*\{(?:\s*\"(?:version|type|name|description)\"\s*:\s*\"[^\"\\]*\"\s*,)*"
    rb"\s*\"(data|instances|examples|problems|questions|rows|items|records|train)\"\s*:\s*\[\s*\{"
)
_BOM = b"\xef\xbb\xbf"


class _TooLong(Exception):
    """An element is longer than allowed."""


def name_of_array(head: bytes) -> str | None:
    """The name of the array if the file is an object that holds its rows in one."""
    found = _NAMED_ARRAY.match(head)
    return found[1].decode() if found else None


def read_array(file: Source, max_bytes: int, name: str | None = None) -> Iterator[Row | RowRefused]:
    """Elements of an array from 1, whatever its layout; what cannot be read ends the file with one refusal."""
    metered = _Metered(file, max_bytes)
    number = 1
    try:
        for row in ijson.items(metered, f"{name}.item" if name else "item", use_float=True, buf_size=_READ_BYTES):
            yield number, row
            metered.begin_row()
            number += 1
    except _TooLong:
        found = f"element {number} is longer than {max_bytes} bytes; shorten it, raise the limit or send JSONL"
        yield RowRefused(number, "line_too_long", f"{found}; nothing from it on was read")
    except (ijson.JSONError, *DAMAGE) as error:
        found = f"not JSON from element {number} on ({' '.join(str(error).split())[:120]})"
        yield RowRefused(number, "bad_json", f"{found}; rows before it were read: mend the file and send it again")


class _Metered:
    """Reads for the parser, counting since the last whole element."""

    def __init__(self, file: Source, max_bytes: int) -> None:
        self._file = file
        self._limit = max_bytes + 2 * _READ_BYTES
        self._n_bytes = 0
        self._is_first = True

    def begin_row(self) -> None:
        self._n_bytes = 0

    def read(self, n: int = -1) -> bytes:
        content = self._file.read(n)
        if self._is_first and content:
            self._is_first = False
            content = content.removeprefix(_BOM) or self._file.read(n)
        self._n_bytes += len(content)
        if self._n_bytes > self._limit:
            raise _TooLong
        return content
