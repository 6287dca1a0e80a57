"""The specification curve: every estimate of the multiverse above the choices that led to it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dtcflow.plot import style

MAX_SPECIFICATIONS: Final = 600


@dataclass(frozen=True)
class Synthesis:
    """The primary specification's estimate, and the smallest effect of interest; NaN where unknown."""

    estimate: float
    sesoi: float
    axis: str
    """What the axis shows, with its unit."""


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
        What to compare with.
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
        top.set_ylabel(textwrap.fill(style.plain(synthesis.axis, 90), 26), fontsize=8)
        if not votes.all():
            handles = [
                Line2D([], [], linestyle="none", marker="o", markersize=4.5, color=style.BLUE),
                Line2D(
                    [], [], linestyle="none", marker="o", markersize=4.5, color="white", markeredgecolor=style.MUTED
                ),
            ]
            style.legend(
                top,
                handles,
                [f"votes on robustness ({int(votes.sum()):,})", f"shown only ({int((~votes).sum()):,})"],
                loc="upper left",
                fontsize=7.5,
            )
        top.tick_params(axis="x", length=0, labelbottom=False)
        top.set_xlim(-1, len(x))
        if bottom is not None:
            _choices(bottom, table, levels)
        else:
            top.set_xlabel("specifications, sorted by estimate")
        return style.settled(figure)


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
        shown = style.plain(value, 40) or "(empty)"
        labels.append(f"{style.plain(name, 20).replace('_', ' ')}:  {shown}" if name != previous else shown)
        ticks.append(y)
        previous = name
        y += 1
    ax.set_yticks(ticks, labels, fontsize=7.5)
    ax.set_ylim(y - 0.3, -0.7)
    ax.tick_params(length=0, labelbottom=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlabel(f"{len(table):,} specifications, sorted by estimate")
