"""Heatmap rows and bins, arm grid."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtcflow.plot import style
from dtcflow.plot.copy_number import (
    MIN_ROWS,
    Heatmap,
    arm_grid,
    arm_order,
    bin_windows,
    choose_rows,
    colour_limit,
    condense,
    gather,
    heatmaps,
)


def cells(n_reference: int, n_normal: int, n_undecided: int, n_malignant: int) -> pd.DataFrame:
    calls = ["normal"] * (n_reference + n_normal) + ["indeterminate"] * n_undecided + ["malignant"] * n_malignant
    n = len(calls)
    return pd.DataFrame(
        {
            "cell_id": [f"S:{i:05d}" for i in range(n)],
            "sample_id": "S",
            "compartment": [
                "primary" if call == "malignant" and i % 4 > 1 else "marrow" for i, call in enumerate(calls)
            ],
            "cell_type": [("B", "T_NK")[i % 2] for i in range(n)],
            "malignant_call": calls,
            "clone_id": ["BA"[i % 2] if call == "malignant" else "" for i, call in enumerate(calls)],
            "is_dtc": [call == "malignant" and i % 4 < 2 for i, call in enumerate(calls)],
            "is_reference": [i < n_reference for i in range(n)],
        }
    )


def layout(arms: list[str], starts: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"chromosome": [f"chr{arm[:-1]}" for arm in arms], "start": starts, "arm": arms})


def test_blocks_come_in_reading_order() -> None:
    labels = [block.label for block in choose_rows(cells(3, 2, 1, 8))]
    assert labels == [
        "reference (normal cells)",
        "other cells called normal",
        "undecided",
        "DTC, clone A",
        "malignant in primary, clone A",
        "DTC, clone B",
        "malignant in primary, clone B",
    ]


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 400)] * 3), st.integers(0, 500), st.integers(1, 300))
def test_no_malignant_cell_is_ever_dropped(others: tuple[int, int, int], n_malignant: int, max_rows: int) -> None:
    frame = cells(*others, n_malignant)
    blocks = choose_rows(frame, max_rows=max_rows)
    drawn = [row for block in blocks for row in block.rows.tolist()]
    assert len(drawn) == len(set(drawn))
    assert set(np.flatnonzero(frame["malignant_call"] == "malignant")) <= set(drawn)
    assert sum(block.total for block in blocks) == len(frame)
    for block in blocks:
        assert len(block.rows) >= min(block.total, MIN_ROWS)


def test_groups_are_capped_and_the_choice_ignores_the_order_of_cells() -> None:
    frame = cells(900, 900, 0, 3)
    blocks = choose_rows(frame, max_rows=203)
    assert [len(block.rows) for block in blocks[:2]] == [100, 100]
    order = np.random.default_rng(0).permutation(len(frame))
    shuffled = frame.iloc[order].reset_index(drop=True)
    for first, second in zip(blocks, choose_rows(shuffled, max_rows=203), strict=True):
        assert frame["cell_id"].iloc[first.rows].tolist() == shuffled["cell_id"].iloc[second.rows].tolist()


def test_bins_are_means_within_an_arm_in_genome_order() -> None:
    # columns out of order: chr2 first, then chr1q, then four windows of chr1p
    windows = layout(["2p", "1q", "1p", "1p", "1p", "1p"], [1, 500, 40, 10, 20, 30])
    matrix = np.array([[9, 5, 4, 1, 2, np.nan]], dtype=np.float32)
    means, bins = bin_windows(matrix, windows, max_windows=3)
    assert bins["arm"].tolist() == ["1p", "1p", "1q", "2p"]
    np.testing.assert_allclose(means, [[1.5, 4.0, 5.0, 9.0]])  # (1+2)/2, (nan, 4), and arms never mixed


def test_nothing_is_averaged_when_there_are_few_windows() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    means, bins = bin_windows(matrix, layout(["1p", "1p", "10q"], [1, 2, 3]))
    np.testing.assert_array_equal(means, matrix)
    assert bins["chromosome"].tolist() == ["chr1", "chr1", "chr10"]


def test_colour_limit_is_shared_and_never_zero() -> None:
    assert colour_limit([]) == 0.05
    assert colour_limit([np.zeros((2, 2), dtype=np.float32)]) == 0.05
    both = [np.full((1, 10), 0.2, dtype=np.float32), np.full((1, 10), np.nan, dtype=np.float32)]
    assert colour_limit(both) == pytest.approx(0.2)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_any_number_of_cells_gives_a_figure(n: int) -> None:
    matrix, bins = bin_windows(np.zeros((n, 4), dtype=np.float32), layout(["1p", "1q", "2p", "X"], [1, 2, 3, 4]))
    panel = Heatmap("P$1_x", matrix, bins, choose_rows(cells(0, n - n // 2, 0, n // 2)))
    svg = style.svg_file(heatmaps([panel], limit=0.1))
    if n:
        assert "Patient P$1_x" in svg
    else:
        assert "No patient has copy-number windows" in svg


def test_gathered_rows_are_the_drawn_cells_in_their_blocks() -> None:
    blocks = choose_rows(cells(200, 0, 0, 4), max_rows=64)
    rows, own = gather(blocks)
    assert len(rows) == 64
    for before, after in zip(blocks, own, strict=True):
        np.testing.assert_array_equal(rows[after.rows], before.rows)
        assert (after.label, after.total, after.is_dtc) == (before.label, before.total, before.is_dtc)
    assert len(gather([])[0]) == 0


def test_condensed_rows_are_means_of_neighbours_and_none_is_left_out() -> None:
    rows = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, np.nan], [7.0, np.nan], [12.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(condense(rows, 2), [[2.0, 4.0], [8.0, 2.0]])
    np.testing.assert_array_equal(condense(rows, 5), rows)
    one = np.zeros((100, 1), dtype=np.float32)
    one[37] = 1
    assert condense(one, 7).max() == pytest.approx(1 / 14, rel=0.1)


def test_patients_that_do_not_fit_are_named() -> None:
    matrix, bins = bin_windows(np.zeros((4, 2), dtype=np.float32), layout(["1p", "1q"], [1, 2]))
    panels = [Heatmap(f"P{i}", matrix, bins, choose_rows(cells(4, 0, 0, 0))) for i in range(5)]
    svg = style.svg_file(heatmaps(panels, limit=0.1, max_height=2.0))
    assert "Patient P0" in svg
    assert "Patient P4" not in svg
    assert re.search(r"not drawn here, but in the report: .*P4", svg)


def test_block_labels_say_how_many_are_drawn() -> None:
    frame = cells(500, 0, 0, 2)
    matrix, bins = bin_windows(np.zeros((502, 2), dtype=np.float32), layout(["1p", "1q"], [1, 2]))
    svg = style.svg_file(heatmaps([Heatmap("P", matrix, bins, choose_rows(frame, max_rows=82))], limit=0.1))
    assert "reference (normal cells) (80 of 500)" in svg


def test_arms_sort_as_in_the_genome() -> None:
    assert sorted(["Xq", "10p", "2q", "1q", "1p"], key=arm_order) == ["1p", "1q", "2q", "10p", "Xq"]


def test_arm_grid_marks_states_by_sign_and_not_by_colour_alone() -> None:
    arms = pd.DataFrame(
        {
            "sample_id": "S_1",
            "clone_id": "A",
            "arm": ["1q", "16q", "2p", "3p"],
            "state": ["gain", "loss", "neutral", "not_assessable"],
            "n_cells": [12, 12, 12, np.nan],
        }
    )
    svg = style.svg_file(arm_grid(arms))
    for shown in (">+<", ">–<", ">·<", "S_1 · A (12)"):
        assert shown in svg
    assert "No chromosome arm was tested" in style.svg_file(arm_grid(arms.iloc[:0]))
