"""Read a count matrix, whatever a lab has on its disk, and refuse what cannot be raw counts.

Nothing is ever unpickled, and nothing but names, counts and the cell table is read from a file.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import COUNTS, InputError, Problem
from dtcflow.io.annstore import annstore_columns, inspect_annstore, read_annstore
from dtcflow.io.detect import FORMATS, MATRIX_MARKET, TABLES, detect_format
from dtcflow.io.files import refuse
from dtcflow.io.folders import folder_files, matrix_files
from dtcflow.io.hdf5 import inspect_10x_h5, read_10x_h5
from dtcflow.io.loom import inspect_loom, loom_columns, read_loom
from dtcflow.io.mtx import inspect_mtx, read_mtx
from dtcflow.io.raw import RawMatrix, Request, Selection, check_genomes, looks_ensembl, split_features
from dtcflow.io.text import inspect_table, read_table
from dtcflow.io.values import USE_PLATE, Values, classify

log = logging.getLogger(__name__)

READ_KEY: Final = "read"
"""``uns`` key under which :func:`read_matrix` says what it did."""
INPUT_PREFIX: Final = "input_"
"""Prefix of the ``obs`` columns that an .h5ad brought along."""
_CELL_TABLES: Final = ("h5ad", "zarr", "loom")
"""Formats that carry a table of cells and can hold several samples and layers."""
_BEFORE: Final = (
    "give the matrix from before normalisation (10x: filtered_feature_bc_matrix; .h5ad: often a layer or raw)"
)
_ALLOWED: Final = "raw counts: whole numbers >= 0"


@dataclass(frozen=True)
class Header:
    """What the header of an input says; a dense table does not tell its size before it is read."""

    format: str
    n_cells: int | None = None
    n_genes: int | None = None


@cache
def known_genes() -> frozenset[str]:
    """Symbols by which genes are told from barcodes (those of the shipped gene positions)."""
    from dtcflow.genes import load_positions

    symbols = load_positions()["symbol"].astype(str)
    return frozenset(symbols) | frozenset(symbols.str.upper())


def _format(path: Path, wanted: str) -> str:
    if wanted not in ("auto", *FORMATS):
        raise refuse(path, "unknown format", repr(wanted), ", ".join(("auto", *FORMATS)), "use auto")
    found = detect_format(path)
    same = wanted in ("auto", found) or {wanted, found} <= set(TABLES)
    if not same and not (wanted == "mtx" and found in MATRIX_MARKET):
        raise refuse(
            path, "the format is not the one the sample sheet names", found, wanted, f"set format to auto or {found}"
        )
    return found


def input_files(path: str | Path) -> list[Path]:
    """Return what an input consists of: a file, the files of a Matrix Market folder, or the folder of a zarr store."""
    path = Path(path)
    if detect_format(path) not in MATRIX_MARKET:
        return [path]
    return (folder_files(path) if path.is_dir() else matrix_files(path)).files


def _selection(path: Path, kind: str, column: str, value: str) -> Selection | None:
    if not column and not value:
        return None
    if column and value and kind in _CELL_TABLES:
        return Selection(column, value)
    if column and value:
        raise refuse(
            path,
            "no cell table to choose the cells of a sample by",
            f"sample_column {column!r} for format {kind}",
            f"sample_column with {', '.join(_CELL_TABLES)} only",
            "leave sample_column empty, or give each sample a matrix of its own",
        )
    raise refuse(
        path,
        "sample_column and sample_value need each other",
        f"sample_column {column!r}, sample_value {value!r}",
        "both or none",
        "fill in both",
    )


def inspect_matrix(
    path: str | Path,
    *,
    format: str = "auto",  # noqa: A002
    layer: str | None = None,
    sample_column: str = "",
    sample_value: str = "",
) -> Header:
    """Check that an input exists and can be read, from its headers and names; values are not read.

    Raises
    ------
    InputError
        As :func:`read_matrix`, for everything that a header shows (existence, format, truncation, sizes that do not
        fit each other or the file, a column or value that the cell table does not have).
    """
    path = Path(path)
    kind = _format(path, format)
    request = Request(layer, selection=_selection(path, kind, sample_column, sample_value))
    if kind in TABLES:
        inspect_table(path)
        return Header(kind)
    if kind in MATRIX_MARKET:
        n_cells, n_genes = inspect_mtx(path)
    else:
        inspect = {"loom": inspect_loom, "10x_h5": inspect_10x_h5}.get(kind, inspect_annstore)
        n_cells, n_genes = inspect(path, request)
    _check_size(path, n_cells, n_genes)
    return Header(kind, n_cells, n_genes)


def cell_columns(path: str | Path) -> list[str] | None:
    """Return the columns of an input's cell table, or None for a format without one."""
    path = Path(path)
    kind = detect_format(path)
    if kind not in _CELL_TABLES:
        return None
    return list(loom_columns(path) if kind == "loom" else annstore_columns(path))


