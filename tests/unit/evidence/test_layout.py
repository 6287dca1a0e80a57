"""Which cells a claim is about."""

from __future__ import annotations

import pandas as pd
import pytest

from dtcflow.evidence.layout import at_timepoint, cells_of, lay_out


def table(*groups):
    """Cells of (patient, compartment, call, type, n) or with a sample name and time point behind."""
    rows = []
    for patient, compartment, call, cell_type, n, *rest in groups:
        sample, timepoint = (*rest, "", "")[:2]
        sample = sample or f"{patient}_{compartment}"
        rows += [
            {
                "cell_id": f"{sample}:{call}{cell_type}{i}",
                "sample_id": sample,
                "patient_id": patient,
                "compartment": compartment,
                "malignant_call": call,
                "malignancy_q": 0.001,
                "cell_type": cell_type,
                "timepoint": timepoint,
            }
            for i in range(n)
        ]
    return pd.DataFrame(rows)


@pytest.fixture
def mixed():
    return table(
        ("A", "marrow", "malignant", "epithelial", 5),
        ("A", "marrow", "normal", "T_NK", 9),
        ("A", "marrow", "normal", "fibroblast", 2),
        ("A", "marrow", "indeterminate", "epithelial", 3),
        ("A", "primary", "malignant", "epithelial", 7),
        ("A", "primary", "normal", "epithelial", 4),
        ("A", "primary", "normal", "T_NK", 6),
        ("D", "normal_breast", "normal", "epithelial", 8),
        ("E", "normal_marrow", "normal", "T_NK", 8),
    )


@pytest.mark.parametrize(("group", "n"), [("DTC", 5), ("PT", 7), ("NE", 12), ("HEM", 9), ("CTC", 0)])
def test_groups(mixed, group, n):
    assert cells_of(mixed, group).sum() == n


def test_normal_groups_in_a_paired_layout(mixed):
    found = lay_out(mixed, a="DTC", b="HEM", strict_q=0.01)
    assert found.patients == ("A",)
    assert found.table["side"].value_counts().to_dict() == {0: 5, 1: 9}
    # the strict call is one of malignancy
    assert found.table.loc[found.table["side"] == 1, "strict"].all()
    none = lay_out(mixed, a="DTC", b="CTC", strict_q=0.01)
    assert none.overview["reason"].tolist() == ["no blood sample"]


def test_donors_serve_in_an_unpaired_layout_only(mixed):
    assert lay_out(mixed, a="DTC", b="NE", strict_q=0.01).patients == ("A",)
    found = lay_out(mixed, a="DTC", b="NE", strict_q=0.01, paired=False)
    assert found.patients == ("A", "D")
    sides = found.table.drop_duplicates("patient_id").set_index("patient_id")["side"]
    # A has both and counts once, as DTC: D is the only other one with normal epithelium
    assert sides.to_dict() == {"A": 0, "D": 1}
    assert not found.paired


def test_who_has_both_goes_to_the_side_with_fewer_others():
    cells = table(
        ("A", "marrow", "malignant", "epithelial", 5),
        ("A", "primary", "malignant", "epithelial", 5),
        ("B", "marrow", "malignant", "epithelial", 5),
        ("C", "marrow", "malignant", "epithelial", 5),
        ("D", "primary", "malignant", "epithelial", 5),
    )
    found = lay_out(cells, a="DTC", b="PT", strict_q=0.01, paired=False)
    assert found.table.drop_duplicates("patient_id").set_index("patient_id")["side"]["A"] == 1


@pytest.fixture
def treated():
    return table(
        ("A", "marrow", "malignant", "epithelial", 5, "A_m1", "pre"),
        ("A", "marrow", "malignant", "epithelial", 6, "A_m2", "post"),
        ("A", "primary", "malignant", "epithelial", 7, "A_p", ""),
        ("B", "marrow", "malignant", "epithelial", 5, "B_m", "post"),
        ("B", "primary", "malignant", "epithelial", 7, "B_p", ""),
    )


def test_samples_after_treatment_are_left_out_and_named(treated):
    found = lay_out(treated, a="DTC", b="PT", strict_q=0.01, timepoint="pre").overview.set_index("patient_id")
    assert found["samples_left_out"].to_dict() == {"A": "A_m2", "B": "B_m"}
    assert found["n_cells_a"].to_dict() == {"A": 5, "B": 0}
    assert found.loc["B", "reason"] == "no marrow sample"
    assert lay_out(treated, a="DTC", b="PT", strict_q=0.01).overview["n_cells_a"].tolist() == [11, 5]


def test_time_points(treated):
    assert at_timepoint(treated, "post").sum() == 11
    assert at_timepoint(treated, "pre").sum() == 19
    assert at_timepoint(treated, "any").all()
    unknown = treated.drop(columns="timepoint")
    assert at_timepoint(unknown, "pre").all()
    assert not at_timepoint(unknown, "post").any()


def test_several_aspirates_of_a_patient_are_taken_together(treated):
    found = lay_out(treated, a="DTC", b="PT", strict_q=0.01, timepoint="any")
    assert set(found.table.loc[found.table["patient_id"] == "A", "sample"]) == {"A_m1", "A_m2", "A_p"}
