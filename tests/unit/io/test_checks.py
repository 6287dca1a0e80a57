import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from dtcflow.contracts import DtcflowError
from dtcflow.evidence.plan import load_plan
from dtcflow.io.checks import check_study, examine_study
from dtcflow.study import init_study

HEAD = "# mine\nsample_id\tpatient_id\tcompartment\tpath\traw_path\tcnv_profile\tformat\n"


@pytest.fixture
def study(tmp_path, write_h5ad, counts):
    """A study folder with two good samples; the rows and settings can be changed."""
    init_study(tmp_path)
    for name, values in (("one.h5ad", counts), ("two.h5ad", counts + 1)):
        write_h5ad(values, name=name, obs=pd.DataFrame({"kind": list("abcdef")}))

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


# ------------------------------------------------------------------------------------ everything at once, and identity


def test_a_wrong_sheet_does_not_hide_missing_inputs(study):
    problems = study(
        [
            "A\tP1\tmarow\tone.h5ad\t\t\t",
            "A\tP1\tprimary\tgone.h5ad\t\tno.seg\t",
            "B\tP 2\tmarrow\ttwo.h5ad\tno_raw.h5\t\tloom5",
        ]
    )
    assert sorted(found(problems)) == [
        *(("samples.tsv", 3, "compartment"), ("samples.tsv", 4, "cnv_profile"), ("samples.tsv", 4, "path")),
        *(("samples.tsv", 4, "sample_id"), ("samples.tsv", 5, "format"), ("samples.tsv", 5, "patient_id")),
        ("samples.tsv", 5, "raw_path"),
    ]


def test_a_wrong_configuration_does_not_hide_a_wrong_sheet(study):
    problems = study(["A\tP1\tmarow\tone.h5ad\t\t\t", "B\tP1\tmarrow\tgone.h5ad\t\t\t"], sead=1, claims="none.yaml")
    assert [problem.key for problem in problems] == ["sead", "claims", "compartment", "path"]


def test_a_configuration_that_is_no_yaml_is_the_only_thing_told(study, tmp_path):
    study()
    (tmp_path / "config" / "config.yaml").write_text("a: [1\nb: }")
    assert len(check_study("config/config.yaml", base_dir=tmp_path)) == 1


def test_one_file_under_two_names_is_refused(study, tmp_path):
    shutil.copy(tmp_path / "one.h5ad", tmp_path / "copy.h5ad")
    (problem,) = study(["A\tP1\tmarrow\tone.h5ad\t\t\t", "B\tP2\tmarrow\tcopy.h5ad\t\t\t"])
    assert (problem.row, problem.key) == (4, "path")
    assert "the same file as 'one.h5ad' of sample 'A' in row 3" in problem.found
    assert "copied under a wrong name" in problem.fix


def test_a_copied_10x_folder_is_refused(study, tmp_path, write_10x_folder, counts):
    folder = write_10x_folder(counts)
    shutil.copytree(folder, tmp_path / "again")
    (problem,) = study([f"A\tP1\tmarrow\t{folder.name}\t\t\t", "B\tP2\tmarrow\tagain\t\t\t"])
    assert "the same file" in problem.found
    (tmp_path / "again" / "barcodes.tsv.gz").write_bytes(
        gzip.compress("".join(f"C{i}\n" for i in range(6)).encode(), mtime=0)
    )
    assert study([f"A\tP1\tmarrow\t{folder.name}\t\t\t", "B\tP2\tmarrow\tagain\t\t\t"]) == []


