import builtins
import importlib.util

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import rankdata

from dtcflow.scores import sensitivity
from dtcflow.scores.sensitivity import AUCELL, NOT_INSTALLED, RAW_SCORERS, SCORE_GENES, UCELL, raw_scores
from dtcflow.scores.signatures import GeneSet

GENES = pd.Index([f"G{i:03d}" for i in range(200)])
SETS = {
    "UP": GeneSet("UP", tuple(GENES[:12])),
    "BOTH": GeneSet("BOTH", tuple(GENES[20:30]), tuple(GENES[40:50])),
    "ABSENT": GeneSet("ABSENT", tuple(f"X{i}" for i in range(20))),
}


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(5)
    rate = np.exp(rng.normal(0, 1, 200))
    values = rng.poisson(rate * rng.gamma(2, 0.5, size=(40, 200))).astype(np.float32)
    values[:20, :12] += rng.poisson(6.0, (20, 12))
    values[7] = 0
    return sp.csr_matrix(values)


def available():
    return [pytest.param(name, marks=pytest.mark.skipif(not sensitivity.installed(name), reason=f"{name}: no package"))
            for name in RAW_SCORERS]  # fmt: skip


@pytest.mark.parametrize("scorer", available())
def test_a_planted_set_scores_higher_and_an_absent_one_has_a_reason(counts, scorer):
    found = raw_scores(counts, GENES, SETS, scorer)
    up = found.values[:, 0]
    planted = np.delete(up[:20], 7)
    assert np.median(planted) > np.median(up[20:]) + 2 * up[20:].std()
    assert np.isnan(found.values[7]).all()
    assert np.isnan(found.values[:, 2]).all()
    assert found.reasons == {"ABSENT": "fewer than 5 of its genes have counts"}


@pytest.mark.parametrize("scorer", available())
def test_order_of_cells_and_genes_does_not_matter(counts, scorer):
    rng = np.random.default_rng(1)
    cells, genes = rng.permutation(40), rng.permutation(200)
    first = raw_scores(counts, GENES, SETS, scorer).values
    second = raw_scores(counts[cells][:, genes], GENES[genes], SETS, scorer).values
    np.testing.assert_allclose(second, first[cells], atol=1e-12)


@pytest.mark.parametrize("scorer", available())
def test_down_genes_are_taken_away(counts, scorer):
    both = {
        "BOTH": SETS["BOTH"],
        "UP": GeneSet("UP", SETS["BOTH"].up),
        "DOWN": GeneSet("DOWN", SETS["BOTH"].down),
    }
    found = raw_scores(counts, GENES, both, scorer).values
    np.testing.assert_allclose(found[:, 0], found[:, 1] - found[:, 2], atol=1e-12)


def test_score_genes_by_hand_and_global_state_is_left_alone(counts):
    values = counts.toarray()[np.arange(40) != 7]
    np.random.seed(11)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = raw_scores(values, GENES, {"UP": SETS["UP"]}, SCORE_GENES).values[:, 0]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    # 25 bins of mean expression hold fewer genes than controls are asked for: all other genes of a bin are controls
    logged = np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    bins = pd.Series(logged.mean(axis=0)).rank(method="min") // round(200 / 24)
    own = np.arange(200) < 12
    controls = bins.isin(set(bins[own])).to_numpy() & ~own
    np.testing.assert_allclose(found, logged[:, own].mean(axis=1) - logged[:, controls].mean(axis=1), atol=1e-5)


def ucell_by_hand(values, own, max_rank):
    """1 - U / U_max with ranks capped at max_rank; a gene without a count has rank max_rank."""
    out = []
    for cell in values:
        ranks = np.full(cell.size, float(max_rank))
        seen = cell > 0
        ranks[seen] = rankdata(-cell[seen])
        ranks = np.minimum(ranks, max_rank)
        n = len(own)
        smallest = n * (n + 1) / 2
        out.append(1 - (ranks[own].sum() - smallest) / (n * max_rank - smallest))
    return np.array(out)


def test_ucell_equals_ranks_by_hand(counts):
    pytest.importorskip("pyucell")
    rows = [i for i in range(40) if i != 7]
    values = counts.toarray()[rows]
    rank = sensitivity.median_detected(counts)
    assert rank == int(np.median((values > 0).sum(axis=1)))
    found = raw_scores(counts, GENES, {"UP": SETS["UP"]}, UCELL).values[rows, 0]
    np.testing.assert_allclose(found, ucell_by_hand(values, np.arange(12), rank), atol=1e-5)


def test_ucell_refuses_a_set_longer_than_the_ranks(counts):
    pytest.importorskip("pyucell")
    found = raw_scores(counts, GENES, {"ALL": GeneSet("ALL", tuple(GENES))}, UCELL)
    assert "more than the ranks" in found.reasons["ALL"]
    assert np.isnan(found.values).all()


def test_aucell_equals_the_area_by_hand():
    pytest.importorskip("decoupler")
    rng = np.random.default_rng(0)
    genes = pd.Index([f"G{i:03d}" for i in range(200)])
    values = np.stack([rng.permutation(200) + 1.0 for _ in range(6)]).astype(np.float32)
    own = np.arange(15)
    found = raw_scores(values, genes, {"S": GeneSet("S", tuple(genes[own]))}, AUCELL).values[:, 0]
    top = 10  # 5 % of 200 genes; all are detected
    expected = []
    for cell in values:
        ranks = rankdata(-cell)[own]
        steps = [(ranks <= place).sum() for place in range(1, top)]
        best = [min(place, own.size) for place in range(1, top)]
        expected.append(sum(steps) / sum(best))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_the_package_there_is_a_reason_and_no_crash(counts, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("pyucell", "decoupler") else real(name, *a)
    )
    imported = builtins.__import__

    def guarded(name, *rest, **options):
        assert name not in ("pyucell", "decoupler")
        return imported(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", guarded)
    for scorer in (UCELL, AUCELL):
        found = raw_scores(counts, GENES, SETS, scorer)
        assert found.reasons == dict.fromkeys(SETS, NOT_INSTALLED)
        assert np.isnan(found.values).all()


def test_no_cell_with_counts_and_wrong_calls(counts):
    empty = raw_scores(sp.csr_matrix((3, 200)), GENES, SETS, SCORE_GENES)
    assert np.isnan(empty.values).all()
    assert set(empty.reasons) == set(SETS)
    with pytest.raises(ValueError, match="unknown score"):
        raw_scores(counts, GENES, SETS, "magic")
    with pytest.raises(ValueError, match="for a matrix of 200 columns"):
        raw_scores(counts, GENES[:5], SETS, SCORE_GENES)
