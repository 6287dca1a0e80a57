"""Copy-number section: arms, karyotype, cells against chance, and what would have been seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import write_stage
from dtcflow.plot import copy_number, copy_number_arms, copy_number_cells, style
from dtcflow.report import page
from dtcflow.report.assets import Assets, load, read_clone_nulls
from dtcflow.report.pictures import Pictures
from dtcflow.report.sections_genome import FULL_PATIENTS, genome_section
from dtcflow.report.sections_genome_arms import GivenComparison, arm_blocks, given_blocks, given_comparisons
from dtcflow.report.sections_genome_cells import (
    MAX_EMPTY,
    PatientCells,
    arms_needed,
    cell_blocks,
    lone_cell,
    patient_cells,
)
from dtcflow.report.sections_genome_heatmap import called_arms

KINDS = ("matched", "unseen", "decoy_flipped", "decoy_permuted")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Draw no figure; keep what each was asked to draw."""
    asked: dict[str, list[Any]] = {}

    def spy(name: str) -> Any:
        return lambda *values, **options: asked.setdefault(name, []).append((values, options))

    for module, names in (
        (copy_number, ("heatmaps",)),
        (copy_number_arms, ("arm_grid", "lollipops", "karyotype")),
        (copy_number_cells, ("score_histogram", "score_histograms", "evidence")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, spy(name))
    monkeypatch.setattr(style, "svg_inline", lambda figure, *, prefix, alt: f'<svg role="img" id="{prefix}"></svg>')
    monkeypatch.setattr(style, "png_bytes", lambda figure, **options: b"")
    return asked


def with_clone_statistic(study: Any, *, nulls: bool = True, seed: int = 0) -> Any:
    """Add what the copy-number stage says of single cells: T, its error, candidates, and the nulls of each patient."""
    rng = np.random.default_rng(seed)
    table = study.cnv_cells.merge(study.cells[["cell_id", "malignant_call"]], on="cell_id")
    malignant = (table["malignant_call"] == "malignant").to_numpy()
    t = np.where(malignant, rng.uniform(4, 9, len(table)), rng.normal(0, 0.8, len(table)))
    study.cnv_cells = table.drop(columns="malignant_call").assign(
        clone_t=t, clone_llr_p=np.where(malignant, 1e-5, 0.5), clone_fraction_se=0.2, is_candidate=malignant
    )
    for packed in study.windows.values() if nulls else ():
        packed.uns["clone_nulls"] = pd.DataFrame(
            {"kind": np.repeat(KINDS, 50), "t": rng.normal(0, 1, 200), "llr": rng.normal(-5, 2, 200)}
        )
    return study


def called_candidates(study: Any, patient: str) -> int:
    own = study.cells.loc[study.cells["patient_id"] == patient, "cell_id"]
    return int(study.cnv_cells.loc[study.cnv_cells["cell_id"].isin(own), "is_candidate"].sum())


def read(study: Any, folder: Any) -> Assets:
    return load(study.write(folder))


def flat(blocks: list[Any]) -> list[Any]:
    found = []
    for block in blocks:
        found.append(block)
        if isinstance(block, page.Details):
            found += flat(list(block.blocks))
    return found


def said(blocks: list[Any]) -> str:
    parts = []
    for block in flat(blocks):
        if isinstance(block, page.Bullets):
            parts += list(block.items)
        elif isinstance(block, page.Figure | page.Table):
            parts.append(block.caption)
        else:
            parts.append(getattr(block, "text", "") or getattr(block, "summary", ""))
    return " ".join(parts)


# ---------------------------------------------------------------------------------------------------------------------


def test_called_arms_come_from_the_table_of_clones() -> None:
    clones = pd.DataFrame(
        {"clone_id": ["c1", "c2", ""], "gains": ["1q,8q", "", "3p"], "losses": ["16q", np.nan, ""]}, dtype=object
    )
    assert called_arms(clones) == {"c1": {"1q": "gain", "8q": "gain", "16q": "loss"}, "c2": {}}
    assert called_arms(None) == {}
    semicolons = clones.assign(gains=["1q; 8q", "", ""])
    assert called_arms(semicolons)["c1"] == {"1q": "gain", "8q": "gain", "16q": "loss"}


def test_arms_caption_counts_what_cannot_be_assessed(make: Any, tmp_path: Any, quick: dict[str, list[Any]]) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.config["copy_number"]["min_abs_log_ratio"] = 0.17
    assets = read(study, tmp_path)
    text = said(arm_blocks(assets, Pictures(), full=1))
    n = int((study.arms[study.arms["patient_id"] == "PAT01"]["state"] == "not_assessable").sum())
    total = int((study.arms["patient_id"] == "PAT01").sum())
    assert f"{n} arms of {total} not assessable (hatched)" in text
    assert "±0.17, the least log ratio of a call" in text
    assert "Smallest detectable absolute log ratio over the assessable arms: median 0.12, largest 0.12." in text
    assert "drawn for 1 patient of 2 with a clone; those of PAT02 are in arms.tsv" in text
    (_, options), *others = quick["lollipops"]
    assert not others
    assert options["min_abs_log_ratio"] == 0.17
    assert options["one_copy"] == pytest.approx((0.8 * np.log(1.5), -0.55))


@pytest.mark.usefixtures("quick")
def test_a_patient_without_a_clone_is_named(make: Any, tmp_path: Any) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.arms.loc[study.arms["patient_id"] == "PAT02", "clone_id"] = ""
    text = said(arm_blocks(read(study, tmp_path), Pictures(), full=9))
    assert "No clone, so no arm of a tumour was assessed: PAT02." in text


# ---------------------------------------------------------------------------------------------------------------------


def comparison() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": ["1p", "1q", "2p", "2q", "3p"],
            "given": [0.0, 0.32, -0.55, -0.55, np.nan],
            "measured": [0.3, 0.35, -0.5, 0.1, -0.4],
            "ci_low": -0.1,
            "ci_high": 0.1,
            "state": ["gain", "gain", "loss", "not_assessable", "loss"],
        }
    )


