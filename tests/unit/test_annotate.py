"""Cell types from marker panels."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.annotate import _ClusterLevels, annotate_cells, label_cells, panel_z
from dtcflow.contracts import COUNTS, LOGNORM, TABLES, read_table, write_table
from dtcflow.scores.calibrated import log_normalise
from dtcflow.scores.signatures import GeneSet

SETTINGS = {"min_z": 2.0, "min_margin": 1.0, "epithelial_z": 3.0}
PANELS = ("T_NK", "monocyte", "epithelial")


def label(rows, clusters=None, columns=PANELS, **kwargs):
    z = pd.DataFrame(np.asarray(rows, dtype=float).reshape(-1, len(columns)), columns=list(columns))
    z.index = [f"S:c{i}" for i in range(len(z))]
    clusters = np.array(["0"] * len(z) if clusters is None else clusters, dtype=object)
    return label_cells(z, clusters, settings=SETTINGS, **kwargs).set_index("cell_id")


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "cell_type", "margin", "runner_up"),
    [
        ([5, 1, 0], "T_NK", 4, "monocyte"),
        ([2, 1, 0], "T_NK", 1, "monocyte"),
        ([1.9, 0, 0], "unknown", 1.9, "monocyte"),
        ([5, 4.1, 0], "unknown", 0.9, "monocyte"),
        ([0, 5, 5], "unknown", 0, "epithelial"),
        ([0, 1, 5], "epithelial", 4, "monocyte"),
        ([0, 1, 2.9], "unknown", 1.9, "monocyte"),  # epithelial asks for more
        ([np.nan, 4, 0], "monocyte", 4, "epithelial"),
        ([-1, -2, -3], "unknown", 1, "monocyte"),
    ],
)
def test_a_cell_is_named_by_a_leading_panel(z, cell_type, margin, runner_up):
    row = label([z]).iloc[0]
    assert (row["cell_type"], row["runner_up"]) == (cell_type, runner_up)
    assert row["cell_type_margin"] == pytest.approx(margin)
    assert row["best_z"] == np.nanmax(z)
    assert row["cell_type_source"] == ("none" if cell_type == "unknown" else "cell")


def test_without_a_second_panel_there_is_no_margin_and_no_name():
    rows = label([[np.nan, 9, np.nan], [np.nan] * 3])
    assert rows["cell_type"].tolist() == ["unknown", "unknown"]
    assert rows["cell_type_margin"].isna().all()
    assert rows["runner_up"].tolist() == ["", ""]
    assert rows["best_z"].tolist()[0] == 9
    assert np.isnan(rows["best_z"].tolist()[1])
    assert label([[9]], columns=["T_NK"])["cell_type"].tolist() == ["unknown"]


def test_an_unnamed_cell_borrows_the_label_its_cluster_agrees_on():
    rows = [[5, 0, 0]] * 12 + [[1, 0, 0], [-0.1, 0, 0], [0, 0, 0]]
    result = label(rows)
    assert result["cell_type"].tolist() == ["T_NK"] * 13 + ["unknown", "T_NK"]
    assert result["cell_type_source"].tolist() == ["cell"] * 12 + ["cluster", "none", "cluster"]
    # the same cells in clusters of their own borrow nothing
    alone = label(rows, clusters=["0"] * 12 + ["1", "2", "3"])
    assert (alone["cell_type"].tolist()[12:]) == ["unknown"] * 3
    # nor do they when there was no clustering
    assert label(rows, clustered=False)["cell_type"].tolist()[12] == "unknown"


def test_a_cluster_must_agree_and_know():
    t, m, none = [5, 0, 0], [0, 5, 0], [1, 1, 0]
    assert label([t] * 16 + [m] * 4 + [none])["cell_type"].tolist()[-1] == "T_NK"  # 80 %
    assert label([t] * 15 + [m] * 4 + [none])["cell_type"].tolist()[-1] == "unknown"  # 79 %
    assert label([t] * 9 + [none])["cell_type"].tolist()[-1] == "unknown"  # 9 cells
    assert label([t] * 12 + [none] * 28)["cell_type"].tolist()[-1] == "T_NK"  # 30 % of the cluster
    assert label([t] * 12 + [none] * 29)["cell_type"].tolist()[-1] == "unknown"


def test_a_cluster_never_decides_about_epithelial_cells():
    blood = [[0, 6, 0]] * 20
    # named epithelial; ambiguous with epithelial evidence; best panel epithelial but below its threshold
    tumour = [[0, 0, 6], [0, 4, 4.5], [0, 0.5, 2.5]]
    result = label(blood + tumour)
    assert result["cell_type"].tolist()[20:] == ["epithelial", "unknown", "unknown"]
    assert result["epithelial_evidence"].tolist() == [False] * 20 + [True] * 3
    # and "epithelial" is never lent
    result = label([[0, 0, 6]] * 20 + [[0, 0, 1]])
    assert result["cell_type"].tolist()[-1] == "unknown"


def test_mixed_lineage_needs_both():
    result = label([[0, 4, 6], [0, 2.9, 6], [0, 6, 2.9], [0, 6, 3.5]])
    assert result["mixed_lineage"].tolist() == [True, False, False, True]
    assert result["cell_type"].tolist() == ["epithelial", "epithelial", "monocyte", "monocyte"]


def test_labels_do_not_depend_on_the_order_of_cells():
    rng = np.random.default_rng(0)
    rows, clusters = rng.normal(1, 2, (200, 3)), rng.integers(0, 3, 200).astype(str)
    one = label(rows, clusters)
    order = rng.permutation(200)
    z = pd.DataFrame(rows[order], columns=list(PANELS), index=[f"S:c{i}" for i in order])
    two = label_cells(z, clusters[order].astype(object), settings=SETTINGS).set_index("cell_id")
    pd.testing.assert_frame_equal(two.loc[one.index], one)


# --- scores ----------------------------------------------------------------------------------------------------------


def cells(groups, n_genes=600, depth=2000, seed=0, order=None):
    """Cells of given groups; genes 10 i to 10 i + 9 are the markers of group i (HBA1, HBA2, HBB within group 3)."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(0.6, size=n_genes)
    level[:50] = 0.05
    mean = np.tile(level, (len(groups), 1))
    for row, group in enumerate(groups):
        if group is not None:
            mean[row, 10 * group : 10 * (group + 1)] = 4
    mean *= depth / mean.sum(axis=1, keepdims=True)
    names = np.array([f"G{i}" for i in range(n_genes)], dtype=object)
    names[30:33] = ["HBA1", "HBA2", "HBB"]
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    adata = ad.AnnData(
        X=None,
        obs=pd.DataFrame(index=[f"S:c{i}" for i in range(len(groups))]),
        var=pd.DataFrame(index=names),
        layers={COUNTS: counts},
    )
    adata.obs["leiden"] = [str(group) for group in groups]
    if order is not None:
        adata = adata[order].copy()
    adata.layers[LOGNORM] = log_normalise(adata.layers[COUNTS].copy())
    return adata


