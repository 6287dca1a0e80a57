from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import COUNTS, check_counts
from dtcflow.evidence.run import NEEDED_CELL_COLUMNS
from dtcflow.scores.signatures import load_panel
from dtcflow.simulate import evidence as ev

NULL = ev.EvidenceScenario("t", n_patients=4, pt_cells=20)


def dense(cohort: ev.EvidenceCohort, **where: object) -> np.ndarray:
    keep = np.ones(len(cohort.cells), dtype=bool)
    for name, value in where.items():
        keep &= (cohort.cells[name] == value).to_numpy()
    return cohort.adata.layers[COUNTS][np.flatnonzero(keep)].toarray()


def level(counts: np.ndarray, members: np.ndarray) -> float:
    """Mean log share of some genes over cells, less that of the background."""
    share = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    others = np.setdiff1d(np.arange(counts.shape[1]), members)
    return float(share[:, members].mean() - share[:, others].mean())


def test_the_genes_carry_the_signatures_of_the_plan():
    universe = ev.evidence_universe()
    panel = {one.name: one for one in load_panel()}
    assert universe.genes.is_unique
    for name in ev.SETS:
        measured = universe.genes[universe.members[name]]
        assert set(measured) <= set(panel[name].genes)
        assert len(measured) >= 0.62 * len(panel[name].genes)  # the plan refuses a score below .6
    growth = {gene for one in panel.values() if one.family == "proliferation" for gene in one.genes}
    for rows in universe.programmes.values():
        assert rows.size >= 20
        assert not growth & set(universe.genes[rows])


def test_one_seed_gives_one_cohort_and_another_seed_another():
    first, again, other = (ev.simulate_evidence(NULL, seed) for seed in (1, 1, 2))
    assert (first.adata.layers[COUNTS] != again.adata.layers[COUNTS]).nnz == 0
    pd.testing.assert_frame_equal(first.cells, again.cells)
    assert first.adata.shape != other.adata.shape or (first.adata.layers[COUNTS] != other.adata.layers[COUNTS]).nnz > 0


def test_the_cell_table_is_what_the_plan_reads():
    cohort = ev.simulate_evidence(replace(NULL, false_putative=3.0), 3)
    assert set(NEEDED_CELL_COLUMNS) <= set(cohort.cells)
    assert cohort.adata.obs_names.tolist() == cohort.cells["cell_id"].tolist()
    check_counts(cohort.adata.layers[COUNTS], "the cohort")
    sizes = cohort.cells.query("malignant_call == 'malignant'").groupby(["compartment", "patient_id"]).size()
    assert sizes["marrow"].min() >= 3
    assert (sizes["primary"] == 20).all()
    uncalled = cohort.cells.query("malignant_call != 'malignant'")
    assert len(uncalled) > 0
    assert (uncalled["compartment"] == "marrow").all()


def test_numbers_of_cells_follow_the_design():
    counts = [
        ev._n_dtcs(ev.EvidenceScenario("n", dtc_mean=12, dtc_floor=3), np.random.default_rng(i)) for i in range(800)
    ]
    assert min(counts) == 3
    assert np.mean(counts) == pytest.approx(12, abs=0.9)  # standard error .3; the floor adds .1
    assert ev._n_dtcs(ev.EvidenceScenario("n", dtc_floor=200), np.random.default_rng(0)) == 200


def test_depth_of_the_compartments():
    cohort = ev.simulate_evidence(replace(NULL, depth_ratio=0.3, dtc_floor=30), 4)
    totals = {side: np.median(dense(cohort, compartment=side).sum(axis=1)) for side in ("marrow", "primary")}
    assert totals["marrow"] / totals["primary"] == pytest.approx(0.3, rel=0.12)  # 120 and 80 cells, log-SD .35
    assert totals["primary"] == pytest.approx(4500, rel=0.12)


@pytest.mark.parametrize(
    ("change", "members", "low", "high"),
    [
        ({"effects": {"stemness": 3.0}}, "LIM_MAMMARY_STEM_CELL_UP", 0.1, 1.0),
        ({"effects": {"stemness": 3.0}}, "EPPERT_HSC_R", -0.15, 0.05),
        ({"contamination": 0.5}, "EPPERT_HSC_R", 0.3, 2.0),
        ({"miscalled": 0.5}, "EPPERT_HSC_R", 0.3, 2.0),
        ({"cycling_dtc": 1.0, "cycling_pt": 0.0}, "TIROSH_S_PHASE", 0.1, 1.5),
        ({"subset_share": 1.0, "subset_log2fc": 2.0}, "LIM_MAMMARY_STEM_CELL_UP", 0.1, 1.5),
    ],
)
def test_what_is_planted_is_there(change, members, low, high):
    plain = replace(NULL, slope_sd=0.0, dtc_floor=40, pt_cells=40, blood_cells=0)
    rows = ev.evidence_universe().members[members]
    moved = []
    for scenario in (plain, replace(plain, **change)):
        cohort = ev.simulate_evidence(scenario, 5)
        moved.append(
            level(dense(cohort, compartment="marrow"), rows) - level(dense(cohort, compartment="primary"), rows)
        )
    assert low < moved[1] - moved[0] < high


def test_slopes_are_the_truth_of_the_patients():
    drawn = ev.simulate_evidence(replace(NULL, n_patients=3, slope_sd=0.0), 6)
    assert (drawn.slopes.to_numpy() == 0).all()
    pd.testing.assert_frame_equal(ev.simulate_evidence(NULL, 8).slopes, ev.planted_slopes(NULL, 8))
    even = ev.simulate_evidence(replace(NULL, n_patients=9).large(patients=9, cells=5), 6)
    assert even.slopes["stemness"].mean() == pytest.approx(0.0, abs=1e-12)
    assert even.slopes["stemness"].std(ddof=0) == pytest.approx(0.4656, abs=0.001)  # nine quantiles of a normal, SD .5


def test_only_an_aliased_cohort_has_two_studies():
    for aliased in (False, True):
        cells = ev.simulate_evidence(replace(NULL, aliased=aliased), 7).cells
        assert cells["study"].nunique() == 1 + aliased
        assert cells.groupby("study")["compartment"].nunique().min() == (1 if aliased else 2)
