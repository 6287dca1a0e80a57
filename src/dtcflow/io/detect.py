"""Which format an input has, told from its content; a name can lie."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py

from dtcflow.contracts import InputError, Problem

FORMATS: Final = ("h5ad", "10x_h5", "10x_mtx", "csv", "tsv")
_READS: Final = "an .h5ad, a 10x .h5, a 10x folder, or a .csv/.tsv table (.gz or not)"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PEEK = 65536

_FOREIGN: Final = (
    (b"PK\x03\x04", "a zip archive (.zip, .npz or .xlsx)", "unpack it, or save the table as tab-separated text"),
    (b"BZh", "a bzip2 file", "unpack it (bunzip2)"),
    (b"\xfd7zXZ", "an xz file", "unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it (unzstd)"),
    (b"RDX", "an R data file", "save the counts from R as a 10x folder (Matrix::writeMM) or .h5ad"),
    (b"X\n\x00\x00", "an R data file (.rds)", "save the counts from R as a 10x folder (Matrix::writeMM) or .h5ad"),
    (b"\x93NUMPY", "a numpy array without names", "save it as .h5ad with cell and gene names"),
    *(
        (bytes([0x80, protocol]), "a Python pickle, which is never opened (it can run code)", "save it as .h5ad")
        for protocol in (2, 3, 4, 5)
    ),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8"),
)


@dataclass(frozen=True)
class MatrixFolder:
    """The three files of a 10x folder; ``features`` and ``barcodes`` sit beside ``matrix``."""

    matrix: Path
    features: Path
    barcodes: Path


def refuse(path: Path, message: str, found: str, allowed: str, fix: str) -> InputError:
    """Return an error about one input with a single problem."""
    return InputError(f"{path}: {message}", [Problem(str(path), found, allowed, fix)])


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
            folder_files(path)
            return "10x_mtx"
        size = path.stat().st_size
        with path.open("rb") as handle:
            start = handle.read(_PEEK)
    except OSError as error:
        reason = "a loop of symbolic links" if "Symlink loop" in str(error) or error.errno == 40 else error.strerror
        hint = _neighbour(path)
        raise refuse(
            path, "no readable input", (reason or str(error)).lower(), _READS, f"check the path{hint}"
        ) from error
    if size == 0:
        raise refuse(path, "the file is empty", "0 bytes", _READS, "copy or export the file again")
    if start.startswith(_HDF5):
        return _hdf5_format(path)
    if start.startswith(b"\x1f\x8b"):
        start = gunzip_start(path)
        if not start:
            raise refuse(path, "the file is empty", "0 bytes after unpacking", _READS, "export the file again")
        if start.startswith(_HDF5):
            raise refuse(path, "a packed HDF5 file", "an .h5/.h5ad inside gzip", _READS, "unpack it (gunzip)")
    for magic, what, fix in _FOREIGN:
        if start.startswith(magic):
            raise refuse(path, f"this is {what}", what, _READS, fix)
    if b"\0" in start:
        raise refuse(path, "the format is not known", f"binary data starting with {start[:8]!r}", _READS, "convert it")
    if start.startswith(b"%%MatrixMarket"):
        matrix_files(path)
        return "10x_mtx"
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
    lines = [line for line in start.decode("utf-8-sig", errors="replace").splitlines() if line[:1] != "#"]
    if not lines or not any(mark in lines[0] for mark in "\t,;"):
        raise refuse(
            path,
            "no table",
            f"a first line without tab, comma or semicolon: {(lines or [''])[0][:40]!r}",
            _READS,
            "export the matrix with a header of cells or genes",
        )
    return "tsv" if lines[0].count("\t") else "csv"


def gunzip_start(path: Path) -> bytes:
    """Return the first unpacked bytes of a gzip file."""
    try:
        with gzip.open(path, "rb") as handle:
            return handle.read(_PEEK)
    except (EOFError, OSError, zlib.error) as error:
        raise broken_gzip(path, error) from error


def broken_gzip(path: Path, error: Exception) -> InputError:
    """Return the error about a gzip file that ends early or is damaged."""
    found = "a gzip file that ends too early" if isinstance(error, EOFError) else f"a damaged gzip file ({error})"
    return refuse(path, "truncated or damaged gzip file", found, "a complete file", "copy or download it again")


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; a truncated one ends in one message."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        text = str(error)
        found = "a file that ends too early" if "truncated" in text or "eof" in text else f"a damaged file ({text})"
        raise refuse(
            path, "truncated or damaged HDF5 file", found, "a complete .h5ad or .h5", "copy or download it again"
        ) from error


def _hdf5_format(path: Path) -> str:
    with open_hdf5(path) as file:
        keys = sorted(file.keys())
        if "obs" in keys and "var" in keys:
            return "h5ad"
        if "matrix" in keys and isinstance(file["matrix"], h5py.Group) and "barcodes" in file["matrix"]:
            return "10x_h5"
        if "row_attrs" in keys and "col_attrs" in keys:
            raise refuse(
                path, "this is a loom file", "loom", _READS, "convert it: anndata.io.read_loom(...).write_h5ad(...)"
            )
        if "mod" in keys:
            raise refuse(
                path,
                "this is a MuData file",
                f"modalities {', '.join(file['mod'])}",
                _READS,
                "save its RNA part as .h5ad",
            )
        if any(isinstance(file[key], h5py.Group) and {"barcodes", "indptr", "genes"} <= set(file[key]) for key in keys):
            return "10x_h5"
    raise refuse(
        path,
        "an HDF5 file, but no count matrix",
        f"top-level keys {', '.join(keys) or '(none)'}",
        _READS,
        "convert it to .h5ad",
    )


# ---------------------------------------------------------------------------------------------------------------------
# 10x folders
# ---------------------------------------------------------------------------------------------------------------------


def folder_files(folder: Path) -> MatrixFolder:
    """Return the files of a 10x folder; a common prefix of the three (as GEO adds) is allowed."""
    names = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in names if name.endswith(("matrix.mtx", "matrix.mtx.gz"))]
    exact = [name for name in found if name in ("matrix.mtx.gz", "matrix.mtx")]
    if exact:
        found = exact[:1]
    if len(found) == 1:
        return matrix_files(folder / found[0])
    if found:
        raise refuse(
            folder,
            "several matrices in one folder",
            ", ".join(found[:10]),
            "one sample per path",
            "write the path of one matrix.mtx file in each row of the sample sheet",
        )
    if {".zgroup", ".zattrs", "zarr.json"} & set(names):
        raise refuse(
            folder, "this is a zarr store", "zarr", _READS, "convert it: anndata.io.read_zarr(...).write_h5ad(...)"
        )
    inside = [name for name in names if (folder / name).is_dir() and any((folder / name).glob("*matrix.mtx*"))]
    if inside:
        raise refuse(
            folder,
            "no matrix in this folder" if len(inside) == 1 else "matrices of several genomes or kinds",
            f"folders {', '.join(inside)}",
            "a folder that holds matrix.mtx(.gz)",
            f"write the path of the folder itself, for example {folder / inside[0]}",
        )
    raise refuse(
        folder,
        "no matrix in this folder",
        ", ".join(names[:10]) or "an empty folder",
        "matrix.mtx, features.tsv or genes.tsv, and barcodes.tsv (.gz or not)",
        "write the path of the 10x folder or of a matrix file",
    )


def matrix_files(matrix: Path) -> MatrixFolder:
    """Return the feature and barcode files that belong to a Matrix Market file."""
    prefix = matrix.name.removesuffix(".gz").removesuffix("matrix.mtx")
    if prefix == matrix.name.removesuffix(".gz"):
        prefix = ""
    sides = {}
    for side, stems in (("features", ("features.tsv", "genes.tsv")), ("barcodes", ("barcodes.tsv",))):
        options = [matrix.with_name(f"{prefix}{stem}{end}") for stem in stems for end in (".gz", "")]
        present = [option for option in options if option.is_file()]
        if not present:
            raise refuse(
                matrix.parent,
                f"no {side} file beside {matrix.name}",
                ", ".join(sorted(entry.name for entry in matrix.parent.iterdir())[:10]),
                " or ".join(option.name for option in options),
                "put the three files of the matrix into one folder",
            )
        sides[side] = present[0]
    return MatrixFolder(matrix, sides["features"], sides["barcodes"])


def _neighbour(path: Path) -> str:
    """Name what a mistyped path may have meant."""
    from dtcflow.io.schema import suggest

    try:
        near = suggest(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        above = path.parent
        while above != above.parent and not above.exists():
            above = above.parent
        return f": the folder {path.parent} does not exist (the last one that does is {above})"
    return f": did you mean {near!r}?" if near else ""
