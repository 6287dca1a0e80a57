"""Broken samples among sound ones, through the Snakefile: all are named, none leaves a result, the others are done."""

from __future__ import annotations

import shutil

import cases_files
import cases_values
from cases import Study, tree

from dtcflow.io.checks import check_study

READ = [case for case in [*cases_files.CASES, *cases_values.CASES] if case.read and not case.raw]


def test_broken_samples_do_not_stop_the_others(tmp_path, snakemake, house):
    study = Study(tmp_path / "study")
    rows = [["good", "P0", "marrow", "good.csv"]]
    broken = []
    for case in READ[3::6]:
        number = len(broken) + 1
        other = Study(tmp_path / f"case{number}")
        case.make(other)
        other.write()
        if check_study("config/config.yaml", base_dir=other.folder):  # the header shows it: nothing would run
            shutil.rmtree(other.folder)
            continue
        broken.append(case)
        name = other.rows[0][3]
        source, target = other.folder / name, study.folder / f"{number}_{name}"
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        rows.append([f"bad{number}", f"P{number}", "marrow", target.name])
        shutil.rmtree(other.folder)
    study.rows = rows
    study.write()
    before = tree(tmp_path)
    done = snakemake(study.folder, "qc", cores=2, house=house)
    assert done.code != 0
    assert "Traceback" not in done.text
    end = done.text[done.text.index("dtcflow: failed:") :]
    results = study.folder / "results"
    assert len(broken) >= 5
    for number, case in enumerate(broken, 1):
        assert f"read_sample bad{number}" in end.splitlines()[0], "one line names all that failed"
        assert any(line.startswith(f"  - read_sample bad{number}: {number}_") for line in end.splitlines())
        log = (results / "logs" / "read_sample" / f"bad{number}.log").read_text()
        assert "Traceback" not in log
        for words in case.words:
            assert words in log, log
        assert not [path for path in results.rglob(f"*bad{number}*") if "logs" not in path.parts]
    assert (results / "qc" / "samples" / "good.tsv.gz").is_file()
    after = {
        name: what for name, what in tree(tmp_path).items() if not {"results", ".snakemake"} & set(name.split("/"))
    }
    assert after == before, "files are written below results only"
