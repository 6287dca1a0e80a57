import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

from dtcflow.evidence.alternatives import CellCounts, alternative_scores
from dtcflow.evidence.contrasts import Layout, lay_out
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.robustness import SPECIFICATION_COLUMNS, shown_signatures, specifications
from dtcflow.evidence.scoring import balanced_statistics, score_contrast
from dtcflow.scores import sensitivity
from dtcflow.scores.calibrated import apply_sets, draw_matched_sets, log_normalise
from dtcflow.scores.sensitivity import AUCELL, NOT_INSTALLED, SCORE_GENES, UCELL

RAW = (SCORE_GENES, AUCELL, UCELL)


class Case:
    """A simulated cohort with its contrast."""

    def __init__(self, lab, scenario):
        self.lab = lab
        adata, cells = lab.simulate(scenario)
        self.plan = load_plan(lab.plan_path)
        self.claim = self.plan.claim("P2")
        self.layout = lay_out(cells, a="DTC", b="PT", strict_q=0.01, seed=1)
        self.counts = adata.layers["counts"][self.layout.table["row"].to_numpy()]
        known = {one.name: one for one in lab.panel}
        self.panel = {name: known[name] for name in self.claim.required_signatures()}

    def score(self, counts=None, genes=None, panel=None, alternatives=None):
        return score_contrast(
            self.counts if counts is None else counts,
            pd.Index(self.lab.genes) if genes is None else genes,
            self.layout,
            self.panel if panel is None else panel,
            tested=[self.claim.primary_signature],
            repeats=2,
            n_null=100,
            trim=0.1,
            minimum_coverage=0.6,
            synonyms=self.lab.no_synonyms,
            seed=1,
            alternatives=shown_signatures(self.claim) if alternatives is None else alternatives,
        )

    def table(self, scored):
        return specifications(
            self.claim,
            self.plan.rules,
            self.layout,
            scored.names,
            scored.matched,
            scored.full,
            scored.scorable(),
            scored.alternatives,
        )


@pytest.fixture(scope="module")
def planted(lab):
    case = Case(lab, lab.scenario(n_patients=4, n_dtc=10, n_pt=30, effect=0.6, depth_dtc=1500, depth_pt=5000, seed=3))
    scored = case.score()
    return case, scored, case.table(scored)


def estimates(table, **chosen):
    rows = table[np.logical_and.reduce([table[name] == value for name, value in chosen.items()])]
    return rows["estimate"].to_numpy(dtype=float)


def test_every_combination_is_there_once(planted):
    _, _, table = planted
    assert list(table.columns) == list(SPECIFICATION_COLUMNS)
    choices = ["signature", "purge", "depth", "aggregation", "call", "score", "reference"]
    assert not table.duplicated(choices).any()
    sizes = table.groupby(["score", "reference"]).size().to_dict()
    # 7 signatures x 2 depths x 2 calls x (trimmed mean, median, and a pseudobulk where z is calibrated)
    assert sizes == {
        ("calibrated_z", "both"): 84,
        ("calibrated_z", "reference"): 84,
        (SCORE_GENES, "none"): 56,
        (AUCELL, "none"): 56,
        (UCELL, "none"): 56,
    }


def test_the_planted_effect_is_found_by_every_score_that_is_installed(planted):
    _, _, table = planted
    for score in ("calibrated_z", *RAW):
        if score in RAW and not sensitivity.installed(score):
            continue
        found = estimates(table, score=score, depth="matched", signature="LIM_MAMMARY_STEM_CELL_UP")
        assert (found > 0.5).all(), score
    assert (table.loc[table["estimate"].notna(), "reason"] == "").all()
    assert (table.loc[table["estimate"].isna(), "reason"] != "").all()


def test_raw_scores_vote_at_matched_depth_only_and_reported_signatures_never(planted):
    _, _, table = planted
    raw = table["score"].isin(RAW)
    assert not table.loc[raw & (table["depth"] == "full"), "votes"].any()
    assert not table.loc[table["signature"] == "LIM_MAMMARY_LUMINAL_PROGENITOR_UP", "votes"].any()
    assert table.loc[(table["score"] == SCORE_GENES) & (table["depth"] == "matched"), "votes"].sum() == 24
    assert table.loc[table["score"] == "calibrated_z", "votes"].sum() == 2 * 72


