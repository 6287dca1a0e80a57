"""Processor time and memory of the malignant-cell caller beside ``infercnvpy.tl.infercnv`` on the same cells.

One simulated marrow aspirate (by default 20,000 cells, all genes of the simulation, a median of about 2,800 UMI and
1,300 genes per cell). Every step runs in a process of its own on one core; the steps take turns, ``--repeats`` times,
and the smallest time of each counts, because another program on the machine can only add to it. Times are given as
ratios to infercnvpy, with its own defaults, the normal cell types as reference and one job. Memory is the largest
resident size of the process less its size with libraries and matrix loaded. Writes ``caller_cost`` as TSV and Markdown;
the exit code says whether the ratios and the memory stay within their limits.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from truth_table import write_pair

from dtcflow.contracts import COUNTS, EPITHELIAL
from dtcflow.genes import load_aliases, load_positions, place_genes
from dtcflow.io.config import load_config
from dtcflow.simulate.cohort import simulate_cohort
from dtcflow.simulate.design import get_scenario

SAMPLE = "P01_marrow"
SEED_OF_CALLS = 1
EPITHELIAL_Z = 3.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
THEIRS = "infercnvpy.tl.infercnv"
THEIRS_POOLED = "infercnvpy.tl.infercnv, one pooled reference"
LIMITS = {"stage 1": 0.25, "all stages": 1.0}
"""Largest processor time relative to infercnvpy."""
MEMORY_LIMIT_MB = 1_000.0
STEPS_EXPLAINED = (
    "stage 1: reference builder, negative-binomial statistics of every cell, cross-fitted nulls and burden p-values. "
    "all stages: the whole step of a patient, with clones, windows and the second opinion. windows: infercnvpy's "
    "algorithm by running sums, as the caller uses it."
)


def make_cells(path: Path, *, n_cells: int, n_genes: int, seed: int) -> None:
    """Write one simulated sample with genome positions; types and epithelial markers are those of the truth."""
    scenario = dataclasses.replace(get_scenario("progenitor"), n_genes=n_genes)
    sample = next(iter(simulate_cohort(scenario, seed=seed, n_patients=1, marrow_cells=n_cells, samples=[SAMPLE])))
    adata, truth = sample.adata, sample.truth
    tumour = truth["is_tumour"].to_numpy(dtype=bool)
    obs = pd.DataFrame(
        {
            "cell_id": truth["cell_id"].to_numpy(dtype=object),
            "sample_id": SAMPLE,
            "patient_id": sample.patient_id,
            "compartment": "marrow",
            "cell_type": np.where(tumour, EPITHELIAL, truth["true_type"].to_numpy(dtype=object)),
            "epithelial_z": np.where(tumour, 8.0, 0.0),
            "n_epithelial_markers": np.where(tumour, 6, 0),
            "is_doublet": truth["is_doublet"].to_numpy(dtype=bool) & ~tumour,
        }
    ).set_index("cell_id", drop=False)
    obs.index = pd.Index(obs["cell_id"].to_numpy(dtype=object), dtype=object)
    var = place_genes(adata.var, load_positions(), load_aliases())
    counts = sp.csr_matrix(adata.X, dtype=np.float32)
    made = ad.AnnData(obs=obs, var=var.assign(in_all_samples=True), layers={COUNTS: counts})
    made.write_h5ad(path)


def _prepare(path: Path) -> ad.AnnData:
    """The cells as the caller gets them."""
    adata = ad.read_h5ad(path)
    for column in adata.obs.select_dtypes("category"):
        adata.obs[column] = adata.obs[column].astype(object)
    for column in adata.var.select_dtypes("category"):
        adata.var[column] = adata.var[column].astype(object)
    return adata


def _settings() -> dict[str, Any]:
    return dict(load_config({})["copy_number"])


def _reference(cells: pd.DataFrame) -> Any:
    from dtcflow.cnv.reference import choose_reference

    settings = _settings()
    return choose_reference(
        cells,
        max_per_type=settings["max_reference_per_type"],
        min_cells=settings["min_reference_cells"],
        seed=SEED_OF_CALLS,
        epithelial_z=EPITHELIAL_Z,
    )


def infercnvpy_step(adata: ad.AnnData, *, pooled: bool = False) -> Callable[[], object]:
    """Run infercnvpy with its defaults; normalisation is done before the clock starts.

    The reference are the normal types, as in its tutorial, or with ``pooled`` all normal cells as one category.
    """
    from infercnvpy.tl import infercnv

    from dtcflow.scores.calibrated import log_normalise

    placed = adata.var["chromosome"].astype(str).str.startswith("chr").to_numpy()
    lognorm = log_normalise(adata.layers[COUNTS])[:, placed]
    cells = ad.AnnData(
        X=lognorm, obs=adata.obs[["cell_type"]], var=adata.var.loc[placed, ["chromosome", "start", "end"]]
    )
    # its chromosome filter fails on arrow strings
    cells.var["chromosome"] = cells.var["chromosome"].astype(object)
    cells.var.index = pd.Index(cells.var.index.astype(str).to_numpy(dtype=object), dtype=object)
    normal = sorted(_reference(adata.obs).counts)
    if pooled:
        cells.obs["cell_type"] = np.where(cells.obs["cell_type"].isin(normal), "normal", "other")
        normal = ["normal"]

    def run() -> object:
        with contextlib.redirect_stderr(io.StringIO()):
            return infercnv(cells, reference_key="cell_type", reference_cat=normal, n_jobs=1, inplace=False)

    return run


def windows_step(adata: ad.AnnData) -> Callable[[], object]:
    """Our windows; normalisation is done before the clock starts."""
    from dtcflow.cnv.windows import smooth_windows
    from dtcflow.scores.calibrated import log_normalise

    lognorm, reference, settings = log_normalise(adata.layers[COUNTS]), _reference(adata.obs), _settings()
    size = {"window_size": settings["window_size"], "step": settings["step"]}
    return lambda: smooth_windows(lognorm, adata.var, reference.rows, reference.types, **size)


def stage_one(adata: ad.AnnData) -> Callable[[], object]:
    """Reference, statistics, nulls and burden p-values of every cell."""
    from dtcflow.cnv.arms import usable_genes
    from dtcflow.cnv.burden import burden
    from dtcflow.cnv.null import TAU_FLOOR, tail_p_values
    from dtcflow.cnv.run import genome_order
    from dtcflow.cnv.scoring import score_cells

    settings = _settings()

    def run() -> object:
        order = genome_order(adata.var)
        var = adata.var.iloc[order]
        counts = sp.csr_matrix(adata.layers[COUNTS][:, order])
        scored = score_cells(
            counts,
            adata.obs["cell_id"].tolist(),
            _reference(adata.obs),
            var["arm"].astype(str).to_numpy(dtype=object),
            usable_genes(var),
            folds=settings["folds"],
            seed=SEED_OF_CALLS,
        )
        inflation, tau = scored.noise.inflation, scored.noise.tau
        nulls = ((np.full_like(tau, TAU_FLOOR), scored.matched), (tau, scored.unseen))
        return [
            tail_p_values(burden(scored.statistics.full, inflation, error), burden(null, inflation, error))
            for error, null in nulls
        ]

    return run


def all_stages(adata: ad.AnnData) -> Callable[[], object]:
    """Everything the workflow's step does for one patient."""
    from dtcflow.cnv.run import infer_copy_number

    cells = adata.obs.reset_index(drop=True)
    given = {"patient_id": "P01", "settings": _settings(), "epithelial_z": EPITHELIAL_Z, "seed": SEED_OF_CALLS}
    return lambda: infer_copy_number(adata, cells, **given)