def test_files_are_hashed_only_when_they_look_alike(study, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a file was read as a whole")

    monkeypatch.setattr("dtcflow.io.header_checks.sha256", never)
    assert study() == []


MOUSE = ["Actb", "Gapdh", "Krt8", "Krt18", "Epcam", "mt-Co1", "Cd3e", "Ptprc"]


def test_mouse_unknown_and_mixed_genes_are_told_before_the_run(study, write_h5ad, write_10x_folder, counts):
    write_h5ad(counts, name="mouse.h5ad", genes=MOUSE)
    write_h5ad(counts, name="numbers.h5ad", genes=[str(i) for i in range(8)])
    write_h5ad(counts, name="transcripts.h5ad", genes=[f"ENST{i:011d}" for i in range(8)])
    write_h5ad(
        np.ones((6, 60)),
        name="mixed.h5ad",
        genes=[f"GRCh38_G{i}" for i in range(30)] + [f"mm10___G{i}" for i in range(30)],
    )
    folder = write_10x_folder(counts, name="rats", genes=[f"ENSRNOG{i:011d}" for i in range(8)])
    (folder / "features.tsv.gz").write_bytes(
        gzip.compress("".join(f"ENSRNOG{i:011d}\n" for i in range(8)).encode(), mtime=0)
    )
    problems = study(
        [
            "A\tP1\tmarrow\tmouse.h5ad\t\t\t",
            "B\tP2\tmarrow\tnumbers.h5ad\t\t\t",
            "C\tP3\tmarrow\ttranscripts.h5ad\t\t\t",
            "D\tP4\tmarrow\tmixed.h5ad\t\t\t",
            "E\tP5\tmarrow\trats\t\t\t",
        ]
    )
    assert found(problems) == [("samples.tsv", row, "path") for row in (3, 4, 5, 6, 7)]
    for problem, words in zip(
        problems,
        (
            *("8 of 8 genes are named as in the mouse", "0.0% of 8 gene names are known", "sum them up to genes"),
            *("30 human genes and 30 mouse genes", "8 of 8 genes are named as in the rat"),
        ),
        strict=True,
    ):
        assert words in str(problem)


def test_positions_of_another_build_are_told(study, tmp_path):
    from dtcflow.genes import load_positions

    own = load_positions().iloc[:2000].assign(start=lambda t: t["start"] + 200_000, end=lambda t: t["end"] + 200_000)
    own[["symbol", "chromosome", "start", "end"]].to_csv(tmp_path / "own.tsv", sep="\t", index=False)
    (problem,) = study(intake={"gene_positions": "own.tsv"})
    assert "genes at the places of GRCh37, while intake.genome_build is GRCh38" in problem.found
    assert study(intake={"gene_positions": "own.tsv", "genome_build": "GRCh37"}) == []


def test_what_a_study_can_run_with_is_a_warning(study, write_h5ad, counts, tmp_path):
    study()
    write_h5ad(counts, name="one.h5ad", genes=["ACTB", "GAPDH", "KRT8", "KRT18", "EPCAM", "1-Mar", "7-Mar", "PTPRC"])
    findings = examine_study("config/config.yaml", base_dir=tmp_path)
    assert findings.problems == []
    text = "\n".join(findings.warnings)
    assert "A: 1 gene name turned into dates by a spreadsheet could be recovered" in text
    assert "for example 7-Mar = MARCHF7" in text
    assert "1-Mar (MARCHF1 or MTARC1)" in text
    assert "only 8 genes: a targeted panel" in text


def test_a_gate_for_other_cells_than_those_searched_is_a_warning(study, tmp_path):
    assert study() == []
    assert not any("C0" in text for text in examine_study("config/config.yaml", base_dir=tmp_path).warnings)
    study(annotation={"epithelial_z": 4.0})
    (text,) = (text for text in examine_study("config/config.yaml", base_dir=tmp_path).warnings if "C0" in text)
    assert "claim C0 counts marrow cells from an epithelial score of 3 as putative" in text
    assert "annotation.epithelial_z is 4" in text


def test_a_plan_with_wrong_signatures_is_told(study, tmp_path):
    """Unknown names, and a claim about the marker genes that choose its cells: before anything runs."""
    assert study() == []
    path = tmp_path / "config" / "claims.yaml"
    plan = yaml.safe_load(path.read_text())
    mine = {"role": "context", "family": "secondary"}
    plan["claims"] += [
        {"id": "X1", "title": "typing error", "primary_signature": "WIECEK_G0_AREST", **mine},
        {"id": "X2", "title": "circular", "primary_signature": "MINE", **mine},
    ]
    path.write_text(yaml.safe_dump(plan))
    (tmp_path / "mine.gmt").write_text("MINE\tmy set\tEPCAM\tKRT8\tKRT19\tVIM\n")
    problems = study(scores={"gmt": ["mine.gmt"]})
    assert [problem.key for problem in problems] == ["claim X1", "claim X2"]
    assert "did you mean 'WIECEK_G0_ARREST'" in str(problems[0])
    assert "EPCAM, KRT19, KRT8" in str(problems[1])
    assert "markers that chose the cells" in str(problems[1])


def test_problems_of_every_kind_in_a_plan_come_together(study, tmp_path):
    """One wrong key must not hide a wrong reference, nor that a signature and a covariate nobody has."""
    path = tmp_path / "config" / "claims.yaml"
    plan = yaml.safe_load(path.read_text())
    mine = {"title": "own", "role": "context", "family": "secondary", "primary_signature": "WIECEK_G0_ARREST"}
    plan["claims"] += [
        {"id": "X1", "colour": "red", **mine},
        {"id": "X2", **mine, "contrast": {"a": "DTC", "b": "BLOOD"}},
        {"id": "X3", **mine, "contrast": {"a": "PT", "b": "PT"}},
        {"id": "X4", **mine, "covariates": ["age"]},
        {
            "id": "X5",
            **mine,
            "test": "specificity",
            "of": "P9",
            "purged_signatures": ["A"],
            "exceeded_signatures": ["B"],
        },
        {"id": "X6", **mine, "primary_signature": "WIECEK_G0_AREST"},
    ]
    path.write_text(yaml.safe_dump(plan))
    problems = study()
    told = [str(problem.key).split(",")[0] for problem in problems]
    assert sorted(told) == [f"claim X{i}" for i in range(1, 7)]
    with pytest.raises(DtcflowError) as error:
        load_plan(path)
    # those that the plan alone shows; covariates and signatures take the panel
    assert [str(problem.key).split(",")[0] for problem in error.value.problems] == told[:4]
    assert set(told[:4]) == {"claim X1", "claim X2", "claim X3", "claim X5"}


@pytest.mark.parametrize("plan", ["claims: [1]", "claims: [{id: A, title: t}]", "rules: {alpha: 2}", "- 1", ""])
def test_a_plan_beyond_reading_is_told_once(study, tmp_path, plan):
    (tmp_path / "config" / "claims.yaml").write_text(plan + "\n")
    problems = study()
    assert problems
    assert {Path(problem.where).name for problem in problems} == {"claims.yaml"}
    assert len({str(problem) for problem in problems}) == len(problems)


def test_every_file_is_named_from_the_same_place(study, tmp_path):
    (tmp_path / "config" / "claims.yaml").write_text("claims: 3\n")
    problems = study(["A\tP1\tmarow\tone.h5ad\t\t\t"], sead=1)
    assert {problem.where for problem in problems} == {
        str(tmp_path / "config" / name) for name in ("config.yaml", "claims.yaml", "samples.tsv")
    }


def test_a_test_that_no_one_knows_is_told(study, tmp_path):
    path = tmp_path / "config" / "claims.yaml"
    plan = yaml.safe_load(path.read_text())
    plan["claims"].append({"id": "P6", "title": "outcome", "role": "supporting", "test": "outcome"})
    path.write_text(yaml.safe_dump(plan))
    (problem,) = study()
    assert "outcome" in problem.found
    assert "paired_contrast" in problem.allowed
