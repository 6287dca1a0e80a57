import dataclasses

import numpy as np
import pytest

from dtcflow import resources
from dtcflow.contracts import CELL_TYPES, EPITHELIAL, InputError, read_table
from dtcflow.io.sheet import read_samples
from dtcflow.simulate import design
from dtcflow.simulate.counts import parse_events

CONFIG = resources.folder().parents[1] / "config"


def test_presets_are_frozen_and_found_by_name():
    assert list(design.SCENARIOS) == ["progenitor", "null"]
    preset = design.get_scenario("null")
    assert preset.name == "null"
    assert design.get_scenario(preset) is preset
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset.n_genes = 5


def test_an_unknown_scenario_names_the_key_and_the_choices():
    with pytest.raises(InputError, match=r"simulate\.scenario: found 'nul'; allowed: progenitor \| null"):
        design.get_scenario("nul")


def test_states_and_mixtures_use_the_contracts_vocabulary():
    assert all(state.cell_type in CELL_TYPES for state in design.STATES.values())
    for mixture in design.MIXTURES.values():
        assert set(mixture) <= set(design.STATES)
        assert sum(mixture.values()) == pytest.approx(1.0)
    assert set(design.ABUNDANT) <= set(design.STATES)
    assert design.STATES[design.CARCINOMA].cell_type == EPITHELIAL


@pytest.mark.parametrize("seed", range(40))
def test_a_karyotype_has_a_trunk_and_two_different_subclones(seed):
    scenario = design.SCENARIOS["progenitor"]
    karyotype = design.draw_karyotype(scenario, np.random.default_rng(seed))
    trunk, a, b = (set(karyotype[clone].items()) for clone in ("trunk", "A", "B"))
    assert len(trunk) >= scenario.min_trunk_arms
    assert trunk < a
    assert trunk < b
    assert a & b == trunk
    assert 1 <= len(a - trunk) <= 3
    assert 1 <= len(b - trunk) <= 3
    assert 6 <= len(a | b) <= 10
    assert not {arm for arm, _ in a - trunk} & {arm for arm, _ in b - trunk}
    for arm, change in a | b:
        expected = design.ARM_WEIGHTS[arm][0]
        assert change in ((1, 2) if expected > 0 else (-1,))


def test_frequent_arms_are_drawn_more_often_than_rare_ones():
    drawn = [design.draw_karyotype(design.SCENARIOS["null"], np.random.default_rng(seed)) for seed in range(200)]
    count = {arm: sum(arm in k["A"] or arm in k["B"] for k in drawn) for arm in ("1q", "16q", "14q", "5p")}
    # weights .55 and .50 against .14 and .12: a factor of four, far beyond the binomial SD of about 7 in 200
    assert min(count["1q"], count["16q"]) > 1.5 * max(count["14q"], count["5p"])


def test_events_are_written_and_read_back():
    changes = {"16q": -1, "8q": 2, "1q": 1}
    text = design.join_events(changes)
    assert text == "+1q;++8q;-16q"
    assert parse_events(text) == changes
    assert design.join_events({}) == ""
    assert parse_events("") == {}


def test_the_cohort_is_listed_with_its_batches_across_compartments():
    plans = design.plan_cohort(3, 10, 4)
    assert [plan.sample_id for plan in plans] == [
        *("P01_marrow", "P01_primary", "P02_marrow", "P02_primary", "P03_marrow", "P03_primary"),
    ]
    assert [plan.batch for plan in plans] == ["batch1", "batch1", "batch2", "batch2", "batch1", "batch1"]
    assert [plan.n_cells for plan in plans] == [10, 4] * 3
    assert design.plan_cohort(0, 10, 4) == []
    with pytest.raises(ValueError, match="negative"):
        design.plan_cohort(1, -1, 4)


def test_numbers_of_disseminated_cells():
    scenario = design.SCENARIOS["progenitor"]
    numbers = [design.n_dtc(scenario, patient, 1_200) for patient in range(8)]
    assert numbers == [22, 36, 14, 30, 12, 24, 18, 0]
    assert [design.n_dtc(scenario, 0, cells) for cells in (0, 1, 5, 20, 100)] == [0, 0, 2, 8, 8]
    assert design.n_dtc(scenario, 7, 100_000) == 0
    assert design.n_dtc(scenario, 8, 1_200) == numbers[0]


def test_the_null_has_every_artefact_and_no_programme_difference():
    null = design.SCENARIOS["null"]
    assert null.programme_dtc == (null.programme_primary,) * 2
    assert null.quiescence_log2fc == 0
    assert null.library_dtc / null.library_carcinoma == pytest.approx(0.4)
    assert null.ambient_dtc == pytest.approx(0.20)
    assert null.cycling_primary > 5 * null.cycling_dtc


def test_the_shipped_sheet_is_the_one_the_code_writes():
    shipped = read_table(CONFIG / "samples.tsv")
    made = design.sample_sheet()
    assert list(shipped.columns) == list(made.columns)
    for column in made.columns:
        # a number of the table may come back as a float: compare what was written
        text = (CONFIG / "samples.tsv").read_text().splitlines()
        position = text[0].split("\t").index(column)
        assert [line.split("\t")[position] for line in text[1:]] == list(made[column])


def test_the_shipped_sheet_meets_the_schema():
    sheet = read_samples(CONFIG / "samples.tsv")
    assert len(sheet) == 20
    assert set(sheet["compartment"]) == {"marrow", "primary"}
    assert sheet["patient_id"].nunique() == 10
    assert sheet.loc["P03_marrow", "path"] == "results/simulated/matrices/P03_marrow.h5ad"
    per_batch = sheet.groupby("batch")["compartment"].value_counts().unstack()
    assert (per_batch == 5).all(axis=None)
