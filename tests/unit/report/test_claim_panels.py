"""What the report makes of every kind of claim: right numbers on the right axis, nothing missing in silence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtcflow import contracts
from dtcflow.report import figures
from dtcflow.report.claim_kinds import KINDS, kind_of
from dtcflow.report.claim_views import ClaimView, claim_views
from dtcflow.report.page import effect, natural
from dtcflow.report.sections_claims import alt_text, caption, estimate_sentence, factors_of
from dtcflow.report.sections_controls import control_groups, controls_table, holds

NAN = float("nan")


def row(claim_id: str, **values: Any) -> dict[str, Any]:
    line = dict.fromkeys(contracts.TABLES["claims"], NAN) | {
        "claim_id": claim_id,
        "title": f"title of {claim_id}",
        "role": "context",
        "verdict": "INCONCLUSIVE",
        "codes": "",
        "unit": "SD between reference cells",
        "n_patients": 3,
        "contrast": "DTC - PT",
        "primary_signature": "",
    }
    return line | values


def values(claim_id: str, differences: list[float], *, analysis: str = "primary", **more: Any) -> pd.DataFrame:
    n = len(differences)
    frame = pd.DataFrame(
        {
            "claim_id": claim_id,
            "analysis": analysis,
            "patient_id": [f"P{k + 1}" for k in range(n)],
            "contrast": "DTC - PT",
            "signature": "",
            "n_cells_a": [10 * (k + 1) for k in range(n)],
            "n_cells_b": 100,
            "value_a": NAN,
            "value_b": NAN,
            "difference": differences,
            "variance": 0.04,
            "usable": np.isfinite(differences),
            "reason": ["" if math.isfinite(x) else "2 cells, 3 needed" for x in differences],
        }
    )
    return frame.assign(**more)


def view(
    test: str,
    line: dict[str, Any],
    patients: pd.DataFrame,
    detail: dict[str, Any] | None = None,
    controls: pd.DataFrame | None = None,
) -> ClaimView:
    name = str(line["claim_id"])
    verdict = {"plan": {"claims": [{"id": name, "test": test}]}, "claims": {name: detail or {}}}
    (found,) = claim_views(pd.DataFrame([line]), patients, verdict, controls)
    assert found.test == test
    return found


def test_a_contrast_shows_difference_interval_band_and_null() -> None:
    meta = {"estimate": 1.0, "ci90_low": 0.7, "ci90_high": 1.3, "prediction_low": 0.1, "prediction_high": 1.9}
    detail = {"meta_analysis": meta, "gene_set_null": {"estimates": [0.1, None, -0.1]}, "direction": "greater"}
    line = row("P2", estimate=1.0, ci_low=0.6, ci_high=1.4, sesoi=0.5)
    found = view("paired_contrast", line, values("P2", [1.0, NAN, 2.0]), detail)
    end = found.endpoints[0]
    assert [dot.label for dot in end.dots] == ["P3 · 30 / 100", "P1 · 10 / 100", "P2 · 20 / 100"]
    assert [dot.value for dot in end.dots[:2]] == [2.0, 1.0]
    assert end.dots[0].low == pytest.approx(2 - 1.959964 * 0.2)
    assert (end.dots[2].used, end.dots[2].note) == (False, "2 cells, 3 needed")
    assert end.band == (-0.5, 0.5)
    assert (end.pool.low90, end.pool.prediction_high) == (0.7, 1.9)
    assert end.null is not None
    assert end.null.tolist() == [0.1, -0.1]
    assert end.axis == "DTC minus PT, SD between reference cells"
    assert "n = 2 patients used of 3" in caption(found)
    assert "±0.5" in caption(found)
    assert "90 % interval 0.70 to 1.30" in estimate_sentence(found)
    assert "Patients lie between 1.00 and 2.00" in alt_text(found)


def test_a_share_is_drawn_as_a_share() -> None:
    frame = values("C0", [0.0, math.log(9)], contrast="DTC / putative DTC")
    line = row("C0", unit="share of cells", estimate=0.75, ci_low=0.6, ci_high=0.9, sesoi=0.5)
    meta = {"estimate": math.log(3), "ci90_low": 0.0, "ci90_high": math.log(4)}
    found = view("identity_share", line, frame, {"meta_analysis": meta, "ci90": [0.55, 0.8]})
    end = found.endpoints[0]
    assert [round(dot.value, 6) for dot in end.dots] == [0.9, 0.5]
    assert all(0 <= dot.low < dot.value < dot.high <= 1 for dot in end.dots)
    assert end.dots[1].label == "P1 · 10 of 100"
    assert end.band == (-math.inf, 0.5)
    assert (end.pool.low90, end.pool.high90) == (0.55, 0.8), "the claim's own interval, in its unit"


def test_a_meta_analysis_of_another_quantity_is_not_drawn() -> None:
    line = row("P2", estimate=1.0, ci_low=0.6, ci_high=1.4)
    detail = {"meta_analysis": {"estimate": -3.0, "ci90_low": -4.0, "ci90_high": -2.0}}
    assert math.isnan(view("paired_contrast", line, values("P2", [1.0, 1.2]), detail).pool.low90)


def test_a_composite_has_two_endpoints_with_the_same_rows() -> None:
    frame = pd.concat(
        [values("C4", [0.5, NAN, 1.0]), values("C4", [-0.1, NAN, -0.3], analysis="cycling").iloc[::-1]],
        ignore_index=True,
    )
    detail = {"cycling": {"estimate": -0.2, "ci_low": -0.3, "ci_high": -0.1, "sesoi": 0.14, "unit": "arcsines"}}
    found = view("composite_contrast", row("C4", estimate=0.7, sesoi=0.5), frame, detail)
    score, cycling = found.endpoints
    assert [dot.label for dot in score.dots] == [dot.label for dot in cycling.dots]
    assert [dot.value for dot in cycling.dots[:2]] == [-0.3, -0.1]
    assert cycling.band == (-0.14, 0.14)
    assert cycling.axis == "arcsines"
    assert "Share of cycling cells: −0.20" in alt_text(found)


def test_specificity_lists_its_components_with_what_they_must_reach() -> None:
    frame = pd.concat(
        [
            values("P3", [1.0, 2.0], signature="A, adjusted"),
            values("P3", [1.5, 2.5], analysis="exceeds", signature="A - EPPERT_HSC_R_ONLY"),
        ]
    )
    part = {"ci_low": 0.5, "ci_high": 2.5}
    detail = {
        "of": "P2",
        "components": [
            {"name": "A, adjusted", "kind": "adjusted", "estimate": 1.5, "minimum": 0.25, **part},
            {"name": "A - EPPERT_HSC_R_ONLY", "kind": "exceeds", "estimate": 2.0, "minimum": 0.0, **part},
        ],
    }
    found = view("specificity", row("P3", estimate=1.5, primary_signature="A"), frame, detail)
    assert [(one.label, one.estimate, one.minimum) for one in found.beside[1:]] == [
        ("adjusted for covariates", 1.5, 0.25),
        ("more than in EPPERT HSC R", 2.0, 0.0),
    ]
    assert found.beside[2].values == [1.5, 2.5]
    assert "Random gene sets: those of claim P2." in caption(found)


def test_existence_shows_coherence_and_tail() -> None:
    frame = values("P1", [0.4, 0.6], tail=[1.0, 2.0], tail_variance=[0.01, 0.04])
    line = row("P1", unit="squared SD", estimate=0.5, sesoi=0.25)
    found = view("existence", line, frame, {"tail": {"estimate": 1.5, "ci_low": 1.0, "ci_high": 2.0}})
    coherence, tail = found.endpoints
    assert "squared SD" in coherence.axis
    assert [dot.value for dot in tail.dots] == [2.0, 1.0]
    assert tail.pool.estimate == 1.5


def test_duality_is_on_the_scale_of_a_correlation() -> None:
    line = row("P4", unit="rank correlation of cells", estimate=math.tanh(0.5), sesoi=0.2)
    detail = {
        "meta_analysis": {"estimate": 0.5, "ci90_low": 0.2, "ci90_high": 0.8},
        "gene_set_null": {"estimates": [5.0, -5.0]},
    }
    found = view("duality", line, values("P4", [0.5, 3.0]), detail)
    assert all(-1 < x < 1 for dot in found.endpoints[0].dots for x in (dot.value, dot.low, dot.high))
    assert found.pool.low90 == pytest.approx(math.tanh(0.2))
    assert found.null is not None
    assert np.abs(found.null).max() < 1


def test_dissimilarity_marks_strangers_and_clones() -> None:
    frame = values("C3", [0.1, 0.3], value_a=[0.6, 0.8])
    line = row("C3", estimate=0.7, sesoi=0.5)
    found = view("dissimilarity", line, frame, {"direction": "less"})
    end = found.endpoints[0]
    assert [dot.value for dot in end.dots] == [0.8, 0.6]
    assert {(mark.value, mark.label) for mark in end.marks} == {(0.0, "strangers"), (1.0, "same clone")}
    assert end.band == (0.5, math.inf)
    assert found.side == "left"


def test_rates_are_per_million_on_a_logarithmic_axis_with_zeros_kept() -> None:
    rates = {"rate_per_million": [20.0, 0.0], "rate_low": [10.0, 0.0], "rate_high": [40.0, 3.0]}
    line = row("C1", unit="share", estimate=1e-5, ci_low=5e-6, ci_high=2e-5, sesoi=1e-3)
    found = view("rarity", line, values("C1", [-3.0, -9.0], **rates), {"ci90": [6e-6, 1.5e-5]})
    end = found.endpoints[0]
    assert end.log
    assert [(dot.value, dot.low, dot.high) for dot in end.dots] == [(20.0, 10.0, 40.0), (0.0, 0.0, 3.0)]
    assert (end.pool.estimate, end.pool.low90) == pytest.approx((10.0, 6.0))
    assert end.band == pytest.approx((1000.0, math.inf))
    assert "in a million cells" in estimate_sentence(found)


def test_an_unknown_kind_still_gets_a_forest_and_words() -> None:
    frame = pd.concat([values("X9", [1.0, 2.0]), values("X9", [7.0, 9.0], analysis="other")])
    found = view("of_the_future", row("X9", unit="furlongs", estimate=1.5, sesoi=0.5), frame)
    assert [dot.value for dot in found.endpoints[0].dots] == [2.0, 1.0]
    assert "furlongs" in found.endpoints[0].axis
    assert not found.beside, "another analysis may have another unit"
    assert "no special words" in found.kind.what


@pytest.mark.parametrize("test", KINDS)
def test_every_kind_stands_an_empty_and_an_undecided_claim(test: str) -> None:
    line = row("Z1", codes="LOW_N;NO_DATA", n_patients=0)
    empty = view(test, line, values("Z1", []))
    assert "No estimate could be made (0 patients)" in estimate_sentence(empty)
    none_usable = view(test, line, values("Z1", [NAN, NAN]))
    assert all(not dot.used for end in none_usable.endpoints for dot in end.dots)
    for found in (empty, none_usable):
        assert "How to read it" in caption(found)
        assert "0 patients" in alt_text(found)


def test_a_claim_that_was_not_tested_has_no_panel() -> None:
    claims = pd.DataFrame([row("P1", codes="NOT_EVALUATED")])
    assert claim_views(claims, values("P2", [1.0]), {}, None) == []


def test_without_a_plan_the_kind_follows_from_the_columns() -> None:
    assert kind_of("C1", {}, values("C1", [1.0], rate_per_million=[3.0]))[0] == "rarity"
    assert kind_of("C3", {}, values("C3", [1.0], similarity=[0.3]))[0] == "dissimilarity"
    assert kind_of("C0", {}, values("C0", [1.0], contrast="DTC / putative DTC"))[0] == "identity_share"
    assert kind_of("P2", {}, values("P2", [1.0]))[0] == "paired_contrast"


CONTROLS = pd.DataFrame(
    {
        "claim_id": ["P2", "P2", "C4"],
        "control": ["negative_signature", "split", "random_sets"],
        "label": ["negative control HSC", "primary cells split in two", "random gene sets"],
        "signature": ["HSC", "", ""],
        "estimate": [0.8, 0.0, NAN],
        "ci_low": [0.6, -0.1, NAN],
        "ci_high": [1.0, 0.1, NAN],
        "rate": [NAN, 0.05, 0.04],
        "ok": ["false", "true", ""],
    }
)


def test_controls_stand_beside_their_claim_once() -> None:
    frame = pd.concat(
        [values("P2", [1.0, 2.0]), values("P2", [0.7, 0.9], analysis="negative_control", signature="HSC")]
    )
    found = view("paired_contrast", row("P2", estimate=1.5), frame, controls=CONTROLS)
    assert [(one.label, one.estimate, one.control) for one in found.beside] == [
        ("the claim", 1.5, False),
        ("negative control: HSC", 0.8, True),
        ("primary cells split in two", 0.0, True),
    ]
    assert found.beside[1].values == [0.7, 0.9]


def test_the_controls_panel_says_which_hold() -> None:
    claims = pd.DataFrame([row("C4"), row("P2", sesoi=0.5)])
    groups = control_groups(CONTROLS, claims)
    assert [(group.claim_id, group.sesoi) for group in groups] == [("P2", 0.5)], "only those with an estimate"
    assert [one.holds for one in groups[0].rows] == [False, True]
    cells = [line[3] for line in controls_table(CONTROLS, "controls.tsv").rows]
    assert [(cell.text, cell.tone) for cell in cells] == [("✕ no", "warn"), ("✓ yes", ""), ("? not checked", "")]
    assert [holds(x) for x in (True, np.bool_(False), "true", "False", None, NAN)] == [
        *(True, False, True, False, None, None),
    ]


def test_choices_are_the_columns_that_vary() -> None:
    frame = pd.DataFrame(
        {"claim_id": "P2", "score": ["z", "AUCell"], "reference": "PT", "votes": [True, False], "estimate": [1.0, 2.0]}
        | {"n_patients": [7, 6], "reason": ["", "x"], "splits": [1, 2]}
    )
    assert factors_of(frame) == ["score", "splits"]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1.234, 0.5, 2), "1.23 (0.50 to 2.00)"),
        ((0.0123, -0.001, 0.03), "0.0123 (−0.001 to 0.03)"),
        ((1.02e-5, 4.8e-6, 2.7e-5), "10.20 (4.80 to 27.00) × 10⁻⁶"),
        ((0.0, 0.0, 0.0), "0 (0 to 0)"),
        ((NAN, NAN, NAN), "–"),
    ],
)
def test_small_effects_are_not_rounded_to_nothing(numbers: tuple[float, float, float], words: str) -> None:
    assert effect(*numbers) == words


def test_names_are_sorted_as_people_count() -> None:
    assert sorted(["P10", "P2", "P1", "A", "9"], key=natural) == ["9", "A", "P1", "P2", "P10"]


def write_evidence(folder: Any, claim_id: str = "P2") -> dict[str, Any]:
    frame = values(claim_id, [1.0, 2.0, NAN])
    specifications = pd.DataFrame(
        {"claim_id": claim_id, "depth": ["full", "matched"], "votes": True, "estimate": [1, 2]}
    )
    contracts.write_table(pd.DataFrame([row(claim_id, estimate=1.5, ci_low=1, ci_high=2)]), folder / "claims.tsv")
    contracts.write_table(frame, folder / "patients.tsv")
    contracts.write_table(specifications, folder / "sensitivity.tsv")
    contracts.write_table(CONTROLS.assign(claim_id=claim_id), folder / "controls.tsv")
    contracts.write_json(folder / "verdict.json", {"claims": {claim_id: {"evaluated": True}}})
    names = {name: folder / f"{name}.tsv" for name in ("claims", "patients", "sensitivity", "controls")}
    return names | {"verdict": folder / "verdict.json"}


def test_figures_of_claims_are_files_with_captions(tmp_path: Any) -> None:
    given = write_evidence(tmp_path)
    names = figures.write_claim_figures(**given, folder=tmp_path / "a")
    assert names == [
        *("P2.svg", "P2.pdf", "P2_specifications.svg", "P2_specifications.pdf", "controls.svg", "controls.pdf"),
        "captions.tsv",
    ]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "a").iterdir())
    captions = pd.read_csv(tmp_path / "a" / "captions.tsv", sep="\t")
    assert captions["file"].tolist() == ["P2", "P2_specifications", "controls"]
    assert "n = 2 patients used of 3" in captions["caption"][0]
    figures.write_claim_figures(**given, folder=tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["../P2", "controls", "P 2"])
def test_a_claim_id_that_names_no_file_is_refused(name: str, tmp_path: Any) -> None:
    given = write_evidence(tmp_path, name)
    with pytest.raises(contracts.ContractError, match="does not name a file"):
        figures.write_claim_figures(**given, folder=tmp_path / "a")
    assert not (tmp_path / "a").exists()
