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
VARIED = COUNTS[:, COUNTS.std(axis=0) > 0]


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_whole_numbers_are_counts(make, dtype):
    assert classify(make(COUNTS.astype(dtype))).kind == "counts"


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (np.log1p(COUNTS / TOTALS * 1e4), "log", "log1p of counts scaled to 10,000"),
        (np.log2(CPM + 1), "log", "log2(x + 1) of counts scaled to 1,000,000"),
        (np.log1p(COUNTS), "log", "log1p of counts, without scaling"),
        (np.sqrt(COUNTS), "log", "square root of counts"),
        (np.log1p(COUNTS / RNG.uniform(0.4, 0.7, (40, 1))), "log", "log1p of counts divided by a size factor"),
        (np.log1p(COUNTS * RNG.uniform(0.5, 1, COUNTS.shape)), "log", "log-like"),
        (CPM, "normalised", "CPM or TPM"),
        (CPM.astype(np.float32), "normalised", "CPM or TPM"),
        (COUNTS / TOTALS * 2345, "normalised", "every cell sums to about 2,345"),
        (np.rint(CPM), "rounded", "rounded CPM"),
        (VARIED / VARIED.std(axis=0, ddof=1), "scaled", "standard deviation of 1"),
        (VARIED / VARIED.std(axis=0), "scaled", "standard deviation of 1"),
        (
            CPM * RNG.uniform(0.92, 1.0, (40, 1)) * RNG.uniform(0.99, 1, COUNTS.shape),
            "normalised",
            "genes were removed",
        ),
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


# --------------------------------------------------------------------- whole numbers that are not, or not quite, counts


def cells(n_cells: int, depth: float, seed: int = 1, n_genes: int = 6000) -> np.ndarray:
    """Counts of cells whose genes differ widely, with a total of about ``depth``."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(0.3, 1, n_genes)
    return rng.poisson(share / share.sum() * depth * rng.lognormal(0, 0.4, (n_cells, 1))).astype(np.float32)


@pytest.mark.parametrize("n_cells", [1, 2, 5, 20, 100])
@pytest.mark.parametrize("depth", [300, 3000, 20000])
def test_counts_of_any_depth_are_counts(n_cells, depth):
    found = classify(sp.csr_matrix(cells(n_cells, depth)))
    assert (found.kind, found.warnings) == ("counts", ())


@pytest.mark.parametrize("n_cells", [1, 2, 5, 20, 100])
def test_rounded_values_are_named(n_cells):
    values = cells(n_cells, 3000)
    for target in (1e6, 1e4):
        found = classify(sp.csr_matrix(np.rint(values / values.sum(axis=1, keepdims=True) * target)))
        assert found.kind == "rounded", (target, found)
        assert "rounded CPM" in found.words


def test_rounding_to_the_median_depth_is_named_although_half_of_the_cells_gain():
    values = cells(100, 3000)
    totals = values.sum(axis=1, keepdims=True)
    found = classify(sp.csr_matrix(np.rint(values / totals * np.median(totals))))
    assert (found.kind, "as after rounding" in found.words) == ("rounded", True)


@pytest.mark.parametrize("n_cells", [1, 2, 5, 20, 100])
def test_binarised_values_are_named(n_cells):
    found = classify(sp.csr_matrix((cells(n_cells, 3000) > 0).astype(int)))
    assert (found.kind, "binarised" in found.words) == ("binarised", True)


def test_shallow_cells_without_a_two_may_be_counts():
    rng = np.random.default_rng(2)
    values = np.zeros((30, 5000))
    for row in values:
        row[rng.choice(5000, 60, replace=False)] = 1
    found = classify(sp.csr_matrix(values))
    assert (found.kind, "may have been binarised" in found.warnings[-1]) == ("counts", True)


def test_read_pairs_counted_twice_are_counts_with_a_warning():
    found = classify(sp.csr_matrix(cells(20, 30000) * 2))
    assert (found.kind, "both reads of each pair" in found.warnings[0]) == ("counts", True)


@pytest.mark.parametrize("n_cells", [1, 2, 5, 20])
def test_log_values_of_few_cells_are_named(n_cells):
    values = cells(n_cells, 3000)
    found = classify(sp.csr_matrix(np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4)))
    assert (found.kind, "log1p of counts" in found.words) == ("log", True)


def test_log_values_after_genes_were_removed_are_named():
    values = cells(20, 3000)
    found = classify(sp.csr_matrix(np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4)[:, :3000]))
    assert (found.kind, "divided by a size factor" in found.words) == ("log", True)
