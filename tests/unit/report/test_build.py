"""The page as a whole: complete, self-contained, escaped, the same bytes every time, nothing missing in silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import DtcflowError
from dtcflow.plot import copy_number, copy_number_arms, copy_number_cells, style
from dtcflow.report import build, sections, sections_claims, sections_controls, sections_qc
from dtcflow.report.inputs import FIGURES, ReportInputs

SMALL = {"n_patients": 3, "n_cells": 40, "per_arm": 2}
PAYLOADS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</svg><b>")
ALLOWED = frozenset(
    {
        *("html", "head", "meta", "title", "style", "body", "a", "p", "strong", "b", "header", "h1", "h2", "h3", "div"),
        *("nav", "details", "summary", "ol", "ul", "li", "main", "section", "span", "table", "caption", "thead"),
        *("tbody", "tr", "th", "td", "abbr", "figure", "figcaption"),
        *("svg", "defs", "g", "path", "text", "tspan", "use", "clippath", "rect", "image"),
        "pattern",  # hatches
    }
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.hidden = False
        self.feed(source)

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.hidden = tag in {"style", "title"}

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def write(study: Any, folder: Path, change: Callable[[ReportInputs], ReportInputs] = lambda inputs: inputs) -> Page:
    inputs = change(study.write(folder / "in"))
    build.write_report(inputs, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figure: for tests of words."""
    for module, names in (
        (sections, ("umap_panels",)),
        (sections_qc, ("waterfall",)),
        (sections_claims, ("claim_figure", "specification_curve")),
        (sections_controls, ("controls_figure",)),
        (copy_number, ("heatmaps",)),
        (copy_number_arms, ("arm_grid", "lollipops", "karyotype")),
        (copy_number_cells, ("score_histogram", "score_histograms", "evidence")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, **__: None)
    monkeypatch.setattr(
        style, "svg_inline", lambda figure, *, prefix, alt: f'<svg role="img" aria-label="{prefix}"></svg>'
    )
    monkeypatch.setattr(style, "svg_file", lambda figure: "<svg/>")
    monkeypatch.setattr(style, "png_bytes", lambda figure, **options: b"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder: Path, make_once: Any) -> Page:
    return write(make_once(**SMALL), folder)


def test_figures_are_beside_the_page(page: Page, folder: Path) -> None:
    assert sorted(path.name for path in (folder / "figures").iterdir()) == sorted(FIGURES)
    for name in FIGURES:
        head = (folder / "figures" / name).read_bytes()[:8]
        assert head.startswith(b"\x89PNG") if name.endswith("png") else head.startswith(b"<?xml")


def test_same_inputs_same_bytes(page: Page, folder: Path, make_once: Any, tmp_path: Path) -> None:
    write(make_once(**SMALL), tmp_path)
    for name in ("report.html", *(f"figures/{name}" for name in FIGURES)):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_page_is_self_contained(page: Page, folder: Path) -> None:
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert len(source.encode()) < build.MAX_BYTES
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href"}:
                assert value.startswith(("#", "data:image/png;base64,")), (tag, value[:60])
    assert "@import" not in source
    assert "url(http" not in source


def test_ids_are_unique_and_every_link_arrives(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert {link[1:] for link in links} <= set(ids)


def test_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert dict(page.tags[0][1]) == {"lang": "en"}
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"]) > 20
        if tag == "th":
            assert attributes["scope"] in {"col", "row"}
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption")
    assert tags.count("figure") == tags.count("figcaption")
    assert tags.count("h1") == 1


def test_every_figure_says_its_n_and_how_to_read_it(folder: Path, page: Page) -> None:
    source = (folder / "report.html").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", source, flags=re.DOTALL)
    assert len(captions) >= 7
    for caption in captions:
        assert "How to read it" in caption
        assert re.search(r"\d", caption)


def test_the_verdict_comes_first_and_sections_in_order(page: Page) -> None:
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == [
        *("verdict", "claims", "controls", "patients", "cohort", "qc", "embedding", "copy-number", "losses", "scores"),
        "methods",
    ]
    text = page.text
    assert text.index("Notice.") < text.index("SIMULATED DATA") < text.index("Inconclusive")
    assert (
        text.index("Inconclusive")
        < text.index("cells with strong tumour evidence removed")
        < text.index("claims of the analysis")
    )
    assert "it cannot show self-renewal" in text
    assert "A version of the analysis that tests P1 and P3." in text
    assert "NOT_EVALUATED (P1 and P3): the analysis plan names this claim" in text


def test_first_screen_counts_cells_and_losses(make_once: Any, page: Page) -> None:
    study = make_once(**SMALL)
    audit = study.loss_audit
    for status, words in (("removed", "removed by quality control"), ("indeterminate", "left undecided")):
        own = audit[audit["status"] == status]
        n = own["evidence_level"].value_counts().reindex(["strong", "weak", "not_assessable"], fill_value=0)
        marrow = int(((own["evidence_level"] == "strong") & (own["compartment"] == "marrow")).sum())
        assert (
            f"{n['strong']:,} cells with strong tumour evidence {words}, {marrow:,} in marrow "
            f"(and {n['weak']:,} with weak, {n['not_assessable']:,} without evidence)"
        ) in page.text
    # nothing of the kind is listed, so that there is no total for it
    assert "doublets with strong tumour evidence called normal" not in page.text
    assert "taken for empty," not in page.text
    dtc, carriers = int(study.cells["is_dtc"].sum()), study.cells.loc[study.cells["is_dtc"], "patient_id"].nunique()
    assert f"{dtc:,} disseminated tumour cells, in {carriers} patients" in page.text


def test_methods_versions_and_hashes_are_there(page: Page) -> None:
    for words in ("scanpy 1.11.5", "0.6.1", "ef" * 32, "PMID 29409532", "seeds.seed", "Intake had no warnings."):
        assert words in page.text


# ---------------------------------------------------------------------------------------------------------------------


def test_markup_of_users_stays_text(make: Any, tmp_path: Path) -> None:
    study = make(**SMALL)
    bad = dict(zip(sorted(study.cells["sample_id"].unique()), [*PAYLOADS, "$x_1$", "a_b"], strict=True))
    study.cells["sample_id"] = study.cells["sample_id"].map(bad)
    for frame in (study.arms, study.loss_audit):
        frame["sample_id"] = frame["sample_id"].map(bad)
    evil = PAYLOADS[0] + PAYLOADS[1]
    study.cells["clone_id"] = study.cells["clone_id"].replace("A", evil)
    study.cells["cell_type"] = study.cells["cell_type"].replace("B", evil)
    study.cells["qc_reasons"] = study.cells["qc_reasons"].replace("high_mt(61.00>20.00)", evil)
    study.loss_audit["reason"] = evil
    study.arms["clone_id"] = evil
    study.arms["arm"] = study.arms["arm"].replace("1q", evil)
    study.clones["gains"] = evil
    study.patients["reason"] = evil
    study.patients["patient_id"] = study.patients["patient_id"] + "$x_1$<b>"
    study.claims[["title", "codes", "unit", "contrast"]] = evil
    study.claims.loc[study.claims["claim_id"] == "P1", "verdict"] = evil
    study.controls["label"] = evil
    study.sensitivity["signature"] = evil
    study.coverage["status"] = evil
    study.pathways["term"] = evil
    study.verdict |= {"statement": evil, "sentence": evil, "why": [evil], "ceiling": evil, "codes": [evil]}
    study.verdict["claims"]["P2"]["rules"][0]["sentence"] = evil
    study.provenance |= {"dtcflow": evil, "date": evil, "packages": {evil: evil}, evil: evil}
    study.config["study"] = {"title": evil, "notice": evil}
    study.config[evil] = {evil: evil}
    study.statuses["PAT01"] |= {"reason": evil, "status": evil, "reference": {evil: 3}, "clone_status": evil}
    study.qc = {evil: {"sample_id": evil, "warnings": [evil], "thresholds": [{"metric": evil, "value": 1.0}]}}
    study.intake = {evil: {"sample_id": evil, "input": evil, "warnings": [evil], "sha256": {evil: evil}}}
    page = write(study, tmp_path)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert page.text.count("alert(1)") > 30
    assert "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", page.text)
    assert "$x_1$" in page.text
    svg = (tmp_path / "figures" / "patients.svg").read_text()
    assert "<script" not in svg
    assert "$x_1$&lt;b&gt; · " in svg


NEEDED = ("config", "cells", "claims", "patients", "verdict")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", [field.name for field in fields(ReportInputs) if field.name not in NEEDED])
def test_each_result_that_is_not_there_is_said(make: Any, tmp_path: Path, name: str) -> None:
    expected = {
        "sensitivity": "Alternative analyses are not part of this run.",
        "controls": "The table of controls is not part of this run.",
        "pathways": "Pathways are not part of this run.",
        "arms": "The arm table is not part of this run.",
        "clones": "The table of clones is not part of this run.",
        "loss_audit": "The loss audit is not part of this run.",
        "identity": "The comparison of samples with each other is not part of this run.",
        "signature_coverage": "Signature coverage is not part of this run.",
        "stability": "The stability of the clusters is not part of this run.",
        "embedding": "The embedding is not part of this run.",
        "provenance": "The record of inputs, versions and seeds is not part of this run.",
        "qc_summaries": "Summaries of quality control are not part of this run.",
        "intake_reports": "Intake reports are not part of this run.",
        "cnv_statuses": "Copy-number statuses are not part of this run.",
        "cnv_windows": "No patient has copy-number windows",
        "cnv_cells": "The copy-number evidence of single cells is not part of this run.",
    }
    default = next(field.default for field in fields(ReportInputs) if field.name == name)
    nothing: Any = None if default is None else ()
    page = write(make(n_patients=2, n_cells=20, per_arm=1), tmp_path, lambda inputs: replace(inputs, **{name: nothing}))
    assert expected[name] in page.text


@pytest.mark.usefixtures("quick")
def test_only_the_needed_inputs(make: Any, tmp_path: Path) -> None:
    def bare(inputs: ReportInputs) -> ReportInputs:
        return ReportInputs({}, inputs.cells, inputs.claims, inputs.patients, inputs.verdict)

    page = write(make(n_patients=2, n_cells=20, per_arm=1), tmp_path, bare)
    assert "Disseminated tumour cells" in page.text
    assert page.text.count("not part of this run") >= 10


@pytest.mark.usefixtures("quick")
def test_no_dtc_at_all(make: Any, tmp_path: Path) -> None:
    study = make(**SMALL)
    marrow = study.cells["compartment"] == "marrow"
    study.cells.loc[marrow, "is_dtc"] = False
    study.cells.loc[marrow & (study.cells["malignant_call"] == "malignant"), "malignant_call"] = "normal"
    study.verdict = {"verdict": "INCONCLUSIVE", "codes": ["NO_TUMOUR_CELLS"]}
    study.patients = study.patients.iloc[:0]
    study.claims[["estimate", "ci_low", "ci_high"]] = np.nan
    page = write(study, tmp_path)
    assert "No disseminated tumour cell was found in any marrow sample." in page.text
    assert "0 disseminated tumour cells, in 0 patients" in page.text
    assert "no malignant cell was called" in page.text
    assert "No patient has a value for this claim; no estimate was made." in page.text
    assert "Samples in which malignant cells are found" in page.text


@pytest.mark.usefixtures("quick")
def test_no_malignant_cell_anywhere(make: Any, tmp_path: Path) -> None:
    study = make(**SMALL)
    study.cells["is_dtc"] = False
    study.cells["malignant_call"] = study.cells["malignant_call"].replace("malignant", "normal")
    study.arms, study.clones, study.loss_audit = study.arms.iloc[:0], study.clones.iloc[:0], study.loss_audit.iloc[:0]
    page = write(study, tmp_path)
    for sentence in (
        "No malignant cell was called in this patient.",
        "No arm was tested",
        "No clone was found.",
        "No cell that may be a tumour cell was removed, flagged or left undecided.",
    ):
        assert sentence in page.text


@pytest.mark.usefixtures("quick")
def test_no_reference_in_one_patient(make: Any, tmp_path: Path) -> None:
    study = make(**SMALL)
    study.statuses["PAT02"] |= {"status": "no_reference", "reason": "no normal marrow cells", "reference": {}}
    packed = study.windows["PAT02"]
    packed.obsm["X_cnv"] = np.zeros((packed.n_obs, 0), dtype=np.float32)
    packed.uns["cnv_windows"] = packed.uns["cnv_windows"].iloc[:0]
    page = write(study, tmp_path)
    assert "Copy number was not assessable in 1 patient: PAT02." in page.text
    assert "not assessable: no normal reference cells no normal marrow cells" in page.text
    assert "No windows, so no heatmap: PAT02." in page.text


@pytest.mark.usefixtures("quick")
def test_no_cell_passed(make: Any, tmp_path: Path) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.cells = study.cells.assign(pass_qc=False, qc_reasons="low_counts(1<5)", malignant_call="", is_dtc=False)
    study.umap = study.umap.iloc[:0]
    study.windows, study.cnv_cells = {}, study.cnv_cells.iloc[:0]
    page = write(study, tmp_path)
    assert "No cell passed quality control; every later section is empty for that reason." in page.text
    assert "There is no embedding" in page.text


def test_no_cell_was_read(make: Any, tmp_path: Path) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.cells, study.umap, study.windows = study.cells.iloc[:0], study.umap.iloc[:0], {}
    study.loss_audit, study.claims = study.loss_audit.iloc[:0], study.claims.iloc[:0]
    study.patients = study.patients.iloc[:0]
    page = write(study, tmp_path)
    assert "No sample was read." in page.text
    assert "The analysis plan names no claim." in page.text


@pytest.mark.usefixtures("quick")
def test_one_patient(make: Any, tmp_path: Path) -> None:
    study = make(n_patients=1, n_cells=30, per_arm=1, sixth_without_dtc=False)
    study.patients["usable"] = True
    page = write(study, tmp_path)
    assert "One patient: nothing here can be generalised" in page.text
    assert "One patient: an estimate over patients needs at least two" in page.text


@pytest.mark.usefixtures("quick")
def test_without_main_claim_and_without_random_sets(make: Any, tmp_path: Path) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    del study.verdict["claims"]
    assert "random gene sets' estimates are not part of this run" in write(study, tmp_path / "a").text
    study.claims = study.claims[study.claims["claim_id"] != "P2"]
    assert "has no claim P2, so there is no patient figure" in write(study, tmp_path / "b").text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("direction", "side"), [("greater", "right"), ("less", "left")])
def test_caption_points_to_the_predicted_side(make: Any, tmp_path: Path, direction: str, side: str) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.verdict["claims"]["P2"]["direction"] = direction
    assert f"whole width {side} of zero and its centre {side} of the band" in write(study, tmp_path).text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("verdict", "label"), [("SUPPORTED", "✓"), ("NOT_SUPPORTED", "✕"), ("INCONCLUSIVE", "?")])
