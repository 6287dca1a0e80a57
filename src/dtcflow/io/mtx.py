"""Matrix Market inputs of any counting program: names first, then the entries in blocks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.io.files import allowed_bytes, is_packed, open_binary, read_text, refuse
from dtcflow.io.folders import MatrixFolder, folder_files, matrix_files
from dtcflow.io.raw import RawMatrix, looks_ensembl
from dtcflow.io.stored import MAX_SIDE, to_float32

_BLOCK: Final = 4_000_000
"""Entries that are parsed at a time."""
_SMALLEST_ENTRY: Final = 4
"""Bytes of the shortest entry, ``1 1`` and a line end."""
_MOST_COMMENTS: Final = 10_000
_LARGEST_DENSE: Final = 50_000_000
_HEADERS: Final = frozenset(
    {"", "x", "v1", "0", "barcode", "barcodes", "cell", "cells", "cell_id", "cell_barcode", "bc_wells", "index"}
    | {"gene", "genes", "gene_id", "gene_ids", "gene_name", "gene_symbol", "symbol", "feature", "features", "geneid"}
)
"""First fields, in lower case, that head a column of names."""
_NO_EM: Final = (
    "count without EM, so that counts are whole numbers (alevin-fry quant --resolution cr-like; bustools count without "
    "--em)"
)


@dataclass(frozen=True)
class _Header:
    n_rows: int
    n_columns: int
    entries: int
    coordinate: bool
    pattern: bool


def _broken(path: Path, found: str) -> Exception:
    return refuse(
        path, "truncated or damaged matrix", found, "as many entries as the header says", "copy or export it again"
    )


def _read_header(handle: IO[bytes], path: Path) -> _Header:
    """Read up to the first entry; refuse what is no matrix of counts, and a file too small to hold its entries."""
    first = handle.readline(4096)
    line = first
    for _ in range(_MOST_COMMENTS):
        if not line.startswith(b"%") and (line.strip() or not line):
            break
        line = handle.readline(65536)
    words = first.lower().split()
    if not first.startswith(b"%%MatrixMarket") or len(words) < 5:
        raise refuse(
            path,
            "not a Matrix Market file",
            f"{first[:30]!r}",
            "a first line '%%MatrixMarket matrix coordinate integer general'",
            "export it again",
        )
    if words[3] == b"complex" or words[4] != b"general":
        what = "complex numbers" if words[3] == b"complex" else "a symmetric matrix"
        raise refuse(path, what, f"{first.strip()[:60]!r}", "counts of genes in cells", "export the matrix again")
    coordinate = words[2] == b"coordinate"
    numbers = line.split()
    if len(numbers) != (3 if coordinate else 2) or not all(n.isdigit() and len(n) < 16 for n in numbers):
        raise refuse(
            path, "no sizes in the header", f"{line[:40]!r}", "rows, columns and entries", "export the matrix again"
        )
    n_rows, n_columns = int(numbers[0]), int(numbers[1])
    entries = int(numbers[2]) if coordinate else n_rows * n_columns
    if max(n_rows, n_columns) > MAX_SIDE or (not coordinate and entries > _LARGEST_DENSE):
        raise refuse(
            path,
            "a matrix too large to be read" if coordinate else "a dense Matrix Market file too large to be read",
            f"{n_rows:,} x {n_columns:,}",
            f"at most {MAX_SIDE:,} cells and genes" if coordinate else f"at most {_LARGEST_DENSE:,} values",
            "export it as a sparse matrix (coordinate)",
        )
    size = path.stat().st_size
    smallest = entries * (_SMALLEST_ENTRY if coordinate else 2) - 1
    if smallest > (allowed_bytes(size) if is_packed(path) else size):
        raise refuse(
            path, "truncated matrix", f"{entries:,} entries announced", "as many entries as announced", "copy it again"
        )
    return _Header(n_rows, n_columns, entries, coordinate, words[3] == b"pattern")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, TypeError, pd.errors.ParserError) as error:
        raise _broken(path, f"an entry that cannot be read ({str(error).strip().splitlines()[0][:160]})") from error


def _blocks(handle: IO[bytes], header: _Header) -> Iterator[tuple[Any, Any, npt.NDArray[np.float64]]]:
    """Rows, columns (from 0) and values of the entries, a block at a time."""
    if header.coordinate:
        kinds: dict[Any, Any] = {0: np.int64, 1: np.int64} | ({} if header.pattern else {2: np.float64})
    else:
        kinds = {0: np.float64}
    try:
        reader = pd.read_csv(
            handle, sep=r"\s+", header=None, names=list(kinds), index_col=False, comment="%", dtype=kinds,
            keep_default_na=False, na_values=[], chunksize=_BLOCK,
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        return
    done = 0
    for chunk in reader:
        if header.coordinate:
            values = np.ones(len(chunk)) if header.pattern else chunk[2].to_numpy()
            yield chunk[0].to_numpy() - 1, chunk[1].to_numpy() - 1, values
        else:
            place = np.arange(done, done + len(chunk))
            yield place % header.n_rows, place // header.n_rows, chunk[0].to_numpy()
        done += len(chunk)


def _load(path: Path, *, cells_in_rows: bool) -> sp.csr_matrix:
    """Read a matrix as cells x genes, float32; 12 bytes per entry beside the block that is parsed."""
    with open_binary(path) as handle, _told(path):
        header = _read_header(handle, path)
        cells, genes = np.empty(header.entries, dtype=np.int32), np.empty(header.entries, dtype=np.int32)
        values = np.empty(header.entries, dtype=np.float32)
        shape = (header.n_rows, header.n_columns) if cells_in_rows else (header.n_columns, header.n_rows)
        lengths = np.zeros(shape[0], dtype=np.int64)
        filled, last, ordered = 0, 0, True
        for row, column, value in _blocks(handle, header):
            end = filled + row.size
            if end > header.entries:
                raise _broken(path, f"more than the {header.entries:,} entries announced")
            for index, size, what in ((row, header.n_rows, "row"), (column, header.n_columns, "column")):
                if index.size and (index.min() < 0 or index.max() >= size):
                    raise _broken(path, f"a {what} outside of 1 to {size:,}")
            cell, gene = (row, column) if cells_in_rows else (column, row)
            if cell.size:
                ordered = ordered and bool(cell[0] >= last and (np.diff(cell) >= 0).all())
                last = int(cell[-1])
            lengths += np.bincount(cell, minlength=lengths.size)
            cells[filled:end], genes[filled:end], values[filled:end] = cell, gene, to_float32(value)
            filled = end
    if filled != header.entries:
        raise _broken(path, f"{filled:,} of {header.entries:,} entries")
    if ordered:
        del cells
        matrix = sp.csr_matrix((values, genes, np.concatenate([[0], np.cumsum(lengths)])), shape=shape)
    else:
        matrix = sp.csr_matrix(sp.coo_matrix((values, (cells, genes)), shape=shape))
    matrix.sum_duplicates()
    return matrix


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def _names(path: Path, wanted: tuple[int, ...]) -> list[list[str]]:
    """Fields of a names file; a header line and row numbers, as R and spreadsheets add, are taken off.

    Parameters
    ----------
    wanted
        Numbers of names that would fit the matrix.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    mark = "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    if any('"' in line for line in lines[:2]) or mark == ",":
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=mark))
    else:
        rows = [line.split(mark) for line in lines]
    if len(rows) - 1 in wanted and len(rows) not in wanted and rows[0][0].strip().lower() in _HEADERS:
        rows = rows[1:]
    if rows and all(len(row) > 1 and row[0] == str(number) for number, row in enumerate(rows, 1)):
        rows = [row[1:] for row in rows]
    return [row or [""] for row in rows]


