from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import InputError, check_counts, read_table, write_table
from dtcflow.scores.calibrated import gene_statistics, log_normalise
from dtcflow.scores.cycle import cycle_sets, phase, score_cycle
from dtcflow.scores.run import SELF_CHECK_NAME, SelfCheck, reference_cells, score_cohort, self_check
from dtcflow.scores.signatures import GeneSet

NO_ALIASES = pd.DataFrame({"alias": [], "symbol": [], "kind": []})


@pytest.fixture(autouse=True)
def _few_random_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtcflow.scores.run.SELF_CHECK_SETS", 40)


@pytest.fixture
def adata(cohort) -> ad.AnnData:
    counts, genes = cohort(180)
    names = [f"s{i % 3}:c{i:03d}" for i in range(180)]
    obs = pd.DataFrame({"sample_id": [name[:2] for name in names]}, index=names)
    data = ad.AnnData(X=None, shape=counts.shape, obs=obs, var=pd.DataFrame(index=genes.astype(str)))
    data.layers["counts"] = counts
    check_counts(data.layers["counts"], "test")
    return data


@pytest.fixture
def panel(adata) -> list[GeneSet]:
    statistics = gene_statistics(log_normalise(adata.layers["counts"]), adata.var_names)
    genes = sorted(adata.var_names[statistics["mean"].rank().between(500, 1200)])
    sizes = {
        "MAIN": ("primary", "stem"),
        "TIROSH_S_PHASE": ("covariate", "proliferation"),
        "TIROSH_G2M_PHASE": ("covariate", "proliferation"),
        "GAVISH_MP5_STRESS": ("covariate", "stress"),
        "HALLMARK_E2F_TARGETS": ("mask", "proliferation"),
    }
    return [
        GeneSet(name, tuple(genes[30 * i : 30 * i + 30]), role=role, family=family)
        for i, (name, (role, family)) in enumerate(sizes.items())
    ]


def test_columns_coverage_and_self_check(adata, panel, tmp_path):
    user = GeneSet("MINE", tuple(sorted(adata.var_names)[300:330]))
    scores, coverage = score_cohort(adata, panel, [user], n_null=60, aliases=NO_ALIASES)
    assert list(scores.columns) == ["cell_id", "MAIN", "MINE", "S_score", "G2M_score", "stress", "transcript_entropy"]
    assert scores["cell_id"].tolist() == adata.obs_names.tolist()
    assert scores.drop(columns=["cell_id", "transcript_entropy"]).notna().all(axis=None)
    # the common depth is one that nine of ten cells reach; the others have no value
    assert scores["transcript_entropy"].isna().mean() <= 0.1
    assert scores["transcript_entropy"].between(0.5, 1).sum() == scores["transcript_entropy"].notna().sum()
    assert coverage["signature"].tolist() == ["MAIN", "MINE", "S_score", "G2M_score", "stress", SELF_CHECK_NAME]
    check = coverage.iloc[-1]
    assert check["role"] == "self_check"
    assert check["status"] == "ok"
    assert abs(check["mean_z"]) < 0.1
    assert 0.9 < check["sd_z"] < 1.15
    write_table(coverage, tmp_path / "coverage.tsv", "signature_coverage")
    assert read_table(tmp_path / "coverage.tsv", "signature_coverage")["status"].tolist() == coverage["status"].tolist()


def test_order_of_cells_does_not_matter(adata, panel):
    expected, coverage = score_cohort(adata, panel, n_null=40, max_per_sample=20, aliases=NO_ALIASES)
    order = np.random.default_rng(1).permutation(adata.n_obs)
    moved, again = score_cohort(adata[order].copy(), panel, n_null=40, max_per_sample=20, aliases=NO_ALIASES)
    pd.testing.assert_frame_equal(moved, expected.iloc[order].reset_index(drop=True))
    pd.testing.assert_frame_equal(again, coverage)


def test_reference_caps_each_sample_and_keeps_small_ones():
    names = pd.Index([f"a{i}" for i in range(50)] + ["b0", "b1"])
    samples = pd.Series(["a"] * 50 + ["b"] * 2, index=names)
    chosen = reference_cells(names, samples, max_per_sample=10)
    assert (chosen[:50].sum(), chosen[50:].sum()) == (10, 2)
    backwards = reference_cells(names[::-1], samples[::-1], max_per_sample=10)
    assert set(names[::-1][backwards]) == set(names[chosen])