STEPS: dict[str, Callable[[ad.AnnData], Callable[[], object]]] = {
    THEIRS: infercnvpy_step,
    THEIRS_POOLED: partial(infercnvpy_step, pooled=True),
    "stage 1": stage_one,
    "all stages": all_stages,
    "windows": windows_step,
}


def _resident_mb(field: str) -> float:
    """A field of ``/proc/self/status`` in MB of 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"the kernel does not tell {field}")


def _cpu() -> float:
    """Processor seconds of this process and of the workers that it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _child(queue: Any, name: str, path: Path) -> None:
    # libraries are loaded and the matrix is read before the clock starts
    import scanpy  # noqa: F401
    import scipy.stats  # noqa: F401

    run = STEPS[name](_prepare(path))
    before = _resident_mb("VmRSS:")
    # forget the peak of reading; the kernel keeps the largest size since then
    Path("/proc/self/clear_refs").write_text("5")
    started, wall = _cpu(), time.perf_counter()
    run()
    cpu, wall = _cpu() - started, time.perf_counter() - wall
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    queue.put((cpu, wall, max(_resident_mb("VmHWM:"), workers) - before))


def measure(name: str, path: Path) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and peak MB above the loaded matrix of one step in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue, name, path))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{name} ended with code {child.exitcode}")
    cpu, wall, peak = queue.get()
    return float(cpu), float(wall), float(peak)


