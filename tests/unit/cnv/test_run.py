from __future__ import annotations

import numpy as np
import pytest

from dtcflow.call import call_cohort
from dtcflow.cnv.clones import newick
from dtcflow.cnv.run import infer_copy_number
from dtcflow.contracts import TABLES, check_stage

from .conftest import make_patient


def run(patient, settings, **changes):
    return infer_copy_number(
        patient.adata, patient.cells, patient_id="P1", settings=settings | changes, epithelial_z=3.0, seed=1
    )


def called(patient, result, settings):
    cells = patient.cells.merge(result.cells, on="cell_id", validate="one_to_one")
    return call_cohort({"P1": (cells, result.windows, result.status)}, settings=settings)


def test_finds_the_planted_cells_and_their_arms(planted, inferred, settings) -> None:
    assert inferred.status["status"] == "ok"
    assert inferred.status["clone_status"] == "ok"
    check_stage(inferred.windows, "cnv", "test")
    calls = called(planted, inferred, settings)
    malignant = (calls.cells["malignant_call"] == "malignant").to_numpy()
    assert malignant[planted.tumour].mean() >= 0.95
    assert not malignant[~planted.tumour].any()
    assert calls.cells.loc[calls.cells["is_dtc"], "cell_id"].str.startswith("P1_marrow").all()
    arms = calls.arms[calls.arms["sample_id"] == "P1_primary"].set_index("arm")["state"]
    assert set(arms.index[arms == "gain"]) == set(planted.gains)
    assert set(arms.index[arms == "loss"]) == set(planted.losses)
    assert list(calls.arms.columns) == list(TABLES["arms"])
    reasons = calls.cells.loc[calls.cells["is_dtc"], "call_reasons"].iloc[0]
    for part in ("malignant_confirmed", "epithelial_z=8.0(6_markers)", "clone_p=", "q="):
        assert part in reasons


def test_epithelial_cells_without_events_are_undecided_never_normal(settings) -> None:
    patient = make_patient(gains=(), losses=())
    result = run(patient, settings)
    assert result.status["clone_status"] in {"no_profile", "weak_profile"}
    calls = called(patient, result, settings).cells
    epithelial = calls[patient.tumour]
    assert not (calls["malignant_call"] == "malignant").any()
    assert (epithelial["malignant_call"] == "indeterminate").all()
    assert set(epithelial["malignant_class"]) <= {"epithelial_cnv_neutral", "aneuploid_only"}
    assert result.status["smallest_detectable"]["arms_at_10_cells"] >= 2


def test_a_left_out_normal_type_is_not_a_tumour(settings) -> None:
    """Cells of a type that the reference does not hold, taken for candidates: no genome may be learned from them."""
    patient = make_patient(gains=(), losses=(), n_primary_tumour=0, n_marrow_tumour=60, seed=5)
    calls = called(patient, run(patient, settings), settings).cells
    assert not (calls["malignant_call"] == "malignant").any()


def test_a_clone_among_blood_cells_is_not_a_carcinoma(settings) -> None:
    """Half of the monocytes carry a clone's genome and nothing epithelial is there: benign or haematological."""
    patient = make_patient(n_normal=90, n_marrow_tumour=60, n_primary_tumour=0, seed=2)
    patient.cells["cell_type"] = patient.cells["cell_type"].replace("epithelial", "monocyte")
    patient.cells["epithelial_z"] = 0.0
    patient.cells["n_epithelial_markers"] = 0
    calls = called(patient, run(patient, settings), settings).cells
    assert not (calls["malignant_call"] == "malignant").any()


@pytest.mark.parametrize(("few", "found"), [(False, True), (True, False)])
def test_a_tumour_without_markers_is_found_if_it_has_many_altered_chromosomes(settings, few: bool, found: bool) -> None:
    events = {"gains": ("1q", "3q"), "losses": ("6q",)} if few else {}
    patient = make_patient(n_primary_tumour=0, n_marrow_tumour=20, **events)
    patient.cells.loc[patient.tumour, ["epithelial_z", "n_epithelial_markers"]] = 0
    patient.cells["cell_type"] = patient.cells["cell_type"].replace("epithelial", "unknown")
    result = run(patient, settings)
    calls = called(patient, result, settings).cells
    malignant = (calls["malignant_call"] == "malignant").to_numpy()
    assert (result.status["learned_among"] == "every_lineage") == found
    assert malignant[patient.tumour].mean() >= 0.9 if found else not malignant.any()
    assert not malignant[~patient.tumour].any()


@pytest.mark.parametrize("kinds", [("T_NK",), ("T_NK", "B")])
def test_few_reference_types_do_not_turn_an_unseen_type_into_a_tumour(settings, kinds: tuple[str, ...]) -> None:
    for seed in range(4):
        patient = make_patient(n_normal=120, gains=(), losses=(), seed=seed)
        keep = np.flatnonzero(patient.cells["cell_type"].isin([*kinds, "epithelial"]))
        patient.adata, patient.cells = patient.adata[keep].copy(), patient.cells.iloc[keep].reset_index(drop=True)
        calls = called(patient, run(patient, settings), settings).cells
        assert (calls["malignant_call"] == "malignant").sum() <= 1


