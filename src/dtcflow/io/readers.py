"""Read a count matrix, whatever a lab has on its disk, and refuse what cannot be raw counts.

Nothing is ever unpickled, and nothing but names, counts and the cell table is read from a file.
"""

from __future__ import annotations

import hashlib
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
from dtcflow.io.detect import FORMATS, detect_format, refuse
from dtcflow.io.hdf5 import inspect_hdf5, read_10x_h5, read_h5ad
from dtcflow.io.raw import RawMatrix, check_genomes, looks_ensembl, split_features
from dtcflow.io.text import inspect_10x_mtx, inspect_table, read_10x_mtx, read_table
from dtcflow.io.values import USE_PLATE, Values, classify, whole_numbers

log = logging.getLogger(__name__)

READ_KEY: Final = "read"
"""``uns`` key under which :func:`read_matrix` says what it did."""
INPUT_PREFIX: Final = "input_"
"""Prefix of the ``obs`` columns that an .h5ad brought along."""
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
    tables = ("csv", "tsv")
    if wanted not in ("auto", found) and not (wanted in tables and found in tables):
        raise refuse(
            path, "the format is not the one the sample sheet names", found, wanted, f"set format to auto or {found}"
        )
    return found


def input_files(path: str | Path) -> list[Path]:
    """Return the files an input consists of: one, or the three of a 10x folder."""
    from dtcflow.io.detect import folder_files, matrix_files

    path = Path(path)
    if not path.is_dir() and detect_format(path) != "10x_mtx":
        return [path]
    files = folder_files(path) if path.is_dir() else matrix_files(path)
    return [files.matrix, files.features, files.barcodes]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def inspect_matrix(path: str | Path, *, format: str = "auto", layer: str | None = None) -> Header:  # noqa: A002
    """Check that an input exists and can be read, from its header alone.

    Raises
    ------
    InputError
        As :func:`read_matrix`, for everything that a header shows (existence, format, truncation, size).
    """
    path = Path(path)
    kind = _format(path, format)
    if kind in ("csv", "tsv"):
        inspect_table(path)
        return Header(kind)
    n_cells, n_genes = inspect_10x_mtx(path) if kind == "10x_mtx" else inspect_hdf5(path, kind, layer)
    _check_size(path, n_cells, n_genes)
    return Header(kind, n_cells, n_genes)


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
) -> ad.AnnData:
    """Read a count matrix.

    Parameters
    ----------
    path
        ``.h5ad``, 10x ``.h5``, a 10x folder (or its matrix file), or a dense table; tables and folders gzip or not.
    format
        ``auto`` (told from the content) or one of ``h5ad 10x_h5 10x_mtx csv tsv``, which is then checked.
    layer
        Layer of an ``.h5ad`` to read. None tries ``layers["counts"]``, ``X`` and ``raw.X`` and takes the first that
        holds counts.
    platform
        ``droplet`` accepts whole numbers only. ``plate`` also accepts fractional estimated counts (RSEM, Salmon,
        kallisto), which are rounded to the nearest whole number.

    Returns
    -------
    Cells x genes without ``X``: ``layers["counts"]`` CSR float32 of whole numbers; ``obs`` indexed by barcode with the
    file's own columns as ``input_<name>``; ``var`` indexed by the file's gene names with ``original_name`` and, where
    the file has Ensembl ids beside them, ``gene_ids``. A repeated gene name gets a suffix (``-1``, ``-2``): its
    counts are not added up, because the two rows are different genes. ``uns["read"]`` holds ``format``, ``source``,
    ``values``, ``rounded``, ``removed_features``, ``n_repeated_names`` and ``warnings``.

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
    if layer is not None and kind != "h5ad":
        log.info("%s: intake.layer does not apply to format %s", path, kind)
    if kind == "h5ad":
        raw = read_h5ad(path, layer=layer, platform=platform)
    elif kind == "10x_h5":
        raw = read_10x_h5(path)
    elif kind == "10x_mtx":
        raw = read_10x_mtx(path)
    else:
        raw = read_table(path, known_genes=known_genes)
    return _finish(raw, path, kind, platform)


def _finish(raw: RawMatrix, path: Path, kind: str, platform: str) -> ad.AnnData:
    _check_size(path, *raw.matrix.shape)
    raw = check_genomes(split_features(raw), path)
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
            USE_PLATE,
        )
    elif values.kind != "counts":
        raise refuse(
            path,
            "no usable counts" if values.kind in ("zero", "empty", "not_finite", "overflow") else "not raw counts",
            f"{raw.source}: {values.words}",
            _ALLOWED,
            "give the matrix from before normalisation (10x: filtered_feature_bc_matrix; .h5ad: often a layer or raw)",
        )
    shape, indices, indptr = raw.matrix.shape, raw.matrix.indices, raw.matrix.indptr
    counts = sp.csr_matrix((whole_numbers(raw.matrix.data), indices, indptr), shape=shape)
    raw.matrix = counts
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