def test_a_score_that_is_not_installed_has_rows_that_do_not_vote(lab, monkeypatch):
    real = sensitivity.installed
    monkeypatch.setattr(sensitivity, "installed", lambda name: name != AUCELL and real(name))
    case = Case(lab, lab.scenario(n_patients=3, n_dtc=6, n_pt=12, seed=2))
    table = case.table(case.score())
    rows = table[table["score"] == AUCELL]
    assert len(rows) == 56
    assert rows["estimate"].isna().all()
    assert (rows["reason"] == NOT_INSTALLED).all()
    assert not rows["votes"].any()


def test_without_alternatives_only_the_calibrated_score_is_in_the_table(planted):
    case, _, full = planted
    scored = case.score(alternatives=[])
    table = case.table(scored)
    assert len(table) == 56
    main = full[
        (full["score"] == "calibrated_z") & (full["reference"] == "both") & (full["aggregation"] != "pseudobulk")
    ]
    pd.testing.assert_frame_equal(table.reset_index(drop=True), main.reset_index(drop=True))


def test_the_residual_correlation_with_depth_is_reported_per_signature(planted):
    case, scored, _ = planted
    table = scored.coverage.set_index("signature")["depth_correlation"]
    assert list(table.index) == list(case.panel)
    name = case.claim.primary_signature
    z = scored.matched[0][:, scored.names.index(name)]
    assert table[name] == pytest.approx(spearmanr(z, scored.depth[0][:, 1]).statistic, abs=1e-6)
    assert table.notna().all()


def test_a_set_that_was_not_measured_has_a_reason_and_keeps_its_vote(planted):
    case, _, _ = planted
    missing = set(case.panel["PECE_MAMMARY_STEM_CELL_UP"].genes)
    kept = np.array([gene not in missing for gene in case.lab.genes])
    table = case.table(case.score(case.counts[:, kept], pd.Index(case.lab.genes)[kept]))
    rows = table[(table["signature"] == "PECE_MAMMARY_STEM_CELL_UP") & (table["score"] == "calibrated_z")]
    assert rows["estimate"].isna().all()
    assert rows["votes"].all()
    assert rows["reason"].str.contains("genes").all()


def test_order_of_the_genes_does_not_matter(planted):
    case, scored, table = planted
    order = np.random.default_rng(8).permutation(len(case.lab.genes))
    moved = case.score(case.counts[:, order], pd.Index(case.lab.genes)[order])
    np.testing.assert_array_equal(moved.matched[1], scored.matched[1])
    pd.testing.assert_frame_equal(case.table(moved), table)


def test_a_pseudobulk_of_equal_cells_is_the_cell(lab):
    """Cells of one side that are copies of each other: their sum has their log expression, and so their value."""
    rng = np.random.default_rng(0)
    genes = pd.Index(lab.genes)
    rate = np.exp(rng.normal(0, 1, genes.size))
    profiles = rng.poisson(rate, size=(6, genes.size)).astype(np.float32)
    table = pd.DataFrame(
        {
            "cell_id": [f"c{i}" for i in range(24)],
            "row": range(24),
            "patient_id": np.repeat(["A", "B", "C"], 8),
            "side": np.tile(np.repeat([0, 1], 4), 3),
            "sample": "s",
            "strict": True,
        }
    )
    layout = Layout(table, ("A", "B", "C"), pd.DataFrame())
    counts = sp.csr_matrix(np.repeat(profiles, 4, axis=0))
    panel = {one.name: one for one in lab.panel if one.name == "LIM_MAMMARY_STEM_CELL_UP"}
    statistics = balanced_statistics(log_normalise(counts), genes, layout.side)
    sets = draw_matched_sets(statistics, panel, n_null=60, seed=1, min_coverage=0.1)
    found = alternative_scores(
        CellCounts((counts,), counts, genes), layout, panel, sets,
        n_null=60, trim=0.1, minimum_coverage=0.1, synonyms=None, seed=1,
    )  # fmt: skip
    cells = apply_sets(log_normalise(counts), sets)
    centred = (cells.value - cells.null_mean)[::4, 0].reshape(3, 2)
    bulk = found[0].groups["matched", "pseudobulk", "loose"]
    np.testing.assert_allclose(bulk.value[:, :, 0], centred, atol=1e-5)
    assert bulk.n.tolist() == [[4, 4]] * 3
    assert np.abs(bulk.variance).max() < 1e-10
