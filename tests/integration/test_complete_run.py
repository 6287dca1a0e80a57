"""A complete run of a study folder: every public output, with its columns."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import anndata as ad
import numpy as np
import pytest

from dtcflow.contracts import CODES, TABLES, VERDICTS, check_stage, read_table
from dtcflow.qc.thresholds import removing_reasons

PUBLIC = (
    *("cohort.h5ad", "cells.tsv.gz", "qc/loss_audit.tsv", "cnv/arms.tsv", "cnv/clones.tsv", "cnv/tree.nwk"),
    "cnv/events.tsv",
    *("evidence/claims.tsv", "evidence/patients.tsv", "evidence/verdict.json", "report.html", "provenance.json"),
    *("intake/identity.tsv", "cnv/comparison.tsv", "cnv/segments.seg"),
)
PUBLIC_TABLES = {
    "cells.tsv.gz": "cells",
    "qc/loss_audit.tsv": "loss_audit",
    "intake/identity.tsv": "identity",
    "qc/waterfall.tsv": "qc_waterfall",
    "qc/summary.tsv": "qc_summary",
    "cnv/arms.tsv": "arms",
    "cnv/clones.tsv": "clones",
    "cnv/events.tsv": "clone_events",
    "evidence/claims.tsv": "claims",
    "evidence/patients.tsv": "patients",
}


class Loads(HTMLParser):
    """Addresses a page would load when it is opened (links that wait for a click do not count)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "srcset", "data", "poster"} or (name in {"href", "xlink:href"} and tag != "a"):
                self.found.append(value or "")
            elif name == "style":
                self.found += re.findall(r"url\(([^)]*)\)", value or "")


def head_of(path):
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return text.splitlines()[0].split("\t")


def test_every_public_output_is_there(finished):
    for name in PUBLIC:
        assert (finished.results / name).stat().st_size > 0, name


@pytest.mark.parametrize("name", PUBLIC_TABLES)
def test_a_public_table_has_the_columns_of_the_contract(name, finished):
    columns = TABLES[PUBLIC_TABLES[name]]
    assert tuple(head_of(finished.results / name)[: len(columns)]) == columns
    rows = read_table(finished.results / name, PUBLIC_TABLES[name])
    # the simulated samples are neither swapped nor mixed: a table without a finding is the right one
    assert len(rows) > 0 or name == "intake/identity.tsv"


def test_every_input_cell_has_a_row(finished, cohort):
    cells = read_table(finished.results / "cells.tsv.gz", "cells")
    barcodes = {
        f"{path.stem}:{name}"
        for path in sorted((cohort / "matrices").glob("*.h5ad"))
        for name in ad.read_h5ad(path, backed="r").obs_names
    }
    assert set(cells["cell_id"]) == barcodes
    assert len(cells) == len(barcodes)
    assert set(cells["malignant_call"]) <= {"malignant", "normal", "indeterminate"}
    is_dtc = (cells["malignant_call"] == "malignant") & (cells["compartment"] == "marrow")
    assert cells["is_dtc"].equals(is_dtc.rename("is_dtc"))
    # a remark (note:...) removes nobody
    removing = np.array([bool(removing_reasons(text)) for text in cells["qc_reasons"]])
    assert (removing == ~cells["pass_qc"]).all()
    assert (cells["qc_class"].eq("poor") == ~cells["pass_qc"]).all()


def test_the_planted_tumour_cells_are_found(finished, cohort):
    truth = (
        read_table(cohort / "truth" / "cells.tsv.gz").set_index("cell_id")["is_tumour"].astype(str).str.lower()
        == "true"
    )
    cells = read_table(finished.results / "cells.tsv.gz", "cells").set_index("cell_id")
    called = cells["malignant_call"] == "malignant"
    truth = truth.loc[cells.index]
    assert (called & truth).sum() >= 0.8 * truth.sum()
    assert (called & ~truth).sum() <= 0.1 * called.sum()
    lost = cells.index[truth & ~called]
    listed = set(read_table(finished.results / "qc" / "loss_audit.tsv", "loss_audit")["cell_id"])
    assert len(set(lost) - listed) <= 0.1 * truth.sum(), "a tumour cell that is not called should be in the loss audit"


def test_the_cohort_object_meets_its_contract(finished):
    adata = ad.read_h5ad(finished.results / "cohort.h5ad")
    check_stage(adata, "cohort", "cohort.h5ad")
    cells = read_table(finished.results / "cells.tsv.gz", "cells")
    assert set(adata.obs_names) == set(cells.loc[cells["pass_qc"], "cell_id"])


