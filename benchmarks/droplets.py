"""Cell calling in unfiltered matrices with a planted truth, beside plainer cuts on the same matrices.

Three depths of the same marrow (times the usual library size) over an ambient share of 8 % and a soup that is not the
mean of the cells. ``dtcflow`` is :func:`dtcflow.qc.droplets.call_cells`; ``probability`` the same test with EmptyDrops'
statistic alone; ``knee`` and ``inflection`` keep the droplets above that point of the rank curve, ``expected`` those
with more than a tenth of the 99th percentile of the N largest, N being the true number of cells.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy import stats
from truth_table import markdown, write_pair

from dtcflow.io.droplets import panel_mask
from dtcflow.qc import droplets, soup
from dtcflow.simulate import get_scenario, simulate_raw

DEPTHS = (1.0, 0.3, 0.1)
AMBIENT, LEAK_SD = 0.08, 0.7
CLASSES = ((1, 100), (101, 250), (251, 500), (501, 1000), (1001, np.inf))
LEGEND = (
    "Recall is over all barcodes with a cell, dying ones and doublets too; of tumour cells separately. tumour kept = "
    "called, or not called and listed for its epithelial transcripts. FDR = empty droplets among the called; tested "
    "FDR = among those that the test, not the rank, called. An empty field: no such cell. Nominal FDR 0.01. All "
    "choices were made on seed 11."
)


def probability_calls(counts: sp.csr_matrix, calls: droplets.CellCalls, totals: np.ndarray, *, seed: int) -> np.ndarray:
    """Cells by the same steps with the probability of the counts as the only statistic."""
    share = soup.soup_share(calls.soup, np.bincount(counts.indices, minlength=counts.shape[1]) > 0)
    null = soup.SoupNull(share, calls.concentration)
    tested = np.flatnonzero(np.isfinite(calls.q))
    observed = soup.observed_statistics(counts, tested, null)
    observed[1] = np.inf  # never extreme
    p = soup.monte_carlo_p(totals[tested].astype(np.int64), observed, null, seed=seed) / 2
    called = calls.is_cell & ~np.isfinite(calls.q)
    called[tested] = stats.false_discovery_control(p, method="bh") <= droplets.FDR
    return called


def rows_of(depth: float, seed: int, *, n_empty: int) -> list[dict[str, object]]:
    """All methods on one matrix."""
    base = get_scenario("progenitor")
    scenario = dataclasses.replace(
        base,
        library_marrow=base.library_marrow * depth,
        library_dtc=base.library_dtc * depth,
        ambient_mean=AMBIENT,
        ambient_dtc=AMBIENT,
        leak_sd=LEAK_SD,
    )
    raw = simulate_raw(scenario, seed=seed, sample_id="P01_marrow", n_empty=n_empty)
    counts = sp.csr_matrix(raw.raw.X, dtype=np.float32)
    totals = soup.droplet_totals(counts)
    tumour = np.zeros(totals.size, dtype=bool)
    tumour[raw.is_cell] = raw.sample.truth["is_tumour"].to_numpy(bool)
    start = time.perf_counter()
    calls = droplets.call_cells(counts, seed=seed)
    seconds = time.perf_counter() - start
    panel = panel_mask(raw.raw.var_names, None)
    n = int(raw.is_cell.sum())
    above = np.sort(totals)[::-1][:n]
    methods = {
        "dtcflow": calls.is_cell,
        "probability": probability_calls(counts, calls, totals, seed=seed),
        "knee": totals > (calls.knee.knee if calls.knee else np.inf),
        "inflection": totals > (calls.knee.inflection if calls.knee else np.inf),
        "expected": totals > np.quantile(above, 0.99) / 10,
    }
    rows = []
    for name, called in methods.items():
        kept = (
            called | droplets.epithelial_uncalled(counts, ~called, panel, calls.soup) if name == "dtcflow" else called
        )
        by_test = called & np.isfinite(calls.q)
        row: dict[str, object] = {
            "depth": depth,
            "seed": seed,
            "method": name,
            "droplets": totals.size,
            "cells": n,
            "called": int(called.sum()),
            "recall": (called & raw.is_cell).sum() / n,
        }
        for low, high in CLASSES:
            rows_in = raw.is_cell & (totals >= low) & (totals <= high)
            label = f"recall {low}+" if np.isinf(high) else f"recall {low}-{high:.0f}"
            row[label] = (called & rows_in).sum() / rows_in.sum() if rows_in.any() else np.nan
        row |= {
            "tumour": int(tumour.sum()),
            "tumour_recall": (called & tumour).sum() / tumour.sum(),
            "tumour_kept": (kept & tumour).sum() / tumour.sum(),
            "empty_called": int((called & ~raw.is_cell).sum()),
            "fdr": (called & ~raw.is_cell).sum() / max(1, called.sum()),
            "tested_fdr": (by_test & ~raw.is_cell).sum() / max(1, by_test.sum())
            if name in ("dtcflow", "probability")
            else np.nan,
            "seconds": seconds if name == "dtcflow" else np.nan,
        }
        rows.append(row)
    return rows


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2001, 2002])
    parser.add_argument("--n-empty", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/tables/droplets"))
    arguments = parser.parse_args()
    found = [
        row for depth in DEPTHS for seed in arguments.seeds for row in rows_of(depth, seed, n_empty=arguments.n_empty)
    ]
    # run times are not part of the table: they differ from machine to machine
    table = pd.DataFrame(found)
    print(table[["depth", "seed", "seconds"]].dropna().to_string(index=False))
    table = table.drop(columns="seconds")
    write_pair(table, arguments.out, title="Cells in unfiltered matrices", notes=(LEGEND,))
    print(markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
