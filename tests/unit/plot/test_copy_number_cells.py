"""Clone statistics over their nulls, and the kinds of evidence apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from dtcflow.plot import style
from dtcflow.plot.copy_number_cells import (
    CLASS_NAMES,
    MAX_LOG_P,
    MAX_VECTOR_POINTS,
    NULL_NAMES,
    ScoreDistribution,
    bin_edges,
    evidence,
    scaled_counts,
    score_histogram,
    score_histograms,
)


def distribution(
    n_normal: int = 300, n_undecided: int = 4, n_malignant: int = 20, *, nulls: bool = True, seed: int = 0
) -> ScoreDistribution:
    rng = np.random.default_rng(seed)
    call = np.array(["normal"] * n_normal + ["indeterminate"] * n_undecided + ["malignant"] * n_malignant, dtype=object)
    score = np.where(call == "malignant", rng.uniform(4, 9, len(call)), rng.normal(0, 1, len(call)))
    found = {
        "matched": rng.normal(0, 1, 150),
        "unseen": rng.normal(0, 1.4, 200),
        "decoy_flipped": np.append(rng.normal(0, 1, 99), [4.5]),
        "decoy_permuted": rng.normal(0, 1, 500),
    }
    return ScoreDistribution(
        "P1",
        score,
        call,
        (call == "malignant") & (np.arange(len(call)) % 2 == 0),
        found if nulls else {},
        float(score[call == "malignant"].min()) if n_malignant else None,
    )


def steps(ax: Axes) -> dict[str, StepPatch]:
    return {str(patch.get_label()): patch for patch in ax.patches if isinstance(patch, StepPatch)}


def legend_texts(figure: object) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]  # type: ignore[attr-defined]


def test_bins_hold_every_cell_of_every_call() -> None:
    panel = distribution()
    (ax,) = score_histogram(panel).get_axes()
    drawn = {call: np.nansum(steps(ax)[call].get_data().values) for call in ("normal", "indeterminate", "malignant")}
    assert drawn == {"normal": 300, "indeterminate": 4, "malignant": 20}
    assert ax.get_yscale() == "log"


def test_an_empty_bin_is_no_bar() -> None:
    panel = distribution()
    (ax,) = score_histogram(panel).get_axes()
    values = steps(ax)["malignant"].get_data().values
    assert np.isnan(values).any()
    assert np.nanmin(values) >= 1


def test_nulls_are_scaled_to_the_scored_cells() -> None:
    panel = distribution()
    edges = bin_edges(panel)
    for values in panel.nulls.values():
        assert scaled_counts(values, edges, panel.n_scored).sum() == pytest.approx(panel.n_scored)
    assert scaled_counts(np.array([0.1, 0.2, np.nan, -50.0]), np.array([0.0, 1.0, 2.0]), 9).tolist() == [9.0, 0.0]
    assert scaled_counts(np.array([np.nan]), edges, 9).sum() == 0


def test_a_null_may_stand_for_fewer_cells() -> None:
    panel = replace(distribution(), stands_for={"decoy_flipped": 24})
    (ax,) = score_histogram(panel).get_axes()
    sums = {kind: np.sum(line.get_data().values) for kind, line in steps(ax).items() if kind in NULL_NAMES}
    low = 0.25 * len(bin_edges(panel))  # empty bins lie below the axis, not at zero, which a log axis has not
    assert 24 <= sums["decoy_flipped"] <= 24 + low
    assert panel.n_scored <= sums["matched"] <= panel.n_scored + low


def test_of_decoys_only_those_that_win_are_drawn_and_counted() -> None:
    wins = np.array([0.5, 4.5])
    panel = replace(distribution(), nulls={"decoy_flipped": wins}, stands_for={"decoy_flipped": 24}, threshold=4.0)
    panel = replace(panel, sizes={"decoy_flipped": 480})
    edges = bin_edges(panel)
    assert panel.line("decoy_flipped", edges).sum() == pytest.approx(24 * 2 / 480)
    assert panel.beyond("decoy_flipped") == (1, 480)
    assert "decoy: signs flipped (n = 480; 2 win, 1 beyond)" in legend_texts(score_histogram(panel))
    none = replace(panel, nulls={"decoy_flipped": wins[:0]})
    assert none.line("decoy_flipped", edges).sum() == 0
    assert "decoy: signs flipped (n = 480; 0 win, 0 beyond)" in legend_texts(score_histogram(none))


def test_each_null_has_a_line_of_its_own_dash_and_colour() -> None:
    panel = distribution()
    (ax,) = score_histogram(panel).get_axes()
    lines = {kind: patch for kind, patch in steps(ax).items() if kind in NULL_NAMES}
    assert set(lines) == set(panel.nulls)
    assert len({patch.get_linestyle() for patch in lines.values()}) == 4
    assert len({to_hex(patch.get_edgecolor()) for patch in lines.values()}) == 4
    assert not any(patch.get_fill() for patch in lines.values())


def test_the_key_counts_cells_and_nulls_beyond_the_threshold() -> None:
    panel = distribution()
    assert panel.threshold is not None
    assert panel.beyond("decoy_flipped") == (int(panel.threshold <= 4.5), 100)
    assert panel.beyond("matched") == (0, 150)
    texts = legend_texts(score_histogram(panel))
    assert "malignant (n = 20)" in texts
    assert "DTC, one mark each (n = 10)" in texts
    assert "held-out reference (n = 150; 0 beyond)" in texts
    assert f"decoy: signs flipped (n = 100; {int(panel.threshold <= 4.5)} beyond)" in texts


def test_threshold_and_called_cells_are_marked() -> None:
    panel = distribution()
    (ax,) = score_histogram(panel).get_axes()
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["threshold"].get_xdata()[0] == panel.threshold
    assert sorted(lines["DTC"].get_xdata()) == sorted(panel.score[panel.is_dtc])
    assert any(text.get_text() == f"lowest called: {panel.threshold:.1f}" for text in ax.texts)


def test_without_called_cells_there_is_no_threshold() -> None:
    panel = distribution(n_malignant=0)
    (ax,) = score_histogram(panel).get_axes()
    assert not {"threshold", "DTC"} & {line.get_label() for line in ax.lines}
    assert "held-out reference (n = 150)" in legend_texts(score_histogram(panel))
    assert panel.beyond("matched") == (0, 150)


def test_count_axis_has_plain_numbers() -> None:
    (ax,) = score_histogram(distribution(n_normal=5000)).get_axes()
    figure = ax.figure
    figure.canvas.draw()
    low, high = ax.get_ylim()
    shown = [
        label.get_text() for label, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True) if low <= y <= high
    ]
    assert shown == ["1", "10", "100", "1,000"]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("nulls", [True, False])
def test_any_number_of_cells(n: int, nulls: bool) -> None:
    panel = distribution(n, 0, 0, nulls=nulls)
    svg = style.svg_file(score_histogram(panel))
    assert ("No cell of this patient has this statistic." in svg) == (n == 0)


def test_one_malignant_cell_and_nothing_else() -> None:
    panel = distribution(0, 0, 1, nulls=False)
    (ax,) = score_histogram(panel).get_axes()
    assert np.nansum(steps(ax)["malignant"].get_data().values) == 1
    assert panel.n_scored == 1


def test_cells_that_are_not_scored_are_in_no_bin() -> None:
    panel = distribution(10, 0, 0)
    panel.score[:4] = np.nan
    assert panel.n_scored == 6
    (ax,) = score_histogram(panel).get_axes()
    assert np.nansum(steps(ax)["normal"].get_data().values) == 6


def test_expected_distribution_of_p_values() -> None:
    n = 1000
    uniform = -np.log10((np.arange(n) + 0.5) / n)
    panel = ScoreDistribution(
        "P", uniform, np.full(n, "normal", dtype=object), np.zeros(n, dtype=bool), expected={"uniform": uniform}
    )
    (ax,) = score_histogram(panel).get_axes()
    drawn = steps(ax)
    bars, line = (np.nan_to_num(drawn[name].get_data().values) for name in ("normal", "uniform"))
    np.testing.assert_allclose(bars[bars > 0], line[bars > 0])
    assert bin_edges(panel)[0] == 0


def test_sixty_patients_fit_on_small_panels() -> None:
    panels = [distribution(50, 0, 3, seed=i) for i in range(59)] + [distribution(0, 0, 0)]
    figure = score_histograms(panels)
    titles = [ax.get_title(loc="left") for ax in figure.get_axes()]
    assert titles.count("P1: 3 of 53 malignant") == 59
    assert sum("no cell scored" in text.get_text() for ax in figure.get_axes() for text in ax.texts) == 1
    assert "No patient has cells" in style.svg_file(score_histograms([]))


# ---------------------------------------------------------------------------------------------------------------------


def cells(n: int = 40) -> pd.DataFrame:
    names = list(CLASS_NAMES)
    kinds = [names[i % len(names)] for i in range(n)]
    return pd.DataFrame(
        {
            "clone_t": np.linspace(-2, 8, n),
            "cnv_burden_p": np.linspace(1, 1e-6, n),
            "epithelial_z": np.linspace(-1, 9, n),
            "malignant_class": kinds,
            "is_dtc": [kind == "malignant_confirmed" and i % 2 == 0 for i, kind in enumerate(kinds)],
        }
    )


def drawn(ax: Axes) -> dict[str, int]:
    found: dict[str, int] = {}
    for points in ax.collections:
        found[str(points.get_label())] = found.get(str(points.get_label()), 0) + len(points.get_offsets())
    return found


def test_every_class_is_in_both_panels_in_its_colour_and_shape() -> None:
    frame = cells()
    for ax in evidence(frame).get_axes():
        assert drawn(ax) == frame["malignant_class"].value_counts().to_dict()
        for points in ax.collections:
            expected = style.CLASS_COLOURS[str(points.get_label())].lower()
            assert to_hex(points.get_facecolor()[0] if len(points.get_facecolor()) else points.get_edgecolor()[0]) == (
                expected
            )
    shapes = set(style.CLASS_MARKS.values())
    assert len(shapes) == len(style.CLASS_MARKS) == len(CLASS_NAMES)
    assert set(style.CLASS_COLOURS) == set(CLASS_NAMES)
    assert len(set(style.CLASS_COLOURS.values())) == len(style.CLASS_COLOURS)


def test_axes_are_burden_and_lineage_against_the_clone() -> None:
    frame = cells()
    frame.loc[0, "cnv_burden_p"] = 0.0
    burden, lineage = evidence(frame, threshold=3.5, epithelial_z=3.0).get_axes()
    y = np.concatenate([points.get_offsets()[:, 1] for points in burden.collections])
    assert sorted(y) == pytest.approx(sorted([MAX_LOG_P, *(-np.log10(frame["cnv_burden_p"].iloc[1:]))]))
    z = np.concatenate([points.get_offsets()[:, 1] for points in lineage.collections])
    assert sorted(z) == pytest.approx(sorted(frame["epithelial_z"]))
    assert [line.get_xdata()[0] for line in burden.lines] == [3.5]
    assert [line.get_xdata()[0] for line in lineage.lines[:1]] == [3.5]
    assert lineage.lines[1].get_ydata()[0] == 3.0


def test_only_classes_of_many_cells_become_an_image() -> None:
    frame = cells(3)
    many = pd.concat([frame, frame.assign(malignant_class="normal").iloc[[0] * (MAX_VECTOR_POINTS + 1)]])
    for ax in evidence(many).get_axes():
        for points in ax.collections:
            assert points.get_rasterized() == (points.get_label() == "normal")


def test_counts_are_in_the_key_and_unscored_cells_are_not() -> None:
    frame = cells(14)
    frame.loc[frame["malignant_class"] == "aneuploid_only", "clone_t"] = np.nan
    texts = legend_texts(evidence(frame))
    assert "malignant (2)" in texts
    assert not any(text.startswith("aneuploid only") for text in texts)
    assert f"large, outlined: DTC ({int(frame['is_dtc'].sum())})" in texts


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_cells(n: int) -> None:
    svg = style.svg_file(evidence(cells(40).iloc[:n]))
    assert ("No cell of this patient has a clone statistic" in svg) == (n == 0)


def test_a_class_of_a_later_version_is_drawn() -> None:
    frame = cells(2).assign(malignant_class="class_<new>")
    texts = legend_texts(evidence(frame))
    assert "class_<new> (2)" in texts


def test_the_bytes_are_stable() -> None:
    for make in (lambda: score_histogram(distribution()), lambda: evidence(cells(300))):
        assert style.svg_file(make()) == style.svg_file(make())