def test_verdict_is_a_mark_and_a_word_and_not_only_a_colour(
    make: Any, tmp_path: Path, verdict: str, label: str
) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    study.verdict = {"verdict": verdict, "codes": []}
    page = write(study, tmp_path)
    text = page.text[page.text.index("Hypothesis") :][:200]
    assert label in text
    assert verdict.replace("_", " ").capitalize() in text


@pytest.mark.usefixtures("quick")
def test_cells_that_other_files_lack_or_add_do_no_harm(make: Any, tmp_path: Path) -> None:
    study = make(**SMALL)
    study.cells = pd.concat([study.cells, study.cells.iloc[[0]].assign(cell_id="new:cell", pass_qc=False)])
    gone = study.cells[study.cells["pass_qc"]]["cell_id"].iloc[0]
    inputs = study.write(tmp_path / "in")
    study.cells[study.cells["cell_id"] != gone].to_csv(tmp_path / "fewer.tsv.gz", sep="\t", index=False)
    build.write_report(replace(inputs, cells=tmp_path / "fewer.tsv.gz"), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_page_that_is_too_big_draws_less_and_in_the_end_refuses(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make(n_patients=2, n_cells=20, per_arm=1).write(tmp_path / "in")
    tried: list[tuple[int, float]] = []
    real = build.render

    def spy(assets: Any, *, max_points: int, detail: float = 1.0) -> Any:
        tried.append((max_points, detail))
        page, pictures = real(assets, max_points=max_points, detail=detail)
        return page + b" " * int(1_000_000 * detail), pictures

    monkeypatch.setattr(build, "render", spy)
    monkeypatch.setattr(build, "MAX_BYTES", 900_000)
    build.write_report(inputs, tmp_path / "fits.html")
    assert tried == [(3000, 1.0), (1500, 0.5)]
    monkeypatch.setattr(build, "MAX_BYTES", 10)
    with pytest.raises(DtcflowError, match=r"lower report\.max_points"):
        build.write_report(inputs, tmp_path / "never.html")
    assert not (tmp_path / "never.html").exists()
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_written_when_an_input_is_broken(make: Any, tmp_path: Path) -> None:
    inputs = make(n_patients=2, n_cells=20, per_arm=1).write(tmp_path / "in")
    with pytest.raises(DtcflowError):
        build.write_report(replace(inputs, arms=tmp_path / "absent"), tmp_path / "out" / "report.html")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
def test_findings_about_samples_are_in_the_overview(make: Any, tmp_path: Path) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    row = dict.fromkeys(study.identity.columns, "")
    row |= {"finding": "same_cells", "severity": "warning", "sample_id": "A", "other_sample_id": "<b>B"}
    row |= {"detail": "12 cells have exactly the same counts", "advice": "look for a swap", "n_cells": 30}
    study.identity = pd.DataFrame([row])
    first = next(iter(study.intake))
    study.intake[first] |= {"n_renamed": 417, "source": "layers['umi']", "sex": {"call": "female"}, "warnings": ["odd"]}
    page = write(study, tmp_path)
    assert "Samples may be swapped, mixed or repeated: 1 finding." in page.text
    assert "A and <b>B: 12 cells have exactly the same counts; look for a swap." in page.text
    assert "layers['umi']" in page.text
    assert "417" in page.text
    assert "Renamed" in page.text
