r"""Copy number of every sample and clone as segments for IGV, in the SEG format.

Stage ``cnv`` holds statistics of segments of some forty genes. Neighbouring ones of an arm are joined by optimal
partitioning (Jackson et al. 2005, IEEE Signal Process Lett 12:105): the partition minimises

.. math:: \sum_j w_j (x_j - m_{s(j)})^2 + \beta\,(\text{number of breakpoints}), \qquad w_j = 1 / \mathrm{se}_j^2,

with :math:`\beta = 3 \log n` for :math:`n` segments of the genome: a breakpoint is a place and a level, and the place
costs twice the level (the leading term of the modified BIC of Zhang & Siegmund 2007, Biometrics 63:22). A
piece reaches from its first gene to its last. Arms that cannot be assessed have no segment: IGV leaves them white, and
a reader of the file must not take them for neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.cnv.clone_arms import clone_arm_table
from dtcflow.cnv.null import Floats
from dtcflow.cnv.packed import unpack_segments
from dtcflow.cnv.profile import MIN_RELATIVE_CHANGE
from dtcflow.contracts import TABLES

Bools = npt.NDArray[np.bool_]

BREAKPOINT_PENALTY: Final = 3.0
"""Times the logarithm of the number of segments of the genome."""


def clone_groups(calls: pd.DataFrame) -> list[tuple[str, str, Bools]]:
    """Cells of every sample and clone, and of all clones of a sample (``all``) where it has more than one."""
    sample = calls["cell_id"].astype(str).str.split(":", n=1).str[0].to_numpy(dtype=object)
    clone = calls["clone_id"].astype(str).to_numpy(dtype=object)
    groups = []
    for name in sorted(set(sample.tolist())):
        inside = (sample == name) & (clone != "")
        present = sorted(set(clone[inside].tolist()))
        groups += [(name, k, inside & (clone == k)) for k in present]
        if len(present) > 1:
            groups.append((name, "all", inside))
    return groups


def clone_track(packed: ad.AnnData, members: Bools) -> pd.DataFrame:
    """Measured log ratio of a group of cells per segment (stage ``cnv``), centred on its median.

    Returns
    -------
    pandas.DataFrame
        ``chromosome start end arm n_genes log_ratio se``; segments without information have NaN.
    """
    statistics, inflation, tau, segments = unpack_segments(packed)
    u, info = (part[members].sum(axis=0) for part in (statistics.full.u, statistics.full.info))
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.where(info > 0, u / info, np.nan)
        se = np.where(info > 0, np.sqrt(inflation / info + tau**2), np.nan)
    track = segments[["chromosome", "start", "end", "arm", "n_genes"]].reset_index(drop=True)
    centre = np.nanmedian(log_ratio) if np.isfinite(log_ratio).any() else 0.0
    return track.assign(log_ratio=log_ratio - centre, se=se)


def partition(values: Floats, weights: Floats, penalty: float) -> list[slice]:
    """Cut a sequence into pieces of constant level at the least weighted squares plus ``penalty`` per cut.

    Parameters
    ----------
    values, weights
        One entry per segment in genome order; a weight is the inverse variance of its value.
    penalty
        Cost of a breakpoint, in units of chi-squared.

    Returns
    -------
    list of slice
        The pieces, in order; exact (dynamic programming over all partitions).
    """
    n = len(values)
    if n == 0:
        return []
    sum_w, sum_wx, sum_wxx = (
        np.concatenate([[0.0], np.cumsum(part)]) for part in (weights, weights * values, weights * values**2)
    )
    best = np.zeros(n + 1)
    best[0] = -penalty
    previous = np.zeros(n + 1, dtype=np.int64)
    for end in range(1, n + 1):
        w = np.maximum(sum_w[end] - sum_w[:end], 1e-12)
        cost = sum_wxx[end] - sum_wxx[:end] - np.square(sum_wx[end] - sum_wx[:end]) / w
        total = best[:end] + np.maximum(cost, 0.0) + penalty
        previous[end] = int(np.argmin(total))
        best[end] = total[previous[end]]
    cuts = [n]
    while cuts[-1] > 0:
        cuts.append(int(previous[cuts[-1]]))
    cuts.reverse()
    return [slice(first, last) for first, last in pairwise(cuts)]


def fitted_segments(track: pd.DataFrame) -> pd.DataFrame:
    """Piecewise-constant copy number of a track with standard errors, no piece across a centromere.

    Returns
    -------
    pandas.DataFrame
        ``chromosome start end arm n_genes log_ratio``, in the order of ``track``.
    """
    known = track[np.isfinite(track["log_ratio"].to_numpy(dtype=float)) & np.isfinite(track["se"].to_numpy(float))]
    penalty = BREAKPOINT_PENALTY * float(np.log(max(len(known), 2)))
    rows = []
    for arm, part in known.groupby("arm", sort=False):
        value, weight = part["log_ratio"].to_numpy(dtype=float), 1.0 / np.square(part["se"].to_numpy(dtype=float))
        for piece in partition(value, weight, penalty):
            inside = part.iloc[piece]
            level = float(np.average(value[piece], weights=weight[piece]))
            first, last = int(inside["start"].min()), int(inside["end"].max())
            genes = int(inside["n_genes"].sum())
            rows.append((str(inside["chromosome"].iloc[0]), first, last, str(arm), genes, level))
    return pd.DataFrame(rows, columns=["chromosome", "start", "end", "arm", "n_genes", "log_ratio"])


def patient_segments(packed: ad.AnnData, calls: pd.DataFrame, *, effect: float, build: str = "GRCh38") -> pd.DataFrame:
    """Segments of every sample and clone of a patient, columns as IGV expects them.

    Returns
    -------
    pandas.DataFrame
        ``ID chrom loc.start loc.end num.mark seg.mean``: ``ID`` is ``sample:clone``, coordinates are 1-based and
        inclusive, ``num.mark`` is the number of genes and ``seg.mean`` the log2 ratio of expression to the reference,
        relative to the clone's median. Arms that are not assessable are left out.
    """
    calls = calls.set_index("cell_id", drop=False).loc[list(packed.obs_names)].reset_index(drop=True)
    statistics, inflation, tau, _ = unpack_segments(packed)
    tables = []
    for sample, clone, members in clone_groups(calls) if len(statistics.full.arms) else []:
        if clone == "all":
            continue
        table = clone_arm_table(statistics[members], inflation=inflation, tau=tau, min_abs_log_ratio=effect)
        table = table[(table["state"] != "not_assessable") & np.isfinite(table["log_ratio"])]
        pieces = fitted_segments(clone_track(packed, members))
        pieces = pieces[pieces["arm"].isin(list(table.index))]
        tables.append(_as_seg(pieces, f"{sample}:{clone}"))
    return stack_segments(tables)


def _as_seg(pieces: pd.DataFrame, name: str) -> pd.DataFrame:
    change = pieces["log_ratio"].to_numpy(dtype=float)
    columns: Mapping[str, Any] = {
        "ID": name,
        "chrom": pieces["chromosome"].astype(object).to_numpy(),
        "loc.start": pieces["start"].to_numpy(dtype=np.int64),
        "loc.end": pieces["end"].to_numpy(dtype=np.int64),
        "num.mark": pieces["n_genes"].to_numpy(dtype=np.int64),
        # what is pooled is the relative change of expression
        "seg.mean": np.round(np.log2(1.0 + np.maximum(change, MIN_RELATIVE_CHANGE)), 4),
    }
    return pd.DataFrame(columns, index=range(len(pieces)))


def stack_segments(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Segments of several patients as one table; only the header when there are none."""
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame({column: pd.Series([], dtype=object) for column in TABLES["segments"]})
    return pd.concat(filled, ignore_index=True)
