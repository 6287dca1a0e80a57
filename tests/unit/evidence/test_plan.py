import copy

import pytest
import yaml

from dtcflow.contracts import InputError
from dtcflow.evidence.plan import canonical_sha256, examine_plan, load_plan
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


def more(lab, *claims):
    """The shipped plan and these claims; what an entry does not say is that of a sound claim."""
    sound = {"title": "own", "role": "context", "family": "secondary", "primary_signature": "A"}
    values = lab.plan_values()
    return values | {"claims": [*values["claims"], *({**sound, **claim} for claim in claims)]}


def told(values):
    plan, problems = examine_plan(values, where="claims")
    return plan, [str(problem.key).split(",")[0] for problem in problems]


def test_a_claim_that_is_not_evaluated_stays_in_the_plan(lab):
    values = more(lab, {"id": "X1", "evaluated": False, "family": "none", "of": "P9"})
    plan, problems = told(values)
    assert not problems
    assert "X1" in [claim.id for claim in plan.claims]
    assert load_plan(values).sha256 == plan.sha256


def test_claims_about_a_broken_one_go_with_it_without_a_word(lab):
    chain = {"test": "specificity", "purged_signatures": ["A"], "exceeded_signatures": ["B"]}
    broken = {"id": "X0", "colour": "red"}
    values = more(lab, broken, {"id": "X1", "of": "X0", **chain}, {"id": "X2", "of": "X1", **chain}, {"id": "X3"})
    plan, problems = told(values)
    assert problems[0] == "claim X0"
    assert {"X0", "X1", "X2"}.isdisjoint(claim.id for claim in plan.claims)
    assert "X3" in [claim.id for claim in plan.claims]


@pytest.mark.parametrize("broken", [{"role": "suporting"}, {"id": "1"}, {"title": None}, {"test": "outcome"}])
def test_one_broken_claim_hides_no_other(lab, broken):
    values = more(lab, {"id": "X0"} | broken, {"id": "X1", "contrast": {"a": "PT", "b": "PT"}})
    plan, problems = told(values)
    assert len(problems) == 2
    assert problems[1] == "claim X1"
    assert plan is not None


def test_two_claims_without_a_title_are_two_problems(lab):
    values = more(lab, {"id": "X0"}, {"id": "X1"})
    for claim in values["claims"][-2:]:
        del claim["title"]
    assert told(values)[1] == ["claim X0", "claim X1"]


@pytest.mark.parametrize("block", ["gates", "necessary"])
def test_a_broken_claim_is_not_missed_in_the_hypothesis(lab, block):
    values = lab.plan_values()
    name = values["hypothesis"][block][0]
    next(claim for claim in values["claims"] if claim["id"] == name)["colour"] = "red"
    assert told(values)[1][0] == f"claim {name}"
    assert not [key for key in told(values)[1] if key.startswith("hypothesis")]


@pytest.mark.parametrize(
    "strange",
    [{"claims.99": 1}, {"claims.99.sesoi": 1}, {"claims": {"0": {"sesoi": float("nan")}}}, {"claims": [3, None]}],
)
def test_no_plan_is_too_strange_to_be_told(lab, strange):
    _, problems = told(lab.plan_values() | strange)
    assert problems
    with pytest.raises(InputError):
        load_plan(lab.plan_values() | strange)


def test_the_ceiling_of_genomes_is_that_of_the_primary(lab):
    own = {"id": "X1", "test": "dissimilarity", "direction": "less", "sesoi": 0.5, "primary_signature": ""}
    for group, problems in (("PT", []), ("NE", ["claim X1"]), ("MET", ["claim X1"])):
        assert told(more(lab, own | {"contrast": {"a": "DTC", "b": group}}))[1] == problems
