"""What can be wrong with an input: each ends in one clear message, or in a complete result that says so."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml

from dtcflow.contracts import read_table

ROOT = Path(__file__).parents[2]
HEADER = ("sample_id", "patient_id", "compartment", "path")
GOOD = "barcode,EPCAM,KRT8,PTPRC\nA,4,2,0\nB,0,0,3\nC,1,0,2\n"


class Study:
    """A study folder under the hands of somebody who makes mistakes."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(ROOT / "config", folder / "config")
        self.rows = [["P1_marrow", "P1", "marrow", "good.csv"], ["P1_primary", "P1", "primary", "good.csv"]]
        self.settings = {"seed": 1}
        self.header = HEADER
        (folder / "good.csv").write_text(GOOD)

    def write(self):
        lines = ["\t".join(row) for row in (self.header, *self.rows)]
        (self.folder / "config" / "samples.tsv").write_text("\n".join(lines) + "\n")
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(self.settings))

    def file(self, name, content=b""):
        """Put a file where the first sample is looked for."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.rows[0][3] = name
        return path


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study").mkdir()
    return Study(tmp_path / "study")


def unknown_key(study):
    study.settings["qc"] = {"n_mad": 3}


def wrong_type(study):
    study.settings["qc"] = {"n_mads": "five"}
    study.settings["seed"] = -1


def duplicate_sample(study):
    study.rows.append(list(study.rows[0]))


def missing_sample_id(study):
    study.rows[1][0] = ""


def missing_column(study):
    study.header = HEADER[1:]
    study.rows = [row[1:] for row in study.rows]


def unknown_compartment(study):
    study.rows[0][2] = "bone"


def wrong_path(study):
    study.rows[0][3] = "data/gone.h5ad"


def empty_file(study):
    study.file("empty.h5ad")


def truncated_h5ad(study):
    path = study.file("cut.h5ad")
    ad.AnnData(np.ones((50, 60), dtype=np.float32)).write_h5ad(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_h5(study):
    truncated_h5ad(study)
    (study.folder / "cut.h5ad").rename(study.folder / "cut.h5")
    study.rows[0][3] = "cut.h5"


def truncated_gz(study):
    content = gzip.compress((GOOD + "".join(f"X{i},{i * 7919 % 101},0,1\n" for i in range(5000))).encode(), mtime=0)
    study.file("cut.csv.gz", content[: len(content) // 2])


def a_web_page(study):
    study.file("page.h5ad", "<html>404</html>")


def no_plan(study):
    (study.folder / "config" / "claims.yaml").unlink()


AT_ONCE = {
    # mistake: key or column; row; what must be said
    unknown_key: ("config/config.yaml, qc.n_mad", "unknown key", "did you mean 'qc.n_mads'"),
    wrong_type: ("config/config.yaml, qc.n_mads", "'five'", "config/config.yaml, seed", "-1"),
    duplicate_sample: ("samples.tsv, row 4, sample_id", "P1_marrow", "row 2"),
    missing_sample_id: ("samples.tsv, row 3, sample_id", "empty"),
    missing_column: ("samples.tsv", "sample_id", "column"),
    unknown_compartment: ("samples.tsv, row 2, compartment", "bone", "marrow"),
    wrong_path: ("samples.tsv, row 2, path", "data/gone.h5ad", "no such file"),
    empty_file: ("samples.tsv, row 2, path", "empty.h5ad", "0 bytes"),
    truncated_h5ad: ("samples.tsv, row 2, path", "cut.h5ad", "ends too early"),
    truncated_h5: ("samples.tsv, row 2, path", "cut.h5", "ends too early"),
    truncated_gz: ("samples.tsv, row 2, path", "cut.csv.gz", "ends too early"),
    a_web_page: ("samples.tsv, row 2, path", "page.h5ad"),
    no_plan: ("config/config.yaml, claims", "config/claims.yaml", "dtcflow init"),
}


@pytest.mark.parametrize("mistake", AT_ONCE, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_told_before_anything_runs(mistake, study, snakemake, house):
    mistake(study)
    study.write()
    done = snakemake(study.folder, house=house)
    assert done.code != 0
    assert "Traceback" not in done.text
    for words in (*AT_ONCE[mistake], "found ", "allowed: ", "fix: "):
        assert words in done.text, done.text
    assert not (study.folder / "results").exists(), "nothing may have run"


@pytest.mark.parametrize(
    ("text", "words"),
    [("seed: 1\n  qc: [\n", "row 2"), ("seed: 1\nqc: {}\nseed: 2\n", "the key 'seed' is written twice")],
    ids=["no YAML", "a key twice"],
)
def test_a_configuration_that_cannot_be_read(text, words, study, snakemake, house):
    study.write()
    (study.folder / "config" / "config.yaml").write_text(text)
    done = snakemake(study.folder, house=house)
    assert done.code != 0
    for expected in ("config/config.yaml, row ", words, "found ", "allowed: ", "fix: "):
        assert expected in done.text, done.text
    assert "Traceback" not in done.text


def test_all_mistakes_come_together(study, snakemake, house):
    duplicate_sample(study)
    unknown_compartment(study)
    no_plan(study)
    study.write()
    text = snakemake(study.folder, house=house).text
    for words in ("row 4, sample_id", "row 2, compartment", "claims"):
        assert words in text


VALUES = {
    "negative": (GOOD.replace("A,4", "A,-4"), ("negative", "-4")),
    "log-normalised": (GOOD.replace(",4,2,0", ",1.609437,1.098612,0"), ("whole numbers",)),
    "not a number": (GOOD.replace("A,4", "A,high"), ("high",)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_that_are_no_counts(kind, study, snakemake, house):
    content, words = VALUES[kind]
    study.file("bad.csv", content)
    study.rows = study.rows[:1]
    study.write()
    done = snakemake(study.folder, house=house)
    assert done.code != 0
    assert "Traceback" not in done.text
    for expected in (*words, "bad.csv", "found ", "allowed: ", "fix: "):
        assert expected in done.text, done.text
    assert "dtcflow: failed: read_sample P1_marrow." in done.text
    assert not list((study.folder / "results").rglob("*.h5ad")), "nothing that looks finished"


def test_one_broken_sample_does_not_stop_the_others(copy_of, snakemake, house):
    folder = copy_of("broken")
    for name in ("P01_primary", "P02_marrow", "P02_primary"):
        (folder / "matrices" / f"{name}.h5ad").unlink()
    (folder / "matrices" / "bad.csv").write_text(VALUES["negative"][0])
    sheet = folder / "config" / "samples.tsv"
    rows = sheet.read_text().splitlines()[:3]
    sheet.write_text("\n".join(rows).replace("matrices/P01_primary.h5ad", "matrices/bad.csv") + "\n")
    done = snakemake(folder, cores=1, house=house)
    assert done.code != 0
    assert "Traceback" not in done.text
    assert (folder / "results" / "qc" / "samples" / "P01_marrow.tsv.gz").is_file()
    ends = done.text[done.text.index("dtcflow: failed:") :].splitlines()
    assert ends[0].startswith("dtcflow: failed: read_sample P01_primary.")
    assert ends[1].startswith("  - read_sample P01_primary: matrices/bad.csv")
    assert "results/logs/read_sample/P01_primary.log" in ends[1]
    assert not (folder / "results" / "cells.tsv.gz").exists()


# ----------------------------------------------------------------------------- little, but enough for a complete result


def some_cells(folder, sample, chosen):
    """Reduce a sample of the simulated cohort to the cells ``chosen`` by their truth."""
    truth = read_table(folder / "truth" / "cells.tsv.gz").set_index("cell_id")
    path = folder / "matrices" / f"{sample}.h5ad"
    adata = ad.read_h5ad(path)
    of_cells = truth.loc[[f"{sample}:{name}" for name in adata.obs_names]]
    adata[np.flatnonzero(chosen(of_cells))].copy().write_h5ad(path)


def keep_samples(folder, *samples):
    sheet = folder / "config" / "samples.tsv"
    rows = pd.read_csv(sheet, sep="\t", dtype=str)
    rows[rows["sample_id"].isin(samples)].to_csv(sheet, sep="\t", index=False)


def flag(cells, column):
    return (cells[column].astype(str).str.lower() == "true").to_numpy()


def no_mitochondrial_genes_and_one_patient(folder):
    keep_samples(folder, "P01_marrow", "P01_primary")
    for name in ("P01_marrow", "P01_primary"):
        path = folder / "matrices" / f"{name}.h5ad"
        adata = ad.read_h5ad(path)
        adata[:, ~adata.var_names.str.startswith("MT-")].copy().write_h5ad(path)


def no_tumour_cell(folder):
    keep_samples(folder, "P01_marrow")
    some_cells(folder, "P01_marrow", lambda cells: ~flag(cells, "is_tumour") & ~flag(cells, "is_doublet"))


def no_reference_cell(folder):
    keep_samples(folder, "P01_primary")
    some_cells(folder, "P01_primary", lambda cells: flag(cells, "is_tumour"))


def one_cell(folder):
    keep_samples(folder, "P01_marrow")
    some_cells(folder, "P01_marrow", lambda cells: np.arange(len(cells)) == 0)


COMPLETE = {
    no_mitochondrial_genes_and_one_patient: (("LOW_N",), ("of 1 patient",), ("no mitochondrial genes", "One patient")),
    no_tumour_cell: (
        ("NO_TUMOUR_CELLS",),
        ("no tumour cell found", "smallest detectable clone"),
        ("no malignant cell",),
    ),
    no_reference_cell: (("NO_TUMOUR_CELLS",), ("P01: copy number not assessable",), ("no normal reference cells",)),
    one_cell: (("NO_TUMOUR_CELLS",), ("1 read from 1 sample", "not assessable"), ("no normal reference cells",)),
}


@pytest.mark.parametrize("case", COMPLETE, ids=lambda case: case.__name__)
def test_little_input_gives_a_complete_result_that_says_so(case, copy_of, snakemake, dtcflow, house):
    folder = copy_of(case.__name__)
    case(folder)
    done = snakemake(folder, house=house)
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    codes, said, reported = COMPLETE[case]
    results = folder / "results"
    verdict = json.loads((results / "evidence" / "verdict.json").read_text())
    assert verdict["verdict"] == "INCONCLUSIVE"
    assert set(codes) <= set(verdict["codes"])
    text = " ".join(dtcflow("verdict", "--results", results, cwd=folder, house=house).out.split())
    for words in said:
        assert words in text
    page = (results / "report.html").read_text()
    for words in reported:
        assert words in page
    cells = read_table(results / "cells.tsv.gz", "cells")
    if "NO_TUMOUR_CELLS" in codes:
        assert not (cells["malignant_call"] == "malignant").any()
        assert not cells["is_dtc"].any()
    if case is no_mitochondrial_genes_and_one_patient:
        assert cells["pct_mt"].isna().all(), "missing is not zero"
    if case is no_reference_cell:
        assert cells["malignancy_q"].isna().all()
        assert cells.loc[cells["pass_qc"], "call_reasons"].str.contains("cnv_not_assessable:no_reference").all()
