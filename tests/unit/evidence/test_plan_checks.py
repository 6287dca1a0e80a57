"""What can be seen to be wrong with a plan before anything runs."""

from __future__ import annotations

import copy

import pytest

from dtcflow.contracts import InputError
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.plan_checks import KIND_CHECKS, check_plan, claim_panel, selecting_genes
from dtcflow.evidence.registry import DESIGNS, KINDS
from dtcflow.io.schema import load_schema
from dtcflow.scores.signatures import GeneSet, load_markers, load_panel


@pytest.fixture
def values(lab):
    return copy.deepcopy(load_plan(lab.plan_path).values)


def one(values, claim_id):
    return next(claim for claim in values["claims"] if claim["id"] == claim_id)


def test_every_kind_of_the_schema_can_be_checked_evaluated_and_judged():
    item = load_schema("claims.schema.yaml")["properties"]["claims"]["items"]["properties"]
    assert set(item["test"]["enum"]) == set(KINDS) == set(KIND_CHECKS)
    assert set(item["design"]["enum"]) == set(DESIGNS)


def test_a_test_nobody_knows_is_refused_with_the_known_ones(values):
    one(values, "C1")["test"] = "outcome"
    with pytest.raises(InputError) as caught:
        load_plan(values, where="my.yaml")
    text = str(caught.value)
    assert "'outcome'" in text
    assert "identity_share, paired_contrast, composite_contrast, specificity" in text


@pytest.mark.parametrize(
    ("claim_id", "key", "value", "part"),
    [
        ("P3", "of", "P22", "did you mean 'P2'"),
        ("P3", "of", "C4", "C4 (composite_contrast, paired, evaluated: True)"),
        ("P3", "of", "", "the id of the claim whose contrast must be specific"),
        ("P3", "purged_signatures", [], "without proliferation genes"),
        ("P3", "exceeded_signatures", [], "must exceed"),
        ("C4", "purged_signatures", [], "a decision on cycling cells needs it"),
        ("C4", "design", "unpaired", "compares within patients"),
        ("P4", "dormancy_signature", "", "another signature than the primary one"),
        ("P1", "primary_signature", "", "the name of a signature"),
        ("P1", "contrast", {"a": "HEM", "b": "PT"}, "a group of malignant cells"),
        ("C3", "sesoi", 1.5, "a number between 0 and 1"),
        ("C1", "contrast", {"a": "PT", "b": "PT"}, "this test is about the marrow"),
        ("C0", "contrast", {"a": "NE", "b": "PT"}, "a group of malignant cells"),
    ],
)
def test_each_kind_asks_for_what_it_needs(values, claim_id, key, value, part):
    one(values, claim_id)[key] = value
    with pytest.raises(InputError) as caught:
        load_plan(values)
    assert part in str(caught.value)


def test_specificity_speaks_of_the_contrast_it_names(values):
    one(values, "P2").update(
        {"contrast": {"a": "CTC", "b": "MET"}, "sesoi": 0.4, "direction": "less", "timepoint": "any"}
    )
    plan = load_plan(values)
    p3 = plan.claim("P3")
    assert (p3.contrast, p3.sesoi, p3.sign, p3.timepoint) == ("CTC - MET", 0.4, -1, "any")
    assert p3.primary_signature == plan.claim("P2").primary_signature
    assert plan.claim("P2").rivals == p3.exceeded_signatures
    # a claim that is not evaluated borrows nothing
    one(values, "P3").update({"evaluated": False, "family": "none"})
    assert load_plan(values).claim("P2").rivals == ()


PANEL = {one.name: one for one in load_panel()}
MARKERS = load_markers()


def test_shipped_plan_is_sound_and_loses_few_genes(lab):
    plan = load_plan(lab.plan_path)
    check_plan(plan, PANEL, MARKERS)
    sets, removed = claim_panel(plan.claim("P2"), PANEL, MARKERS)
    assert removed["LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"] == ("KRT14", "KRT5")
    assert not set(sets["LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"].genes) & set(MARKERS["epithelial"].genes)
    only = sets["HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION_ONLY"]
    assert not set(only.genes) & set(sets["LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"].genes)
    assert len(only.genes) == 200 - 65


def user_claim(**changes):
    return {
        "id": "X1",
        "title": "mine",
        "role": "context",
        "family": "secondary",
        "primary_signature": "MINE",
        **changes,
    }


def test_signature_of_marker_genes_is_circular_and_the_genes_are_named(values):
    values["claims"].append(user_claim())
    genes = ("EPCAM", "KRT8", "KRT18", *(f"G{i}" for i in range(17)))
    panel = PANEL | {"MINE": GeneSet("MINE", genes)}
    with pytest.raises(InputError) as caught:
        check_plan(load_plan(values), panel, MARKERS)
    text = str(caught.value)
    assert "MINE shares 3 of its 20 genes with the markers that chose the cells: EPCAM, KRT18, KRT8" in text
    assert "claim X1" in text


