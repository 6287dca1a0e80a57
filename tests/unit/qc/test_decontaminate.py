from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import ContractError, check_stage
from dtcflow.qc.decontaminate import correct_sample, decontaminate, own_profiles


def csr(values) -> sp.csr_matrix:
    return sp.csr_matrix(np.asarray(values, dtype=np.float32))


def test_without_a_profile_counts_go_in_proportion_to_the_soup():
    counts, soup = csr([[60, 30, 10]]), np.array([0.5, 0.5, 0.0])
    found = decontaminate(counts, np.array([0.2]), soup).toarray()
    np.testing.assert_allclose(found, [[50, 20, 10]], rtol=1e-6)


def test_with_a_profile_what_the_type_makes_stays():
    counts, soup = csr([[80, 20]]), np.array([0.5, 0.5])
    profiles = np.array([[1.0, 0.0]])
    found = decontaminate(counts, np.array([0.2]), soup, profiles=profiles, group=np.array([0])).toarray()
    assert found.sum() == pytest.approx(80, rel=1e-6)
    # the second gene can only be soup: all that the soup can have brought goes (10 expected, limit 10 + 3 sqrt 10)
    assert found[0, 1] < 2
    without = decontaminate(counts, np.array([0.2]), soup, profiles=profiles, group=np.array([-1])).toarray()
    np.testing.assert_allclose(without, [[70, 10]], rtol=1e-5)


def test_a_mistyped_cell_keeps_what_the_soup_cannot_have_brought():
    counts, soup = csr([[950, 50]]), np.array([0.99, 0.01])
    profiles = np.array([[1.0, 0.0]])  # a type without the second gene
    found = decontaminate(counts, np.array([0.05]), soup, profiles=profiles, group=np.array([0])).toarray()
    # 0.5 expected from the soup, at most 0.5 + 3 sqrt(0.5) = 2.6 taken
    assert found[0, 1] >= 47.3
    assert found.sum() == pytest.approx(950, rel=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 100])
@pytest.mark.parametrize("typed", [True, False])
def test_bounds_and_sums(n, typed):
    rng = np.random.default_rng(n)
    counts = csr(rng.poisson(rng.gamma(0.3, 8.0, (n, 40))))
    fraction, soup = rng.uniform(0, 1, n), rng.dirichlet(np.ones(40))
    fraction[: n // 10] = 0.0
    fraction[n // 10 : n // 5] = 1.0
    group = rng.integers(-1, 3, n)
    profiles = rng.dirichlet(np.ones(40), 3) if typed else None
    found = decontaminate(counts, fraction, soup, profiles=profiles, group=group if typed else None)
    assert found.dtype == np.float32
    assert (found.data >= 0).all()
    assert (found.data <= counts.data).all()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    np.testing.assert_allclose(np.asarray(found.sum(axis=1)).ravel(), (1 - fraction) * totals, rtol=1e-4, atol=1e-3)
    one_by_one = [
        decontaminate(
            counts[i], fraction[i : i + 1], soup, profiles=profiles, group=group[i : i + 1] if typed else None
        ).toarray()
        for i in range(min(n, 5))
    ]
    for i, row in enumerate(one_by_one):
        np.testing.assert_allclose(row[0], found[i].toarray()[0], rtol=1e-5, atol=1e-5)


def test_own_profiles_are_without_soup_and_without_one_odd_cell():
    soup = np.array([0.0, 0.0, 1.0])
    counts = np.tile([80.0, 10.0, 10.0], (20, 1))
    counts[0] = [80, 2000, 10]  # a doublet with a cell full of the second gene
    found = own_profiles(csr(counts), np.full(20, 0.1), soup, np.zeros(20, dtype=np.intp))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert found[0, 2] < 0.05
    assert found[0, 1] < 0.4  # 0.11 by truth; 0.58 with the odd cell
    assert own_profiles(csr(np.zeros((0, 3))), np.zeros(0), soup, np.zeros(0, dtype=np.intp)).shape == (0, 3)


CELLS = {"T_NK": 60, "monocyte": 60, "erythroid": 40, "epithelial": 12}


def table(adata, *, fraction=0.1, passed=True) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "cell_id": adata.obs_names.astype(object),
            "pass_qc": passed,
            "ambient_fraction": fraction,
            "first_pass_type": adata.obs["truth"].astype(object).to_numpy(),
            "is_doublet": False,
        }
    )


