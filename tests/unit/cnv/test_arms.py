from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.cnv.arms import (
    EM_ITERATIONS,
    ArmModel,
    Layout,
    arm_statistics,
    bin_statistics,
    fit_arm_model,
    make_layout,
    usable_genes,
)
from dtcflow.cnv.residuals import mixture_weights

from .conftest import make_patient


def _model(
    means: np.ndarray, dispersion: np.ndarray, bins: list[int], segments: tuple[str, ...], segment_arm: list[int]
) -> ArmModel:
    """A model of given segments; ``bins`` are 2 * segment + half, ascending, one per gene."""
    arms = tuple(dict.fromkeys(name.split(":")[0] for name in segments))
    layout = Layout(np.array(bins), segments, np.array(segment_arm), arms, np.bincount(np.array(bins) // 2))
    types = tuple("abc"[: len(means)])
    return ArmModel(types, means, dispersion, np.arange(means.shape[1]), layout)


def test_hand_computed_score_and_information() -> None:
    """One type, one cell of 10 counts, two arms: mu = (2, 3, 5), phi = (0, 1, 0)."""
    model = _model(np.array([[0.2, 0.3, 0.5]]), np.array([0.0, 1.0, 0.0]), [0, 1, 2], ("1p:00", "1q:00"), [0, 1])
    statistics = arm_statistics(model, sp.csr_matrix(np.array([[4.0, 3.0, 3.0]])))
    # 1p: (4-2)/1 + (3-3)/4 = 2, information 2/1 + 3/4 = 2.75; 1q: (3-5)/1 = -2, information 5
    assert statistics.u == pytest.approx(np.array([[2.0, -2.0]]))
    assert statistics.info == pytest.approx(np.array([[2.75, 5.0]]))
    log_ratio, z = statistics.centred()
    # median of (2/2.75, -2/5) = 0.16364
    assert log_ratio == pytest.approx(np.array([[0.563636, -0.563636]]), abs=1e-6)
    assert z == pytest.approx(np.array([[0.563636 * np.sqrt(2.75), -0.563636 * np.sqrt(5)]]), abs=1e-5)


def test_one_induced_gene_cannot_make_an_arm() -> None:
    model = _model(np.full((1, 2), 0.5), np.zeros(2), [0, 2], ("1p:00", "1q:00"), [0, 1])
    statistics = arm_statistics(model, sp.csr_matrix(np.array([[1000.0, 0.0]])))
    # the residual of gene 0 is 500 / sqrt(500) = 22, clipped at 4
    assert statistics.u[0, 0] == pytest.approx(4 * np.sqrt(500))


def test_mixture_weights_recover_a_pure_and_a_mixed_cell() -> None:
    rng = np.random.default_rng(0)
    means = rng.dirichlet(np.full(300, 0.3), size=2)
    model = _model(means, np.zeros(300), [0] * 300, ("1p:00",), [0])
    cells = np.vstack([rng.multinomial(4000, means[0]), rng.multinomial(4000, means.mean(axis=0)), np.zeros(300)])
    weights = mixture_weights(sp.csr_matrix(cells.astype(float)), model.genes, model.means, iterations=EM_ITERATIONS)
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
        *(arm_statistics(model, counts, chunk=chunk) for chunk in (1, 7, 512, counts.shape[0])),
        arm_statistics(model, sp.csr_matrix(counts[order]))[np.argsort(order)],
    ):
        np.testing.assert_array_equal(other.u, whole.u)
        np.testing.assert_array_equal(other.info, whole.info)
    alone = arm_statistics(model, sp.csr_matrix(counts[3:4]))
    np.testing.assert_array_equal(alone.u[0], whole.u[3])


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


def test_segments_keep_to_their_arm_and_halves_share_its_genes() -> None:
    arms = np.array([*(["1p"] * 130), *(["1q"] * 20), *(["2p"] * 14), ""], dtype=object)
    informative = np.ones(len(arms), dtype=bool)
    informative[[0, 7, 8, 129]] = False
    layout = make_layout(arms, informative)
    # 126 informative genes of 1p make three segments of about 40; 2p has fewer than 15 and is left out
    assert layout.segments == ("1p:00", "1p:01", "1p:02", "1q:00")
    assert layout.arms == ("1p", "1q")
    assert layout.n_genes.tolist() == [42, 42, 42, 20]
    assert layout.column_bin[150:].tolist() == [-1] * 15
    segment = layout.column_bin // 2
    for name, index in zip(layout.segments, range(4), strict=True):
        columns = np.flatnonzero((segment == index) & (layout.column_bin >= 0))
        assert set(arms[columns]) == {name.split(":")[0]}
        half = layout.column_bin[columns][informative[columns]] % 2
        assert abs(int(half.sum()) - len(half) / 2) <= 1
    # columns that no model of its own would use lie inside the arm and join the segment around them
    assert segment[[0, 7, 8, 129]].tolist() == [0, 0, 0, 2]


def test_segments_and_halves_add_up_to_the_arms() -> None:
    patient = make_patient(n_normal=25)
    counts = sp.csr_matrix(patient.adata.layers["counts"])
    normal = np.flatnonzero(~patient.tumour)
    model = fit_arm_model(
        sp.csr_matrix(counts[normal]),
        patient.cells["cell_type"].to_numpy(object)[normal],
        patient.adata.var["arm"].to_numpy(dtype=object),
        usable_genes(patient.adata.var),
    )
    bins = bin_statistics(model, counts)
    arms, segments = bins.arms(), bins.segments()
    for name in ("u", "info"):
        halves = [getattr(half, name) for half in arms.halves]
        np.testing.assert_allclose(sum(halves), getattr(arms.full, name))
        of_segments = pd.DataFrame(getattr(segments.full, name)).T.groupby(model.layout.segment_arm).sum().T
        np.testing.assert_allclose(of_segments.to_numpy(), getattr(arms.full, name), rtol=1e-9, atol=1e-9)


def test_a_single_molecule_of_a_weak_gene_counts_in_full() -> None:
    # mean 0.02: the Pearson residual of one molecule is 7; clipped at 4 it would lose 0.42 of its 0.98
    model = _model(np.array([[0.02, 0.98]]), np.zeros(2), [0, 2], ("1p:00", "1q:00"), [0, 1])
    statistics = arm_statistics(model, sp.csr_matrix(np.array([[1.0, 0.0]])))
    assert statistics.u[0, 0] == pytest.approx(0.98)