def _check_size(path: Path, n_cells: int, n_genes: int) -> None:
    for number, what in ((n_cells, "cells"), (n_genes, "genes")):
        if number == 0:
            raise refuse(
                path,
                f"no {what}",
                f"{n_cells:,} cells x {n_genes:,} genes",
                "at least one cell and one gene",
                "export the matrix again",
            )


def read_matrix(
    path: str | Path,
    *,
    format: str = "auto",  # noqa: A002
    layer: str | None = None,
    platform: str = "droplet",
    sample_column: str = "",
    sample_value: str = "",
) -> ad.AnnData:
    """Read a count matrix.

    Parameters
    ----------
    path
        ``.h5ad``, zarr store, ``.loom``, 10x ``.h5``, the folder (or the matrix file) that 10x, STARsolo, alevin-fry or
        kb wrote, any Matrix Market file beside its names, or a dense table; text gzip or not.
    format
        ``auto`` (told from the content) or one of :data:`dtcflow.io.detect.FORMATS`, which is then checked.
    layer
        Layer of an ``.h5ad``, zarr store or ``.loom`` to read. None tries ``layers["counts"]``, ``X`` (``matrix``) and
        ``raw.X`` and takes the first that holds counts.
    platform
        ``droplet`` accepts whole numbers only. ``plate`` also accepts fractional estimated counts (RSEM, Salmon,
        kallisto), which are rounded to the nearest whole number.
    sample_column, sample_value
        Of a file that holds several samples (``.h5ad``, zarr, ``.loom``), only the cells whose ``sample_column`` is
        ``sample_value`` are read; empty reads all.

    Returns
    -------
    Cells x genes without ``X``: ``layers["counts"]`` CSR float32 of whole numbers; ``obs`` indexed by barcode with the
    file's own columns as ``input_<name>``; ``var`` indexed by the file's gene names with ``original_name`` and, where
    the file has Ensembl ids beside them, ``gene_ids``. A repeated gene name gets a suffix (``-1``, ``-2``): its
    counts are not added up, because the two rows are different genes. ``uns["read"]`` holds ``format``, ``source``,
    ``values``, ``rounded``, ``removed_features``, ``n_repeated_names``, ``genomes``, ``selected`` (which cells of the
    file, empty when all) and ``warnings``.

    Raises
    ------
    InputError
        When the input is missing, empty, damaged, of an unknown format, holds several genomes or repeated barcodes,
        or its values are not raw counts (NaN, negative, log-normalised, CPM/TPM, scaled: named in the message).
    """
    path = Path(path)
    if platform not in ("droplet", "plate"):
        raise InputError(
            f"unknown platform {platform!r}",
            [Problem(str(path), repr(platform), "droplet or plate", "correct the sample sheet", key="platform")],
        )
    kind = _format(path, format)
    if layer is not None and kind not in _CELL_TABLES:
        log.info("%s: intake.layer does not apply to format %s", path, kind)
    request = Request(layer, platform, _selection(path, kind, sample_column, sample_value))
    if kind in MATRIX_MARKET:
        raw = read_mtx(path)
    elif kind in TABLES:
        raw = read_table(path, known_genes=known_genes)
    else:
        read = {"loom": read_loom, "10x_h5": read_10x_h5}.get(kind, read_annstore)
        raw = read(path, request)
    return _finish(raw, path, kind, platform)


