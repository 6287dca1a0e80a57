"""Which tumour cells survive quality control: simulated marrow with tumour cells of 1 to 8 times the median UMI.

Every design (size ratio r x share of tumour cells) pools samples of 5,000 droplets until it has about 110 tumour cells.
A third of the living tumour cells has a mitochondrial share of 15-35 % at full RNA content: rich in mitochondria, not
dying. Dying cells (few counts, 30-70 % mitochondrial) and doublets of two cells are planted by the simulator in every
sample. Beside dtcflow stands, on the same cells, the filter in common use: two-sided, 5 MAD, on log counts, log genes
and mitochondrial share.

At 0.02 % a sample has one tumour cell. Samples of 0.1 % are drawn (five tumour cells) and each of the five is put alone
among the other cells, so that the soup is that of 0.1 %. Doublets are scored where samples are not shared out like this
(0.5 and 2 %). Writes ``qc_survival`` as TSV and Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from truth_table import write_pair

from dtcflow.contracts import COUNTS
from dtcflow.qc.lineage import first_pass_lineage
from dtcflow.qc.metrics import counts_csr, qc_metrics
from dtcflow.qc.run import qc_sample
from dtcflow.qc.thresholds import GOOD, apply_thresholds, find_thresholds, qc_classes
from dtcflow.simulate.cells import Cells, draw_cells
from dtcflow.simulate.counts import draw_counts
from dtcflow.simulate.design import BATCHES, CARCINOMA, SamplePlan, Scenario, get_scenario
from dtcflow.simulate.expression import Universe, build_universe, draw_patient

RATIOS = (1.0, 2.0, 3.0, 5.0, 8.0)
FRACTIONS = (0.0002, 0.001, 0.005, 0.02)
SAMPLES = {0.001: 22, 0.005: 5, 0.02: 2}
"""Samples per fraction; those of 0.1 % also give 0.02 %."""
CELLS = 5_000
MITO_RICH = (0.15, 0.35)
"""Mitochondrial share of the living tumour cells that are rich in mitochondria (uniform)."""
NOTE = (
    "Percentages; rows without a tumour share are over all samples of that size ratio. Living tumour cells: not dying "
    "by truth, doublets with a tumour cell included. Mito rich: those with 15-35 % mitochondrial counts at full RNA "
    "content. Dying cells: flagged = removed. Heterotypic doublets: flagged by the doublet score (0.5 and 2 % only; "
    "nearly all are of two marrow cells). Immune: living single marrow cells. 5mad: the two-sided 5-MAD filter on the "
    "same cells; it has no doublet score."
)


def five_mad(metrics: pd.DataFrame) -> np.ndarray:
    """Cells that a two-sided 5-MAD filter keeps: log counts, log genes, mitochondrial share."""
    keep = np.ones(len(metrics), dtype=bool)
    for name in ("n_counts", "n_genes", "pct_mt"):
        values = metrics[name].to_numpy(float)
        values = values if name == "pct_mt" else np.log1p(values)
        distance = np.abs(values - np.median(values))
        keep &= distance <= 5 * np.median(distance)
    return keep


def draw_sample(
    universe: Universe, scenario: Scenario, *, ratio: float, fraction: float, patient: int, cells: int, seed: int
) -> tuple[ad.AnnData, pd.DataFrame]:
    """One marrow sample as intake leaves it, and its truth with the column ``mito_rich``."""
    plan = SamplePlan("S", patient, "P", "marrow", BATCHES[patient % len(BATCHES)], cells)
    who = draw_patient(scenario, seed, patient, len(universe.genes))
    base = dataclasses.replace(scenario, dtc_fractions=(fraction,), min_dtc=1)
    of_marrow = draw_cells(plan, who, base, seed).truth
    median = float(of_marrow.loc[~of_marrow["is_tumour"], "library_size"].median())
    sized = dataclasses.replace(base, library_dtc=ratio * median)
    drawn = draw_cells(plan, who, sized, seed)
    parts = drawn.components.copy()
    single = ~parts["barcode"].duplicated(keep=False)
    alive = np.flatnonzero(((parts["state"] == CARCINOMA) & single & (parts["dying"] == 0)).to_numpy())
    rng = np.random.default_rng([seed, patient, round(10 * ratio)])
    rich = np.sort(rng.permutation(alive)[: round(len(alive) / 3)])
    # the simulator's field for the mitochondrial share; the library stays that of a living cell
    parts.loc[parts.index[rich], "dying"] = rng.uniform(*MITO_RICH, len(rich))
    truth = drawn.truth.assign(mito_rich=False)
    truth.loc[parts["barcode"].to_numpy()[rich], "mito_rich"] = True
    counts = draw_counts(plan, Cells(drawn.barcodes, parts, truth), who, universe, sized, seed)
    identity = {"sample_id": "S", "patient_id": "P", "compartment": "marrow", "batch": "1", "platform": "droplet"}
    symbols = pd.Index(universe.genes.index.to_numpy(object), dtype=object)
    adata = ad.AnnData(
        obs=pd.DataFrame(identity, index=pd.Index(truth["cell_id"].to_numpy(object))),
        var=pd.DataFrame({"symbol": symbols}, index=symbols),
    )
    adata.layers[COUNTS] = counts.astype(np.float32)
    return adata, truth.reset_index(drop=True)


def decide(adata: ad.AnnData, *, seed: int) -> pd.DataFrame:
    """The pass/fail part of :func:`dtcflow.qc.run.qc_sample`: doublets and ambient share decide nothing."""
    metrics = qc_metrics(adata)
    first = first_pass_lineage(counts_csr(adata), adata.var_names, cell_ids=adata.obs_names, seed=seed)
    lineage = first.cells["lineage"]
    decision = apply_thresholds(metrics, lineage, find_thresholds(metrics, lineage))
    return metrics.join(decision).join(first.cells).reset_index(drop=True)


def _one_each(adata: ad.AnnData, truth: pd.DataFrame) -> Iterator[np.ndarray]:
    """Rows of the sample with one of its tumour cells each."""
    tumour = truth["is_tumour"].to_numpy(bool)
    for row in np.flatnonzero(tumour & ~truth["is_doublet"].to_numpy(bool)):
        keep = ~tumour
        keep[row] = True
        yield np.flatnonzero(keep)


def results_of(
    ratio: float, *, seeds: Sequence[int], cells: int, samples: dict[float, int], scenario: Scenario
) -> dict[float, list[pd.DataFrame]]:
    """Per fraction one frame per sample: truth, metrics, decision of both filters."""
    found: dict[float, list[pd.DataFrame]] = {fraction: [] for fraction in FRACTIONS}
    universes = {seed: build_universe(scenario, seed) for seed in seeds}

    def keep(fraction: float, adata: ad.AnnData, truth: pd.DataFrame, seed: int, *, full: bool) -> None:
        if full:
            table, _ = qc_sample(adata, settings={}, epithelial_z_threshold=3.0, seed=seed)
        else:
            table = decide(adata, seed=seed).assign(is_doublet=False)
            table["qc_class"] = qc_classes(table["qc_reasons"], table["pass_qc"], table["is_doublet"])
        table["kept_5mad"] = five_mad(table)
        wanted = ["n_counts", "pct_mt", "pass_qc", "is_doublet", "kept_5mad", "qc_class"]
        frame = truth.rename(columns={"is_doublet": "is_doublet_truth"}).reset_index(drop=True).join(table[wanted])
        found[fraction].append(frame.assign(scored=full))

    for fraction, n in samples.items():
        for number in range(n):
            seed, patient = seeds[number % len(seeds)], number // len(seeds)
            adata, truth = draw_sample(
                universes[seed], scenario, ratio=ratio, fraction=fraction, patient=patient, cells=cells, seed=seed
            )
            keep(fraction, adata, truth, seed, full=fraction > 0.001)
            if fraction == 0.001:
                for rows in _one_each(adata, truth):
                    keep(0.0002, adata[rows].copy(), truth.iloc[rows], seed, full=False)
    return found


def _percent(part: pd.Series, where: pd.Series) -> float:
    return 100 * float(part[where].mean()) if where.any() else float("nan")


def row_of(ratio: float, fraction: float, frames: list[pd.DataFrame]) -> dict[str, object]:
    """One row of the table."""
    cells = pd.concat(frames, ignore_index=True)
    tumour, dying = cells["is_tumour"].astype(bool), cells["is_dying"].astype(bool)
    alive, rich = tumour & ~dying, tumour & ~dying & cells["mito_rich"]
    heterotypic = (cells["doublet_kind"] == "heterotypic") & cells["scored"]
    immune = ~tumour & ~dying & ~cells["is_doublet_truth"]
    passed, plain = cells["pass_qc"], cells["kept_5mad"]
    return {
        "size_ratio": ratio,
        "tumour_percent": 100 * fraction,
        "samples": len(frames),
        "tumour_alive": int(alive.sum()),
        "passing": _percent(passed, alive),
        "passing_5mad": _percent(plain, alive),
        "mito_rich": int(rich.sum()),
        "mito_rich_passing": _percent(passed, rich),
        "mito_rich_passing_5mad": _percent(plain, rich),
        "dying": int(dying.sum()),
        "dying_flagged": _percent(~passed, dying),
        "dying_removed_or_ambiguous": _percent(cells["qc_class"] != GOOD, dying),
        "dying_flagged_5mad": _percent(~plain, dying),
        "dying_tumour": int((dying & tumour).sum()),
        "dying_tumour_flagged": _percent(~passed, dying & tumour),
        "dying_tumour_removed_or_ambiguous": _percent(cells["qc_class"] != GOOD, dying & tumour),
        "heterotypic_doublets": int(heterotypic.sum()),
        "doublets_flagged": _percent(cells["is_doublet"], heterotypic),
        "immune_passing": _percent(passed, immune),
        "immune_passing_5mad": _percent(plain, immune),
    }


def survival(
    *,
    seeds: Sequence[int],
    ratios: Sequence[float] = RATIOS,
    cells: int = CELLS,
    samples: dict[float, int] | None = None,
) -> pd.DataFrame:
    """The table: one row per size ratio and share of tumour cells, then one over all shares (without a share)."""
    scenario = get_scenario("progenitor")
    rows = []
    for ratio in ratios:
        found = results_of(ratio, seeds=seeds, cells=cells, samples=samples or SAMPLES, scenario=scenario)
        present = {fraction: frames for fraction, frames in found.items() if frames}
        rows += [row_of(ratio, fraction, frames) for fraction, frames in present.items()]
        everything = [frame for fraction, frames in present.items() for frame in frames]
        rows.append(row_of(ratio, float("nan"), everything))
        print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4], help="cohorts the samples are taken from")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    parser.add_argument("--out", type=Path, required=True, help="path without extension; .tsv and .md are written")
    arguments = parser.parse_args()
    table = survival(seeds=arguments.seeds, ratios=arguments.ratios)
    title = "Survival of tumour cells in quality control"
    write_pair(table, arguments.out, title=title, notes=(NOTE,))
    return 0


if __name__ == "__main__":
    sys.exit(main())
