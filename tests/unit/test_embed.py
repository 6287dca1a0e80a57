"""Merging samples and embedding the cohort."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow import embed
from dtcflow.contracts import COUNTS, LOGNORM, ContractError, InputError, read_stage, write_stage
from dtcflow.embed import cluster_stability, embed_cohort, merge_samples, most_stable
from dtcflow.merge import tidy_frame

SETTINGS = {
    "n_top_genes": 100,
    "exclude_receptor_genes": True,
    "n_pcs": 10,
    "n_neighbors": 10,
    "harmony": False,
    "resolutions": [0.5, 1.0],
}


def sample(counts, genes, sample_id="S1", *, patient="P1", batch="b1", var=None, obs=None):
    """Stage "intake" from a small dense matrix."""
    counts = np.asarray(counts, dtype=np.float32).reshape(-1, len(genes))
    barcodes = [f"c{i}" for i in range(len(counts))]
    frame = pd.DataFrame(
        {
            "barcode": barcodes,
            "sample_id": sample_id,
            "patient_id": patient,
            "compartment": "marrow",
            "batch": batch,
            "platform": "droplet",
        },
        index=pd.Index([f"{sample_id}:{b}" for b in barcodes], dtype=object),
    )
    for column, values in (obs or {}).items():
        frame[column] = values
    facts = pd.DataFrame(
        {"symbol": genes, "gene_id": [f"ENSG{g}" for g in genes], "chromosome": "chr1", "arm": "1p"},
        index=pd.Index(genes, dtype=object),
    ).assign(start=10, end=20)
    for column, values in (var or {}).items():
        facts[column] = values
    return ad.AnnData(X=None, obs=frame, var=facts, layers={COUNTS: sp.csr_matrix(counts)})


def qc(adata, keep=None):
    keep = np.ones(adata.n_obs, dtype=bool) if keep is None else np.asarray(keep, dtype=bool)
    return pd.DataFrame({"cell_id": adata.obs_names.astype(object), "pass_qc": keep})


def cohort(n_cells, n_genes=150, n_groups=3, seed=0, n_batches=1, rate=0.4):
    """Cells of a few groups, each with its own 15 genes turned on."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(n_cells) % n_groups)
    mean = np.full((n_groups, n_genes), rate)
    for i in range(n_groups):
        mean[i, 15 * i : 15 * (i + 1)] = 6
    genes = [f"G{i:04d}" for i in range(n_genes)]
    counts = rng.poisson(mean[group]).astype(np.float32)
    batch = [f"b{i % n_batches}" for i in range(n_cells)]
    adata = sample(counts, genes, obs={"batch": batch})
    adata.var["n_samples"], adata.var["in_all_samples"] = 1, True
    return adata, group


# --- merge -----------------------------------------------------------------------------------------------------------


def test_merge_joins_genes_outer_and_keeps_only_passed_cells():
    a = sample([[1, 2], [3, 4]], ["B", "A"], "S1")
    b = sample([[5, 6]], ["A", "C"], "S2")
    merged = merge_samples([a, b], [qc(a, [False, True]), qc(b)])
    assert list(merged.obs_names) == ["S1:c1", "S2:c0"]
    assert list(merged.var_names) == ["A", "B", "C"]
    np.testing.assert_array_equal(merged.layers[COUNTS].toarray(), [[4, 3, 0], [5, 0, 6]])
    assert merged.layers[COUNTS].format == "csr"
    assert merged.layers[COUNTS].dtype == np.float32
    assert merged.layers[COUNTS].has_sorted_indices
    assert merged.var["n_samples"].tolist() == [2, 1, 1]
    assert merged.var["in_all_samples"].tolist() == [True, False, False]
    assert merged.var.loc["C", "gene_id"] == "ENSGC"
    # the inputs are left alone
    assert a.n_obs == 2
    assert list(a.var_names) == ["B", "A"]


