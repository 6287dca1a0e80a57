"""Opening what the user gave: one kind of refusal, and limits that no packed or announced size can break.

A small file can claim to be a large one: gzip unpacks a thousandfold, and a sparse header can announce a terabyte.
Every reader asks :func:`allowed_bytes` before it unpacks or allocates, so that memory stays bounded by what lies on
the disk.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from dtcflow.contracts import InputError, Problem

FLOOR: Final = 256 * 2**20
"""Bytes that any input may unpack to."""
RATIO: Final = 500
"""Further bytes an input may unpack to, per byte on the disk. Measured on real counts as a dense table of 33,000 genes:
32 to 1 when 3 % of the fields are not zero, 113 when 0.6 % are, 237 when 0.2 % are (70 genes a cell), 428 when 0.1 %
are. Beyond lie unfiltered droplets, which no one keeps as a dense table, and files made to fill a memory (1,030 to 1).
"""
LONGEST_LINE: Final = 256 * 2**20
"""Bytes of a line of text; ten million barcodes in one header are fewer."""
_BUFFER: Final = 2**20
_GZIP: Final = b"\x1f\x8b"


def refuse(path: Path, message: str, found: str, allowed: str, fix: str) -> InputError:
    """Return an error about one input with a single problem."""
    return InputError(f"{path}: {message}", [Problem(str(path), found, allowed, fix)])


def allowed_bytes(stored: int) -> int:
    """Return how many bytes ``stored`` bytes on the disk may become in memory."""
    return max(FLOOR, RATIO * stored)


def shown_bytes(count: int) -> str:
    """Write a number of bytes for people, for example ``1.5 GiB``."""
    if count < 1024:
        return f"{count:,} bytes"
    for power, unit in ((1, "KiB"), (2, "MiB"), (3, "GiB")):
        if count < 1024 ** (power + 1):
            return f"{count / 1024**power:,.1f} {unit}"
    return f"{count / 1024**4:,.1f} TiB"


def check_announced(path: Path, what: str, announced: int, stored: int) -> None:
    """Refuse an array whose announced size its bytes on the disk cannot explain."""
    if announced > allowed_bytes(stored):
        raise refuse(
            path,
            "the announced size is not in the file",
            f"{what}: {shown_bytes(announced)} announced, {shown_bytes(stored)} stored",
            f"at most {RATIO} times what is stored (or {shown_bytes(FLOOR)})",
            "copy or export the file again; it is damaged, or made to fill the memory",
        )


def is_packed(path: Path) -> bool:
    """Whether the content of a file is gzip, whatever its name says."""
    with path.open("rb") as handle:
        return handle.read(2) == _GZIP


def check_regular(path: Path) -> int:
    """Return the size of a file; a pipe, socket or device has none and could be read for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise refuse(path, "not a regular file", "a pipe, socket or device", "a file on a disk", "write it to a file")
    return status.st_size


def broken_gzip(path: Path, error: Exception) -> InputError:
    """Return the error about a gzip file that ends early or is damaged."""
    found = "a gzip file that ends too early" if isinstance(error, EOFError) else f"a damaged gzip file ({error})"
    return refuse(path, "truncated or damaged gzip file", found, "a complete file", "copy or download it again")


class _Bounded(io.RawIOBase):
    """Bytes of a file, refused when they are more, or in longer lines, than a count matrix explains."""

    def __init__(self, inner: IO[bytes], path: Path, limit: int | None) -> None:
        self._inner: Any = inner
        self._path = path
        self._limit = limit
        self._seen = 0
        self._line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._inner.readinto(buffer) or 0
        self._seen += count
        if self._limit is not None and self._seen > self._limit:
            raise refuse(
                self._path,
                "a gzip file that unpacks to far more than it can hold",
                f"{shown_bytes(self._path.stat().st_size)} that unpack to more than {shown_bytes(self._limit)}",
                f"at most {RATIO} times the packed size (or {shown_bytes(FLOOR)})",
                "export the counts again, as .h5ad or a 10x folder when they are this large",
            )
        last = bytes(memoryview(buffer)[:count]).rfind(b"\n")
        self._line = self._line + count if last < 0 else count - last - 1
        if self._line > LONGEST_LINE:
            raise refuse(
                self._path,
                "a line too long for a table",
                f"a line of more than {shown_bytes(LONGEST_LINE)}",
                "one line per row",
                "export the counts again",
            )
        return count


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacked when it is gzip by content; damage and an absurd inflation end in one message."""
    try:
        size = check_regular(path)
        packed = is_packed(path)
        with gzip.open(path, "rb") if packed else path.open("rb") as inner:
            bounded = _Bounded(cast("IO[bytes]", inner), path, allowed_bytes(size) if packed else None)
            yield cast("IO[bytes]", io.BufferedReader(bounded, _BUFFER))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken_gzip(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError, *, allowed: str = "a readable file", hint: str = "") -> InputError:
    """Return the error about a path that the system does not let us read."""
    reason = "a loop of symbolic links" if error.errno == 40 else (error.strerror or str(error)).lower()
    return refuse(path, "no readable input", reason, allowed, f"check the path{hint}")


def not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    """Return the error about text in another encoding."""
    return refuse(path, "not UTF-8 text", f"byte {error.start} is not UTF-8", "UTF-8", "save it as UTF-8")


def read_text(path: Path) -> str:
    """Return a whole text file (names of cells or genes), without a byte-order mark."""
    with open_binary(path) as handle:
        content = handle.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder (paths and contents, sorted), in hexadecimal."""
    path = Path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for part in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(part.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(sha256(part)))
        return digest.hexdigest()
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
