"""One figure for a claim of any kind: its patients, what they come to together, and what it must be compared with.

The figure knows nothing of kinds of claims. It draws numbers that are already on the axis's scale; which numbers these
are, and where the marks lie, is said by :mod:`dtcflow.report.claim_views`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from dtcflow.plot import style

NAN: Final = float("nan")
CONTROL_COLOUR: Final = "#a1467a"
UNUSED_COLOUR: Final = "#9aa5b1"
NULL_COLOUR: Final = "#8fa6bd"
ROOMY: Final = 26
"""Up to this many patients rows are spaced widely; beyond it they are packed."""
SMALL: Final = 7.5


@dataclass(frozen=True)
class Dot:
    """A patient: value with its 95 % interval, NaN where there is none; ``note`` says why it is not used."""

    label: str
    value: float = NAN
    low: float = NAN
    high: float = NAN
    used: bool = True
    note: str = ""


@dataclass(frozen=True)
class Pool:
    """All patients together: estimate, 95 % and 90 % interval, and where a new patient is expected (95 %)."""

    estimate: float = NAN
    low: float = NAN
    high: float = NAN
    low90: float = NAN
    high90: float = NAN
    prediction_low: float = NAN
    prediction_high: float = NAN


@dataclass(frozen=True)
class Mark:
    """A value on the axis that has a meaning, such as "no difference"."""

    value: float
    label: str = ""


@dataclass(frozen=True)
class Endpoint:
    """What a claim measures, on one axis.

    Attributes
    ----------
    title, axis
        Heading of the panel, and the axis label with its unit.
    dots
        One per patient; all endpoints of a claim in the same order.
    pool
        Over patients.
    band
        Values that are too small to matter, or on the wrong side of the threshold; limits may be infinite.
    marks
        Vertical lines.
    log
        Logarithmic axis: a value of zero is drawn as an arrow at the left edge.
    null
        Estimates of random gene sets of the same kind; None: the claim has none.
    """

    title: str
    axis: str
    dots: Sequence[Dot]
    pool: Pool = field(default_factory=Pool)
    band: tuple[float, float] | None = None
    marks: Sequence[Mark] = ()
    log: bool = False
    null: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Beside:
    """A row of the panel beside the patients: a component, a variant or a control of the claim.

    Attributes
    ----------
    label
        What it is.
    estimate, low, high
        With its 95 % interval, in the unit of the claim.
    values
        The patients' values, drawn as small dots.
    minimum
        What the estimate must reach; NaN: nothing.
    control
        Whether the answer is known beforehand (a square), or it is a version of the claim (a diamond).
    """

    label: str
    estimate: float = NAN
    low: float = NAN
    high: float = NAN
    values: Sequence[float] = ()
    minimum: float = NAN
    control: bool = False


def claim_figure(endpoints: Sequence[Endpoint], beside: Sequence[Beside] = (), *, beside_title: str = "") -> Figure:
    """Forest of patients for each endpoint, random gene sets below it, components and controls beside or below it.

    Parameters
    ----------
    endpoints
        At least one; two or more stand side by side and share the rows.
    beside
        In the unit of the first endpoint. Beside a single endpoint, below several.
    beside_title
        Heading of that panel.
    """
    with style.language():
        if not endpoints or not endpoints[0].dots:
            return style.sentence_figure("No patient has a value for this claim, so there is nothing to draw.")
        n = len(endpoints[0].dots)
        row = 0.27 if n <= ROOMY else 0.155
        forest = 0.75 + row * n + 0.27 * 3
        null = 1.25 if any(_known(one.null).size for one in endpoints) else 0.0
        lines = sum(1 + label.count("\n") for label in (_wrap(one.label, 30) for one in beside))
        strip = 0.85 + max(0.17 * lines + 0.12 * len(beside), 0.9) if beside else 0.0
        # a few rows beside a hundred patients would be pulled apart
        below = bool(beside) and (len(endpoints) > 1 or forest + null > 2 * strip)
        figure = style.new_figure(style.FULL_WIDTH, max(forest + null, 0 if below else strip) + below * strip + 0.15)
        at_right = bool(beside) and not below
        heights = (forest, null) if null else (forest,)
        shape = (len(heights), len(endpoints) + at_right)
        ratios: dict[str, Any] = {
            "width_ratios": (3.1, 2.4) if at_right else (1.0,) * len(endpoints),
            "height_ratios": heights,
        }
        outer = figure.add_gridspec(2, 1, height_ratios=(forest + null, strip)) if below else None
        grid = figure.add_gridspec(*shape, **ratios) if outer is None else outer[0].subgridspec(*shape, **ratios)
        letters = iter("ABCDEFGHIJ")
        for k, endpoint in enumerate(endpoints):
            ax = figure.add_subplot(grid[0, k])
            _forest(ax, endpoint, row=row, labelled=k == 0, title=f"{next(letters)}  {endpoint.title}")
            if not null:
                ax.set_xlabel(_wrap(endpoint.axis, 62 // len(endpoints)))
                continue
            ax.tick_params(axis="x", labelbottom=False)
            low = figure.add_subplot(grid[1, k], sharex=ax)
            _null(low, endpoint, letter=next(letters) if _known(endpoint.null).size else "")
            low.set_xlabel(_wrap(endpoint.axis, 62 // len(endpoints)))
        if beside:
            ax = figure.add_subplot(grid[:, -1] if outer is None else outer[1])
            _beside(ax, endpoints[0], beside, title=f"{next(letters)}  {beside_title}", width=36 if below else 30)
        return style.settled(figure)


# ---------------------------------------------------------------------------------------------------------------------
# Axes
# ---------------------------------------------------------------------------------------------------------------------


def _known(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return np.zeros(0) if values is None else np.asarray(values, dtype=float)[np.isfinite(values)]


def _limits(endpoint: Endpoint) -> tuple[float, float]:
    """Limits of the axis: everything drawn, with room to either side."""
    pool = endpoint.pool
    values = [value for dot in endpoint.dots for value in (dot.value, dot.low, dot.high)]
    values += [pool.estimate, pool.low, pool.high, pool.low90, pool.high90, pool.prediction_low, pool.prediction_high]
    values += [mark.value for mark in endpoint.marks]
    values += list(endpoint.band or ())
    null = _known(endpoint.null)
    if null.size:
        values += list(np.percentile(null, [0.5, 99.5]))
    found = np.array([value for value in values if np.isfinite(value)], dtype=float)
    if endpoint.log:
        found = np.log10(found[found > 0])
    if not found.size:
        return (1e-1, 1e1) if endpoint.log else (-1.0, 1.0)
    pad = 0.05 * (found.max() - found.min() or 1.0)
    low, high = float(found.min() - pad), float(found.max() + pad)
    return (10**low, 10**high) if endpoint.log else (low, high)


def _ground(ax: Axes, endpoint: Endpoint, limits: tuple[float, float], *, named: bool) -> None:
    """Band and marks behind the data; the marks are named at the top of the panel."""
    if endpoint.band is not None:
        low, high = (float(np.clip(edge, *limits)) for edge in endpoint.band)
        ax.axvspan(low, high, color=style.SESOI_BAND, linewidth=0, zorder=0)
        for edge in endpoint.band:  # the band's edge is a line, too: it must be seen in grey
            if np.isfinite(edge):
                ax.axvline(edge, color="#7d8a4d", linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
    top = blended_transform_factory(ax.transData, ax.transAxes)
    for mark in endpoint.marks:
        ax.axvline(mark.value, color=style.MUTED, linewidth=0.8, zorder=1)
        if named and mark.label:
            ax.text(
                mark.value, 1.005, mark.label, transform=top, ha="center", va="bottom", fontsize=7, color=style.MUTED
            )


def _set_x(ax: Axes, endpoint: Endpoint) -> tuple[float, float]:
    limits = _limits(endpoint)
    if endpoint.log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(*limits)
    return limits


def _forest(ax: Axes, endpoint: Endpoint, *, row: float, labelled: bool, title: str) -> None:
    limits = _set_x(ax, endpoint)
    _ground(ax, endpoint, limits, named=True)
    packed = row < 0.2
    labels = []
    for y, dot in enumerate(endpoint.dots):
        labels.append(style.plain(dot.label, 40))
        _dot(ax, dot, y, limits, size=4 if packed else 6, log=endpoint.log, font=6 if packed else SMALL)
    y = len(endpoint.dots)
    step = 0.27 / row  # the summary rows keep their height when patients are packed
    ax.axhline(y - 0.5, color=style.RULE, linewidth=0.7)
    places = [y - 0.5 + step * (k + 0.6) for k in range(3)]
    _pool(ax, endpoint.pool, places, step, limits)
    labels += ["all patients, 95 % CI", "all patients, 90 % CI", "a new patient, 95 %"]
    ax.set_yticks([*range(y), *places], labels if labelled else [""] * len(labels))
    for k, tick in enumerate(ax.get_yticklabels()):
        tick.set_fontsize(8.5 if k >= y else 6.5 if packed else 8.5)
        tick.set_fontweight("bold" if k == y else "normal")
    ax.set_ylim(places[-1] + step * 0.7, -0.9)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(title, pad=14 if any(mark.label for mark in endpoint.marks) else 6)


def _dot(ax: Axes, dot: Dot, y: float, limits: tuple[float, float], *, size: float, log: bool, font: float) -> None:
    side = blended_transform_factory(ax.transAxes, ax.transData)
    colour = style.BLUE if dot.used else UNUSED_COLOUR
    at_edge = log and np.isfinite(dot.value) and dot.value <= 0
    if np.isfinite(dot.low) and np.isfinite(dot.high):
        low = limits[0] if log and dot.low <= 0 else dot.low
        ax.plot([low, dot.high], [y, y], color=colour, linewidth=1.3, zorder=2, solid_capstyle="butt")
    if np.isfinite(dot.value):
        ax.plot(
            limits[0] if at_edge else dot.value,
            y,
            marker="<" if at_edge else "o",
            markersize=size,
            color=colour if dot.used else "white",
            markeredgecolor=colour,
            markeredgewidth=1.1,
            zorder=3,
            clip_on=False,
        )
        if at_edge:
            ax.annotate(
                "none found", (limits[0], y), (7, 3), textcoords="offset points", fontsize=font, color=style.MUTED
            )
    if dot.used:
        return
    words = "not used: " + (style.plain(dot.note, 44) if dot.note else "no reason recorded")
    x, align = 0.5, "center"
    if np.isfinite(dot.value):
        x, align = (0.01, "left") if dot.value > sum(limits) / 2 else (0.99, "right")
    paper = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.8}
    ax.text(x, y, words, transform=side, ha=align, va="center", fontsize=font, color=style.MUTED, zorder=4, bbox=paper)


def _pool(ax: Axes, pool: Pool, places: Sequence[float], step: float, limits: tuple[float, float]) -> None:
    side = blended_transform_factory(ax.transAxes, ax.transData)
    if not np.isfinite(pool.estimate):
        for y, words in zip(places, ("no estimate", "–", "–"), strict=True):
            ax.text(0.5, y, words, transform=side, ha="center", va="center", fontsize=SMALL, color=style.MUTED)
        return
    floor = limits[0] if ax.get_xscale() == "log" else -np.inf

    def inside(value: float) -> float:
        return float(max(value, floor))

    low, high = (value if np.isfinite(value) else pool.estimate for value in (pool.low, pool.high))
    middle = inside(pool.estimate)
    tip = 0.3 * step
    y = places[0]
    corners = [(inside(low), y), (middle, y - tip), (inside(high), y), (middle, y + tip)]
    ax.add_patch(Polygon(corners, closed=True, facecolor=style.BLACK, edgecolor=style.BLACK, linewidth=0.6, zorder=3))
    for y, edges, width in (
        (places[1], (pool.low90, pool.high90), 3.2),
        (places[2], (pool.prediction_low, pool.prediction_high), 1.0),
    ):
        if all(np.isfinite(edges)):
            ends = [inside(edge) for edge in edges]
            ax.plot(ends, [y, y], color=style.BLACK, linewidth=width, zorder=3, solid_capstyle="butt")
            ax.plot(ends, [y, y], color=style.BLACK, linestyle="none", marker="|", markersize=7, zorder=3)
        else:
            ax.text(0.5, y, "not available", transform=side, ha="center", va="center", fontsize=7, color=style.MUTED)


def _null(ax: Axes, endpoint: Endpoint, *, letter: str) -> None:
    null = _known(endpoint.null)
    limits = ax.get_xlim()
    _ground(ax, endpoint, limits, named=False)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    if not null.size:
        words = "no random gene sets for this endpoint"
        ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=SMALL, color=style.MUTED)
        return
    bins = np.geomspace(*limits, 61) if endpoint.log else np.linspace(*limits, 81)
    ax.hist(null, bins=list(bins), color=NULL_COLOUR, edgecolor="white", linewidth=0.25, zorder=2)
    if np.isfinite(endpoint.pool.estimate):
        ax.axvline(endpoint.pool.estimate, color=style.BLACK, linewidth=1.6, zorder=3)
    ax.set_title(f"{letter}  {null.size:,} random gene sets (black line: the claim)")


def _beside(ax: Axes, endpoint: Endpoint, rows: Sequence[Beside], *, title: str, width: int) -> None:
    for mark in endpoint.marks[:1]:
        ax.axvline(mark.value, color=style.MUTED, linewidth=0.8, zorder=1)
    if endpoint.log:
        ax.set_xscale("log")
    labels, ticks, y = [], [], -0.5
    for one in sorted(rows, key=lambda one: one.control):  # versions of the claim first, then controls
        label = _wrap(style.plain(one.label, 110), width)
        half = 0.28 + 0.22 * (1 + label.count("\n"))
        y += half
        colour = CONTROL_COLOUR if one.control else style.BLACK
        values = _known(np.array(one.values, dtype=float))
        ax.plot(values, np.full(values.size, y - 0.24), linestyle="none", marker="o", markersize=2.6, color=style.BLUE)
        if np.isfinite(one.low) and np.isfinite(one.high):
            ax.plot([one.low, one.high], [y, y], color=colour, linewidth=1.5, zorder=3, solid_capstyle="butt")
        if np.isfinite(one.estimate):
            ax.plot(one.estimate, y, marker="s" if one.control else "D", markersize=5.5, color=colour, zorder=4)
        elif not values.size:
            across = blended_transform_factory(ax.transAxes, ax.transData)
            ax.text(0.5, y, "not available", transform=across, ha="center", va="center", fontsize=7, color=style.MUTED)
        if np.isfinite(one.minimum):
            ax.plot([one.minimum] * 2, [y - 0.3, y + 0.3], color=style.VERMILION, linewidth=1.6, zorder=5)
        labels.append(label)
        ticks.append(y)
        y += half
    if endpoint.band is not None:
        limits = ax.get_xlim()
        low, high = (float(np.clip(edge, *limits)) for edge in endpoint.band)
        ax.axvspan(low, high, color=style.SESOI_BAND, linewidth=0, zorder=0)
        ax.set_xlim(*limits)
    ax.set_yticks(ticks, labels, fontsize=7.5)
    ax.set_ylim(y, -0.75)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(_wrap(endpoint.axis, 84 if width > 30 else 44))
    ax.set_title(title)


def _wrap(label: str, width: int) -> str:
    """Break a label over lines at spaces; no word is broken."""
    return textwrap.fill(label, width, break_long_words=False, break_on_hyphens=False)
