"""Many samples into one object: the cells that passed QC over the union of genes, with nothing mixed up on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import (
    COUNTS,
    VAR_GENES,
    ContractError,
    InputError,
    Problem,
    check_stage,
    join_side_car,
    read_stage,
    read_table,
)

log = logging.getLogger(__name__)

Integers = npt.NDArray[np.integer[Any]]


def merge_samples(
    samples: Sequence[str | Path | ad.AnnData], qc_cells: Sequence[str | Path | pd.DataFrame]
) -> ad.AnnData:
    """Put the cells of all samples that passed QC into one object.

    Samples are read one at a time and filtered before anything is joined, so that the peak is about twice the
    matrix of the cells kept.

    Parameters
    ----------
    samples
        Stage ``intake``: paths or objects, in the order of the result.
    qc_cells
        The ``qc_cells`` table of each sample, in the same order, with one row for each of its cells.

    Returns
    -------
    AnnData
        ``layers["counts"]`` CSR float32, cells x (union of genes, sorted by name). A gene that a sample did not measure
        has zeros there; ``var["n_samples"]`` counts the samples with cells that measured it and
        ``var["in_all_samples"]`` says whether all did. ``X`` is empty.

    Raises
    ------
    InputError
        No sample, or two samples disagree on a gene's identity or position.
    ContractError
        A QC table that does not list exactly the cells of its sample, or a cell id that occurs twice.
    """
    if not samples or len(samples) != len(qc_cells):
        raise InputError(
            "There are no samples to merge, or not one QC table for each",
            [
                Problem(
                    "samples",
                    f"{len(samples)} samples, {len(qc_cells)} QC tables",
                    "one or more samples, one QC table for each",
                    "give each sample its table",
                )
            ],
        )
    counts, obs, var, names = [], [], [], []
    for number, (sample, table) in enumerate(zip(samples, qc_cells, strict=True)):
        name = f"sample {number + 1}" if isinstance(sample, ad.AnnData) else str(sample)
        part_counts, part_obs, part_var = _passed(sample, table, name)
        counts.append(part_counts)
        obs.append(part_obs)
        var.append(part_var)
        names.append(name)
    genes = pd.Index(sorted(set().union(*(part.index for part in var))), dtype=object)
    merged_var = _merge_var(var, genes, names, n_cells=[len(part) for part in obs])
    for number, part in enumerate(counts):
        counts[number] = _spread(part, genes.get_indexer(var[number].index), len(genes))
    matrix = sp.csr_matrix(sp.vstack(counts, format="csr")) if len(counts) > 1 else counts[0]
    merged_obs = tidy_frame(pd.concat([_untyped(part) for part in obs]))
    if not merged_obs.index.is_unique:
        twice = merged_obs.index[merged_obs.index.duplicated()][0]
        raise ContractError(f"cell_id {twice!r} occurs in more than one sample; sample_id must differ between samples")
    log.info("%d samples: %d cells passed QC, %d genes", len(samples), len(merged_obs), len(genes))
    return ad.AnnData(X=None, obs=merged_obs, var=merged_var, layers={COUNTS: matrix})


def _passed(
    sample: str | Path | ad.AnnData, table: str | Path | pd.DataFrame, name: str
) -> tuple[sp.csr_matrix, pd.DataFrame, pd.DataFrame]:
    """Counts, obs and var of one sample's cells that passed QC."""
    adata = sample if isinstance(sample, ad.AnnData) else read_stage(sample, "intake")
    if isinstance(sample, ad.AnnData):
        check_stage(adata, "intake", name)
    qc = table if isinstance(table, pd.DataFrame) else read_table(table, "qc_cells")
    cells = pd.DataFrame({"cell_id": adata.obs_names.astype(object)})
    joined = join_side_car(cells, qc[["cell_id", "pass_qc"]], name=f"QC table of {name}")
    keep = np.flatnonzero(joined["pass_qc"].to_numpy(dtype=bool))
    matrix = sp.csr_matrix(adata.layers[COUNTS], dtype=np.float32)
    matrix = matrix.copy() if keep.size == matrix.shape[0] else matrix[keep]
    return matrix, adata.obs.iloc[keep].copy(), adata.var.copy()


def _spread(matrix: sp.csr_matrix, columns: Integers, n_genes: int) -> sp.csr_matrix:
    """Move the columns of ``matrix`` to the positions ``columns`` of a wider matrix."""
    wide = sp.csr_matrix(
        (matrix.data, columns.astype(np.int32)[matrix.indices], matrix.indptr), shape=(matrix.shape[0], n_genes)
    )
    wide.sort_indices()
    return wide


