import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from dtcflow import cli, runs
from dtcflow.contracts import TABLES, InputError, write_json, write_table

# ---------------------------------------------------------------------------------------------------------------- locks


@pytest.fixture
def locked(tmp_path):
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("matrices/a.h5ad\n")
    (locks / "0.output.lock").write_text("results/intake/a.h5ad\nresults/cells.tsv.gz\n")
    return tmp_path


def test_nothing_locked_nothing_said(tmp_path, capsys):
    assert runs.unlock(tmp_path) == 0
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    assert cli.main(["unlock", "--directory", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_a_stale_lock_goes_in_one_line(locked, capsys):
    assert cli.main(["unlock", "--directory", str(locked)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert runs.lock_files(locked) == []
    assert (locked / ".snakemake" / "locks").is_dir(), "Snakemake expects the folder"


def test_what_a_kill_left_half_written_goes_too(locked):
    intake = locked / "results" / "intake"
    intake.mkdir(parents=True)
    ours = [intake / ".a.h5ad.4711.tmp", locked / "results" / ".cells.tsv.gz.12.tmp"]
    others = [intake / "a.h5ad", intake / ".b.h5ad.4711.tmp", intake / ".a.h5ad.swp", locked / ".a.h5ad.1.tmp"]
    for file in (*ours, *others):
        file.touch()
    assert runs.half_written(locked) == sorted(ours)
    assert runs.unlock(locked) == 2
    assert not any(file.exists() for file in ours)
    assert all(file.exists() for file in others)


@pytest.mark.parametrize("program", ["snakemake", ".snakemake/scripts/tmp1.read_sample.py"])
def test_a_live_run_keeps_its_lock(program, locked, capsys):
    script = locked / program
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen([sys.executable, str(script)], cwd=locked, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "up\n"
        assert [live.pid for live in runs.live_processes(locked)] == [process.pid]
        assert runs.live_processes(locked.parent) == []
        assert cli.main(["unlock", "--directory", str(locked)]) == 2
        error = capsys.readouterr().err
        assert f"process {process.pid}" in error
        assert "wait for it to end" in error
        assert len(runs.lock_files(locked)) == 2
    finally:
        process.kill()
        process.communicate()
    assert runs.unlock(locked) == 2


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/x/bin/python3.11", "/x/bin/snakemake", "--cores", "2"], True),
        (["snakemake"], True),
        (["python", "-m", "snakemake", "-n"], True),
        (["/x/python3", "/study/.snakemake/scripts/tmpab.qc_sample.py"], True),
        (["vim", "workflow/Snakefile"], False),
        (["less", ".snakemake/log/a.log"], False),
        (["grep", "-r", "word", "/docs/snakemake"], False),
        ([], False),
    ],
)
def test_which_processes_count(command, expected):
    assert runs.is_snakemake(command) is expected


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no study folder"):
        runs.unlock(tmp_path / "gone")


def test_without_psutil_nothing_is_removed(locked, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(InputError, match="cannot be listed"):
        runs.unlock(locked)
    assert len(runs.lock_files(locked)) == 2


# --------------------------------------------------------------------------------------------------------- failed steps

ERROR = """\
[Sun Nov 22 01:07:15 2026]
Error in rule {rule}:
    message: None
    jobid: 3
    input: a, b
    output: c
    log: {log} (check log file(s) for error details)
Logfile {log}:
"""


@pytest.fixture
def failed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*steps):
        text = "Building DAG of jobs...\n"
        for rule, log, words in steps:
            text += ERROR.format(rule=rule, log=log)
            if words is not None:
                (tmp_path / log).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / log).write_text(words)
        (tmp_path / "run.log").write_text(text + "Exiting because a job execution failed.\n")
        return tmp_path / "run.log"

    return write


def test_failed_steps_are_named_once_in_order(failed):
    log = failed(
        ("read_sample", "logs/read_sample/P2.log", "INFO reading\ndtcflow: b.h5ad: no raw counts\n  - more\n"),
        ("call_cells", "logs/call_cells.log", "dtcflow: old\ndtcflow: new\n"),
        ("read_sample", "logs/read_sample/P2.log", "dtcflow: b.h5ad: no raw counts\n"),
    )
    steps = runs.failed_steps(log)
    assert [(step.name, step.message) for step in steps] == [
        ("read_sample P2", "b.h5ad: no raw counts"),
        ("call_cells", "new"),
    ]
    lines = runs.failure_text([log]).splitlines()
    assert lines[0].startswith("dtcflow: failed: read_sample P2, call_cells.")
    assert lines[1:] == [
        "  - read_sample P2: b.h5ad: no raw counts (all of it in logs/read_sample/P2.log)",
        "  - call_cells: new (all of it in logs/call_cells.log)",
    ]


def test_a_step_that_could_not_speak(failed):
    log = failed(("a", "logs/a.log", "INFO working on it\n\n"), ("b", "logs/b.log", None), ("c", "logs/c.log", ""))
    assert [step.message for step in runs.failed_steps(str(log))] == [
        "ended without a message; its last words: INFO working on it",
        *["ended before it wrote anything"] * 2,
    ]


def test_a_run_without_failed_steps(failed, tmp_path):
    assert runs.failure_text(failed()) == ""
    assert runs.failed_steps([]) == []
    assert runs.failed_steps(tmp_path / "gone.log") == []


# ---------------------------------------------------------------------------------------------------------- the verdict


def claim(name, **values):
    row = dict.fromkeys(TABLES["claims"], np.nan)
    row |= {"codes": "", "unit": "SD", "n_patients": 0, "role": "necessary", "verdict": "INCONCLUSIVE"}
    return row | {"claim_id": name, "title": f"title of {name}", **values}


def cell(name, **values):
    row = dict.fromkeys(TABLES["cells"], np.nan)
    row |= {"sample_id": "S1", "patient_id": "P1", "pass_qc": True, "malignant_call": "normal", "is_dtc": False}
    return row | {"cell_id": f"S1:{name}", **values}


def loss(name, stage, status):
    return dict.fromkeys(TABLES["loss_audit"], "") | {"cell_id": name, "stage": stage, "status": status}


@pytest.fixture
def results(tmp_path):
    """Results of a run that found two tumour cells, one of them in the marrow."""
    folder = tmp_path / "results"
    verdict = {"verdict": "INCONCLUSIVE", "codes": ["LOW_N"], "statement": "Some DTCs are.", "sentence": "Undecided."}
    write_json(folder / "evidence" / "verdict.json", verdict | {"ceiling": "Expression cannot show it."})
    claims = [
        claim(
            "C0", role="gate", estimate=0.5684, ci_low=0.336, ci_high=0.774, p_value=0.75, n_patients=8, unit="share"
        ),
        claim("P1", codes="NOT_EVALUATED"),
        claim("P2", codes="LOW_N;IMPRECISE", estimate=1.5, n_patients=1),
    ]
    write_table(pd.DataFrame(claims), folder / "evidence" / "claims.tsv", "claims")
    cells = [
        cell("a"),
        cell("b", pass_qc=False),
        cell("c", malignant_call="malignant", is_dtc=True),
        cell("d", malignant_call="malignant", sample_id="S2"),
    ]
    write_table(pd.DataFrame(cells), folder / "cells.tsv.gz", "cells")
    audit = [loss("x", "qc", "removed"), loss("y", "qc", "removed"), loss("z", "call", "indeterminate")]
    write_table(pd.DataFrame(audit), folder / "qc" / "loss_audit.tsv", "loss_audit")
    study = {"title": "my study", "notice": "SIMULATED DATA."}
    write_json(folder / "provenance.json", {"parameters": {"study": study}})
    (folder / "report.html").touch()
    return folder


def test_the_verdict_is_said_in_full(results, capsys):
    assert cli.main(["verdict", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("my study\nSIMULATED DATA.\n")
    for line in (
        "Hypothesis: Some DTCs are.",
        "Verdict: INCONCLUSIVE",
        "  Undecided.",
        "  LOW_N           fewer paired patients than the rule asks for",
        "  C0 INCONCLUSIVE: title of C0 [gate]",
        "     0.568 [0.336, 0.774] share, 8 patients, p = 0.75",
        "  P1 INCONCLUSIVE (NOT_EVALUATED): title of P1 [necessary]",
        "  P2 INCONCLUSIVE (LOW_N, IMPRECISE): title of P2 [necessary]",
        "     1.5 [not computable, not computable] SD, 1 patient",
        "  4 read from 2 samples of 1 patient, 3 passed QC",
        "  2 tumour cells called, 1 DTC among them (in 1 patient)",
        f"  3: 1 indeterminate at call, 2 removed at qc; each with its reason in {results}/qc/loss_audit.tsv",
        "Expression cannot show it.",
        f"Report: {results}/report.html",
    ):
        assert line in out.splitlines(), out
    assert "no tumour cell" not in out
    assert "nan" not in out


def test_no_tumour_cell_and_what_would_have_shown(results):
    cells = pd.DataFrame([cell("a"), cell("b")])
    write_table(cells, results / "cells.tsv.gz", "cells")
    write_table(pd.DataFrame(columns=list(TABLES["loss_audit"])), results / "qc" / "loss_audit.tsv", "loss_audit")
    arms = {"arms_at_5_cells": 9.0, "arms_at_10_cells": 7.0}
    write_json(
        results / "cnv" / "patients" / "P1.json",
        {"patient_id": "P1", "status": "ok", "reason": "", "smallest_detectable": arms},
    )
    write_json(
        results / "cnv" / "patients" / "P2.json",
        {"patient_id": "P2", "status": "no_reference", "reason": "no normal type with 20 cells"},
    )
    lines = runs.verdict_text(results).splitlines()
    assert "  no tumour cell found" in lines
    assert "  P1: smallest detectable clone: 5 cells with 9, 10 cells with 7 altered arms" in lines
    assert "  P2: copy number not assessable: no normal type with 20 cells" in lines
    assert (
        lines[lines.index("Cells with tumour evidence that were removed, flagged or left undecided:") + 1] == "  none"
    )


def test_a_patient_without_reference_is_named_also_when_others_have_tumour_cells(results):
    write_json(results / "cnv" / "patients" / "P2.json", {"patient_id": "P2", "status": "no_reference", "reason": ""})
    text = runs.verdict_text(results)
    assert "P2: copy number not assessable: no_reference" in text
    assert "no tumour cell" not in text


def test_a_run_that_is_not_finished(results, capsys):
    (results / "evidence" / "claims.tsv").unlink()
    (results / "cells.tsv.gz").unlink()
    assert cli.main(["verdict", "--results", str(results)]) == 2
    error = capsys.readouterr().err
    assert "holds no finished run" in error
    assert error.count("run the workflow first") == 2
    assert "Traceback" not in error


def test_without_report_and_record(results):
    (results / "report.html").unlink()
    (results / "provenance.json").unlink()
    text = runs.verdict_text(results)
    assert text.startswith("Hypothesis: ")
    assert text.endswith("report.html is not there; run the workflow to the end")
