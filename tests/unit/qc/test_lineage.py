from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import CELL_TYPES
from dtcflow.qc.lineage import (
    ALL_CELLS,
    LINEAGES,
    OTHER_LINEAGES,
    count_markers,
    first_pass_lineage,
    lineage_of,
)
from dtcflow.qc.loss_audit import epithelial_evidence
from dtcflow.scores.signatures import GeneSet


def test_every_cell_type_has_a_lineage() -> None:
    found = {name: lineage_of(name) for name in CELL_TYPES}
    assert set(found.values()) == set(LINEAGES)
    assert [name for name, lineage in found.items() if lineage == "unknown"] == ["unknown"]
    assert found["erythroid"] == "erythroid"
    assert found["megakaryocyte"] == found["plasma"] == found["HSPC"] == "haematopoietic"
    assert found["pericyte"] == "stromal"
    assert lineage_of("hepatocyte") == "unknown"


def test_count_markers_by_hand() -> None:
    genes = pd.Index(["KRT8", "EPCAM", "CD3E", "ACTB", "KRT8"])
    counts = sp.csr_matrix(np.array([[3, 0, 0, 9, 1], [0, 1, 2, 0, 0], [0, 0, 0, 5, 0], [1, 1, 0, 0, 0]], dtype=float))
    markers = {
        "epithelial": GeneSet("epithelial", up=("EPCAM", "KRT8", "KRT19")),
        "T_NK": GeneSet("T_NK", up=("CD3E",)),
    }
    found = count_markers(counts, genes, markers)
    assert found["epithelial"].tolist() == [1, 1, 0, 2]  # KRT8 in two columns is one marker
    assert found["T_NK"].tolist() == [0, 1, 0, 0]


@pytest.fixture(scope="module")
def rare(marrow):
    cells = {"T_NK": 120, "monocyte": 120, "B": 60, "erythroid": 60, "fibroblast": 10, "epithelial": 6, "plain": 10}
    return marrow.draw(cells, counts={**dict.fromkeys(cells, 3000.0), "erythroid": 1200.0}, seed=1)


def test_planted_types_are_recognised_and_the_rare_epithelial_cells_stand_out(rare) -> None:
    found = first_pass_lineage(rare.layers["counts"], rare.var_names, cell_ids=rare.obs_names)
    assert found.epithelial_reference == ALL_CELLS
    cells = found.cells
    assert cells.index.equals(rare.obs_names)
    truth = rare.obs["truth"].map(lambda name: lineage_of(name) if name != "plain" else "unknown")
    assert (cells["lineage"] == truth).groupby(truth).mean().min() >= 0.9
    epithelial = (rare.obs["truth"] == "epithelial").to_numpy()
    evidence = epithelial_evidence(cells, epithelial_z=3.0)
    assert evidence[epithelial].all()
    # one stray keratin transcript can give a high z, two are rare
    assert evidence[~epithelial].mean() < 0.01


def test_common_epithelial_cells_are_compared_with_the_other_lineages(marrow) -> None:
    # keratins in the soup keep the panel visible in the background
    adata = marrow.draw({"T_NK": 40, "monocyte": 40, "epithelial": 160}, ambient=0.05, seed=2)
    found = first_pass_lineage(adata.layers["counts"], adata.var_names)
    assert found.epithelial_reference == OTHER_LINEAGES
    epithelial = (adata.obs["truth"] == "epithelial").to_numpy()
    z = found.cells["epithelial_z"].to_numpy()
    assert (z[epithelial] >= 3).mean() > 0.98
    assert (z[~epithelial] >= 3).mean() < 0.1


def test_genes_only_tumour_cells_have_are_not_lost_with_the_background(marrow) -> None:
    # without soup no blood cell shows a keratin: a background of blood cells would drop the panel
    adata = marrow.draw({"T_NK": 60, "monocyte": 60, "epithelial": 20}, seed=3)
    found = first_pass_lineage(adata.layers["counts"], adata.var_names)
    assert found.epithelial_reference == ALL_CELLS
    epithelial = (adata.obs["truth"] == "epithelial").to_numpy()
    assert (found.cells["epithelial_z"].to_numpy()[epithelial] >= 3).all()


def test_order_of_cells_and_genes_does_not_matter(rare) -> None:
    rng = np.random.default_rng(5)
    shuffled = rare[rng.permutation(rare.n_obs), rng.permutation(rare.n_vars)].copy()
    one = first_pass_lineage(rare.layers["counts"], rare.var_names, cell_ids=rare.obs_names).cells
    two = first_pass_lineage(sp.csr_matrix(shuffled.layers["counts"]), shuffled.var_names, cell_ids=shuffled.obs_names)
    # sums over genes are taken in another order: single precision differs in the last digits
    pd.testing.assert_frame_equal(one, two.cells.loc[one.index], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_cells(rare, n: int) -> None:
    found = first_pass_lineage(rare.layers["counts"][:n], rare.var_names).cells
    assert len(found) == n
    assert set(found["lineage"]) <= set(LINEAGES)
    assert found["n_epithelial_markers"].dtype == np.int64


def test_empty_cells_have_no_score_and_change_no_other(rare) -> None:
    counts = rare.layers["counts"]
    with_empty = sp.csr_matrix(sp.vstack([sp.csr_matrix((3, counts.shape[1])), counts]))
    found = first_pass_lineage(with_empty, rare.var_names).cells
    assert found["epithelial_z"].iloc[:3].isna().all()
    assert (found["lineage"].iloc[:3] == "unknown").all()
    assert (found["n_epithelial_markers"].iloc[:3] == 0).all()
    alone = first_pass_lineage(counts, rare.var_names).cells
    pd.testing.assert_frame_equal(found.iloc[3:].reset_index(drop=True), alone)


def test_a_matrix_without_the_panels_has_no_lineages() -> None:
    genes = pd.Index([f"G{i}" for i in range(200)])
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(2.0, (30, 200)).astype(np.float32))
    found = first_pass_lineage(counts, genes)
    assert (found.cells["lineage"] == "unknown").all()
    assert found.cells["epithelial_z"].isna().all()
    assert "epithelial" in found.not_scored
