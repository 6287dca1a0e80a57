import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.io.sex import MIN_CELLS, call_sex, sex_of_samples

GENES = ["ACTB", "XIST", "RPS4Y1", "DDX3Y", "UTY"]


def sample(n_cells=100, *, depth=10_000, xist=0.0, y=0.0, seed=1):
    """Counts whose XIST and genes of Y (together) have these counts per million."""
    rates = np.array([1e6 - xist - y, xist, y / 2, y / 4, y / 4]) / 1e6 * depth
    return np.random.default_rng(seed).poisson(rates, (n_cells, 5)).astype(np.float32)


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize(
    ("xist", "y", "call"),
    [
        (150, 0, "female"),
        (150, 9, "female"),
        (0, 300, "male"),
        (3, 300, "male"),
        (0, 0, "ambiguous"),
        (2, 15, "ambiguous"),
    ],
)
def test_clear_samples(make, xist, y, call):
    found = call_sex(make(sample(xist=xist, y=y)), GENES)
    assert (found["call"], found["mixed"]) == (call, False)
    assert found["y_genes"] == 3
    assert found["xist_cpm"] == pytest.approx(xist, abs=40)


def test_two_donors_are_ambiguous_and_said_to_be_mixed():
    both = np.vstack([sample(50, xist=150), sample(50, y=300, seed=2)])
    found = call_sex(both, GENES)
    assert (found["call"], found["mixed"]) == ("ambiguous", True)
    assert "cells of a woman and of a man" in found["reason"]
    assert found["both_cells"] < 0.1 < found["xist_cells"]


@pytest.mark.parametrize("n_cells", [0, 1, 2, 5, MIN_CELLS - 1])
def test_few_cells_are_not_judged(n_cells):
    found = call_sex(sample(n_cells, xist=500), GENES)
    assert (found["call"], found["reason"]) == ("not_assessable", f"fewer than {MIN_CELLS} cells")


def test_few_counts_are_not_judged():
    assert call_sex(sample(20, depth=300), GENES)["call"] == "not_assessable"
    assert call_sex(np.zeros((30, 5)), GENES)["reason"] == "no counts"


def test_genes_that_the_matrix_lacks():
    female, male = sample(xist=150), sample(y=300)
    assert call_sex(female[:, :2], GENES[:2])["call"] == "female"
    assert call_sex(male[:, [0, 2, 3, 4]], [GENES[i] for i in (0, 2, 3, 4)])["call"] == "male"
    assert call_sex(male[:, :2], GENES[:2])["reason"] == "not in the matrix: genes of Y"
    assert call_sex(female[:, [0, 2, 3]], ["ACTB", "RPS4Y1", "UTY"])["reason"] == "not in the matrix: XIST"
    nothing = call_sex(female[:, :1], GENES[:1])
    assert (nothing["call"], nothing["reason"]) == ("not_assessable", "not in the matrix: XIST and genes of Y")


def test_one_gene_of_y_alone_makes_no_man():
    counts = sample(y=300)
    counts[:, 2:4] = 0
    assert call_sex(counts, GENES)["call"] != "male"


def test_the_copies_of_x_genes_on_y_are_not_counted():
    found = call_sex(sample(xist=150, y=300), ["ACTB", "XIST", "TMSB4Y", "RPS4Y2", "SRY"])
    assert (found["call"], found["y_genes"]) == ("female", 0)


def test_the_order_of_cells_does_not_matter():
    counts = sample(xist=30, y=5)
    assert call_sex(counts, GENES) == call_sex(counts[::-1], GENES)


def test_samples_of_one_matrix():
    counts = np.vstack([sample(50, xist=150), sample(50, y=300)])
    names = pd.Series(["b"] * 50 + ["a"] * 50)
    assert {name: found["call"] for name, found in sex_of_samples(counts, GENES, names).items()} == {
        "a": "male",
        "b": "female",
    }


def test_false_definite_calls_are_rare_near_the_thresholds():
    # below the threshold by a fifth: at most one in twenty may be called, by the 90 % interval (one side: 5 %)
    calls = [call_sex(sample(50, depth=3000, xist=8, seed=seed), GENES)["call"] for seed in range(100)]
    assert calls.count("female") <= 5
