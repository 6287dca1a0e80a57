"""What a format reader hands over, before anything is judged or renamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.io.files import refuse
from dtcflow.io.schema import suggest

EXPRESSION: Final = "Gene Expression"
OTHER_FEATURES: Final = (
    *("Antibody Capture", "CRISPR Guide Capture", "Multiplexing Capture", "Antigen Capture", "Custom", "Peaks"),
    *("VDJ", "VDJ-T", "VDJ-B"),
)
"""Other kinds of features in a 10x matrix (Cell Ranger's feature_type column)."""
ENSEMBL: Final = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?$")
_LISTED: Final = 20
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
    fraction_fix: str | None = None
    """What to do about fractional values, where the program that wrote them is known."""
    selected: str = ""
    """Which cells of the file these are, when it holds several samples."""


@dataclass(frozen=True)
class Selection:
    """The cells of one sample in a file that holds several: those whose ``column`` of the cell table is ``value``."""

    column: str
    value: str

    def check(self, columns: Sequence[str], path: Path) -> None:
        """Refuse a column that the cell table does not have, and list what it has."""
        if self.column not in columns:
            near = suggest(self.column, columns)
            raise refuse(
                path,
                f"no column {self.column!r} in the cell table",
                f"{self.column!r}; the cell table has {', '.join(columns) or 'no columns'}",
                "one of these columns",
                f"did you mean {near!r}?" if near else "correct sample_column in the sample sheet",
            )

    def rows(self, values: Iterable[Any], path: Path) -> npt.NDArray[np.bool_]:
        """Return which cells belong to the sample; refuse a value that no cell has, and list those they have."""
        texts = np.array([_as_written(value) for value in values], dtype=object)
        chosen: npt.NDArray[np.bool_] = texts == self.value
        if not chosen.any():
            counts = Counter(texts.tolist())
            often = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:_LISTED]
            listed = ", ".join(f"{name or '(empty)'} ({count:,} cells)" for name, count in often)
            more = f" and {len(counts) - _LISTED:,} more" if len(counts) > _LISTED else ""
            near = suggest(self.value, counts)
            raise refuse(
                path,
                f"no cell with {self.value!r} in the column {self.column!r}",
                f"{self.value!r}; the column {self.column!r} has {listed + more or 'no values'}",
                "one of these values",
                f"did you mean {near!r}?" if near else "correct sample_value (or sample_id) in the sample sheet",
            )
        return chosen

    def words(self, chosen: npt.NDArray[np.bool_]) -> str:
        """Say what was selected, for the report."""
        return f"{int(chosen.sum()):,} of {chosen.size:,} cells: {self.column} = {self.value}"


@dataclass(frozen=True)
class Request:
    """What of an input is wanted."""

    layer: str | None = None
    platform: str = "droplet"
    selection: Selection | None = None


def _as_written(value: Any) -> str:
    """A value as it would be written into the sample sheet: no decimals on whole numbers, nothing for missing ones."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip()
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def looks_ensembl(names: list[str]) -> float:
    """Share of names that are Ensembl gene ids."""
    return sum(bool(ENSEMBL.match(name)) for name in names) / len(names) if names else 0.0


def split_features(raw: RawMatrix, path: Path) -> RawMatrix:
    """Keep the gene-expression features; antibodies, CRISPR guides and others are counted in ``removed``.

    A file that names its genes in other words is taken as it is; one that holds nothing but :data:`OTHER_FEATURES` is
    refused.
    """
    if raw.feature_types is None:
        return raw
    kinds = pd.Series(raw.feature_types)
    keep = (kinds == EXPRESSION).to_numpy()
    if len(kinds) and kinds.isin(OTHER_FEATURES).all():
        raise refuse(
            path,
            "no gene expression in this matrix",
            ", ".join(f"{count:,} {kind}" for kind, count in kinds.value_counts().sort_index().items()),
            "features of type 'Gene Expression'",
            "give the matrix of the gene-expression library",
        )
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
