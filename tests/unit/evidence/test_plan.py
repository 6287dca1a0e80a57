import copy

import pytest
import yaml

from dtcflow.contracts import InputError
from dtcflow.evidence.plan import canonical_sha256, load_plan
from dtcflow.evidence.plan_checks import check_plan
from dtcflow.io.schema import load_schema
from dtcflow.scores.signatures import GeneSet, load_markers, load_panel


@pytest.fixture
def values(lab):
    return copy.deepcopy(load_plan(lab.plan_path).values)


def test_shipped_plan_names_gate_and_necessary_claims(lab):
    plan = load_plan(lab.plan_path)
    assert plan.gates == ("C0",)
    assert plan.necessary == ("P1", "P2", "P3")
    assert [claim.id for claim in plan.claims if claim.evaluated] == ["C0", "P1", "P2", "P3", "C4", "C3", "C1", "P4"]
    p2 = plan.claim("P2")
    assert (p2.primary_signature, p2.sesoi, p2.sign, p2.contrast) == (
        "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF",
        0.5,
        1,
        "DTC - PT",
    )
    assert plan.rules.confirmatory_patients == 6
    assert len(p2.multiverse_signatures()) == 6
    assert len(p2.required_signatures()) == len(set(p2.required_signatures())) == 13


def test_shipped_plan_names_only_signatures_of_the_shipped_panel(lab):
    check_plan(load_plan(lab.plan_path), {one.name: one for one in load_panel()}, load_markers())


def test_hash_follows_values_not_layout(lab, values, tmp_path):
    first = load_plan(lab.plan_path)
    shuffled = tmp_path / "claims.yaml"
    shuffled.write_text(yaml.safe_dump(values, sort_keys=True))
    assert load_plan(shuffled).sha256 == first.sha256 == canonical_sha256(first.values)
    values["claims"][2]["sesoi"] = 0.4
    assert load_plan(values).sha256 != first.sha256


def test_defaults_are_part_of_the_hash(lab, values):
    del values["rules"]["alpha"]
    assert load_plan(values).sha256 == load_plan(lab.plan_path).sha256


def test_all_problems_are_told_at_once(values):
    values["claims"][2]["sesoy"] = 1
    values["rules"]["alpha"] = 3
    values["claims"][0]["role"] = "gates"
    with pytest.raises(InputError, match="3 problems") as caught:
        load_plan(values, where="my.yaml")
    text = str(caught.value)
    for part in ("my.yaml", "did you mean 'claims.2.sesoi'", "rules.alpha", "one of gate, necessary"):
        assert part in text


def test_claims_must_fit_together(values):
    values["hypothesis"]["necessary"] = ["P1", "P22"]
    values["claims"][2]["contrast"]["b"] = "DTC"
    values["claims"][2]["negative_controls"] = ["PECE_MAMMARY_STEM_CELL_UP"]
    values["claims"][2]["primary_signature"] = ""
    values["claims"][1] |= {"family": "confirmatory", "evaluated": False}
    values["claims"][0]["sesoi"] = 2.0
    values["rules"]["estimate_patients"] = 7
    values["claims"].append(values["claims"][0])
    with pytest.raises(InputError) as caught:
        load_plan(values)
    text = str(caught.value)
    for part in (
        "C0 2 times",
        "did you mean 'P2'",
        "P2 with role necessary, not in this list",
        "two different groups",
        "a signature that the claim does not test",
        "name the signature that decides",
        "cannot count in a family",
        "a share between 0 and 1",
        "at most confirmatory_patients",
    ):
        assert part in text


def test_gate_in_the_wrong_role_is_refused(values):
    values["claims"][0]["role"] = "context"
    with pytest.raises(InputError, match="role gate"):
        load_plan(values)


def test_unknown_signatures_are_named_with_the_claim(lab):
    plan = load_plan(lab.plan_path)
    with pytest.raises(InputError, match="claim P2") as caught:
        check_plan(plan, {"EPPERT_HSC_RR": GeneSet("EPPERT_HSC_RR", ("CD34",))}, {})
    asking = [claim for claim in plan.claims if claim.required_signatures()]
    assert len(caught.value.problems) == len(asking) >= 5
    for claim in asking:
        for name in claim.required_signatures():
            assert name in str(caught.value)
    assert "did you mean 'EPPERT_HSC_RR' for EPPERT_HSC_R" in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n", "hypothesis: 3\n", "", "a: [1\n"])
def test_files_that_are_no_plan(tmp_path, content):
    path = tmp_path / "claims.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"claims\.yaml"):
        load_plan(path)


def test_every_leaf_of_the_schema_is_described_and_every_plan_line_teaches(lab):
    schema = load_schema("claims.schema.yaml")

    def walk(part, key=""):
        for name, leaf in part.get("properties", {}).items():
            assert leaf.get("description"), f"{key}{name} has no description"
            walk(leaf, f"{key}{name}.")
        if "items" in part:
            walk(part["items"], f"{key}[].")

    walk(schema)
    text = lab.plan_path.read_text()
    rules = text[text.index("rules:") : text.index("claims:\n")].splitlines()[1:]
    assert [line for line in rules if line.strip() and "#" not in line] == []