def cost_table(path: Path, *, repeats: int, steps: tuple[str, ...] = tuple(STEPS)) -> pd.DataFrame:
    """One row per step: smallest processor time, its ratio to infercnvpy, wall time and largest peak."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in steps}
    for turn in range(repeats):
        for name in steps:
            found[name].append(measure(name, path))
            cpu, _, peak = found[name][-1]
            print(f"{turn + 1}/{repeats} {name}: {cpu:.1f} s, {peak:.0f} MB", file=sys.stderr, flush=True)
    theirs = min(cpu for cpu, _, _ in found[THEIRS])
    rows = []
    for name in steps:
        cpu = min(one[0] for one in found[name])
        peak = max(one[2] for one in found[name])
        ours = not name.startswith(THEIRS)
        rows.append(
            {
                "step": name,
                "cpu_s": cpu,
                "ratio_to_infercnvpy": cpu / theirs,
                "limit": LIMITS.get(name, float("nan")),
                "wall_s": min(one[1] for one in found[name]),
                "peak_mb_above_matrix": round(peak),
                "peak_limit_mb": MEMORY_LIMIT_MB if ours else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def within_limits(table: pd.DataFrame) -> bool:
    """Whether every ratio and every peak of ours stays within its limit."""
    fast = ~(table["ratio_to_infercnvpy"] > table["limit"])
    small = ~(table["peak_mb_above_matrix"] > table["peak_limit_mb"])
    return bool((fast & small).all())


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000, help="genes of the simulation, at most what it has")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="path without extension; .tsv and .md are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        make_cells(path, n_cells=arguments.cells, n_genes=arguments.genes, seed=arguments.seed)
        counts = ad.read_h5ad(path).layers[COUNTS]
        table = cost_table(path, repeats=arguments.repeats)
    umi, genes = np.median(np.asarray(counts.sum(axis=1))), np.median(np.diff(counts.indptr))
    data = (
        f"{counts.shape[0]:,} cells, {counts.shape[1]:,} genes, median {umi:,.0f} UMI and {genes:,.0f} genes per cell; "
        f"{counts.data.nbytes * 2 / 1e6:.0f} MB of counts; one core; the smallest of {arguments.repeats} runs."
    )
    write_pair(table, arguments.out, title="Cost of the malignant-cell caller", notes=(data, STEPS_EXPLAINED))
    print(table.to_string(index=False))
    return 0 if within_limits(table) else 1


for variable in ONE_THREAD:
    os.environ[variable] = "1"

if __name__ == "__main__":
    sys.exit(main())