def test_a_group_is_scored_against_its_own_cells(adata, panel):
    """One sample expresses the set like stronger genes: far from the common null, near its own."""
    counts = adata.layers["counts"].toarray()
    own = (adata.obs["sample_id"] == "s0").to_numpy()
    columns = adata.var_names.get_indexer(list(panel[0].up))
    stronger = np.argsort(-counts.sum(axis=0), kind="stable")[100:130]
    counts[np.ix_(own, columns)] = counts[np.ix_(np.roll(own, 3), stronger)]
    adata.layers["counts"] = type(adata.layers["counts"])(counts)
    common, _ = score_cohort(adata, panel, n_null=60, aliases=NO_ALIASES)
    groups = pd.Series(np.where(own, "p0", None), index=adata.obs_names)
    grouped, _ = score_cohort(adata, panel, n_null=60, groups=groups, aliases=NO_ALIASES)
    assert common.loc[own, "MAIN"].mean() > 1.5
    assert abs(grouped.loc[own, "MAIN"].mean()) < 0.5
    pd.testing.assert_frame_equal(grouped[~own], common[~own])


def test_a_small_group_uses_the_common_reference(adata, panel, caplog):
    groups = pd.Series([None] * 175 + ["tiny"] * 5, index=adata.obs_names)
    grouped, _ = score_cohort(adata, panel, n_null=20, groups=groups, aliases=NO_ALIASES)
    pd.testing.assert_frame_equal(grouped, score_cohort(adata, panel, n_null=20, aliases=NO_ALIASES)[0])
    assert "group tiny has 5 cells" in caplog.text


def test_groups_of_other_cells_are_refused(adata, panel):
    with pytest.raises(InputError, match="0 of 180 cells labelled"):
        score_cohort(adata, panel, groups=pd.Series(["a"], index=["x"]), aliases=NO_ALIASES)


def test_only_genes_of_all_samples_take_part(adata, panel):
    adata.var["in_all_samples"] = True
    adata.var.loc[list(panel[0].up[:5]), "in_all_samples"] = False
    _, coverage = score_cohort(adata, panel, n_null=20, aliases=NO_ALIASES)
    assert coverage.set_index("signature").loc["MAIN", "n_present"] == 25


def test_a_user_set_may_not_take_a_panel_name(adata, panel):
    with pytest.raises(InputError, match="a set MAIN"):
        score_cohort(adata, panel, [GeneSet("MAIN", ("A",))], aliases=NO_ALIASES)


@pytest.mark.parametrize(
    ("mean", "sd", "depth", "passed"),
    [(0.05, 1.05, -0.05, True), (0.3, 1, 0, False), (0, 1.5, 0, False), (0, 1, 0.2, False), (np.nan, 1, 0, False)],
)
def test_what_passes_the_self_check(mean, sd, depth, passed):
    assert SelfCheck(mean, sd, depth, n_sets=200, size=50, n_cells=100).passed is passed


def test_self_check_of_no_cells_does_not_pass(cohort):
    counts, genes = cohort(0)
    check = self_check(log_normalise(counts), np.zeros(0), gene_statistics(log_normalise(counts), genes))
    assert not check.passed


# ------------------------------------------------------------------------------------------------ cell cycle


def test_cycle_scores_find_planted_phases(cohort):
    counts, genes = cohort(120)
    sets = cycle_sets()
    names = [*sets["S_score"].up, *sets["G2M_score"].up]
    statistics = gene_statistics(log_normalise(counts), genes)
    middle = genes[statistics["mean"].rank().between(600, 1300)][: len(names)]
    renamed = genes.to_series().replace(dict(zip(middle, names, strict=True))).to_numpy()
    dense = counts.toarray()
    s, g2m = (np.isin(renamed, list(one.up)) for one in sets.values())
    dense[np.ix_(np.arange(120) < 40, s)] *= 4
    dense[np.ix_(np.arange(120) >= 80, g2m)] *= 4
    found = phase(score_cycle(dense, pd.Index(renamed), n_null=100))
    truth = np.repeat(["S", "G1_G0", "G2M"], 40)
    assert (found.to_numpy() == truth).mean() > 0.85


def test_phase_by_hand():
    scores = pd.DataFrame({"S_score": [0, 3, 3, np.nan, np.nan], "G2M_score": [1, 1, 4, np.nan, 5]})
    assert phase(scores).tolist() == ["G1_G0", "S", "G2M", "", "G2M"]
