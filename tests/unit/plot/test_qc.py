"""QC waterfall: every cell once."""

from __future__ import annotations

import pandas as pd
import pytest

from dtcflow.plot import style
from dtcflow.plot.qc import waterfall, waterfall_table


def cells(rows: list[tuple[str, bool, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["sample_id", "pass_qc", "qc_reasons"])


ROWS = [
    ("A", True, ""),
    ("A", True, "high_mt"),  # passed: the reason does not matter
    ("A", False, "low_counts"),
    ("A", False, "low_counts;high_mt"),
    ("B", False, "high_mt"),
    ("B", False, "low_counts"),
    ("B", False, ""),
]


def test_each_cell_is_counted_once() -> None:
    table = waterfall_table(cells(ROWS))
    assert table.columns.tolist() == ["kept", "low_counts", "high_mt", "no reason recorded", "several reasons"]
    assert table.loc["A"].tolist() == [2, 1, 0, 0, 1]
    assert table.loc["B"].tolist() == [0, 1, 1, 1, 0]
    assert table.to_numpy().sum() == len(ROWS)


def test_order_of_cells_does_not_matter() -> None:
    frame = cells(ROWS)
    pd.testing.assert_frame_equal(waterfall_table(frame), waterfall_table(frame.iloc[::-1]))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_any_number_of_cells_gives_a_figure(n: int) -> None:
    svg = style.svg_file(waterfall(waterfall_table(cells([(f"S{i}", True, "") for i in range(n)]))))
    assert ("No cell was read" in svg) == (n == 0)


def test_removed_tumour_evidence_is_noted_at_its_sample() -> None:
    svg = style.svg_file(waterfall(waterfall_table(cells(ROWS)), pd.Series({"A": 2})))
    assert "2 of 4 kept; 2 removed with tumour evidence" in svg
    assert "0 of 3 kept<" in svg
