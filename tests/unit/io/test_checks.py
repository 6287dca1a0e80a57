from pathlib import Path

import pandas as pd
import pytest
import yaml

from dtcflow.io.checks import check_study
from dtcflow.study import init_study

HEAD = "# mine\nsample_id\tpatient_id\tcompartment\tpath\traw_path\tcnv_profile\tformat\n"


@pytest.fixture
def study(tmp_path, write_h5ad, counts):
    """A study folder with two good samples; the rows and settings can be changed."""
    init_study(tmp_path)
    for name in ("one.h5ad", "two.h5ad"):
        write_h5ad(counts, name=name, obs=pd.DataFrame({"kind": list("abcdef")}))

    def write(rows=None, head=HEAD, **settings):
        rows = rows or ["A\tP1\tmarrow\tone.h5ad\t\t\t", "B\tP1\tprimary\ttwo.h5ad\t\t\t"]
        (tmp_path / "config" / "samples.tsv").write_text(head + "\n".join(rows) + "\n")
        path = tmp_path / "config" / "config.yaml"
        path.write_text(yaml.safe_dump(settings))
        return check_study("config/config.yaml", base_dir=tmp_path)

    return write


def found(problems):
    return [(Path(problem.where).name, problem.row, problem.key) for problem in problems]


def test_a_good_study_has_no_problem(study):
    assert study() == []


def test_every_input_is_looked_at(study, tmp_path):
    (tmp_path / "empty.h5ad").touch()
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "one.h5ad").read_bytes()[:3000])
    (tmp_path / "text.h5ad").write_text("<html>")
    problems = study(
        [
            "A\tP1\tmarrow\tempty.h5ad\t\t\t",
            "B\tP1\tprimary\tcut.h5ad\t\t\t",
            "C\tP2\tmarrow\tgone.h5ad\t\t\t",
            "D\tP2\tprimary\ttext.h5ad\t\t\t",
            "E\tP3\tmarrow\tone.h5ad\tno_raw.h5\tno.seg\t",
            "P1\tP4\tmarrow\ttwo.h5ad\t\t\t10x_h5",
        ]
    )
    sheet = "samples.tsv"
    assert found(problems) == [
        *((sheet, row, "path") for row in (3, 4, 5, 6)),
        *((sheet, 7, key) for key in ("raw_path", "cnv_profile")),
        (sheet, 8, "path"),
    ]
    texts = [str(problem) for problem in problems]
    for text, words in zip(
        texts, ("0 bytes", "ends too early", "no such file", "text", "no_raw", "no.seg"), strict=False
    ):
        assert words in text
    assert "set format to auto or h5ad" in texts[-1]


def test_files_that_the_configuration_names(study):
    problems = study(
        claims="config/none.yaml",
        annotation={"panels": "none.tsv"},
        scores={"gmt": ["none.gmt"], "signatures": "config"},
        intake={"gene_positions": "none.gtf"},
    )
    assert {problem.key for problem in problems} == {
        *("claims", "annotation.panels", "scores.gmt", "scores.signatures", "intake.gene_positions")
    }


def test_a_broken_plan_is_told(study, tmp_path):
    (tmp_path / "config" / "claims.yaml").write_text("claims: 3\n")
    assert {Path(problem.where).name for problem in study()} == {"claims.yaml"}


def test_problems_of_plan_and_sheet_come_together(study):
    problems = study(["A\tP1\tmarow\tone.h5ad\t\t\t"], claims="none.yaml")
    assert {problem.key for problem in problems} == {"claims", "compartment"}


def test_a_broken_configuration_or_none(study, tmp_path):
    assert found(study(sead=1)) == [("config.yaml", None, "sead")]
    assert "no such file" in str(check_study("config/other.yaml", base_dir=tmp_path)[0]).lower()


def test_a_mapping_works_as_well_as_a_file(study, tmp_path):
    study()
    assert check_study({}, base_dir=tmp_path) == []
    assert [p.where for p in check_study({"sead": 1}, base_dir=tmp_path)] == ["config"]


def test_the_layer_and_the_reference_column_must_be_there(study):
    problems = study(intake={"layer": "umi"}, copy_number={"reference_key": "kinds", "reference_labels": ["a"]})
    assert found(problems)[:2] == [("samples.tsv", 3, "path"), ("samples.tsv", 4, "path")]
    assert [problem.key for problem in problems[2:]] == ["copy_number.reference_key"] * 2
    assert study(copy_number={"reference_key": "kind", "reference_labels": ["a"]}) == []


def test_matrices_that_the_simulation_makes_are_not_looked_for(study):
    rows = ["A\tP1\tmarrow\tresults/simulated/matrices/A.h5ad\t\t\t", "B\tP1\tprimary\tgone.h5ad\t\t\t"]
    assert [(problem.row, problem.key) for problem in study(rows, simulate={})] == [(4, "path")]
    assert [problem.row for problem in study(rows)] == [3, 4]


def test_only_headers_are_read(study, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a matrix was loaded")

    monkeypatch.setattr("dtcflow.io.stored.SparseMatrix.load", never)
    monkeypatch.setattr("dtcflow.io.stored.DenseMatrix.load", never)
    assert study() == []


def test_samples_of_one_file_are_looked_for(study, tmp_path):
    head = HEAD.rstrip("\n") + "\tsample_column\tsample_value\n"
    rows = ["A\tP1\tmarrow\tone.h5ad\t\t\t\tkind\ta", "B\tP1\tprimary\tone.h5ad\t\t\t\tkind\tb"]
    assert study(rows, head=head) == []
    rows = ["A\tP1\tmarrow\tone.h5ad\t\t\t\tkind\t", "B\tP1\tprimary\tone.h5ad\t\t\t\tkind\tz"]
    problems = study(rows, head=head)
    assert found(problems) == [("samples.tsv", 3, "path"), ("samples.tsv", 4, "path")]
    assert "a (1 cells), b (1 cells)" in problems[0].found