def test_two_patients_decide_nothing(finished):
    verdict = json.loads((finished.results / "evidence" / "verdict.json").read_text())
    claims = read_table(finished.results / "evidence" / "claims.tsv", "claims").set_index("claim_id")
    assert verdict["verdict"] == "INCONCLUSIVE"
    assert verdict["not_evaluated"] == []
    assert "LOW_N" in verdict["codes"]
    assert set(claims["verdict"]) <= set(VERDICTS)
    assert {code for codes in claims["codes"] for code in codes.split(";") if code} <= set(CODES)
    assert "LOW_N" in claims.loc["P2", "codes"].split(";")


def test_the_report_opens_offline(finished):
    page = finished.results / "report.html"
    assert page.stat().st_size < 10_000_000
    text = page.read_text()
    loads = Loads()
    loads.feed(text)
    assert not [address for address in loads.found if not address.startswith(("data:", "#"))]
    assert not re.findall(r"@import|url\(\s*['\"]?(?!data:|#)[^)'\"]", re.sub(r"data:[^)'\"]+", "data:", text))
    assert "SIMULATED DATA" in text


def test_the_record_of_the_run(finished, cohort):
    record = json.loads((finished.results / "provenance.json").read_text())
    assert set(record["inputs"]) == {path.stem for path in (cohort / "matrices").iterdir()}
    for sample, entry in record["inputs"].items():
        assert entry["input"] == f"matrices/{sample}.h5ad"
        assert entry["format"] == "h5ad"
        content = (cohort / entry["input"]).read_bytes()
        assert entry["sha256"] == {f"{sample}.h5ad": hashlib.sha256(content).hexdigest()}
    assert record["seeds"] == {"seed": record["parameters"]["seed"]}
    assert record["packages"]["scanpy"] not in ("", "not installed")
    assert str(finished.folder) not in json.dumps(record), "the record does not depend on where the run took place"


def test_a_second_run_has_nothing_to_do(finished, dry_run, house):
    done = dry_run(finished.folder, house=house)
    assert done.jobs == []
    assert "Nothing to be done" in done.text


@pytest.mark.parametrize("edited", ["src/dtcflow/evidence/robustness.py", "workflow/scripts/test_claims.py"])
def test_an_edit_runs_its_steps_and_those_that_follow(edited, finished, dry_run, house):
    path = house / edited
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        assert dry_run(finished.folder, house=house).rules == ["test_claims", "write_report"]
    finally:
        path.write_text(before)


def test_a_changed_setting_runs_its_steps_and_those_that_follow(finished, dry_run, house):
    path = finished.folder / "config" / "config.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("self_check_repeats: 20", "self_check_repeats: 21"))
        assert path.read_text() != before
        # the record and the report show all settings, the object carries the record
        assert dry_run(finished.folder, house=house).rules == [
            *("assemble_cohort", "record_provenance", "test_claims", "write_report")
        ]
    finally:
        path.write_text(before)


def test_the_verdict_on_the_command_line(finished, dtcflow, house):
    done = dtcflow("verdict", "--results", finished.results, cwd=finished.folder, house=house)
    assert done.code == 0, done.err
    verdict = json.loads((finished.results / "evidence" / "verdict.json").read_text())
    text = " ".join(done.out.split())
    assert f"Verdict: {verdict['verdict']}" in text
    assert verdict["sentence"] in text
    assert "SIMULATED DATA" in text
    for claim in ("C0", "P1", "P2", "P3"):
        assert f" {claim} " in text
    cells = read_table(finished.results / "cells.tsv.gz", "cells")
    assert f"{len(cells):,} read from 4 samples of 2 patients" in text
    assert f"{int(cells['is_dtc'].sum())} DTCs among them" in text
    assert str(finished.results / "report.html") in text


def test_snakemakes_own_report(finished, snakemake, house, tmp_path):
    import zipfile

    done = snakemake(finished.folder, "--report", tmp_path / "report.zip", house=house)
    assert done.code == 0, done.text
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        page = "".join(
            archive.read(name).decode("utf-8", "replace")
            for name in archive.namelist()
            if name.endswith((".html", ".js"))
        )
        names = " ".join(archive.namelist())
    for label in ("claims", "chromosome arms", "loss audit", "all cells", "patients", "UMAP", "QC waterfall"):
        assert f'"{label}"' in page, label
    for category in ("Verdict", "Cells", "Copy number"):
        assert category in page
    assert "umap.png" in names
