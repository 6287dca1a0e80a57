import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dtcflow.contracts import InputError
from dtcflow.evidence.plan import load_plan
from dtcflow.io.config import load_config
from dtcflow.io.sheet import read_samples
from dtcflow.study import init_study, run_command, sheet_template, workflow_path

ROOT = Path(__file__).parents[2]


def test_a_new_study_is_ready_to_edit(tmp_path):
    files = init_study(tmp_path / "my study")
    assert [file.name for file in files] == ["config.yaml", "samples.tsv", "claims.yaml"]
    config = load_config(files[0])
    shipped = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert config["simulate"] is None
    assert config["study"]["notice"] == ""
    assert "demo" not in files[0].read_text().lower()
    for block in set(shipped) - {"simulate", "study"}:
        assert config[block] == load_config(shipped)[block], block
    assert "#" in files[0].read_text().split("n_mads")[1].splitlines()[0]
    load_plan(files[2])


def test_its_sheet_asks_for_rows_and_its_examples_are_valid(tmp_path):
    sheet = init_study(tmp_path)[1]
    with pytest.raises(InputError, match="a header without rows"):
        read_samples(sheet)
    lines = sheet_template().splitlines()
    header = lines.pop()
    at = next(i for i, line in enumerate(lines) if line.startswith("# Examples"))
    rows = [line.removeprefix("# ") for line in lines[at + 1 :]]
    assert len(rows) == 2
    sheet.write_text("\n".join([header, *rows]) + "\n")
    assert list(read_samples(sheet)["compartment"]) == ["marrow", "primary"]


def test_nothing_is_overwritten_unasked(tmp_path):
    init_study(tmp_path)
    sheet = tmp_path / "config" / "samples.tsv"
    sheet.write_text("mine")
    (tmp_path / "config" / "config.yaml").unlink()
    with pytest.raises(InputError, match="already holds a study") as caught:
        init_study(tmp_path)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "config" / "config.yaml").exists()
    init_study(tmp_path, force=True)
    assert sheet.read_text() != "mine"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        init_study(tmp_path / "file" / "study")


def test_the_command_names_the_shipped_workflow(tmp_path):
    assert workflow_path() == ROOT / "Snakefile"
    command = run_command(tmp_path / "a b")
    assert str(workflow_path()) in command
    assert f"--directory '{tmp_path / 'a b'}'" in command


def test_an_installed_wheel_finds_its_workflow(tmp_path):
    """The package as a wheel lays it out: the workflow below ``dtcflow/_workflow``."""
    site = tmp_path / "lib" / "site"
    package = site / "dtcflow"
    shutil.copytree(ROOT / "src" / "dtcflow", package, ignore=shutil.ignore_patterns("__pycache__"))
    inside = package / "_workflow"
    for name in ("workflow", "config"):
        shutil.copytree(ROOT / name, inside / name)
    (inside / "Snakefile").write_text("# here\n")
    program = "from dtcflow.study import *; init_study('s'); print(workflow_path())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == (inside / "Snakefile").resolve()
    assert (tmp_path / "s" / "config" / "samples.tsv").is_file()
