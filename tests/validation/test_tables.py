"""The scripts that compare runs with the truth, on tables small enough to count by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from demo_seeds import sentence, shortfalls
from single_tumours import auc
from truth_table import COLUMNS, compare, markdown, read_truth, write_pair

from dtcflow.contracts import CELLS_COLUMNS, InputError

pytestmark = pytest.mark.validation


def run_of(rows: list[tuple[str, str, bool, str]]) -> pd.DataFrame:
    """Public cell table with only the fields that count: cell, sample, passed, call."""
    frame = pd.DataFrame(dict.fromkeys(CELLS_COLUMNS, ""), index=range(len(rows)))
    frame["cell_id"] = [row[0] for row in rows]
    frame["sample_id"] = [row[1] for row in rows]
    frame["compartment"] = ["marrow" if "m" in row[1] else "primary" for row in rows]
    frame["pass_qc"] = [row[2] for row in rows]
    frame["malignant_call"] = [row[3] for row in rows]
    return frame


def truth_of(path, rows: list[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    header = "cell_id\ttrue_type\tis_tumour\tis_dying\tis_doublet\n"
    path.write_text(header + "".join("\t".join(row) + "\n" for row in rows))
    return read_truth(path)


@pytest.fixture
def small(tmp_path):
    """Seven cells of one marrow sample, one of another without tumour, one of a primary."""
    cells = run_of(
        [
            ("a", "m1", True, "malignant"),
            ("b", "m1", True, "malignant"),
            ("c", "m1", True, "indeterminate"),
            ("d", "m1", True, "normal"),
            ("e", "m1", False, ""),
            ("f", "m1", True, "malignant"),
            ("g", "m1", True, "normal"),
            ("h", "m2", True, "malignant"),
            ("i", "p1", True, "malignant"),
        ]
    )
    truth = truth_of(
        tmp_path / "truth.tsv",
        [
            ("a", "epithelial", "true", "false", "false"),
            ("b", "epithelial", "true", "false", "true"),
            ("c", "epithelial", "true", "false", "true"),
            ("d", "epithelial", "true", "false", "false"),
            ("e", "epithelial", "true", "true", "false"),
            ("f", "B", "false", "false", "false"),
            ("g", "B", "false", "false", "false"),
            ("h", "T_NK", "false", "false", "true"),
            ("i", "epithelial", "true", "false", "false"),
        ],
    )
    return cells, truth


def test_every_tumour_cell_is_somewhere(small):
    table = compare(*small)
    assert list(table.columns) == list(COLUMNS)
    row = table[table["sample_id"] == "m1"].iloc[0]
    assert (row["tumour"], row["alive"]) == (5, 4)
    assert (row["called"], row["indeterminate"], row["called_normal"], row["removed_by_qc"]) == (2, 1, 1, 1)
    assert (row["alive_called"], row["alive_removed"]) == (2, 0)
    assert (row["doublets"], row["doublets_called"]) == (2, 1)
    assert (row["false_calls"], row["false_by_type"]) == (1, "B 1")
    assert row["recall"] == pytest.approx(2 / 5)
    assert row["recall_alive"] == pytest.approx(2 / 4)
    assert row["precision"] == pytest.approx(2 / 3)


def test_a_sample_without_tumour_has_no_recall_and_counts_in_the_total(small):
    table = compare(*small)
    empty = table[table["sample_id"] == "m2"].iloc[0]
    assert math.isnan(empty["recall"])
    assert empty["precision"] == 0
    total = table[table["sample_id"] == "all"]
    assert total["compartment"].tolist() == ["marrow"]
    assert total["precision"].item() == pytest.approx(2 / 4)
    assert total["false_by_type"].item() == "B 1, T_NK 1"


def test_the_order_of_the_cells_does_not_matter(small):
    cells, truth = small
    pd.testing.assert_frame_equal(compare(cells[::-1], truth.sample(frac=1, random_state=1)), compare(cells, truth))


def test_the_truth_of_another_run_is_refused(small):
    cells, truth = small
    with pytest.raises(InputError, match="2 cells that are in one of the two only"):
        compare(cells, truth.replace({"cell_id": {"a": "z"}}))


def test_a_truth_without_dying_cells_and_doublets(tmp_path):
    (tmp_path / "t.tsv").write_text("cell_id\tis_tumour\na\tTrue\n")
    truth = read_truth(tmp_path / "t.tsv")
    assert truth.iloc[0].to_dict() == {
        "cell_id": "a",
        "true_type": "",
        "is_tumour": True,
        "is_dying": False,
        "is_doublet": False,
    }


def test_tables_say_how_they_were_made(tmp_path, small):
    write_pair(compare(*small), tmp_path / "t", title="Title", notes=("Note.",), command="make it")
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("<!-- made by: make it -->\n\n# Title\n")
    assert text.endswith("\nNote.\n")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert len((tmp_path / "t.tsv").read_text().splitlines()) == 1 + 4


def test_markdown_cells_do_not_break_the_table():
    assert "| a\\|b |" in markdown(pd.DataFrame({"x": ["a|b"]}))


def test_auc_by_hand():
    values = pd.Series([3.0, 1.0, 2.0, 2.0, float("nan")]).to_numpy()
    # pairs (3,2) (3,2) won, (1,2) (1,2) lost
    assert auc(values[:2], values[2:]) == 0.5
    assert auc(values[2:3], values[3:]) == 0.5
    assert math.isnan(auc(values[:2], values[4:]))


@pytest.mark.parametrize(
    ("scenario", "p2", "recall", "expected"),
    [
        ("progenitor", "SUPPORTED", 0.9, []),
        ("progenitor", "INCONCLUSIVE", 0.95, ["P2 INCONCLUSIVE", "hypothesis INCONCLUSIVE"]),
        ("null", "NOT_SUPPORTED", 0.95, []),
        ("null", "INCONCLUSIVE", 0.95, []),
        ("null", "SUPPORTED", float("nan"), ["recall of the living nan", "P2 SUPPORTED", "hypothesis SUPPORTED"]),
    ],
)
def test_what_a_seed_must_show(scenario, p2, recall, expected):
    row = {"scenario": scenario, "seed": 1, "recall_alive": recall, "precision": 1.0, "P2": p2, "hypothesis": p2}
    assert shortfalls(row) == expected
    table = pd.DataFrame([{**row, "as_required": "; ".join(shortfalls(row)) or "yes"}])
    assert sentence(table).startswith("1 of 1 runs are not as required" if expected else "All 1 runs are as required")
