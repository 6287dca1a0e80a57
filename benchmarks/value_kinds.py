"""What a count matrix is taken for after every transformation that labs export instead of counts.

Simulated marrow and the real sets beside the project, thinned to several depths and cut to several numbers of cells,
are transformed in each way; the table says how often each was named as what it is, and how often it would have been
accepted as counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from truth_table import write_pair

from dtcflow.io.readers import read_matrix
from dtcflow.io.values import classify
from dtcflow.simulate import simulate_cohort

REAL = {
    "ovarian": "ovarian_qian2020_swiftcnv/ovarian_qian2020_swiftcnv.h5ad",
    "tnbc": "tnbc_copykat/tnbc_copykat.h5ad",
    "lung lines": "lung_lines_sc_mixology/sc_celseq2_5cl_p1.h5ad",
    "normal breast": "breast_normal_10x_scdeconr/sample1",
    "immune": "normal_immune_celltypist_sample/normal_immune_celltypist_sample.h5ad",
    "marrow panel": "normal_bone_marrow_triana_scuba/normal_bone_marrow_triana_scuba.h5ad",
}
SIZES = (1, 2, 5, 20, 100, 1000)
DEPTHS = (300, 1000, 4000, 16000)
"""Median UMI per cell that the simulated cells are thinned or multiplied to."""

Dense = Any


def _per_cell(counts: Dense, target: float) -> Dense:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * target


def _median(counts: Dense) -> float:
    return float(np.median(counts.sum(axis=1)))


def _scaled(values: Dense, *, centred: bool) -> Dense:
    sd = values.std(axis=0, ddof=1 if len(values) > 1 else 0)
    return (values - values.mean(axis=0) * centred) / np.where(sd > 0, sd, 1)


TRANSFORMS: dict[str, tuple[Callable[[Dense], Dense], frozenset[str]]] = {
    "raw counts": (lambda c: c, frozenset({"counts"})),
    "counts as float64": (lambda c: c.astype(np.float64) * (1 + 1e-9), frozenset({"counts"})),
    "log1p CP10k": (lambda c: np.log1p(_per_cell(c, 1e4)), frozenset({"log"})),
    "log2 CPM + 1": (lambda c: np.log2(_per_cell(c, 1e6) + 1), frozenset({"log"})),
    "log1p of counts": (np.log1p, frozenset({"log"})),
    "square roots": (np.sqrt, frozenset({"log"})),
    "CPM": (lambda c: _per_cell(c, 1e6), frozenset({"normalised"})),
    "CP10k": (lambda c: _per_cell(c, 1e4), frozenset({"normalised"})),
    "median-scaled": (lambda c: _per_cell(c, _median(c)), frozenset({"normalised"})),
    "rounded CPM": (lambda c: np.rint(_per_cell(c, 1e6)), frozenset({"rounded"})),
    "rounded CP10k": (lambda c: np.rint(_per_cell(c, 1e4)), frozenset({"rounded"})),
    "rounded median-scaled": (lambda c: np.rint(_per_cell(c, _median(c))), frozenset({"rounded"})),
    "centred and scaled": (lambda c: _scaled(np.log1p(_per_cell(c, 1e4)), centred=True), frozenset({"negative"})),
    "scaled, not centred": (lambda c: _scaled(np.log1p(_per_cell(c, 1e4)), centred=False), frozenset({"scaled"})),
    "binarised": (lambda c: (c > 0).astype(np.float32), frozenset({"binarised"})),
}
NORMALISED = frozenset(TRANSFORMS) - {"raw counts", "counts as float64"}


def matrices(data: Path, seed: int) -> list[tuple[str, int, sp.csr_matrix]]:
    """Name, median depth and counts of every base matrix."""
    found = []
    (sample,) = simulate_cohort("progenitor", seed=seed, n_patients=1, marrow_cells=1000, samples=["P01_marrow"])
    counts = sp.csr_matrix(sample.adata.X, dtype=np.int64)
    rng = np.random.default_rng(seed)
    middle = _median(counts.toarray())
    for depth in DEPTHS:
        made = counts.copy()
        if depth < middle:
            made.data = rng.binomial(made.data, depth / middle)
        else:
            # a cell of several times the depth: Poisson draws from its own profile, plus what was drawn already
            made.data = made.data + rng.poisson(made.data * (depth / middle - 1))
        made.eliminate_zeros()
        found.append((f"simulated, {depth:,} UMI", depth, made))
    for name, path in REAL.items():
        if (data / path).exists():
            real = sp.csr_matrix(read_matrix(data / path).layers["counts"])
            found.append((name, int(np.median(np.asarray(real.sum(axis=1)))), real))
    return found


def confusion(data: Path, seed: int, repeats: int) -> pd.DataFrame:
    """One row per base matrix, transformation, number of cells and draw: the kind that was found."""
    rows = []
    for name, depth, counts in matrices(data, seed):
        for size in (n for n in SIZES if n <= counts.shape[0]):
            for draw in range(repeats if size < 1000 else 1):
                rng = np.random.default_rng([seed, size, draw])
                some = counts[np.sort(rng.choice(counts.shape[0], size, replace=False))].toarray().astype(np.float64)
                if not some.any():
                    continue
                for transform, (make, right) in TRANSFORMS.items():
                    if size == 1 and "median" in transform:
                        continue  # one cell scaled to its own total is itself
                    found = classify(sp.csr_matrix(make(some).astype(np.float32)))
                    rows.append(
                        {
                            "matrix": name,
                            "depth": depth,
                            "cells": size,
                            "transform": transform,
                            "found": found.kind,
                            "right": found.kind in right,
                            "accepted": found.kind == "counts",
                            "accepted_on_plate": found.kind in ("counts", "estimated"),
                        }
                    )
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Per transformation and group of cell numbers: named rightly, refused, and what it was taken for."""
    parts = []
    for transform in TRANSFORMS:
        for label, sizes in (("1-2", (1, 2)), ("5-20", (5, 20)), ("100-1000", (100, 1000))):
            own = rows[(rows["transform"] == transform) & rows["cells"].isin(sizes)]
            taken = ", ".join(f"{kind} {n}" for kind, n in own["found"].value_counts(sort=True).items())
            parts.append(
                {
                    "transform": transform,
                    "cells": label,
                    "n": len(own),
                    "named_right": round(float(own["right"].mean()), 3),
                    "accepted_as_counts": round(float(own["accepted"].mean()), 3),
                    "accepted_on_plate": round(float(own["accepted_on_plate"].mean()), 3),
                    "taken_for": taken,
                }
            )
    return pd.DataFrame(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="real data sets (%(default)s)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=5, help="draws of cells per matrix and size (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/tables/value_kinds"))
    options = parser.parse_args()
    rows = confusion(options.data, options.seed, options.repeats)
    table = summary(rows)
    wrong = rows[rows["transform"].isin(NORMALISED) & rows["accepted"]]
    listed = wrong.groupby(["transform", "matrix", "cells"], sort=True).size().reset_index(name="n")
    each = "; ".join(f"{r.transform}, {r.matrix}, {r.cells} cells: {r.n}" for r in listed.itertuples(index=False))
    notes = (
        "named right: share that was named as what it is; accepted: share that would have been read as counts (on "
        "platform plate, fractional estimated counts are accepted, too). One cell that is centred is all zero, and one "
        "that is scaled to its own total is itself.",
        f"Normalised and accepted as counts: {each or 'none'}.",
    )
    write_pair(table, options.out, title="What normalised matrices are taken for", notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
