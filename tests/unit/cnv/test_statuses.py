"""Every sample ends with a complete table and a status; nothing crashes and nothing is called for want of data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.call import call_cells, call_cohort
from dtcflow.classify import CLASSES
from dtcflow.cnv.genome import Genome
from dtcflow.cnv.run import infer_copy_number
from dtcflow.cnv.statuses import check_settings, shallow_reason
from dtcflow.contracts import InputError, check_stage

from .conftest import make_patient


def run(patient, settings, **changes):
    """Status and joined calls; checks on the way what holds for every sample."""
    settings = settings | changes
    found = infer_copy_number(
        patient.adata, patient.cells, patient_id="P1", settings=settings, epithelial_z=3.0, seed=1
    )
    check_stage(found.windows, "cnv", "test")
    cells = patient.cells.merge(found.cells, on="cell_id", validate="one_to_one")
    genome = Genome.read(found.windows, min_abs_log_ratio=settings["min_abs_log_ratio"])
    calls = call_cells(cells, fdr=settings["fdr"], tumour_lineage=settings["tumour_lineage"], genome=genome)
    assert calls["cell_id"].tolist() == patient.cells["cell_id"].tolist()
    assert set(calls["malignant_class"]) <= set(CLASSES)
    cohort = call_cohort({"P1": (cells, found.windows, found.status)}, settings=settings)
    assert len(cohort.clones) >= 1
    if found.status["status"] != "ok":
        assert found.status["reason"]
        assert calls[["cnv_burden_q", "clone_llr", "malignancy_q"]].isna().all().all()
        assert not (calls["malignant_call"] == "malignant").any()
        assert cohort.clones["status"].tolist() == [f"not_assessable:{found.status['status']}"]
    return found.status, calls


def keep(patient, rows):
    patient.adata = patient.adata[rows].copy()
    patient.cells = patient.cells.iloc[rows].reset_index(drop=True)
    patient.tumour = patient.tumour[rows]
    return patient


def with_counts(patient, counts):
    patient.adata.layers["counts"] = sp.csr_matrix(counts)
    return patient


def test_no_reference(settings) -> None:
    patient = make_patient()
    status, calls = run(keep(patient, np.flatnonzero(patient.tumour)), settings)
    assert status["status"] == "no_reference"
    assert set(calls["malignant_class"]) == {"unassessable"}


def test_small_reference(settings) -> None:
    status, calls = run(make_patient(n_normal=25), settings, min_reference_cells=100)
    assert status["status"] == "small_reference"
    assert "75 reference cells, 100 are needed" in status["reason"]
    assert calls["call_reasons"].str.contains("cnv_not_assessable:small_reference").all()


def test_panel_of_few_genes(settings) -> None:
    patient = make_patient()
    patient.adata = patient.adata[:, ::4].copy()
    assert run(patient, settings)[0]["status"] == "too_few_genes"


def test_one_gene_per_arm(settings) -> None:
    patient = make_patient()
    patient.adata = patient.adata[:, ::60].copy()
    assert run(patient, settings, min_genes=1)[0]["status"] == "too_few_genes"


def test_too_shallow(settings) -> None:
    """At 15 counts a cell no number of altered arms could be seen; at 3,000 the same patient is assessed."""
    status, calls = run(make_patient(depth=15, n_primary_tumour=10), settings, min_genes=50)
    assert status["status"] == "too_shallow"
    assert "would need" in status["reason"]
    assert set(calls.loc[calls["call_reasons"].str.contains("lineage:epithelial"), "malignant_class"]) == {
        "unassessable"
    }
    assert run(make_patient(), settings)[0]["status"] == "ok"


def test_nothing_found_says_what_would_have_been_seen(settings) -> None:
    status, calls = run(make_patient(gains=(), losses=()), settings)
    assert status["status"] == "ok"
    assert status["clone_status"] in {"no_profile", "weak_profile"}
    needed = [status["smallest_detectable"][f"arms_at_{n}_cells"] for n in (5, 10, 20, 50)]
    assert needed == sorted(needed, reverse=True)
    assert 2 <= needed[-1] <= status["n_arms"]
    assert not (calls["malignant_call"] == "malignant").any()


@pytest.mark.parametrize("kind", ["tumour", "normal"])
def test_single_cell(settings, kind: str) -> None:
    patient = make_patient()
    status, calls = run(keep(patient, np.flatnonzero(patient.tumour == (kind == "tumour"))[:1]), settings)
    assert status["status"] == "no_reference"
    assert calls["malignant_call"].tolist() == ["indeterminate" if kind == "tumour" else "normal"]


def test_all_cells_are_candidates(settings) -> None:
    patient = make_patient()
    patient.cells["cell_type"] = "epithelial"
    assert run(patient, settings)[0]["status"] == "no_reference"


def test_no_candidate_at_all(settings) -> None:
    patient = make_patient()
    status, calls = run(keep(patient, np.flatnonzero(~patient.tumour)), settings)
    assert (status["status"], status["clone_status"], status["n_candidates"]) == ("ok", "no_candidates", 0)
    assert set(calls["malignant_call"]) <= {"normal", "indeterminate"}


def test_one_reference_type(settings) -> None:
    patient = make_patient(n_normal=120)
    rows = np.flatnonzero((patient.cells["cell_type"] == "B") | patient.tumour)
    status, calls = run(keep(patient, rows), settings)
    assert status["status"] == "ok"
    assert list(status["reference"]) == ["B"]
    assert not (calls.loc[~patient.tumour, "malignant_call"] == "malignant").any()


@pytest.mark.parametrize("lineage", ["epithelial", "any"])
def test_duplicated_cells(settings, lineage: str) -> None:
    """Every cell twice under two names: the copies agree, and normal ones do not become a clone."""
    patient = make_patient(n_normal=60)
    twice = np.repeat(np.arange(patient.adata.n_obs), 2)
    keep(patient, twice)
    ids = [f"{name}_{i % 2}" for i, name in enumerate(patient.cells["cell_id"])]
    patient.cells["cell_id"] = ids
    patient.adata.obs_names = ids
    status, calls = run(patient, settings, tumour_lineage=lineage)
    assert status["status"] == "ok"
    malignant = (calls["malignant_call"] == "malignant").to_numpy()
    assert not malignant[~patient.tumour].any()
    assert malignant[patient.tumour].mean() >= 0.9


def test_cells_without_counts(settings) -> None:
    """Ten normal and ten epithelial cells lost all their counts: they decide nothing and are not called."""
    patient = make_patient()
    empty = np.concatenate([np.flatnonzero(~patient.tumour)[:10], np.flatnonzero(patient.tumour)[:10]])
    counts = patient.adata.layers["counts"].toarray()
    counts[empty] = 0
    status, calls = run(with_counts(patient, counts), settings)
    assert status["status"] == "ok"
    assert not (calls["malignant_call"].iloc[empty] == "malignant").any()
    assert (calls["malignant_call"] == "malignant").sum() >= 35
    assert run(with_counts(patient, np.zeros_like(counts)), settings)[0]["status"] == "too_few_genes"


def test_full_length_pseudo_counts(settings) -> None:
    """Counts that are no whole numbers (full-length protocols): assessed all the same."""
    patient = make_patient()
    rng = np.random.default_rng(0)
    counts = patient.adata.layers["counts"].toarray() * rng.uniform(0.8, 1.2, patient.adata.shape)
    status, calls = run(with_counts(patient, counts), settings)
    assert status["status"] == "ok"
    malignant = (calls["malignant_call"] == "malignant").to_numpy()
    assert malignant[patient.tumour].mean() >= 0.9
    assert not malignant[~patient.tumour].any()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("fdr", float("nan")), ("fdr", 0.0), ("fdr", 1.5), ("min_abs_log_ratio", float("nan")), ("folds", 1)),
        *(("min_genes", None), ("step", "10"), ("window_size", float("inf")), ("tumour_lineage", "carcinoma")),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, planted, key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"copy_number\.{key}"):
        check_settings(settings | {key: value})
    with pytest.raises(InputError, match=rf"copy_number\.{key}"):
        run(planted, settings, **{key: value})


def test_all_bad_settings_at_once(settings) -> None:
    with pytest.raises(InputError) as raised:
        check_settings(settings | {"fdr": -1, "folds": 0})
    assert len(raised.value.problems) == 2


def test_shallow_by_hand() -> None:
    assert shallow_reason(20, 20, n_cells=50) == ""
    assert shallow_reason(21, 20, n_cells=50).startswith("a clone of 50 cells would need 21")
    assert "20 can be assessed" in shallow_reason(float("inf"), 20, n_cells=50)
