"""Ambient share per cell and corrected counts against the planted truth, beside two libraries.

``cells`` is the estimate from the cells alone, ``empty droplets`` the one with the unfiltered matrix. The libraries
``decontx-scanpy`` (MIT) and ``ambidose`` (Apache-2.0) take part where they can be imported; they are no dependencies.
DecontX is given the same first-pass cell types, with and without the empty droplets; AmbiDose runs as its manual says,
with its own clusters.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from truth_table import markdown, write_pair

from dtcflow.contracts import AMBIENT_CORRECTED, AMBIENT_COUNT
from dtcflow.io.droplets import panel_mask
from dtcflow.qc.ambient import estimate_ambient
from dtcflow.qc.decontaminate import correct_sample
from dtcflow.qc.lineage import first_pass_lineage
from dtcflow.qc.soup import LOWER, droplet_totals, soup_counts
from dtcflow.simulate import RawSample, get_scenario, simulate_raw

SAMPLES = ((2001, 0.03), (2002, 0.08), (2003, 0.20))
"""Seed and mean ambient share. Nothing was chosen on these seeds."""
HAEMOGLOBIN = ("HBB", "HBA1", "HBA2")
LEGEND = (
    "Per cell: root mean squared error, correlation and bias of the ambient share against the planted one, over the "
    "cells with an estimate; rmse common over those that every method has one for. Layer: epithelial lost = epithelial "
    "panel counts taken from single tumour cells beyond the planted ambient ones, over their own; tumour and T "
    "haemoglobin left = planted ambient haemoglobin counts that remain, below 0 where more was taken. The soup is not "
    "the mean of the cells (each cell state leaks more or less, SD 0.7 of the natural log). Seeds 2001-2003 took no "
    "part in any choice."
)


@dataclass(frozen=True)
class Case:
    """One simulated sample."""

    raw: RawSample
    counts: sp.csr_matrix
    droplets: sp.csr_matrix
    genes: pd.Index
    cell_type: pd.Series


def make_case(seed: int, ambient: float, *, n_empty: int) -> Case:
    """Simulate a sample and type its cells."""
    scenario = dataclasses.replace(get_scenario("progenitor"), ambient_mean=ambient, ambient_dtc=ambient, leak_sd=0.7)
    raw = simulate_raw(scenario, seed=seed, sample_id="P01_marrow", n_empty=n_empty)
    counts = sp.csr_matrix(raw.sample.adata.X, dtype=np.float32)
    genes = raw.sample.adata.var_names
    first = first_pass_lineage(counts, genes, seed=seed).cells
    return Case(raw, counts, sp.csr_matrix(raw.raw.X, dtype=np.float32), genes, first["first_pass_type"])


Estimate = tuple[str, np.ndarray, sp.csr_matrix | None]


def own(case: Case) -> Iterator[Estimate]:
    """Estimates and layers of dtcflow."""
    soup = soup_counts(case.droplets, droplet_totals(case.droplets))
    names = case.raw.sample.adata.obs_names
    for name, counts in (("cells", None), ("empty droplets", soup.counts)):
        fraction = estimate_ambient(case.counts, case.genes, case.cell_type, soup=counts).fraction
        adata = ad.AnnData(obs=pd.DataFrame(index=names), var=pd.DataFrame(index=case.genes))
        adata.layers["counts"] = case.counts
        if counts is not None:
            adata.var[AMBIENT_COUNT] = counts
        cells = pd.DataFrame({"cell_id": names, "pass_qc": True, "is_doublet": False, "ambient_fraction": fraction})
        cells["first_pass_type"] = case.cell_type.to_numpy()
        yield f"dtcflow, {name}", fraction, sp.csr_matrix(correct_sample(adata, cells).layers[AMBIENT_CORRECTED])


def libraries(case: Case) -> Iterator[Estimate]:
    """Estimates of the libraries that are installed."""
    names = case.raw.sample.adata.obs_names
    obs = pd.DataFrame({"z": case.cell_type.astype(str).to_numpy()}, index=names)
    cells = ad.AnnData(case.counts.copy(), obs=obs, var=pd.DataFrame(index=case.genes))
    if importlib.util.find_spec("pydecontx"):
        from pydecontx import decontx

        empty = case.droplets[np.flatnonzero(droplet_totals(case.droplets) <= LOWER)]
        for name, background in (("cells", None), ("empty droplets", empty)):
            result = cells.copy()
            decontx(result, z="z", background=background, compute_umap=False, verbose=False)
            layer = sp.csr_matrix(result.layers["decontX_counts"])
            yield f"decontx-scanpy, {name}", result.obs["decontX_contamination"].to_numpy(float), layer
    if importlib.util.find_spec("ambidose"):
        import ambidose

        droplets = ad.AnnData(case.droplets, obs=case.raw.raw.obs.copy(), var=pd.DataFrame(index=case.genes))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = ambidose.denoise(cells.copy(), raw=droplets, sample_key=None, n_jobs=1)
        result = result[names]
        yield "ambidose, empty droplets", result.obs["ambidose_rho"].to_numpy(float), sp.csr_matrix(result.X)


def judge(
    case: Case, name: str, fraction: np.ndarray, layer: sp.csr_matrix | None, common: np.ndarray
) -> dict[str, object]:
    """Error of the shares and what the layer lost and left; ``common``: cells that every method has an estimate for."""
    truth = case.raw.sample.truth
    planted = truth["ambient_fraction"].to_numpy(float)
    known = np.isfinite(fraction)
    error = fraction[known] - planted[known]
    row: dict[str, object] = {
        "method": name,
        "cells": int(known.sum()),
        "common": int(common.sum()),
        "rmse": float(np.sqrt((error**2).mean())),
        "rmse_common": float(np.sqrt(((fraction - planted)[common] ** 2).mean())),
        "correlation": float(np.corrcoef(fraction[known], planted[known])[0, 1]),
        "bias": float(error.mean()),
        "sample_estimate": float(fraction[known].mean()),
        "sample_truth": float(planted[known].mean()),
    }
    if layer is None:
        return row
    single = ~truth["is_doublet"].to_numpy(bool)
    tumour = np.flatnonzero(truth["is_tumour"].to_numpy(bool) & single)
    t_cells = np.flatnonzero(truth["true_type"].eq("T_NK").to_numpy() & single)
    totals = droplet_totals(case.counts)

    def counted(rows: np.ndarray, genes: np.ndarray) -> tuple[float, float, float]:
        """Counts, planted ambient counts and counts taken."""
        column = genes.astype(np.float64)
        seen = float((case.counts[rows] @ column).sum())
        soup = float((planted[rows] * totals[rows]).sum() * case.raw.soup[genes].sum())
        return seen, soup, seen - float((layer[rows] @ column).sum())

    seen, soup, taken = counted(tumour, panel_mask(case.genes, None))
    row |= {"tumour": len(tumour), "epithelial_counts": int(seen), "epithelial_lost": (taken - soup) / (seen - soup)}
    haemoglobin = np.asarray(case.genes.isin(HAEMOGLOBIN))
    for label, rows in (("tumour", tumour), ("T", t_cells)):
        _, soup, taken = counted(rows, haemoglobin)
        row[f"{label}_haemoglobin_left"] = (soup - taken) / soup
    return row


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-empty", type=int, default=15_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/tables/ambient"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for seed, ambient in SAMPLES:
        case = make_case(seed, ambient, n_empty=arguments.n_empty)
        estimates = [*own(case), *libraries(case)]
        common = np.all([np.isfinite(fraction) for _, fraction, _ in estimates], axis=0)
        rows += [{"seed": seed, "ambient": ambient, **judge(case, *estimate, common)} for estimate in estimates]
    table = pd.DataFrame(rows)
    write_pair(table, arguments.out, title="Ambient RNA against the planted truth", notes=(LEGEND,))
    print(markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
