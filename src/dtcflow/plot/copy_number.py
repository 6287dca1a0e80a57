"""Copy number: the cells x genome heatmap of a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from dtcflow.contracts import COMPARTMENTS
from dtcflow.plot import style
from dtcflow.plot.copy_number_arms import STATE_MARKS, clone_order

MAX_WINDOWS: Final = 420
"""Windows drawn; more are averaged within their chromosome arm."""
MIN_ROWS: Final = 60
"""Rows of a group of normal or undecided cells, however many malignant cells there are."""
MIN_STRIP_SHARE: Final = 0.018
"""Share of the genome's width from which an arm of the strip of called arms has room for its sign."""
MAX_NAMED: Final = 10
"""Patients without room that are named; the others are counted."""
STRIP_HEIGHT: Final = 0.15
"""Inches."""
_BAR: Final = 0.0095
"""Width of a side bar, share of the heatmap's width."""
_LABEL_PAD: Final = 20
_LABEL: Final[dict[str, Any]] = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 7.5}
_BAR_NAME: Final[dict[str, Any]] = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 6, "color": style.MUTED}
_CHROMOSOMES: Final = tuple(f"chr{name}" for name in (*range(1, 23), "X", "Y"))


@dataclass(frozen=True)
class Block:
    """Rows of a heatmap that belong together."""

    label: str
    colour: str
    rows: NDArray[np.int64]
    """Positions in the matrix, in drawing order."""
    places: NDArray[np.object_]
    """Compartment of each row."""
    total: int
    """Cells of the group, drawn or not."""
    is_dtc: bool = False
    clone: str = ""
    """Clone of malignant cells; empty for all others and for malignant cells of no clone."""

    @property
    def is_malignant(self) -> bool:
        """Whether these cells were called malignant."""
        return self.colour == style.CALL_COLOURS["malignant"]


def choose_rows(cells: pd.DataFrame, *, max_rows: int = 260, seed: int = 0) -> list[Block]:
    """Group the cells of one patient for a heatmap and cap the groups that are not tumour cells.

    Parameters
    ----------
    cells
        One row per row of the matrix: ``cell_id``, ``sample_id``, ``compartment``, ``cell_type``, ``malignant_call``,
        ``clone_id``, ``is_dtc``, ``is_reference``.
    max_rows
        Rows to aim for. Reference, other normal and undecided cells are sampled evenly over sample and cell type to
        fill what malignant cells leave (at least 60 each); a malignant cell is never left out.
    seed
        Seed of the sampling.

    Returns
    -------
    Malignant cells by clone and compartment first, then undecided and other normal cells, the reference last: what is
    judged lies above what it is judged by.
    """
    call = cells["malignant_call"].astype(str).to_numpy()
    ids = cells["cell_id"].to_numpy(dtype=str)
    places = cells["compartment"].astype(str).to_numpy(dtype=object)
    malignant = call == "malignant"
    clones = cells["clone_id"].fillna("").astype(str).to_numpy()
    dtc = cells["is_dtc"].to_numpy(dtype=bool)
    blocks = []
    for clone in sorted(set(clones[malignant]), key=clone_order):
        for place in sorted(set(places[malignant]), key=_place_order):
            for is_dtc in (True, False):
                members = np.flatnonzero(malignant & (clones == clone) & (places == place) & (dtc == is_dtc))
                if len(members):
                    members = members[np.argsort(ids[members], kind="stable")]
                    where = "DTC" if is_dtc else f"malignant in {place.replace('_', ' ')}"
                    name = f"{where}, clone {clone}" if clone else f"{where}, no clone"
                    colour = style.CALL_COLOURS["malignant"]
                    blocks.append(Block(name, colour, members, places[members], len(members), is_dtc, clone))
    reference = cells["is_reference"].to_numpy(dtype=bool) & ~malignant
    groups = [
        ("undecided", style.CALL_COLOURS["indeterminate"], (call == "indeterminate") & ~reference),
        ("other cells called normal", style.CALL_COLOURS["normal"], (call == "normal") & ~reference),
        ("reference (normal cells)", "#7b8794", reference),
    ]
    sizes = [int(mask.sum()) for _, _, mask in groups]
    caps = _shares(sizes, max(max_rows - int(malignant.sum()), 0))
    rng = np.random.default_rng(seed)
    for (label, colour, mask), cap in zip(groups, caps, strict=True):
        members = np.flatnonzero(mask)
        members = members[np.argsort(ids[members], kind="stable")]
        if len(members):
            strata = (cells["sample_id"].astype(str) + "\t" + cells["cell_type"].astype(str)).to_numpy()[members]
            rows = _evenly(members, strata, cap, rng)
            blocks.append(Block(label, colour, rows, places[rows], len(members)))
    return blocks


