import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dtcflow import provenance, resources
from dtcflow.io.files import sha256
from dtcflow.provenance import code_fingerprint, import_closure, package_versions, record

PACKAGE = Path(provenance.__file__).parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package called dtcflow of four modules: a imports b, b imports sub.c inside a function, d stands alone."""
    files = {
        "__init__.py": "",
        "a.py": "import numpy\nfrom dtcflow import b\n",
        "b.py": "def f():\n    from dtcflow.sub.c import g\n    return g\n",
        "sub/__init__.py": "",
        "sub/c.py": "def g(): ...\n",
        "sub/page.css": "p {}\n",
        "d.py": "import os\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "PACKAGE_ROOT", tmp_path)
    cached = (provenance._imports_of, provenance._tables_of, provenance._table_names)
    for one in cached:
        one.cache_clear()
    yield tmp_path
    for one in cached:
        one.cache_clear()


def test_imports_are_followed_into_functions_and_packages(package):
    assert import_closure(["dtcflow.a"]) == ("dtcflow", "dtcflow.a", "dtcflow.b", "dtcflow.sub", "dtcflow.sub.c")
    assert import_closure(["dtcflow.d"]) == ("dtcflow", "dtcflow.d")
    assert import_closure(["dtcflow.d", "dtcflow.sub.c"]) == ("dtcflow", "dtcflow.d", "dtcflow.sub", "dtcflow.sub.c")


def test_an_edit_of_a_shipped_table_changes_the_steps_that_name_it(package, tmp_path, monkeypatch):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "aliases.tsv").write_text("a")
    monkeypatch.setattr(provenance.resources, "folder", lambda: folder)
    (package / "b.py").write_text('TABLE = "aliases.tsv"\n')

    def prints():
        for cached in (provenance._imports_of, provenance._tables_of, provenance._table_names):
            cached.cache_clear()
        return code_fingerprint("dtcflow.a"), code_fingerprint("dtcflow.d")

    before = prints()
    (folder / "aliases.tsv").write_text("b")
    after = prints()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_imports_in_a_circle_end(package):
    (package / "d.py").write_text("from dtcflow import e\n")
    (package / "e.py").write_text("import dtcflow.d\n")
    assert import_closure(["dtcflow.d"]) == ("dtcflow", "dtcflow.d", "dtcflow.e")


@pytest.mark.parametrize("edited", ["a.py", "b.py", "sub/c.py", "sub/page.css", "__init__.py"])
def test_an_edit_of_what_a_step_uses_changes_its_fingerprint_only(package, edited):
    before = code_fingerprint("dtcflow.a"), code_fingerprint("dtcflow.d")
    with (package / edited).open("a") as file:
        file.write("\n")
    provenance._imports_of.cache_clear()
    after = code_fingerprint("dtcflow.a"), code_fingerprint("dtcflow.d")
    assert after[0] != before[0]
    assert (after[1] != before[1]) is (edited == "__init__.py")


def test_an_edit_elsewhere_changes_nothing(package):
    before = code_fingerprint("dtcflow.a")
    (package / "d.py").write_text("import sys\n")
    (package / "new.py").write_text("x = 1\n")
    assert code_fingerprint("dtcflow.a") == before


def test_code_that_moves_to_another_module_changes_the_fingerprint(package):
    before = code_fingerprint("dtcflow.a")
    (package / "b.py").rename(package / "bb.py")
    (package / "a.py").write_text("import numpy\nfrom dtcflow import bb\n")
    provenance._imports_of.cache_clear()
    assert code_fingerprint("dtcflow.a") != before


def test_an_unknown_module_is_refused(package):
    with pytest.raises(ValueError, match="nothing is not a module"):
        code_fingerprint("dtcflow.nothing")


def test_the_fingerprint_does_not_depend_on_place_order_or_process(tmp_path):
    copied = tmp_path / "elsewhere" / "dtcflow"
    shutil.copytree(PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(resources.folder(), tmp_path / "workflow" / "resources")
    program = "from dtcflow.provenance import code_fingerprint as f; print(f('dtcflow.merge', 'dtcflow.genes'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(copied.parent), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == code_fingerprint("dtcflow.genes", "dtcflow.merge")


def test_hash_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
    expected = hashlib.sha256()
    for name, content in (("a", b"one"), ("b", b"two")):
        expected.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert sha256(tmp_path) == expected.hexdigest()
    (tmp_path / "b").rename(tmp_path / "c")
    assert sha256(tmp_path) != expected.hexdigest()


def test_versions():
    found = package_versions(["numpy", "no-such-package"])
    assert found["numpy"].split(".")[0].isdigit()
    assert found["no-such-package"] == "not installed"


def test_a_record_is_plain_complete_and_says_where_inputs_came_from(tmp_path):
    table = tmp_path / "panel.tsv"
    table.write_text("x")
    arguments = {
        "config": {"seed": 4, "qc": {"n_mads": 5}},
        "samples": [{"sample_id": "A", "age": None}],
        "inputs": {"A": {"input": "a.h5ad", "format": "h5ad", "sha256": {"a.h5ad": "0"}, "n_cells": 9}},
        "tables": [table],
        "plan_hash": "p",
        "methods": "We did.",
    }
    one = record(**arguments)
    assert one["cnv_profiles"] == {}
    assert one["inputs"] == {"A": {"input": "a.h5ad", "format": "h5ad", "sha256": {"a.h5ad": "0"}}}
    assert one["resources"] == {table.as_posix(): hashlib.sha256(b"x").hexdigest()}
    assert one["seeds"] == {"seed": 4}
    assert one["analysis_plan_sha256"] == "p"
    assert one["packages"]["dtcflow"] == one["dtcflow"]
    assert one["parameters"] == arguments["config"]
    again = tmp_path / "again" / "panel.tsv"
    again.parent.mkdir()
    again.write_text("y")
    assert len(record(**arguments | {"tables": [table, again]})["resources"]) == 2
    assert json.dumps(one, sort_keys=True) == json.dumps(record(**arguments), sort_keys=True)