def test_a_sample_is_corrected(marrow):
    adata = marrow.draw(CELLS, ambient=0.1, seed=1)
    clean = marrow.draw(CELLS, ambient=0.0, seed=1)
    cells = table(adata)
    cells.loc[3, "pass_qc"] = False
    cells.loc[5, "ambient_fraction"] = np.nan
    found = correct_sample(adata, cells)
    check_stage(found, "ambient", "test")
    assert found.n_obs == adata.n_obs - 1
    assert found.uns["ambient"] == {"status": "corrected", "soup": "pooled cells", "n_borrowed": 1}
    layer = found.layers["ambient_corrected"]
    assert np.array_equal(layer.data * 64, np.rint(layer.data * 64))
    # haemoglobin of T cells is soup, keratins of epithelial cells are their own
    t_cells = found[adata.obs["truth"].to_numpy()[np.arange(adata.n_obs) != 3] == "T_NK"]
    hb = t_cells[:, "HBB"].layers["ambient_corrected"].sum()
    assert hb < 0.3 * adata[adata.obs["truth"] == "T_NK", "HBB"].layers["counts"].sum()
    tumour = adata.obs_names[adata.obs["truth"] == "epithelial"]
    kept = found[tumour, ["EPCAM", "KRT19"]].layers["ambient_corrected"].sum()
    assert kept > 0.9 * adata[tumour, ["EPCAM", "KRT19"]].layers["counts"].sum()
    assert clean.n_obs == adata.n_obs


def test_order_of_cells_does_not_matter(marrow):
    adata = marrow.draw(CELLS, ambient=0.1, seed=1)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    one = correct_sample(adata, table(adata))
    two = correct_sample(adata[order].copy(), table(adata).iloc[order].reset_index(drop=True))
    moved = two[one.obs_names].layers["ambient_corrected"]
    # sums run in another order, and a value may round to the next 1/64
    assert abs(moved - one.layers["ambient_corrected"]).max() <= 1 / 64


def test_the_soup_of_the_empty_droplets_is_used(marrow):
    adata = marrow.draw(CELLS, ambient=0.1, seed=1)
    adata.var["ambient_count"] = 1000.0 * (adata.var_names == "HBB")
    found = correct_sample(adata, table(adata, fraction=0.001))
    assert found.uns["ambient"]["soup"] == "empty droplets"
    lost = adata.layers["counts"] - found.layers["ambient_corrected"]
    assert lost[:, adata.var_names.get_loc("HBB")].sum() > 0.5 * lost.sum()


def test_nothing_to_correct_is_a_status(marrow):
    adata = marrow.draw({"T_NK": 5}, seed=1)
    found = correct_sample(adata, table(adata, fraction=np.nan))
    assert found.uns["ambient"]["status"] == "not_corrected: no ambient share estimated"
    assert (found.layers["ambient_corrected"] != adata.layers["counts"]).nnz == 0
    adata.obs["platform"] = "plate"
    assert correct_sample(adata, table(adata, fraction=np.nan)).uns["ambient"]["status"] == "not_corrected: plate data"
    none = correct_sample(adata, table(adata, passed=False))
    assert none.uns["ambient"]["status"].startswith("not_corrected: ")
    assert none.shape == (0, adata.n_vars)
    with pytest.raises(ContractError, match="no entry"):
        correct_sample(adata, table(adata).iloc[1:])
