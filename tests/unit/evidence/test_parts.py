import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from dtcflow.evidence import parts
from dtcflow.evidence.contrasts import Layout
from dtcflow.evidence.within import Prepared
from dtcflow.scores.calibrated import gene_statistics, log_normalise
from dtcflow.scores.signatures import GeneSet

GENES = [f"G{i:04d}" for i in range(1200)]


def statistics(means):
    frame = pd.DataFrame({"mean": means, "detection": 0.5, "variance": 1.0}, index=GENES[: len(means)])
    frame.attrs["n_cells"] = 100
    return frame


@given(st.integers(0, 60), st.integers(0, 50))
def test_halves_are_disjoint_complete_and_even(n, split):
    level = np.random.default_rng(n).random(n)
    first = parts.split_genes(GENES[:n], level, split=split)
    assert abs(2 * first.sum() - n) <= 1
    order = np.argsort(level)
    for a, b in zip(order[0::2], order[1::2], strict=False):  # of two genes of like expression one goes to either half
        assert first[a] != first[b]


def test_split_does_not_depend_on_the_order_of_genes():
    level = np.random.default_rng(1).random(31)
    first = parts.split_genes(GENES[:31], level, split=3)
    order = np.random.default_rng(2).permutation(31)
    again = parts.split_genes([GENES[j] for j in order], level[order], split=3)
    assert (again == first[order]).all()
    assert (parts.split_genes(GENES[:31], level, split=4) != first).any()


def test_genes_of_both_directions_are_halved():
    one = GeneSet("x", tuple(GENES[:10]), tuple(GENES[10:16]))
    first, second = parts.halves(one, statistics(np.arange(16.0)), split=0)
    assert [len(first.up), len(first.down), len(second.up), len(second.down)] == [5, 3, 5, 3]
    assert not set(first.genes) & set(second.genes)


def test_measured_takes_the_matrix_symbols_and_leaves_out_silent_genes():
    table = pd.DataFrame({"alias": ["OLD"], "symbol": ["G0001"], "kind": ["previous"]}, dtype=object)
    one = GeneSet("x", ("G0000", "OLD", "NOWHERE"), ("G0002",), weights=(1.0, 2.0, 3.0, 4.0))
    found = parts.measured(one, statistics(np.array([1.0, 1.0, 0.0, 1.0])), table)
    assert (found.up, found.down, found.weights) == (("G0000", "G0001"), (), (1.0, 2.0))
    found = parts.measured(one, statistics(np.array([0.0, 1.0, 1.0, 1.0])), table)
    assert (found.up, found.down, found.weights) == (("G0001",), ("G0002",), (2.0, 4.0))


def test_disjoint_takes_shared_genes_out_of_both():
    a, b = GeneSet("a", ("G0000", "G0001")), GeneSet("b", ("G0001",), ("G0002",))
    first, second = parts.disjoint(a, b)
    assert (first.up, second.up, second.down) == (("G0000",), (), ("G0002",))


def prepared(n_cells=400, seed=0):
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(0, 1, len(GENES)))
    counts = sp.csr_matrix(rng.poisson(3000 * rate / rate.sum(), size=(n_cells, len(GENES))).astype(np.float32))
    lognorm = log_normalise(counts)
    names = [f"c{i}" for i in range(n_cells)]
    table = pd.DataFrame({"cell_id": names, "row": range(n_cells), "patient_id": "A", "side": 0, "sample": "s"})
    overview = pd.DataFrame({"patient_id": ["A"], "n_cells_a": n_cells, "n_cells_b": 0, "usable": True, "reason": ""})
    return Prepared(
        layout=Layout(table, ("A",), overview),
        lognorm=lognorm,
        statistics=gene_statistics(lognorm, pd.Index(GENES)),
        covariates=np.zeros((n_cells, 0)),
        used=(),
        missing=(),
        nuisance=np.zeros((n_cells, 1)),
        median_genes=500.0,
    )


def test_scores_of_disjoint_sets_are_independent_in_cells_that_differ_by_chance():
    order = np.random.default_rng(7).permutation(GENES)
    first, second = GeneSet("a", tuple(order[:40])), GeneSet("b", tuple(order[40:80]))
    z = parts.pair_scores(prepared(), first, second, label="x", n_null=60, seed=1)
    assert z.shape == (400, 2, 61)
    centred = z - z.mean(axis=0)
    product = (centred[:, 0] * centred[:, 1]).mean(axis=0)
    # one shared pool gives the random sets a mean covariance of about -.05 here; 60 pairs have a standard error of .007
    assert abs(product[1:].mean()) < 0.025
    assert abs(product[0]) < 0.2  # four standard errors of one pair


def test_random_sets_keep_out_of_both_signatures_and_of_the_other_pool(monkeypatch):
    seen = []
    draw = parts.draw_matched_sets

    def spy(*args, **options):
        seen.append(draw(*args, **options))
        return seen[-1]

    monkeypatch.setattr(parts, "draw_matched_sets", spy)
    first, second = GeneSet("a", tuple(GENES[:30])), GeneSet("b", tuple(GENES[30:60]))
    parts.pair_scores(prepared(20), first, second, label="x", n_null=20, seed=1)
    used = [set(one.genes[np.unique(one.transposed[1:].indices)]) for one in seen]
    assert not used[0] & used[1]
    assert not (used[0] | used[1]) & set(GENES[:60])


def test_set_without_enough_genes_has_no_scores():
    first, second = GeneSet("a", tuple(GENES[:2])), GeneSet("b", tuple(GENES[30:60]))
    assert parts.pair_scores(prepared(20), first, second, label="x", n_null=20, seed=1) is None


@pytest.mark.parametrize("n", [3, 20])
def test_standardised_value_by_hand(n):
    raw = np.random.default_rng(n).normal(size=(1, n + 1))
    z = parts._standardise(raw)
    assert z[0, 0] == pytest.approx((raw[0, 0] - raw[0, 1:].mean()) / raw[0, 1:].std(ddof=1))
    others = np.delete(raw[0, 1:], 0)
    assert z[0, 1] == pytest.approx((raw[0, 1] - others.mean()) / others.std(ddof=1))
