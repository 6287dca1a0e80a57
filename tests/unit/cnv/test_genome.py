"""Arms of single cells, mosaics of a type, and the second question that is asked of a clone."""

from __future__ import annotations

import numpy as np
import pytest

from dtcflow.call import call_cells
from dtcflow.cnv.genome import Genome, chromosomes, events
from dtcflow.cnv.run import infer_copy_number

from .conftest import make_patient


def test_events_and_chromosomes() -> None:
    assert events(["1q", "16q", "2p"], np.array([1, -1, 0])) == "1q+,16q-"
    assert events(["1q"], np.array([0])) == ""
    assert chromosomes(["1p", "1q", "10q"]) == {"1", "10"}


def analysed(patient, settings, **changes):
    settings = settings | changes
    found = infer_copy_number(
        patient.adata, patient.cells, patient_id="P1", settings=settings, epithelial_z=3.0, seed=1
    )
    cells = patient.cells.merge(found.cells, on="cell_id", validate="one_to_one")
    genome = Genome.read(found.windows, min_abs_log_ratio=settings["min_abs_log_ratio"])
    return cells, genome, call_cells(cells, fdr=0.05, tumour_lineage=settings["tumour_lineage"], genome=genome)


def test_arms_of_a_tumour_cell_are_in_its_reasons(planted, inferred, settings) -> None:
    cells = planted.cells.merge(inferred.cells, on="cell_id", validate="one_to_one")
    genome = Genome.read(inferred.windows, min_abs_log_ratio=0.15)
    assert genome is not None
    calls = call_cells(cells, fdr=0.05, tumour_lineage="epithelial", genome=genome)
    profile = genome.clone_profile(cells["clone_membership"].to_numpy())
    assert set(profile.index[profile > 0]) == set(planted.gains)
    assert set(profile.index[profile < 0]) == set(planted.losses)
    tumour = calls[planted.tumour & (calls["malignant_call"] == "malignant").to_numpy()]
    planted_events = {*(f"{a}+" for a in planted.gains), *(f"{a}-" for a in planted.losses)}
    named = [set(filter(None, text.split(","))) for text in tumour["altered_arms"]]
    assert np.mean([len(own & planted_events) >= 2 for own in named]) >= 0.8
    assert np.mean([len(own - planted_events) for own in named]) <= 0.5
    assert tumour["call_reasons"].str.contains("passed:clone_q<=0.05,clone_p<=0.05,fraction>=0.33", regex=False).all()
    assert (calls.loc[~planted.tumour, "mosaic_arms"] == "").all()


@pytest.mark.parametrize("lineage", ["epithelial", "any"])
def test_a_clone_on_one_chromosome_is_refused(settings, lineage: str) -> None:
    """Neither learned as a tumour's profile nor accepted when it comes with every other sign of a clone."""
    patient = make_patient(gains=("3p", "3q"), losses=(), n_primary_tumour=60)
    cells, genome, calls = analysed(patient, settings, tumour_lineage=lineage)
    assert not (calls["malignant_call"] == "malignant").any()
    clone = {"clone_llr": 20.0, "clone_llr_p": 1e-8, "clone_decoy_q": 1e-3, "clone_fraction": 1.0}
    for column, value in (clone | {"clone_membership": 1.0, "clone_fraction_se": 0.1}).items():
        cells.loc[patient.tumour, column] = value
    calls = call_cells(cells, fdr=0.05, tumour_lineage=lineage, genome=genome)
    assert not (calls["malignant_call"] == "malignant").any()
    refused = calls.loc[patient.tumour, "call_reasons"]
    assert refused.str.contains("clone_refused:clone_on_one_chromosome(3p+,3q+)", regex=False).all()


def test_a_clone_without_epithelial_cells_is_no_carcinoma(settings) -> None:
    """Fibroblasts with some keratins and a genome of their own, altered on three chromosomes."""
    patient = make_patient(gains=("1q", "8q"), losses=("6q",))
    patient.cells.loc[patient.tumour, "cell_type"] = "fibroblast"
    _, _, calls = analysed(patient, settings)
    assert not (calls["malignant_call"] == "malignant").any()
    assert calls.loc[patient.tumour, "call_reasons"].str.contains("clone_without_epithelial_cells").mean() >= 0.8


def test_a_clone_on_many_chromosomes_needs_no_epithelial_cells(settings) -> None:
    """A carcinoma without markers, typed as fibroblasts: no benign mosaic has as many altered chromosomes."""
    patient = make_patient()
    assert len(chromosomes([*patient.gains, *patient.losses])) >= 4
    patient.cells.loc[patient.tumour, "cell_type"] = "fibroblast"
    _, _, calls = analysed(patient, settings)
    assert not calls["call_reasons"].str.contains("clone_without_epithelial_cells").any()
    called = (calls["malignant_call"] == "malignant").to_numpy()
    assert called[patient.tumour].mean() >= 0.5
    assert not called[~patient.tumour].any()


def test_nothing_to_read_without_copy_number(settings) -> None:
    patient = make_patient(n_normal=5)
    _, genome, calls = analysed(patient, settings)
    assert genome is None
    assert (calls["altered_arms"] == "").all()
