"""Cells one by one: their clone statistic among what chance makes of it, and the three kinds of evidence apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from dtcflow.plot import style

Floats = NDArray[np.float64]

BINS: Final = 56
MAX_VECTOR_POINTS: Final = 100
"""A class of more cells is drawn as an image; a rare class keeps its exact colour and shape."""
_OTHER_LINE: Final[tuple[str, style.Dash]] = (style.INK, "dashed")
MAX_LOG_P: Final = 30.0
"""Burden p-values below 1e-30 are drawn at the edge: a fitted tail says nothing beyond."""
NULL_NAMES: Final = {
    "matched": "held-out reference",
    "unseen": "held-out reference, its type left out",
    "decoy_flipped": "decoy: signs flipped",
    "decoy_permuted": "decoy: other arms",
    "uniform": "expected of uniform p-values",
}
_SHORT_NULLS: Final = {
    "matched": "held out",
    "unseen": "type left out",
    "decoy_flipped": "signs flipped",
    "decoy_permuted": "other arms",
    "uniform": "uniform",
}
_FILLS: Final = {
    "normal": ("cells called normal", "#c3cbd3", 1.0),
    "malignant": ("malignant", style.CALL_COLOURS["malignant"], 0.75),
    "indeterminate": ("undecided", style.CALL_COLOURS["indeterminate"], 0.6),
}
CLASS_NAMES: Final = {
    "normal": "normal",
    "unassessable": "unassessable",
    "epithelial_cnv_neutral": "epithelial, copy number neutral",
    "aneuploid_only": "aneuploid only",
    "possible_tumour_doublet": "possible doublet with a tumour cell",
    "malignant_doublet": "malignant doublet",
    "malignant_confirmed": "malignant",
}
"""Classes in drawing order: the rare and important last."""


@dataclass(frozen=True)
class ScoreDistribution:
    """One patient's cells on one statistic, and what the same statistic is where there is no tumour cell."""

    patient_id: str
    score: Floats
    """One number per cell, NaN where not scored."""
    call: NDArray[np.object_]
    """``malignant``, ``indeterminate`` or ``normal``, per cell."""
    is_dtc: NDArray[np.bool_]
    nulls: Mapping[str, Floats] = field(default_factory=dict)
    """Statistics of null cells by kind; see :data:`NULL_NAMES`."""
    threshold: float | None = None
    """Lowest statistic of a called cell."""
    label: str = "clone statistic T"
    expected: Mapping[str, Floats] = field(default_factory=dict)
    """Instead of null cells: sorted quantiles of an expected distribution, by kind."""
    stands_for: Mapping[str, int] = field(default_factory=dict)
    """Cells that a null is scaled to, by kind; all scored cells where it is not named."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Size of a null, by kind, where ``nulls`` holds only those of it that count (decoys that beat the target)."""

    @property
    def n_scored(self) -> int:
        """Cells with a number."""
        return int(np.isfinite(self.score).sum())

    def beyond(self, kind: str) -> tuple[int, int]:
        """Null cells of a kind at or above the threshold, and all of them; none without a threshold."""
        values = _finite(self.nulls[kind])
        size = self.sizes.get(kind, len(values))
        if self.threshold is None:
            return 0, size
        return int((values >= self.threshold).sum()), size

    def line(self, kind: str, edges: Floats) -> Floats:
        """Cells per bin that a null predicts for the cells it stands for."""
        values = _finite({**self.nulls, **self.expected}[kind])
        share = len(values) / max(self.sizes.get(kind, len(values)), 1)
        return scaled_counts(values, edges, share * self.stands_for.get(kind, self.n_scored))


def _finite(values: Floats) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    return values[np.isfinite(values)]


