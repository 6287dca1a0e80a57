from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import TABLES
from dtcflow.scores.calibrated import (
    apply_sets,
    calibrated_z,
    depth_correlation,
    draw_matched_sets,
    gene_statistics,
    log_normalise,
    null_z,
)
from dtcflow.scores.matching import LOW_COVERAGE, OK
from dtcflow.scores.signatures import GeneSet


def some_sets(genes: pd.Index, *, n_sets: int = 3, size: int = 30, seed: int = 1) -> dict[str, GeneSet]:
    rng = np.random.default_rng(seed)
    names = np.sort(genes.to_numpy(dtype=object).astype(str))
    return {f"S{i}": GeneSet(f"S{i}", tuple(rng.choice(names, size, replace=False).tolist())) for i in range(n_sets)}


# ------------------------------------------------------------------------------------------------ building blocks


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_log_normalise_by_hand(form):
    counts = np.array([[1, 3, 0], [0, 0, 0], [0, 0, 7]], dtype=np.float32)
    expected = np.log1p([[2500, 7500, 0], [0, 0, 0], [0, 0, 10000]])
    result = log_normalise(form(counts))
    assert result.format == "csr"
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.toarray(), expected, rtol=1e-6)


def test_log_normalise_leaves_its_input_alone():
    counts = sp.csr_matrix(np.array([[2.0, 0, 5]], dtype=np.float32))
    log_normalise(counts)
    assert counts.toarray().tolist() == [[2, 0, 5]]


def test_gene_statistics_by_hand_skip_cells_without_counts():
    lognorm = sp.csr_matrix(np.array([[1.0, 0], [3.0, 2.0], [0, 0]], dtype=np.float32))
    table = gene_statistics(lognorm, pd.Index(["A", "B"]))
    assert table["mean"].tolist() == [2.0, 1.0]
    assert table["detection"].tolist() == [1.0, 0.5]
    assert table["variance"].tolist() == [1.0, 1.0]
    assert table.attrs["n_cells"] == 2
    only_first = gene_statistics(lognorm, pd.Index(["A", "B"]), rows=np.array([True, False, False]))
    assert only_first["mean"].tolist() == [1.0, 0.0]
    assert gene_statistics(lognorm, pd.Index(["A", "B"]), rows=[0])["mean"].tolist() == [1.0, 0.0]


def test_gene_statistics_refuse_repeated_or_missing_names():
    lognorm = sp.csr_matrix((2, 2), dtype=np.float32)
    for names in (["A", "A"], ["A"]):
        with pytest.raises(ValueError, match="for a matrix of 2 columns"):
            gene_statistics(lognorm, pd.Index(names))


