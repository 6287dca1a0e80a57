"""From evidence to a class, one hand-made cell per rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.call import CLASSES, call_cells
from dtcflow.contracts import MALIGNANT_CALLS

NONE = float("nan")


def cell(**changes) -> dict:
    return {
        "cell_type": "T_NK",
        "compartment": "marrow",
        "epithelial_z": 0.0,
        "n_epithelial_markers": 0,
        "is_doublet": False,
        "arbitration": "",
        "p_doublet": NONE,
        "cnv_status": "ok",
        "is_reference": False,
        "is_candidate": False,
        "left_reference": False,
        "cnv_burden_p": 0.5,
        "cnv_burden_q": 0.9,
        "clone_llr": -5.0,
        "clone_llr_p": 0.6,
        "clone_decoy_q": 0.001,
        "clone_fraction": 0.0,
        "clone_fraction_se": 0.15,
        "n_arms_altered": 0,
    } | changes


EPITHELIAL = {"cell_type": "epithelial", "epithelial_z": 9.0, "n_epithelial_markers": 7, "is_candidate": True}
CLONE = {"clone_llr": 20.0, "clone_llr_p": 1e-8, "clone_fraction": 1.0}
DOUBLET = {"arbitration": "doublet", "p_doublet": 0.99, "is_doublet": True}
NO_PROFILE = {
    "clone_llr": NONE,
    "clone_llr_p": NONE,
    "clone_decoy_q": NONE,
    "clone_fraction": NONE,
    "clone_fraction_se": NONE,
}


def classify(*cells: dict, background: int = 200, lineage: str = "epithelial") -> pd.DataFrame:
    """Classes of ``cells`` among ``background`` plain T cells."""
    rows = [*cells, *(cell() for _ in range(background))]
    frame = pd.DataFrame(rows)
    if all(np.isnan(c["clone_llr_p"]) for c in cells):
        for column, value in NO_PROFILE.items():
            frame[column] = value
    frame.insert(0, "cell_id", [f"s:{i}" for i in range(len(frame))])
    return call_cells(frame, fdr=0.05, tumour_lineage=lineage).head(len(cells))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (EPITHELIAL | CLONE, "malignant_confirmed"),
        # markers alone never make a tumour cell, and a flat genome never makes an epithelial cell normal
        (EPITHELIAL, "epithelial_cnv_neutral"),
        # no markers, no type, the tumour's genome
        ({"cell_type": "unknown"} | CLONE, "malignant_confirmed"),
        ({"cell_type": "unknown"} | CLONE | {"clone_fraction": 0.4}, "aneuploid_only"),
        # carcinoma cells that look like fibroblasts carry significantly more than half of the profile
        ({"cell_type": "fibroblast"} | CLONE, "malignant_confirmed"),
        ({"cell_type": "fibroblast"} | CLONE | {"clone_fraction": 0.6}, "aneuploid_only"),
        # a blood cell with the tumour's genome is not believed without epithelial markers
        ({"cell_type": "T_NK"} | CLONE, "aneuploid_only"),
        # half a profile and both lineages: two cells in one
        (EPITHELIAL | CLONE | {"cell_type": "T_NK", "clone_fraction": 0.5}, "possible_tumour_doublet"),
        (EPITHELIAL | CLONE | {"cell_type": "T_NK", "clone_fraction": 1.1}, "malignant_confirmed"),
        # the same, and expression says so: the droplet holds a tumour cell, from a sixth of the profile on
        (EPITHELIAL | CLONE | DOUBLET | {"cell_type": "T_NK", "clone_fraction": 0.5}, "malignant_doublet"),
        (EPITHELIAL | CLONE | DOUBLET | {"clone_fraction": 0.3}, "malignant_doublet"),
        # less than a quarter: no profile is likelier than half of it
        (EPITHELIAL | CLONE | DOUBLET | {"clone_fraction": 0.2}, "epithelial_cnv_neutral"),
        (EPITHELIAL | CLONE | DOUBLET | {"clone_fraction": 0.1}, "epithelial_cnv_neutral"),
        (EPITHELIAL | DOUBLET, "epithelial_cnv_neutral"),
        # so few epithelial transcripts may be the soup's
        (EPITHELIAL | CLONE | DOUBLET | {"clone_fraction": 0.2, "epithelial_z": 4.0}, "epithelial_cnv_neutral"),
        ({"cell_type": "T_NK"} | CLONE | DOUBLET, "possible_tumour_doublet"),
        # not sure enough: judged as one cell
        (EPITHELIAL | CLONE | DOUBLET | {"p_doublet": 0.9}, "malignant_confirmed"),
        # ambient-coated marrow cell
        (EPITHELIAL | {"cell_type": "monocyte", "epithelial_z": 3.5}, "normal"),
        # another genome, not the clone's: at least two arms in both halves of the genes
        ({"cell_type": "B", "cnv_burden_p": 1e-7, "n_arms_altered": 3}, "aneuploid_only"),
        ({"cell_type": "B", "cnv_burden_p": 1e-7, "n_arms_altered": 1}, "normal"),
        (EPITHELIAL | {"cell_type": "monocyte", "epithelial_z": 9.0}, "epithelial_cnv_neutral"),
        # a cell that left the reference and is not of the tumour's clone
        ({"cell_type": "plasma", "is_candidate": True, "left_reference": True}, "aneuploid_only"),
        ({"cell_type": "fibroblast", "is_candidate": True, "left_reference": True} | CLONE, "malignant_confirmed"),
        # a small reference cannot give a small p; most of the tumour's profile is reason enough not to say normal
        ({"cell_type": "T_NK", "clone_llr": 12.0, "clone_llr_p": 0.02, "clone_fraction": 0.9}, "aneuploid_only"),
        # a clone among blood cells is no carcinoma, however strong
        ({"cell_type": "monocyte", "is_candidate": True, "left_reference": True} | CLONE, "aneuploid_only"),
        # nothing measured
        (EPITHELIAL | {"cnv_status": "no_reference"} | NO_PROFILE, "unassessable"),
        (EPITHELIAL | {"cell_type": "T_NK", "cnv_status": "no_reference"} | NO_PROFILE, "unassessable"),
        ({"cell_type": "unknown", "cnv_status": "no_reference"} | NO_PROFILE, "unassessable"),
    ],
)
def test_class_of_one_cell(evidence: dict, expected: str) -> None:
    found = classify(cell(**evidence)).iloc[0]
    assert found["malignant_class"] == expected
    assert found["malignant_call"] == CLASSES[expected]
    assert found["is_dtc"] == (CLASSES[expected] == "malignant")
    assert found["call_reasons"].split(";")[0] == expected


def test_without_a_profile_burden_decides_for_epithelial_cells_only() -> None:
    strong = {"cnv_burden_p": 1e-7, "n_arms_altered": 4} | NO_PROFILE
    calls = classify(cell(**(EPITHELIAL | strong)), cell(cell_type="unknown", **strong))
    assert calls["malignant_class"].tolist() == ["malignant_confirmed", "aneuploid_only"]
    assert (calls["malignancy_q"] < 1e-4).all()


def test_coated_marrow_cells_do_not_profit_from_clear_candidates() -> None:
    """p = .02 is significant among 50 clear tumour cells, not among twenty coated marrow cells."""
    clear = [cell(**(EPITHELIAL | CLONE)) for _ in range(50)]
    weak = {"clone_llr": 1.0, "clone_llr_p": 0.02, "clone_fraction": 1.2}
    coated = [cell(**(EPITHELIAL | weak | {"cell_type": "dendritic"}))]
    coated += [cell(**(EPITHELIAL | {"cell_type": "monocyte"})) for _ in range(19)]
    calls = classify(*clear, *coated, cell(**(EPITHELIAL | weak)))
    assert (calls["malignant_call"].head(50) == "malignant").all()
    # its genome gives a hint all the same: undecided, not normal
    assert calls["malignant_class"].iloc[50] == "epithelial_cnv_neutral"
    assert calls["malignant_call"].iloc[-1] == "malignant"


def test_a_genome_that_speaks_against_the_clone_is_not_called_however_good_its_company() -> None:
    clear = [cell(**(EPITHELIAL | CLONE)) for _ in range(50)]
    against = cell(**(EPITHELIAL | {"clone_llr": -6.0, "clone_llr_p": 0.1, "clone_fraction": 0.2}))
    found = classify(*clear, against).iloc[-1]
    assert found["malignancy_q"] <= 0.05
    assert found["malignant_class"] == "epithelial_cnv_neutral"


@pytest.mark.parametrize(("p", "call"), [(0.04, "malignant"), (0.06, "indeterminate")])
def test_a_called_cell_speaks_for_itself_however_good_its_company(p: float, call: str) -> None:
    clear = [cell(**(EPITHELIAL | CLONE)) for _ in range(50)]
    weak = cell(**(EPITHELIAL | {"clone_llr": 1.0, "clone_llr_p": p, "clone_fraction": 0.9}))
    found = classify(*clear, weak).iloc[-1]
    assert found["malignancy_q"] <= 0.05
    assert found["malignant_call"] == call
    assert ("missed:clone_p<=0.05" in found["call_reasons"]) == (call != "malignant")


def test_any_lineage_ignores_markers() -> None:
    calls = classify(cell(cell_type="unknown", is_candidate=True, **CLONE), lineage="any")
    assert calls["malignant_class"].tolist() == ["malignant_confirmed"]


def test_only_marrow_cells_are_dtcs() -> None:
    calls = classify(cell(**(EPITHELIAL | CLONE | {"compartment": "primary"})))
    assert calls["malignant_call"].tolist() == ["malignant"]
    assert calls["is_dtc"].tolist() == [False]


def test_classes_cover_all_calls() -> None:
    assert set(CLASSES.values()) == set(MALIGNANT_CALLS)


def test_a_cell_that_decoys_explain_as_well_is_not_called() -> None:
    """Both nulls have to agree: held-out reference cells and decoys of the profile."""
    calls = classify(cell(**(EPITHELIAL | CLONE)), cell(**(EPITHELIAL | CLONE | {"clone_decoy_q": 0.3})))
    assert calls["malignant_call"].tolist() == ["malignant", "indeterminate"]
    assert calls["malignancy_q"][1] == 0.3