def test_merge_matches_a_dense_calculation_whatever_the_sample_order():
    rng = np.random.default_rng(1)
    parts = []
    for i in range(3):
        genes = [f"G{j}" for j in rng.permutation(12)[:8]]
        parts.append(sample(rng.poisson(1, (4, 8)), genes, f"S{i}"))
    keeps = [rng.random(4) < 0.6 for _ in parts]
    merged = merge_samples(parts, [qc(p, k) for p, k in zip(parts, keeps, strict=True)])
    for part, keep in zip(parts, keeps, strict=True):
        expected = pd.DataFrame(part.layers[COUNTS].toarray(), part.obs_names, part.var_names)[keep]
        expected = expected.reindex(columns=merged.var_names, fill_value=0)
        np.testing.assert_array_equal(merged[expected.index].layers[COUNTS].toarray(), expected.to_numpy())
    back = merge_samples(parts[::-1], [qc(p, k) for p, k in zip(parts[::-1], keeps[::-1], strict=True)])
    np.testing.assert_array_equal(back[merged.obs_names].layers[COUNTS].toarray(), merged.layers[COUNTS].toarray())
    pd.testing.assert_frame_equal(back.var, merged.var)


def test_merge_reads_paths_and_qc_rows_in_any_order(tmp_path):
    a = sample([[1, 0], [0, 2], [7, 0]], ["A", "B"])
    write_stage(a, tmp_path / "S1.h5ad", "intake")
    table = qc(a, [True, False, True]).iloc[[2, 0, 1]]
    merged = merge_samples([tmp_path / "S1.h5ad"], [table])
    np.testing.assert_array_equal(merged.layers[COUNTS].toarray(), [[1, 0], [7, 0]])
    write_stage(merged, tmp_path / "again.h5ad", "intake")
    pd.testing.assert_frame_equal(ad.read_h5ad(tmp_path / "again.h5ad").var, merged.var, check_index_type=False)


def test_merge_of_samples_without_any_passing_cell_is_complete():
    a, b = sample([[1, 2]], ["A", "B"], "S1"), sample([[1]], ["A"], "S2")
    merged = merge_samples([a, b], [qc(a, [False]), qc(b, [False])])
    assert merged.shape == (0, 2)
    assert merged.var["n_samples"].tolist() == [2, 1]
    # a sample without cells does not make a gene "missing"
    merged = merge_samples([a, b], [qc(a), qc(b, [False])])
    assert merged.var["in_all_samples"].tolist() == [True, True]


@pytest.mark.parametrize("change", ["missing", "extra", "twice"])
def test_merge_refuses_a_qc_table_of_other_cells(change):
    a = sample([[1], [2]], ["A"])
    table = qc(a)
    if change == "missing":
        table = table.iloc[:1]
    elif change == "extra":
        table = pd.concat([table, pd.DataFrame({"cell_id": ["S9:c0"], "pass_qc": [True]})])
    else:
        table = pd.concat([table, table.iloc[:1]])
    with pytest.raises(ContractError, match=r"S1:c|S9:c0"):
        merge_samples([a], [table])


def test_merge_refuses_conflicting_gene_facts_and_names_them():
    a = sample([[1, 1]], ["A", "B"], "S1")
    b = sample([[1, 1]], ["A", "B"], "S2", var={"arm": ["1p", "2q"]})
    with pytest.raises(InputError, match="arm '2q' for gene B"):
        merge_samples([a, b], [qc(a), qc(b)])


def test_merge_fills_gene_facts_that_only_one_sample_knows():
    a = sample([[1, 1]], ["A", "B"], "S1", var={"arm": [np.nan, "1p"], "start": [np.nan, 10]})
    b = sample([[1, 1]], ["A", "B"], "S2", var={"arm": ["1q", np.nan], "start": [33, np.nan]})
    merged = merge_samples([a, b], [qc(a), qc(b)])
    assert merged.var["arm"].tolist() == ["1q", "1p"]
    assert merged.var["start"].tolist() == [33, 10]


def test_merge_refuses_no_samples_and_repeated_ids():
    a = sample([[1]], ["A"], "S1")
    with pytest.raises(InputError, match="samples"):
        merge_samples([], [])
    with pytest.raises(ContractError, match="more than one sample"):
        merge_samples([a, a.copy()], [qc(a), qc(a)])


def test_merge_keeps_the_columns_of_every_sample_without_inventing_values(tmp_path):
    a = sample([[1], [1]], ["A"], "S1", obs={"author_type": ["T", "B"], "flag": [True, False], "score": [1, 2]})
    b = sample([[1]], ["A"], "S2", obs={"author_type": pd.Categorical(["M"]), "mixed": ["x"]})
    c = sample([[1]], ["A"], "S3", obs={"mixed": [3]})
    merged = merge_samples([a, b, c], [qc(a), qc(b), qc(c)])
    assert merged.obs["author_type"].astype(object).tolist()[:3] == ["T", "B", "M"]
    assert merged.obs["author_type"].isna().tolist() == [False, False, False, True]
    assert merged.obs["flag"].isna().tolist() == [False, False, True, True]
    assert merged.obs["score"].tolist()[:2] == [1, 2]
    assert merged.obs["mixed"].astype(object).tolist()[2:] == ["x", "3"]
    write_stage(merged, tmp_path / "m.h5ad", "intake")
    again = read_stage(tmp_path / "m.h5ad", "intake")
    for column in merged.obs.columns:
        assert again.obs[column].isna().tolist() == merged.obs[column].isna().tolist()
    assert again.obs["flag"].iloc[0] == True  # noqa: E712 - a nullable boolean


