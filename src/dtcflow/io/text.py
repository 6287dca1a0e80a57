"""Readers for text inputs: 10x folders (Matrix Market) and dense tables of either orientation."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.io
import scipy.sparse as sp

from dtcflow.contracts import InputError
from dtcflow.io.detect import MatrixFolder, broken_gzip, folder_files, matrix_files, refuse
from dtcflow.io.raw import ENSEMBL, RawMatrix, looks_ensembl

_BLOCK = 4_000_000
"""Values of a dense table that are parsed at a time."""
_MIN_GENE_SHARE = 0.1


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacked when it is gzip by content; damage ends in one message."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as handle:
            yield cast("IO[bytes]", handle)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken_gzip(path, error) from error
    except OSError as error:
        raise refuse(
            path, "cannot be read", error.strerror or str(error), "a readable file", "check the file"
        ) from error


def _lines(path: Path) -> list[list[str]]:
    with open_binary(path) as handle:
        content = handle.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(path, "not UTF-8 text", f"byte {error.start} is not UTF-8", "UTF-8", "save it as UTF-8") from error
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n")]
    while rows and rows[-1] == [""]:
        rows.pop()
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# 10x folders
# ---------------------------------------------------------------------------------------------------------------------


def _mtx_header(path: Path) -> tuple[int, int, int]:
    """Rows, columns and entries of a Matrix Market file, refused when the file is too small to hold the entries."""
    with open_binary(path) as handle:
        first = handle.readline(4096)
        line = first
        while line.startswith(b"%") or (line and not line.strip()):
            line = handle.readline(65536)
    numbers = line.split()
    words = first.split()
    if not first.startswith(b"%%MatrixMarket") or len(words) < 4:
        raise refuse(
            path,
            "not a Matrix Market file",
            f"{first[:30]!r}",
            "a first line '%%MatrixMarket matrix ...'",
            "export it again",
        )
    coordinate = words[2] == b"coordinate"
    if len(numbers) != (3 if coordinate else 2) or not all(number.isdigit() for number in numbers):
        raise refuse(
            path, "no sizes in the header", f"{line[:40]!r}", "rows, columns and entries", "export the matrix again"
        )
    n_rows, n_columns = int(numbers[0]), int(numbers[1])
    entries = int(numbers[2]) if coordinate else n_rows * n_columns
    # an entry takes 2 bytes at least, and gzip packs a thousand to one at most: more is a damaged or hostile header
    if 2 * entries > path.stat().st_size * 1100:
        raise refuse(
            path, "truncated matrix", f"{entries:,} entries announced", "as many entries as announced", "copy it again"
        )
    return n_rows, n_columns, entries


def _folder(path: Path) -> MatrixFolder:
    return folder_files(path) if path.is_dir() else matrix_files(path)


def read_10x_mtx(path: Path) -> RawMatrix:
    """Read a 10x folder of generation 2 (``genes.tsv``) or 3 (``features.tsv.gz``), or its matrix file."""
    files = _folder(path)
    n_rows, n_columns, _ = _mtx_header(files.matrix)
    features, barcodes = _lines(files.features), [row[0] for row in _lines(files.barcodes)]
    with open_binary(files.matrix) as handle:
        try:
            loaded: Any = scipy.io.mmread(handle)
        except (ValueError, OverflowError, MemoryError, TypeError) as error:
            raise refuse(
                files.matrix,
                "truncated or damaged matrix",
                str(error),
                "as many entries as the header says",
                "copy it again",
            ) from error
    if np.iscomplexobj(getattr(loaded, "data", loaded)):
        raise refuse(files.matrix, "complex numbers", "field 'complex'", "counts", "export the matrix again")
    matrix = sp.csr_matrix(loaded)
    warnings = []
    if (len(features), len(barcodes)) == (n_rows, n_columns):
        matrix = sp.csr_matrix(matrix.T)
    elif (len(barcodes), len(features)) == (n_rows, n_columns):
        warnings.append("the matrix is stored as cells x genes (10x folders are genes x cells)")
    else:
        raise refuse(
            files.matrix,
            "matrix and names do not fit",
            f"a matrix of {n_rows:,} x {n_columns:,}, {len(features):,} features, {len(barcodes):,} barcodes",
            "one feature per row and one barcode per column",
            "put the three files of one sample together",
        )
    matrix.sum_duplicates()
    two = all(len(row) > 1 for row in features)
    ids = [row[0] for row in features]
    names = [row[1] for row in features] if two else ids
    types = [row[2] for row in features] if features and all(len(row) > 2 for row in features) else None
    has_ids = two and looks_ensembl(ids) >= 0.5
    return RawMatrix(matrix, barcodes, names, gene_ids=ids if has_ids else None, feature_types=types, warnings=warnings)


def inspect_10x_mtx(path: Path) -> tuple[int, int]:
    """Return cells and genes of a 10x folder from the header of its matrix."""
    n_genes, n_cells, _ = _mtx_header(_folder(path).matrix)
    return n_cells, n_genes


# ---------------------------------------------------------------------------------------------------------------------
# Dense tables
# ---------------------------------------------------------------------------------------------------------------------


def _table_header(path: Path) -> tuple[list[str], int, str]:
    """Names of the value columns, lines above the first row of values, and the separator."""
    skipped = 0
    kept: list[str] = []
    with open_binary(path) as handle:
        try:
            for line in io.TextIOWrapper(handle, encoding="utf-8-sig"):
                if not kept and (line.startswith("#") or not line.strip()):
                    skipped += 1
                    continue
                kept.append(line.rstrip("\r\n"))
                if len(kept) == 2:
                    break
        except UnicodeDecodeError as error:
            raise refuse(
                path, "not UTF-8 text", f"byte {error.start} is not UTF-8", "UTF-8", "save it as UTF-8"
            ) from error
    if len(kept) < 2:
        raise refuse(
            path,
            "a table without rows",
            f"{len(kept)} lines",
            "a header and one row per cell or gene",
            "export it again",
        )
    separator = max("\t,;", key=kept[0].count)
    header, first = (next(csv.reader([line], delimiter=separator)) for line in kept)
    if len(header) == len(first):
        header = header[1:]  # the corner above the row names
    elif len(header) != len(first) - 1:  # as R writes it: no corner
        raise refuse(
            path, "header and rows do not fit", f"{len(header)} names, {len(first)} fields in the first row",
            "one name per column", "export the table again",
        )  # fmt: skip
    return [name.strip() for name in header], skipped + 1, separator


def _first_text(path: Path, names: list[str], skip: int, separator: str) -> InputError | None:
    """Find the first field that is not a number, to name its line and column."""
    reader = pd.read_csv(
        path, sep=separator, header=None, names=["", *map(str, range(len(names)))], skiprows=skip, index_col=0,
        dtype=str, keep_default_na=False, chunksize=max(1, _BLOCK // (10 * max(1, len(names)))),
        compression=_compression(path),
    )  # fmt: skip
    line = skip
    for chunk in reader:
        for number, (label, row) in enumerate(chunk.iterrows(), line + 1):
            bad = pd.to_numeric(row, errors="coerce").isna().to_numpy()
            if bad.any():
                at = int(np.flatnonzero(bad)[0])
                found = row.iloc[at]
                shown = "an empty field" if not isinstance(found, str) or not found else repr(found[:40])
                return refuse(
                    path,
                    "the table does not hold numbers only",
                    f"{shown} in line {number} (row {label!r}), column {names[at]!r}",
                    "a count in every field",
                    "remove columns and rows that are not counts",
                )
        line += len(chunk)
    return None


def _compression(path: Path) -> Any:
    with path.open("rb") as handle:
        return "gzip" if handle.read(2) == b"\x1f\x8b" else None


def _gene_share(names: list[str], known: Collection[str]) -> float:
    if not names:
        return 0.0
    # symbols of the mouse (Actb) count, so that they are recognised and then refused by name
    hits = sum(
        name in known or (name[:1].isupper() and name.upper() in known) or bool(ENSEMBL.match(name)) for name in names
    )
    return hits / len(names)


def read_table(path: Path, *, known_genes: Callable[[], Collection[str]]) -> RawMatrix:
    """Read a dense table with cells or genes in rows; which of the two is told from the names.

    Parameters
    ----------
    known_genes
        Called once; returns gene symbols, as written and in upper case, to recognise genes by.
    """
    columns, skip, separator = _table_header(path)
    rows: list[str] = []
    blocks: list[sp.csr_matrix] = []
    try:
        reader = pd.read_csv(
            path, sep=separator, header=None, names=["", *map(str, range(len(columns)))], skiprows=skip, index_col=0,
            dtype={"": str, **{str(i): np.float64 for i in range(len(columns))}}, keep_default_na=False, na_values=[],
            chunksize=max(1, _BLOCK // max(1, len(columns))), compression=_compression(path),
        )  # fmt: skip
        for chunk in reader:
            rows += [str(name).strip() for name in chunk.index]
            block: npt.NDArray[np.float64] = chunk.to_numpy(dtype=np.float64)
            blocks.append(sp.csr_matrix(block))
    except UnicodeDecodeError as error:
        raise refuse(path, "not UTF-8 text", f"byte {error.start} is not UTF-8", "UTF-8", "save it as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise broken_gzip(path, error) from error
    except pd.errors.ParserError as error:
        raise refuse(
            path,
            "rows of different length",
            str(error).strip(),
            f"{len(columns) + 1} fields in every line",
            "export the table again",
        ) from error
    except ValueError as error:
        located = _first_text(path, columns, skip, separator)
        raise located or refuse(
            path, "the table cannot be read", str(error), "a count in every field", "export it again"
        ) from error
    matrix = sp.csr_matrix(sp.vstack(blocks, format="csr"))
    known = known_genes()
    in_rows, in_columns = _gene_share(rows, known), _gene_share(columns, known)
    if max(in_rows, in_columns) < _MIN_GENE_SHARE or in_rows == in_columns:
        raise refuse(
            path,
            "neither rows nor columns are recognised as genes",
            f"rows {', '.join(rows[:3])} ({in_rows:.0%} known); "
            f"columns {', '.join(columns[:3])} ({in_columns:.0%} known)",
            "human gene symbols or Ensembl ids in the first column or in the header",
            "write gene names as symbols or Ensembl ids",
        )
    if in_rows > in_columns:
        matrix, rows, columns = sp.csr_matrix(matrix.T), columns, rows
    return RawMatrix(matrix, rows, columns)


def inspect_table(path: Path) -> None:
    """Check header and first row of a dense table."""
    _table_header(path)