def bin_edges(panel: ScoreDistribution, bins: int = BINS) -> Floats:
    """Equal bins over all cells and nulls; the lowest 0.1 % of all are in the first bin."""
    parts = [_finite(panel.score), *map(_finite, panel.nulls.values()), *map(_finite, panel.expected.values())]
    everything = np.concatenate(parts)
    if len(everything) == 0:
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = float(np.percentile(everything, 0.1)), float(everything.max())
    if float(everything.min()) >= 0.0:
        low = 0.0
    if panel.threshold is not None:
        high = max(high, panel.threshold)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high + 1e-9 * (high - low), bins + 1)


def scaled_counts(values: Floats, edges: Floats, n: float) -> Floats:
    """Histogram of null values, scaled as if there were ``n`` of them; values below the first edge count there."""
    values = _finite(values)
    if len(values) == 0:
        return np.zeros(len(edges) - 1)
    counts, _ = np.histogram(np.maximum(values, edges[0]), bins=edges)
    return np.asarray(counts * (n / len(values)), dtype=np.float64)


def score_histogram(panel: ScoreDistribution) -> Figure:
    """Histogram of the cells' statistic by call, null and decoy distributions over it, counts on a log axis.

    A null is drawn scaled to the number of cells it stands for: its line is the number of cells per bin that would lie
    there if all of them were of that kind. The triangles along the top are DTCs, one each.
    """
    with style.language():
        if panel.n_scored == 0:
            return style.sentence_figure("No cell of this patient has this statistic.")
        figure = style.new_figure(style.FULL_WIDTH, 3.1)
        ax = figure.add_subplot()
        edges = bin_edges(panel)
        _draw_histogram(ax, panel, edges)
        ax.set_xlabel(panel.label)
        ax.set_ylabel(f"cells per bin of {edges[1] - edges[0]:.2g}")
        ax.set_title(f"Patient {style.plain(panel.patient_id)}: {panel.n_scored:,} cells scored")
        if panel.threshold is not None:
            top = ax.get_ylim()[1]
            right = panel.threshold > (edges[0] + edges[-1]) / 2
            ax.annotate(
                f"lowest called: {panel.threshold:.1f}",
                (panel.threshold, top),
                xytext=(-4 if right else 4, -11),
                textcoords="offset points",
                ha="right" if right else "left",
                va="top",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )
        _histogram_legend(ax, panel)
        return figure


