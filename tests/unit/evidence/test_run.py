"""The whole rule on simulated cells: score, contrast, tests, controls, verdict."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import expit

from dtcflow.contracts import TABLES, ContractError, InputError, read_table, write_json, write_table
from dtcflow.evidence.inference import random_effects, sign_flip
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import evaluate_plan

ROOT = Path(__file__).parents[3]


def claim(result, name="P2"):
    return result.claims.set_index("claim_id").loc[name]


def codes(result, name="P2"):
    return [code for code in claim(result, name)["codes"].split(";") if code]


def test_planted_effect_is_supported(progenitor):
    row = claim(progenitor)
    assert row["verdict"] == "SUPPORTED"
    assert row["codes"] == ""
    assert row["n_patients"] == 8
    assert row["p_value"] == pytest.approx(2 / 256)
    # three evaluated confirmatory claims have a p value; C3 has no copy number here
    assert progenitor.verdict["multiplicity"]["counted"] == ["P2", "P3", "C4"]
    assert row["p_adjusted"] == pytest.approx(3 * row["p_value"])
    assert row["estimate"] >= 0.5
    assert row["sensitivity_agreement"] == 1.0
    assert claim(progenitor, "C0")["verdict"] == "SUPPORTED"
    assert claim(progenitor, "P3")["verdict"] == "SUPPORTED"


def test_all_cells_running_the_programme_are_no_subset(progenitor):
    """Every DTC is raised alike: enriched (P2), but nothing sets some of them apart (P1)."""
    assert claim(progenitor, "P1")["verdict"] != "SUPPORTED"
    assert progenitor.verdict["verdict"] != "SUPPORTED"
    assert "cannot show self-renewal" in progenitor.verdict["ceiling"]


def test_lower_depth_alone_is_not_support(nothing):
    row = claim(nothing)
    assert row["verdict"] != "SUPPORTED"
    assert abs(row["estimate"]) < 0.5
    depth = nothing.controls.query("claim_id == 'P2'").set_index("control").loc["depth_shift"]
    assert depth["n_patients"] == 8
    kept = nothing.patients.query("claim_id == 'P2' and analysis == 'primary'")
    assert kept["share_kept_a"].tolist() == [1.0] * 8
    assert kept["share_kept_b"].between(0.2, 0.5).all()


def test_controls_and_random_sets_of_the_subset_are_in_the_tables(progenitor):
    details = progenitor.verdict["claims"]
    controls = progenitor.controls[progenitor.controls["claim_id"] == "P1"]
    assert set(controls["control"]) == {"negative_signature"}
    assert controls["estimate"].tolist() == pytest.approx([row["estimate"] for row in details["P1"]["controls"]])
    for name in ("P1", "P4"):
        null = progenitor.null_distribution[progenitor.null_distribution["claim_id"] == name]["estimate"]
        assert null.tolist() == pytest.approx(details[name]["gene_set_null"]["estimates"])


@pytest.mark.parametrize(
    ("name", "back"),
    [("P1", float), ("P2", float), ("P3", float), ("C4", float), ("P4", np.tanh), ("C0", expit)],
)
def test_the_lines_of_the_documentation_recompute_a_claim(name, back, progenitor, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    lines = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "results" / "evidence").mkdir(parents=True)
    write_table(progenitor.patients, tmp_path / "results" / "evidence" / "patients.tsv", "patients")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(lines.replace('"P2"', f'"{name}"'), found)
    row = claim(progenitor, name)
    for value, column in (("estimate", "estimate"), ("low", "ci_low"), ("high", "ci_high")):
        assert back(found[value]) == pytest.approx(row[column], rel=1e-3, abs=1e-4)
    if name in ("P2", "P4"):
        assert found["p"] == pytest.approx(row["p_value"])


def test_any_claim_can_be_recomputed_from_the_patients_table(progenitor, tmp_path):
    write_table(progenitor.patients, tmp_path / "patients.tsv", "patients")
    patients = read_table(tmp_path / "patients.tsv", "patients")
    own = patients[(patients["claim_id"] == "P2") & (patients["analysis"] == "primary") & patients["usable"]]
    fit, row = random_effects(own["difference"], own["variance"]), claim(progenitor)
    assert fit.estimate == pytest.approx(row["estimate"], rel=1e-4)
    assert (fit.ci_low, fit.ci_high) == (
        pytest.approx(row["ci_low"], rel=1e-3),
        pytest.approx(row["ci_high"], rel=1e-3),
    )
    assert sign_flip(own["difference"]).p_value == row["p_value"]
    assert own["difference"].to_numpy() == pytest.approx((own["value_a"] - own["value_b"]).to_numpy(), abs=2e-5)


def test_tables_are_complete(progenitor):
    assert list(progenitor.claims.columns) == list(TABLES["claims"])
    assert list(progenitor.claims["claim_id"]) == ["C0", "P1", "P2", "P3", "C4", "C3", "C1", "P4"]
    assert list(progenitor.patients.columns[: len(TABLES["patients"])]) == list(TABLES["patients"])
    analyses = set(progenitor.patients.query("claim_id == 'P2'")["analysis"])
    assert analyses == {"primary", "adjusted", "confirmatory", "negative_control", "reported"}
    own = progenitor.sensitivity[progenitor.sensitivity["claim_id"] == "P2"]
    assert len(own) == 336
    # 2 signatures x 3 purges x 2 aggregations x 2 calls vote at both depths, with two kinds of random sets; pseudobulks
    # (2 depths, 2 calls) with both, too; a raw score at matched depth only; one signature is shown and never votes
    assert own.loc[own["score"] == "calibrated_z", "votes"].sum() == 6 * (2 * 2 * 2 + 2 * 2) * 2
    assert own.loc[own["score"] == "score_genes", "votes"].sum() == 6 * 2 * 2
    absent = own["reason"].str.contains("not installed")
    assert not own.loc[absent, "votes"].any()
    assert (progenitor.null_distribution["claim_id"] == "P2").sum() == 150
    controls = progenitor.controls[progenitor.controls["claim_id"] == "P2"]
    assert set(controls["control"]) == {
        "negative_signature",
        "split",
        "planted",
        "random_sets",
        "label_flips",
        "depth_shift",
        "blood_split",
        "blood_minus_reference",
    }
    assert controls["ok"].all()
    blood = controls.set_index("control")
    assert abs(blood.loc["blood_split", "estimate"]) < 0.2
    assert np.isfinite(blood.loc["blood_minus_reference", "estimate"])


@pytest.mark.parametrize("repeat", [0, 1])
def test_four_patients_are_too_few_however_large_the_effect(lab, repeat):
    result = lab.run(lab.scenario(n_patients=4, effect=0.5, seed=20 + repeat))
    assert claim(result)["verdict"] == "INCONCLUSIVE"
    assert codes(result)[0] == "LOW_N"
    assert np.isfinite(claim(result)["estimate"])
    assert claim(result)["patients_needed"] >= 6
    assert np.isfinite(claim(result)["mde80"])
    assert "LOW_N" in result.verdict["codes"]


@pytest.mark.parametrize("n_patients", [1, 2])
def test_one_or_two_patients_get_no_estimate(lab, n_patients):
    result = lab.run(lab.scenario(n_patients=n_patients, effect=0.5))
    assert codes(result)[0] == "LOW_N"
    assert np.isnan(claim(result)["estimate"])
    assert np.isnan(claim(result)["p_value"])


def test_haematopoietic_signal_is_contamination(lab):
    result = lab.run(lab.scenario(effect=0.45, also={"EPPERT_HSC_R": 0.5}, seed=6))
    assert codes(result) == ["CONTAMINATION"]
    assert result.verdict["verdict"] == "INCONCLUSIVE"


def test_one_patient_cannot_carry_the_claim(lab):
    result = lab.run(lab.scenario(effect=2.0, affected=1, seed=7))
    assert claim(result)["verdict"] == "INCONCLUSIVE"
    assert "FRAGILE" in codes(result)
    assert any("the effect comes from patient P0" in line for line in result.verdict["why"])


def test_compartment_run_in_its_own_batch_is_confounded(lab):
    adata, cells = lab.simulate(lab.scenario(effect=0.45, seed=3))
    cells["batch"] = "run_" + cells["compartment"]
    result = lab.evaluate(adata, cells)
    assert codes(result) == ["CONFOUNDED"]
    cells["batch"] = cells["sample_id"]
    assert claim(lab.evaluate(adata, cells))["verdict"] == "SUPPORTED"


def test_effect_made_by_a_covariate_shrinks_when_adjusted(lab):
    # one programme moves stress and signature genes in every cell and is higher in DTCs: adjusting takes most of it
    # (not all: the stress score is noisy, and a noisy covariate takes out less than its programme put in)
    result = lab.run(lab.scenario(linked=0.6, seed=9))
    detail = result.verdict["claims"]["P2"]
    assert detail["estimate"] > 1.5
    assert detail["adjusted"]["estimate"] < 0.4 * detail["estimate"]
    assert detail["adjusted"]["covariates_missing"] == []
    assert claim(result)["verdict"] != "SUPPORTED"


def test_exchanged_compartments_turn_the_sign(lab, progenitor):
    adata, cells = lab.simulate(lab.scenario(effect=0.45, slope_sd=0.05, seed=3))
    swapped = cells.assign(
        compartment=cells["compartment"].map({"marrow": "primary", "primary": "marrow"}), malignant_call="malignant"
    )
    result = lab.evaluate(adata, swapped)
    assert claim(result)["estimate"] < -0.5
    assert claim(result)["verdict"] != "SUPPORTED"
    assert claim(progenitor)["estimate"] > 0.5


def test_no_tumour_cell_gives_complete_tables(lab, tmp_path):
    adata, cells = lab.simulate(lab.scenario(n_patients=6))
    cells.loc[cells["compartment"] == "marrow", "malignant_call"] = "normal"
    result = lab.evaluate(adata, cells)
    assert codes(result, "C0")[0] == "NO_TUMOUR_CELLS"
    assert codes(result)[0] == "NO_TUMOUR_CELLS"
    assert "GATE_FAILED" in codes(result)
    assert set(result.patients.query("claim_id == 'P2'")["reason"]) == {"no malignant cell in marrow"}
    assert "no malignant cell was called" in result.verdict["sentence"]
    write_table(result.claims, tmp_path / "claims.tsv", "claims")
    write_table(result.patients, tmp_path / "patients.tsv", "patients")
    write_table(result.controls, tmp_path / "controls.tsv")
    write_table(result.sensitivity, tmp_path / "sensitivity.tsv")
    write_json(tmp_path / "verdict.json", result.verdict)
    assert read_table(tmp_path / "claims.tsv", "claims")["n_patients"].tolist() == [6, 0, 0, 0]


def test_study_without_primary_tumours_has_no_data(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=6))
    keep = (cells["compartment"] == "marrow").to_numpy()
    result = lab.evaluate(adata[keep].copy(), cells[keep])
    assert codes(result)[:2] == ["NO_DATA", "LOW_N"]
    assert set(result.patients.query("claim_id == 'P2'")["reason"]) == {"no primary sample"}
    assert claim(result, "C0")["verdict"] == "SUPPORTED"


def test_few_cells_in_most_patients_are_low_cells(lab):
    result = lab.run(lab.scenario(n_dtc=4, effect=0.45))
    assert "LOW_CELLS" in codes(result)
    assert "LOW_N" not in codes(result)


def test_shallow_cells_are_low_quality(lab):
    result = lab.run(lab.scenario(effect=0.45), plan_changes={"genes_per_cell_droplet": 1500})
    assert codes(result) == ["LOW_QUALITY"]


def test_signature_that_was_not_measured_is_low_coverage(lab):
    adata, cells = lab.simulate(lab.scenario(effect=0.45))
    gone = set(lab.sets["LIM_MAMMARY_STEM_CELL_UP"][0][:40])
    adata.var["in_all_samples"] = [gene not in gone for gene in adata.var_names]
    result = lab.evaluate(adata, cells)
    assert "LOW_COVERAGE" in codes(result)
    assert np.isnan(claim(result)["estimate"])
    reasons = result.patients.query("claim_id == 'P2' and analysis == 'primary'")["reason"]
    assert set(reasons) == {"LIM_MAMMARY_STEM_CELL_UP_NOPROLIF cannot be scored"}


def test_gate_that_fails_stops_the_claim(lab):
    result = lab.run(lab.scenario(effect=0.45, false_epithelial=40, seed=3))
    assert claim(result, "C0")["verdict"] == "NOT_SUPPORTED"
    assert codes(result) == ["GATE_FAILED"]
    assert result.verdict["verdict"] == "INCONCLUSIVE"


def test_result_does_not_depend_on_the_order_of_cells_or_of_the_table(lab, tmp_path):
    adata, cells = lab.simulate(lab.scenario(n_patients=6, effect=0.4, depth_pt=4000, seed=2))
    order = np.random.default_rng(5).permutation(adata.n_obs)
    paths = []
    for i, (one, table) in enumerate(((adata, cells), (adata[order].copy(), cells.sample(frac=1, random_state=1)))):
        result = lab.evaluate(one, table)
        path = tmp_path / str(i)
        write_table(result.claims, path / "claims.tsv", "claims")
        write_table(result.patients, path / "patients.tsv", "patients")
        write_table(result.sensitivity, path / "sensitivity.tsv")
        write_table(result.controls, path / "controls.tsv")
        write_json(path / "verdict.json", result.verdict)
        paths.append(path)
    for name in ("claims.tsv", "patients.tsv", "sensitivity.tsv", "controls.tsv", "verdict.json"):
        assert (paths[0] / name).read_bytes() == (paths[1] / name).read_bytes(), name


def test_extra_rows_of_the_cell_table_are_ignored_and_missing_ones_refused(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=1))
    more = pd.concat([cells, cells.iloc[[0]].assign(cell_id="removed")], ignore_index=True)
    assert len(lab.evaluate(adata, more).claims) == 4
    with pytest.raises(ContractError, match="no entry"):
        lab.evaluate(adata, cells.iloc[1:])
    with pytest.raises(ContractError, match="malignant_call"):
        lab.evaluate(adata, cells.drop(columns="malignant_call"))
    with pytest.raises(ContractError, match="more than once"):
        lab.evaluate(adata, pd.concat([cells, cells]))


def test_normalised_values_are_refused(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=1))
    adata.layers["counts"] = adata.layers["counts"] * 0.5
    with pytest.raises(ContractError, match="whole numbers"):
        lab.evaluate(adata, cells)


def test_plan_that_names_an_unknown_signature_is_refused(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=1))
    with pytest.raises(InputError, match="P2"):
        evaluate_plan(adata, cells, load_plan(lab.plan_path), list(lab.panel)[:3], synonyms=lab.no_synonyms)


def test_a_user_can_add_a_claim_without_code(lab):
    values = load_plan(lab.plan_path).values
    values["rules"] |= {"random_sets": 150, "genes_per_cell_droplet": 300}
    values["claims"].append(
        {
            "id": "X1",
            "title": "Luminal progenitor genes go down",
            "role": "context",
            "direction": "less",
            "family": "secondary",
            "primary_signature": "LIM_MAMMARY_LUMINAL_PROGENITOR_UP",
            "sesoi": 0.3,
            "sensitivity_signatures": ["LIM_MAMMARY_LUMINAL_PROGENITOR_UP"],
        }
    )
    adata, cells = lab.simulate(lab.scenario(effect=-0.6, raised=("LIM_MAMMARY_LUMINAL_PROGENITOR_UP",), seed=3))
    settings = {"depth_repeats": 1, "self_check_repeats": 20, "max_cells_per_group": 40}
    result = evaluate_plan(adata, cells, load_plan(values), lab.panel, settings=settings, synonyms=lab.no_synonyms)
    assert claim(result, "X1")["verdict"] == "SUPPORTED"
    assert claim(result, "X1")["role"] == "context"
    assert claim(result)["verdict"] != "SUPPORTED"


def test_empty_cohort_ends_with_words(lab):
    adata, cells = lab.simulate(lab.scenario(n_patients=1))
    empty = ad.AnnData(obs=adata.obs.iloc[:0], var=adata.var)
    empty.layers["counts"] = sp.csr_matrix((0, adata.n_vars), dtype=np.float32)
    result = lab.evaluate(empty, cells)
    assert codes(result)[0] == "NO_TUMOUR_CELLS"
    assert len(result.claims) == 4