def _untyped(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories as plain values, so that frames with other categories can be put below each other."""
    frame = frame.copy()
    frame.index = frame.index.astype(object)
    for column in frame.columns:
        if isinstance(frame[column].dtype, pd.CategoricalDtype | pd.StringDtype):
            frame[column] = frame[column].astype(object)
    return frame


def _known(values: pd.Series, column: str) -> pd.Series:
    """Tell which facts are known: a gene without a place has empty text and the coordinate -1."""
    return values.notna() & (values.astype(object) != (-1 if column in ("start", "end") else ""))


def _merge_var(
    parts: Sequence[pd.DataFrame], genes: pd.Index, names: Sequence[str], *, n_cells: Sequence[int]
) -> pd.DataFrame:
    """Join the gene facts of all samples; a fact known to one sample only counts for all, a conflict is refused."""
    for part, name in zip(parts, names, strict=True):
        if not part.index.is_unique:
            raise ContractError(f"{name}: gene {part.index[part.index.duplicated()][0]!r} occurs more than once")
    parts = [_untyped(part) for part in parts]
    merged = pd.DataFrame(index=genes)
    problems: list[Problem] = []
    others = [c for c in parts[0].columns if c not in VAR_GENES and all(c in part.columns for part in parts)]
    for column in (*VAR_GENES, *others):
        value = parts[0][column].reindex(genes)
        for part, name in zip(parts[1:], names[1:], strict=True):
            new = part[column].reindex(genes)
            if column not in VAR_GENES and parts[0][column].dtype == bool:
                value = value.eq(True) | new.eq(True)  # "renamed" in one sample is renamed
                continue
            both = _known(value, column) & _known(new, column)
            differ = both & (value.astype(object) != new.astype(object))
            if differ.any():
                if column not in VAR_GENES:
                    log.info("var column %s differs between samples (first: gene %s) and is left out", column,
                             genes[differ][0])  # fmt: skip
                    break
                problems += [
                    Problem(
                        name,
                        f"{column} {new[gene]!r} for gene {gene}",
                        f"{value[gene]!r}, as in the samples before",
                        "read all samples with the same gene positions and annotation",
                        key=column,
                    )
                    for gene in genes[differ][:3]
                ]
            value = value.where(_known(value, column) | new.isna(), new)
        else:
            merged[column] = value
    if problems:
        raise InputError("Samples disagree on what a gene is", problems)
    measured = [part.index for part, n in zip(parts, n_cells, strict=True) if n] or [part.index for part in parts]
    merged["n_samples"] = np.sum([genes.isin(index) for index in measured], axis=0).astype(np.int64)
    merged["in_all_samples"] = merged["n_samples"].to_numpy() == len(measured)
    return tidy_frame(merged)


def tidy_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Give every column a type that an ``.h5ad`` can hold, without losing what is missing.

    Text becomes categorical with sorted categories; logical values with gaps become nullable booleans; a column of
    numbers with gaps becomes float; a mixed column becomes text. A slash in a column name becomes an underscore.
    """
    columns: dict[str, Any] = {}
    for number, column in enumerate(frame.columns):
        name = str(column).replace("/", "_")
        while name in columns:
            name += "_"
        columns[name] = _tidy(frame.iloc[:, number])
    tidy = pd.DataFrame(columns, index=frame.index.astype(object))
    tidy.index.name = None
    return tidy


def _tidy(values: pd.Series) -> Any:
    dtype = values.dtype
    if isinstance(dtype, pd.BooleanDtype):
        return values.array if values.isna().any() else values.to_numpy(dtype=bool)
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        return values.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(dtype):
        return values.to_numpy(dtype=float, na_value=np.nan) if values.isna().any() else values.to_numpy()
    known = values.dropna()
    if known.empty:
        # a text column without text stays text; an object column of nothing but gaps has no type of its own
        return pd.Categorical([None] * len(values)) if not len(values) else np.full(len(values), np.nan)
    kinds = set(map(type, known.astype(object)))
    if kinds <= {bool, np.bool_}:
        return _tidy(values.astype("boolean"))
    if all(issubclass(kind, int | float | np.number) and not issubclass(kind, bool) for kind in kinds):
        return _tidy(pd.to_numeric(values.astype(object)))
    text = values.astype(object).map(str, na_action="ignore")
    return pd.Categorical(text, categories=sorted(set(text.dropna())))
