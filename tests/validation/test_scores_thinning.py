"""How much of a difference in depth leaks into the scores of real carcinoma cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.genes import load_aliases
from dtcflow.scores.calibrated import apply_sets, draw_matched_sets, gene_statistics, log_normalise
from dtcflow.scores.signatures import Synonyms, load_panel

DATA = Path(__file__).parents[3] / "shared/data/ovarian_qian2020_swiftcnv/ovarian_qian2020_swiftcnv.h5ad"
NAMES = ("LIM_MAMMARY_STEM_CELL_UP_NOPROLIF", "LIM_MAMMARY_LUMINAL_PROGENITOR_UP", "PECE_MAMMARY_STEM_CELL_UP")

pytestmark = [
    pytest.mark.validation,
    pytest.mark.skipif(not DATA.is_file(), reason=f"the ovarian data set is not beside the project ({DATA.name})"),
]


@pytest.fixture(scope="module")
def shifts() -> pd.DataFrame:
    """Shift in SD of the unthinned cells, by patient and signature, of the raw mean and of z."""
    data = ad.read_h5ad(DATA)
    counts = sp.csr_matrix(data.X, dtype=np.float32)
    genes = pd.Index(data.var_names.astype(str))
    sets = {one.name: one for one in load_panel() if one.name in NAMES}
    synonyms = Synonyms.from_table(load_aliases())
    rows: list[dict[str, object]] = []
    for sample in sorted(data.obs["sample"].astype(str).unique()):
        carcinoma = ((data.obs["sample"].astype(str) == sample) & (data.obs["cell_type"] == "Epithelial")).to_numpy()
        cells = np.random.default_rng(1).permutation(np.flatnonzero(carcinoma))
        first, second = np.array_split(cells, 2)
        thin = counts[second].copy()
        thin.data = np.random.default_rng(2).binomial(thin.data.astype(int), 0.3).astype(np.float32)
        lognorm = log_normalise(sp.vstack([counts[first], counts[second], thin]).tocsr())
        n, m = len(first), len(first) + len(second)
        reference = np.r_[np.arange(n), np.arange(m, lognorm.shape[0])]  # what an analysis of the two compartments sees
        matched = draw_matched_sets(
            gene_statistics(lognorm, genes, rows=reference), sets, n_null=500, min_coverage=0.5, synonyms=synonyms
        )
        scores = apply_sets(lognorm, matched)
        for j, name in enumerate(matched.names):
            row: dict[str, object] = {"sample": sample, "signature": name}
            for kind, values in (("raw", scores.value[:, j]), ("z", scores.z[:, j])):
                row[kind] = (values[m:].mean() - values[n:m].mean()) / values[:m].std()
            rows.append(row)
    return pd.DataFrame(rows)


def test_thinning_to_30_percent_moves_raw_means_and_not_z(shifts):
    assert set(shifts["signature"]) == set(NAMES)
    assert (shifts["raw"] < -0.4).all()
    pece = shifts["signature"] == "PECE_MAMMARY_STEM_CELL_UP"
    assert (shifts.loc[~pece, "z"].abs() < 0.15).all()
    # two dozen of its genes are ribosomal, among the 60 strongest of all: hardly a gene is left to compare them with
    assert (shifts.loc[pece, "z"].abs() < 0.25).all()
