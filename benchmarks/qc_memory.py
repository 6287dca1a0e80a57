"""Peak memory and processor time of intake and quality control on one large sample, beside scanpy's own steps.

Each step runs in a process of its own, on a simulated marrow that an earlier process wrote. Peak memory is the resident
size of that process, libraries included; the budget is 1.5 GB and 35 KB per cell. Processor time is given per cell and,
because seconds depend on the machine, as a ratio to ``scanpy.pp.calculate_qc_metrics`` and ``scanpy.pp.scrublet`` on
the same counts. Above ``--scanpy-up-to`` cells scanpy is not run: its Scrublet holds three dense cells x variable genes
matrices at once. Writes ``qc_memory`` as TSV and Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from truth_table import write_pair

from dtcflow.contracts import read_stage, write_stage, write_table
from dtcflow.genes import load_aliases, load_positions
from dtcflow.io.config import load_config
from dtcflow.io.intake import read_sample
from dtcflow.qc.run import qc_sample
from dtcflow.simulate.cohort import simulate_cohort
from dtcflow.simulate.design import get_scenario

SAMPLE = "BIG"
CELLS_PER_DRAW = 5_000
BUDGET_MB = (1_500.0, 35e-3)
"""Base, and per cell, in MB of 10^6 bytes."""
NOTE = (
    "Peak: largest resident size of the process (libraries included), 10^6 bytes. Budget: 1,500 MB + 35 KB per cell. "
    "Ratio: processor time of quality control over that of scanpy's metrics and Scrublet on the same counts, in the "
    "same run; empty where scanpy was not run."
)


def make_sample(path: Path, n_cells: int, *, seed: int) -> int:
    """Write ``n_cells`` simulated marrow cells as one ``.h5ad``, block by block; returns the stored counts."""
    scenario = dataclasses.replace(get_scenario("progenitor"), dtc_fractions=(0.001,))
    n_draws = -(-n_cells // CELLS_PER_DRAW)
    names = [f"P{number + 1:02d}_marrow" for number in range(n_draws)]
    made = simulate_cohort(scenario, seed=seed, n_patients=n_draws, marrow_cells=CELLS_PER_DRAW, samples=names)
    barcodes: list[str] = []
    pointer = [np.zeros(1, dtype=np.int64)]
    stored = 0
    with h5py.File(path, "w") as handle:
        for number, sample in enumerate(made):
            adata = sample.adata[: n_cells - number * CELLS_PER_DRAW]
            counts = adata.X
            if number == 0:
                empty = ad.AnnData(X=counts[:0].copy(), var=adata.var.copy())
                ad.io.write_elem(handle, "/", empty)
                for key, values in (("data", counts.data), ("indices", counts.indices)):
                    del handle["X"][key]
                    handle["X"].create_dataset(
                        key, (0,), values.dtype, maxshape=(None,), chunks=(1 << 18,), compression="lzf"
                    )
            for key, values in (("data", counts.data), ("indices", counts.indices)):
                handle["X"][key].resize((stored + values.size,))
                handle["X"][key][stored:] = values
            pointer.append(stored + counts.indptr[1:].astype(np.int64))
            stored += counts.nnz
            barcodes += [f"{name[:16]}-{number + 1}" for name in adata.obs_names]
        del handle["X"]["indptr"], handle["obs"]
        handle["X"].create_dataset("indptr", data=np.concatenate(pointer))
        handle["X"].attrs["shape"] = np.array([n_cells, empty.n_vars], dtype=np.int64)
        ad.io.write_elem(handle, "obs", pd.DataFrame(index=pd.Index(barcodes, dtype=object)))
    return stored


def intake(path: Path, out: Path) -> None:
    """The step ``read_sample``."""
    row = {"sample_id": SAMPLE, "patient_id": "P", "compartment": "marrow", "path": str(path), "platform": "droplet"}
    adata, _ = read_sample(row, config=load_config({}), positions=load_positions(), aliases=load_aliases())
    write_stage(adata, out, "intake")


def quality_control(path: Path, out: Path) -> None:
    """The step ``qc_sample``."""
    cells, _ = qc_sample(read_stage(path, "intake"), settings={}, epithelial_z_threshold=3.0, seed=1)
    write_table(cells, out, "qc_cells")


def scanpy_steps(path: Path, out: Path) -> None:
    """What scanpy's tutorials run in place of it: metrics and Scrublet."""
    import scanpy as sc

    adata = read_stage(path, "intake")
    adata.X = adata.layers.pop("counts")
    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(adata, qc_vars=["mt"], inplace=True, percent_top=None)
    sc.pp.scrublet(
        adata,
        expected_doublet_rate=min(0.4, 8e-6 * adata.n_obs),
        random_state=1,
        verbose=False,
        use_approx_neighbors=False,
    )
    adata.obs.to_csv(out, sep="\t")


