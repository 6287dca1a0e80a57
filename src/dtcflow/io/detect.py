"""Which format an input has, told from its content; a name can lie."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Final

from dtcflow.io.files import broken_gzip, check_regular, is_packed, refuse, unreadable
from dtcflow.io.folders import eds, folder_files, matrix_files
from dtcflow.io.hdf5 import hdf5_format
from dtcflow.io.zarr_store import MARKS, check_zarr

__all__ = ["FORMATS", "MATRIX_MARKET", "TABLES", "detect_format", "refuse"]

MATRIX_MARKET: Final = ("10x_mtx", "alevin", "kb", "mtx")
TABLES: Final = ("csv", "tsv")
FORMATS: Final = ("h5ad", "zarr", "loom", "10x_h5", *MATRIX_MARKET, *TABLES)
_READS: Final = (
    "an .h5ad, a zarr store, a .loom, a 10x .h5, a folder with a Matrix Market file (10x, STARsolo, alevin-fry, kb), "
    "or a .csv/.tsv/.txt table (.gz or not)"
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PEEK = 65536

_FOREIGN: Final = (
    (b"PK\x03\x04", "a zip archive (.zip, .npz or .xlsx)", "unpack it, or save the table as tab-separated text"),
    (b"BZh", "a bzip2 file", "unpack it (bunzip2)"),
    (b"\xfd7zXZ", "an xz file", "unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it (unzstd)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls)", "save the table as tab-separated text"),
    (b"RDX", "an R data file", "save the counts from R as a 10x folder (Matrix::writeMM) or .h5ad"),
    (b"X\n\x00\x00", "an R data file (.rds)", "save the counts from R as a 10x folder (Matrix::writeMM) or .h5ad"),
    (b"PAR1", "a Parquet table", "save the counts as .h5ad or tab-separated text"),
    (b"ARROW1", "a Feather (Arrow) table", "save the counts as .h5ad or tab-separated text"),
    (b"\x93NUMPY", "a numpy array without names", "save it as .h5ad with cell and gene names"),
    *(
        (bytes([0x80, protocol]), "a Python pickle, which is never opened (it can run code)", "save it as .h5ad")
        for protocol in (2, 3, 4, 5)
    ),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)


def detect_format(path: Path) -> str:
    """Return the format of ``path``, one of :data:`FORMATS`, from its content.

    Raises
    ------
    InputError
        When it does not exist, is empty, truncated, or in a format that is not read; the format is named where it
        can be recognised.
    """
    try:
        if path.is_dir():
            return _folder_format(path)
        size = check_regular(path)
        with path.open("rb") as handle:
            start = handle.read(_PEEK)
    except OSError as error:
        raise unreadable(path, error, allowed=_READS, hint=_neighbour(path)) from error
    if size == 0:
        raise refuse(path, "the file is empty", "0 bytes", _READS, "copy or export the file again")
    if start.startswith(_HDF5):
        return hdf5_format(path, _READS)
    if is_packed(path):
        start = _gunzip_start(path)
        if not start:
            raise refuse(path, "the file is empty", "0 bytes after unpacking", _READS, "export the file again")
        if start.startswith(_HDF5):
            raise refuse(path, "a packed HDF5 file", "an .h5/.h5ad inside gzip", _READS, "unpack it (gunzip)")
    return _content_format(path, start)


def _folder_format(path: Path) -> str:
    if MARKS & {entry.name for entry in path.iterdir()}:
        check_zarr(path)
        return "zarr"
    return folder_files(path).kind


def _content_format(path: Path, start: bytes) -> str:
    if start.startswith(b"PK\x03\x04") and path.name.lower().endswith(".zarr.zip"):
        raise refuse(path, "a packed zarr store", "zarr inside zip", _READS, "unpack it, and give the folder's path")
    for magic, what, fix in _FOREIGN:
        if start.startswith(magic):
            raise refuse(path, f"this is {what}", what, _READS, fix)
    if path.name == "quants_mat.gz":
        raise eds(path)
    if start[257:262] == b"ustar":
        raise refuse(path, "this is a tar archive", "a tar archive", _READS, "unpack it (tar -xf)")
    if b"\0" in start:
        raise refuse(path, "the format is not known", f"binary data starting with {start[:8]!r}", _READS, "convert it")
    if start.startswith(b"%%MatrixMarket"):
        return matrix_files(path).kind
    return _table_format(path, start)


def _table_format(path: Path, start: bytes) -> str:
    stem = path.name.removesuffix(".gz").lower()
    if stem.endswith((".h5ad", ".h5", ".hdf5", ".loom", ".mtx")):
        kind = stem.rsplit(".", 1)[1]
        raise refuse(
            path,
            f"named .{kind}, but it is not such a file",
            f"text starting with {start[:20]!r}",
            f"a file whose content is .{kind}",
            "copy it again: a failed download often leaves a text page",
        )
    if start.lstrip()[:1] == b"<":
        raise refuse(path, "this is a web page", "HTML or XML", _READS, "download the file itself again")
    lines = [
        line
        for line in start.decode("utf-8-sig", errors="replace").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    # a header of one name has no separator, where R leaves out the corner
    if not any(mark in line.strip(" ") for line in lines[:2] for mark in "\t,; "):
        raise refuse(
            path,
            "no table",
            f"a line without tab, comma, semicolon or space: {(lines or [''])[0][:40]!r}",
            _READS,
            "export the matrix with a header of cells or genes",
        )
    start_lines = "".join(lines[:2])
    return "csv" if "\t" not in start_lines and any(mark in start_lines for mark in ",;") else "tsv"


def _gunzip_start(path: Path) -> bytes:
    """Return the first unpacked bytes of a gzip file."""
    try:
        with gzip.open(path, "rb") as handle:
            return handle.read(_PEEK)
    except (EOFError, OSError, zlib.error) as error:
        raise broken_gzip(path, error) from error


def _neighbour(path: Path) -> str:
    """Name what a mistyped path may have meant."""
    from dtcflow.io.schema import suggest

    try:
        near = suggest(path.name, [entry.name for entry in path.parent.iterdir() if entry.name != path.name])
    except OSError:
        above = path.parent
        while above != above.parent and not above.exists():
            above = above.parent
        return f": the folder {path.parent} does not exist (the last one that does is {above})"
    return f": did you mean {near!r}?" if near else ""