def test_tidy_frame_types(tmp_path):
    frame = pd.DataFrame(
        {
            "a/b": ["x", None],
            "a_b": [1, 2],
            "gap": [True, None],
            "logical": pd.array([True, False], dtype="boolean"),
            "none": [None, None],
            "ints": pd.array([1, None], dtype="Int64"),
            "numbers": pd.Series([1, 2.5], dtype=object).to_numpy(),
            "mixed": ["x", 1],
        },
        index=["i", "j"],
    )
    tidy = tidy_frame(frame)
    assert list(tidy.columns) == ["a_b", "a_b_", "gap", "logical", "none", "ints", "numbers", "mixed"]
    assert tidy["a_b"].isna().tolist() == [False, True]
    assert str(tidy["gap"].dtype) == "boolean"
    assert tidy["logical"].dtype == bool
    assert tidy["ints"].dtype == float
    assert tidy["numbers"].tolist() == [1, 2.5]
    assert tidy["mixed"].tolist() == ["x", "1"]
    ad.AnnData(X=None, obs=tidy).write_h5ad(tmp_path / "t.h5ad")
    again = ad.read_h5ad(tmp_path / "t.h5ad").obs
    assert again["gap"].isna().tolist() == [False, True]
    assert again["a_b"].isna().tolist() == [False, True]


# --- embedding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cells", [0, 1, 2, 5, 20])
def test_every_size_gives_a_complete_object(n_cells, tmp_path):
    adata, _ = cohort(n_cells)
    result = embed_cohort(adata, settings=SETTINGS, seed=1)
    write_stage(result, tmp_path / "e.h5ad", "embedding")
    again = read_stage(tmp_path / "e.h5ad", "embedding")
    assert again.n_obs == n_cells
    assert again.obsm["X_umap"].shape == (n_cells, 2)
    assert list(again.uns["leiden_stability"].columns) == list(embed.STABILITY_COLUMNS)
    assert again.uns["leiden_stability"]["resolution"].tolist() == [0.5, 1.0]
    assert {"leiden_r0.5", "leiden_r1.0"} <= set(again.obs.columns)
    if n_cells < embed.MIN_CELLS:
        assert again.uns["embedding_status"] == f"not computed: {n_cells} cells, at least 10 are needed"
        assert np.isnan(again.obsm["X_umap"]).all()
        assert np.isnan(again.obsm["X_pca"]).all()
        assert set(again.obs["leiden"].astype(str)) <= {"0"}
        assert again.uns["leiden_stability"]["n_clusters"].tolist() == [int(n_cells > 0)] * 2
    else:
        assert again.uns["embedding_status"] == "ok"
        assert np.isfinite(again.obsm["X_umap"]).all()
        assert np.isfinite(again.obsm["X_pca"]).all()


def test_too_few_genes_is_a_status():
    adata, _ = cohort(30, n_genes=45)
    few = adata[:, :9].copy()
    result = embed_cohort(few, settings=SETTINGS, seed=1)
    assert result.uns["embedding_status"].startswith("not computed: 9 genes")


def test_planted_groups_come_back_as_clusters():
    adata, group = cohort(240)
    result = embed_cohort(adata, settings=SETTINGS, seed=1)
    table = pd.crosstab(result.obs["leiden_r0.5"], group)
    assert table.shape == (3, 3)
    assert (np.sort(table.to_numpy(), axis=1)[:, -1] == 80).all()
    stability = result.uns["leiden_stability"].set_index("resolution")
    assert stability.loc[0.5, "n_clusters"] == 3
    assert stability.loc[0.5, "ari_mean"] == 1
    assert stability.loc[0.5, "ari_sd"] == 0
    assert stability.loc[0.5, "silhouette"] > 0.3
    assert result.obs["leiden"].tolist() == result.obs["leiden_r0.5"].tolist()
    assert result.uns["embedding"]["resolution"] == 0.5


