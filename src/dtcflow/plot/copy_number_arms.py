"""Chromosome arms: the grid of states, log ratios with intervals, and a given karyotype beside the learned one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from dtcflow.plot import style

MAX_GROUPS: Final = 100
"""Rows of the grid of arm states."""
STATE_MARKS: Final = {"gain": "+", "loss": "–", "neutral": "", "not_assessable": "·"}


def arm_grid(arms: pd.DataFrame, *, max_rows: int = MAX_GROUPS) -> Figure:
    """Grid of arm states: one row per sample and clone, one column per chromosome arm.

    Parameters
    ----------
    arms
        Table ``arms``: ``sample_id``, ``clone_id``, ``arm``, ``state``, ``n_cells``.
    max_rows
        Rows drawn at most, in order of sample and clone.
    """
    with style.language():
        if len(arms) == 0:
            return style.sentence_figure("No chromosome arm was tested in this run.")
        keys = arms[["sample_id", "clone_id"]].fillna("").astype(str)
        rows = keys.drop_duplicates().sort_values(["sample_id", "clone_id"], kind="stable")
        rows = rows.iloc[:max_rows].reset_index(drop=True)
        names = sorted(arms["arm"].astype(str).unique(), key=arm_order)
        column = {name: i for i, name in enumerate(names)}
        row = {tuple(key): i for i, key in enumerate(rows.itertuples(index=False, name=None))}
        figure = style.new_figure(style.FULL_WIDTH, 0.75 + 0.2 * len(rows))
        ax = figure.add_subplot()
        largest = dict.fromkeys(range(len(rows)), 0)
        tiles = np.ones((len(rows), len(names), 3))
        arm_names, states = arms["arm"].astype(str), arms["state"].astype(str)
        for key, arm, state, n in zip(
            keys.itertuples(index=False, name=None), arm_names, states, arms["n_cells"], strict=True
        ):
            y = row.get(tuple(key))
            if y is None:
                continue
            largest[y] = max(largest[y], int(n) if pd.notna(n) else 0)
            x = column[arm]
            tiles[y, x] = to_rgb(style.ARM_COLOURS.get(state, "#ffffff"))
            if mark := STATE_MARKS.get(state, "?"):
                colour = "white" if state in ("gain", "loss") else style.MUTED
                ax.text(x, y, mark, ha="center", va="center", fontsize=8, color=colour)
        ax.imshow(tiles, aspect="auto", interpolation="none")
        ax.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(names) - 0.5, colors="white", linewidths=0.9)
        ax.vlines(np.arange(1, len(names)) - 0.5, -0.5, len(rows) - 0.5, colors="white", linewidths=0.9)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xticks(range(len(names)), [style.plain(name, 4) for name in names], fontsize=7, rotation=90)
        ax.xaxis.tick_top()
        labels = [
            f"{style.plain(sample, 20)} · {style.plain(clone, 12) or 'no clone'} ({largest[i]:,})"
            for i, (sample, clone) in enumerate(rows.itertuples(index=False, name=None))
        ]
        ax.set_yticks(range(len(rows)), labels, fontsize=7.5)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        handles = [
            Patch(facecolor=style.ARM_COLOURS[state], edgecolor=style.RULE, linewidth=0.5)
            for state in ("gain", "loss", "neutral", "not_assessable")
        ]
        style.legend(
            ax,
            handles,
            ["gain (+)", "loss (–)", "neutral", "not assessable (·)"],
            loc="upper left",
            bbox_to_anchor=(0, -0.01),
            ncols=4,
            fontsize=8,
            handlelength=1,
        )
        return figure


def arm_order(arm: str) -> tuple[int, str]:
    """Sort key that puts arms in genome order: 1p, 1q, 2p, ... Xp, Xq."""
    number = arm[:-1]
    if number.isdigit():
        return int(number), arm[-1:]
    return {"X": 23, "Y": 24}.get(number, 99), arm


def clone_order(clone: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sort key of clone names: c2 before c10, cells of no clone last."""
    return clone == "", [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", clone)]


# ---------------------------------------------------------------------------------------------------------------------

HATCH: Final = "////"
"""Drawn over arms that are not assessable."""
MAX_PANELS: Final = 8
"""Samples and clones of one patient that :func:`lollipops` draws."""
_MARKERS: Final = {"gain": "^", "loss": "v", "neutral": "o", "not_assessable": "o"}
_STATE_INK: Final = {**style.ARM_COLOURS, "neutral": style.MUTED, "not_assessable": "#8a939c"}
_LEAST_LIMIT, _LARGEST_LIMIT = 0.7, 1.4


def panel_keys(arms: pd.DataFrame) -> list[tuple[str, str]]:
    """Clone and sample of every group of tumour cells in a table of arms, in drawing order."""
    keys = arms[["clone_id", "sample_id"]].fillna("").astype(str)
    keys = keys[keys["clone_id"] != ""].drop_duplicates()
    return sorted(keys.itertuples(index=False, name=None), key=lambda key: (clone_order(key[0]), key[1]))


def lollipops(
    arms: pd.DataFrame,
    *,
    min_abs_log_ratio: float | None,
    one_copy: tuple[float, float] | None = None,
    max_panels: int = MAX_PANELS,
) -> Figure:
    """Log ratio of every arm with its 95 % confidence interval; one panel per clone and sample of a patient.

    Parameters
    ----------
    arms
        Rows of table ``arms`` of one patient.
    min_abs_log_ratio
        Least absolute log ratio (natural logarithm) of a called arm: the dashed lines; None: not drawn.
    one_copy
        Expected log ratio of one copy gained and of one copy lost in every cell, drawn dotted.
    max_panels
        Panels drawn; the caller says which are left out.

    Notes
    -----
    The pale band of an arm reaches to the smallest log ratio that these cells would have shown with 80 % power. An arm
    that is not assessable is hatched over its whole height.
    """
    with style.language():
        keys = panel_keys(arms)[:max_panels]
        if not keys:
            return style.sentence_figure("No clone of this patient has arms to draw.")
        names = sorted(arms["arm"].astype(str).unique(), key=arm_order)
        limit = _limit(arms)
        figure = style.new_figure(style.FULL_WIDTH, 0.95 + 1.28 * len(keys))
        axes = figure.subplots(len(keys), 1, squeeze=False, sharex=True)[:, 0]
        own = arms[["clone_id", "sample_id"]].fillna("").astype(str)
        for ax, (clone, sample) in zip(axes, keys, strict=True):
            rows = arms[(own["clone_id"] == clone).to_numpy() & (own["sample_id"] == sample).to_numpy()]
            rows = rows.drop_duplicates("arm").set_index(rows["arm"].astype(str).drop_duplicates()).reindex(names)
            states = rows["state"].fillna("not_assessable").astype(str)
            _arm_axis(ax, names, limit)
            ax.stairs(
                _numbers(rows, "smallest_detectable"),
                np.arange(len(names) + 1) - 0.5,
                baseline=-_numbers(rows, "smallest_detectable"),
                fill=True,
                color="#e3e8ed",
                linewidth=0,
                zorder=0,
            )
            _thresholds(ax, min_abs_log_ratio)
            for y in one_copy or ():
                ax.axhline(y, color=style.MUTED, linewidth=0.7, linestyle="dotted", zorder=1)
            _hatch(ax, states)
            _lollipop(ax, rows, states)
            number = pd.to_numeric(rows["n_cells"], errors="coerce").max()
            count = f"{int(number):,} cell{'' if number == 1 else 's'}" if np.isfinite(number) else "not counted"
            counts = states.value_counts()
            ax.set_title(
                f"{style.plain(clone, 30)} in {style.plain(sample, 40)} (n = {count}): "
                f"{counts.get('gain', 0)} gained, {counts.get('loss', 0)} lost, {counts.get('neutral', 0)} neutral, "
                f"{counts.get('not_assessable', 0)} not assessable",
                fontsize=8.5,
                pad=3,
            )
            if one_copy:
                _right_ticks(ax, one_copy)
        axes[-1].set_xticks(range(len(names)), [style.plain(name, 4) for name in names], fontsize=7, rotation=90)
        axes[-1].set_xlabel("chromosome arm")
        figure.supylabel("log ratio against the reference (ln), 95 % CI", fontsize=9)
        _state_legend(figure)
        return figure


def _numbers(rows: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return np.asarray(pd.to_numeric(rows[column], errors="coerce"), dtype=np.float64)


def _limit(arms: pd.DataFrame) -> float:
    """Half of the height of the axis: every interval of an assessable arm, within bounds."""
    shown = arms[arms["state"].astype(str) != "not_assessable"]
    ends = np.abs(np.concatenate([_numbers(shown, name) for name in ("log_ratio", "ci_low", "ci_high")]))
    ends = ends[np.isfinite(ends)]
    return float(np.clip(1.05 * ends.max() if len(ends) else 0.0, _LEAST_LIMIT, _LARGEST_LIMIT))


def _arm_axis(ax: Axes, names: Sequence[str], limit: float) -> None:
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(-limit, limit)
    ax.axhline(0, color=style.MUTED, linewidth=0.7, zorder=1)
    chromosome = [name[:-1] for name in names]
    borders = [i - 0.5 for i in range(1, len(names)) if chromosome[i] != chromosome[i - 1]]
    # one path with gaps: an element each would make the page larger
    across = np.repeat(np.asarray(borders, dtype=np.float64), 3)
    along = np.tile([-limit, limit, np.nan], len(borders))
    ax.plot(across, along, color=style.RULE, linewidth=0.5, zorder=0.5)
    ax.tick_params(axis="x", length=0)


def _thresholds(ax: Axes, effect: float | None) -> None:
    for y in () if effect is None else (-effect, effect):
        ax.axhline(y, color=style.INK, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1, label="threshold")


def _hatch(ax: Axes, states: pd.Series[str]) -> None:
    """Hatch the arms that are not assessable; neighbours are one shape."""
    out = (states == "not_assessable").to_numpy()
    starts = np.flatnonzero(out & ~np.concatenate([[False], out[:-1]]))
    ends = np.flatnonzero(out & ~np.concatenate([out[1:], [False]]))
    for start, end in zip(starts, ends, strict=True):
        shape = Rectangle(
            (float(start) - 0.5, 0.0),
            float(end - start + 1),
            1.0,
            transform=ax.get_xaxis_transform(),
            facecolor="white",
            edgecolor="#aab4bd",
            hatch=HATCH,
            linewidth=0,
            zorder=0.8,
        )
        shape.set_gid("not-assessable")
        ax.add_patch(shape)


def _lollipop(ax: Axes, rows: pd.DataFrame, states: pd.Series[str]) -> None:
    x = np.arange(len(rows), dtype=np.float64)
    value, low, high = (_numbers(rows, name) for name in ("log_ratio", "ci_low", "ci_high"))
    bottom, top = ax.get_ylim()
    gap = np.full(len(rows), np.nan)
    for state, marker in _MARKERS.items():
        mine = (states == state).to_numpy() & np.isfinite(value)
        if not mine.any():
            continue
        ink = _STATE_INK[state]

        def path(a: NDArray[np.float64], b: NDArray[np.float64], mine: NDArray[np.bool_] = mine) -> list[list[float]]:
            return [
                np.column_stack([x, x, gap])[mine].ravel().tolist(),
                np.column_stack([a, b, gap])[mine].ravel().tolist(),
            ]

        weak = state in ("neutral", "not_assessable")
        if not weak:
            ax.plot(*path(np.zeros(len(x)), value), color=ink, linewidth=2.6, alpha=0.35, solid_capstyle="butt")
        ax.plot(*path(low, high), color=ink, linewidth=1.0, solid_capstyle="butt")
        inside = mine & (value >= bottom) & (value <= top)
        ax.plot(
            *(x[inside], value[inside]),
            linestyle="none",
            marker=marker,
            markersize=3.4 if weak else 5.0,
            color=ink,
            markerfacecolor="white" if state == "not_assessable" else ink,
            markeredgewidth=0.8,
            label=state,
        )
        beyond = mine & ~inside
        edge = np.where(value > 0, top, bottom) * 0.96
        ax.plot(*(x[beyond], edge[beyond]), linestyle="none", marker="_", markersize=6, color=ink)


def _right_ticks(ax: Axes, one_copy: tuple[float, float]) -> None:
    gain, loss = one_copy
    for y, name in ((gain, "+1 copy"), (loss, "–1 copy")):
        ax.annotate(
            name,
            (1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=style.MUTED,
            annotation_clip=False,
        )


def _state_legend(figure: Figure) -> None:
    handles: list[Line2D | Patch] = [
        Line2D([], [], marker=_MARKERS[state], color=_STATE_INK[state], linewidth=1.0, markersize=4.5)
        for state in ("gain", "loss", "neutral")
    ]
    handles += [
        Patch(facecolor="white", edgecolor="#aab4bd", hatch=HATCH, linewidth=0.4),
        Patch(color="#e3e8ed"),
        Line2D([], [], color=style.INK, linewidth=0.8, linestyle=(0, (4, 2))),
    ]
    names = ["gain", "loss", "neutral", "not assessable", "below the smallest detectable (80 % power)"]
    figure.legend(
        handles,
        [*names, "least log ratio of a call"],
        loc="outside upper left",
        ncols=6,
        fontsize=8,
        handlelength=1.5,
        columnspacing=1.2,
        borderaxespad=0.1,
    )


# ---------------------------------------------------------------------------------------------------------------------


def karyotype(
    comparison: pd.DataFrame, *, min_abs_log_ratio: float | None, given_name: str = "given profile"
) -> Figure:
    """Compare a karyotype that was given with the one learned from the cells.

    Parameters
    ----------
    comparison
        One row per arm: ``arm``; ``given`` and ``measured``, log ratio (natural logarithm), NaN where not known;
        ``ci_low``, ``ci_high`` of the measured one; ``state``, how the measured arm was called.
    min_abs_log_ratio
        Least absolute log ratio of a called arm.
    given_name
        What the given profile is, for the legend.
    """
    with style.language():
        known = comparison.dropna(subset=["given"]) if len(comparison) else comparison
        if not len(known):
            return style.sentence_figure("The given profile covers no chromosome arm that was measured.")
        rows = comparison.assign(arm=comparison["arm"].astype(str)).drop_duplicates("arm")
        rows = rows.sort_values("arm", key=lambda arm: arm.map(_rank(rows["arm"])), kind="stable").set_index("arm")
        names, states = list(rows.index), rows["state"].fillna("not_assessable").astype(str)
        given, measured = _numbers(rows, "given"), _numbers(rows, "measured")
        seen = np.abs(np.concatenate([given, measured, _numbers(rows[states != "not_assessable"], "ci_high")]))
        seen = seen[np.isfinite(seen)]
        limit = float(np.clip(1.1 * seen.max(), _LEAST_LIMIT, 2 * _LARGEST_LIMIT))
        figure = style.new_figure(style.FULL_WIDTH, 2.9)
        genome, scatter = figure.subplots(1, 2, width_ratios=[3.3, 1], sharey=True)
        _arm_axis(genome, names, limit)
        genome.stairs(given, np.arange(len(names) + 1) - 0.5, fill=True, color="#cfd6dc", linewidth=0, zorder=0.6)
        # what was not covered is no zero
        outside = np.flatnonzero(~np.isfinite(given))
        genome.plot(
            outside, np.full(len(outside), -0.96 * limit), linestyle="none", marker="x", markersize=4, color=style.MUTED
        )
        _hatch(genome, states)
        _lollipop(genome, rows.rename(columns={"measured": "log_ratio"}), states)
        _thresholds(genome, min_abs_log_ratio)
        genome.set_xticks(range(len(names)), [style.plain(name, 4) for name in names], fontsize=7, rotation=90)
        genome.set_xlabel("chromosome arm")
        genome.set_ylabel("log ratio (ln)")
        _given_legend(genome, given_name, uncovered=len(outside) > 0)
        _agreement(scatter, rows, states, limit)
        return figure


def _given_legend(ax: Axes, given_name: str, *, uncovered: bool) -> None:
    handles: list[Line2D | Patch] = [Patch(color="#cfd6dc")]
    handles += [
        Line2D([], [], marker=_MARKERS[state], color=_STATE_INK[state], linewidth=1.0, markersize=4.5)
        for state in ("gain", "loss", "neutral")
    ]
    handles.append(Patch(facecolor="white", edgecolor="#aab4bd", hatch=HATCH, linewidth=0.4))
    handles.append(Line2D([], [], color=style.INK, linewidth=0.8, linestyle=(0, (4, 2))))
    labels = [style.plain(given_name, 40), "measured: gain", "loss", "neutral", "not assessable", "least call"]
    if uncovered:
        handles.append(Line2D([], [], linestyle="none", marker="x", markersize=4, color=style.MUTED))
        labels.append("not covered")
    style.legend(
        ax, handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=7, fontsize=7.5, handlelength=1.3,
        columnspacing=1.0, borderaxespad=0.1,
    )  # fmt: skip


def _agreement(ax: Axes, rows: pd.DataFrame, states: pd.Series[str], limit: float) -> None:
    given, measured = _numbers(rows, "given"), _numbers(rows, "measured")
    low, high = _numbers(rows, "ci_low"), _numbers(rows, "ci_high")
    assessed = np.isfinite(given) & np.isfinite(measured) & (states != "not_assessable").to_numpy()
    ax.axline((0, 0), slope=1, color=style.MUTED, linewidth=0.7, linestyle="dotted")
    ax.axhline(0, color=style.RULE, linewidth=0.7)
    ax.axvline(0, color=style.RULE, linewidth=0.7)
    for state, marker in _MARKERS.items():
        mine = assessed & (states == state).to_numpy()
        if not mine.any():
            continue
        error = np.vstack([(measured - low)[mine], (high - measured)[mine]])
        ax.errorbar(
            *(given[mine], measured[mine]),
            yerr=np.nan_to_num(np.maximum(error, 0)),
            linestyle="none",
            marker=marker,
            markersize=4,
            color=_STATE_INK[state],
            linewidth=0.7,
        )
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_xlabel("given log ratio (ln)")
    ax.set_ylabel("measured log ratio (ln)")
    n = int(assessed.sum())
    r = pearson(given[assessed], measured[assessed])
    shown = f", r = {r:.2f}".replace("-", "−") if np.isfinite(r) else ""
    ax.set_title(f"n = {n} arms{shown}", fontsize=8.5)


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson correlation; NaN for fewer than three pairs or when one side does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _rank(arms: pd.Series[str]) -> Mapping[str, int]:
    return {arm: i for i, arm in enumerate(sorted(arms.unique(), key=arm_order))}