def given(**columns: Any) -> GivenComparison:
    return GivenComparison(comparison().assign(**columns), "c1 in S, 9 cells")


def test_given_karyotype_counts_agreement_on_assessable_arms(quick: dict[str, list[Any]]) -> None:
    blocks = given_blocks({"P": given()}, {}, Pictures(), effect=0.15, full=3)
    text = said(blocks)
    assert "Patient P (c1 in S, 9 cells): " in text
    assert "n = 3 arms; 1 covered arm not assessable" in text
    assert "Given gains of at least 0.15: 1, found 1; called without being given: 1." in text
    assert "Given losses of at least 0.15: 1, found 1; called without being given: 0." in text
    r = np.corrcoef([0.0, 0.32, -0.55], [0.3, 0.35, -0.5])[0, 1]
    assert f"Pearson r = {r:.2f}." in text
    assert "agreement is independent evidence" in text
    assert len(quick["karyotype"]) == 1


@pytest.mark.usefixtures("quick")
def test_selection_by_the_given_profile_is_said() -> None:
    status = {"P": {"profile_format": "seg", "profile_source": "given", "profile_warnings": ["it is <odd>"]}}
    text = said(given_blocks({"P": given()}, status, Pictures(), effect=0.15, full=3))
    assert "no independent proof" in text
    assert "independent evidence" not in text
    assert "Patient P: it is <odd>." in text


@pytest.mark.usefixtures("quick")
def test_given_karyotype_that_cannot_be_compared() -> None:
    assert given_blocks({}, {"P": {"status": "ok"}}, Pictures(), effect=0.15, full=3) == []
    nothing = {"A": given(given=np.nan), "B": given(state="not_assessable"), "C": given(state=np.nan)}
    text = said(given_blocks(nothing, {}, Pictures(), effect=0.15, full=3))
    assert "patient A covers no measured arm" in text
    assert "patient B can be compared on no arm: none is assessable" in text
    assert "patient C can be compared on no arm: none is assessable" in text
    text = said(given_blocks({}, {"D": {"profile_format": "bed"}}, Pictures(), effect=0.15, full=3))
    assert "A profile was given, but there is no clone to compare it with: D." in text
    many = {f"P{i}": given() for i in range(5)}
    blocks = given_blocks(many, {}, Pictures(), effect=None, full=2)
    assert sum(isinstance(block, page.Figure) for block in blocks) == 2
    assert "A profile was given and is not drawn here: P2, P3, P4." in said(blocks)


