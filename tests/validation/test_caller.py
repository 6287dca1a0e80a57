"""The small version of ``make bench-caller`` as gates: each can fail, and says which figure of the table fell.

The simulated part needs no data. Gates lie below the targets of the table, by the chance of the few runs here.
"""

from __future__ import annotations

import pytest
from caller import calibration, run, scale

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def data(shared_data):
    return run.load(shared_data, small=True)


def test_ten_simulated_tumour_cells_are_found_and_nothing_else() -> None:
    runs = scale.measure(None, n_normal=2_000, seeds=(3,))
    epithelial = runs[runs["method"] == "ours_epithelial"]
    assert (epithelial["called"] >= 9).all()
    assert (runs["false"] <= 2).all()


def test_carcinoma_is_ranked_above_normal_cells_that_no_reference_holds(data) -> None:
    runs = run.measured("a", data)
    mine = runs[runs["method"] == "ours_full"].set_index(["design", "patient"])["tpr_0.01"]
    base = runs[runs["method"] == "infercnvpy"].set_index(["design", "patient"])["tpr_0.01"]
    assert mine.min() >= 0.85
    assert (mine > base).all()


def test_a_given_profile_finds_two_planted_arms(data) -> None:
    runs = run.measured("b", data)
    given = runs[runs["method"] == "ours_given"]
    assert given["tpr_0.01"].min() >= 0.6
    assert given["auc"].min() >= 0.95


def test_ten_real_tumour_cells_are_found(data) -> None:
    runs = run.measured("d", data)
    mine = runs[runs["method"] == "ours_epithelial"]
    assert mine["recall"].min() >= 0.8
    assert mine["false"].max() <= 3


def test_nothing_is_called_where_there_is_no_tumour(data) -> None:
    runs = run.measured("f", data)
    immune = runs[runs["group"] == "immune"]
    assert immune["false"].sum() == 0
    by_mode = runs.groupby("method")[["false", "cells"]].sum()
    assert (1e4 * by_mode["false"] / by_mode["cells"] <= 60).all()


def test_p_values_of_unseen_normals_are_uniform(data) -> None:
    values = run.measured("h", data)
    n = values["cell"].nunique()
    for level in calibration.TAILS:
        low, high = calibration.band(level, n)
        assert low <= calibration.rate(values, level) <= high


def test_both_deleted_arms_of_oligodendrogliomas_are_seen(data) -> None:
    runs = run.measured("i", data)
    both = runs[runs["reference"] == "both normal types"]
    whole = both[both["tumour"] == "all"].iloc[0]
    assert whole["auc_1p"] >= 0.999
    assert whole["auc_19q"] >= 0.99
    assert whole["false"] == 0
    missing = runs[runs["reference"] == "no reference"]
    assert (missing["status"] == "no_reference").all()
    assert missing["called"].sum() == 0


def test_order_and_company_change_nothing(data) -> None:
    runs = run.measured("j", data)
    mine = runs[runs["method"].str.startswith("ours")]
    assert mine["absolute"].max() <= 1e-6
    assert runs.loc[runs["method"] == "infercnvpy", "relative"].max() > 0.01
