from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.qc.ambient import CANNOT_EXPRESS, class_masks, estimate_ambient, fit_gamma_poisson, shrink


def estimate(adata, types: pd.Series | None = None):
    return estimate_ambient(adata.layers["counts"], adata.var_names, adata.obs["truth"] if types is None else types)


CELLS = {"T_NK": 150, "monocyte": 150, "erythroid": 100, "plasma": 50, "epithelial": 20}


@pytest.mark.parametrize("planted", [0.02, 0.1, 0.3])
def test_planted_ambient_share_is_recovered(marrow, planted: float) -> None:
    found = estimate(marrow.draw(CELLS, ambient=planted, seed=1))
    assert found.status == "estimated"
    # each type transcribes all markers a little (0.5 % of the pool's share), which cannot be told from soup
    assert found.sample_estimate == pytest.approx(planted, rel=0.05, abs=0.008)
    assert np.nanmax(np.abs(found.fraction - planted)) < 0.05
    assert {entry["class"] for entry in found.classes if entry["used"]} >= {"haemoglobin", "immunoglobulin"}


def test_no_ambient_is_small_not_missing(marrow) -> None:
    found = estimate(marrow.draw(CELLS, ambient=0.0, seed=1))
    assert found.sample_estimate < 0.01
    assert np.nanmax(found.fraction) < 0.05
    assert np.isfinite(found.fraction[:150]).all()


def test_a_coated_cell_stands_out(marrow) -> None:
    adata = marrow.draw({**CELLS, "T_NK": 140}, ambient=0.05, seed=2)
    coated = marrow.draw({**CELLS, "T_NK": 140}, ambient=0.5, seed=3)
    counts = sp.csr_matrix(sp.vstack([coated.layers["counts"][:10], adata.layers["counts"]]))
    types = pd.Series(["T_NK"] * 10 + list(adata.obs["truth"]), dtype=object)
    found = estimate_ambient(counts, adata.var_names, types)
    assert found.sample_estimate == pytest.approx(0.05, abs=0.025)
    assert found.fraction[:10].mean() > 0.35
    assert found.fraction[:10].min() > np.nanquantile(found.fraction[10:], 0.95)


def test_one_poor_cell_is_shrunk_to_the_sample(marrow) -> None:
    adata = marrow.draw(CELLS, ambient=0.1, seed=4)
    poor = sp.csr_matrix(([3.0], ([0], [marrow.genes.index("FILL0000")])), shape=(1, adata.n_vars))
    types = pd.Series(["T_NK", *adata.obs["truth"]], dtype=object)
    found = estimate_ambient(sp.csr_matrix(sp.vstack([poor, adata.layers["counts"]])), adata.var_names, types)
    assert found.fraction[0] == pytest.approx(found.sample_estimate, abs=0.03)


def test_wrongly_typed_cells_do_not_raise_the_sample(marrow) -> None:
    adata = marrow.draw(CELLS, ambient=0.05, seed=5)
    types = adata.obs["truth"].astype(object).copy()
    red = np.flatnonzero(types == "erythroid")[:10]
    types.iloc[red] = "T_NK"
    found = estimate(adata, types)
    assert found.sample_estimate == pytest.approx(0.05, abs=0.015)


def test_unknown_and_expressing_cells_are_not_informative(marrow) -> None:
    adata = marrow.draw({"T_NK": 100, "erythroid": 100, "plain": 20}, ambient=0.1, seed=6)
    types = adata.obs["truth"].replace("plain", "unknown")
    found = estimate(adata, types)
    assert np.isnan(found.fraction[200:]).all()
    assert np.isnan(found.fraction[100:200]).all()  # nothing but haemoglobin is in this soup
    assert np.isfinite(found.fraction[:100]).all()


def test_a_class_without_producers_is_set_aside(marrow) -> None:
    adata = marrow.draw({"T_NK": 100, "monocyte": 100}, seed=7)
    counts = adata.layers["counts"].tolil()
    rng = np.random.default_rng(0)
    counts[:, marrow.genes.index("HBB")] = rng.poisson(4.0, (200, 1))  # lysed red cells, none captured
    found = estimate_ambient(sp.csr_matrix(counts), adata.var_names, adata.obs["truth"])
    haemoglobin = next(entry for entry in found.classes if entry["class"] == "haemoglobin")
    assert not haemoglobin["used"]
    assert "no producing cells" in haemoglobin["reason"]


def test_a_class_that_disagrees_is_set_aside(marrow) -> None:
    cells = {**CELLS, "fibroblast": 100}
    adata = marrow.draw(cells, ambient=0.03, seed=8)
    counts = adata.layers["counts"].tolil()
    rng = np.random.default_rng(0)
    column = marrow.genes.index("HBB")
    # far more haemoglobin in the soup than the captured red cells account for
    counts[:, column] = counts[:, column].toarray() + rng.poisson(6.0, (adata.n_obs, 1))
    found = estimate_ambient(sp.csr_matrix(counts), adata.var_names, adata.obs["truth"])
    used = {entry["class"]: entry["used"] for entry in found.classes}
    assert not used["haemoglobin"]
    assert used["immunoglobulin"]
    assert used["collagen"]
    assert found.sample_estimate == pytest.approx(0.03, abs=0.012)


