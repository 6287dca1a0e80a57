from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import ContractError
from dtcflow.qc.metrics import METRICS, genes_per_cell, qc_metrics

GENES = ["MT-ND1", "MT-CO1", "RPS3", "RPL10", "HBB", "HBEGF", "HBS1L", "ACTB"]
COUNTS = np.array(
    [
        [5, 5, 10, 0, 0, 20, 10, 50],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 90, 0, 0, 10],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ],
    dtype=np.float32,
)
MAKERS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("slot", ["layer", "X"])
def test_hand_computed(kind: str, slot: str) -> None:
    matrix = MAKERS[kind](COUNTS)
    adata = ad.AnnData(var=pd.DataFrame(index=GENES), obs=pd.DataFrame(index=list("abcd")))
    if slot == "layer":
        adata.layers["counts"] = matrix
    else:
        adata.X = matrix
    found = qc_metrics(adata)
    assert tuple(found.columns) == METRICS
    assert list(found.index) == list("abcd")
    np.testing.assert_array_equal(found["n_counts"], [100, 0, 100, 1])
    np.testing.assert_array_equal(found["n_genes"], [6, 0, 2, 1])
    np.testing.assert_allclose(found["pct_mt"], [10, np.nan, 0, 0])
    np.testing.assert_allclose(found["pct_ribo"], [10, np.nan, 0, 0])
    # HBEGF and HBS1L are no haemoglobins
    np.testing.assert_allclose(found["pct_hb"], [0, np.nan, 90, 0])
    np.testing.assert_allclose(found["log10_genes_per_count"], [np.log10(6) / 2, np.nan, np.log10(2) / 2, np.nan])


def test_a_class_without_genes_is_missing_not_zero() -> None:
    adata = ad.AnnData(sp.csr_matrix(COUNTS[:, 4:]), var=pd.DataFrame(index=GENES[4:]))
    found = qc_metrics(adata)
    assert found["pct_mt"].isna().all()
    assert found["pct_ribo"].isna().all()
    assert found["pct_hb"].notna().sum() == 3


def test_symbols_come_from_var_symbol() -> None:
    var = pd.DataFrame({"symbol": ["MT-ND1", "ACTB"]}, index=["ENSG1", "ENSG2"])
    assert qc_metrics(ad.AnnData(np.array([[1.0, 3.0]]), var=var))["pct_mt"].tolist() == [25.0]


def test_stored_zeros_are_not_genes() -> None:
    matrix = sp.csr_matrix((np.array([0.0, 2.0, 0.0, 1.0]), ([0, 0, 1, 2], [0, 1, 1, 0])), shape=(3, 2))
    assert genes_per_cell(matrix).tolist() == [1, 0, 1]
    assert matrix.nnz == 4


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_cells(n: int) -> None:
    found = qc_metrics(ad.AnnData(sp.csr_matrix(COUNTS[:n]), var=pd.DataFrame(index=GENES)))
    assert len(found) == n
    assert found["n_counts"].tolist() == [100.0, 0.0][:n]


def test_large_totals_are_exact() -> None:
    # float32 cannot count above 2^24
    matrix = sp.csr_matrix(np.array([[2.0**24, 1.0, 1.0, 1.0]], dtype=np.float32))
    assert qc_metrics(ad.AnnData(matrix, var=pd.DataFrame(index=GENES[:4])))["n_counts"].item() == 2**24 + 3


def test_order_of_cells_and_genes_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    counts = rng.poisson(0.7, (40, len(GENES))).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(counts), var=pd.DataFrame(index=GENES))
    adata.obs_names = [f"c{i}" for i in range(40)]
    shuffled = adata[rng.permutation(40), rng.permutation(len(GENES))].copy()
    pd.testing.assert_frame_equal(qc_metrics(adata), qc_metrics(shuffled).loc[adata.obs_names])


def test_without_any_matrix() -> None:
    with pytest.raises(ContractError, match=r"layers\['counts'\]"):
        qc_metrics(ad.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["ACTB"])))
