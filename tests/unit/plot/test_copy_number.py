"""Heatmap: rows by clone, bins, side bars and strips."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dtcflow.plot import style
from dtcflow.plot.copy_number import (
    MIN_ROWS,
    Heatmap,
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
        "DTC, clone A",
        "malignant in primary, clone A",
        "DTC, clone B",
        "malignant in primary, clone B",
        "undecided",
        "other cells called normal",
        "reference (normal cells)",
    ]


def test_clones_are_in_order_of_their_numbers_and_cells_without_one_come_last() -> None:
    frame = cells(2, 0, 0, 4)
    frame.loc[2:, "clone_id"] = ["P_c10", "", "P_c2", "P_c10"]
    frame.loc[2:, "compartment"] = "marrow"
    frame.loc[2:, "is_dtc"] = True
    blocks = [block for block in choose_rows(frame) if block.is_malignant]
    assert [(block.clone, len(block.rows)) for block in blocks] == [("P_c2", 1), ("P_c10", 2), ("", 1)]


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
    assert [len(block.rows) for block in blocks[-2:]] == [100, 100]
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


def panel(frame: pd.DataFrame, called: dict[str, dict[str, str]] | None = None) -> Heatmap:
    matrix, bins = bin_windows(
        np.zeros((len(frame), 6), dtype=np.float32), layout(["1p", "1p", "1q", "1q", "2p", "2q"], [1, 2, 3, 4, 5, 6])
    )
    return Heatmap("P", matrix, bins, choose_rows(frame), called or {})


def colours(ax: Axes) -> list[str]:
    """Face colours of the side bars of a row of cells, from the outside in."""
    bars = [patch for patch in ax.patches if patch.get_transform() is not ax.transData and patch.get_x() < 0]
    return [to_hex(bar.get_facecolor()) for bar in sorted(bars, key=lambda bar: (bar.get_x(), -bar.get_y()))]


def rows_of(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.get_axes() if ax.get_ylabel() not in ("", "log ratio (ln)")]


def test_side_bars_give_call_clone_and_compartment() -> None:
    frame = cells(6, 0, 0, 2)
    frame["compartment"] = ["primary"] * 4 + ["marrow"] * 4
    frame.loc[6:, "is_dtc"] = True
    top, second, *_, reference = rows_of(heatmaps([panel(frame)], limit=0.1))
    assert top.get_ylabel().startswith("DTC, clone A")
    malignant = style.CALL_COLOURS["malignant"].lower()
    marrow, primary = (style.COMPARTMENT_COLOURS[name].lower() for name in ("marrow", "primary"))
    assert colours(top) == [malignant, style.CLONE_COLOURS[0].lower(), marrow]
    assert second.get_ylabel().startswith("DTC, clone B")
    assert colours(second) == [malignant, style.CLONE_COLOURS[1].lower(), marrow]
    assert reference.get_ylabel().startswith("reference")
    # no clone bar; marrow (2 rows) above primary (4 rows), each as high as its share
    assert colours(reference) == ["#7b8794", marrow, primary]
    heights = [round(float(patch.get_height()), 6) for patch in reference.patches if patch.get_height() < 1]
    assert sorted(heights) == [round(2 / 6, 6), round(4 / 6, 6)]


def test_borders_lie_between_chromosomes_and_centromeres_within() -> None:
    ax = rows_of(heatmaps([panel(cells(3, 0, 0, 0))], limit=0.1))[0]
    solid, dotted = ax.collections
    assert [segment[0, 0] for segment in solid.get_segments()] == [3.5]  # after 1q
    assert [segment[0, 0] for segment in dotted.get_segments()] == [1.5, 4.5]  # 1p|1q and 2p|2q


def test_called_arms_are_a_strip_above_their_clone_and_only_there() -> None:
    frame = cells(2, 0, 0, 4)
    called = {"A": {"1q": "gain", "2p": "loss", "9p": "loss"}, "Z": {"1p": "gain"}}
    figure = heatmaps([panel(frame, called)], limit=0.1)
    strips = [ax for ax in rows_of(figure) if ax.get_ylabel().startswith("arms called")]
    assert [ax.get_ylabel() for ax in strips] == ["arms called in clone A"]
    arms = {
        (float(patch.get_x()), float(patch.get_width())): to_hex(patch.get_facecolor())
        for patch in strips[0].patches
        if patch.get_x() >= -0.5 and patch.get_transform() is not strips[0].transAxes and patch.get_width() >= 1
    }
    assert arms == {(1.5, 2.0): style.ARM_COLOURS["gain"], (3.5, 1.0): style.ARM_COLOURS["loss"]}
    assert [text.get_text() for text in strips[0].texts] == ["+", "–"]
    labels = [ax.get_ylabel() for ax in rows_of(figure)]
    assert labels.index("arms called in clone A") == labels.index(next(x for x in labels if "clone A (" in x)) - 1


@pytest.mark.parametrize("n", [1, 30, 60])
def test_every_patient_is_drawn_named_or_counted(n: int) -> None:
    panels = [replace(panel(cells(3, 0, 0, 2)), patient_id=f"P{i:02d}") for i in range(n)]
    figure = heatmaps(panels, limit=0.1, max_height=20.0)
    drawn = {ax.get_title(loc="left") for ax in figure.get_axes()}
    said = " ".join(text.get_text() for ax in figure.get_axes() for text in ax.texts)
    shown = [f"Patient {p.patient_id}" in drawn for p in panels]
    named = [p.patient_id in said for p in panels]
    assert not any(a and b for a, b in zip(shown, named, strict=True))
    more = re.search(r"and (\d+) more", said)
    assert sum(shown) + sum(named) + (int(more[1]) if more else 0) == n
