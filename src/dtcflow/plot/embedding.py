"""UMAP panels: cell type, compartment, sample and malignant call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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

        figure = style.new_figure(style.FULL_WIDTH, 9.2)
        axes = figure.subplots(2, 2)
        size = float(np.clip(16_000 / len(cells), 1.2, 9.0))
        tumour = (cells["malignant_call"] == "malignant").to_numpy()

        present = set(whole["cell_type"].astype(str))
        types = [name for name in style.CELL_TYPE_COLOURS if name in present]
        types += sorted(present - set(types))
        colours = style.cell_type_colours(types)
        _panel(
            axes[0, 0], xy, cells["cell_type"], colours, types, tumour, size, "Cell type", _counts(whole["cell_type"])
        )

        present = set(whole["compartment"].astype(str))
        names = [name for name in style.COMPARTMENT_COLOURS if name in present]
        counts = _counts(whole["compartment"])
        _panel(
            axes[0, 1], xy, cells["compartment"], style.COMPARTMENT_COLOURS, names, tumour, size, "Compartment", counts
        )

        samples = sorted(set(whole["sample_id"].astype(str)))
        colours = dict.fromkeys(samples, "#dde1e6")
        most = whole["sample_id"].astype(str).value_counts(sort=False)
        top = sorted(most.sort_index().sort_values(ascending=False, kind="stable").index[:MAX_SAMPLES_COLOURED])
        colours.update(zip(top, _SAMPLE_COLOURS, strict=False))
        title = "Sample" if len(top) == len(samples) else f"Sample (the {len(top)} largest of {len(samples)} coloured)"
        _panel(axes[1, 0], xy, cells["sample_id"], colours, top, tumour, size, title, _counts(whole["sample_id"]))

        _calls_panel(axes[1, 1], xy, cells, size, _counts(whole["malignant_call"]))
        return figure


def _counts(values: pd.Series[str]) -> dict[str, int]:
    return {str(name): int(n) for name, n in values.astype(str).value_counts().items()}


def _bare(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("UMAP 1 (no unit)", color=style.MUTED, fontsize=8)
    ax.set_ylabel("UMAP 2 (no unit)", color=style.MUTED, fontsize=8)
    ax.spines[["left", "bottom"]].set_color(style.RULE)


def _below(ax: Axes, labels: Sequence[str], colours: Mapping[str, str], counts: Mapping[str, int]) -> None:
    style.legend(
        ax,
        style.dots(labels, colours),
        [f"{style.plain(label, 18)} ({counts[label]:,})" for label in labels],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.06),
        ncols=3 if max(map(len, labels), default=0) > 12 else 4,
        fontsize=8,
        handletextpad=0.1,
        columnspacing=0.9,
    )


def _panel(
    ax: Axes,
    xy: NDArray[np.float32],
    values: pd.Series[str],
    colours: Mapping[str, str],
    labels: Sequence[str],
    tumour: NDArray[np.bool_],
    size: float,
    title: str,
    counts: Mapping[str, int],
) -> None:
    _bare(ax, title)
    names = values.astype(str)
    shade = np.array([colours.get(name, "#dde1e6") for name in names], dtype=object)
    for mask, factor in ((~tumour, 1.0), (tumour, 1.8)):
        if mask.any():
            ax.scatter(xy[mask, 0], xy[mask, 1], s=size * factor, c=list(shade[mask]), linewidths=0, rasterized=True)
    _below(ax, labels, colours, counts)


def _calls_panel(
    ax: Axes, xy: NDArray[np.float32], cells: pd.DataFrame, size: float, counts: Mapping[str, int]
) -> None:
    _bare(ax, "Malignant call")
    call = cells["malignant_call"].astype(str)
    dtc = cells["is_dtc"].to_numpy(dtype=bool)
    for name, factor in (("normal", 1.0), ("indeterminate", 1.3), ("malignant", 1.8)):
        mask = (call == name).to_numpy()
        if mask.any():
            ax.scatter(
                xy[mask, 0], xy[mask, 1], s=size * factor, c=style.CALL_COLOURS[name], linewidths=0, rasterized=True
            )
    if dtc.any():
        ax.scatter(
            xy[dtc, 0],
            xy[dtc, 1],
            s=max(size * 5, 22),
            c=style.VERMILION,
            edgecolors=style.BLACK,
            linewidths=0.6,
            rasterized=True,
        )
    labels = [name for name in MALIGNANT_CALLS if name in counts]
    handles = style.dots(labels, style.CALL_COLOURS)
    words = [f"{name} ({counts[name]:,})" for name in labels]
    if dtc.any():
        (mark,) = style.dots(["malignant"], style.CALL_COLOURS, size=7)
        mark.set_markeredgecolor(style.BLACK)
        mark.set_markeredgewidth(0.6)
        handles.append(mark)
        words.append(f"DTC: malignant, in marrow ({int(dtc.sum()):,})")
    style.legend(
        ax, handles, words, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, fontsize=8, handletextpad=0.1
    )