def test_no_reference_means_not_assessable(settings) -> None:
    patient = make_patient(n_normal=5)
    result = run(patient, settings)
    assert result.status["status"] == "no_reference"
    assert result.cells["cnv_burden_q"].isna().all()
    calls = called(patient, result, settings)
    assert set(calls.cells.loc[patient.tumour, "malignant_class"]) == {"unassessable"}
    assert calls.cells.loc[patient.tumour, "call_reasons"].str.contains("cnv_not_assessable:no_reference").all()
    assert calls.clones["status"].tolist() == ["not_assessable:no_reference"]
    assert calls.tree == "diploid;\n"


def test_too_few_genes_means_not_assessable(settings) -> None:
    patient = make_patient()
    result = run(patient, settings, min_genes=5000)
    assert result.status["status"] == "too_few_genes"
    assert "5000 are needed" in result.status["reason"]


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_small_patients_end_complete(settings, n: int) -> None:
    patient = make_patient()
    patient.adata = patient.adata[:n].copy()
    patient.cells = patient.cells.iloc[:n].reset_index(drop=True)
    result = run(patient, settings)
    assert len(result.cells) == n
    calls = called(patient, result, settings)
    assert len(calls.cells) == n
    assert len(calls.clones) == 1


def test_order_of_cells_and_genes_does_not_matter(planted, inferred, settings) -> None:
    rng = np.random.default_rng(0)
    order, genes = rng.permutation(planted.adata.n_obs), rng.permutation(planted.adata.n_vars)
    shuffled = make_patient()
    shuffled.adata = planted.adata[order][:, genes].copy()
    shuffled.cells = planted.cells.iloc[order].reset_index(drop=True)
    found = run(shuffled, settings)
    other = found.cells.set_index("cell_id").loc[inferred.cells["cell_id"]]
    # a cell on its own: the same bits
    for column in ("cnv_burden", "cnv_burden_p", "cnv_score_infercnvpy"):
        np.testing.assert_array_equal(other[column].to_numpy(), inferred.cells[column].to_numpy())
    for key in ("arm_u", "arm_info", "arm_u_half0", "X_cnv"):
        np.testing.assert_array_equal(found.windows.obsm[key][np.argsort(order)], inferred.windows.obsm[key])
    # profiles are sums over cells, which round differently in another order
    for column in ("clone_llr", "clone_llr_p"):
        np.testing.assert_allclose(other[column].to_numpy(), inferred.cells[column].to_numpy(), rtol=1e-6, atol=1e-9)


def test_burden_does_not_change_when_query_cells_are_added(planted, inferred, settings) -> None:
    keep = np.flatnonzero(~planted.tumour | (np.arange(planted.adata.n_obs) % 2 == 0))
    fewer = make_patient()
    fewer.adata = planted.adata[keep].copy()
    fewer.cells = planted.cells.iloc[keep].reset_index(drop=True)
    part = run(fewer, settings).cells
    whole = inferred.cells.iloc[keep]
    np.testing.assert_array_equal(part["cnv_burden"].to_numpy(), whole["cnv_burden"].to_numpy())
    np.testing.assert_array_equal(part["cnv_burden_p"].to_numpy(), whole["cnv_burden_p"].to_numpy())


def test_held_out_reference_cells_have_uniform_p_values() -> None:
    patient = make_patient(n_normal=250, n_marrow_tumour=0, n_primary_tumour=0, seed=3)
    from .conftest import SETTINGS

    cells = run(patient, SETTINGS).cells
    assert cells["is_reference"].all()
    p = cells["cnv_burden_p"].to_numpy()
    for level in (0.5, 0.1, 0.02):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / len(p)) + 1 / len(p)


def test_any_lineage_needs_no_markers(settings) -> None:
    patient = make_patient()
    patient.cells["epithelial_z"] = 0.0
    patient.cells["n_epithelial_markers"] = 0
    patient.cells.loc[patient.tumour, "cell_type"] = "unknown"
    loose = settings | {"tumour_lineage": "any"}
    calls = called(patient, run(patient, loose), loose).cells
    malignant = (calls["malignant_call"] == "malignant").to_numpy()
    assert malignant[patient.tumour].mean() >= 0.9
    assert malignant[~patient.tumour].sum() <= 2


def test_newick_shares_a_trunk() -> None:
    tree = newick(
        {
            "P1": {"P1_c1": frozenset({"1q+", "8q+"}), "P1_c2": frozenset({"1q+", "16q-"})},
            "P2": {"P2_c1": frozenset({"1q+"})},
        }
    )
    assert tree == "(('P1_c1':1,'P1_c2':1)'P1_trunk':1,'P2_c1':1)diploid;\n"
    assert newick({"P1": {}}) == "diploid;\n"
