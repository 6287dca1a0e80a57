"""What a difference in depth leaves in a score: simulated and real tumour cells, before and after harmonisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.evidence.contrasts import Layout, average, differences, group_values, lay_out
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.scoring import Scored, score_contrast
from dtcflow.genes import load_aliases
from dtcflow.scores.calibrated import log_normalise
from dtcflow.scores.signatures import GeneSet, Synonyms, load_panel
from dtcflow.simulate.evidence import EvidenceScenario, simulate_evidence

Floats = NDArray[np.float64]
OVARIAN: Final = Path(__file__).parents[3] / "shared/data/ovarian_qian2020_swiftcnv/ovarian_qian2020_swiftcnv.h5ad"
SIGNATURES: Final = (
    "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF",
    "PECE_MAMMARY_STEM_CELL_UP",
    "LIM_MAMMARY_LUMINAL_PROGENITOR_UP",
    "WIECEK_G0_ARREST",
)
RATIO: Final = 0.3
TRIM: Final = 0.1


def _sets(names: Sequence[str]) -> dict[str, GeneSet]:
    panel = {one.name: one for one in load_panel()}
    return {name: panel[name] for name in names}


def score(
    counts: Any,
    genes: pd.Index,
    layout: Layout,
    names: Sequence[str],
    *,
    repeats: int,
    coverage: float,
    synonyms: Synonyms | None,
    seed: int,
) -> Scored:
    """Score the cells of a layout as a run does."""
    return score_contrast(
        counts,
        genes,
        layout,
        _sets(names),
        tested=[],
        repeats=repeats,
        n_null=500,
        trim=TRIM,
        minimum_coverage=coverage,
        synonyms=synonyms,
        seed=seed,
    )


def three_ways(scored: Scored, counts: Any, genes: pd.Index, layout: Layout) -> dict[str, dict[str, Floats]]:
    """Per signature the patients' differences by raw mean, calibrated z and calibrated z at harmonised depth."""
    raw = log_normalise(counts)
    out: dict[str, dict[str, Floats]] = {}
    sets = _sets(scored.names)
    matched = differences(average([group_values(z, layout, trim=TRIM) for z in scored.matched]))
    full = differences(group_values(scored.full, layout, trim=TRIM))
    for j, name in enumerate(scored.names):
        mean = np.asarray(raw[:, np.flatnonzero(genes.isin(sets[name].genes))].mean(axis=1), dtype=float)
        plain = differences(group_values(mean.reshape(-1, 1), layout, trim=TRIM))
        out[name] = {
            "raw": plain.difference[:, 0],
            "calibrated": full.difference[:, j],
            "harmonised": matched.difference[:, j],
        }
    return out


def simulated(scenario: EvidenceScenario, *, patients: int = 40, cells: int = 100, seed: int = 7) -> pd.DataFrame:
    """Mean difference of a scenario in a cohort so large that it is what the estimate converges to.

    Returns
    -------
    One row per signature and way of scoring: ``signature way d se``.
    """
    cohort = simulate_evidence(scenario.large(patients=patients, cells=cells), seed)
    whole = cohort_of(cohort.adata, cohort.cells, load_panel(), synonyms=Synonyms.from_table(None))
    layout = lay_out(whole.cells, a="DTC", b="PT", strict_q=0.01, max_cells=cells)
    counts = whole.counts[layout.table["row"].to_numpy(dtype=np.int64)]
    scored = score(counts, whole.genes, layout, SIGNATURES, repeats=2, coverage=0.6, synonyms=None, seed=seed)
    rows = []
    for name, ways in three_ways(scored, counts, whole.genes, layout).items():
        for way, d in ways.items():
            rows.append((name, way, float(d.mean()), float(d.std(ddof=1) / np.sqrt(d.size))))
    return pd.DataFrame(rows, columns=["signature", "way", "d", "se"])


def simulated_shift(*, seed: int = 7) -> pd.DataFrame:
    """Cohorts without any change between compartments, DTCs at 30 % of the depth less DTCs at full depth."""
    null = EvidenceScenario("depth", slope_sd=0.0)
    deep, shallow = (simulated(replace(null, depth_ratio=ratio), seed=seed) for ratio in (1.0, RATIO))
    out = shallow.merge(deep, on=["signature", "way"], suffixes=("", "_even"))
    out["shift"] = out["d"] - out["d_even"]
    out["se_shift"] = np.hypot(out["se"], out["se_even"])
    return out[["signature", "way", "shift", "se_shift"]].rename(columns={"se_shift": "se"}).assign(cells="simulated")


def _halves(sample: NDArray[np.str_], *, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for name in sorted(set(sample)):
        own = rng.permutation(np.flatnonzero(sample == name))
        side = np.repeat(["marrow", "primary"], [own.size // 2, own.size - own.size // 2])
        rows.append(pd.DataFrame({"row": own, "patient_id": str(name), "compartment": side}))
    table = pd.concat(rows).sort_values("row")
    table["cell_id"] = [f"c{row:06d}" for row in table["row"]]
    table["sample_id"] = table["patient_id"] + "_" + table["compartment"]
    return table.set_index("row").assign(malignant_call="malignant", malignancy_q=0.001)


def real_shift(path: Path = OVARIAN, *, splits: int = 5) -> pd.DataFrame:
    """Real carcinoma cells split in two within each patient, one half thinned to 30 %, less the same split unthinned.

    Returns
    -------
    As :func:`simulated_shift`; mean over patients and splits, with the standard error over splits.
    """
    data = ad.read_h5ad(path)
    data = data[(data.obs["cell_type"] == "Epithelial").to_numpy()]
    counts = sp.csr_matrix(data.X, dtype=np.float32)
    genes = pd.Index(data.var_names.astype(str))
    synonyms = Synonyms.from_table(load_aliases())
    found: dict[tuple[str, str], list[float]] = {}
    for split in range(splits):
        cells = _halves(data.obs["sample"].astype(str).to_numpy(), seed=split)
        layout = lay_out(cells, a="DTC", b="PT", strict_q=0.01, max_cells=10**6)
        whole = counts[layout.table["row"].to_numpy(dtype=np.int64)]
        thin = whole.copy()
        rng = np.random.default_rng([split, 1])
        share = np.where(layout.side == 0, RATIO, 1.0)
        thin.data = rng.binomial(thin.data.astype(np.int64), np.repeat(share, np.diff(thin.indptr))).astype(np.float32)
        thin.eliminate_zeros()
        ways = []
        for matrix in (thin, whole):
            scored = score(matrix, genes, layout, SIGNATURES, repeats=3, coverage=0.5, synonyms=synonyms, seed=split)
            ways.append(three_ways(scored, matrix, genes, layout))
        for name in ways[0]:
            for way in ways[0][name]:
                change = float((ways[0][name][way] - ways[1][name][way]).mean())
                found.setdefault((name, way), []).append(change)
    rows = [
        (name, way, float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))))
        for (name, way), values in found.items()
    ]
    return pd.DataFrame(rows, columns=["signature", "way", "shift", "se"]).assign(cells="ovarian carcinoma")
