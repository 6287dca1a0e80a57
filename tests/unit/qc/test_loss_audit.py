from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtcflow import contracts
from dtcflow.qc.loss_audit import audit_losses, epithelial_evidence, loss_totals


def cell(name: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(contracts.TABLES["qc_cells"], np.nan)
    row.update(
        cell_id=f"S1:{name}",
        sample_id="S1",
        patient_id="P1",
        compartment="marrow",
        pass_qc=True,
        qc_reasons="",
        n_counts=1000.0,
        n_genes=500,
        doublet_score=0.02,
        is_doublet=False,
        epithelial_z=0.1,
        n_epithelial_markers=0,
        lineage="haematopoietic",
        qc_class="good",
        lineage_z=6.0,
    )
    return {**row, **values}


def call(name: str, malignant_call: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "cell_id": f"S1:{name}",
        "cnv_burden_q": 0.9,
        "clone_llr": 0.0,
        "malignancy_q": 0.9,
        "malignant_call": malignant_call,
        "malignant_class": "normal",
        "clone_id": "",
        "call_reasons": "",
        "is_dtc": False,
    }
    return {**row, **values}


EPITHELIAL = {"epithelial_z": 5.0, "n_epithelial_markers": 4}
CELLS = [
    cell("blood"),
    cell("removed_blood", pass_qc=False, qc_reasons="high_mt(60.00>20.00)"),
    cell("removed_epi", pass_qc=False, qc_reasons="low_counts(90<200);note:low_complexity(0.5<0.6)", **EPITHELIAL),
    cell("found", **EPITHELIAL),
    cell("found_doublet", is_doublet=True, **EPITHELIAL),
    cell("doublet", is_doublet=True, doublet_score=0.456, **EPITHELIAL),
    cell("open", **EPITHELIAL),
    cell("open_doublet", is_doublet=True, doublet_score=0.3, **EPITHELIAL),
    cell("open_cnv"),
    cell("open_nothing"),
    cell("normal_epi", **EPITHELIAL),
    cell("one_marker", pass_qc=False, qc_reasons="low_counts(90<200)", epithelial_z=9.0, n_epithelial_markers=1),
    cell("low_z", pass_qc=False, qc_reasons="low_counts(90<200)", epithelial_z=2.9, n_epithelial_markers=5),
    cell("no_z", pass_qc=False, qc_reasons="low_counts(90<200)", epithelial_z=np.nan, n_epithelial_markers=2),
    cell("no_call", **EPITHELIAL),
    cell("removed_nameless", pass_qc=False, qc_reasons="low_counts(90<200)", lineage="unknown", lineage_z=np.nan),
    cell("removed_doubtful", pass_qc=False, qc_reasons="low_counts(90<200)", lineage_z=2.9),
    cell("not_a_cell", pass_qc=False, qc_reasons="empty_droplet(q=0.31)", n_epithelial_markers=1, n_counts=140.0),
]
CALLS = [
    call("blood", "normal"),
    call("found", "malignant", malignancy_q=0.001),
    call("found_doublet", "malignant", malignancy_q=0.001),
    call("doublet", "normal"),
    call("open", "indeterminate", call_reasons="epithelial;copy_number_not_assessable"),
    call("open_doublet", "indeterminate", malignancy_q=0.04),
    call("open_cnv", "indeterminate", cnv_burden_q=0.05, call_reasons="one_arm"),
    call("open_nothing", "indeterminate"),
    call("normal_epi", "normal"),
]


def audit(cells: list[dict[str, Any]] = CELLS, calls: list[dict[str, Any]] = CALLS, **options: Any) -> pd.DataFrame:
    columns = list(contracts.TABLES["calls"])
    return audit_losses(pd.DataFrame(cells), pd.DataFrame(calls, columns=columns), **{"epithelial_z": 3.0, **options})


def test_who_is_listed_and_why() -> None:
    found = audit()
    assert tuple(found.columns) == contracts.TABLES["loss_audit"]
    listed = found.set_index(found["cell_id"].str.removeprefix("S1:"))
    strong = ["doublet", "no_z", "removed_epi", "no_call", "open", "open_cnv", "open_doublet"]
    weak = ["not_a_cell", "low_z", "one_marker"]
    neither = ["removed_doubtful", "removed_nameless", "open_nothing"]
    assert list(listed.index) == [*strong, *weak, *neither]
    assert listed["evidence_level"].tolist() == ["strong"] * 7 + ["weak"] * 3 + ["not_assessable"] * 3
    assert listed["stage"].tolist() == ["qc"] * 3 + ["call"] * 4 + ["cell_calling", "qc", "qc"] + ["qc", "qc", "call"]
    assert listed["status"].to_dict() == {
        **dict.fromkeys(listed.index, "removed"),
        "doublet": "flagged",
        **dict.fromkeys(["no_call", "open", "open_cnv", "open_doublet", "open_nothing"], "indeterminate"),
    }
    assert listed["reason"].to_dict() == {
        "doublet": "flagged as doublet (score 0.456)",
        "no_z": "low_counts(90<200)",
        "removed_epi": "low_counts(90<200);note:low_complexity(0.5<0.6)",
        "no_call": "no entry in the calls table",
        "open": "epithelial;copy_number_not_assessable",
        "open_cnv": "one_arm",
        "open_doublet": "left indeterminate;flagged as doublet (score 0.3)",
        "not_a_cell": "empty_droplet(q=0.31)",
        **dict.fromkeys(["low_z", "one_marker", "removed_doubtful", "removed_nameless"], "low_counts(90<200)"),
        "open_nothing": "left indeterminate",
    }
    assert listed["evidence"].to_dict() == {
        "doublet": "epithelial_z 5.00 >= 3 with 4 markers",
        "no_z": "epithelial_z not computable with 2 markers",
        "removed_epi": "epithelial_z 5.00 >= 3 with 4 markers",
        "no_call": "epithelial_z 5.00 >= 3 with 4 markers",
        "open": "epithelial_z 5.00 >= 3 with 4 markers",
        "open_cnv": "cnv_burden_q 0.05 <= 0.05",
        "open_doublet": "epithelial_z 5.00 >= 3 with 4 markers;malignancy_q 0.04 <= 0.05",
        "not_a_cell": "epithelial_z 0.10 with 1 marker",
        "low_z": "epithelial_z 2.90 with 5 markers",
        "one_marker": "epithelial_z 9.00 with 1 marker",
        "removed_doubtful": "lineage not assessable (1000 counts): a tumour cell cannot be excluded",
        "removed_nameless": "lineage not assessable (1000 counts): a tumour cell cannot be excluded",
        "open_nothing": "undecided (1000 counts): a tumour cell cannot be excluded",
    }


def test_only_another_lineage_that_is_shown_takes_a_removed_cell_off_the_list() -> None:
    poor: dict[str, Any] = {"pass_qc": False, "qc_reasons": "low_counts(90<200)"}
    cells = [
        cell("shown", **poor),
        cell("shown_with_keratin", n_epithelial_markers=1, **poor),
        cell("epithelial", lineage="epithelial", **poor),
        cell("unsure", lineage_z=2.99, **poor),
        cell("too_poor", n_counts=299.0, **poor),
        cell("mitochondria", n_counts=1000.0, pct_mt=71.0, **poor),
        cell("just_enough", n_counts=1000.0, pct_mt=70.0, **poor),
        cell("nameless", lineage="unknown", lineage_z=np.nan, **poor),
    ]
    listed = audit(cells, []).set_index("cell_id")["evidence_level"]
    assert listed.to_dict() == {
        "S1:epithelial": "weak",
        "S1:shown_with_keratin": "weak",
        "S1:mitochondria": "not_assessable",
        "S1:nameless": "not_assessable",
        "S1:too_poor": "not_assessable",
        "S1:unsure": "not_assessable",
    }


@pytest.mark.parametrize("named", ["aneuploid_only", "possible_tumour_doublet", "epithelial_cnv_neutral"])
def test_an_undecided_cell_with_an_unusual_genome_has_weak_evidence(named: str) -> None:
    found = audit([cell("open")], [call("open", "indeterminate", malignant_class=named)])
    assert found[["evidence_level", "evidence"]].to_numpy().tolist() == [["weak", f"class {named}"]]


def test_the_arbitration_is_evidence_where_there_is_one() -> None:
    poor: dict[str, Any] = {"pass_qc": False, "qc_reasons": "low_counts(90<200)"}
    cells = [
        cell("tumour", p_single=0.3, p_doublet=0.25, p_coated=0.45, **poor),
        cell("coated", p_single=0.04, p_doublet=0.01, p_coated=0.95, **poor),
        cell("no_candidate", p_single=np.nan, p_doublet=np.nan, p_coated=np.nan, lineage="unknown", **poor),
    ]
    found = audit(cells, []).set_index("cell_id")
    assert found["evidence_level"].to_dict() == {"S1:tumour": "strong", "S1:no_candidate": "not_assessable"}
    assert found.loc["S1:tumour", "evidence"] == "arbitration single=0.30 doublet=0.25 coated=0.45"


def test_thresholds_are_the_callers() -> None:
    assert audit(epithelial_z=2.9).set_index("cell_id").loc["S1:low_z", "evidence_level"] == "strong"
    assert audit(fdr=0.01).set_index("cell_id").loc["S1:open_cnv", "evidence_level"] == "not_assessable"


def test_every_listed_cell_is_listed_once_whatever_its_order() -> None:
    rng = np.random.default_rng(0)
    shuffled = audit([CELLS[i] for i in rng.permutation(len(CELLS))], [CALLS[i] for i in rng.permutation(len(CALLS))])
    pd.testing.assert_frame_equal(shuffled, audit())
    assert shuffled["cell_id"].is_unique


@pytest.mark.parametrize(
    ("cells", "calls"),
    [
        ([], []),
        ([cell("blood")], [call("blood", "normal")]),
        ([cell("found", **EPITHELIAL)], [call("found", "malignant", malignancy_q=0.001)]),
    ],
)
def test_nothing_to_list_still_has_every_column(
    cells: list[dict[str, Any]], calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    columns = list(contracts.TABLES["qc_cells"])
    found = audit_losses(
        pd.DataFrame(cells, columns=columns),
        pd.DataFrame(calls, columns=list(contracts.TABLES["calls"])),
        epithelial_z=3.0,
    )
    assert len(found) == 0
    assert tuple(found.columns) == contracts.TABLES["loss_audit"]
    contracts.write_table(found, tmp_path / "loss_audit.tsv", "loss_audit")
    assert len(contracts.read_table(tmp_path / "loss_audit.tsv", "loss_audit")) == 0
    levels = ["n_strong", "n_weak", "n_not_assessable"]
    assert list(loss_totals(found).columns) == ["compartment", "stage", "status", "n_cells", "n_samples", *levels]
    assert len(loss_totals(found)) == 0


def test_it_works_on_tables_read_back_from_disk(tmp_path: Path) -> None:
    contracts.write_table(pd.DataFrame(CELLS), tmp_path / "cells.tsv.gz", "qc_cells")
    contracts.write_table(pd.DataFrame(CALLS), tmp_path / "calls.tsv.gz", "calls")
    again = audit_losses(
        contracts.read_table(tmp_path / "cells.tsv.gz", "qc_cells"),
        contracts.read_table(tmp_path / "calls.tsv.gz", "calls"),
        epithelial_z=3.0,
    )
    pd.testing.assert_frame_equal(again, audit())


def test_totals() -> None:
    totals = loss_totals(audit()).set_index(["stage", "status"])
    assert totals["n_cells"].to_dict() == {
        ("call", "indeterminate"): 5,
        ("cell_calling", "removed"): 1,
        ("qc", "flagged"): 1,
        ("qc", "removed"): 6,
    }
    assert totals.loc[("qc", "removed"), ["n_strong", "n_weak", "n_not_assessable"]].tolist() == [2, 2, 2]


def test_a_call_without_input_cell_is_refused() -> None:
    with pytest.raises(contracts.ContractError, match="S1:stranger"):
        audit(calls=[call("stranger", "normal")])


def test_one_transcript_is_not_evidence() -> None:
    frame = pd.DataFrame({"epithelial_z": [9.0, 9.0, np.nan, np.nan, 1.0], "n_epithelial_markers": [1, 2, 1, 2, 9]})
    assert epithelial_evidence(frame, epithelial_z=3.0).tolist() == [False, True, False, True, False]
