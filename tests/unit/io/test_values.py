import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.io.values import classify

RNG = np.random.default_rng(5)
COUNTS = RNG.poisson(RNG.gamma(0.5, 4, 200), (40, 200)) * 1.0
COUNTS[:, :2] += RNG.integers(50, 400, (40, 2))
COUNTS[:, 2] = 1
TOTALS = COUNTS.sum(axis=1, keepdims=True)
CPM = COUNTS / TOTALS * 1e6


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_whole_numbers_are_counts(make, dtype):
    assert classify(make(COUNTS.astype(dtype))).kind == "counts"


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (np.log1p(COUNTS / TOTALS * 1e4), "log", "log1p of counts scaled to 10,000"),
        (np.log2(CPM + 1), "log", "log2(x + 1) of counts scaled to 1,000,000"),
        (np.log1p(COUNTS), "log", "log-like"),
        (CPM, "normalised", "CPM or TPM"),
        (CPM.astype(np.float32), "normalised", "CPM or TPM"),
        (COUNTS / TOTALS * 2345, "normalised", "every cell sums to about 2,345"),
        (np.rint(CPM), "normalised", "rounded CPM or TPM"),
        (COUNTS / RNG.uniform(0.4, 0.7, (40, 1)), "normalised", "size factor"),
        (COUNTS - COUNTS.mean(axis=0), "negative", "scaled or centred"),
        (COUNTS * 1e6, "overflow", "more than a cell's RNA"),
        (COUNTS * 0, "zero", "only zeros"),
        (np.empty((0, 5)), "empty", "0 cells"),
        (np.empty((5, 0)), "empty", "0 genes"),
        (COUNTS * RNG.uniform(0.5, 1, COUNTS.shape), "estimated", "RSEM"),
    ],
)
def test_every_other_kind_is_named(values, kind, words):
    found = classify(sp.csr_matrix(values))
    assert (found.kind, words in found.words) == (kind, True), found


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_located(bad):
    values = COUNTS.copy()
    values[7, 30] = bad
    found = classify(sp.csr_matrix(values))
    assert found.kind == "not_finite"
    assert "cell 8" in found.words


def test_integer_looking_floats_are_counts():
    assert classify(sp.csr_matrix(COUNTS * (1 + 1e-8))).kind == "counts"


def test_one_cell_of_cpm_is_recognised_by_its_round_total():
    assert classify(sp.csr_matrix(CPM[:1])).kind == "normalised"


def test_equal_totals_of_real_counts_are_a_warning_only():
    equal = np.zeros((30, 100))
    for row in equal:
        row += RNG.multinomial(500, np.full(100, 0.01))
    found = classify(sp.csr_matrix(equal))
    assert found.kind == "counts"
    assert "500 counts" in found.warnings[0]


def test_the_order_of_cells_does_not_matter():
    order = RNG.permutation(40)
    assert classify(sp.csr_matrix(CPM)).kind == classify(sp.csr_matrix(CPM[order])).kind
