"""Take technical and cell-cycle covariates out of a score, with a model that has seen reference cells only."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtcflow.evidence.contrasts import Floats, GroupValues, Layout, average, group_values
from dtcflow.evidence.plan import CELL_COVARIATES, Claim
from dtcflow.evidence.scoring import Scored

MIN_KNOWN = 0.9
"""Share of cells whose mitochondrial percentage must be known for it to be a covariate."""


def residualise(z: Floats, covariates: Floats, patient: NDArray[np.int64], reference: NDArray[np.bool_]) -> Floats:
    """Subtract what the covariates predict of a score.

    Slopes come from reference cells alone, centred within their patient; every cell of a patient is then moved by its
    distance from that patient's reference mean. A model that saw the other compartment would take out the very
    difference the claim is about wherever a covariate differs between compartments.

    A score is a noisy measure of its programme, and the slope on a noisy covariate is too small: the adjustment takes
    out less than the programme put in. It can show that an effect is *not* independent; surviving it is no proof that
    it is.

    Parameters
    ----------
    z
        Score per cell; cells without a score stay without.
    covariates
        Cells x covariates.
    patient
        Patient of each cell; in an unpaired contrast its study, because a patient then has one side only.
    reference
        Cells the model is fitted on.

    Returns
    -------
    numpy.ndarray
        Residual score per cell, same level as ``z`` for a cell at its patient's reference mean.
    """
    centred = np.zeros_like(covariates)
    y = np.zeros_like(z)
    usable = reference & np.isfinite(z)
    for p in np.unique(patient):
        own = patient == p
        base = own & usable
        if base.any():
            centred[own] = covariates[own] - covariates[base].mean(axis=0)
            y[own] = z[own] - z[base].mean()
    spread = centred[usable].std(axis=0) if usable.any() else np.zeros(covariates.shape[1])
    varying = spread > 1e-8
    if not varying.any():
        return z.copy()
    x = centred[:, varying] / spread[varying]
    slopes = np.linalg.lstsq(x[usable], y[usable], rcond=1e-8)[0]
    return np.asarray(z - x @ slopes, dtype=float)


def adjusted_values(
    claim: Claim, layout: Layout, scored: Scored, cells: pd.DataFrame, *, trim: float
) -> tuple[GroupValues | None, tuple[str, ...], tuple[str, ...]]:
    """Values per patient and side of the primary score after adjustment, averaged over depth repeats.

    Parameters
    ----------
    cells
        Rows of the cell table in the order of ``layout.table`` (for ``pct_mt``).

    Returns
    -------
    tuple
        The values (None when the primary score or every covariate is missing), covariates used, covariates missing.
    """
    column = scored.column(claim.primary_signature)
    used: list[str] = []
    missing: list[str] = []
    for name in claim.covariates:
        if name in CELL_COVARIATES:
            there = name != "pct_mt" or (
                "pct_mt" in cells and pd.to_numeric(cells["pct_mt"]).notna().mean() >= MIN_KNOWN
            )
        else:
            there = scored.column(name) is not None
        (used if there else missing).append(name)
    if column is None or not used:
        return None, tuple(used), tuple(missing)
    parts = []
    for z, depth in zip(scored.matched, scored.depth, strict=True):
        columns = []
        for name in used:
            if name == "pct_mt":
                share = pd.to_numeric(cells["pct_mt"])
                # the few unknown values take the patient's median, which adjusts nothing for them
                share = share.fillna(share.groupby(layout.patient).transform("median")).fillna(share.median())
                columns.append(share.to_numpy(dtype=float))
            elif name in CELL_COVARIATES:
                columns.append(depth[:, CELL_COVARIATES.index(name)])
            else:
                at = scored.column(name)
                assert at is not None
                columns.append(np.nan_to_num(z[:, at]))
        residual = residualise(z[:, column], np.column_stack(columns), layout.block, layout.side == 1)
        parts.append(group_values(residual[:, None], layout, trim=trim))
    return average(parts), tuple(used), tuple(missing)
