import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from dtcflow.contracts import write_table
from dtcflow.evidence import pseudobulk as pb
from dtcflow.evidence import pseudobulk_scores as ps
from dtcflow.scores.signatures import GeneSet

GENES = [f"g{i:03d}" for i in range(600)]
PANEL = [
    GeneSet("UP", tuple(GENES[:30])),
    GeneSet("FLAT", tuple(GENES[100:140])),
    GeneSet("PAIR", tuple(GENES[200:230]), tuple(GENES[300:330])),
    GeneSet("FEW", ("g001", "g002")),
    GeneSet("MASK", tuple(GENES[:40]), role="mask"),
]


def made_bulk(n=4, shift=1.0, depth=1.0, seed=0):
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(4, 1, 600))
    rows = []
    for _ in range(n):
        own = base * rng.lognormal(0, 0.2, 600)
        raised = own * np.where(np.arange(600) < 30, 2.0**shift, 1.0)
        rows += [rng.poisson(raised * depth), rng.poisson(own)]
    return pb.Pseudobulk(np.array(rows), tuple(f"P{i}" for i in range(n)), np.full((n, 2), 9), pd.Index(GENES))


def one(table, signature, method):
    return table[(table["signature"] == signature) & (table["method"] == method)]


@pytest.mark.parametrize("method", [ps.SSGSEA, ps.GSVA])
@pytest.mark.parametrize("depth", [1.0, 0.2])
def test_a_planted_set_rises_in_every_patient_and_depth_alone_moves_nothing(method, depth):
    table = ps.score_pseudobulks(made_bulk(n=6, depth=depth), PANEL)
    up = one(table, "UP", method)
    assert up["patient_id"].tolist() == [f"P{i}" for i in range(6)]
    assert (up["difference"] > 0).all()
    assert up["patient_p"].unique().tolist() == [2 / 64]
    np.testing.assert_allclose(up["difference"], up["value_a"] - up["value_b"])
    np.testing.assert_allclose(up["mean_difference"], up["difference"].mean())
    flat = one(table, "FLAT", method)
    assert abs(flat["mean_difference"].iloc[0]) < 0.25 * up["mean_difference"].iloc[0]
    assert set(table.loc[table["method"] == method, "signature"]) == {"UP", "FLAT", "PAIR_UP", "PAIR_DN"}


def test_order_of_sets_and_genes_does_not_matter(tmp_path):
    bulk = made_bulk()
    order = np.random.default_rng(1).permutation(600)
    first = ps.score_pseudobulks(bulk, PANEL)
    second = ps.score_pseudobulks(bulk, PANEL[::-1])
    pd.testing.assert_frame_equal(first, second)
    # the same pseudobulks without thinning: draws go gene by gene, so only the untouched depth can be compared
    equal = np.repeat(bulk.counts[0::2], 2, axis=0)
    same = pb.Pseudobulk(equal, bulk.patients, bulk.cells, bulk.genes)
    moved = pb.Pseudobulk(equal[:, order], bulk.patients, bulk.cells, bulk.genes[order])
    pd.testing.assert_frame_equal(ps.score_pseudobulks(same, PANEL), ps.score_pseudobulks(moved, PANEL))
    write_table(first, tmp_path / "pseudobulk_scores.tsv")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pairs_have_values_but_no_test(n):
    bulk = made_bulk(n=max(n, 1))
    if n == 0:
        bulk = pb.Pseudobulk(np.zeros((0, 600), dtype=np.int64), (), np.zeros((0, 2), dtype=np.int64), pd.Index(GENES))
    table = ps.score_pseudobulks(bulk, PANEL)
    assert table["patient_p"].isna().all()
    assert list(table.columns) == list(ps.SCORE_COLUMNS)
    if n:
        up = one(table, "UP", ps.SSGSEA)
        assert up["difference"].notna().all()
        assert up["status"].unique().tolist() == [f"no test: needs 3 paired patients, found {n}"]
    else:
        assert table["method"].tolist() == [ps.SSGSEA, ps.GSVA, ps.STEMNESS_INDEX]


def test_stemness_index_is_spearmans_and_needs_weights():
    bulk = made_bulk()
    rng = np.random.default_rng(3)
    weights = pd.Series(rng.normal(size=600), index=GENES)
    values = rng.normal(size=(3, 600))
    found = ps.stemness_index(values, pd.Index(GENES), weights.sample(frac=1, random_state=1))
    np.testing.assert_allclose(found, [spearmanr(row, weights).statistic for row in values])
    table = ps.score_pseudobulks(bulk, PANEL, weights=weights)
    assert one(table, ps.STEMNESS_INDEX, ps.STEMNESS_INDEX)["difference"].notna().sum() == 4
    without = ps.score_pseudobulks(bulk, PANEL)
    row = without[without["method"] == ps.STEMNESS_INDEX]
    assert row["status"].tolist() == [ps.NO_WEIGHTS]
    assert row["value_a"].isna().all()
    few = ps.score_pseudobulks(bulk, PANEL, weights=weights.iloc[:20])
    assert "20 genes with a weight" in few.loc[few["method"] == ps.STEMNESS_INDEX, "status"].iloc[0]
    with pytest.raises(ValueError, match="twice"):
        ps.stemness_index(values, pd.Index(GENES), pd.concat([weights, weights.iloc[:1]]))


def test_no_set_and_no_count_end_with_a_status():
    assert ps.score_pseudobulks(made_bulk(), [])["status"].iloc[0] == "no gene set with 10 tested genes"
    zero = pb.Pseudobulk(np.zeros((6, 600), dtype=np.int64), ("A", "B", "C"), np.full((3, 2), 3), pd.Index(GENES))
    assert set(ps.score_pseudobulks(zero, PANEL)["status"]) == {"no gene is expressed in enough pseudobulks"}