def _find(path: Path) -> MatrixFolder:
    return folder_files(path) if path.is_dir() else matrix_files(path)


@dataclass
class _Named:
    """Header and names of an input that fit each other."""

    files: MatrixFolder
    features: list[list[str]]
    barcodes: list[str]
    cells_in_rows: bool
    n_parts: int
    """3 when each gene has a spliced, an unspliced and an ambiguous column (alevin-fry), else 1."""


def _named(path: Path) -> _Named:
    files = _find(path)
    with open_binary(files.matrix) as handle:
        header = _read_header(handle, files.matrix)
    sides = (header.n_rows, header.n_columns)
    features = _names(files.features, sides)
    barcodes = [row[0] for row in _names(files.barcodes, sides)]
    sizes = (len(features), len(barcodes))
    if set(sizes) != set(sides) or sizes not in (sides, sides[::-1]):
        raise refuse(
            files.matrix,
            "matrix and names do not fit",
            f"a matrix of {sides[0]:,} x {sides[1]:,}, {len(features):,} features, {len(barcodes):,} barcodes",
            "one feature per row and one barcode per column",
            "put the files of one sample together",
        )
    cells_in_rows = sizes != sides
    if sides[0] == sides[1]:
        cells_in_rows = files.kind in ("alevin", "kb")
        if files.kind == "mtx":
            raise refuse(
                files.matrix,
                "rows and columns cannot be told apart",
                f"as many cells as genes ({sides[0]:,})",
                "a folder with the names that 10x, alevin-fry or kb use",
                "name the files matrix.mtx (genes in rows), features.tsv and barcodes.tsv",
            )
    if files.symbols is not None:
        symbols = _names(files.symbols, sides)
        if len(symbols) != len(features):
            raise refuse(
                files.symbols,
                "gene ids and gene names do not fit",
                f"{len(features):,} ids, {len(symbols):,} names",
                "one name per id",
                "put the files of one sample together",
            )
        features = [[row[0], symbol[0]] for row, symbol in zip(features, symbols, strict=True)]
    parts = 3 if files.kind == "alevin" and _has_parts([row[0] for row in features]) else 1
    return _Named(files, features, barcodes, cells_in_rows, parts)


