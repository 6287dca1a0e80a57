"""``dtcflow explain``: a reader who knows the results folder only can follow the call of one cell."""

from __future__ import annotations

import pandas as pd
import pytest

from dtcflow import cli
from dtcflow.contracts import CELLS_COLUMNS, TABLES, InputError, write_json, write_table
from dtcflow.explain import explain_cell, parse_reasons

TUMOUR = (
    "malignant_confirmed;lineage:epithelial;epithelial_z=8.0(6_markers);burden_p=0.001;"
    "clone_p=1e-08,llr=20.0,fraction=0.97;q=2e-07;arms=1q+,16q-;passed:clone_q<=0.05,fraction>=0.33"
)
FIBROBLAST = (
    "aneuploid_only;lineage:fibroblast;burden_p=0.0001;clone_p=1e-05,llr=9.0,fraction=0.80;q=0.001;arms=12p+,12q+;"
    "passed:clone_q<=0.05,fraction>=0.33;clone_refused:clone_on_one_chromosome(12p+,12q+);possible_mosaic:12p+,12q+"
)
NORMAL = "normal;lineage:T_NK;burden_p=0.5;reference_cell_scored_held_out"


@pytest.fixture
def results(tmp_path):
    rows = []
    for name, call, klass, reasons, qc in (
        ("s:tumour", "malignant", "malignant_confirmed", TUMOUR, True),
        ("s:mosaic", "indeterminate", "aneuploid_only", FIBROBLAST, True),
        ("s:normal", "normal", "normal", NORMAL, True),
        ("s:gone", "indeterminate", "unassessable", "not_assessed:failed_qc", False),
    ):
        rows.append(
            dict.fromkeys(CELLS_COLUMNS, "")
            | {
                "cell_id": name,
                "sample_id": "s",
                "patient_id": "P",
                "compartment": "marrow",
                "pass_qc": qc,
                "qc_reasons": "" if qc else "high_mitochondrial",
                "n_counts": 3000.0,
                "cell_type": parse_reasons(reasons).get("lineage", ""),
                "epithelial_z": 0.5,
                "cnv_burden_q": 0.4,
                "malignancy_q": 0.001,
                "malignant_call": call,
                "call_reasons": reasons,
                "is_dtc": call == "malignant",
                "malignant_class": klass,
            }
        )
    write_table(pd.DataFrame(rows), tmp_path / "cells.tsv.gz")
    evidence = pd.DataFrame([dict.fromkeys(TABLES["cnv_cells"], 0.1) | {"cell_id": r["cell_id"]} for r in rows])
    evidence = evidence.assign(cnv_status="ok", is_reference=False, is_candidate=False, clone_fraction=0.97)
    write_table(evidence, tmp_path / "cnv" / "patients" / "P.cells.tsv.gz")
    status = {"patient_id": "P", "status": "ok", "clone_status": "no_profile", "n_profile_arms": 4}
    write_json(tmp_path / "cnv" / "patients" / "P.json", status | {"smallest_detectable": {"arms_at_5_cells": 6.0}})
    return tmp_path


def test_fields_of_the_reasons() -> None:
    found = parse_reasons(TUMOUR)
    assert found["class"] == "malignant_confirmed"
    assert found["lineage"] == "epithelial"
    assert found["clone_p"] == "1e-08,llr=20.0,fraction=0.97"
    assert found["arms"] == "1q+,16q-"
    assert found["passed"] == "clone_q<=0.05,fraction>=0.33"
    assert parse_reasons("") == {}
    assert "reference_cell_scored_held_out" in parse_reasons(NORMAL)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("s:tumour", ["s:tumour: malignant", "A tumour cell", "1q+, 16q-", "Thresholds reached: clone_q<=0.05"]),
        (
            "s:mosaic",
            ["Undecided", "12p+, 12q+", "possible benign mosaic", "one chromosome only", "The clone was not accepted"],
        ),
        ("s:normal", ["A normal cell", "No clone was found", "(no_profile)", "6 arms in 5 cells", "no part in"]),
        ("s:gone", ["removed by quality control", "high_mitochondrial"]),
    ],
)
def test_every_kind_of_call_is_put_in_words(results, capsys, cell: str, words: list[str]) -> None:
    assert cli.main(["explain", cell, "--results", str(results)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in words:
        assert text in shown
    assert max(map(len, explain_cell(results, cell).splitlines())) <= 110 or "All reasons" in shown


def test_an_unknown_cell_and_a_folder_without_a_run(results, tmp_path_factory) -> None:
    with pytest.raises(InputError, match=r"did you mean s:tumour"):
        explain_cell(results, "s:tumor")
    with pytest.raises(InputError, match="run the workflow first"):
        explain_cell(tmp_path_factory.mktemp("empty"), "s:tumour")