def _place_order(place: str) -> tuple[int, str]:
    return (COMPARTMENTS.index(place) if place in COMPARTMENTS else len(COMPARTMENTS)), place


def _shares(sizes: Sequence[int], room: int) -> list[int]:
    """Split ``room`` rows over groups: small groups whole, the rest evenly, at least :data:`MIN_ROWS` for each."""
    caps = [0] * len(sizes)
    left = room
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    for done, i in enumerate(order):
        fair = left // (len(sizes) - done)
        caps[i] = min(sizes[i], max(fair, MIN_ROWS))
        left = max(left - caps[i], 0)
    return caps


def _evenly(
    members: NDArray[np.int64], strata: NDArray[np.object_], cap: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    if len(members) <= cap:
        return members
    rank = np.zeros(len(members))
    shuffled = rng.permutation(len(members))
    for stratum in sorted(set(strata)):
        inside = shuffled[strata[shuffled] == stratum]
        rank[inside] = np.arange(len(inside)) / len(inside)
    return members[np.sort(np.argsort(rank, kind="stable")[:cap])]


def bin_windows(
    matrix: NDArray[np.float32], windows: pd.DataFrame, *, max_windows: int = MAX_WINDOWS
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Average neighbouring windows, never across an arm, until about ``max_windows`` are left.

    Parameters
    ----------
    matrix
        cells x windows, log ratio; NaN is left out of a mean.
    windows
        ``chromosome``, ``start``, ``arm`` per column of the matrix, any order.
    max_windows
        Windows to aim for; each arm keeps at least one.

    Returns
    -------
    cells x bins, and one row per bin (``chromosome``, ``arm``), in genome order.
    """
    frame = windows[["chromosome", "start", "arm"]].reset_index(drop=True).copy()
    rank = {name: i for i, name in enumerate(_CHROMOSOMES)}
    frame["rank"] = frame["chromosome"].astype(str).map(rank).fillna(len(rank)).astype(int)
    frame["start"] = pd.to_numeric(frame["start"])
    order = frame.sort_values(["rank", "chromosome", "start"], kind="stable").index.to_numpy()
    frame = frame.loc[order].reset_index(drop=True)
    sorted_matrix = np.asarray(matrix, dtype=np.float32)[:, order]
    step = max(int(np.ceil(len(frame) / max_windows)), 1)
    arm = frame["arm"].astype(str)
    within = arm.groupby([arm, frame["chromosome"].astype(str)]).cumcount()
    label = frame["chromosome"].astype(str) + "\t" + arm + "\t" + (within // step).astype(str)
    codes, _ = pd.factorize(label)
    known = np.isfinite(sorted_matrix)
    n_bins = int(codes.max()) + 1 if len(codes) else 0
    member = np.zeros((len(codes), n_bins), dtype=np.float32)
    member[np.arange(len(codes)), codes] = 1
    total = np.where(known, sorted_matrix, 0) @ member
    count = known.astype(np.float32) @ member
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(count > 0, total / count, np.nan).astype(np.float32)
    firsts = frame.loc[np.unique(codes, return_index=True)[1], ["chromosome", "arm"]].reset_index(drop=True)
    return means, firsts


def colour_limit(matrices: Sequence[NDArray[np.float32]]) -> float:
    """One symmetric colour limit for all patients: the 99.8th percentile of the absolute log ratio, at least 0.05."""
    values = [np.abs(matrix[np.isfinite(matrix)]) for matrix in matrices]
    pooled = np.concatenate(values) if values else np.zeros(0)
    return max(float(np.percentile(pooled, 99.8)), 0.05) if len(pooled) else 0.05


@dataclass(frozen=True)
class Heatmap:
    """What :func:`heatmaps` draws for one patient."""

    patient_id: str
    matrix: NDArray[np.float32]
    """cells x bins, from :func:`bin_windows`."""
    bins: pd.DataFrame
    blocks: Sequence[Block]
    called: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Clone -> arm -> ``gain`` or ``loss``: what the count model called, drawn as a strip above the clone."""

    @property
    def strips(self) -> list[str]:
        """Clones that get a strip of called arms, in drawing order."""
        return [clone for clone in dict.fromkeys(block.clone for block in self.blocks) if clone in self.called]


def _block_height(block: Block) -> float:
    # every group is visible: a DTC row is up to 0.06 inch, big groups share at most 1.2 inches
    return float(np.clip(0.06 * len(block.rows), 0.17, 1.2))


def heatmap_height(panel: Heatmap) -> float:
    """Return the height one patient's panel needs, inches."""
    blocks = sum(_block_height(block) + 0.045 for block in panel.blocks)
    return 0.72 + blocks + (STRIP_HEIGHT + 0.045) * len(panel.strips)


def gather(blocks: Sequence[Block]) -> tuple[NDArray[np.int64], list[Block]]:
    """Positions of all drawn rows, and the same blocks counted within them: what need not be drawn need not be kept."""
    rows = np.concatenate([block.rows for block in blocks]) if blocks else np.zeros(0, dtype=np.int64)
    ends = np.cumsum([len(block.rows) for block in blocks])
    return rows, [
        replace(block, rows=np.arange(end - len(block.rows), end)) for block, end in zip(blocks, ends, strict=True)
    ]


def condense(rows: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Average neighbouring rows until ``n`` are left, every row in one of them; NaN is left out of a mean."""
    if len(rows) <= n:
        return rows
    firsts = np.arange(n) * len(rows) // n
    known = np.isfinite(rows)
    total = np.add.reduceat(np.where(known, rows, 0), firsts, axis=0)
    number = np.add.reduceat(known.astype(np.float32), firsts, axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, total / number, np.nan).astype(np.float32)


def heatmaps(panels: Sequence[Heatmap], *, limit: float, block_rows: int = 90, max_height: float = 70.0) -> Figure:
    """Heatmap of cells (rows, ordered by clone) by genome windows (columns), one panel per patient.

    Every group of cells has a block of its own, whose height grows with its number of cells up to a limit, so that
    a handful of DTCs is as visible as a thousand other cells; the reference lies below. Rows within a block are ordered
    by compartment and by their similarity to the mean profile of the patient's malignant cells. Side bars give call,
    clone and compartment; a strip above each clone gives the arms that the count model called.

    Parameters
    ----------
    panels
        At least one block each.
    limit
        Colour limit, log ratio; see :func:`colour_limit`.
    block_rows
        Rows a block is drawn with; neighbouring cells of a larger one are averaged.
    max_height
        Inches; patients beyond it are named at the end and not drawn.
    """
    with style.language():
        drawn = [panel for panel in panels if panel.blocks and panel.matrix.shape[1]]
        if not drawn:
            return style.sentence_figure("No patient has copy-number windows to draw; the statuses say why.")
        heights = [heatmap_height(panel) for panel in drawn]
        fit = max(int(np.searchsorted(np.cumsum(heights), max_height, side="right")), 1)
        left_out, drawn, heights = drawn[fit:], drawn[:fit], heights[:fit]
        if left_out:
            heights.append(0.5)
        figure = style.new_figure(style.FULL_WIDTH, sum(heights) + 0.1)
        figure.set_layout_engine("constrained", h_pad=0.01, w_pad=0.03, hspace=0, wspace=0)
        parts = np.atleast_1d(np.asarray(figure.subfigures(len(heights), 1, height_ratios=heights), dtype=object))
        for part, panel in zip(parts, drawn, strict=False):
            _patient(part, panel, limit=limit, block_rows=block_rows)
        if left_out:
            names = ", ".join(style.plain(panel.patient_id, 12) for panel in left_out[:MAX_NAMED])
            more = f" and {len(left_out) - MAX_NAMED:,} more" if len(left_out) > MAX_NAMED else ""
            style.say(parts[-1].add_subplot(), f"not drawn here, but in the report: {names}{more}")
        return figure


def _patient(part: SubFigure, panel: Heatmap, *, limit: float, block_rows: int) -> None:
    rows: list[tuple[Block, bool]] = []
    strips, seen = panel.strips, set()
    for block in panel.blocks:
        if block.clone in strips and block.clone not in seen:
            seen.add(block.clone)
            rows.append((block, True))
        rows.append((block, False))
    ratios = [STRIP_HEIGHT if strip else _block_height(block) for block, strip in rows]
    axes = part.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    template = _template(panel)
    named = {
        clone: style.CLONE_COLOURS[i % len(style.CLONE_COLOURS)]
        for i, clone in enumerate(dict.fromkeys(block.clone for block in panel.blocks if block.clone))
    }
    for i, (ax, (block, strip)) in enumerate(zip(axes, rows, strict=True)):
        if strip:
            _strip(ax, panel.bins, panel.called[block.clone], block.clone)
            _bars(ax, [None, named[block.clone], None])
            continue
        values, places = _ordered(panel.matrix[block.rows], block.places, template)
        image = ax.imshow(
            np.ma.masked_invalid(condense(values, block_rows)),
            aspect="auto",
            cmap=style.copy_number_colours(),
            vmin=-limit,
            vmax=limit,
            interpolation="none",
        )
        _decorate(ax, panel.bins, block, last=i == len(ratios) - 1)
        _bars(ax, [block.colour, named.get(block.clone), places])
    for x, name in zip((2.5, 1.5, 0.5), ("call", "clone", "site"), strict=True):
        axes[-1].text(-(0.0035 + x * 1.35 * _BAR), -0.03, name, **_BAR_NAME, transform=axes[-1].transAxes)
    axes[0].set_title(f"Patient {style.plain(panel.patient_id)}", pad=3)
    _site_legend(axes[0], panel.blocks)
    bar: Colorbar = part.colorbar(image, ax=list(axes), shrink=0.9, aspect=14, pad=0.01, fraction=0.02)
    bar.set_label("log ratio (ln)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _ordered(
    rows: NDArray[np.float32], places: NDArray[np.object_], template: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], list[str]]:
    """Rows by compartment, then by likeness to the tumour; with the compartment of every row."""
    likeness = np.zeros(len(rows)) if template is None else np.where(np.isfinite(rows), rows, 0) @ template
    names = sorted(set(places.tolist()), key=_place_order)
    rank = np.array([names.index(place) for place in places.tolist()], dtype=np.int64)
    order = np.lexsort((-likeness, rank))
    return rows[order], [str(place) for place in places[order]]


def _bars(ax: Axes, bars: Sequence[str | list[str] | None]) -> None:
    """Side bars, from the outside in; a bar is one colour, or a compartment for every row from the top."""
    for k, bar in enumerate(reversed(bars)):
        x = -(0.0035 + (k + 1) * 1.35 * _BAR)
        runs: list[tuple[str, float, float]] = []
        if isinstance(bar, str):
            runs = [(bar, 0.0, 1.0)]
        elif bar:
            changes = [0, *(i for i in range(1, len(bar)) if bar[i] != bar[i - 1]), len(bar)]
            runs = [
                (style.COMPARTMENT_COLOURS.get(bar[a], style.RULE), 1 - b / len(bar), (b - a) / len(bar))
                for a, b in pairwise(changes)
            ]
        for colour, bottom, height in runs:
            shape = Rectangle((x, bottom), _BAR, height, transform=ax.transAxes, color=colour, clip_on=False)
            shape.set_linewidth(0)
            ax.add_patch(shape)


def _site_legend(ax: Axes, blocks: Sequence[Block]) -> None:
    places = sorted({str(place) for block in blocks for place in block.places}, key=_place_order)
    handles = [Patch(color=style.COMPARTMENT_COLOURS.get(place, style.RULE)) for place in places]
    style.legend(
        ax,
        handles,
        [f"site: {place.replace('_', ' ')}" for place in places],
        loc="lower right",
        bbox_to_anchor=(1.0, 0.98),
        ncols=len(places),
        fontsize=7.5,
        handlelength=0.9,
        columnspacing=1.0,
        borderaxespad=0,
        borderpad=0.1,
    )


def _strip(ax: Axes, bins: pd.DataFrame, called: Mapping[str, str], clone: str) -> None:
    """Arms that were called gained or lost in a clone, above its cells."""
    arm = bins["arm"].astype(str).to_numpy()
    ax.set_xlim(-0.5, len(bins) - 0.5)
    ax.set_ylim(0, 1)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_facecolor(style.PALE)
    across = blended_transform_factory(ax.transData, ax.transAxes)
    for name, state in called.items():
        inside = np.flatnonzero(arm == name)
        if len(inside) == 0:
            continue
        first, width = float(inside[0]) - 0.5, float(inside[-1] - inside[0] + 1)
        ax.add_patch(Rectangle((first, 0), width, 1, color=style.ARM_COLOURS.get(state, style.PALE), linewidth=0))
        if width >= MIN_STRIP_SHARE * len(bins):
            mark = STATE_MARKS.get(state, "")
            ax.text(
                *(first + width / 2, 0.44, mark), ha="center", va="center", fontsize=7, color="white", transform=across
            )
    ax.set_ylabel(
        f"arms called in clone {style.plain(clone, 30)}",
        **{**_LABEL, "color": style.MUTED, "labelpad": _LABEL_PAD},
    )


def _template(panel: Heatmap) -> NDArray[np.float32] | None:
    rows = [block.rows for block in panel.blocks if block.is_malignant]
    if not rows:
        return None
    malignant = panel.matrix[np.concatenate(rows)]
    known = np.isfinite(malignant)
    return np.asarray(np.where(known, malignant, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), dtype=np.float32)


def _decorate(ax: Axes, bins: pd.DataFrame, block: Block, *, last: bool) -> None:
    chromosome, arm = bins["chromosome"].astype(str).to_numpy(), bins["arm"].astype(str).to_numpy()
    borders = np.flatnonzero(arm[1:] != arm[:-1])
    between = chromosome[borders] != chromosome[borders + 1]
    across = ax.get_xaxis_transform()
    ax.vlines(borders[between] + 0.5, 0, 1, transform=across, colors=style.INK, linewidths=0.5)
    ax.vlines(borders[~between] + 0.5, 0, 1, transform=across, colors=style.MUTED, linewidths=0.4, linestyles="dotted")
    ax.set_yticks([])
    count = f"{block.total:,}" if block.total == len(block.rows) else f"{len(block.rows):,} of {block.total:,}"
    ax.set_ylabel(f"{style.plain(block.label, 44)} ({count})", **_LABEL, labelpad=_LABEL_PAD)
    ax.set_xlim(-0.5, len(bins) - 0.5)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xticks([])
    if last:
        names, firsts = np.unique(chromosome, return_index=True)
        order = np.argsort(firsts)
        starts = [*firsts[order].tolist(), len(bins)]
        middles = [(a + b - 1) / 2 for a, b in pairwise(starts)]
        labels = [style.plain(name.removeprefix("chr"), 6) for name in names[order]]
        # the short chromosomes would overlap: every second one from 13 on is left unnamed
        labels = ["" if label.isdigit() and int(label) > 12 and int(label) % 2 else label for label in labels]
        ax.set_xticks(middles, labels, fontsize=7)
        ax.tick_params(axis="x", length=0, pad=1)
        ax.set_xlabel("chromosome (genome order; solid line: chromosome border, dotted: centromere)", fontsize=7.5)