def test_the_given_profile_is_read_beside_the_largest_group(make: Any, tmp_path: Any) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.arms.loc[(study.arms["clone_id"] == "B") & (study.arms["sample_id"] == "PAT01-PT"), "n_cells"] = 40
    study.windows["PAT01"].uns["given_profile"] = pd.DataFrame(
        {"arm": ["1q", "16q", "Xq"], "expected": [0.3, -0.4, 0.1]}
    )
    found = given_comparisons(read(study, tmp_path))
    assert list(found) == ["PAT01"]
    assert found["PAT01"].group == "B in PAT01-PT, 40 cells"
    table = found["PAT01"].table.set_index("arm")
    assert table.loc["1q", ["given", "measured"]].tolist() == [0.3, 0.3]
    assert np.isnan(table.loc["2p", "given"])
    assert np.isnan(table.loc["Xq", "measured"])
    figure = copy_number_arms.karyotype(found["PAT01"].table, min_abs_log_ratio=0.15)
    assert figure.get_axes()[1].get_title(loc="left").startswith("n = 2 arms")


# ---------------------------------------------------------------------------------------------------------------------


def test_cells_are_drawn_with_their_nulls(make: Any, tmp_path: Any, quick: dict[str, list[Any]]) -> None:
    study = with_clone_statistic(make(n_patients=2, n_cells=60, per_arm=1))
    text = said(cell_blocks(read(study, tmp_path), Pictures(), full=9))
    panel = quick["score_histogram"][0][0][0]
    assert tuple(panel.nulls) == KINDS
    assert panel.stands_for == dict.fromkeys(KINDS[2:], int(called_candidates(study, "PAT01")))
    assert all(len(values) == 50 for values in panel.nulls.values())
    assert panel.label == "clone statistic T"
    own = study.cells[(study.cells["patient_id"] == "PAT01") & study.cells["pass_qc"]]
    scores = study.cnv_cells.set_index("cell_id").loc[own["cell_id"], "clone_t"]
    called = (own["malignant_call"] == "malignant").to_numpy()
    assert panel.threshold == pytest.approx(scores[called].min())
    assert panel.n_scored == len(own)
    assert f"of {len(own):,} cells (log count axis), {called.sum():,} malignant, {own['is_dtc'].sum():,} DTCs" in text
    for kind in KINDS:
        assert f"{copy_number_cells.NULL_NAMES[kind]}, n = 50, 0 beyond (0.00 %)" in text
    assert len(quick["evidence"]) == 2


def test_only_winning_decoys_are_drawn(make: Any, tmp_path: Any, quick: dict[str, list[Any]]) -> None:
    study = with_clone_statistic(make(n_patients=1, n_cells=60, per_arm=1))
    table = study.windows["PAT01"].uns["clone_nulls"]
    table["beats_target"] = (table["kind"] == "decoy_permuted") & (np.arange(len(table)) % 10 == 0)
    text = said(cell_blocks(read(study, tmp_path), Pictures(), full=9))
    panel = quick["score_histogram"][0][0][0]
    assert {kind: len(values) for kind, values in panel.nulls.items()} == dict(zip(KINDS, (50, 50, 0, 5), strict=True))
    assert panel.sizes == {"decoy_flipped": 50, "decoy_permuted": 50}
    assert "decoy: other arms, n = 50, 5 win, 0 beyond (0.00 %)" in text
    assert "only those are drawn and counted as beyond" in text


def test_an_older_stage_falls_back_and_says_so(make: Any, tmp_path: Any, quick: dict[str, list[Any]]) -> None:
    study = make(n_patients=1, n_cells=40, per_arm=1)
    assert study.cnv_cells["clone_t"].isna().all()
    text = said(cell_blocks(read(study, tmp_path), Pictures(), full=9))
    panel = quick["score_histogram"][0][0][0]
    assert panel.nulls == {}
    assert panel.label == "log-likelihood ratio of the clone (ln)"
    assert (
        "the results of this patient hold no null and decoy statistics, so the histogram shows the cells alone" in text
    )
    assert "Lines, each scaled" not in text