def score_histograms(panels: Sequence[ScoreDistribution], *, columns: int = 4) -> Figure:
    """Small version of :func:`score_histogram` for many patients; panels without a scored cell say so."""
    with style.language():
        if not panels:
            return style.sentence_figure("No patient has cells with this statistic.")
        rows = -(-len(panels) // columns)
        figure = style.new_figure(style.FULL_WIDTH, 0.45 + 1.45 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            if panel.n_scored == 0:
                style.say(ax, "no cell scored")
            else:
                _draw_histogram(ax, panel, bin_edges(panel, BINS // 2), small=True)
                ax.tick_params(labelsize=7)
            n_malignant = int((panel.call == "malignant").sum())
            title = f"{style.plain(panel.patient_id, 14)}: {n_malignant:,} of {panel.n_scored:,} malignant"
            ax.set_title(title, fontsize=8, pad=2)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        figure.supxlabel(panels[0].label, fontsize=8.5)
        figure.supylabel("cells per bin", fontsize=8.5)
        _common_legend(figure, panels)
        return figure


def _draw_histogram(ax: Axes, panel: ScoreDistribution, edges: Floats, *, small: bool = False) -> None:
    floor = 0.5
    score = np.maximum(panel.score, edges[0])  # NaN stays NaN and is in no bin
    tallest = 1.0
    for call, (_, colour, alpha) in _FILLS.items():
        counts, _ = np.histogram(_finite(score[panel.call == call]), bins=edges)
        if counts.any():
            tallest = max(tallest, float(counts.max()))
            # the baseline lies on the axis: a bin with one cell is a bar, an empty bin is none
            tops = np.where(counts > 0, counts, np.nan).astype(np.float64)
            ax.stairs(tops, edges, baseline=floor, fill=True, color=colour, alpha=alpha, linewidth=0, label=call)
    for kind in {**panel.nulls, **panel.expected}:
        line = panel.line(kind, edges)
        tallest = max(tallest, float(line.max()))
        colour, dash = style.NULL_LINES.get(kind, _OTHER_LINE)
        ax.stairs(
            np.maximum(line, floor / 2),
            edges,
            baseline=None,
            color=colour,
            linestyle=dash,
            linewidth=0.9 if small else 1.2,
            label=kind,
        )
    ax.set_yscale("log")
    ax.set_ylim(floor, 10 ** (np.log10(tallest) + 0.16 * np.log10(tallest / floor) + 0.1))
    ax.yaxis.set_major_locator(LogLocator(base=10, numticks=8))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(edges[0], edges[-1])
    if panel.threshold is not None:
        ax.axvline(panel.threshold, color=style.INK, linewidth=1.0, label="threshold")
    dtc = _finite(panel.score[panel.is_dtc])
    if len(dtc):
        ax.plot(
            *(np.clip(dtc, edges[0], edges[-1]), np.full(len(dtc), 0.975)),
            transform=ax.get_xaxis_transform(),
            linestyle="none",
            marker="v",
            markersize=2.6 if small else 4.0,
            markeredgewidth=0.3,
            markeredgecolor="white",
            color=style.CALL_COLOURS["malignant"],
            label="DTC",
        )


def _histogram_legend(ax: Axes, panel: ScoreDistribution) -> None:
    handles: list[Patch | Line2D] = []
    labels: list[str] = []
    scored = np.isfinite(panel.score)
    for call, (name, colour, alpha) in _FILLS.items():
        n = int((scored & (panel.call == call)).sum())
        if n:
            handles.append(Patch(color=colour, alpha=alpha, linewidth=0))
            labels.append(f"{name} (n = {n:,})")
    n_dtc = int((scored & panel.is_dtc).sum())
    if n_dtc:
        handles += style.dots(["DTC"], {"DTC": style.CALL_COLOURS["malignant"]}, size=4)
        handles[-1].set_marker("v")  # type: ignore[union-attr]
        labels.append(f"DTC, one mark each (n = {n_dtc:,})")
    for kind in panel.nulls:
        colour, dash = style.NULL_LINES.get(kind, _OTHER_LINE)
        handles.append(Line2D([], [], color=colour, linestyle=dash, linewidth=1.2))
        out, n = panel.beyond(kind)
        tail = [f"{len(_finite(panel.nulls[kind])):,} win"] if kind in panel.sizes else []
        tail += [] if panel.threshold is None else [f"{out:,} beyond"]
        labels.append(f"{NULL_NAMES.get(kind, kind)} (n = {n:,}{'; ' if tail else ''}{', '.join(tail)})")
    for kind in panel.expected:
        colour, dash = style.NULL_LINES.get(kind, _OTHER_LINE)
        handles.append(Line2D([], [], color=colour, linestyle=dash, linewidth=1.2))
        labels.append(NULL_NAMES.get(kind, kind))
    ax.figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=3,
        fontsize=7.8,
        handlelength=2.2,
        columnspacing=1.6,
        borderaxespad=0.2,
    )


def _common_legend(figure: Figure, panels: Sequence[ScoreDistribution]) -> None:
    kinds = dict.fromkeys(kind for panel in panels for kind in {**panel.nulls, **panel.expected})
    handles: list[Patch | Line2D] = [
        Patch(color=colour, alpha=alpha, linewidth=0) for _, colour, alpha in _FILLS.values()
    ]
    labels = [name for name, _, _ in _FILLS.values()]
    for kind in kinds:
        colour, dash = style.NULL_LINES.get(kind, _OTHER_LINE)
        handles.append(Line2D([], [], color=colour, linestyle=dash, linewidth=1.0))
        labels.append(_SHORT_NULLS.get(kind, kind))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), fontsize=7.5, handlelength=1.6,
        columnspacing=1.0, borderaxespad=0.1,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------


def evidence(
    cells: pd.DataFrame,
    *,
    score: str = "clone_t",
    label: str = "clone statistic T",
    threshold: float | None = None,
    epithelial_z: float | None = None,
) -> Figure:
    """Three kinds of evidence of every cell, two at a time: burden and lineage, each against the clone statistic.

    Parameters
    ----------
    cells
        One row per cell: ``score``, ``cnv_burden_p``, ``epithelial_z``, ``malignant_class``, ``is_dtc``.
    score, label
        Column with the clone statistic and its name on the axis.
    threshold
        Lowest clone statistic of a called cell.
    epithelial_z
        Score from which on a cell is a tumour candidate.
    """
    with style.language():
        shown = cells[np.isfinite(pd.to_numeric(cells[score], errors="coerce"))]
        if not len(shown):
            return style.sentence_figure("No cell of this patient has a clone statistic to compare with.")
        figure = style.new_figure(style.FULL_WIDTH, 3.0)
        burden, lineage = figure.subplots(1, 2)
        x = shown[score].to_numpy(dtype=np.float64)
        p = shown["cnv_burden_p"].to_numpy(dtype=np.float64)
        with np.errstate(divide="ignore"):
            log_p = np.minimum(-np.log10(p), MAX_LOG_P)
        z = shown["epithelial_z"].to_numpy(dtype=np.float64)
        classes = shown["malignant_class"].astype(str).to_numpy()
        dtc = shown["is_dtc"].to_numpy(dtype=bool)
        names = [*CLASS_NAMES, *sorted(set(classes) - set(CLASS_NAMES))]
        handles, labels = [], []
        for name in names:
            mine = classes == name
            if not mine.any():
                continue
            colour = style.CLASS_COLOURS.get(name, style.OTHER_COLOURS[0])
            marker = style.CLASS_MARKS.get(name, "h")
            for ax, y in ((burden, log_p), (lineage, z)):
                for group, size, edge in ((mine & ~dtc, 9.0, "none"), (mine & dtc, 22.0, style.INK)):
                    keep = group & np.isfinite(y)
                    if keep.any():
                        edges = {} if marker == "x" else {"edgecolors": edge}
                        ax.scatter(
                            *(x[keep], y[keep]),
                            s=size,
                            c=colour,
                            marker=marker,
                            linewidths=0.8 if marker == "x" else 0.5,
                            alpha=0.5 if name == "normal" else 0.85,
                            rasterized=int(mine.sum()) > MAX_VECTOR_POINTS,
                            label=name,
                            **edges,
                        )
            handles.append(Line2D([], [], linestyle="none", marker=marker, markersize=4.5, color=colour))
            labels.append(f"{CLASS_NAMES.get(name, style.plain(name, 30))} ({int(mine.sum()):,})")
        if dtc.any():
            ring = Line2D(
                [], [], linestyle="none", marker="o", markersize=5.5, color="white", markeredgecolor=style.INK
            )
            handles.append(ring)
            labels.append(f"large, outlined: DTC ({int(dtc.sum()):,})")
        for ax in (burden, lineage):
            ax.set_xlabel(label)
            if threshold is not None:
                ax.axvline(threshold, color=style.INK, linewidth=0.8)
        burden.set_ylabel("copy-number burden, −log10 p")
        lineage.set_ylabel("epithelial score (z)")
        burden.set_title("Copy number twice: any change, this clone", fontsize=8.5)
        lineage.set_title("Lineage against copy number", fontsize=8.5)
        if epithelial_z is not None:
            lineage.axhline(epithelial_z, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, fontsize=7.8, handlelength=1.0, columnspacing=1.4
        )
        return figure