def test_layers_are_counts_and_their_log():
    adata, _ = cohort(30)
    result = embed_cohort(adata, settings=SETTINGS, seed=1)
    assert result.X is None
    np.testing.assert_array_equal(result.layers[COUNTS].toarray(), adata.layers[COUNTS].toarray())
    counts = adata.layers[COUNTS].toarray()
    expected = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(result.layers[LOGNORM].toarray(), expected, rtol=1e-5)


def test_unsorted_counts_are_not_mixed_up_by_arrays_shared_between_layers():
    adata, _ = cohort(30)
    tidy = adata.layers[COUNTS].copy()
    backwards = np.concatenate(
        [np.arange(b - 1, a - 1, -1) for a, b in zip(tidy.indptr[:-1], tidy.indptr[1:], strict=True)]
    )
    adata.layers[COUNTS] = sp.csr_matrix((tidy.data[backwards], tidy.indices[backwards], tidy.indptr), shape=tidy.shape)
    assert not adata.layers[COUNTS].has_sorted_indices
    result = embed_cohort(adata, settings=SETTINGS, seed=1)
    result.layers[LOGNORM].sort_indices()
    np.testing.assert_array_equal(result.layers[COUNTS].toarray(), tidy.toarray())


def test_receptor_and_haemoglobin_genes_are_left_out_by_option():
    adata, _ = cohort(90, n_genes=60)
    names = adata.var_names.to_numpy().copy()
    names[:3] = ["HBB", "IGKC", "TRBV19"]
    adata.var_names = pd.Index(names, dtype=object)
    with_option = embed_cohort(adata, settings=SETTINGS, seed=1)
    without = embed_cohort(adata, settings={**SETTINGS, "exclude_receptor_genes": False}, seed=1)
    special = ["HBB", "IGKC", "TRBV19"]
    assert not with_option.var.loc[special, "highly_variable"].any()
    assert without.var.loc[special, "highly_variable"].all()
    assert with_option.var["highly_variable"].sum() == 57


def test_genes_not_measured_everywhere_are_not_variable_genes():
    adata, _ = cohort(60, n_genes=260, rate=1.0)
    adata.var["in_all_samples"] = np.arange(260) >= 30
    result = embed_cohort(adata, settings={**SETTINGS, "n_top_genes": 1000}, seed=1)
    assert result.var["highly_variable"].tolist() == (np.arange(260) >= 30).tolist()


def test_only_as_many_variable_genes_as_asked_for_and_the_planted_ones_first():
    # 20 of 400 genes, of low to middling expression, are sixfold higher in a quarter of the cells of both batches
    rng = np.random.default_rng(0)
    mean = np.tile(np.tile(np.geomspace(0.3, 3, 20), 20), (300, 1))
    planted = np.r_[0:10, 20:30]
    mean[:75, planted] *= 6
    genes = [f"G{i:04d}" for i in range(400)]
    adata = sample(rng.poisson(mean), genes, obs={"batch": ["b0", "b1"] * 150})
    result = embed_cohort(adata, settings={**SETTINGS, "n_top_genes": 25}, seed=1)
    chosen = result.var["highly_variable"].to_numpy()
    assert chosen.sum() == 25
    assert chosen[planted].sum() >= 18
    assert result.uns["embedding"]["batches"] == "b0;b1"


def test_result_does_not_depend_on_the_order_of_cells_and_genes():
    adata, _ = cohort(200, n_genes=300, n_batches=2)
    one = embed_cohort(adata, settings=SETTINGS, seed=3)
    rng = np.random.default_rng(5)
    shuffled = adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()
    shuffled.layers[COUNTS] = sp.csr_matrix(shuffled.layers[COUNTS])
    two = embed_cohort(shuffled, settings=SETTINGS, seed=3)[one.obs_names, one.var_names]
    for key in ("X_pca", "X_umap"):
        np.testing.assert_array_equal(one.obsm[key], two.obsm[key])
    assert one.obs["leiden_r1.0"].tolist() == two.obs["leiden_r1.0"].tolist()
    assert one.var["highly_variable"].tolist() == two.var["highly_variable"].tolist()
    pd.testing.assert_frame_equal(one.uns["leiden_stability"], two.uns["leiden_stability"])


