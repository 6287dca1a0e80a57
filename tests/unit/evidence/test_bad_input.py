"""Claims on incomplete, doubtful and unusual cohorts: a code and a reason, never a crash and never a false verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import TABLES
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import doubts_of, evaluate_plan
from dtcflow.scores.signatures import GeneSet


def claim(result, name):
    return result.claims.set_index("claim_id").loc[name]


def codes(result, name):
    return claim(result, name)["codes"].split(";")


def with_claims(lab, *claims, keep=("C0",)):
    values = lab.plan_values()
    values["claims"] = [one for one in values["claims"] if one["id"] in keep]
    values["claims"] += [
        {"title": "mine", "role": "necessary" if i == 0 else "context", "family": "secondary", **one}
        for i, one in enumerate(claims)
    ]
    values["hypothesis"] |= {"necessary": [claims[0]["id"]]}
    return values


LIM = "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"
QUICK = {"depth_repeats": 1, "self_check_repeats": 20, "max_cells_per_group": 40}


@pytest.mark.parametrize(
    ("a", "b", "missing"), [("CTC", "PT", "blood"), ("DTC", "MET", "metastasis"), ("MET", "CTC", "metastasis")]
)
def test_absent_compartment_is_no_data(lab, a, b, missing):
    adata, cells = lab.simulate(lab.scenario(n_patients=6))
    plan = with_claims(lab, {"id": "X1", "primary_signature": LIM, "contrast": {"a": a, "b": b}})
    result = lab.evaluate(adata, cells, plan=plan, **QUICK)
    assert "NO_DATA" in codes(result, "X1")
    assert np.isnan(claim(result, "X1")["estimate"])
    assert any(f"the cohort has no {missing} sample" in line for line in result.verdict["why"])


def test_contrast_with_blood_cells_and_with_normal_epithelium(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=7, effect=0.5, n_blood=40, seed=3))
    normal = (cells["compartment"] == "primary") & (cells["cell_id"].str.extract(r"(\d+)$")[0].astype(int) < 10)
    cells.loc[normal.to_numpy(), "malignant_call"] = "normal"
    plan = with_claims(
        lab,
        {"id": "X1", "primary_signature": LIM, "contrast": {"a": "DTC", "b": "HEM"}},
        {"id": "X2", "primary_signature": LIM, "contrast": {"a": "DTC", "b": "NE"}, "direction": "less"},
        {"id": "X3", "primary_signature": LIM, "contrast": {"a": "HEM", "b": "PT"}},
    )
    result = lab.evaluate(adata, cells, plan=plan, **QUICK)
    for name in ("X1", "X2", "X3"):
        assert claim(result, name)["n_patients"] == 7, name
        assert np.isfinite(claim(result, name)["estimate"]), name
    assert claim(result, "X1")["contrast"] == "DTC - HEM"
    assert claim(result, "X2")["estimate"] > 0.5  # planted the other way
    assert claim(result, "X2")["verdict"] != "SUPPORTED"


def test_three_of_fifty_genes_are_low_coverage(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=6))
    few = GeneSet("MINE", (*lab.genes[:3], *(f"ABSENT{i}" for i in range(47))))
    plan = with_claims(lab, {"id": "X1", "primary_signature": "MINE"})
    result = evaluate_plan(adata, cells, load_plan(plan), [*lab.panel, few], settings=QUICK, synonyms=lab.no_synonyms)
    assert "LOW_COVERAGE" in codes(result, "X1")
    assert "NO_DATA" not in codes(result, "X1")  # what is missing are genes, not data
    assert np.isnan(claim(result, "X1")["p_value"])
    assert any("3 of 50 genes measured" in line for line in result.verdict["why"])


def finding(kind, patient, other):
    row = dict.fromkeys(TABLES["identity"], "")
    return row | {"finding": kind, "severity": "warning", "patient_id": patient, "other_patient_id": other,
                  "detail": f"{kind} of {patient} and {other}"}  # fmt: skip


def test_doubts_are_cells_shared_by_two_patients():
    table = pd.DataFrame(
        [
            finding("same_cells", "P1", "P0"),
            finding("same_library", "P0", "P1"),
            finding("same_cells", "P2", "P2"),
            finding("sex_patient", "P3", "P4"),
            finding("cells_twice", "P5", ""),
        ]
    )
    found = doubts_of(table)
    assert found[["patient_id", "other_patient_id"]].to_numpy().tolist() == [["P0", "P1"]]
    assert doubts_of(None).empty
    assert doubts_of(table.iloc[:0]).empty


def test_one_person_under_two_ids_leaves_every_claim_open(lab):
    adata, cells = lab.simulate(lab.scenario(effect=0.45, slope_sd=0.05, seed=3))
    identities = pd.DataFrame([finding("same_cells", "P1", "P0")])
    result = lab.evaluate(adata, cells, identities=identities, context=True)
    for name in ("C0", "P1", "P2", "P3", "C4"):
        assert claim(result, name)["verdict"] == "INCONCLUSIVE", name
        assert "DOUBTFUL_IDENTITY" in codes(result, name), name
    assert any("P0 and P1: same_cells of P1 and P0" in line for line in result.verdict["why"])
    # of no matter to claims in which only one of them takes part
    there = ~((cells["patient_id"] == "P1") & (cells["compartment"] == "primary")).to_numpy()
    fine = lab.evaluate(adata[there].copy(), cells[there].reset_index(drop=True), identities=identities)
    assert "DOUBTFUL_IDENTITY" not in codes(fine, "P2")
    assert "DOUBTFUL_IDENTITY" in codes(fine, "C0")


def test_samples_after_treatment_do_not_count_unless_asked_for(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=7, seed=3))
    sheet = cells[["sample_id"]].drop_duplicates().assign(timepoint="")
    late = ["P0_marrow", "P1_marrow"]
    sheet.loc[sheet["sample_id"].isin(late), "timepoint"] = "post"
    plan = with_claims(
        lab,
        {"id": "X1", "primary_signature": LIM},
        {"id": "X2", "primary_signature": LIM, "timepoint": "any"},
        {"id": "X3", "primary_signature": LIM, "timepoint": "post"},
    )
    result = lab.evaluate(adata, cells, plan=plan, samples=sheet, **QUICK)
    assert [claim(result, name)["n_patients"] for name in ("C0", "X1", "X2", "X3")] == [5, 5, 7, 0]
    rows = result.patients.query("claim_id == 'X1' and analysis == 'primary'").set_index("patient_id")
    assert rows["samples_left_out"].to_dict() == {f"P{i}": f"P{i}_marrow" if i < 2 else "" for i in range(7)}
    assert rows.loc["P0", "reason"] == "no marrow sample"
    assert "NO_DATA" in codes(result, "X3")  # no primary after treatment


def test_family_too_large_for_the_patients_is_said(lab):
    """Six unanimous patients reach .03125: the smallest p of two or more tests of one family is above .05."""
    adata, cells = lab.simulate(lab.scenario(n_patients=6, effect=0.6, slope_sd=0.02, seed=3))
    claims = [{"id": f"X{i}", "primary_signature": LIM, "family": "confirmatory"} for i in (1, 2)]
    both = lab.evaluate(adata, cells, plan=with_claims(lab, *claims), **QUICK)
    assert claim(both, "X1")["p_adjusted"] == 0.0625
    assert codes(both, "X1") == ["LOW_N"]
    rule = [rule for rule in both.verdict["claims"]["X1"]["rules"] if rule["name"] == "attainable p"]
    assert "unanimous" in rule[0]["sentence"]
    alone = lab.evaluate(adata, cells, plan=with_claims(lab, claims[0]), **QUICK)
    assert claim(alone, "X1")["p_adjusted"] == 0.03125
    assert "LOW_N" not in codes(alone, "X1")


def test_rare_cells_need_a_denominator(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=7))
    values = lab.plan_values(context=True)
    values["claims"] = [one for one in values["claims"] if one["id"] in ("C0", "C1", "P1")]
    values["hypothesis"]["necessary"] = ["P1"]
    bare = lab.evaluate(adata, cells, plan=values)
    assert "NO_DATA" in codes(bare, "C1")
    sheet = cells[["sample_id", "patient_id", "compartment"]].drop_duplicates()
    sheet = sheet.assign(nucleated_cells_screened="2000000", enrichment="depletion")
    found = lab.evaluate(adata, cells, plan=values, samples=sheet)
    assert claim(found, "C1")["verdict"] == "SUPPORTED"
    assert claim(found, "C1")["estimate"] == pytest.approx(14 / 2e6, rel=0.05)
    assert claim(found, "C1")["unit"] == "share of nucleated marrow cells"


def test_dissimilarity_without_copy_number_is_no_data(progenitor):
    assert "NO_DATA" in codes(progenitor, "C3")
    assert claim(progenitor, "C3")["contrast"] == "pairs of DTC"


def test_patients_tsv_names_each_claims_contrast_and_signature(progenitor):
    rows = progenitor.patients.query("analysis == 'primary'").groupby("claim_id")[["contrast", "signature"]].first()
    assert rows.loc["P1"].tolist() == ["halves within DTC", LIM]
    assert rows.loc["P4"].tolist() == ["cells within DTC", f"{LIM} x WIECEK_G0_ARREST_NOPROLIF"]
    assert rows.loc["C1"].tolist() == ["DTC / nucleated marrow cells", ""]
    assert rows.loc["P3", "contrast"] == "DTC - PT"
