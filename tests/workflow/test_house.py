"""The house rules: what lies where, who may import whom, what every rule carries."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

from dtcflow.provenance import import_closure

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "dtcflow"
MODULES = sorted(PACKAGE.rglob("*.py"))
RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").iterdir())

TOP_LEVEL = {
    *("Snakefile", "pyproject.toml", "README.md", "workflow", "config", "docs", "envs", "tests", "results"),
    *("src", "profiles", "benchmarks", "Makefile", "requirements.lock", "LICENSE", "CITATION.cff", "CHANGELOG.md"),
    *(".snakemake-workflow-catalog.yml", ".ci", ".gitignore"),
}
RULE = re.compile(r"^(?P<indent> *)rule (?P<name>\w+):\n(?P<body>(?:(?P=indent)    .*\n|\n)+)", re.MULTILINE)
TARGETS = {"all", "qc", "default"}


def rules() -> dict[str, str]:
    """Body of every rule that runs something."""
    text = "\n".join(path.read_text() for path in [*RULE_FILES, ROOT / "workflow" / "Snakefile"])
    return {match["name"]: match["body"] for match in RULE.finditer(text) if match["name"] not in TARGETS}


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions; ``from a import b`` gives ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------------ what lies where


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: what belongs to the project cannot be told from what a user added")
    return subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()


def test_the_top_level_is_as_planned():
    assert {file.split("/")[0] for file in tracked()} == TOP_LEVEL


def test_no_result_is_tracked():
    assert [file for file in tracked() if file.startswith("results/")] == ["results/.gitkeep"]


def test_one_script_per_rule_and_one_rule_per_script():
    assert {path.suffix for path in SCRIPTS} == {".py"}
    assert sorted(path.stem for path in SCRIPTS) == sorted(rules())
    for name, body in rules().items():
        assert f'"../scripts/{name}.py"' in body


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_is_an_adapter(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    head = '"""\n\nfrom dtcflow.logs import setup\n\nsetup(snakemake.log[0], threads=snakemake.threads)\n\n'
    assert head in text, "the log and the number of threads come before anything heavy is imported"
    kinds = {type(node) for node in ast.walk(ast.parse(text))}
    assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.If, ast.For, ast.While, ast.Try}, (
        "logic lives in the package"
    )


@pytest.mark.parametrize("path", RULE_FILES, ids=name_of)
def test_a_rule_file_is_short(path):
    text = path.read_text()
    assert text.startswith("# "), "the first line says which question the file answers"
    assert len(text.splitlines()) <= 150
    assert "    run:" not in text


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short(path):
    limit = 600 if path.name == "contracts.py" else 500  # the contract stays in one place
    assert len(path.read_text().splitlines()) <= limit


def test_the_table_of_contents_names_every_rule_file():
    contents = (ROOT / "workflow" / "Snakefile").read_text()
    assert re.findall(r'^include: "rules/(.+)"$', contents, re.MULTILINE) == [
        "common.smk",
        *re.findall(r"^# .*rules/(\w+\.smk)", contents, re.MULTILINE),
    ]
    assert len(re.findall(r"^include:", contents, re.MULTILINE)) == len(RULE_FILES)


# --------------------------------------------------------------------------------------------------------- who may what


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_package_knows_nothing_of_snakemake(path):
    assert not [name for name in imported(path) if name.split(".")[0] == "snakemake"]
    words = [node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)]
    assert "snakemake" not in words


def test_contracts_import_nothing_of_ours():
    assert not [name for name in imported(PACKAGE / "contracts.py") if name.startswith("dtcflow")]


def test_contracts_are_the_ground_floor_and_the_command_the_roof():
    for path in MODULES:
        if path.name != "cli.py":
            assert not imported(path) & {"dtcflow.cli", "dtcflow.runs", "dtcflow.study"}, name_of(path)
        if not {"report", "plot", "cli.py"} & set(path.parts):  # the roof may draw: `dtcflow power`
            ours = {name for name in imported(path) if name.startswith(("dtcflow.report", "dtcflow.plot"))}
            assert not ours, name_of(path)


