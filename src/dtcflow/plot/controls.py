"""All controls of all claims: what was expected, what was seen, and whether it holds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from dtcflow.plot import style
from dtcflow.plot.claims import CONTROL_COLOUR, NAN

ROW: Final = 0.3
HOLDS: Final = {True: "✓ holds", False: "✕ does not hold", None: "? not checked"}


@dataclass(frozen=True)
class ControlRow:
    """A control: estimate with its 95 % interval in the claim's unit, what was seen in words, and whether it holds."""

    label: str
    estimate: float = NAN
    low: float = NAN
    high: float = NAN
    seen: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class ControlGroup:
    """Controls of one claim, with its unit and its smallest effect of interest (NaN: none)."""

    claim_id: str
    unit: str
    rows: Sequence[ControlRow]
    sesoi: float = NAN


def controls_figure(groups: Sequence[ControlGroup]) -> Figure:
    """One panel per claim: controls with interval, and beside each whether it holds (mark and word, filled or open)."""
    with style.language():
        shown = [group for group in groups if group.rows]
        if not shown:
            return style.sentence_figure("No control was computed in this run.")
        heights = [0.85 + ROW * len(group.rows) for group in shown]
        figure = style.new_figure(style.FULL_WIDTH, sum(heights) + 0.1)
        axes = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
        for ax, group in zip(axes, shown, strict=True):
            _panel(ax, group)
        return style.settled(figure)


def _panel(ax: Axes, group: ControlGroup) -> None:
    if np.isfinite(group.sesoi):
        ax.axvspan(-group.sesoi, group.sesoi, color=style.SESOI_BAND, linewidth=0, zorder=0)
    ax.axvline(0, color=style.MUTED, linewidth=0.8, zorder=1)
    side = blended_transform_factory(ax.transAxes, ax.transData)
    for y, row in enumerate(group.rows):
        filled = row.holds is not False
        if np.isfinite(row.low) and np.isfinite(row.high):
            ax.plot([row.low, row.high], [y, y], color=CONTROL_COLOUR, linewidth=1.4, zorder=2)
        if np.isfinite(row.estimate):
            ax.plot(
                row.estimate,
                y,
                marker="s",
                markersize=5.5,
                color=CONTROL_COLOUR if filled else "white",
                markeredgecolor=CONTROL_COLOUR,
                markeredgewidth=1.4,
                zorder=3,
            )
        ax.text(
            1.01,
            y,
            HOLDS[row.holds],
            transform=side,
            va="center",
            fontsize=8,
            fontweight="normal" if filled else "bold",
        )
        ax.text(1.17, y, style.plain(row.seen, 60), transform=side, va="center", fontsize=7.5, color=style.MUTED)
    labels = [textwrap.fill(style.plain(row.label, 80), 34, break_long_words=False) for row in group.rows]
    ax.set_yticks(range(len(group.rows)), labels, fontsize=7.5)
    ax.set_ylim(len(group.rows) - 0.4, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(f"Controls of {style.plain(group.claim_id, 20)}")
    ax.set_xlabel(textwrap.fill(style.plain(group.unit, 100), 70))
