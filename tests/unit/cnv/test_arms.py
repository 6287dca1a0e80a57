from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.cnv.arms import ArmModel, arm_statistics, fit_arm_model, mixture_weights, usable_genes

from .conftest import make_patient


def test_hand_computed_score_and_information() -> None:
    """One type, one cell of 10 counts, two arms: mu = (2, 3, 5), phi = (0, 1, 0)."""
    model = ArmModel(
        types=("a",),
        means=np.array([[0.2, 0.3, 0.5]]),
        dispersion=np.array([0.0, 1.0, 0.0]),
        genes=np.array([0, 1, 2]),
        gene_arm=np.array([0, 0, 1]),
        arms=("1p", "1q"),
    )
    statistics = arm_statistics(model, sp.csr_matrix(np.array([[4.0, 3.0, 3.0]])))
    # 1p: (4-2)/1 + (3-3)/4 = 2, information 2/1 + 3/4 = 2.75; 1q: (3-5)/1 = -2, information 5
    assert statistics.u == pytest.approx(np.array([[2.0, -2.0]]))
    assert statistics.info == pytest.approx(np.array([[2.75, 5.0]]))
    log_ratio, z = statistics.centred()
    # median of (2/2.75, -2/5) = 0.16364
    assert log_ratio == pytest.approx(np.array([[0.563636, -0.563636]]), abs=1e-6)
    assert z == pytest.approx(np.array([[0.563636 * np.sqrt(2.75), -0.563636 * np.sqrt(5)]]), abs=1e-5)


def test_one_induced_gene_cannot_make_an_arm() -> None:
    model = ArmModel(("a",), np.full((1, 2), 0.5), np.zeros(2), np.array([0, 1]), np.array([0, 1]), ("1p", "1q"))
    statistics = arm_statistics(model, sp.csr_matrix(np.array([[1000.0, 0.0]])))
    # the residual of gene 0 is 500 / sqrt(500) = 22, clipped at 4
    assert statistics.u[0, 0] == pytest.approx(4 * np.sqrt(500))


def test_mixture_weights_recover_a_pure_and_a_mixed_cell() -> None:
    rng = np.random.default_rng(0)
    means = rng.dirichlet(np.full(300, 0.3), size=2)
    model = ArmModel(("a", "b"), means, np.zeros(300), np.arange(300), np.zeros(300, dtype=int), ("1p",))
    cells = np.vstack([rng.multinomial(4000, means[0]), rng.multinomial(4000, means.mean(axis=0)), np.zeros(300)])
    weights = mixture_weights(model, sp.csr_matrix(cells.astype(float)))
    assert weights[0, 0] > 0.95
    assert weights[1, 0] == pytest.approx(0.5, abs=0.08)
    assert weights[2] == pytest.approx([0.5, 0.5])
    assert weights.sum(axis=1) == pytest.approx(1.0)


def test_genes_of_marker_families_and_off_arms_are_not_used() -> None:
    symbols = ["ACTB", "HBB", "IGKC", "HLA-A", "RPL3", "MT-CO1", "TRAC", "GENE"]
    var = pd.DataFrame({"symbol": symbols, "chromosome": ["chr7"] * 7 + ["chrX"], "arm": ["7p"] * 7 + ["Xp"]})
    assert usable_genes(var).tolist() == [True] + [False] * 7


def test_a_cells_statistics_do_not_depend_on_its_company_order_or_chunk() -> None:
    patient = make_patient(n_normal=25)
    counts = sp.csr_matrix(patient.adata.layers["counts"])
    normal = np.flatnonzero(~patient.tumour)
    arms = patient.adata.var["arm"].to_numpy(dtype=object)
    usable = usable_genes(patient.adata.var)
    model = fit_arm_model(
        sp.csr_matrix(counts[normal]), patient.cells["cell_type"].to_numpy(object)[normal], arms, usable
    )
    whole = arm_statistics(model, counts)
    order = np.random.default_rng(0).permutation(counts.shape[0])
    for other in (
        arm_statistics(model, counts, chunk=7)[np.arange(counts.shape[0])],
        arm_statistics(model, sp.csr_matrix(counts[order]))[np.argsort(order)],
    ):
        np.testing.assert_allclose(other.u, whole.u, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.info, whole.info, rtol=0, atol=1e-9)
    alone = arm_statistics(model, sp.csr_matrix(counts[3:4]))
    np.testing.assert_allclose(alone.u[0], whole.u[3], atol=1e-9)


def test_planted_arms_stand_out_at_pseudobulk() -> None:
    patient = make_patient(n_normal=60)
    counts = sp.csr_matrix(patient.adata.layers["counts"])
    normal = np.flatnonzero(~patient.tumour)
    arms = patient.adata.var["arm"].to_numpy(dtype=object)
    model = fit_arm_model(
        sp.csr_matrix(counts[normal]),
        patient.cells["cell_type"].to_numpy(object)[normal],
        arms,
        usable_genes(patient.adata.var),
    )
    tumour = arm_statistics(model, sp.csr_matrix(counts[np.flatnonzero(patient.tumour)]))
    log_ratio = tumour.u.sum(axis=0) / tumour.info.sum(axis=0)
    found = dict(zip(model.arms, log_ratio - np.median(log_ratio), strict=True))
    assert min(found[a] for a in patient.gains) > 0.15
    assert max(found[a] for a in patient.losses) < -0.2
