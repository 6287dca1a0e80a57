"""UMAP panels: cell type, compartment, sample and malignant call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dtcflow.contracts import MALIGNANT_CALLS
from dtcflow.plot import style

MAX_SAMPLES_COLOURED: Final = 16
_SAMPLE_COLOURS: Final = (
    *(style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION, "#332288", "#999933"),
    *("#882255", "#44AA99", "#DDCC77", "#117733", "#AA4499", "#661100", "#6699CC", "#888888"),
)


def choose_cells(calls: Sequence[str], strata: Sequence[str], *, max_points: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose the cells to draw: every cell not called normal, and normal cells evenly over strata.

    Parameters
    ----------
    calls
        Malignant call per cell.
    strata
        Stratum per cell (sample and cell type); each keeps its share of the normal cells.
    max_points
        Number of cells to aim for. Cells that are not called normal are kept even beyond it.
    seed
        Seed of the choice.

    Returns
    -------
    Positions, ascending.
    """
    call = np.asarray(calls, dtype=object)
    keep = call != "normal"
    normal = np.flatnonzero(~keep)
    room = max(max_points - int(keep.sum()), 0)
    if len(normal) > room:
        rng = np.random.default_rng(seed)
        codes, _ = pd.factorize(np.asarray(strata, dtype=object)[normal], sort=True)
        # position of each cell within its stratum after shuffling, as a fraction of the stratum: taking the lowest
        # gives every stratum the same share, and every stratum at least one cell while there is room
        shuffled = rng.permutation(len(normal))
        rank = np.zeros(len(normal))
        for code in np.unique(codes):
            members = shuffled[codes[shuffled] == code]
            rank[members] = np.arange(len(members)) / len(members)
        normal = normal[np.argsort(rank, kind="stable")[:room]]
    return np.sort(np.concatenate([np.flatnonzero(keep), normal])).astype(np.int64)


def umap_panels(
    coordinates: NDArray[np.float32], cells: pd.DataFrame, *, max_points: int = 20_000, seed: int = 0
) -> Figure:
    """Four views of one UMAP.

    Parameters
    ----------
    coordinates
        cells x 2.
    cells
        Same order: ``cell_id``, ``cell_type``, ``compartment``, ``sample_id``, ``malignant_call``, ``is_dtc``.
    max_points
        Cells drawn; see :func:`choose_cells`.
    seed
        Seed of the choice and of the drawing order.

    Notes
    -----
    Cells that are not tumour cells are drawn in random order, so that no group hides another; tumour cells come last
    and bigger. Points are one raster layer per panel.
    """
    with style.language():
        if len(cells) == 0:
            return style.sentence_figure("No cell passed quality control, so there is no embedding to show.")
        order = np.argsort(cells["cell_id"].to_numpy(dtype=str), kind="stable")  # independent of the order of cells
        cells, xy = cells.iloc[order].reset_index(drop=True), np.asarray(coordinates)[order]
        strata = (cells["sample_id"].astype(str) + "\t" + cells["cell_type"].astype(str)).tolist()
        drawn = choose_cells(cells["malignant_call"].tolist(), strata, max_points=max_points, seed=seed)
        drawn = np.random.default_rng(seed).permutation(drawn)
        whole = cells
        cells, xy = cells.iloc[drawn].reset_index(drop=True), xy[drawn]

        figure = style.new_figure(style.FULL_WIDTH, 10.0)
        # keys have axes of their own, so that a wide key does not squeeze the picture above it
        grid = figure.subplots(4, 2, height_ratios=(3.75, 1.0, 3.75, 1.0))
        pictures, keys = grid[::2].ravel(), grid[1::2].ravel()
        size = float(np.clip(16_000 / len(cells), 1.2, 9.0))
        tumour = (cells["malignant_call"] == "malignant").to_numpy()
        views = (_cell_types(whole), _compartments(whole), _samples(whole))
        for ax, key, view in zip(pictures, keys, views, strict=False):
            _panel(ax, xy, cells[view.column], view.colours, tumour, size)
            ax.set_title(view.title)
            counts = _counts(whole[view.column])
            words = [f"{style.plain(label, 24)} ({counts[label]:,})" for label in view.labels]
            _key(key, style.dots(view.labels, view.colours), words, columns=3)
        _calls_panel(pictures[3], keys[3], xy, cells, size, _counts(whole["malignant_call"]))
        return figure


