"""Reader for dense tables of text, with cells or genes in rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import InputError
from dtcflow.io.files import not_utf8, open_binary, refuse
from dtcflow.io.raw import ENSEMBL, RawMatrix
from dtcflow.io.stored import to_float32

_BLOCK = 4_000_000
"""Values of a dense table that are parsed at a time."""
_MIN_GENE_SHARE: Final = 0.1
_SPACES: Final = r"\s+"
"""Separator of tables that are aligned with spaces, as R's ``write.table`` writes them."""


def _split(line: str, separator: str) -> list[str]:
    if separator == _SPACES:
        return next(csv.reader([" ".join(line.split())], delimiter=" "))
    return next(csv.reader([line], delimiter=separator))


def _table_header(path: Path) -> tuple[list[str], int, str]:
    """Names of the value columns, lines above the first row of values, and the separator."""
    skipped = 0
    kept: list[str] = []
    with open_binary(path) as handle:
        try:
            for number, content in enumerate(handle):
                line = content.decode("utf-8-sig" if number == 0 else "utf-8").rstrip("\r\n")
                if not kept and (line.startswith("#") or not line.strip()):
                    skipped += 1
                    continue
                kept.append(line)
                if len(kept) == 2:
                    break
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from error
    if len(kept) < 2:
        raise refuse(
            path,
            "a table without rows",
            f"{len(kept)} lines",
            "a header and one row per cell or gene",
            "export it again",
        )
    line = kept[0] if any(mark in kept[0] for mark in "\t,;") else kept[1]
    separator = max("\t,;", key=line.count)
    separator = separator if separator in line else _SPACES
    try:
        header, first = (_split(line, separator) for line in kept)
    except csv.Error as error:  # a field longer than any name or count
        raise refuse(
            path, "no table of counts", f"a line that cannot be split ({error})", "names and counts", "export it again"
        ) from error
    if len(header) == len(first):
        header = header[1:]  # the corner above the row names
    elif len(header) != len(first) - 1:  # as R writes it: no corner
        raise refuse(
            path, "header and rows do not fit", f"{len(header)} names, {len(first)} fields in the first row",
            "one name per column", "export the table again",
        )  # fmt: skip
    return [name.strip() for name in header], skipped + 1, separator


def _parser(handle: IO[bytes], names: list[str], skip: int, separator: str, *, kind: Any, rows: int) -> Any:
    """Parse the rows of a table in blocks, the first field as row name and the others as ``kind``."""
    columns = [str(number) for number in range(len(names))]
    return pd.read_csv(
        handle, sep=separator, header=None, names=["", *columns], skiprows=skip, index_col=0,
        dtype={"": str, **dict.fromkeys(columns, kind)}, keep_default_na=False, na_values=[], chunksize=max(1, rows),
    )  # fmt: skip


def _first_text(path: Path, names: list[str], skip: int, separator: str) -> InputError | None:
    """Find the first field that is not a number, to name its line and column."""
    with open_binary(path) as handle:
        return _first_text_in(handle, path, names, skip, separator)


def _first_text_in(handle: IO[bytes], path: Path, names: list[str], skip: int, separator: str) -> InputError | None:
    reader = _parser(handle, names, skip, separator, kind=str, rows=_BLOCK // (10 * max(1, len(names))))
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
        with open_binary(path) as handle:
            reader = _parser(handle, columns, skip, separator, kind=np.float64, rows=_BLOCK // max(1, len(columns)))
            for chunk in reader:
                rows += [str(name).strip() for name in chunk.index]
                block: npt.NDArray[np.float64] = chunk.to_numpy(dtype=np.float64)
                blocks.append(sp.csr_matrix(to_float32(block)))
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
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
    """Check header and first row of a dense table; its size is not known before all of it is read."""
    _table_header(path)
