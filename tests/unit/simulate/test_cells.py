import dataclasses

import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import CELL_TYPES
from dtcflow.simulate import cells, design, expression
from dtcflow.simulate.counts import parse_events

SCENARIO = design.SCENARIOS["progenitor"]


def draw(n_cells, compartment="marrow", patient=0, scenario=SCENARIO, seed=11):
    plan = design.SamplePlan(
        f"P{patient + 1:02d}_{compartment}", patient, f"P{patient + 1:02d}", compartment, "batch1", n_cells
    )
    return cells.draw_cells(plan, expression.draw_patient(scenario, seed, patient, 0), scenario, seed)


def test_apportioning_by_largest_remainders():
    assert cells._apportion(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4
    assert cells._apportion(np.array([1.0, 1.0]), 0).tolist() == [0, 0]
    assert cells._apportion(np.array([1.0, 1.0, 1.0]), 1).tolist() == [1, 0, 0]


@pytest.mark.parametrize("compartment", ["marrow", "primary"])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 100])
def test_every_size(compartment, n):
    drawn = draw(n, compartment)
    truth = drawn.truth
    assert len(truth) == len(drawn.barcodes) == n
    assert list(truth.columns) == list(cells.TRUTH_COLUMNS)
    assert truth["cell_id"].is_unique
    assert sorted(drawn.components["barcode"].unique()) == list(range(n))
    assert set(truth["true_type"]) <= set(CELL_TYPES)
    if compartment == "marrow":
        single = truth["is_dtc"] & ~truth["is_doublet"]
        assert single.sum() == design.n_dtc(SCENARIO, 0, n)


def test_barcodes_look_like_those_of_an_export():
    barcodes = pd.Series(draw(300).barcodes)
    assert barcodes.str.fullmatch("[ACGT]{16}-1").all()
    assert barcodes.is_monotonic_increasing
    assert barcodes.is_unique


def test_the_same_arguments_give_the_same_cells_and_another_seed_does_not():
    first, again, other = draw(60), draw(60), draw(60, seed=12)
    pd.testing.assert_frame_equal(first.truth, again.truth)
    assert not first.truth["cell_id"].equals(other.truth["cell_id"])


def test_marrow_proportions():
    truth = draw(6_000, patient=7).truth
    share = truth.loc[~truth["is_doublet"], "true_type"].value_counts(normalize=True)
    # Dirichlet with concentration 120: SD .044 for .35, .022 for .06; four SD
    assert share["T_NK"] == pytest.approx(0.35, abs=0.18)
    assert share["monocyte"] == pytest.approx(0.25, abs=0.16)
    assert share["erythroid"] == pytest.approx(0.15, abs=0.13)
    assert 0.005 < share["HSPC"] < 0.15
    assert share.idxmax() in ("T_NK", "monocyte")


def test_the_patient_without_disseminated_cells_has_none():
    truth = draw(1_200, patient=7).truth
    assert not truth["is_tumour"].any()
    assert (truth["altered_arms"] == "").all()
    assert (truth["clone"] == "").all()


def test_seven_patients_keep_enough_disseminated_cells_to_be_assessed():
    for name in ("progenitor", "null"):
        for patient in range(7):
            truth = draw(1_200, patient=patient, scenario=design.SCENARIOS[name]).truth
            assert (truth["is_dtc"] & ~truth["is_doublet"] & ~truth["is_dying"]).sum() >= 8


def test_disseminated_cells_carry_one_clone_and_some_lack_an_event():
    scenario = dataclasses.replace(SCENARIO, dtc_fractions=(0.4,))
    truth = draw(1_000, scenario=scenario).truth
    patient = expression.draw_patient(scenario, 11, 0, 0)
    tumour = truth[truth["is_tumour"]]
    full = patient.karyotype[patient.dtc_clone]
    assert set(tumour["clone"]) == {patient.dtc_clone}
    lacking = [len(full) - len(parse_events(events)) for events in tumour["altered_arms"]]
    assert set(lacking) == {0, 1}
    # 15 % of about 400: SD 1.8 %
    assert np.mean(lacking) == pytest.approx(scenario.missing_event_rate, abs=0.06)
    assert all(full[arm] == change for events in tumour["altered_arms"] for arm, change in parse_events(events).items())


def test_the_primary_has_all_clones_and_some_flat_epithelium():
    truth = draw(1_000, "primary").truth
    tumour = truth["is_tumour"]
    assert tumour.mean() == pytest.approx(0.60, abs=0.18)
    assert set(truth.loc[tumour, "clone"]) == {"trunk", "A", "B"}
    flat = truth["true_type"].eq("epithelial") & ~tumour
    assert flat.sum() > 0
    assert (truth.loc[~tumour, "altered_arms"] == "").all()
    assert (truth.loc[tumour, "altered_arms"] != "").all()
    assert not truth["is_dtc"].any()


def test_doublets_are_flagged_and_put_a_tumour_cell_first():
    truth = draw(2_000, "primary").truth
    doublet = truth["is_doublet"]
    assert doublet.sum() == round(SCENARIO.doublet_rate * 2_000)
    assert (truth.loc[doublet, "second_type"] != "").all()
    assert (truth.loc[~doublet, "second_type"] == "").all()
    assert (truth.loc[~doublet, "doublet_kind"] == "").all()
    assert set(truth.loc[doublet, "doublet_kind"]) == {"heterotypic", "homotypic"}
    mixed = truth[doublet & truth["is_tumour"] & truth["doublet_kind"].eq("heterotypic")]
    assert (mixed["true_type"] == "epithelial").all()
    assert not (truth["is_dying"] & doublet).any()
    assert truth.loc[doublet, "library_size"].median() > 1.3 * truth.loc[~doublet, "library_size"].median()


def test_rates_of_programme_cycling_and_dying():
    scenario = dataclasses.replace(SCENARIO, dtc_fractions=(0.4,))
    marrow = draw(3_000, scenario=scenario).truth
    dtc = marrow[marrow["is_dtc"] & ~marrow["is_doublet"]]
    patient = expression.draw_patient(scenario, 11, 0, 0)
    # 1,200 cells: SD .014 and .006
    assert dtc["programme"].mean() == pytest.approx(patient.programme_dtc, abs=0.06)
    assert dtc["cycling"].mean() == pytest.approx(scenario.cycling_dtc, abs=0.025)
    assert not marrow.loc[~marrow["is_tumour"], "programme"].any()
    assert marrow["is_dying"].mean() == pytest.approx(scenario.dying_rate, abs=0.015)
    primary = draw(3_000, "primary").truth
    tumour = primary[primary["is_tumour"] & ~primary["is_doublet"]]
    assert tumour["programme"].mean() == pytest.approx(scenario.programme_primary, abs=0.02)
    assert tumour["cycling"].mean() == pytest.approx(scenario.cycling_primary, abs=0.04)


def test_ambient_fraction_and_depth_of_the_null():
    scenario = dataclasses.replace(design.SCENARIOS["null"], dtc_fractions=(0.4,))
    truth = draw(3_000, scenario=scenario).truth
    healthy = truth[~truth["is_doublet"] & ~truth["is_dying"]]
    by_tumour = healthy.groupby("is_tumour")
    ambient = by_tumour["ambient_fraction"].mean()
    assert ambient[True] == pytest.approx(0.20, abs=0.01)
    assert ambient[False] == pytest.approx(0.04, abs=0.01)
    # 1,150 cells, log SD .45: the median has a relative SD of .017
    assert by_tumour["library_size"].median()[True] == pytest.approx(2_400, rel=0.08)