@dataclass(frozen=True)
class _View:
    column: str
    title: str
    labels: Sequence[str]
    colours: Mapping[str, str]


def _cell_types(cells: pd.DataFrame) -> _View:
    present = set(cells["cell_type"].astype(str))
    labels = [name for name in style.CELL_TYPE_COLOURS if name in present]
    labels += sorted(present - set(labels))
    return _View("cell_type", "Cell type", labels, style.cell_type_colours(labels))


def _compartments(cells: pd.DataFrame) -> _View:
    present = set(cells["compartment"].astype(str))
    labels = [name for name in style.COMPARTMENT_COLOURS if name in present]
    return _View("compartment", "Compartment", labels, style.COMPARTMENT_COLOURS)


def _samples(cells: pd.DataFrame) -> _View:
    counts = cells["sample_id"].astype(str).value_counts(sort=False).sort_index()
    largest = counts.sort_values(ascending=False, kind="stable").index[:MAX_SAMPLES_COLOURED]
    labels = sorted(map(str, largest))
    title = "Sample" if len(labels) == len(counts) else f"Sample (the {len(labels)} largest of {len(counts)} coloured)"
    return _View("sample_id", title, labels, dict(zip(labels, _SAMPLE_COLOURS, strict=False)))


def _counts(values: pd.Series[str]) -> dict[str, int]:
    return {str(name): int(n) for name, n in values.astype(str).value_counts().items()}


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("UMAP 1 (no unit)", color=style.MUTED, fontsize=8)
    ax.set_ylabel("UMAP 2 (no unit)", color=style.MUTED, fontsize=8)
    ax.spines[["left", "bottom"]].set_color(style.RULE)


def _key(ax: Axes, handles: Sequence[Line2D], words: Sequence[str], *, columns: int) -> None:
    ax.set_axis_off()
    key = style.legend(
        ax,
        handles,
        words,
        loc="upper left",
        ncols=columns,
        fontsize=7.5,
        handletextpad=0.1,
        columnspacing=0.8,
        labelspacing=0.35,
        borderaxespad=0,
    )
    key.set_in_layout(False)


def _panel(
    ax: Axes,
    xy: NDArray[np.float32],
    values: pd.Series[str],
    colours: Mapping[str, str],
    tumour: NDArray[np.bool_],
    size: float,
) -> None:
    _bare(ax)
    shade = np.array([colours.get(name, "#dde1e6") for name in values.astype(str)], dtype=object)
    for mask, factor in ((~tumour, 1.0), (tumour, 1.8)):
        if mask.any():
            ax.scatter(xy[mask, 0], xy[mask, 1], s=size * factor, c=list(shade[mask]), linewidths=0, rasterized=True)


def _calls_panel(
    ax: Axes, key: Axes, xy: NDArray[np.float32], cells: pd.DataFrame, size: float, counts: Mapping[str, int]
) -> None:
    _bare(ax)
    ax.set_title("Malignant call")
    call = cells["malignant_call"].astype(str)
    dtc = cells["is_dtc"].to_numpy(dtype=bool)
    for name, factor in (("normal", 1.0), ("indeterminate", 1.3), ("malignant", 1.8)):
        mask = (call == name).to_numpy()
        if mask.any():
            ax.scatter(
                xy[mask, 0], xy[mask, 1], s=size * factor, c=style.CALL_COLOURS[name], linewidths=0, rasterized=True
            )
    labels = [name for name in MALIGNANT_CALLS if name in counts]
    handles = style.dots(labels, style.CALL_COLOURS)
    words = [f"{name} ({counts[name]:,})" for name in labels]
    if dtc.any():
        ax.scatter(
            xy[dtc, 0],
            xy[dtc, 1],
            s=max(size * 3, 15),
            c=style.VERMILION,
            edgecolors=style.BLACK,
            linewidths=0.5,
            rasterized=True,
        )
        (mark,) = style.dots(["malignant"], style.CALL_COLOURS, size=6)
        mark.set_markeredgecolor(style.BLACK)
        mark.set_markeredgewidth(0.6)
        handles.append(mark)
        words.append(f"DTC: malignant, in marrow ({int(dtc.sum()):,})")
    _key(key, handles, words, columns=2)
