"""What a difference in depth leaves in every score of real carcinoma cells, after both sides were brought to one depth.

The carcinoma cells of each patient are split into two halves. One half is thinned to 30 % (as if it were the marrow),
the contrast brings both halves to one depth, and the standardised difference is compared with that of the same halves
before thinning: the shift ought to be 0. Chance differences between the halves shrink in shallow cells; every split is
therefore used twice, with either half thinned, so that they cancel in the mean over the splits.

Run with ``python benchmarks/scores_depth.py --data FILE.h5ad [--splits N] [--out benchmarks/tables/scores_depth]``.
UCell and AUCell need the extra ``scores``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from truth_table import write_pair

from dtcflow.evidence.alternatives import BOTH, CALIBRATED, Alternative, cell_groups
from dtcflow.evidence.contrasts import Layout
from dtcflow.evidence.scoring import Scored, score_contrast
from dtcflow.genes import load_aliases
from dtcflow.scores.signatures import GeneSet, Synonyms, load_panel
from dtcflow.scores.thinning import thin_counts

DATA = Path(__file__).parents[2] / "shared/data/ovarian_qian2020_swiftcnv/ovarian_qian2020_swiftcnv.h5ad"
NAMES = (
    "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF",
    "PECE_MAMMARY_STEM_CELL_UP",
    "PECE_MAMMARY_STEM_CELL_UP_NOPROLIF",
    "LIM_MAMMARY_LUMINAL_PROGENITOR_UP",
    "WIECEK_G0_ARREST",
    "WIECEK_G0_ARREST_NOPROLIF",
)
SHARE = 0.3
MIN_CELLS = 60
TRIM = 0.1

Key = tuple[str, str, str, str, str]
"""Score, reference, aggregation, depth, signature."""


def layout_of(n_a: int, n_b: int, sample: str) -> Layout:
    """One patient with ``n_a`` thinned and ``n_b`` untouched cells."""
    table = pd.DataFrame(
        {
            "cell_id": [f"{sample}:{i}" for i in range(n_a + n_b)],
            "row": range(n_a + n_b),
            "patient_id": sample,
            "side": np.repeat([0, 1], [n_a, n_b]),
            "sample": np.repeat(["a", "b"], [n_a, n_b]),
            "strict": True,
        }
    )
    return Layout(table, (sample,), pd.DataFrame())


def effects(scored: Scored, layout: Layout) -> dict[Key, float]:
    """Standardised difference of the two halves under every score."""
    groups = cell_groups(scored.matched, scored.full, layout, trim=TRIM)
    found: dict[Key, float] = {}
    for one in (Alternative(CALIBRATED, BOTH, scored.names, groups, {}), *scored.alternatives):
        for (depth, how, call), values in one.groups.items():
            if call != "loose":
                continue
            for j, name in enumerate(one.names):
                if name not in one.reasons:
                    a, b = values.value[0, :, j]
                    found[one.score, one.reference, how, depth, name] = (a - b) / values.variance[0, 1, j] ** 0.5
    return found


def shifts(
    counts: sp.csr_matrix,
    genes: pd.Index,
    rows: np.ndarray,
    sample: str,
    panel: dict[str, GeneSet],
    synonyms: Synonyms,
    *,
    splits: int,
    repeats: int = 10,
    alternatives: bool = True,
) -> pd.DataFrame:
    """Shift of every score for each split of a patient's cells, thinned half less untouched half."""

    def run(matrix: sp.csr_matrix, layout: Layout) -> dict[Key, float]:
        scored = score_contrast(
            matrix, genes, layout, panel, tested=[], repeats=repeats, n_null=500, trim=TRIM, minimum_coverage=0.5,
            synonyms=synonyms, seed=1, alternatives=list(panel) if alternatives else [],
        )  # fmt: skip
        return effects(scored, layout)

    records = []
    for split in range(splits):
        halves = np.array_split(np.random.default_rng(split + 1).permutation(rows), 2)
        for turn, (a, b) in enumerate((halves, halves[::-1])):
            layout = layout_of(len(a), len(b), sample)
            before = run(sp.csr_matrix(sp.vstack([counts[a], counts[b]])), layout)
            thin = thin_counts(counts[a], np.full(len(a), SHARE), seed=100 + 2 * split + turn)
            after = run(sp.csr_matrix(sp.vstack([thin, counts[b]])), layout)
            for key, value in after.items():
                score, reference, how, depth, name = key
                unthinned = before.get((score, reference, how, "full", name))
                if unthinned is not None:
                    records.append((sample, len(rows), score, reference, how, depth, name, value - unthinned))
    columns = ["sample", "cells", "score", "reference", "aggregation", "depth", "signature", "shift"]
    return pd.DataFrame(records, columns=columns)


def carcinoma_cells(data: ad.AnnData) -> dict[str, np.ndarray]:
    """Rows of the carcinoma cells of each sample that has enough of them."""
    sample, epithelial = data.obs["sample"].astype(str), (data.obs["cell_type"] == "Epithelial").to_numpy()
    rows = {name: np.flatnonzero((sample == name).to_numpy() & epithelial) for name in sorted(sample.unique())}
    return {name: own for name, own in rows.items() if len(own) >= MIN_CELLS}


def measure(path: Path, *, splits: int, repeats: int = 10, alternatives: bool = True) -> pd.DataFrame:
    """Shifts of all samples of a data set."""
    data = ad.read_h5ad(path)
    counts, genes = sp.csr_matrix(data.X, dtype=np.float32), pd.Index(data.var_names.astype(str))
    panel = {one.name: one for one in load_panel() if one.name in NAMES}
    synonyms = Synonyms.from_table(load_aliases())
    return pd.concat(
        [
            shifts(
                counts, genes, rows, sample, panel, synonyms,
                splits=splits, repeats=repeats, alternatives=alternatives,
            )
            for sample, rows in carcinoma_cells(data).items()
        ],
        ignore_index=True,
    )  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean shift per score and signature, over the patients and of the patient furthest from 0, with its error."""
    keys = ["score", "reference", "aggregation", "depth", "signature"]
    patient = table.groupby([*keys, "sample"], sort=False)["shift"].agg(["mean", "std", "size"]).reset_index()
    patient["error"] = patient["std"] / patient["size"] ** 0.5
    worst = patient.loc[patient["mean"].abs().groupby([patient[key] for key in keys], sort=False).idxmax()]
    worst = worst.set_index(keys)[["mean", "error", "sample"]]
    worst.columns = pd.Index(["largest_shift", "its_error", "its_sample"])
    over = patient.groupby(keys, sort=False)["mean"].agg(["mean", "size"])
    over.columns = pd.Index(["mean_shift", "patients"])
    out = over.join(worst).reset_index()
    return out.assign(within_010=out["largest_shift"].abs() <= 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/tables/scores_depth"))
    given = parser.parse_args()
    table = summary(measure(given.data, splits=given.splits))
    note = (
        f"Half of each patient's carcinoma cells thinned to {SHARE:.0%}; {given.splits} splits, each with either half "
        "thinned. Shift: standardised difference after thinning less the one before, in standard deviations between "
        "cells. depth matched: both halves brought to one depth; full: not. reference: cells the random sets are "
        "matched on. largest shift: that of the patient furthest from 0, with its standard error over the splits. "
        "patients: those in whom the signature passed the coverage gates."
    )
    write_pair(table, given.out, title="Depth in the scores of real carcinoma cells", notes=(note,))


if __name__ == "__main__":
    main()
