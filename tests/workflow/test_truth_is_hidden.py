"""The planted truth of simulated cohorts is out of reach of the analysis.

That removing or scrambling it changes no table is shown on complete runs in tests/integration/test_same_result.py.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_only_the_simulation_touches_the_truth(dry_run, demo):
    jobs = dry_run(demo).jobs
    touching = [job for job in jobs if any("truth" in path for path in (*job.input, *job.output, *job.log))]
    assert [job.rule for job in touching] == ["simulate_cohort"]
    assert not any("truth" in path for path in touching[0].input)
    assert any("truth" in path for path in touching[0].output)


def test_no_rule_or_script_but_the_simulations_names_the_truth():
    for path in sorted((ROOT / "workflow").glob("rules/*.smk")):
        text = path.read_text()
        if path.name == "intake.smk":
            text = text.split("rule simulate_cohort:")[0] + text.split("rule read_sample:")[1]
        assert "truth" not in text, path
    for path in sorted((ROOT / "workflow" / "scripts").glob("*.py")):
        if path.stem != "simulate_cohort":
            assert "truth" not in path.read_text(), path


def test_no_module_but_the_simulations_opens_the_truth():
    package = ROOT / "src" / "dtcflow"
    for path in sorted(package.rglob("*.py")):
        if path.parent.name == "simulate" or path.name == "cli.py":
            continue
        tree = ast.parse(path.read_text())
        documented = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
            if isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented:
                assert "truth/" not in node.value, path
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith("dtcflow.simulate"), path
