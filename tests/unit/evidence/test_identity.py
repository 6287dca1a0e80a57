import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from dtcflow.evidence.claims import judge_identity
from dtcflow.evidence.identity import identity_share, putative
from dtcflow.evidence.plan import load_plan


@pytest.fixture
def plan(lab):
    return load_plan(lab.plan_path)


def marrow(called, other=(), unputative=0):
    """Patients with ``called[i]`` malignant and ``other[i]`` not malignant putative cells."""
    rows = []
    for i, k in enumerate(called):
        left = other[i] if other else 0
        for call, n, z in (
            ("malignant", k, 6.0),
            ("normal", left, 6.0),
            ("malignant", unputative, 0.0),
            ("normal", 20, 0.0),
        ):
            rows += [
                {
                    "patient_id": f"P{i}",
                    "compartment": "marrow",
                    "malignant_call": call,
                    "epithelial_z": z,
                    "n_epithelial_markers": 3,
                    "cell_type": "epithelial",
                }
                for _ in range(n)
            ]
    return pd.DataFrame(rows)


def test_putative_needs_score_and_more_than_one_marker():
    cells = pd.DataFrame({"epithelial_z": [3.0, 2.9, 9.0, np.nan], "n_epithelial_markers": [2, 9, 1, 9]})
    cells["cell_type"] = "epithelial"
    assert putative(cells, epithelial_z=3.0, epithelial_markers=2).tolist() == [True, False, False, False]


def test_blood_cell_with_stray_keratin_is_not_putative():
    cells = pd.DataFrame(
        {
            "cell_type": ["T_NK", "unknown", "erythroid", "epithelial"],
            "lineage": ["haematopoietic", "unknown", "epithelial", "haematopoietic"],
            "epithelial_z": 4.0,
            "n_epithelial_markers": 3,
        }
    )
    assert putative(cells, epithelial_z=3.0, epithelial_markers=2).tolist() == [False, True, True, True]
    without = putative(cells.drop(columns="lineage"), epithelial_z=3.0, epithelial_markers=2)
    assert without.tolist() == [False, True, False, True]


def test_share_of_equal_patients_by_hand(plan):
    found = identity_share(marrow([9] * 6, [1] * 6), plan.claim("C0"), plan.rules)
    assert found.share == pytest.approx(9.5 / 11)
    assert found.patients["value_a"].tolist() == [0.9] * 6
    assert found.patients["difference"].tolist() == pytest.approx([np.log(9.5 / 1.5)] * 6)
    half = 2.5706 * np.sqrt((1 / 9.5 + 1 / 1.5) / 6)  # t with 5 degrees of freedom
    assert found.low == pytest.approx(expit(np.log(9.5 / 1.5) - half), abs=1e-4)
    assert found.p_value == pytest.approx(2 / 64)


def test_all_called_gives_a_real_interval_not_a_point(plan):
    found = identity_share(marrow([8] * 7), plan.claim("C0"), plan.rules)
    assert 0.5 < found.low < found.share < found.high < 1


def test_cells_without_epithelial_evidence_count_neither_as_putative_nor_as_called(plan):
    found = identity_share(marrow([4] * 6, [4] * 6, unputative=3), plan.claim("C0"), plan.rules)
    assert found.share == pytest.approx(0.5)
    assert found.n_called == 0
    assert found.n_malignant == 42


def test_droplets_that_a_tumour_cell_shares_prove_no_tumour_cell(plan):
    cells = marrow([8] * 6, [1] * 6).assign(malignant_class="tumour")
    claim = plan.claim("C0")
    alone = identity_share(cells, claim, plan.rules)
    doublets = cells[cells["malignant_call"] == "malignant"].assign(malignant_class="malignant_doublet")
    both = identity_share(pd.concat([cells, doublets]), claim, plan.rules)
    pd.testing.assert_frame_equal(both.patients, alone.patients)
    assert both.n_malignant == alone.n_malignant == 48
    # nor do those that were not called fail it: who is left out must not hang on the call
    uncalled = cells[cells["malignant_call"] == "normal"].assign(arbitration="doublet", p_doublet=0.99)
    single = cells.assign(arbitration="single", p_doublet=0.0)
    pd.testing.assert_frame_equal(
        identity_share(pd.concat([single, *[uncalled] * 9]), claim, plan.rules).patients, alone.patients
    )
    shared = cells.assign(malignant_class="malignant_doublet")
    judged = judge_identity(claim, plan.rules, identity_share(shared, claim, plan.rules))
    assert judged.decision.verdict == "INCONCLUSIVE"
    assert "NO_TUMOUR_CELLS" in judged.decision.codes
    assert "NO_DATA" not in judged.decision.codes  # the marrow was sampled


@pytest.mark.parametrize(
    ("called", "other", "verdict", "codes"),
    [
        ([9] * 6, [1] * 6, "SUPPORTED", ()),
        ([9] * 5, [1] * 5, "INCONCLUSIVE", ("LOW_N", "LOW_CELLS")),
        ([9, 9, 9, 9, 9, 4], [1] * 6, "INCONCLUSIVE", ("LOW_CELLS",)),
        ([5] * 6, [20] * 6, "NOT_SUPPORTED", ()),
        ([6] * 6, [6] * 6, "INCONCLUSIVE", ("NO_EFFECT_SHOWN",)),
        ([0] * 6, [6] * 6, "INCONCLUSIVE", ("NO_TUMOUR_CELLS", "LOW_CELLS")),
        ([], (), "INCONCLUSIVE", ("NO_TUMOUR_CELLS", "NO_DATA", "LOW_N", "LOW_CELLS")),
    ],
)
def test_gate(plan, called, other, verdict, codes):
    cells = marrow(called, other)
    if cells.empty:
        cells = pd.DataFrame(
            columns=["patient_id", "compartment", "malignant_call", "epithelial_z", "n_epithelial_markers", "cell_type"]
        )
    claim = plan.claim("C0")
    judged = judge_identity(claim, plan.rules, identity_share(cells, claim, plan.rules))
    assert (judged.decision.verdict, judged.decision.codes) == (verdict, codes)


def test_no_marrow_sample_is_said(plan):
    cells = marrow([3] * 6).assign(compartment="primary")
    claim = plan.claim("C0")
    found = identity_share(cells, claim, plan.rules)
    judged = judge_identity(claim, plan.rules, found)
    assert "NO_DATA" in judged.decision.codes
    assert set(found.patients["reason"]) == {"no marrow sample"}


def test_detectable_share_lies_between_a_half_and_one(plan):
    claim = plan.claim("C0")
    row = judge_identity(claim, plan.rules, identity_share(marrow([9] * 6, [1] * 6), claim, plan.rules)).row
    assert 0.5 < row["mde80"] < 1
    assert row["patients_needed"] == 6
