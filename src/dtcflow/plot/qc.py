"""Quality control: what happened to the cells of each sample."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dtcflow.plot import style

KEPT: Final = "kept"
SEVERAL: Final = "several reasons"
_REASON_COLOURS: Final = (
    *(style.ORANGE, style.PURPLE, "#882255", style.SKY, "#999933", style.GREEN, "#332288", "#661100"),
)


def waterfall_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Count the cells of each sample by fate.

    Parameters
    ----------
    cells
        Table ``cells``: ``sample_id``, ``pass_qc``, ``qc_reasons`` (``a;b``).

    Returns
    -------
    Index ``sample_id``; first column ``kept``, then one column per reason, most frequent first, then
    ``several reasons``. A cell is counted once: rows add up to the cells of the sample.
    """
    passed = cells["pass_qc"].to_numpy(dtype=bool)
    reasons = cells["qc_reasons"].fillna("").astype(str)
    fate = np.where(reasons.str.contains(";"), SEVERAL, np.where(reasons == "", "no reason recorded", reasons))
    fate = np.where(passed, KEPT, fate)
    table = pd.crosstab(cells["sample_id"].astype(str).to_numpy(), fate)
    total = table.sum()
    middle = sorted((name for name in table.columns if name not in (KEPT, SEVERAL)), key=lambda n: (-total[n], n))
    table = table.reindex(columns=[KEPT, *middle, SEVERAL], fill_value=0)
    table.index.name, table.columns.name = "sample_id", None
    return table


def waterfall(table: pd.DataFrame, evidence_lost: pd.Series[int] | None = None) -> Figure:
    """One bar per sample: share of its cells kept, and removed by reason.

    Parameters
    ----------
    table
        From :func:`waterfall_table`.
    evidence_lost
        Per sample, removed cells that carry tumour evidence (from the loss audit); ``None``: no audit.
    """
    with style.language():
        if len(table) == 0:
            return style.sentence_figure("No cell was read, so there is nothing to filter.")
        n = len(table)
        figure = style.new_figure(style.FULL_WIDTH, 1.25 + 0.27 * n)
        ax = figure.add_subplot()
        y = np.arange(n)
        total = table.sum(axis=1).to_numpy(dtype=float)
        reasons = [name for name in table.columns if name != KEPT and table[name].sum() > 0]
        colours = {KEPT: "#c9d6e2"}
        colours.update({name: _REASON_COLOURS[i % len(_REASON_COLOURS)] for i, name in enumerate(reasons)})
        colours[SEVERAL] = "#4a5563"
        left = np.zeros(n)
        for name in (KEPT, *reasons):
            share = 100 * table[name].to_numpy(dtype=float) / np.maximum(total, 1)
            ax.barh(y, share, left=left, height=0.72, color=colours[name], edgecolor="white", linewidth=0.6)
            left += share
        ax.set_yticks(y, [style.plain(name, 28) for name in table.index])
        ax.invert_yaxis()
        ax.margins(y=0.02)
        ax.set_xlim(0, 100)
        ax.set_xlabel("cells of the sample (%)")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        for i, sample in enumerate(table.index):
            note = f"{int(table.loc[sample, KEPT]):,} of {int(total[i]):,} kept"
            if evidence_lost is not None:
                lost = int(evidence_lost.get(sample, 0))
                if lost:
                    note += f"; {lost:,} removed with tumour evidence"
            ax.text(
                1.01,
                y[i],
                note,
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=8,
                color=style.VERDICT_COLOURS["NOT_SUPPORTED"] if "removed with" in note else style.MUTED,
            )
        style.legend(
            ax,
            [Patch(color=colours[name]) for name in (KEPT, *reasons)],
            [KEPT, *(name.replace("_", " ") for name in reasons)],
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=min(len(reasons) + 1, 6),
            fontsize=8,
            handlelength=1,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
        return figure
