"""Schemas, shipped configuration and config/README.md must tell the same."""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from dtcflow.contracts import COMPARTMENTS
from dtcflow.evidence.plan import SCHEMA as PLAN
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.plan_checks import check_plan
from dtcflow.io.config import load_config
from dtcflow.io.detect import FORMATS
from dtcflow.io.schema import CONFIG, SAMPLES, describe, leaves, load_schema
from dtcflow.io.sheet import read_samples
from dtcflow.scores.signatures import load_markers, load_panel

ROOT = Path(__file__).parents[2]
README = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)


def flat(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def documented(title):
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0].split("\n### What counts")[0]
    return {match[1]: (match[2], match[3], match[4]) for match in ROW.finditer(section)}


def shown(value):
    if value == "":
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def test_schema_configuration_and_readme_have_the_same_keys():
    schema = list(leaves(load_schema(CONFIG)))
    shipped = list(flat(yaml.safe_load((ROOT / "config" / "config.yaml").read_text())))
    assert schema == shipped
    assert schema == list(documented("`config.yaml`"))


@pytest.mark.parametrize("key", leaves(load_schema(CONFIG)))
def test_the_readme_tells_type_and_default_of_a_key(key):
    leaf = leaves(load_schema(CONFIG))[key]
    kind, default, text = documented("`config.yaml`")[key]
    assert kind == describe(leaf)
    assert default == shown(leaf["default"])
    assert text.startswith(leaf["description"])
    assert len(text) > len(leaf["description"]) + 5, "say how to choose a value"


def test_the_readme_tells_every_key_of_the_plan():
    parts = load_schema(PLAN)["properties"]
    blocks = {"hypothesis": parts["hypothesis"], "rules": parts["rules"], "claims[]": parts["claims"]["items"]}
    known = {f"{name}.{key}": leaf for name, block in blocks.items() for key, leaf in leaves(block).items()}
    rows = documented("`claims.yaml`")
    assert list(rows) == list(known)
    for key, leaf in known.items():
        default = shown(leaf["default"]) if "default" in leaf else "required"
        assert rows[key] == (describe(leaf).split(" (^")[0], default, leaf["description"])


def test_the_readme_s_claim_is_one_that_a_plan_may_have():
    example = README.split("\n## `claims.yaml`\n")[1].split("```yaml\n")[1].split("```")[0]
    values = yaml.safe_load((ROOT / "config" / "claims.yaml").read_text())
    values["claims"] += yaml.safe_load(example)
    plan = load_plan(values)
    panel = {one.name: one for one in load_panel(ROOT / "workflow" / "resources" / "signatures.tsv")}
    check_plan(plan, panel, load_markers(ROOT / "workflow" / "resources" / "markers.tsv"), where="claims")
    assert plan.claim("X1").title


def test_the_readme_tells_every_column_of_the_sheet():
    schema = load_schema(SAMPLES)
    rows = documented("`samples.tsv`")
    assert list(rows) == list(schema["properties"])
    for name, leaf in schema["properties"].items():
        kind, default, text = rows[name]
        assert kind == describe(leaf).split(" (^")[0].replace(", or null", "")
        assert text.startswith(leaf["description"])
        if name in schema["required"]:
            assert default == "required"
        else:
            assert default == ("empty" if leaf["default"] in ("", None) else f"`{leaf['default']}`")


def test_the_shipped_values_are_the_defaults_except_for_the_demo_names():
    shipped = flat(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    for key, leaf in leaves(load_schema(CONFIG)).items():
        if not key.startswith("study."):
            assert shipped[key] == leaf["default"], key


@pytest.mark.parametrize("name", [CONFIG, SAMPLES])
def test_a_schema_is_strict_and_complete(name):
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)

    def walk(part, path):
        assert part.get("description"), path
        if part.get("type") != "object":
            if path not in schema.get("required", ()):
                assert "default" in part, path
                Draft202012Validator(part).validate(part["default"])
            return
        if path and name == CONFIG:
            assert part["default"] == {}, path
        assert part["additionalProperties"] is False or name == SAMPLES
        for key, inner in part["properties"].items():
            walk(inner, f"{path}.{key}".strip("."))

    walk(schema, "")


def test_vocabulary_of_the_sheet_is_that_of_the_contract():
    columns = load_schema(SAMPLES)["properties"]
    assert columns["compartment"]["enum"] == list(COMPARTMENTS)
    assert columns["format"]["enum"] == ["auto", *FORMATS]


def test_shipped_configuration_and_sheet_are_valid():
    config = load_config(ROOT / "config" / "config.yaml")
    assert len(read_samples(ROOT / config["samples"], base_dir=ROOT)) > 0
