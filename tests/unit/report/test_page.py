"""How values are written: nothing missing is shown as a number, and no number as something else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.report import page


@pytest.mark.parametrize("value", [None, np.nan, float("inf"), pd.NA, pd.NaT, "", "  "])
def test_missing_is_a_dash_everywhere(value: object) -> None:
    for write in (page.number, page.short, page.count, page.p_value, page.text):
        assert write(value) == page.NONE
    assert page.estimate(value, 0, 1) == page.NONE
    assert page.interval(value, value) == page.NONE
    assert page.percent(value, 3) == page.NONE


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (page.number(-1.234), "−1.23"),
        (page.number(-0.001), "0.00"),
        (page.number(1234.5, 1), "1,234.5"),
        (page.short(0.000123456), "0.000123"),
        (page.short(-12345.6), "−12,346"),
        (page.short(2.0), "2"),
        (page.count(1234567), "1,234,567"),
        (page.count(2.0), "2"),
        (page.p_value(0.00009), "< 0.0001"),
        (page.p_value(0.015625), "0.016"),
        (page.p_value(0.5), "0.50"),
        (page.p_value(1), "1.00"),
        (page.percent(1, 8), "12.5 %"),
        (page.percent(1, 0), "–"),
        (page.estimate(1, 0.5, 1.5), "1.00 (0.50 to 1.50)"),
        (page.estimate(1, np.nan, np.nan), "1.00"),
        (page.plural(1, "patient"), "1 patient"),
        (page.plural(2000, "patient"), "2,000 patients"),
        (page.listed(["a", "b", "c"]), "a, b and c"),
        (page.listed(["a"]), "a"),
        (page.listed([]), ""),
        (page.number("not a number"), "not a number"),
    ],
)
def test_values_in_words(shown: str, expected: str) -> None:
    assert shown == expected


def test_tables_tell_probabilities_from_other_numbers() -> None:
    frame = pd.DataFrame(
        {"name": ["a"], "patient_p_adjusted": [1e-9], "q_value": [0.2], "n_pairs": [1200.0], "ok": [True]}
    )
    table = page.frame_table(frame, "caption")
    assert [cell.text for cell in table.rows[0]] == ["a", "< 0.0001", "0.20", "1,200", "yes"]
    assert [column.number for column in table.columns] == [False, True, True, True, False]


def test_tables_keep_to_the_limit_and_to_the_columns_that_exist() -> None:
    frame = pd.DataFrame({"a": range(10), "b": range(10)})
    table = page.frame_table(frame, "caption", columns=["b", "absent"], max_rows=3)
    assert len(table.rows) == 3
    assert [column.title for column in table.columns] == ["b"]
