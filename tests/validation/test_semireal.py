"""Real carcinoma cells as disseminated tumour cells, through the real workflow."""

from __future__ import annotations

import hashlib
import html
import json
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import semireal
from truth_table import compare, read_truth

from dtcflow.contracts import InputError, read_json, read_stage, read_table

pytestmark = pytest.mark.validation

TABLES = {
    "cells": "cells.tsv.gz",
    "loss_audit": "qc/loss_audit.tsv",
    "arms": "cnv/arms.tsv",
    "clones": "cnv/clones.tsv",
    "claims": "evidence/claims.tsv",
    "patients": "evidence/patients.tsv",
}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def ovarian(shared_data):
    return shared_data / "ovarian_qian2020_swiftcnv" / "ovarian_qian2020_swiftcnv.h5ad"


@pytest.fixture(scope="module")
def study(ovarian, tmp_path_factory):
    folder = tmp_path_factory.mktemp("semireal")
    semireal.semireal_cohort(semireal.ovarian_cells(wheel=None, h5ad=ovarian), folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def results(study, snakemake, house):
    done = snakemake(study, house=house)
    assert done.code == 0, done.text
    return study / "results"


def test_no_cell_is_used_twice_and_tumour_cells_in_marrow_are_thinned(study, ovarian):
    cells = ad.read_h5ad(ovarian)
    total = pd.Series(np.asarray(sp.csr_matrix(cells.X).sum(axis=1)).ravel())
    truth = read_truth(study / "truth" / "cells.tsv.gz")
    number = truth["cell_id"].str.extract(r"cell(\d+)$")[0].astype(int)
    assert sorted(number) == list(range(4000))
    in_marrow = truth["cell_id"].str.contains("_marrow:")
    assert (in_marrow & truth["is_tumour"]).sum() == sum(semireal.DTC_PER_PATIENT)
    marrow = ad.concat([ad.read_h5ad(path) for path in sorted((study / "matrices").glob("*_marrow.h5ad"))])
    found = pd.Series(np.asarray(marrow.X.sum(axis=1)).ravel(), index=[int(name[4:]) for name in marrow.obs_names])
    share = found / total.loc[found.index]
    planted = set(number[in_marrow & truth["is_tumour"]])
    thinned = share[share.index.isin(planted)]
    assert thinned.between(0.3, 0.5).all()
    assert thinned.mean() == pytest.approx(semireal.THINNING, abs=0.01)
    assert (share[~share.index.isin(planted)] == 1).all()


def test_the_wheel_holds_the_same_cells(study, ovarian, tmp_path, monkeypatch):
    wheel = tmp_path / "swiftcnv-0.2.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(ovarian, semireal.MEMBER)
    monkeypatch.setattr(semireal, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr("sys.argv", ["semireal.py", "--out", str(tmp_path / "study"), "--wheel", str(wheel)])
    assert semireal.main() == 0
    built = digest(tmp_path / "study")
    assert built.pop(".complete")
    made = {
        name: value for name, value in digest(study).items() if name.split("/")[0] in ("config", "matrices", "truth")
    }
    assert built == made


def test_a_finished_folder_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / ".complete").write_text("7\n")
    monkeypatch.setattr("sys.argv", ["semireal.py", "--out", str(tmp_path), "--seed", "7", "--wheel", "nowhere"])
    assert semireal.main() == 0
    assert [path.name for path in tmp_path.iterdir()] == [".complete"]


def test_another_file_is_not_taken_for_the_wheel(tmp_path, monkeypatch, capsys):
    wheel = tmp_path / "swiftcnv-0.2.2-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    out = tmp_path / "study"
    monkeypatch.setattr("sys.argv", ["semireal.py", "--out", str(out), "--wheel", str(wheel)])
    assert semireal.main() == 2
    said = capsys.readouterr().err
    assert hashlib.sha256(b"something else").hexdigest() in said
    assert semireal.WHEEL_SHA256 in said
    assert not out.exists()


@pytest.mark.parametrize("kind", ["wheel", "h5ad"])
def test_a_wrong_path_is_named(tmp_path, kind):
    with pytest.raises(InputError, match="nowhere: found no such file"):
        semireal.ovarian_cells(**{"wheel": None, "h5ad": None} | {kind: tmp_path / "nowhere"})


def test_other_cells_are_refused(tmp_path):
    ad.AnnData(np.ones((2, 2), np.float32)).write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="no obs column sample, cell_type"):
        semireal.ovarian_cells(wheel=None, h5ad=tmp_path / "x.h5ad")


def test_without_a_network_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(InputError) as error:
        semireal.ovarian_cells(wheel=None, h5ad=None)
    lines = str(error.value).splitlines()
    assert lines[0] == "swiftcnv==0.2.2 could not be downloaded"
    assert lines[1].startswith("  - PyPI: found no download (")
    assert lines[1].endswith("fix: make demo-real SWIFTCNV_WHEEL=<a local copy of the wheel>")


def test_tumour_cells_are_found_and_hardly_a_normal_cell_is_called(results, study):
    cells = read_table(results / "cells.tsv.gz", "cells")
    table = compare(cells, read_truth(study / "truth" / "cells.tsv.gz"))
    marrow = table[(table["compartment"] == "marrow") & (table["sample_id"] == "all")].iloc[0]
    assert marrow["tumour"] == sum(semireal.DTC_PER_PATIENT)
    assert marrow["recall"] >= 0.9
    assert marrow["false_calls"] <= 2
    primary = table[(table["compartment"] == "primary") & (table["sample_id"] == "all")].iloc[0]
    assert primary["recall"] >= 0.9
    assert primary["precision"] >= 0.98
    assert cells["pass_qc"].all()


def test_four_patients_decide_nothing(results):
    claims = read_table(results / "evidence" / "claims.tsv", "claims").set_index("claim_id")
    assert claims.loc["P2", "verdict"] == "INCONCLUSIVE"
    assert "LOW_N" in claims.loc["P2", "codes"].split(";")
    assert read_json(results / "evidence" / "verdict.json")["verdict"] == "INCONCLUSIVE"


def test_the_report_says_what_the_cells_are(results):
    page = html.unescape((results / "report.html").read_text())
    assert semireal.NOTICE in page
    assert len(page) < 10_000_000


def test_every_public_output_is_there_with_its_columns(results):
    for name, path in TABLES.items():
        assert len(read_table(results / path, name)), path
    assert read_stage(results / "cohort.h5ad", "cohort").n_obs == 4000
    assert (results / "cnv" / "tree.nwk").read_text().strip().endswith(";")
    assert len(pd.read_csv(results / "evidence" / "pathways.tsv", sep="\t"))
    provenance = json.loads((results / "provenance.json").read_text())
    assert provenance
