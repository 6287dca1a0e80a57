import json
import subprocess
import sys

import pytest

import dtcflow
from dtcflow import cli
from dtcflow.contracts import InputError, Problem


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"dtcflow {dtcflow.__version__}"


@pytest.mark.parametrize("arguments", [[], ["bake"], ["simulate", "--out", "x"], ["init"]])
def test_a_wrong_call_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: dtcflow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--seed", "-1"), ("--seed", "x"), ("--patients", "0"), ("--scenario", "other")]
)
def test_wrong_values_of_simulate(option, value, capsys):
    arguments = {"--scenario": "null", "--out": "x"} | {option: value}
    with pytest.raises(SystemExit):
        cli.main(["simulate", *(part for pair in arguments.items() for part in pair)])
    assert value in capsys.readouterr().err


def test_init_then_check(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # no sentence of the table is broken
    folder = str(tmp_path / "a b")
    assert cli.main(["init", folder]) == 0
    out = capsys.readouterr().out
    assert f"--directory '{folder}'" in out
    assert "snakemake --snakefile" in out
    assert cli.main(["check", "--directory", folder]) == 2
    out = capsys.readouterr().out
    assert "1 problem in" in out
    assert "add your samples" in out
    assert cli.main(["init", folder]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("dtcflow: ")
    assert "already holds a study" in shown.err
    assert shown.out == ""
    assert cli.main(["init", folder, "--force"]) == 0


def test_check_lists_everything(tmp_path, capsys):
    cli.main(["init", str(tmp_path)])
    (tmp_path / "config" / "samples.tsv").write_text(
        "sample_id\tpatient_id\tcompartment\tpath\nA\tP\tmarow\tgone.h5ad\nA\tP\tmarrow\tb.h5ad\n"
    )
    (tmp_path / "config" / "claims.yaml").unlink()
    capsys.readouterr()
    assert cli.main(["check", "--directory", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    header = next(line for line in out.splitlines() if line.startswith("file"))
    assert header.split() == ["file", "row", "column/key", "found", "allowed", "fix"]
    assert "5 problems" in out
    assert cli.main(["check", "--directory", str(tmp_path), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [(p["row"], p["key"]) for p in told["problems"]] == [
        *((None, "claims"), (2, "compartment"), (3, "sample_id")),
        *((2, "path"), (3, "path")),
    ]
    assert all(p["file"] and p["found"] and p["allowed"] and p["fix"] for p in told["problems"])


def test_a_good_study_is_said_to_be_good(tmp_path, capsys):
    cli.main(["init", str(tmp_path)])
    (tmp_path / "config" / "samples.tsv").write_text("sample_id\tpatient_id\tcompartment\tpath\nA\tP\tmarrow\tt.csv\n")
    (tmp_path / "t.csv").write_text("x,ACTB,EPCAM\nc1,1,2\n")
    capsys.readouterr()
    assert cli.main(["check", "--directory", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("no problem found: 1 sample of 1 patient\n")
    assert "warning: A: only 2 genes" in out
    assert cli.main(["check", "--directory", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["problems"]) == (True, [])
    panel, enrichment = told["warnings"]
    assert "A: only 2 genes" in panel
    assert "not said whether the marrow was enriched" in enrichment


def test_the_shipped_configuration_is_good(capsys):
    from dtcflow.study import shipped_root

    assert cli.main(["check", "--directory", str(shipped_root())]) == 0, capsys.readouterr().out


def test_no_folder_no_configuration(tmp_path, capsys):
    assert cli.main(["check", "--directory", str(tmp_path / "no")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert cli.main(["check", "--directory", str(tmp_path)]) == 2
    assert "dtcflow init" in " ".join(capsys.readouterr().out.split())


def test_simulate_hands_over_its_options(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("dtcflow.simulate.write_study", lambda *args, **kwargs: calls.append((args, kwargs)))
    out = tmp_path / "sim"
    assert cli.main(["simulate", "--scenario", "null", "--seed", "7", "--out", str(out), "--patients", "3"]) == 0
    assert cli.main(["simulate", "--scenario", "progenitor", "--out", str(out)]) == 0
    assert calls == [((out, "null"), {"seed": 7, "n_patients": 3}), ((out, "progenitor"), {"seed": 1})]
    assert "snakemake --snakefile" in capsys.readouterr().out
    (out / "config").mkdir(parents=True)
    assert cli.main(["simulate", "--scenario", "null", "--out", str(out)]) == 2
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            InputError("it is wrong", [Problem("f.tsv", "x", "y", "do z", row=3, key="k")]),
            2,
            "f.tsv, row 3, k: found x",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("oh"), 1, "unexpected error (ZeroDivisionError: oh)"),
    ],
)
def test_failures_end_in_a_line_and_a_code(monkeypatch, capsys, tmp_path, error, code, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("dtcflow.study.init_study", fail)
    assert cli.main(["init", str(tmp_path)]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert "Traceback" not in shown


def test_a_traceback_on_request(monkeypatch, tmp_path):
    monkeypatch.setattr("dtcflow.study.init_study", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["--traceback", "init", str(tmp_path)])


def test_the_command_starts_without_heavy_imports():
    program = "import sys, dtcflow.cli; print([m for m in ('scanpy', 'matplotlib', 'snakemake') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_long_fields_are_wrapped_to_the_width():
    problem = Problem("a/" * 40, "found " * 30, "allowed " * 20, "fix " * 20, row=12, key="sample_id")
    table = cli.problem_table([problem], width=100)
    assert max(map(len, table.splitlines())) <= 100
    assert " ".join(table.split()).count("found") == 31


def test_keys_that_are_copied_from_the_table_stay_whole():
    long = Problem(
        "study/config/samples_of_all.tsv",
        "found " * 30,
        "allowed " * 20,
        "fix " * 40,
        3,
        "sensitivity_signatures",
    )
    lines = cli.problem_table([long], width=100).splitlines()
    assert any("sensitivity_signatures" in line for line in lines)
    assert max(map(len, lines)) <= 100