def test_few_marker_genes_are_taken_out_and_counted(values):
    values["claims"].append(user_claim())
    panel = PANEL | {"MINE": GeneSet("MINE", ("EPCAM", *(f"G{i}" for i in range(19))))}
    plan = load_plan(values)
    check_plan(plan, panel, MARKERS)
    sets, removed = claim_panel(plan.claim("X1"), panel, MARKERS)
    assert removed == {"MINE": ("EPCAM",)}
    assert len(sets["MINE"].genes) == 19


def test_markers_of_blood_cells_count_where_blood_cells_are_contrasted(values):
    values["claims"].append(user_claim())
    values["claims"].append(user_claim(id="X2", contrast={"a": "DTC", "b": "HEM"}))
    plan = load_plan(values)
    blood = set(MARKERS["T_NK"].genes)
    assert not blood & selecting_genes(plan.claim("X1"), MARKERS)
    assert blood <= selecting_genes(plan.claim("X2"), MARKERS)
    panel = PANEL | {"MINE": GeneSet("MINE", tuple(blood))}
    with pytest.raises(InputError) as caught:
        check_plan(plan, panel, MARKERS)
    assert "claim X2" in str(caught.value)
    assert "claim X1" not in str(caught.value)


def test_two_signatures_of_the_same_genes_are_circular(values):
    genes = tuple(f"G{i}" for i in range(40))
    panel = PANEL | {"A": GeneSet("A", genes[:30]), "B": GeneSet("B", genes[26:])}
    one(values, "P4").update({"primary_signature": "A", "dormancy_signature": "B"})
    with pytest.raises(InputError) as caught:
        check_plan(load_plan(values), panel, MARKERS)
    assert "A and B share 4 genes (29% of the smaller): G26, G27, G28, G29" in str(caught.value)


def test_unknown_names_of_every_kind_of_list_are_told(values):
    values["claims"].append(
        user_claim(
            primary_signature="LIM_MAMMARY_STEM_CEL_UP",
            covariates=["log_gene"],
            negative_controls=["NOBODY"],
        )
    )
    with pytest.raises(InputError) as caught:
        check_plan(load_plan(values), PANEL, MARKERS)
    assert len(caught.value.problems) == 1
    text = str(caught.value)
    for name in ("LIM_MAMMARY_STEM_CEL_UP", "NOBODY", "log_gene"):
        assert name in text
    assert "'LIM_MAMMARY_STEM_CELL_UP' for LIM_MAMMARY_STEM_CEL_UP" in text


def test_a_set_without_variants_is_never_replaced_by_the_unpurged_one(values):
    one(values, "P2")["sensitivity_signatures"] = ["MINE"]
    panel = {name: entry for name, entry in ((s.name, s) for s in load_panel()) if not name.startswith("PECE")}
    panel["MINE"] = GeneSet("MINE", tuple(f"G{i}" for i in range(30)))
    one(values, "P2")["covariates"] = ["log_gene"]
    with pytest.raises(InputError) as caught:
        check_plan(load_plan(values), panel, load_markers())
    [problem] = [problem for problem in caught.value.problems if problem.key == "claim P2"]
    assert "MINE_NOPROLIF, MINE_NOPROLIF_NOEMT" in problem.found
    assert "MINE has no purged variants" in problem.fix
    assert "'MINE'" not in problem.fix
    assert "'log_genes' for log_gene" in problem.fix


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *(("C1", "direction", "greater"), ("C3", "direction", "greater"), ("C3", "design", "unpaired")),
        *(("P1", "direction", "less"), ("P1", "design", "unpaired"), ("P4", "design", "unpaired")),
    ],
)
def test_values_that_no_test_would_read_are_refused(values, name, key, value):
    """They would change the plan and its hash, and not the analysis."""
    one(values, name)[key] = value
    with pytest.raises(InputError) as caught:
        load_plan(values)
    assert [problem.key for problem in caught.value.problems] == [f"claim {name}, {key}"]


def test_a_gate_must_be_a_share_of_identity(values):
    one(values, "P2")["role"] = "gate"
    values["hypothesis"]["necessary"].remove("P2")
    values["hypothesis"]["gates"].append("P2")
    with pytest.raises(InputError) as caught:
        load_plan(values)
    assert "claim P2, test" in [problem.key for problem in caught.value.problems]


def test_claims_are_called_by_their_id(values):
    one(values, "P1")["sesoi"] = "much"
    with pytest.raises(InputError) as caught:
        load_plan(values)
    assert [problem.key for problem in caught.value.problems] == ["claim P1, sesoi"]
