from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.qc import doublets
from dtcflow.qc.doublets import expected_doublet_rate, score_doublets


def names(n: int, letter: str) -> pd.Index:
    return pd.Index([f"{letter}{i:04d}" for i in range(n)])


@pytest.fixture(scope="module")
def mixed(marrow):
    """240 single cells of two types and 12 droplets that hold one of each."""
    adata = marrow.draw({"T_NK": 132, "monocyte": 132}, seed=3)
    counts = adata.layers["counts"].toarray()
    pairs = counts[120:132] + counts[252:264]
    kept = np.vstack([counts[:120], counts[132:252], pairs])
    return sp.csr_matrix(kept), adata.var_names


@pytest.fixture(scope="module")
def scored(mixed):
    counts, genes = mixed
    return score_doublets(counts, cell_ids=names(252, "c"), genes=genes, expected_rate=0.05, seed=4)


def test_expected_rate() -> None:
    assert expected_doublet_rate(1000) == pytest.approx(0.008)
    assert expected_doublet_rate(10_000) == pytest.approx(0.08)
    assert expected_doublet_rate(0) == 0
    assert expected_doublet_rate(10**6) == 0.4


def test_planted_doublets_have_the_highest_scores(scored) -> None:
    assert scored.status == "run"
    assert np.isfinite(scored.score).all()
    single, pair = scored.score[:240], scored.score[240:]
    above = (pair[:, None] > single).mean() + 0.5 * (pair[:, None] == single).mean()
    assert above > 0.9
    assert scored.as_dict()["n_flagged"] == scored.is_doublet.sum()


def test_same_seed_same_scores_in_any_order(mixed, scored) -> None:
    counts, genes = mixed
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(252), rng.permutation(len(genes))
    again = score_doublets(
        sp.csr_matrix(counts[rows][:, columns]),
        cell_ids=names(252, "c")[rows],
        genes=genes[columns],
        expected_rate=0.05,
        seed=4,
    )
    np.testing.assert_array_equal(again.score, scored.score[rows])
    np.testing.assert_array_equal(again.is_doublet, scored.is_doublet[rows])
    other = score_doublets(counts, cell_ids=names(252, "c"), genes=genes, expected_rate=0.05, seed=5)
    assert not np.array_equal(other.score, scored.score)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 49])
def test_too_few_cells_is_a_status(mixed, n: int) -> None:
    counts, genes = mixed
    found = score_doublets(counts[:n], cell_ids=names(n, "c"), genes=genes)
    assert found.status == f"not_run: {n} cells with 3 or more genes, 50 are needed"
    assert np.isnan(found.score).all()
    assert len(found.score) == n
    assert not found.is_doublet.any()


def test_cells_with_next_to_no_genes_are_not_scored(mixed) -> None:
    counts, genes = mixed
    poor = sp.csr_matrix(([1.0, 1.0], ([0, 0], [0, 1])), shape=(2, counts.shape[1]))
    found = score_doublets(sp.csr_matrix(sp.vstack([poor, counts])), cell_ids=names(254, "c"), genes=genes)
    assert np.isnan(found.score[:2]).all()
    assert np.isfinite(found.score[2:]).all()
    assert not found.is_doublet[:2].any()


def test_too_few_genes_is_a_status() -> None:
    counts = sp.csr_matrix(np.random.default_rng(1).poisson(3.0, (80, 20)).astype(np.float32))
    found = score_doublets(counts, cell_ids=names(80, "c"), genes=names(20, "g"))
    assert found.status == "not_run: 20 genes seen in three or more cells, 50 are needed"


def test_failing_inside_scrublet_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("n_components must be smaller")

    monkeypatch.setattr(doublets, "scrublet_scores", fail)
    counts = sp.csr_matrix(np.random.default_rng(1).poisson(3.0, (80, 60)).astype(np.float32))
    found = score_doublets(counts, cell_ids=names(80, "c"), genes=names(60, "g"))
    assert found.status == "not_run: Scrublet found nothing to work on (n_components must be smaller)"
    assert np.isnan(found.score).all()


@pytest.mark.parametrize(("automatic", "why"), [(None, "no valley"), (0.05, "would flag 95.0% of the cells")])
def test_without_a_believable_threshold_the_highest_scores_are_flagged(
    monkeypatch: pytest.MonkeyPatch, automatic: float | None, why: str
) -> None:
    scores = np.arange(1, 101) / 100
    monkeypatch.setattr(doublets, "scrublet_scores", lambda *_, **__: (scores, automatic))
    counts = sp.csr_matrix(np.random.default_rng(1).poisson(3.0, (100, 60)).astype(np.float32))
    found = score_doublets(counts, cell_ids=names(100, "c"), genes=names(60, "g"), expected_rate=0.07)
    assert np.flatnonzero(found.is_doublet).tolist() == list(range(93, 100))
    assert found.threshold_origin == "expected_rate"
    assert found.threshold == pytest.approx(0.93)
    assert why in found.message


def test_a_believable_automatic_threshold_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doublets, "scrublet_scores", lambda *_, **__: (np.arange(100) / 100, 0.955))
    counts = sp.csr_matrix(np.random.default_rng(1).poisson(3.0, (100, 60)).astype(np.float32))
    found = score_doublets(counts, cell_ids=names(100, "c"), genes=names(60, "g"))
    assert (found.threshold, found.threshold_origin, int(found.is_doublet.sum())) == (0.955, "automatic", 4)


def test_ties_at_the_fallback_threshold_stay_unflagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doublets, "scrublet_scores", lambda *_, **__: (np.full(100, 0.2), None))
    counts = sp.csr_matrix(np.random.default_rng(1).poisson(3.0, (100, 60)).astype(np.float32))
    found = score_doublets(counts, cell_ids=names(100, "c"), genes=names(60, "g"), expected_rate=0.1)
    assert not found.is_doublet.any()
