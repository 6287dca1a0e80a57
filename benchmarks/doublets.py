"""Share of planted heterotypic doublets that are flagged, and of single cells beside them, by each method tried.

Simulated marrows with 4 % doublets of two marrow cells, 12 tumour cells and 12 doublets of a tumour and a marrow cell
(half of them no deeper than a single cell); and immune cells of real ovarian cancers with planted sums of two of them
and of a carcinoma and an immune cell. Seeds 1 and 2 were used while the method was written and are not in the tables.
Writes ``doublets`` (methods) and ``doublets_by_type`` (single cells flagged, by their type) as TSV and Markdown.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from time import process_time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from arbitration import OVARIAN, REAL_SEEDS, ROOT
from planted import Planted, semireal, simulated
from truth_table import write_pair

from dtcflow.qc.ambient import estimate_ambient
from dtcflow.qc.arbitrate import candidates
from dtcflow.qc.doublets import Doublets, score_doublets
from dtcflow.qc.lineage import first_pass_lineage
from dtcflow.qc.mixed import mixed_droplets
from dtcflow.qc.profiles import resident_profiles
from dtcflow.qc.two_types import AllGenes, ExclusiveGenes, with_rate
from dtcflow.scores.signatures import load_markers

SEEDS = tuple(range(3, 8))
SCENARIOS = ("progenitor", "null")
METHODS = {
    "scrublet": "Scrublet, automatic threshold (as shipped; part of the class)",
    "scrublet_rate": "Scrublet's scores at the share of doublets estimated by the test for two types (tried)",
    "scrublet_many": "the same with five simulated doublets a cell (tried)",
    "all_genes": "two types against one, all genes (tried alone)",
    "exclusive": "two types against one, exclusive genes (tried alone)",
    "two_types": "both likelihoods (part of the class)",
    "arbitration": "candidates called doublet by the arbitration (part of the class)",
    "is_doublet": "the class: any of the three parts",
}


def _top(score: np.ndarray, rate: float) -> np.ndarray:
    """The highest scores, as many as ``rate`` says."""
    known = np.isfinite(score)
    bound = np.sort(score[known])[::-1][min(round(rate * known.sum()), known.sum() - 1)]
    return known & (score > bound)


def _many(counts: sp.csr_matrix, *, rate: float, seed: int) -> np.ndarray:
    import scanpy as sc

    names = pd.Index([f"c{i}" for i in range(counts.shape[0])])
    adata = ad.AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=names))
    sc.pp.scrublet(
        adata,
        sim_doublet_ratio=5.0,
        expected_doublet_rate=rate,
        use_approx_neighbors=False,
        threshold=0.5,
        random_state=seed,
        verbose=False,
    )
    return adata.obs["doublet_score"].to_numpy(float)


def flags(planted: Planted, *, seed: int, tried: bool = True) -> tuple[pd.DataFrame, float]:
    """Truth and the flag of each method for every cell; and CPU seconds of all that is new beside Scrublet."""
    adata = planted.adata
    counts, genes, ids = adata.layers["counts"], adata.var_names, adata.obs_names
    first = first_pass_lineage(counts, genes, cell_ids=ids, seed=seed).cells
    scrublet: Doublets = score_doublets(counts, cell_ids=ids, genes=genes, seed=seed)
    ambient = estimate_ambient(counts, genes, first["first_pass_type"])
    start = process_time()
    mixed, summary = mixed_droplets(
        counts,
        genes,
        first,
        scrublet,
        cell_ids=ids,
        panel=tuple(load_markers()["epithelial"].up),
        ambient_mean=ambient.sample_estimate,
    )
    seconds = process_time() - start
    cells = planted.truth.assign(sample=adata.obs["sample_id"].to_numpy())
    cells["scrublet"] = scrublet.is_doublet
    methods = mixed["doublet_methods"].str.split(";")
    for name in ("two_types", "arbitration"):
        cells[name] = [name in found for found in methods]
    cells["is_doublet"] = mixed["is_doublet"].to_numpy()
    if tried:
        rate = summary["two_types"]["rate"]
        cells["scrublet_rate"] = _top(scrublet.score, rate)
        cells["scrublet_many"] = _top(_many(counts, rate=rate, seed=seed), rate)
        candidate = candidates(first["epithelial_z"].to_numpy(), first["n_epithelial_markers"].to_numpy())
        totals = np.asarray(counts.sum(axis=1), dtype=float).ravel()
        types = first["first_pass_type"].to_numpy(object)
        profiles = resident_profiles(counts, types, ids, excluded=candidate | (totals == 0))
        rows = np.flatnonzero((totals > 0) & ~candidate)
        for name, test in (("all_genes", AllGenes), ("exclusive", ExclusiveGenes)):
            odds = test.build(counts, totals, profiles).log_odds(sp.csr_matrix(counts[rows]), totals[rows])
            cells[name] = False
            column = cells[name].to_numpy(copy=True)
            column[rows] = with_rate(odds, start=0.01, most=0.05)[0] >= 0.5
            cells[name] = column
    return cells, seconds


def table(name: str, cells: pd.DataFrame) -> list[dict[str, Any]]:
    """One line a method."""
    kind = cells["kind"]
    resident_doublet = (kind == "resident_doublet") & cells["heterotypic"]
    tumour_doublet = kind == "doublet"
    groups = {
        "resident_doublets": resident_doublet,
        "tumour_doublets": tumour_doublet,
        "both": resident_doublet | tumour_doublet,
        "homotypic": (kind == "resident_doublet") & ~cells["heterotypic"],
        "single_residents": (kind == "resident") & ~cells["dying"],
        "dying_residents": (kind == "resident") & cells["dying"],
        "single_tumour_cells": kind == "single",
    }
    sizes = {f"n_{key}": int(rows.sum()) for key, rows in groups.items() if key in ("both", "single_residents")}
    return [
        {
            "cells": name,
            "method": method,
            **sizes,
            **{key: float(cells.loc[rows, method].mean()) for key, rows in groups.items()},
        }
        for method in METHODS
        if method in cells
    ]


def main() -> int:
    """Write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "tables", help="folder of the tables")
    parser.add_argument("--h5ad", type=Path, default=OVARIAN, help="the ovarian cells; without them no semi-real row")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    logging.getLogger("dtcflow").setLevel(logging.ERROR)
    groups: dict[str, pd.DataFrame] = {}
    for scenario in SCENARIOS:
        parts = []
        for seed in arguments.seeds:
            sample = simulated(
                seed,
                single=12,
                doublet=12,
                coated=0,
                lysed_tumour=0.02,
                doublet_rate=0.04,
                scenario=scenario,
                patient=seed % 3,
            )
            cells, seconds = flags(sample, seed=seed)
            parts.append(cells)
            print(f"{scenario} {seed}: {seconds:.2f} s", flush=True)
        groups[f"simulated, {scenario}"] = pd.concat(parts)
    if arguments.h5ad.is_file():
        real = ad.read_h5ad(arguments.h5ad)
        parts = []
        for patient in sorted(real.obs["sample"].astype(str).unique()):
            for seed in REAL_SEEDS:
                sample = semireal(real, patient, seed=seed, single=6, doublet=6, coated=0, resident_doublets=6)
                parts.append(flags(sample, seed=seed)[0])
        groups["semi-real"] = pd.concat(parts)
    rows = [line for name, cells in groups.items() for line in table(name, cells)]
    singles = {name: cells[cells["kind"] == "resident"] for name, cells in groups.items()}
    by_type = [
        {"cells": name, "type": kind, "n": len(part), **{m: float(part[m].mean()) for m in METHODS}}
        for name, cells in singles.items()
        for kind, part in cells.groupby("cell_type")
    ]
    seeds = (
        f"Simulated: seeds {', '.join(map(str, arguments.seeds))}; seeds 1 and 2 were used while the method was "
        f"written. Semi-real: seeds {', '.join(map(str, REAL_SEEDS))}; other draws of the same cells were used."
    )
    notes = (
        "Share of the cells of each column's kind that is flagged; residents' doublets of two types, tumour doublets, "
        "both together, residents' doublets of one type, single living and dying residents, single tumour cells.",
        *(f"{name}: {text}." for name, text in METHODS.items()),
        seeds,
    )
    write_pair(pd.DataFrame(rows), arguments.out / "doublets", title="Planted doublets that are flagged", notes=notes)
    title = "Single resident cells flagged as doublets, by type"
    write_pair(pd.DataFrame(by_type), arguments.out / "doublets_by_type", title=title, notes=(seeds,))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