def _child(queue: Any, step: Callable[[Path, Path], None], path: Path, out: Path) -> None:
    # libraries are loaded before the clock starts: they cost the same for every size
    import scanpy  # noqa: F401

    before = time.process_time()
    started = time.perf_counter()
    step(path, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    queue.put((peak, time.process_time() - before, time.perf_counter() - started))


def measure(step: Callable[[Path, Path], None], path: Path, out: Path) -> tuple[float, float, float]:
    """Peak MB, processor seconds and wall seconds of a step in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue, step, path, out))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{step.__name__} ended with code {child.exitcode}")
    peak, cpu, wall = queue.get()
    return float(peak), float(cpu), float(wall)


def rows_for(n_cells: int, folder: Path, *, seed: int, with_scanpy: bool) -> list[dict[str, Any]]:
    """One row per step for a sample of ``n_cells``; a matrix that is in ``folder`` already is used again."""
    matrix = folder / f"{n_cells}.h5ad"
    if not matrix.exists():
        half = matrix.with_suffix(".part")
        make_sample(half, n_cells, seed=seed)
        half.replace(matrix)
    with h5py.File(matrix, "r") as handle:
        per_cell = handle["X"]["data"].shape[0] / n_cells
    staged = folder / f"{n_cells}.intake.h5ad"
    steps: list[tuple[str, Callable[[Path, Path], None], Path, Path]] = [
        ("read_sample", intake, matrix, staged),
        ("qc_sample", quality_control, staged, folder / f"{n_cells}.tsv.gz"),
    ]
    if with_scanpy:
        steps.append(("scanpy metrics + Scrublet", scanpy_steps, staged, folder / f"{n_cells}.scanpy.tsv"))
    budget = BUDGET_MB[0] + BUDGET_MB[1] * n_cells
    rows = []
    for name, step, source, target in steps:
        peak, cpu, wall = measure(step, source, target)
        row = {"cells": n_cells, "stored_per_cell": round(per_cell), "step": name, "peak_mb": round(peak)}
        rows.append(row | {"budget_mb": round(budget), "cpu_ms_per_cell": 1e3 * cpu / n_cells, "wall_s": round(wall)})
        print(rows[-1], file=sys.stderr, flush=True)
    cost = {row["step"]: row["cpu_ms_per_cell"] for row in rows}
    for row in rows:
        row["ratio_to_scanpy"] = (
            cost["qc_sample"] / cost["scanpy metrics + Scrublet"]
            if with_scanpy and row["step"] == "qc_sample"
            else float("nan")
        )
    return rows


def main() -> int:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[50_000, 250_000])
    parser.add_argument("--scanpy-up-to", type=int, default=20_000, help="run scanpy's steps up to this size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for the matrices (default: a temporary one)")
    parser.add_argument("--out", type=Path, required=True, help="path without extension; .tsv and .md are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            row
            for n in arguments.cells
            for row in rows_for(n, folder, seed=arguments.seed, with_scanpy=n <= arguments.scanpy_up_to)
        ]
    # --work only keeps the matrices for the next time
    given = ["--cells", *arguments.cells, "--scanpy-up-to", arguments.scanpy_up_to, "--seed", arguments.seed]
    command = shlex.join(map(str, ["python", "benchmarks/qc_memory.py", *given, "--out", arguments.out]))
    title = "Memory and time of intake and quality control"
    write_pair(pd.DataFrame(rows), arguments.out, title=title, notes=(NOTE,), command=command)
    return 0 if all(row["peak_mb"] <= row["budget_mb"] for row in rows if "scanpy" not in row["step"]) else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
