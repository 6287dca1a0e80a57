"""Which cells are the diploid reference of a patient, and whether there are enough of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.contracts import EPITHELIAL, UNKNOWN
from dtcflow.order import stable_order
from dtcflow.qc.loss_audit import epithelial_evidence

MIN_CELLS_PER_TYPE = 20
"""A type with fewer reference cells has no usable mean profile (COPY_NUMBER plan: types with >= 20 cells)."""


@dataclass(frozen=True)
class Reference:
    """Diploid reference cells by cell id: ``types[i]`` is the cell type of row ``rows[i]`` of the cell table."""

    rows: npt.NDArray[np.int64]
    types: npt.NDArray[np.object_]
    counts: dict[str, int]
    """Cells used per type."""
    status: str
    """``ok``, ``no_reference`` or ``small_reference``."""
    note: str
    by_user: bool = False
    """Whether the user's own labels chose the cells: normal cells of the tumour's kind, as far as the user knows."""

    def without(self, suspect: npt.NDArray[np.bool_], *, min_cells: int) -> Reference:
        """The reference without some of its cells; types that become too small leave it."""
        return _settle(self.rows[~suspect], self.types[~suspect], min_cells=min_cells, by_user=self.by_user)


def choose_reference(
    cells: pd.DataFrame,
    *,
    max_per_type: int,
    min_cells: int,
    seed: int,
    epithelial_z: float,
    key: str | None = None,
    labels: Sequence[str] = (),
) -> Reference:
    """Choose the reference among one patient's cells that passed QC.

    A cell qualifies when its annotation is a resident normal type, it carries no epithelial evidence and is not
    flagged as a doublet. Types are capped at ``max_per_type`` cells each, so that no type dominates, and types with
    fewer than 20 cells are left out. With ``key`` the user's own labels decide instead.

    Parameters
    ----------
    cells
        One row per cell: ``cell_id cell_type epithelial_z n_epithelial_markers is_doublet`` (and ``key``).
    max_per_type, min_cells
        Cap per type; smallest total that counts as a reference.
    seed
        Decides which cells of a large type are kept; independent of row order.
    epithelial_z
        From this value on (with two or more markers) a cell is a candidate and never a reference cell.
    key, labels
        Column with the user's labels and the labels that are normal.

    Returns
    -------
    Reference
        Never raises for want of cells: ``status`` says ``no_reference`` or ``small_reference``.
    """
    if key is not None:
        labelled = cells[key].astype(str).to_numpy(dtype=object)
        eligible = np.isin(labelled, list(labels))
        types = labelled
    else:
        types = cells["cell_type"].to_numpy(dtype=object)
        candidate = epithelial_evidence(cells, epithelial_z=epithelial_z).to_numpy(dtype=bool)
        eligible = ~np.isin(types, [EPITHELIAL, UNKNOWN, ""]) & ~candidate & ~cells["is_doublet"].to_numpy(dtype=bool)
    order = stable_order(cells["cell_id"].tolist(), seed=seed)
    rows: list[npt.NDArray[np.int64]] = []
    for cell_type in sorted(set(types[eligible])):
        members = np.flatnonzero(eligible & (types == cell_type))
        rows.append(members[np.argsort(order[members], kind="stable")][:max_per_type])
    chosen = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
    # by id: sums over the reference then round alike however the cells are ordered
    chosen = chosen[np.argsort(cells["cell_id"].to_numpy(dtype=str)[chosen], kind="stable")]
    return _settle(chosen, types[chosen], min_cells=min_cells, by_user=key is not None)


def _settle(rows: npt.NDArray[np.int64], types: npt.NDArray[np.object_], *, min_cells: int, by_user: bool) -> Reference:
    """Drop types that are too small and say whether what is left is enough."""
    names, sizes = np.unique(types.astype(str), return_counts=True)
    counts = {str(name): int(n) for name, n in zip(names, sizes, strict=True) if n >= MIN_CELLS_PER_TYPE}
    keep = np.isin(types, list(counts))
    total = int(keep.sum())
    if total == 0:
        status = "no_reference"
        note = f"no normal type with at least {MIN_CELLS_PER_TYPE} cells; {len(rows)} normal cells in all"
    elif total < min_cells:
        status = "small_reference"
        note = f"{total} reference cells, {min_cells} are needed"
    else:
        status = "ok"
        note = ", ".join(f"{name} {n}" for name, n in counts.items())
    return Reference(rows[keep].astype(np.int64), types[keep], counts, status, note, by_user)