def panels_of(adata):
    names = list(adata.var_names)
    types = ("T_NK", "monocyte", "epithelial", "erythroid")
    return {t: GeneSet(t, up=tuple(names[10 * i : 10 * i + 10]), role="marker") for i, t in enumerate(types)}


def test_planted_types_are_found():
    groups = [0] * 60 + [1] * 60 + [2] * 6
    adata = cells(groups)
    table = annotate_cells(adata, panels_of(adata), settings=SETTINGS, seed=1)
    assert table["cell_type"].tolist() == ["T_NK"] * 60 + ["monocyte"] * 60 + ["epithelial"] * 6
    assert table["cell_id"].tolist() == list(adata.obs_names)


def test_a_type_that_is_most_of_the_sample_is_not_compared_with_itself():
    # 16 of 20 cells have 2 of the marker, 4 have 1. A quarter of the cells, 5, are background: the 4 and one of the 16.
    # The other 15 cells together weigh a tenth of the mixture, that is 5/9 of a cell.
    values = sp.csr_matrix(np.array([[2.0, 3.0]] * 16 + [[1.0, 0.0]] * 4, dtype=np.float32))
    clusters = np.array(["t"] * 16 + ["n"] * 4, dtype=object)
    background = _ClusterLevels.of(values, clusters).background(np.array([0]))
    tumour, normal = 1 + 5 / 9, 4
    share = tumour / (tumour + normal)
    np.testing.assert_allclose(background["mean"], [1 + share, 3 * share])
    np.testing.assert_allclose(background["detection"], [1, share])
    np.testing.assert_allclose(background["variance"], [share * (1 - share), 9 * share * (1 - share)], rtol=1e-6)


