"""Cost of the null-calibrated score beside scanpy's ``score_genes``, on the same cells and sets in one process.

Times are processor seconds and are given as a ratio, because seconds depend on the machine. Memory is the peak resident
size above that of the process with the count matrix loaded; another process makes the matrix, so that its making is not
part of the peak.

Run with ``python benchmarks/bench_scores.py [--cells N] [--genes N] [--sets N] [--null N] [--out PATH]``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from truth_table import write_pair

from dtcflow.scores.calibrated import calibrated_z, log_normalise
from dtcflow.scores.signatures import GeneSet
from dtcflow.scores.thinning import thin_counts


def simulate(n_cells: int, n_genes: int, *, depth: float = 6000.0, seed: int = 0) -> sp.csr_matrix:
    """Gamma-Poisson counts with log-normal gene means, made in blocks so that the dense matrix never exists."""
    rng = np.random.default_rng(seed)
    share = np.exp(rng.normal(0, 2, n_genes))
    share /= share.sum()
    blocks: list[sp.csr_matrix] = []
    for start in range(0, n_cells, 500):
        size = depth * np.exp(rng.normal(0, 0.4, min(500, n_cells - start)))
        blocks.append(sp.csr_matrix(rng.poisson(size[:, None] * share).astype(np.float32)))
    return sp.vstack(blocks).tocsr()


def simulate_to(path: str, n_cells: int, n_genes: int) -> None:
    """Write the simulated counts to ``path``."""
    sp.save_npz(path, simulate(n_cells, n_genes), compressed=False)


def load(n_cells: int, n_genes: int) -> sp.csr_matrix:
    """Counts made by another process."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "counts.npz")
        maker = multiprocessing.get_context("spawn").Process(target=simulate_to, args=(path, n_cells, n_genes))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise RuntimeError("the counts could not be simulated")
        return sp.csr_matrix(sp.load_npz(path))


def sets_of(genes: pd.Index, counts: sp.csr_matrix, n_sets: int, *, seed: int = 1) -> dict[str, GeneSet]:
    """Sets of 50 to 300 genes, expressed genes preferred as in published signatures."""
    rng = np.random.default_rng(seed)
    weight = np.sqrt(np.asarray(counts.sum(axis=0)).ravel())
    names = genes.to_numpy(dtype=object)
    return {
        f"S{i}": GeneSet(f"S{i}", tuple(rng.choice(names, int(size), replace=False, p=weight / weight.sum())))
        for i, size in enumerate(np.linspace(50, 300, n_sets))
    }


def peak_mib() -> float:
    """Peak resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def cpu(run: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and its result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def measure(n_cells: int, n_genes: int, n_sets: int, n_null: int) -> dict[str, float]:
    """Compare both scores; ``extra_mib`` is what the calibrated score adds to the loaded matrix."""
    counts = load(n_cells, n_genes)
    genes = pd.Index([f"G{i}" for i in range(n_genes)])
    sets = sets_of(genes, counts, n_sets)
    before = peak_mib()
    ours, scores = cpu(lambda: calibrated_z(counts, genes, sets, n_null=n_null))
    extra = peak_mib() - before

    import scanpy as sc

    data = ad.AnnData(log_normalise(counts), var=pd.DataFrame(index=genes.astype(str)))

    def score_genes() -> None:
        for name, one in sets.items():
            sc.tl.score_genes(data, list(one.up), score_name=name, ctrl_as_ref=False, random_state=0)

    theirs, _ = cpu(score_genes)
    return {
        "cells": n_cells,
        "sets": n_sets,
        "random_sets": n_null,
        "counts_mib": (counts.data.nbytes + counts.indices.nbytes) / 2**20,
        "extra_mib": extra,
        "cpu_ratio": ours / theirs,
        "less_cpu_per_column": (n_null + 1) / (ours / theirs),
        "scored": float(scores.z.notna().to_numpy().mean()),
    }


def cohort(*, patients: int = 8, repeats: int = 20, n_null: int = 500, seed: int = 0) -> float:
    """Processor seconds of ``score_contrast`` for 12 and 150 cells of each patient, 3,000 genes and 12 signatures."""
    from dtcflow.evidence.contrasts import Layout
    from dtcflow.evidence.scoring import score_contrast

    n_cells, n_genes = 162 * patients, 3000
    counts = simulate(n_cells, n_genes, seed=seed)
    side = np.tile(np.repeat([0, 1], [12, 150]), patients)
    counts = thin_counts(counts, np.where(side == 0, 0.3, 1.0), seed=seed)
    names = [f"P{i}" for i in range(patients)]
    table = pd.DataFrame({"cell_id": [f"c{i}" for i in range(n_cells)], "row": range(n_cells), "side": side})
    table = table.assign(patient_id=np.repeat(names, 162), sample=np.where(side == 0, "a", "b"), strict=True)
    layout = Layout(table, tuple(names), pd.DataFrame())
    genes = pd.Index([f"G{i}" for i in range(n_genes)])
    panel = sets_of(genes, counts, 12)
    return cpu(
        lambda: score_contrast(
            counts,
            genes,
            layout,
            panel,
            tested=["S0"],
            repeats=repeats,
            n_null=n_null,
            trim=0.1,
            minimum_coverage=0.6,
            synonyms=None,
            seed=seed,
        )
    )[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("cells", 20000), ("genes", 20000), ("sets", 30), ("null", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="write the figures as OUT.tsv and OUT.md, too")
    given = parser.parse_args()
    found = measure(given.cells, given.genes, given.sets, given.null) | {"cohort_cpu_s": cohort()}
    for key, value in found.items():
        sys.stdout.write(f"{key}\t{value:.4g}\n")
    if given.out is not None:
        note = (
            "cpu ratio: processor time of the calibrated score, signatures and random sets together, over that of "
            "scanpy's score_genes called once per signature, same cells, one process. less cpu per column: how many "
            "times less the calibrated score takes for one column (a signature or a random set) than score_genes "
            "takes for one. extra mib: peak memory above the loaded count matrix, scores and random sets included. "
            "cohort cpu s: score_contrast for 8 patients x (12 + 150) cells, 3,000 genes, 12 signatures of 50 to 300 "
            "genes, 500 random sets each, 20 depth repeats."
        )
        write_pair(pd.DataFrame([found]), given.out, title="Cost of the calibrated score", notes=(note,))


if __name__ == "__main__":
    main()
