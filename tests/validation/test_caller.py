"""The small version of ``make bench-caller`` as gates: each can fail, and says which figure of the table fell.

The simulated part needs no data. Gates lie below the targets of the table, by the chance of the few runs here.
"""

from __future__ import annotations

import numpy as np
import pytest
from caller import calibration, measures, run, scale

pytestmark = pytest.mark.validation


def test_measures_by_hand() -> None:
    tumour = np.array([True, True, False, True, False, False])
    score = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert measures.auc(score[tumour], score[~tumour]) == pytest.approx(8 / 9)
    assert measures.tpr_at(score[tumour], score[~tumour], 0.01) == pytest.approx(2 / 3)
    assert measures.tpr_at(score[tumour], score[~tumour], 0.34) == 1.0
    assert measures.best_recall(score, tumour, false_share=0.05) == pytest.approx(2 / 3)
    assert measures.best_recall(score, tumour, false_share=0.25) == 1.0
    assert measures.best_recall(np.ones(6), tumour, false_share=0.05) == 0.0  # ties count against the tumour cells
    counts = measures.counted(score > 3.5, tumour, n_tumour=4)
    assert (counts.recall, counts.precision, counts.false_share) == (0.5, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert measures.counted(score > 9, tumour).false_share == 0.0
    assert measures.upper_per_10_000(0, 300) == pytest.approx(1e4 * (1 - 0.05 ** (1 / 300)))
    low, high = calibration.band(0.05, 1_000)
    assert 0.035 < low < 0.04 < 0.06 < high < 0.065


@pytest.fixture(scope="module")
def data(shared_data):
    return run.load(shared_data, small=True)


def test_ten_simulated_tumour_cells_are_found_and_nothing_else(tmp_path) -> None:
    runs = scale.measure(None, n_normal=2_000, seeds=(3,))
    assert (runs["called"] >= 9).all()
    assert (runs["false"] <= 2).all()
    rows = scale.rows(runs)
    assert [r.reached for r in rows] == ["yes", "yes"]
    run.write(rows, {"e": runs}, tmp_path, command="test", parts={"e"})
    assert "10 tumour cells among 2,000 normals, simulated" in (tmp_path / "caller.md").read_text()
    assert {p.name for p in tmp_path.iterdir()} >= {"caller.tsv", "caller_runs.tsv"}


def test_carcinoma_is_ranked_above_normal_cells_that_no_reference_holds(data) -> None:
    runs = run.measured("a", data)
    mine = runs[runs["method"] == "ours_full"].set_index(["design", "patient"])["tpr_0.01"]
    base = runs[runs["method"] == "infercnvpy"].set_index(["design", "patient"])["tpr_0.01"]
    assert mine.min() >= 0.85
    assert (mine > base).all()


def test_a_given_profile_finds_two_planted_arms(data) -> None:
    runs = run.measured("b", data)
    given = runs[runs["method"] == "ours_given"]
    assert given["tpr_0.01"].min() >= 0.8
    assert given["auc"].min() >= 0.95


def test_a_small_planted_clone_is_found_among_candidates(data) -> None:
    runs = run.measured("c", data).set_index("method")
    assert runs.loc["ours_epithelial", "recall"] >= 0.7
    assert runs.loc["ours_epithelial", "false"] <= 3
    assert runs.loc["given_epithelial", "recall"] >= 0.8
    assert runs.loc["ours_any", "false"] == 0


def test_twenty_real_tumour_cells_are_found(data) -> None:
    """Patient 14: most of these carcinoma cells show no epithelial markers, so that copy number alone must decide."""
    runs = run.measured("d", data).set_index("method")
    assert runs.loc["ours_any", "recall"] >= 0.8
    assert runs.loc["ours_any", "false"] <= 2


def test_nothing_is_called_where_there_is_no_tumour(data) -> None:
    runs = run.measured("f", data)
    known = runs["false"] - runs["open_false"]
    assert known.sum() <= 1
    assert runs.loc[runs["group"] == "immune", "false"].sum() == 0
    assert set(runs["method"]) == {"ours_any", "ours_epithelial"}


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
    assert whole["auc_19q"] >= 0.997
    assert whole["false"] == 0
    missing = runs[runs["reference"] == "no reference"]
    assert (missing["status"] == "no_reference").all()
    assert missing["called"].sum() == 0


def test_order_and_company_change_nothing(data) -> None:
    runs = run.measured("j", data)
    mine = runs[runs["method"].str.startswith("ours")]
    assert mine["absolute"].max() <= 1e-6
    assert runs.loc[runs["method"] == "infercnvpy", "relative"].max() > 0.01
