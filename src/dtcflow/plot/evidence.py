"""The patient-level evidence: effects per patient, their synthesis, controls, and the specification curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from dtcflow.plot import style

Z95: Final = 1.959964
MAX_SPECIFICATIONS: Final = 600


@dataclass(frozen=True)
class Synthesis:
    """The estimate over patients. All in ``unit``; NaN where unknown."""

    estimate: float
    low: float
    high: float
    sesoi: float
    unit: str
    direction: str = "higher in DTCs than in the primary tumour"


def patient_effects(
    patients: pd.DataFrame,
    synthesis: Synthesis,
    controls: pd.DataFrame,
    *,
    null: NDArray[np.float64] | None = None,
) -> Figure:
    """Forest of patients with their synthesis; beside it the controls; below it the random gene sets.

    Parameters
    ----------
    patients
        ``patient_id``, ``difference``, ``variance`` (of the difference), ``n_cells_a``, ``n_cells_b``, ``usable``,
        ``reason``; one row per patient.
    synthesis
        Estimate, 95 % confidence interval and smallest effect of interest.
    controls
        ``label``, ``estimate``, ``ci_low``, ``ci_high``, ``variant`` (of the claim, not a control); may be empty.
    null
        Estimates of random gene sets of the same kind, same unit; ``None``: not computed.
    """
    with style.language():
        if len(patients) == 0:
            return style.sentence_figure("No patient has a value for this claim, so there is nothing to draw.")
        shown = patients.assign(_rank=pd.to_numeric(patients["difference"]).fillna(-np.inf))
        shown = shown.sort_values(["usable", "_rank", "patient_id"], ascending=[False, False, True], kind="stable")
        rows = len(shown) + 1
        forest_height = 0.55 + 0.27 * rows
        null_height = 1.5 if null is not None and len(null) else 0.4
        figure = style.new_figure(style.FULL_WIDTH, forest_height + null_height + 0.5)
        left = figure.add_gridspec(2, 2, width_ratios=(3.1, 2.2), height_ratios=(forest_height, null_height))
        forest = figure.add_subplot(left[0, 0])
        below = figure.add_subplot(left[1, 0], sharex=forest)
        beside = figure.add_subplot(left[:, 1])
        limits = _limits(shown, synthesis, null)
        forest.set_xlim(*limits)
        _forest(forest, shown, synthesis, limits)
        _null(below, synthesis, null)
        forest.set_xlim(*limits)
        _controls(beside, controls, synthesis)
        return figure


def _limits(patients: pd.DataFrame, synthesis: Synthesis, null: NDArray[np.float64] | None) -> tuple[float, float]:
    difference = pd.to_numeric(patients["difference"]).to_numpy(dtype=float)
    half = Z95 * np.sqrt(np.maximum(pd.to_numeric(patients["variance"]).to_numpy(dtype=float), 0))
    half = np.nan_to_num(half)
    values = np.concatenate([difference - half, difference + half, [0.0, synthesis.low, synthesis.high]])
    values = np.append(values, [synthesis.sesoi, -synthesis.sesoi])
    if null is not None and len(null):
        values = np.append(values, np.nanpercentile(null, [0.5, 99.5]))
    values = values[np.isfinite(values)]
    pad = 0.06 * (values.max() - values.min() or 1)
    return float(values.min() - pad), float(values.max() + pad)


def _band(ax: Axes, sesoi: float) -> None:
    if np.isfinite(sesoi):
        ax.axvspan(-sesoi, sesoi, color=style.SESOI_BAND, linewidth=0, zorder=0)
    ax.axvline(0, color=style.MUTED, linewidth=0.8, zorder=1)


def _forest(ax: Axes, patients: pd.DataFrame, synthesis: Synthesis, limits: tuple[float, float]) -> None:
    _band(ax, synthesis.sesoi)
    labels = []
    side = blended_transform_factory(ax.transAxes, ax.transData)
    columns = ("difference", "variance", "n_cells_a", "n_cells_b")
    numbers = patients[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    names, notes = patients["patient_id"].tolist(), patients["reason"].fillna("").tolist()
    for y, (difference, variance, n_a, n_b) in enumerate(numbers.tolist()):
        usable = bool(patients["usable"].iloc[y])
        labels.append(f"{style.plain(names[y], 24)} · {_count(n_a)} / {_count(n_b)}")
        colour = style.BLUE if usable else "#9aa5b1"
        if np.isfinite(difference):
            half = Z95 * float(np.sqrt(max(variance, 0.0)))
            if np.isfinite(half):
                ax.plot([difference - half, difference + half], [y, y], color=colour, linewidth=1.3, zorder=2)
            ax.plot(
                difference,
                y,
                marker="o",
                markersize=6,
                color=colour if usable else "white",
                markeredgecolor=colour,
                markeredgewidth=1.2,
                zorder=3,
            )
        if not usable:
            words = "not used: " + (style.plain(notes[y], 40) if notes[y] else "no reason recorded")
            if np.isfinite(difference):
                at_right = difference > sum(limits) / 2
                ax.text(
                    0.01 if at_right else 0.99,
                    y,
                    words,
                    transform=side,
                    va="center",
                    fontsize=7.5,
                    ha="left" if at_right else "right",
                    color=style.MUTED,
                )
            else:
                ax.text(0.5, y, words, transform=side, ha="center", va="center", fontsize=7.5, color=style.MUTED)
    y = len(patients)
    ax.axhline(y - 0.5, color=style.RULE, linewidth=0.7)
    labels.append("all patients (95 % CI)")
    if np.isfinite(synthesis.estimate):
        low = synthesis.low if np.isfinite(synthesis.low) else synthesis.estimate
        high = synthesis.high if np.isfinite(synthesis.high) else synthesis.estimate
        corners = [(low, y), (synthesis.estimate, y - 0.22), (high, y), (synthesis.estimate, y + 0.22)]
        ax.add_patch(Polygon(corners, closed=True, facecolor=style.BLACK, zorder=3))
    else:
        ax.text(0.5, y, "no estimate", transform=side, ha="center", va="center", fontsize=7.5, color=style.MUTED)
    ax.set_yticks(range(y + 1), labels)
    ax.set_ylim(y + 0.6, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelbottom=False, length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_title("A  Patients · cells in first / second group")


def _count(value: float) -> str:
    return f"{int(value):,}" if np.isfinite(value) else "–"


def _null(ax: Axes, synthesis: Synthesis, null: NDArray[np.float64] | None) -> None:
    ax.set_xlabel(f"difference ({style.plain(synthesis.unit, 60)}); positive: {style.plain(synthesis.direction, 60)}")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    known = null[np.isfinite(null)] if null is not None else np.zeros(0)
    if len(known) == 0:
        ax.set_title(
            "B  Random gene sets: not computed in this run", fontweight="normal", fontsize=8.5, color=style.MUTED
        )
        _band(ax, synthesis.sesoi)
        return
    _band(ax, synthesis.sesoi)
    span = ax.get_xlim()
    ax.hist(known, bins=list(np.linspace(*span, 81)), color="#8fa6bd", edgecolor="white", linewidth=0.25, zorder=2)
    if np.isfinite(synthesis.estimate):
        ax.axvline(synthesis.estimate, color=style.BLACK, linewidth=1.4, zorder=3)
    ax.set_title(f"B  {len(known):,} random gene sets (line: the signature)")


def _controls(ax: Axes, controls: pd.DataFrame, synthesis: Synthesis) -> None:
    ax.set_title("C  The result beside its controls")
    rows: list[tuple[str, float, float, float, bool]] = [
        ("the claim", synthesis.estimate, synthesis.low, synthesis.high, True),
        *(
            (str(label), float(estimate), float(low), float(high), bool(variant))
            for label, estimate, low, high, variant in controls[
                ["label", "estimate", "ci_low", "ci_high", "variant"]
            ].to_numpy(dtype=object)
        ),
    ]
    _band(ax, synthesis.sesoi)
    for y, (_, estimate, low, high, own) in enumerate(rows):
        colour = style.BLACK if y == 0 else style.BLUE if own else "#a1467a"
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [y, y], color=colour, linewidth=1.3)
        if np.isfinite(estimate):
            ax.plot(estimate, y, marker="D" if own else "s", markersize=5.5, color=colour)
        else:
            ax.text(0, y, "not available", ha="center", va="center", fontsize=7.5, color=style.MUTED)
    ax.set_yticks(range(len(rows)), [_wrap(style.plain(label, 70)) for label, *_ in rows], fontsize=8)
    ax.set_ylim(max(len(rows), 6) - 0.3, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(style.plain(synthesis.unit, 40))
    if len(controls) == 0:
        ax.text(0.5, 0.3, "no control was computed in this run", transform=ax.transAxes, ha="center", color=style.MUTED)


def _wrap(label: str, width: int = 24) -> str:
    lines, line = [], ""
    for word in label.split(" "):
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def specification_curve(specifications: pd.DataFrame, factors: Sequence[str], synthesis: Synthesis) -> Figure:
    """Every estimate of the multiverse, sorted, above the choices that led to it.

    Parameters
    ----------
    specifications
        ``estimate``, optionally ``ci_low``, ``ci_high`` and ``votes`` (whether it counts for robustness; others are
        open dots), and one text column per factor.
    factors
        Columns that name a choice; those with a single value are left out of the picture.
    synthesis
        The primary specification's estimate and the smallest effect of interest.
    """
    with style.language():
        table = specifications.loc[np.isfinite(pd.to_numeric(specifications["estimate"]))]
        if len(table) == 0:
            return style.sentence_figure("No alternative specification was computed in this run.")
        keys = table[list(factors)].astype(str).agg("\t".join, axis=1) if factors else pd.Series("", index=table.index)
        table = table.assign(_key=keys).sort_values(["estimate", "_key"], kind="stable").reset_index(drop=True)
        if len(table) > MAX_SPECIFICATIONS:  # evenly over the sorted curve: its shape and both ends stay
            table = table.iloc[np.linspace(0, len(table) - 1, MAX_SPECIFICATIONS).round().astype(int)]
            table = table.reset_index(drop=True)
        varied = [(name, sorted(table[name].astype(str).unique())) for name in factors]
        varied = [(name, values[:14]) for name, values in varied if len(values) > 1]
        levels = [(name, value) for name, values in varied for value in values]
        figure = style.new_figure(style.FULL_WIDTH, 2.3 + (0.35 + 0.155 * len(levels) if levels else 0))
        if levels:
            grid = figure.subplots(2, 1, sharex=True, height_ratios=(2.0, 0.3 + 0.155 * len(levels)))
            top, bottom = grid[0], grid[1]
        else:
            top, bottom = figure.add_subplot(), None
        x = np.arange(len(table))
        estimate = pd.to_numeric(table["estimate"]).to_numpy(dtype=float)
        if np.isfinite(synthesis.sesoi):
            top.axhspan(-synthesis.sesoi, synthesis.sesoi, color=style.SESOI_BAND, linewidth=0)
        top.axhline(0, color=style.MUTED, linewidth=0.8)
        if {"ci_low", "ci_high"} <= set(table.columns):
            top.vlines(x, table["ci_low"], table["ci_high"], color="#b8c9da", linewidth=max(0.4, 60 / len(x) * 0.08))
        size = float(np.clip(500 / len(x), 5, 26))
        votes = (
            table["votes"].astype(str).str.lower().isin(["true", "1"]).to_numpy()
            if "votes" in table
            else np.ones(len(table), dtype=bool)
        )
        top.scatter(x[votes], estimate[votes], s=size, color=style.BLUE, linewidths=0, zorder=3)
        top.scatter(
            x[~votes], estimate[~votes], s=size, facecolors="white", edgecolors=style.MUTED, linewidths=0.8, zorder=3
        )
        if np.isfinite(synthesis.estimate):
            top.axhline(synthesis.estimate, color=style.BLACK, linewidth=0.8, linestyle=(0, (4, 3)))
        top.set_ylabel(_wrap(f"difference ({style.plain(synthesis.unit, 40)})", 30))
        top.tick_params(axis="x", length=0, labelbottom=False)
        top.set_xlim(-1, len(x))
        if bottom is not None:
            _choices(bottom, table, levels)
        else:
            top.set_xlabel("specifications, sorted by estimate")
        return figure


def _choices(ax: Axes, table: pd.DataFrame, levels: Sequence[tuple[str, str]]) -> None:
    labels, previous, y = [], None, 0.0
    ticks = []
    for name, value in levels:
        if previous is not None and name != previous:
            y += 0.45
        at = np.flatnonzero((table[name].astype(str) == value).to_numpy())
        ax.scatter(
            at,
            np.full(len(at), y),
            s=float(np.clip(400 / len(table), 3, 14)),
            marker="|" if len(table) > 60 else "o",
            color=style.INK,
            linewidths=0.8 if len(table) > 60 else 0,
        )
        shown = style.plain(value, 24) or "(empty)"
        labels.append(f"{style.plain(name, 20).replace('_', ' ')}:  {shown}" if name != previous else shown)
        ticks.append(y)
        previous = name
        y += 1
    ax.set_yticks(ticks, labels, fontsize=7.5)
    ax.set_ylim(y - 0.3, -0.7)
    ax.tick_params(length=0, labelbottom=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlabel(f"{len(table):,} specifications, sorted by estimate")