def test_same_seed_same_bytes_and_numba_threads_are_restored():
    import numba

    adata, _ = cohort(120)
    before = numba.get_num_threads()
    one, two = (embed_cohort(adata, settings=SETTINGS, seed=3) for _ in range(2))
    assert one.obsm["X_umap"].tobytes() == two.obsm["X_umap"].tobytes()
    assert one.obsm["X_pca"].tobytes() == two.obsm["X_pca"].tobytes()
    assert numba.get_num_threads() == before


def test_components_have_their_largest_loading_positive():
    adata, _ = cohort(120)
    result = embed_cohort(adata, settings=SETTINGS, seed=3)
    loadings = result.varm["PCs"]
    assert (loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])] > 0).all()
    centred = result.layers[LOGNORM].toarray() - result.layers[LOGNORM].toarray().mean(axis=0)
    # float32 scores against a float64 product
    np.testing.assert_allclose(centred @ loadings, result.obsm["X_pca"], atol=1e-3)


def test_harmony_brings_batches_together_and_leaves_counts_and_pca_alone():
    pytest.importorskip("harmonypy")
    adata, group = cohort(600, n_batches=2)
    shifted = adata.layers[COUNTS].toarray()
    batch = (adata.obs["batch"] == "b1").to_numpy()
    shifted[np.ix_(batch, np.arange(60, 80))] += 1
    adata.layers[COUNTS] = sp.csr_matrix(shifted)
    plain = embed_cohort(adata, settings=SETTINGS, seed=1)
    corrected = embed_cohort(adata, settings={**SETTINGS, "harmony": True}, seed=1)
    assert "X_pca_harmony" not in plain.obsm
    np.testing.assert_array_equal(plain.obsm["X_pca"], corrected.obsm["X_pca"])
    np.testing.assert_array_equal(corrected.layers[COUNTS].toarray(), shifted)

    def gap(values):
        within = [values[batch & (group == g)].mean(0) - values[~batch & (group == g)].mean(0) for g in range(3)]
        return np.linalg.norm(np.mean(within, axis=0))

    assert gap(corrected.obsm["X_pca_harmony"]) < 0.5 * gap(corrected.obsm["X_pca"])
    assert plain.uns["embedding"]["basis"] == "X_pca"
    assert corrected.uns["embedding"]["basis"] == "X_pca_harmony"


def test_harmony_is_skipped_with_one_batch():
    adata, _ = cohort(60)
    assert "X_pca_harmony" not in embed_cohort(adata, settings={**SETTINGS, "harmony": True}, seed=1).obsm


# --- stability -------------------------------------------------------------------------------------------------------


def test_cluster_stability_of_separate_cliques_and_of_one():
    clique = np.ones((12, 12)) - np.eye(12)
    weights = sp.csr_matrix(sp.block_diag([clique, clique[:8, :8]]), dtype=np.float32)
    basis = np.r_[np.zeros((12, 2)), np.ones((8, 2))] + np.random.default_rng(0).normal(0, 0.01, (20, 2))
    (labels,), table = cluster_stability(weights, basis, resolutions=[1.0], seed=0, n_runs=4)
    assert labels.tolist() == [0] * 12 + [1] * 8
    assert table.loc[0, ["n_clusters", "ari_mean", "ari_sd"]].tolist() == [2, 1, 0]
    assert table.loc[0, "silhouette"] > 0.9
    (labels,), table = cluster_stability(sp.csr_matrix(clique), basis[:12], resolutions=[0.5], seed=0, n_runs=4)
    assert set(labels) == {0}
    assert np.isnan(table.loc[0, "silhouette"])


def test_most_stable_ignores_the_single_cluster():
    table = pd.DataFrame({"resolution": [0.1, 0.5, 1.0], "n_clusters": [1, 3, 6], "ari_mean": [1.0, 0.8, 0.9]})
    assert most_stable(table) == 1.0
    assert most_stable(table.assign(n_clusters=1)) == 0.1
    assert most_stable(table.assign(ari_mean=np.nan)) == 0.5


@pytest.mark.slow
def test_ten_thousand_cells():
    # above about 9,000 cells scanpy's own choice of neighbour search fails with scanpy 1.12
    adata, group = cohort(10_000, n_genes=200)
    result = embed_cohort(adata, settings={**SETTINGS, "resolutions": [0.5]}, seed=1, n_stability_runs=1)
    assert result.uns["embedding_status"] == "ok"
    table = pd.crosstab(result.obs["leiden"], group).to_numpy()
    assert table.max(axis=1).sum() >= 9_990
    degree = np.diff(result.obsp["connectivities"].indptr)
    assert degree.min() >= SETTINGS["n_neighbors"] - 1
