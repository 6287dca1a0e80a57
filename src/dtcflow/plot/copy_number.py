"""Copy number: the cells x genome heatmap of a patient and the grid of arm states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from dtcflow.contracts import COMPARTMENTS
from dtcflow.plot import style

MAX_WINDOWS: Final = 420
"""Windows drawn; more are averaged within their chromosome arm."""
MIN_ROWS: Final = 60
"""Rows of a group of normal or undecided cells, however many malignant cells there are."""
MAX_GROUPS: Final = 100
"""Rows of the grid of arm states."""
STATE_MARKS: Final = {"gain": "+", "loss": "–", "neutral": "", "not_assessable": "·"}
_CHROMOSOMES: Final = tuple(f"chr{name}" for name in (*range(1, 23), "X", "Y"))


@dataclass(frozen=True)
class Block:
    """Rows of a heatmap that belong together."""

    label: str
    colour: str
    rows: NDArray[np.int64]
    """Positions in the matrix, in drawing order."""
    total: int
    """Cells of the group, drawn or not."""
    is_dtc: bool = False

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
    Reference first, then other normal, undecided, and malignant cells by clone and compartment.
    """
    call = cells["malignant_call"].astype(str).to_numpy()
    reference = cells["is_reference"].to_numpy(dtype=bool) & (call != "malignant")
    malignant = call == "malignant"
    groups = [
        ("reference (normal cells)", "#7b8794", reference),
        ("other cells called normal", style.CALL_COLOURS["normal"], (call == "normal") & ~reference),
        ("undecided", style.CALL_COLOURS["indeterminate"], (call == "indeterminate") & ~reference),
    ]
    room = max(max_rows - int(malignant.sum()), 0)
    sizes = [int(mask.sum()) for _, _, mask in groups]
    caps = _shares(sizes, room)
    blocks = []
    rng = np.random.default_rng(seed)
    ids = cells["cell_id"].to_numpy(dtype=str)
    for (label, colour, mask), cap in zip(groups, caps, strict=True):
        members = np.flatnonzero(mask)
        members = members[np.argsort(ids[members], kind="stable")]
        if len(members):
            strata = (cells["sample_id"].astype(str) + "\t" + cells["cell_type"].astype(str)).to_numpy()[members]
            blocks.append(Block(label, colour, _evenly(members, strata, cap, rng), len(members)))
    clones = cells["clone_id"].fillna("").astype(str).to_numpy()
    dtc = cells["is_dtc"].to_numpy(dtype=bool)
    places = cells["compartment"].astype(str).to_numpy()
    rank = {name: i for i, name in enumerate(COMPARTMENTS)}
    order = sorted(set(places[malignant]), key=lambda name: (rank.get(name, len(rank)), name))
    for clone in sorted(set(clones[malignant])):
        for place in order:
            for is_dtc in (True, False):
                members = np.flatnonzero(malignant & (clones == clone) & (places == place) & (dtc == is_dtc))
                if len(members):
                    members = members[np.argsort(ids[members], kind="stable")]
                    where = "DTC" if is_dtc else f"malignant in {place.replace('_', ' ')}"
                    name = f"{where}, clone {clone}" if clone else f"{where}, no clone"
                    blocks.append(Block(name, style.CALL_COLOURS["malignant"], members, len(members), is_dtc))
    return blocks


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


def _block_height(block: Block) -> float:
    # every group is visible: a DTC row is up to 0.06 inch, big groups share at most 1.2 inches
    return float(np.clip(0.06 * len(block.rows), 0.17, 1.2))


def heatmap_height(panel: Heatmap) -> float:
    """Return the height one patient's panel needs, inches."""
    return 0.62 + sum(_block_height(block) + 0.045 for block in panel.blocks)


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
    """Heatmap of cells (rows) by genome windows (columns), one panel per patient.

    Every group of cells has a block of its own, whose height grows with its number of cells up to a limit, so that
    a handful of DTCs is as visible as a thousand other cells. Rows within a block are ordered by their similarity
    to the mean profile of the patient's malignant cells.

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
            names = ", ".join(style.plain(panel.patient_id, 20) for panel in left_out)
            style.say(parts[-1].add_subplot(), f"not drawn here, but in the report: {names}")
        return figure


def _patient(part: SubFigure, panel: Heatmap, *, limit: float, block_rows: int) -> None:
    ratios = [_block_height(block) for block in panel.blocks]
    axes = part.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    template = _template(panel)
    for i, (ax, block) in enumerate(zip(axes, panel.blocks, strict=True)):
        rows = panel.matrix[block.rows]
        if template is not None:
            likeness = np.where(np.isfinite(rows), rows, 0) @ template
            rows = rows[np.argsort(-likeness, kind="stable")]
        image = ax.imshow(
            np.ma.masked_invalid(condense(rows, block_rows)),
            aspect="auto",
            cmap=style.copy_number_colours(),
            vmin=-limit,
            vmax=limit,
            interpolation="none",
        )
        _decorate(ax, panel.bins, block, last=i == len(ratios) - 1)
    axes[0].set_title(f"Patient {style.plain(panel.patient_id)}", pad=3)
    bar: Colorbar = part.colorbar(image, ax=list(axes), shrink=0.9, aspect=14, pad=0.01, fraction=0.02)
    bar.set_label("log ratio", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


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
    ax.set_ylabel(
        f"{style.plain(block.label, 44)} ({count})", rotation=0, ha="right", va="center", fontsize=7.5, labelpad=7
    )
    bar = Rectangle((-0.013, 0), 0.0095, 1, transform=ax.transAxes, color=block.colour, clip_on=False, linewidth=0)
    ax.add_patch(bar)
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
