"""The per-cell tables of a run, joined on cell ids for the step that needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.contracts import MALIGNANT_DOUBLET, ContractError, join_side_car, read_table
from dtcflow.merge import merge_samples
from dtcflow.scores.signatures import GeneSet


def passed_cells(qc_cells: Sequence[str | Path], side_cars: Mapping[str, str | Path]) -> pd.DataFrame:
    """Cells that passed QC, with their side-car tables.

    Parameters
    ----------
    qc_cells
        ``qc_cells`` table of every sample, in the order of the result.
    side_cars
        Table name (an entry of :data:`dtcflow.contracts.TABLES`) to path; each must hold all these cells. Cells of
        other samples in a side-car are left out.
    """
    tables = [read_table(path, "qc_cells") for path in qc_cells]
    cells = pd.concat(tables, ignore_index=True)
    cells = cells[cells["pass_qc"].to_numpy(dtype=bool)].reset_index(drop=True)
    samples = {str(sample) for table in tables for sample in table["sample_id"]}
    for name, path in side_cars.items():
        side_car = read_table(path, name)
        of_these = side_car["cell_id"].astype(str).str.split(":", n=1).str[0].isin(samples)
        cells = join_side_car(cells, side_car[of_these.to_numpy(dtype=bool)], name=str(path))
    return cells


def patient_cells(
    matrices: Sequence[str | Path],
    qc_cells: Sequence[str | Path],
    annotation: str | Path,
    genes: str | Path,
    *,
    reference_key: str | None = None,
) -> tuple[ad.AnnData, pd.DataFrame]:
    """Counts and cell table of one patient, rows in the same order.

    ``reference_key`` names a column of the user's own ``obs``, which intake keeps as ``input_<name>``; it is added to
    the cell table under its own name, empty where a sample does not have it.
    ``genes`` is the gene table of the cohort (``symbol in_all_samples``): a gene that another patient's sample did not
    measure is marked, so that every patient's copy-number windows are made of the same genes.
    """
    adata = merge_samples(list(matrices), list(qc_cells))
    cells = passed_cells(qc_cells, {"annotation": annotation})
    if list(adata.obs_names) != cells["cell_id"].tolist():
        cells = cells.set_index("cell_id", drop=False).loc[list(adata.obs_names)].reset_index(drop=True)
    shared = read_table(genes).set_index("symbol")["in_all_samples"]
    if missing := set(adata.var_names) - set(shared.index):
        raise ContractError(f"{genes} lacks {len(missing)} genes of this patient; rerun rule embed_cohort")
    adata.var["in_all_samples"] = shared.loc[list(adata.var_names)].astype(str).str.lower().eq("true").to_numpy()
    if reference_key is not None:
        kept = f"input_{reference_key.removeprefix('input_').replace('/', '_')}"
        labels = adata.obs[kept].astype(object) if kept in adata.obs else pd.Series("", index=adata.obs_names)
        cells[reference_key] = labels.where(labels.notna(), "").astype(str).to_numpy(dtype=object)
    return adata, cells


def single_malignant(cells: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which cells are malignant and alone in their droplet: what expression and genome of a tumour are measured on.

    Parameters
    ----------
    cells
        With ``malignant_call`` and, where the calls table is joined, ``malignant_class``.
    """
    malignant = (cells["malignant_call"] == "malignant").to_numpy(dtype=bool)
    if "malignant_class" not in cells:
        return malignant
    return np.asarray(malignant & (cells["malignant_class"] != MALIGNANT_DOUBLET).to_numpy(dtype=bool))


SHOWN_ROLES = ("primary", "confirmatory", "progenitor", "dormancy")


def shown_scores(panel: Sequence[GeneSet], scores: pd.DataFrame) -> list[str]:
    """Score columns of the public cell table: the panel's sets with a voting or confirming role that were scored."""
    return [s.name for s in panel if s.role in SHOWN_ROLES and s.name in scores.columns]