def test_the_empty_droplets_correct_a_soup_that_is_not_the_pool(marrow) -> None:
    adata = marrow.draw(CELLS, ambient=0.1, seed=1)
    pool = np.asarray(adata.layers["counts"].sum(axis=0)).ravel()
    same = estimate_ambient(adata.layers["counts"], adata.var_names, adata.obs["truth"], soup=pool)
    assert same.soup == "empty droplets"
    assert estimate(adata).soup == "pooled cells"
    np.testing.assert_allclose(same.fraction, estimate(adata).fraction)
    # a soup with twice the share of every informative gene means half the contamination
    informative = np.any(list(class_masks(adata.var_names).values()), axis=0)
    richer = np.where(
        informative,
        2 * pool,
        pool * (1 - 2 * pool[informative].sum() / pool.sum()) / (1 - pool[informative].sum() / pool.sum()),
    )
    halved = estimate_ambient(adata.layers["counts"], adata.var_names, adata.obs["truth"], soup=richer)
    assert halved.sample_estimate == pytest.approx(same.sample_estimate / 2, rel=0.1)
    assert (
        estimate_ambient(adata.layers["counts"], adata.var_names, adata.obs["truth"], soup=0 * pool).soup
        == "pooled cells"
    )


def test_nothing_informative_is_a_status(marrow, as_cells) -> None:
    types = pd.Series(["T_NK"] * 5, dtype=object)
    blank = estimate_ambient(sp.csr_matrix((5, len(marrow.genes))), pd.Index(marrow.genes), types)
    assert blank.status == "not_estimated: no counts"
    assert np.isnan(blank.fraction).all()
    nothing = estimate_ambient(sp.csr_matrix(np.ones((5, 3))), pd.Index(["ACTB", "GAPDH", "B2M"]), types)
    assert nothing.status == "not_estimated: no informative gene class"
    assert {entry["reason"] for entry in nothing.classes} == {"no gene of this class measured"}
    assert len(estimate_ambient(sp.csr_matrix((0, 3)), pd.Index(["A", "B", "C"]), types.iloc[:0]).fraction) == 0


def test_order_of_cells_and_genes_does_not_matter(marrow) -> None:
    adata = marrow.draw(CELLS, ambient=0.1, seed=9)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)
    two = estimate(adata[rows, columns].copy())
    np.testing.assert_allclose(two.fraction, estimate(adata).fraction[rows], rtol=1e-9)


def test_gamma_poisson_by_hand() -> None:
    # o = (0, 4), e = (10, 10): m = 0.2, v = ((0-2)^2 - 2 + (4-2)^2 - 2) / 200 = 0.02, dispersion 0.02 / 0.04
    mean, dispersion = fit_gamma_poisson(np.array([0.0, 4.0, 9.0]), np.array([10.0, 10.0, 0.0]))
    assert (mean, dispersion) == pytest.approx((0.2, 0.5))
    # prior a = 2, b = 10: (2 + 4) / (10 + 10)
    found = shrink(np.array([0.0, 4.0]), np.array([10.0, 10.0]), mean=mean, dispersion=dispersion)
    np.testing.assert_allclose(found, [0.1, 0.3])


def test_gamma_poisson_without_spread_or_counts() -> None:
    assert fit_gamma_poisson(np.array([2.0, 2.0]), np.array([10.0, 10.0])) == pytest.approx((0.2, 0.0))
    assert fit_gamma_poisson(np.zeros(3), np.ones(3)) == (0.0, 0.0)
    assert fit_gamma_poisson(np.array([]), np.array([])) == (0.0, 0.0)
    np.testing.assert_allclose(shrink(np.array([9.0]), np.array([1.0]), mean=0.2, dispersion=0.0), [0.2])


def test_classes_have_genes_and_no_type_is_said_to_lack_its_own(marrow) -> None:
    masks = class_masks(pd.Index([*marrow.genes, "HBEGF"]))
    assert all(mask.any() for mask in masks.values())
    assert not masks["haemoglobin"][-1]
    assert "erythroid" not in CANNOT_EXPRESS["haemoglobin"]
    assert not {"B", "plasma"} & set(CANNOT_EXPRESS["immunoglobulin"])
    assert not {"fibroblast", "pericyte"} & set(CANNOT_EXPRESS["collagen"])
    assert "epithelial" not in CANNOT_EXPRESS["epithelial"]
    assert not {"monocyte", "neutrophil", "dendritic"} & set(CANNOT_EXPRESS["myeloid"])