def test_nulls_that_are_not_there_or_not_readable_are_none(make: Any, tmp_path: Any) -> None:
    study = make(n_patients=1, n_cells=20, per_arm=1)
    packed = study.windows["PAT01"]
    assert not len(packed.uns["clone_nulls"])
    for i, table in enumerate((packed.uns["clone_nulls"], pd.DataFrame({"kind": ["a"]}))):
        packed.uns["clone_nulls"] = table
        write_stage(packed, tmp_path / f"{i}.h5ad", "cnv")
        assert read_clone_nulls(tmp_path / f"{i}.h5ad") is None
    del packed.uns["clone_nulls"]
    packed.write_h5ad(tmp_path / "old.h5ad")
    assert read_clone_nulls(tmp_path / "old.h5ad") is None
    packed.uns["clone_nulls"] = pd.DataFrame({"kind": ["matched", "unseen"], "t": [0.5, 1.5], "llr": [1.0, np.nan]})
    write_stage(packed, tmp_path / "new.h5ad", "cnv")
    table = read_clone_nulls(tmp_path / "new.h5ad")
    assert table is not None
    assert dict(zip(table["kind"], table["t"], strict=True)) == {"matched": 0.5, "unseen": 1.5}


@pytest.mark.usefixtures("quick")
def test_nothing_found_says_what_would_have_been(make: Any, tmp_path: Any) -> None:
    study = with_clone_statistic(make(n_patients=1, n_cells=40, per_arm=1))
    study.cells["malignant_call"] = study.cells["malignant_call"].replace("malignant", "normal")
    study.cells["is_dtc"] = False
    study.cnv_cells[["clone_t", "clone_llr", "clone_llr_p"]] = np.nan
    study.cnv_cells["cnv_burden_p"] = np.where(np.arange(len(study.cnv_cells)) < 2, 0.01, 0.5)
    assets = read(study, tmp_path)
    n = int(assets.cnv_cells["is_candidate"].astype(bool).sum()) if assets.cnv_cells is not None else 0
    text = said(cell_blocks(assets, Pictures(), full=9))
    low = int((study.cnv_cells["is_candidate"] & (study.cnv_cells["cnv_burden_p"] <= 0.05)).sum())
    assert f"no clone was found. {n} candidate cells tested, {low} with a burden p of at most 0.05" in text
    assert f"({0.05 * n:.1f} expected by chance)" in text
    assert "9 arms in 5 cells, 4 in 20" in text
    assert "No malignant cell was called in 2 samples; that means:" in text
    for sample in ("PAT01-BM", "PAT01-PT"):
        assert f"{sample}: none of" in text


@pytest.mark.usefixtures("quick")
def test_not_assessable_patients_are_named_and_not_drawn(make: Any, tmp_path: Any) -> None:
    study = with_clone_statistic(make(n_patients=2, n_cells=30, per_arm=1))
    second = study.cnv_cells["cell_id"].str.startswith("PAT02")
    study.cnv_cells.loc[second, "cnv_status"] = "no_reference"
    study.cnv_cells.loc[second, ["clone_t", "clone_llr", "cnv_burden_p"]] = np.nan
    blocks = cell_blocks(read(study, tmp_path), Pictures(), full=9)
    assert "Copy number not assessable, so no cell has a statistic: PAT02." in said(blocks)
    assert not any("PAT02" in block.caption for block in flat(blocks) if isinstance(block, page.Figure))
    (table,) = [block for block in flat(blocks) if isinstance(block, page.Table)]
    assert {row[1].text for row in table.rows} == {"PAT01"}


@pytest.mark.usefixtures("quick")
def test_many_empty_samples_are_counted(make: Any, tmp_path: Any) -> None:
    study = with_clone_statistic(make(n_patients=12, n_cells=12, per_arm=1))
    study.cells["malignant_call"] = study.cells["malignant_call"].replace("malignant", "normal")
    blocks = cell_blocks(read(study, tmp_path), Pictures(), full=2)
    (bullets,) = [block for block in blocks if isinstance(block, page.Bullets)]
    assert len(bullets.items) == MAX_EMPTY + 1
    assert bullets.items[-1] == f"{24 - MAX_EMPTY} further samples: see the table."


def test_cells_that_a_table_names_by_reason_only_get_their_class(make: Any, tmp_path: Any) -> None:
    study = make(n_patients=1, n_cells=20, per_arm=1)
    study.cells["call_reasons"] = "aneuploid_only;burden_p=0.01"
    (own,) = patient_cells(read(study, tmp_path))
    assert set(own.cells["malignant_class"]) == {"aneuploid_only"}
    study.cells["call_reasons"] = "something"
    (own,) = patient_cells(read(study, tmp_path / "b"))
    assert set(own.cells["malignant_class"]) <= {"malignant_confirmed", "normal", "unassessable"}