@pytest.mark.parametrize("path", sorted((PACKAGE / "plot").glob("*.py")), ids=name_of)
def test_plots_do_no_input_or_output(path):
    ours = {name for name in imported(path) if name.startswith("dtcflow.")}
    assert all(name.startswith(("dtcflow.plot", "dtcflow.contracts")) for name in ours)
    assert not imported(path) & {"pathlib", "pathlib.Path", "os", "shutil", "tempfile", "matplotlib.pyplot"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called != "open" or ast.unparse(node).startswith("Image.open(io.BytesIO("), ast.unparse(node)
            assert not re.match(r"(read|write|to)_(csv|table|stage|json|text|bytes|parquet|excel|pickle)", called)
            if called == "savefig":
                assert ast.unparse(node.args[0]) == "buffer", "figures are rendered to memory only"


def test_nothing_is_pickled():
    for path in [*MODULES, *SCRIPTS]:
        assert not imported(path) & {"pickle", "joblib", "dill", "cloudpickle"}, name_of(path)


def test_what_is_packed_does_not_hold_the_time():
    """A gzip header holds the second it was made in: outputs would differ, and so would the names of tests."""
    for path in sorted(p for top in ("src", "workflow", "tests", "benchmarks") for p in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"gzip.compress", "gzip.GzipFile"}:
                reads = any(k.arg == "mode" and ast.unparse(k.value).startswith("'r") for k in node.keywords)
                assert reads or any(k.arg == "mtime" for k in node.keywords), f"{path.name}: {ast.unparse(node)}"


# ----------------------------------------------------------------------------------------------------------- every rule


def test_the_rules_are_found():
    assert set(rules()) >= {"read_sample", "qc_sample", "infer_copy_number", "test_claims", "write_report"}
    text = "\n".join(path.read_text() for path in RULE_FILES)
    assert len(re.findall(r"^ *(?:rule|checkpoint) ", text, re.MULTILINE)) == len(rules())


@pytest.mark.parametrize("name", rules())
def test_a_rule_carries_everything(name):
    body = rules()[name]
    keywords = re.findall(r"^ {4,8}(\w+):", body, re.MULTILINE)
    for keyword in ("output", "log", "benchmark", "conda", "threads", "resources", "params", "script"):
        assert keywords.count(keyword) == 1, f"{keyword} in rule {name}"
    if name != "simulate_cohort":
        assert "input" in keywords
    assert re.search(r"^ +mem_mb=memory\(", body, re.MULTILINE)
    assert re.search(r"^ +runtime=minutes\(", body, re.MULTILINE)
    assert re.search(r"^ +conda:\n +ENVIRONMENT$", body, re.MULTILINE)
    assert re.search(rf'^ +"<logs>/{name}[./]', body, re.MULTILINE), "the log is named after the rule"
    assert re.search(rf'^ +"<benchmarks>/{name}[./]', body, re.MULTILINE)
    for block in ("input", "output"):
        inside = re.search(rf"^( +){block}:\n((?:\1    .*\n)+)", body, re.MULTILINE)
        if inside:
            depth = len(inside[1]) + 4
            entries = re.findall(rf"^ {{{depth}}}([\w\"\]*)].*)$", inside[2], re.MULTILINE)
            assert all(re.match(r"\w+=|[\])]", entry) for entry in entries), f"{block} of {name} must be named"


def test_nothing_is_written_outside_the_pathvars():
    for name, body in rules().items():
        outputs = re.search(r"^( +)output:\n((?:\1    .*\n)+)", body, re.MULTILINE)
        assert outputs is not None
        for path in re.findall(r'"([^"]*/[^"]*)"', outputs[2]):
            assert path.startswith(("<results>/", "../report/")), f"{name}: {path}"


@pytest.mark.parametrize("name", rules())
def test_the_fingerprint_covers_what_the_step_runs(name):
    fingerprint = re.search(r"code=code_fingerprint\(([^)]*)\)", rules()[name])
    assert fingerprint is not None
    covered = set(import_closure(re.findall(r'"([\w.]+)"', fingerprint[1])))
    script = ROOT / "workflow" / "scripts" / f"{name}.py"
    needed = {part for part in imported(script) if part.startswith("dtcflow.")}
    modules = {part for part in needed if (PACKAGE.parent / part.replace(".", "/")).is_dir()}
    modules |= {part for part in needed if (PACKAGE.parent / (part.replace(".", "/") + ".py")).is_file()}
    assert modules - {"dtcflow.logs"} - covered == set()


def test_every_report_item_has_a_caption_and_labels():
    text = "\n".join(path.read_text() for path in RULE_FILES)
    items = re.findall(r"report\(\n(?:.*\n)*?\s+\),", text)
    assert len(items) >= 8
    used = set()
    for item in items:
        caption = re.search(r'caption="\.\./report/(\w+\.rst)"', item)
        assert caption is not None, item
        assert re.search(r'category="', item), item
        assert re.search(r"labels=\{", item), item
        used.add(caption[1])
    shipped = {path.name for path in (ROOT / "workflow" / "report").glob("*.rst")}
    assert shipped == used | {"workflow.rst"}


# ----------------------------------------------------------------------------------------------------------------- pins


def locked(python: str) -> dict[str, str]:
    """Versions that requirements.lock installs on Linux with this Python."""
    found = {}
    where = {"python_version": python.rsplit(".", 1)[0], "python_full_version": python, "sys_platform": "linux"}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        match = re.match(r"([a-z0-9._-]+)==(\S+?)(?: ; (.+?))? \\$", line)
        if match and (match[3] is None or Marker(match[3]).evaluate({**where, "platform_system": "Linux"})):
            found[match[1]] = match[2]
    return found


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {Requirement(text).name: Requirement(text) for text in project["dependencies"]}


def test_the_environment_has_the_pins_of_the_lock():
    environment = yaml.safe_load((ROOT / "envs" / "dtcflow.yaml").read_text())
    assert "python =3.11" in environment["dependencies"]
    pins = dict(line.split("==") for line in environment["dependencies"][-1]["pip"])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert pins.pop("dtcflow") == version
    lock = locked("3.11.9")
    assert pins == {name: lock[name] for name in declared()}


@pytest.mark.parametrize("python", ["3.11.9", "3.12.4", "3.13.1"])
def test_the_lock_serves_every_python(python):
    lock = locked(python)
    for name, requirement in declared().items():
        assert requirement.specifier.contains(lock[name]), name
    assert {"snakemake", "pytest", "ruff", "snakefmt", "mypy"} <= set(lock)


def test_the_lock_is_hashed_and_names_no_place():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(entries) > 100
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_version_and_citation_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


# ------------------------------------------------------------------------------------------------------------- pathvars


def test_pathvars_are_the_documented_ones():
    contents = (ROOT / "workflow" / "Snakefile").read_text()
    block = re.search(r"^pathvars:\n((?:    .*\n)+)", contents, re.MULTILINE)
    assert block is not None
    assert dict(re.findall(r'(\w+)="([^"]*)"', block[1])) == {
        "results": "results",
        "logs": "<results>/logs",
        "benchmarks": "<results>/benchmarks",
    }
    used = set(re.findall(r"<(\w+)>/", "\n".join(path.read_text() for path in RULE_FILES)))
    assert used == {"results", "logs", "benchmarks"}


@pytest.mark.parametrize("profile", sorted((ROOT / "profiles").iterdir()), ids=lambda path: path.name)
def test_profiles_keep_going_and_resume(profile):
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    assert settings["keep-going"] is True
    assert settings["rerun-incomplete"] is True
    assert settings["show-failed-logs"] is True
