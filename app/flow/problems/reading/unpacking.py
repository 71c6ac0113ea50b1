"""Bytes of a file as UTF-8 text or Parquet, whatever they are packed or encoded in: gzip, zstandard, UTF-16."""

import codecs
import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from .drafts import MIB, UnreadableFile

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, UnicodeError)
Source = io.BufferedReader | gzip.GzipFile
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BUFFER_BYTES = MIB // 4
_READ_BYTES = MIB // 4
_MAX_WINDOW = 1 << 27


def packing_of(path: Path) -> str:
    """`gz` or `zst` by the file's first bytes, whatever its name; empty if it is not packed."""
    with path.open("rb") as file:
        head = file.read(4)
    return "gz" if head.startswith(GZIP) else "zst" if head == ZSTD else ""


def open_bytes(path: Path, packing: str) -> Source:
    """The file's content, unpacked."""
    if packing == "gz":
        return gzip.GzipFile(path)  # no buffer around it: filling one would lose the rows before damage
    file = io.FileIO(path)
    return io.BufferedReader(_Zstd(file) if packing else file, _BUFFER_BYTES)


def open_text(path: Path, packing: str, *, is_utf16: bool) -> Source:
    """The file's content as UTF-8, if it is text."""
    file = open_bytes(path, packing)
    return io.BufferedReader(_Recoded(file), _BUFFER_BYTES) if is_utf16 else file


def damaged_head(packing: str, error: Exception) -> UnreadableFile:
    """The error for a packed file of which not even the start can be read."""
    reason = f"the file is damaged at its start ({error}); send it again"
    if packing == "gz":
        return UnreadableFile("damaged_gzip", f"gzip: {reason}")
    if packing == "zst":
        return UnreadableFile("damaged_zstandard", f"zstandard: {reason}")
    return UnreadableFile("bad_encoding", f"UTF-16: {reason}")


class _Made(io.RawIOBase):
    """Bytes made piece by piece from those of another file."""

    def __init__(self, make: Callable[[], bytes], source: io.IOBase) -> None:
        self._make = make
        self._source = source
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            self._left = self._make()
        n = min(len(buffer), len(self._left))
        buffer[:n] = self._left[:n]
        self._left = self._left[n:]
        return n

    def close(self) -> None:
        self._source.close()
        super().close()


class _Zstd(_Made):
    """Unpacks one or several frames; a frame that ends too early raises EOFError."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(self._next, file)
        self._file = file
        self._rest = b""
        self._unpacker = self._begin()
        self._is_inside = False

    def _begin(self) -> "zstandard.ZstdDecompressionObj":
        return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()

    def _next(self) -> bytes:
        content = b""
        while not content:
            packed = self._rest or self._file.read(_READ_BYTES)
            if not packed:
                if self._is_inside:
                    raise EOFError("the last frame is cut off")
                return b""
            self._rest = b""
            self._is_inside = True
            content = self._unpacker.decompress(packed)
            if self._unpacker.eof:
                self._rest = self._unpacker.unused_data
                self._unpacker = self._begin()
                self._is_inside = False
        return content


class _Recoded(_Made):
    """UTF-16 with its mark, as UTF-8."""

    def __init__(self, source: Source) -> None:
        super().__init__(self._next, source)
        self._file = source
        self._decoder = codecs.getincrementaldecoder("utf-16")()

    def _next(self) -> bytes:
        content = b""
        while not content:
            raw = self._file.read(_READ_BYTES)
            content = self._decoder.decode(raw, final=not raw).encode()
            if not raw:
                break
        return content