# ---------------------------------------------------------------------------------------------------------------------


def lone(t: list[float], p: list[float], *, se: float = 0.2, candidates: int = 0) -> PatientCells:
    """Cells of sample S that carry both numbers, and further candidates of S that are not tumour."""
    n, k = len(t), candidates
    cells = pd.DataFrame(
        {
            "sample_id": "S",
            "malignant_call": ["malignant"] * n + ["indeterminate"] * k,
            "is_candidate": True,
            "clone_t": [*t, *[0.0] * k],
            "clone_llr_p": [*p, *[0.9] * k],
            "clone_fraction_se": se,
        }
    )
    return PatientCells("P", cells, "clone_t", {}, {}, "")


def test_a_lone_cell_needs_more_among_more_candidates() -> None:
    t, p = [1.5, 2.0, 3.0, 4.0], [0.04, 0.02, 0.004, 0.0004]
    few, many = lone_cell(lone(t, p), "S", fdr=0.05), lone_cell(lone(t, p, candidates=9), "S", fdr=0.05)
    assert few is not None
    assert many is not None
    assert (few.needed, many.needed) == (1.5, 3.0)  # p <= 0.05, and p <= 0.05 / 10
    assert few.expected == pytest.approx(5.0)  # 1 / 0.2
    assert few.power == pytest.approx(0.99977, abs=1e-4)  # P(N(5, 1) > 1.5)
    assert many.power == pytest.approx(0.97725, abs=1e-4)  # P(N(5, 1) > 3)
    assert few.cells_for_one == many.cells_for_one == 1


def test_shallow_cells_need_company() -> None:
    weak = lone_cell(lone([2.0], [0.01], se=0.5), "S", fdr=0.05)
    assert weak is not None
    assert weak.power == pytest.approx(0.5)  # expected 2, needed 2
    assert weak.cells_for_one == 5  # 1 - 0.5**5 = 0.97
    assert replace(weak, power=0.0).cells_for_one == float("inf")


def test_power_is_not_made_up() -> None:
    nothing = lone_cell(lone([1.0], [0.5]), "S", fdr=0.05)
    assert nothing is not None
    assert nothing.needed is None
    assert np.isnan(nothing.power)
    assert lone_cell(lone([1.0], [0.5]), "absent", fdr=0.05) is None
    assert lone_cell(replace(lone([3.0], [0.001]), score="clone_llr"), "S", fdr=0.05) is None
    assert lone_cell(lone([3.0], [0.001], se=float("nan")), "S", fdr=0.05) is None


def test_arms_needed_in_words() -> None:
    assert arms_needed({"arms_at_20_cells": 4.0, "arms_at_5_cells": 9.0}) == "9 arms in 5 cells, 4 in 20"
    assert arms_needed({"arms_at_5_cells": None}) is None
    assert arms_needed(None) is None


# ---------------------------------------------------------------------------------------------------------------------


def test_sixty_samples_stay_small(make: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with style.language():
        blank = style.sentence_figure("heatmaps have a budget of their own")
    monkeypatch.setattr(copy_number, "heatmaps", lambda *_, **__: blank)
    study = with_clone_statistic(make(n_patients=30, n_cells=30, per_arm=2))
    pictures = Pictures()
    section = genome_section(read(study, tmp_path), pictures, max_rows=60, block_rows=60)
    figures = [block for block in flat(list(section.blocks)) if isinstance(block, page.Figure)]
    assert len(figures) == 30 + 1 + 3 * FULL_PATIENTS + 1  # heatmaps, grid, three a patient, the rest small
    assert sum(len(figure.svg.encode()) for figure in figures) < 3_500_000
    assert "The other 18 patients, clone statistic" in said(list(section.blocks))


def test_one_cell_in_the_study(make: Any, tmp_path: Any) -> None:
    study = with_clone_statistic(make(n_patients=1, n_cells=20, per_arm=1))
    keep = study.cnv_cells["cell_id"].iloc[0]
    study.cells = study.cells[study.cells["cell_id"] == keep]
    study.cnv_cells = study.cnv_cells[study.cnv_cells["cell_id"] == keep]
    section = genome_section(read(study, tmp_path), Pictures(), max_rows=60, block_rows=60)
    assert "of 1 cell (log count axis)" in said(list(section.blocks))