def test_scores_by_hand_from_explicit_products(cohort):
    """z is (value - mean of the random sets) / their standard deviation, for weighted sets with both directions."""
    counts, genes = cohort(20)
    lognorm = log_normalise(counts)
    statistics = gene_statistics(lognorm, genes)
    names = np.sort(genes[statistics["mean"] > 0].to_numpy(dtype=object).astype(str))[:360:10]
    one = GeneSet("W", tuple(names[:20]), tuple(names[20:36]), weights=(*[1.0] * 20, *[3.0] * 8, *[1.0] * 8))
    matched = draw_matched_sets(statistics, {"W": one}, n_null=50)
    weights = matched.weights.toarray()
    table = pd.Series(weights[:, 0], index=genes)
    assert table[list(names[:20])].to_numpy() == pytest.approx(1 / 20)
    assert table[list(names[20:28])].to_numpy() == pytest.approx(-3 / 32)
    dense = lognorm.toarray().astype(float) @ weights
    null = dense[:, 1:]
    expected = (dense[:, 0] - null.mean(axis=1)) / null.std(axis=1, ddof=1)
    scores = apply_sets(lognorm, matched)
    np.testing.assert_allclose(scores.z[:, 0], expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(scores.null_mean[:, 0], null.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(scores.value[:, 0], dense[:, 0], atol=1e-6)
    # each random set against the other 49
    others = np.stack([np.delete(null, i, axis=1) for i in range(50)], axis=2)
    by_hand = (null - others.mean(axis=1)) / others.std(axis=1, ddof=1)
    np.testing.assert_allclose(null_z(lognorm, matched, "W"), by_hand, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------------ random sets


def test_random_sets_avoid_own_genes_and_repeats_and_keep_the_weights(cohort):
    counts, genes = cohort()
    sets = some_sets(genes)
    matched = draw_matched_sets(gene_statistics(log_normalise(counts), genes), sets, n_null=80)
    for name, one in sets.items():
        block = matched.block(name)
        own = set(genes.get_indexer(list(one.up)))
        assert set(block[0].indices) == own
        for i in range(1, 81):
            picked = block[i].indices
            assert len(set(picked)) == len(picked) == len(own)
            assert not own & set(picked)
    assert matched.weights.shape == (len(genes), 3 * 81)
    np.testing.assert_allclose(np.asarray(matched.transposed.sum(axis=1)).ravel(), 1.0, rtol=1e-5)


def test_random_sets_match_mean_and_detection_also_for_the_strongest_genes(cohort):
    """Without balancing, every neighbour of the strongest genes is weaker and the null lies too low."""
    counts, genes = cohort()
    statistics = gene_statistics(log_normalise(counts), genes)
    strong = statistics["mean"].nlargest(60).index
    sets = {
        "strong": GeneSet("strong", tuple(strong[10::2])),
        "weak": GeneSet("weak", tuple(strong[:0]) + tuple(genes[:25])),
    }
    matched = draw_matched_sets(statistics, sets, n_null=400)
    for name in sets:
        products = matched.block(name) @ statistics[["mean", "detection"]].to_numpy()
        spread = products[1:].std(axis=0)
        bias = np.abs(products[1:].mean(axis=0) - products[0])
        assert bias[0] < 0.5 * spread[0], name
        assert bias[1] < 0.01, name


def test_draws_depend_on_the_genes_only(cohort):
    counts, genes = cohort()
    statistics = gene_statistics(log_normalise(counts), genes)
    sets = some_sets(genes)
    alone = draw_matched_sets(statistics, {"S1": sets["S1"]}, n_null=30, seed=3)
    renamed = draw_matched_sets(statistics, {"x": sets["S0"], "y": sets["S1"]}, n_null=30, seed=3)
    assert (alone.block("S1") != renamed.block("y")).nnz == 0
    backwards = GeneSet("S1", sets["S1"].up[::-1])
    assert (
        alone.block("S1") != draw_matched_sets(statistics, {"S1": backwards}, n_null=30, seed=3).block("S1")
    ).nnz == 0
    assert (
        alone.block("S1") != draw_matched_sets(statistics, {"S1": sets["S1"]}, n_null=30, seed=4).block("S1")
    ).nnz > 0


def test_a_set_that_takes_almost_all_genes_is_not_scored(cohort):
    counts, genes = cohort(100, 60)
    result = calibrated_z(counts, genes, {"most": GeneSet("most", tuple(genes[:40]))}, n_null=20)
    assert result.z["most"].isna().all()
    assert "other genes to draw" in result.coverage["reason"][0]


def test_crowded_pools_still_give_sets_without_repeats(cohort):
    counts, genes = cohort(100, 60)
    matched = draw_matched_sets(
        gene_statistics(log_normalise(counts), genes), {"third": GeneSet("third", tuple(genes[:20]))}, n_null=50
    )
    assert matched.names == ("third",)
    for i in range(51):
        assert len(set(matched.transposed[i].indices)) == 20


# ------------------------------------------------------------------------------------------------ invariances


def test_scores_do_not_depend_on_the_order_of_cells_or_genes_or_on_the_chunk(cohort):
    counts, genes = cohort()
    sets = some_sets(genes)
    expected = calibrated_z(counts, genes, sets, n_null=60).z.to_numpy()
    rng = np.random.default_rng(5)
    cells, columns = rng.permutation(counts.shape[0]), rng.permutation(len(genes))
    shuffled = calibrated_z(counts[cells], genes, sets, n_null=60).z.to_numpy()
    np.testing.assert_array_equal(shuffled, expected[cells])
    moved = calibrated_z(counts[:, columns], genes[columns], sets, n_null=60).z.to_numpy()
    np.testing.assert_allclose(moved, expected, atol=2e-5)  # float32 sums in another order
    for chunk in (1, 7, 1000):
        chunked = calibrated_z(counts, genes, sets, n_null=60, chunk=chunk).z.to_numpy()
        np.testing.assert_allclose(chunked, expected, atol=1e-6)


def test_with_given_reference_cells_company_does_not_matter(cohort):
    counts, genes = cohort()
    sets = some_sets(genes)
    reference = np.arange(100)
    expected = calibrated_z(counts, genes, sets, n_null=60, reference_rows=reference).z.iloc[:120].to_numpy()
    fewer = calibrated_z(counts[:120], genes, sets, n_null=60, reference_rows=reference)
    np.testing.assert_array_equal(fewer.z.to_numpy(), expected)
    statistics = gene_statistics(log_normalise(counts), genes, rows=reference)
    single = calibrated_z(counts[7], genes, sets, n_null=60, statistics=statistics)
    np.testing.assert_allclose(single.z.to_numpy()[0], expected[7], atol=1e-6)
    with pytest.raises(ValueError, match="other genes"):
        calibrated_z(counts, genes[::-1], sets, statistics=statistics)


@pytest.mark.parametrize("form", [lambda m: m.toarray(), sp.csc_matrix, sp.coo_matrix])
def test_matrix_formats_agree(cohort, form):
    counts, genes = cohort(40)
    sets = some_sets(genes, n_sets=1)
    expected = calibrated_z(counts, genes, sets, n_null=30).z
    pd.testing.assert_frame_equal(calibrated_z(form(counts), genes, sets, n_null=30).z, expected)


def test_a_cells_size_does_not_matter(cohort):
    """Doubling all counts of a cell doubles nothing: the score is on relative expression."""
    counts, genes = cohort(60)
    sets = some_sets(genes, n_sets=1)
    statistics = gene_statistics(log_normalise(counts), genes)
    one = calibrated_z(counts, genes, sets, n_null=30, statistics=statistics).z
    two = calibrated_z(counts * 2, genes, sets, n_null=30, statistics=statistics).z
    np.testing.assert_allclose(one.to_numpy(), two.to_numpy(), atol=1e-4)


# ------------------------------------------------------------------------------------------------ calibration


def test_random_sets_score_zero_and_one_and_the_gene_set_null_is_standard(cohort):
    counts, genes = cohort(300)
    sets = some_sets(genes, n_sets=60, size=25)
    result = calibrated_z(counts, genes, sets, n_null=200)
    z = result.z.to_numpy()
    assert abs(z.mean()) < 0.1  # standard error of a mean over 60 sets that each have a level of their own: .04
    assert 0.85 < z.std() < 1.15
    assert abs(result.coverage["depth_correlation"].median()) < 0.05
    null = null_z(log_normalise(counts), result.matched, "S0")
    assert null.shape == (300, 200)
    assert abs(null.mean()) < 0.02
    assert 0.95 < null.std() < 1.1


def test_a_planted_programme_is_found(cohort):
    counts, genes = cohort(200)
    statistics = gene_statistics(log_normalise(counts), genes)
    member = genes[statistics["mean"].rank().between(700, 1200)][::10]
    dense = counts.toarray()
    on = np.arange(200) < 100
    dense[np.ix_(on, genes.get_indexer(member))] *= 2
    sets = {"up": GeneSet("up", tuple(member)), "down": GeneSet("down", (), tuple(member))}
    z = calibrated_z(dense, genes, sets, n_null=200).z
    assert z.loc[on, "up"].mean() - z.loc[~on, "up"].mean() > 1.5
    np.testing.assert_allclose(z["down"], -z["up"], atol=1e-5)


def test_thinning_shifts_raw_means_but_hardly_the_calibrated_score(cohort):
    """Property behind the whole design: matched random sets lose as much as the signature when depth falls to 30 %."""
    counts, genes = cohort(400, depth=4000)
    thin = counts[200:].copy()
    thin.data = np.random.default_rng(8).binomial(thin.data.astype(int), 0.3).astype(np.float32)
    both = sp.vstack([counts[:200], thin]).tocsr()
    rng = np.random.default_rng(9)
    detected = genes[gene_statistics(log_normalise(both), genes)["detection"] > 0.1]
    sets = {f"R{i}": GeneSet(f"R{i}", tuple(rng.choice(detected, 40, replace=False))) for i in range(40)}
    result = calibrated_z(both, genes, sets, n_null=200)
    value = apply_sets(log_normalise(both), result.matched).value
    z = result.z.to_numpy()

    def shifts(score: np.ndarray) -> np.ndarray:
        return (score[200:].mean(axis=0) - score[:200].mean(axis=0)) / score[:200].std(axis=0)

    # 200 cells a side give each set's shift a standard error of .1; the average over 40 sets is known to .02
    assert abs(shifts(z).mean()) < 0.05
    assert np.sqrt((shifts(z) ** 2).mean()) < 0.15
    assert np.median(np.abs(shifts(value))) > 5 * np.median(np.abs(shifts(z)))


# ------------------------------------------------------------------------------------------------ coverage and edges


def test_coverage_table_and_gates(cohort):
    counts, genes = cohort()
    names = genes.to_numpy(dtype=object).astype(str).tolist()
    absent = [f"X{i}" for i in range(20)]
    counts = counts.tolil()
    counts[:, 0] = 0
    counts = counts.tocsr()
    statistics = gene_statistics(log_normalise(counts), genes)
    dominated = statistics["variance"].rank(ascending=False) <= 2
    low = genes[(statistics["variance"].rank() <= 40) & (statistics["mean"] > 0)][:12]
    sets = {
        "fine": GeneSet("fine", tuple(names[1:31]), role="primary"),
        "absent": GeneSet("absent", (*names[1:15], *absent)),
        "small": GeneSet("small", tuple(names[1:6])),
        "one_sided": GeneSet("one_sided", tuple(names[1:31]), (names[0],)),
        "dominated": GeneSet("dominated", (*genes[dominated], *low)),
    }
    result = calibrated_z(counts, genes, sets, n_null=20)
    table = result.coverage.set_index("signature")
    assert list(result.coverage.columns)[:9] == list(TABLES["signature_coverage"])
    assert table["status"].to_dict() == {
        "fine": OK,
        "absent": LOW_COVERAGE,
        "small": LOW_COVERAGE,
        "one_sided": LOW_COVERAGE,
        "dominated": LOW_COVERAGE,
    }
    assert "14 of 34 genes present" in table.loc["absent", "reason"]
    assert "5 genes in at least 2% of cells" in table.loc["small", "reason"]
    assert "one direction" in table.loc["one_sided", "reason"]
    assert "effective number" in table.loc["dominated", "reason"]
    assert result.z.columns.tolist() == list(sets)
    assert result.z.drop(columns="fine").isna().all(axis=None)
    assert result.z["fine"].notna().all()
    assert result.z.dtypes.unique().tolist() == [np.dtype(np.float32)]
    relaxed = calibrated_z(counts, genes, sets, n_null=20, relaxed=True).coverage.set_index("signature")["status"]
    assert relaxed.to_dict() == {
        "fine": OK,
        "absent": OK,
        "small": OK,
        "one_sided": LOW_COVERAGE,
        "dominated": OK,
    }


def test_effective_number_of_equally_variable_genes_is_their_number():
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(3, size=(4000, 60)).astype(np.float32))
    genes = pd.Index([f"G{i:02d}" for i in range(60)])
    result = calibrated_z(counts, genes, {"S": GeneSet("S", tuple(genes[:15]))}, n_null=10)
    assert result.coverage.loc[0, "effective_n_genes"] == pytest.approx(15, rel=0.02)


def test_renamed_genes_are_counted_and_scored(cohort):
    counts, genes = cohort(50)
    sets = some_sets(genes, n_sets=1)
    first = sets["S0"].up[0]
    aliases = pd.DataFrame({"alias": ["OLD"], "symbol": [first], "kind": ["previous"]})
    old = {"S0": GeneSet("S0", ("OLD", *sets["S0"].up[1:]))}
    result = calibrated_z(counts, genes, old, n_null=20, synonyms=aliases)
    assert result.coverage.loc[0, ["n_present", "n_renamed"]].tolist() == [30, 1]
    pd.testing.assert_frame_equal(result.z, calibrated_z(counts, genes, sets, n_null=20).z)


def test_a_cell_without_counts_has_no_score_and_changes_no_other(cohort):
    counts, genes = cohort(50)
    sets = some_sets(genes, n_sets=1)
    empty = sp.vstack([counts, sp.csr_matrix((1, len(genes)), dtype=np.float32)]).tocsr()
    result = calibrated_z(empty, genes, sets, n_null=20)
    assert np.isnan(result.z["S0"].iloc[-1])
    pd.testing.assert_frame_equal(result.z.iloc[:-1], calibrated_z(counts, genes, sets, n_null=20).z)
    assert np.isnan(null_z(log_normalise(empty), result.matched, "S0")[-1]).all()


@pytest.mark.parametrize("n_cells", [0, 1, 2, 5])
def test_few_cells_are_scored_or_refused_without_a_crash(cohort, n_cells):
    counts, genes = cohort(n_cells)
    result = calibrated_z(counts, genes, some_sets(genes), n_null=10, cells=pd.Index([f"c{i}" for i in range(n_cells)]))
    assert result.z.shape == (n_cells, 3)
    assert result.z.index.tolist() == [f"c{i}" for i in range(n_cells)]
    assert len(result.coverage) == 3


def test_no_set_and_unknown_name(cohort):
    counts, genes = cohort(5)
    result = calibrated_z(counts, genes, {}, n_null=10)
    assert result.z.shape == (5, 0)
    assert result.random_sets.shape == (len(genes), 0)
    with pytest.raises(KeyError, match="not among the scorable"):
        null_z(log_normalise(counts), result.matched, "x")
    with pytest.raises(ValueError, match="at least 2"):
        calibrated_z(counts, genes, {}, n_null=1)


def test_weights_for_other_genes_are_refused(cohort):
    counts, genes = cohort(50)
    matched = calibrated_z(counts, genes, some_sets(genes, n_sets=1), n_null=5).matched
    with pytest.raises(ValueError, match="genes, the weights"):
        apply_sets(log_normalise(counts[:, :100]), matched)


def test_depth_correlation_is_spearmans_and_skips_missing_values():
    z = np.array([[1.0, 5], [2, np.nan], [8, np.nan], [np.nan, 1]], dtype=np.float32)
    assert depth_correlation(z, np.array([1.0, 10, 100, 0])).tolist() == [
        pytest.approx(1.0),
        pytest.approx(np.nan, nan_ok=True),
    ]
    assert np.isnan(depth_correlation(np.ones((5, 1), dtype=np.float32), np.arange(5.0))[0])


def test_memory_stays_below_the_matrix_of_cells_and_random_sets():
    """The full product would be 20,000 x 1,503 floats (120 MB); blocks keep the peak far below it."""
    rng = np.random.default_rng(0)
    share = np.exp(rng.normal(0, 1, 300))
    counts = sp.csr_matrix(rng.poisson(60 * share / share.sum(), size=(20000, 300)).astype(np.float32))
    genes = pd.Index([f"G{i:03d}" for i in range(300)])
    sets = some_sets(genes, size=20)
    tracemalloc.start()
    result = calibrated_z(counts, genes, sets, n_null=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.z.shape == (20000, 3)
    assert peak < 4 * counts.data.nbytes + 30e6