def test_without_contrast_between_clusters_the_background_is_everything():
    values = sp.csr_matrix(np.random.default_rng(0).poisson(1, (12, 3)).astype(np.float32))
    background = _ClusterLevels.of(values, np.array(["0"] * 12, dtype=object)).background(np.array([1]))
    np.testing.assert_allclose(background["mean"], values.toarray().mean(axis=0))
    np.testing.assert_allclose(background["variance"], values.toarray().var(axis=0))


def test_one_transcript_is_no_identity_and_haemoglobin_is_soup():
    adata = cells([0] * 60 + [1] * 60)
    counts = adata.layers[COUNTS].tolil()
    names = list(adata.var_names)
    counts[:3, 20:40] = 0
    counts[0, 20] = 3  # one epithelial marker
    counts[1, 20:22] = 3  # two
    counts[2, [names.index(g) for g in ("HBA1", "HBA2", "HBB")]] = 40  # ambient haemoglobin
    adata.layers[COUNTS] = sp.csr_matrix(counts)
    adata.layers[LOGNORM] = log_normalise(adata.layers[COUNTS].copy())
    z = panel_z(adata, panels_of(adata), clusters=adata.obs["leiden"].to_numpy(dtype=object), seed=1)
    assert z.iloc[0]["epithelial"] <= 0
    assert z.iloc[1]["epithelial"] > 0
    assert z.iloc[2]["erythroid"] == 0


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_every_size_gives_a_complete_table(n, tmp_path):
    adata = cells([i % 2 for i in range(n)])
    adata.uns["embedding_status"] = "ok" if n >= 10 else "not computed"
    if n < 10:
        adata.obs["leiden"] = "0"
    table = annotate_cells(adata, panels_of(adata), settings=SETTINGS, seed=1, n_null=50)
    assert len(table) == n
    assert set(TABLES["annotation"]) <= set(table.columns)
    write_table(table, tmp_path / "a.tsv.gz", "annotation")
    again = read_table(tmp_path / "a.tsv.gz", "annotation")
    assert again["cell_type"].tolist() == table["cell_type"].tolist()
    assert set(again["cell_type_source"]) <= {"cell", "cluster", "none"}


def test_a_panel_without_genes_is_not_scored():
    adata = cells([0] * 30 + [1] * 30)
    panels = {**panels_of(adata), "B": GeneSet("B", up=("MS4A1", "CD19", "CD79A"), role="marker")}
    z = panel_z(adata, panels, clusters=adata.obs["leiden"].to_numpy(dtype=object), seed=1)
    assert z["B"].isna().all()
    assert list(z.columns) == list(panels)
    nothing = panel_z(adata, {"B": panels["B"]}, clusters=adata.obs["leiden"].to_numpy(dtype=object), seed=1)
    assert nothing.shape == (60, 1)


def test_scores_do_not_depend_on_the_order_of_cells():
    groups = [0] * 30 + [1] * 30 + [2] * 5
    one, two = cells(groups), cells(groups, order=np.random.default_rng(2).permutation(65))
    first = annotate_cells(one, panels_of(one), settings=SETTINGS, seed=1).set_index("cell_id")
    second = annotate_cells(two, panels_of(two), settings=SETTINGS, seed=1).set_index("cell_id").loc[first.index]
    pd.testing.assert_frame_equal(first, second)