def _finish(raw: RawMatrix, path: Path, kind: str, platform: str) -> ad.AnnData:
    _check_size(path, *raw.matrix.shape)
    raw = check_genomes(split_features(raw, path), path)
    if raw.removed:
        listed = ", ".join(f"{count:,} {name}" for name, count in raw.removed.items())
        raw.warnings.append(f"features that are not gene expression were split off: {listed}")
    values = classify(raw.matrix)
    counts, rounded = _accept(raw, values, path, platform)
    _check_barcodes(raw.barcodes, path)
    genes, n_repeated = _gene_names(raw, path)
    if n_repeated:
        raw.warnings.append(f"{n_repeated:,} genes repeat a name and got a suffix; their counts were not added up")
    var = pd.DataFrame({"original_name": raw.genes}, index=pd.Index(genes, dtype=object))
    if raw.gene_ids is not None and looks_ensembl(raw.gene_ids) >= 0.5:
        var["gene_ids"] = raw.gene_ids
    obs = _cell_table(raw)
    var["original_name"] = var["original_name"].astype(object)
    adata = ad.AnnData(obs=obs, var=var, layers={COUNTS: counts})
    adata.uns[READ_KEY] = {
        "format": kind,
        "source": raw.source,
        "values": values.words,
        "rounded": rounded,
        "removed_features": dict(raw.removed),
        "n_repeated_names": n_repeated,
        "selected": raw.selected,
        "genomes": sorted(set(raw.genomes or ()) - {""}),
        "warnings": [*raw.warnings, *values.warnings],
    }
    return adata


def _accept(raw: RawMatrix, values: Values, path: Path, platform: str) -> tuple[sp.csr_matrix, bool]:
    """Return the counts as float32 whole numbers, or refuse them by name."""
    if values.kind == "estimated" and platform == "plate":
        raw.warnings.append(f"{values.words}: rounded to the nearest whole number")
    elif values.kind == "estimated":
        raise refuse(
            path,
            "fractional counts on platform droplet",
            f"{raw.source}: {values.words}",
            _ALLOWED,
            raw.fraction_fix or USE_PLATE,
        )
    elif values.kind != "counts":
        raise refuse(
            path,
            "no usable counts" if values.kind in ("zero", "empty", "not_finite", "overflow") else "not raw counts",
            f"{raw.source}: {values.words}",
            _ALLOWED,
            raw.fraction_fix if raw.fraction_fix and values.kind == "log" else _BEFORE,
        )
    counts = sp.csr_matrix(raw.matrix, dtype=np.float32)
    np.rint(counts.data, out=counts.data)
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts, values.kind == "estimated"


def _check_barcodes(barcodes: list[str], path: Path) -> None:
    repeated = [name for name, count in Counter(barcodes).items() if count > 1]
    if repeated:
        raise refuse(
            path,
            "repeated barcodes",
            f"{len(repeated):,} barcodes that occur more than once, for example {repeated[0]!r}",
            "each barcode once",
            "give one sample per matrix: joined samples need a suffix per sample, or matrices of their own",
        )
    odd = [name for name in barcodes if not name.strip() or name != name.strip() or not name.isprintable()]
    if odd:
        raise refuse(
            path,
            "unusable barcodes",
            f"{len(odd):,}, for example {odd[0]!r}",
            "visible text without spaces around it",
            "rename these cells",
        )


def _gene_names(raw: RawMatrix, path: Path) -> tuple[list[str], int]:
    """Return unique gene names and how many of them needed a suffix."""
    names = [name.strip() for name in raw.genes]
    if raw.gene_ids is not None:
        names = [name or gene_id for name, gene_id in zip(names, raw.gene_ids, strict=True)]
    raw.genes = names
    empty = [number for number, name in enumerate(names, 1) if not name or not name.isprintable()]
    if empty:
        raise refuse(
            path,
            "genes without a name",
            f"{len(empty):,}, the first is gene {empty[0]}",
            "a name for every gene",
            "name them",
        )
    taken = set(names)
    seen: Counter[str] = Counter()
    unique = []
    n_repeated = 0
    for name in names:
        if not seen[name]:
            seen[name] = 1
            unique.append(name)
            continue
        n_repeated += 1
        while (candidate := f"{name}-{seen[name]}") in taken:
            seen[name] += 1
        seen[name] += 1
        taken.add(candidate)
        unique.append(candidate)
    return unique, n_repeated


def _cell_table(raw: RawMatrix) -> pd.DataFrame:
    """Return the file's own cell table with prefixed, storable columns: numbers, booleans or text."""
    index = pd.Index(raw.barcodes, dtype=object)
    table = pd.DataFrame(index=index)
    if raw.obs is None:
        return table
    columns: dict[str, Any] = {}
    for number, name in enumerate(raw.obs.columns):
        key = INPUT_PREFIX + str(name).replace("/", "_")
        while key in columns:
            key += "_"
        columns[key] = _storable(raw.obs.iloc[:, number])
    return pd.concat([table, pd.DataFrame(columns, index=index)], axis=1)


def _storable(column: pd.Series) -> Any:
    if column.dtype.kind in "iufb" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = column.astype(object)
    return np.array(["" if pd.isna(value) is True else str(value) for value in values], dtype=object)
