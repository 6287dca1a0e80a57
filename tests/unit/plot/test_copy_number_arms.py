"""Grid of arm states, log ratios with intervals, and the given karyotype."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from dtcflow.contracts import TABLES
from dtcflow.plot import style
from dtcflow.plot.copy_number_arms import (
    HATCH,
    MAX_PANELS,
    arm_grid,
    arm_order,
    clone_order,
    karyotype,
    lollipops,
    panel_keys,
    pearson,
)

ARMS = ("1p", "1q", "2p", "2q", "3p")


def table(*groups: tuple[str, str], states: dict[str, str] | None = None) -> pd.DataFrame:
    """Rows of table ``arms`` for (clone, sample): 1q gained by 0.4, 2p lost by 0.5, 2q and 3p not assessable."""
    state = {"1p": "neutral", "1q": "gain", "2p": "loss", "2q": "not_assessable", "3p": "not_assessable"}
    state |= states or {}
    value = {"1p": 0.02, "1q": 0.4, "2p": -0.5, "2q": 0.3, "3p": np.nan}
    rows = [
        ("P", sample, clone, arm, value[arm], value[arm] - 0.1, value[arm] + 0.1, 0.01, state[arm], 7, 200, 0.9, 0.2)
        for clone, sample in groups
        for arm in ARMS
    ]
    return pd.DataFrame(rows, columns=list(TABLES["arms"]))


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.get_axes() if ax.get_title(loc="left")]


def hatched(ax: Axes) -> list[tuple[float, float]]:
    """Left end and width of everything that is hatched."""
    found = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert all(patch.get_hatch() == HATCH for patch in found)
    return [(float(patch.get_x()), float(patch.get_width())) for patch in found]


def marks(ax: Axes, state: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for line in ax.lines
        if line.get_label() == state
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


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


def test_clones_sort_by_their_numbers() -> None:
    assert sorted(["P_c10", "", "P_c2", "Q_c1"], key=clone_order) == ["P_c2", "P_c10", "Q_c1", ""]


# ---------------------------------------------------------------------------------------------------------------------


def test_one_panel_per_clone_and_sample_in_order() -> None:
    arms = table(("P_c2", "P_marrow"), ("P_c1", "P_primary"), ("P_c1", "P_marrow"), ("", "P_blood"))
    assert panel_keys(arms) == [("P_c1", "P_marrow"), ("P_c1", "P_primary"), ("P_c2", "P_marrow")]
    titles = [ax.get_title(loc="left") for ax in panels(lollipops(arms, min_abs_log_ratio=0.15))]
    assert [title.split(" (")[0] for title in titles] == ["P_c1 in P_marrow", "P_c1 in P_primary", "P_c2 in P_marrow"]
    assert titles[0].endswith("(n = 7 cells): 1 gained, 1 lost, 1 neutral, 2 not assessable")


def test_every_arm_is_where_its_numbers_are() -> None:
    (ax,) = panels(lollipops(table(("c", "s")), min_abs_log_ratio=0.15))
    assert marks(ax, "gain") == [(1.0, 0.4)]
    assert marks(ax, "loss") == [(2.0, -0.5)]
    assert marks(ax, "neutral") == [(0.0, 0.02)]
    assert marks(ax, "not_assessable") == [(3.0, 0.3)]  # 3p has no number and no mark
    intervals = {
        (float(x[0]), round(float(y[0]), 6), round(float(y[1]), 6))
        for line in ax.lines
        if len(x := line.get_xdata()) % 3 == 0 and len(x) and np.isnan(x[2]) and line.get_linewidth() == 1.0
        for y in [line.get_ydata()]
    }
    assert {(1.0, 0.3, 0.5), (2.0, -0.6, -0.4), (0.0, -0.08, 0.12)} <= intervals
    assert [label.get_text() for label in ax.get_xticklabels()] == list(ARMS)


def test_states_differ_by_shape_and_colour() -> None:
    (ax,) = panels(lollipops(table(("c", "s")), min_abs_log_ratio=0.15))
    drawn = {line.get_label(): line for line in ax.lines if line.get_label() in style.ARM_COLOURS}
    assert len(drawn) == 4
    assert len({(line.get_marker(), to_hex(line.get_markerfacecolor())) for line in drawn.values()}) == 4
    assert drawn["gain"].get_marker() != drawn["loss"].get_marker()
    assert to_hex(drawn["gain"].get_color()) == style.ARM_COLOURS["gain"]
    assert to_hex(drawn["not_assessable"].get_markerfacecolor()) == "#ffffff"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, [(2.5, 2.0)]),
        ({"3p": "neutral"}, [(2.5, 1.0)]),
        ({"1p": "not_assessable"}, [(-0.5, 1.0), (2.5, 2.0)]),
        ({"2q": "neutral", "3p": "neutral"}, []),
    ],
)
def test_exactly_the_arms_that_are_not_assessable_are_hatched(
    states: dict[str, str], expected: list[tuple[float, float]]
) -> None:
    (ax,) = panels(lollipops(table(("c", "s"), states=states), min_abs_log_ratio=0.15))
    assert hatched(ax) == expected


def test_an_arm_that_has_no_row_is_hatched_too() -> None:
    arms = table(("c", "s"), ("d", "s"), states={"2q": "neutral", "3p": "neutral"})
    arms = arms[~((arms["clone_id"] == "d") & (arms["arm"] == "1q"))]
    first, second = panels(lollipops(arms, min_abs_log_ratio=0.15))
    assert hatched(first) == []
    assert hatched(second) == [(0.5, 1.0)]


def test_thresholds_and_the_smallest_detectable_effect_are_drawn() -> None:
    arms = table(("c", "s"))
    arms.loc[arms["arm"] == "1p", "smallest_detectable"] = 0.33
    arms.loc[arms["arm"] == "3p", "smallest_detectable"] = np.nan
    (ax,) = panels(lollipops(arms, min_abs_log_ratio=0.17, one_copy=(0.32, -0.55)))
    assert [line.get_ydata()[0] for line in ax.lines if line.get_label() == "threshold"] == [-0.17, 0.17]
    (band,) = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    values, edges, baseline = band.get_data()
    np.testing.assert_allclose(values, [0.33, 0.2, 0.2, 0.2, np.nan])
    np.testing.assert_allclose(baseline, [-0.33, -0.2, -0.2, -0.2, np.nan])
    np.testing.assert_allclose(edges, np.arange(6) - 0.5)
    dotted = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert dotted == [0.32, -0.55]
    (bare,) = panels(lollipops(arms, min_abs_log_ratio=None))
    assert not [line for line in bare.lines if line.get_label() == "threshold"]


def test_a_value_beyond_the_axis_is_marked_at_the_edge() -> None:
    arms = table(("c", "s"))
    arms.loc[arms["arm"] == "2q", ["log_ratio", "ci_low", "ci_high"]] = [5.0, 1.0, 9.0]
    (ax,) = panels(lollipops(arms, min_abs_log_ratio=0.15))
    top = ax.get_ylim()[1]
    assert top < 1.5  # an arm that is not assessable does not stretch the axis
    assert marks(ax, "not_assessable") == []
    edge = [line for line in ax.lines if line.get_marker() == "_" and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0] < top) for line in edge] == [(3.0, True)]


@pytest.mark.parametrize("n", [0, 1, 5, MAX_PANELS + 3])
def test_any_number_of_groups(n: int) -> None:
    arms = table(*[(f"c{i}", "s") for i in range(n)])
    figure = lollipops(arms, min_abs_log_ratio=0.15)
    assert len(panels(figure)) == min(n, MAX_PANELS)
    if n == 0:
        assert "No clone of this patient" in style.svg_file(figure)


def test_a_sample_without_a_clone_and_one_cell() -> None:
    arms = table(("", "s"))
    assert "No clone of this patient" in style.svg_file(lollipops(arms, min_abs_log_ratio=0.15))
    one = table(("c", "s"), states=dict.fromkeys(ARMS, "not_assessable")).assign(n_cells=1)
    (ax,) = panels(lollipops(one, min_abs_log_ratio=0.15))
    assert hatched(ax) == [(-0.5, 5.0)]
    assert "(n = 1 cell)" in ax.get_title(loc="left")


def test_the_bytes_are_stable_and_ids_are_shown_as_written() -> None:
    arms = table(("c$1$_x", "<s>"))
    first, second = (style.svg_file(lollipops(arms, min_abs_log_ratio=0.15)) for _ in range(2))
    assert first == second
    assert "c$1$_x in &lt;s&gt;" in first


# ---------------------------------------------------------------------------------------------------------------------


def comparison() -> pd.DataFrame:
    arms = table(("c", "s")).rename(columns={"log_ratio": "measured"})
    return arms[["arm", "measured", "ci_low", "ci_high", "state"]].assign(given=[0.0, 0.3, -0.6, -0.6, np.nan])


def test_karyotype_shows_given_and_measured_in_genome_order() -> None:
    shuffled = comparison().sample(frac=1, random_state=1)
    genome, scatter = karyotype(shuffled, min_abs_log_ratio=0.15).get_axes()
    (given,) = [patch for patch in genome.patches if isinstance(patch, StepPatch)]
    np.testing.assert_allclose(given.get_data().values, [0.0, 0.3, -0.6, -0.6, np.nan])
    assert [label.get_text() for label in genome.get_xticklabels()] == list(ARMS)
    assert marks(genome, "gain") == [(1.0, 0.4)]
    assert hatched(genome) == [(2.5, 2.0)]
    uncovered = [line.get_xdata().tolist() for line in genome.lines if line.get_marker() == "x"]
    assert uncovered == [[4]]
    points = [
        tuple(map(float, xy))
        for container in scatter.containers
        for xy in zip(*container.lines[0].get_data(), strict=True)
    ]
    assert sorted(points) == [(-0.6, -0.5), (0.0, 0.02), (0.3, 0.4)]  # 2q is not assessable, 3p not covered
    expected = np.corrcoef([0.0, 0.3, -0.6], [0.02, 0.4, -0.5])[0, 1]
    assert scatter.get_title(loc="left") == f"n = 3 arms, r = {expected:.2f}"


def test_karyotype_without_anything_to_compare() -> None:
    for frame in (comparison().assign(given=np.nan), comparison().iloc[:0]):
        assert "covers no chromosome arm" in style.svg_file(karyotype(frame, min_abs_log_ratio=0.15))
    blind = comparison().assign(state="not_assessable")
    genome, scatter = karyotype(blind, min_abs_log_ratio=0.15).get_axes()
    assert hatched(genome) == [(-0.5, 5.0)]
    assert scatter.get_title(loc="left") == "n = 0 arms"
    one = comparison().iloc[[1]]
    assert karyotype(one, min_abs_log_ratio=None).get_axes()[1].get_title(loc="left") == "n = 1 arms"


def test_correlation_needs_three_points_that_vary() -> None:
    two, three = np.array([0.0, 1.0]), np.array([0.0, 1.0, 2.0])
    assert np.isnan(pearson(two, two))
    assert np.isnan(pearson(three, np.zeros(3)))
    assert pearson(three, -three) == pytest.approx(-1)
