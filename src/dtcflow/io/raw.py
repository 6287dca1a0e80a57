"""What a format reader hands over, before anything is judged or renamed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.io.detect import refuse

EXPRESSION: Final = "Gene Expression"
ENSEMBL: Final = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")
_GENOME_PREFIX = re.compile(r"^(GRCh3[78]|GRCm3[89]|hg19|hg38|mm9|mm10|mm39)_+")


@dataclass
class RawMatrix:
    """Cells x genes as found in a file."""

    matrix: sp.csr_matrix
    barcodes: list[str]
    genes: list[str]
    gene_ids: list[str] | None = None
    feature_types: list[str] | None = None
    genomes: list[str] | None = None
    obs: pd.DataFrame | None = None
    source: str = "the matrix"
    warnings: list[str] = field(default_factory=list)
    removed: dict[str, int] = field(default_factory=dict)
    """Features of other kinds that were split off, by kind."""


def looks_ensembl(names: list[str]) -> float:
    """Share of names that are Ensembl gene ids."""
    return sum(bool(ENSEMBL.match(name)) for name in names) / len(names) if names else 0.0


def build_sparse(
    data: Any, indices: Any, indptr: Any, shape: tuple[int, int], *, rows: bool, path: Path
) -> sp.csr_matrix:
    """Build a matrix from its three arrays after checking that they fit: a damaged index would read foreign memory.

    ``rows`` tells whether ``indptr`` runs over the rows of ``shape`` (CSR) or over its columns (CSC).
    """
    data, indices, indptr = np.asarray(data), np.asarray(indices), np.asarray(indptr)
    if data.dtype.kind not in "iufb":
        raise refuse(
            path, "the matrix does not hold numbers", f"values of type {data.dtype}", "numbers", "export it again"
        )
    try:
        maker = sp.csr_matrix if rows else sp.csc_matrix
        matrix = maker((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise refuse(
            path,
            "the matrix is damaged",
            f"sparse arrays that do not fit each other ({error})",
            "a consistent matrix",
            "export it again",
        ) from error
    result = sp.csr_matrix(matrix)
    result.sum_duplicates()
    return result


def split_features(raw: RawMatrix) -> RawMatrix:
    """Keep the gene-expression features; antibodies, CRISPR guides and others are counted in ``removed``."""
    if raw.feature_types is None:
        return raw
    kinds = pd.Series(raw.feature_types)
    keep = (kinds == EXPRESSION).to_numpy()
    if keep.all() or not keep.any():
        return raw
    raw.removed = {str(kind): int(count) for kind, count in kinds[~keep].value_counts(sort=False).sort_index().items()}
    return _take(raw, np.flatnonzero(keep))


def _take(raw: RawMatrix, columns: npt.NDArray[np.intp]) -> RawMatrix:
    raw.matrix = raw.matrix[:, columns]
    raw.genes = [raw.genes[i] for i in columns]
    for name in ("gene_ids", "feature_types", "genomes"):
        values = getattr(raw, name)
        if values is not None:
            setattr(raw, name, [values[i] for i in columns])
    return raw


def check_genomes(raw: RawMatrix, path: Path) -> RawMatrix:
    """Refuse genes of several genomes in one matrix; a single genome's prefix (``GRCh38_ACTB``) is taken off."""
    found = [match.group(1) if (match := _GENOME_PREFIX.match(name)) else "" for name in raw.genes]
    genomes = sorted(set(raw.genomes or ()) - {""}) or sorted(set(found) - {""})
    if len(genomes) > 1:
        counts = pd.Series(raw.genomes or found).value_counts()
        listed = ", ".join(f"{name} ({counts[name]:,} genes)" for name in genomes)
        raise refuse(
            path,
            "genes of several genomes",
            listed,
            "one human genome",
            "keep the human cells and genes, and save them alone",
        )
    if raw.genes and all(found):
        raw.genes = [_GENOME_PREFIX.sub("", name) for name in raw.genes]
        if raw.gene_ids is not None:
            raw.gene_ids = [_GENOME_PREFIX.sub("", name) for name in raw.gene_ids]
        raw.warnings.append(f"the prefix {found[0]}_ was taken off the gene names")
    return raw