def _has_parts(names: list[str]) -> bool:
    """Whether columns are spliced, then unspliced (``-U``), then ambiguous (``-A``) counts of the same genes."""
    third, rest = divmod(len(names), 3)
    if rest or not third:
        return False
    spliced, unspliced, ambiguous = names[:third], names[third : 2 * third], names[2 * third :]
    return all((u, a) == (f"{s}-U", f"{s}-A") for s, u, a in zip(spliced, unspliced, ambiguous, strict=True))


def inspect_mtx(path: Path) -> tuple[int, int]:
    """Return cells and genes of a Matrix Market input from its header and its names."""
    named = _named(path)
    return len(named.barcodes), len(named.features) // named.n_parts


def read_mtx(path: Path) -> RawMatrix:
    """Read a Matrix Market input: a 10x or STARsolo folder, alevin-fry, kb, or any matrix file with its names.

    Whether genes are in rows or in columns is told from the numbers of names. Of alevin-fry's spliced, unspliced and
    ambiguous counts, spliced and ambiguous ones are added up, the usual choice for whole cells (fishpond
    ``loadFry(outputFormat = "scRNA")``); the unspliced ones are left out, and said so.
    """
    named = _named(path)
    files, features = named.files, named.features
    matrix = _load(files.matrix, cells_in_rows=named.cells_in_rows)
    warnings = []
    source = "the matrix"
    if files.kind == "10x_mtx" and named.cells_in_rows:
        warnings.append("the matrix is stored as cells x genes (10x folders are genes x cells)")
    if named.n_parts == 3:
        n_genes = len(features) // 3
        left_out = float(matrix[:, n_genes : 2 * n_genes].sum(dtype=np.float64)) / max(1.0, float(matrix.sum()))
        matrix = sp.csr_matrix(matrix[:, :n_genes] + matrix[:, 2 * n_genes :])
        features = features[:n_genes]
        source = "spliced + ambiguous counts"
        warnings.append(
            f"spliced and ambiguous counts were added up; unspliced ones ({left_out:.0%} of all) were left out"
        )
    two = all(len(row) > 1 for row in features)
    ids = [row[0] for row in features]
    names = [row[1] for row in features] if two else ids
    types = [row[2] for row in features] if files.kind == "10x_mtx" and all(len(row) > 2 for row in features) else None
    has_ids = two and looks_ensembl(ids) >= 0.5
    named_by_second = has_ids or files.kind == "10x_mtx" or files.symbols is not None
    fix = _NO_EM if files.kind in ("alevin", "kb") else None
    return RawMatrix(
        matrix, named.barcodes, names if named_by_second else ids,
        gene_ids=ids if has_ids else None, feature_types=types, source=source, warnings=warnings, fraction_fix=fix,
    )  # fmt: skip
