"""The public results on cells: a table with a row for every input cell, an object with every cell that passed QC.

Nothing is computed here. Side-car tables are joined by ``cell_id`` after their id sets were compared, and whatever does
not fit is an error: a result that silently lacks cells would be worse than none.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.windows import chromosome_starts
from dtcflow.contracts import (
    AMBIENT_CORRECTED,
    CELLS_COLUMNS,
    CNV,
    MALIGNANT_CALLS,
    X_CNV,
    ContractError,
    Problem,
    join_side_car,
)
from dtcflow.merge import tidy_frame

log = logging.getLogger(__name__)

FAILED_QC: Final = "not_assessed:failed_qc"
"""``call_reasons`` of a cell that was removed before it could be called."""
UNASSESSED_CLASS: Final = "unassessable"
EXTRA_COLUMNS: Final = (
    *("is_doublet", "lineage", "malignant_class", "cell_type_margin", "leiden"),
    *("doublet_methods", "arbitration", "p_single", "p_doublet", "p_coated", "doublet_partner", "qc_class"),
)
WINDOW_COLUMNS: Final = ("chromosome", "start", "end", "arm")
_IDENTITY: Final = ("sample_id", "patient_id", "compartment")
_NOT_CALLED: Final[dict[str, str | bool]] = {
    "cell_type": "",
    "malignant_call": "indeterminate",
    "malignant_class": UNASSESSED_CLASS,
    "clone_id": "",
    "call_reasons": FAILED_QC,
    "is_dtc": False,
    "leiden": "",
}


def assemble_cells(
    qc_cells: Sequence[pd.DataFrame],
    annotation: pd.DataFrame,
    calls: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    primary_scores: Sequence[str],
) -> pd.DataFrame:
    """Join everything known about each cell into the public ``cells`` table.

    Parameters
    ----------
    qc_cells
        The ``qc_cells`` table of every sample: all cells, removed ones too.
    annotation, calls, scores
        Tables of exactly the cells that passed QC.
    primary_scores
        Columns of ``scores`` that the table shows.

    Returns
    -------
    DataFrame
        One row per input cell in the order of ``qc_cells``: the contract's columns, the primary scores, then
        ``is_doublet``, ``lineage``, ``malignant_class``, ``cell_type_margin``, ``leiden``, the arbitration (which
        methods call the cell a doublet; single, doublet or coated, with three probabilities) and ``qc_class``. A cell
        that failed QC was not assessed: it has no cell type, its call is ``indeterminate`` with the reason
        ``not_assessed:failed_qc``, and its numbers are missing, not zero.

    Raises
    ------
    ContractError
        A table that lacks cells or has others, a missing score column, an unknown call, or an ``is_dtc`` that
        is not "malignant and from marrow".
    """
    cells = pd.concat([table.reset_index(drop=True) for table in qc_cells], ignore_index=True)
    _check_scores(scores, primary_scores, taken={*CELLS_COLUMNS, *EXTRA_COLUMNS})
    passed = cells.loc[cells["pass_qc"].to_numpy(dtype=bool), ["cell_id", *_IDENTITY]]
    annotation = annotation.rename(columns={"cluster": "leiden"})
    if "leiden" in annotation.columns:  # a cluster is a name, not a number
        annotation = annotation.assign(leiden=annotation["leiden"].astype(str))
    joined = join_side_car(passed, annotation, name="annotation")
    joined = join_side_car(joined, calls, name="calls")
    joined = join_side_car(joined, scores[["cell_id", *primary_scores]], name="scores")
    _check_calls(joined)
    cells = join_side_car(cells, joined, name="cells that passed QC", how="subset")
    removed = ~cells["pass_qc"].to_numpy(dtype=bool)
    for column, value in _NOT_CALLED.items():
        if column not in cells.columns:
            cells[column] = "" if isinstance(value, str) else value
        shown = cells[column].astype(object)
        shown[removed] = value
        cells[column] = shown
    cells["is_dtc"] = cells["is_dtc"].astype(bool)
    log.info("%d cells, %d of them removed by QC and not assessed", len(cells), int(removed.sum()))
    present = [column for column in EXTRA_COLUMNS if column in cells.columns]
    return cells[[*CELLS_COLUMNS, *primary_scores, *present]].reset_index(drop=True)


def _check_scores(scores: pd.DataFrame, primary: Sequence[str], *, taken: set[str]) -> None:
    problems = [
        Problem("scores", f"columns {', '.join(map(str, scores.columns[:40]))}", f"column {name}",
                "rerun rule score_signatures", key=name)
        for name in primary
        if name not in scores.columns
    ] + [
        Problem("scores", f"a signature called {name}", "a name that is no column of the cells table",
                "rename the signature", key=name)
        for name in primary
        if name in taken
    ]  # fmt: skip
    if problems:
        raise ContractError("The primary scores do not fit the cells table", problems)


def _check_calls(cells: pd.DataFrame) -> None:
    call = cells["malignant_call"].astype(str)
    if unknown := sorted(set(call) - set(MALIGNANT_CALLS)):
        raise ContractError(f"calls: malignant_call {unknown[0]!r} is none of {', '.join(MALIGNANT_CALLS)}")
    dtc = (call == "malignant") & (cells["compartment"].astype(str) == "marrow")
    wrong = dtc.to_numpy() != cells["is_dtc"].to_numpy(dtype=bool)
    if wrong.any():
        example = cells.loc[wrong, "cell_id"].iloc[0]
        raise ContractError(
            f"calls: is_dtc must be true for malignant cells of marrow samples and only for them; {int(wrong.sum())} "
            f"cells differ, for example {example!r}"
        )


def assemble_cohort(
    embedded: ad.AnnData,
    cells: pd.DataFrame,
    cnv: Iterable[ad.AnnData],
    *,
    provenance: Mapping[str, Any],
    ambient: Iterable[ad.AnnData] = (),
) -> ad.AnnData:
    """Put every annotation of the cells that passed QC into one object (stage ``cohort``).

    Parameters
    ----------
    embedded
        Stage ``embedding``.
    cells
        Result of :func:`assemble_cells`; its rows with ``pass_qc`` must be exactly the cells of ``embedded``.
    cnv
        Stage ``cnv`` of each patient; may be a generator, one is held at a time.
    provenance
        Anything JSON can hold; stored as JSON text in ``uns["provenance"]``, so that keys with slashes, missing and
        mixed values survive.
    ambient
        Stage ``ambient`` of every sample, one held at a time; none: the cohort has no such layer.

    Returns
    -------
    AnnData
        ``obs``: all columns of ``cells``, then those of ``embedded`` (a matrix's own column with the name of one of
        ours gets the prefix ``input_``). ``obsm["X_cnv"]`` float32, cells x windows, NaN for cells without windows;
        without any window cells x 0; ``uns["cnv"]["chr_pos"]`` is the first window of each chromosome, as
        ``infercnvpy.pl.chromosome_heatmap`` wants it. With ``ambient``, ``layers["ambient_corrected"]`` holds the
        counts expected without ambient RNA and ``uns["ambient"]`` each sample's status. Other layers are shared with
        ``embedded``.

    Raises
    ------
    ContractError
        Cells, samples or windows that do not agree between the parts.
    """
    names = embedded.obs_names.astype(object)
    wanted = pd.DataFrame({"cell_id": names})
    obs = join_side_car(wanted, cells[cells["pass_qc"].to_numpy(dtype=bool)], name="cells table").set_index("cell_id")
    for column in embedded.obs.columns:
        own = embedded.obs[column].set_axis(obs.index)
        if column in _IDENTITY:
            differ = own.astype(str).to_numpy() != obs[column].astype(str).to_numpy()
            if differ.any():
                raise ContractError(
                    f"{column} of cell {names[differ][0]!r} is {own[differ].iloc[0]!r} in the embedding and "
                    f"{obs.loc[differ, column].iloc[0]!r} in the cells table; rerun rule embed_cohort"
                )
        elif column == "leiden" or column not in obs.columns:
            obs[column] = own
        else:
            obs[f"input_{column}"] = own
    x_cnv, windows = _windows_of_all(names, cnv)
    cohort = ad.AnnData(
        X=None,
        obs=tidy_frame(obs),
        var=tidy_frame(embedded.var),
        layers=dict(embedded.layers),
        obsm=dict(embedded.obsm),
        varm=dict(embedded.varm),
        obsp=dict(embedded.obsp),
        uns=dict(embedded.uns),
    )
    corrected, statuses = _corrected_of_all(names, embedded.var_names.astype(object), ambient)
    if corrected is not None:
        cohort.layers[AMBIENT_CORRECTED] = corrected
        cohort.uns["ambient"] = json.dumps(statuses, sort_keys=True)
    cohort.obsm[X_CNV] = x_cnv
    cohort.uns["cnv_windows"] = windows
    cohort.uns[CNV] = {"chr_pos": chromosome_starts(windows)}
    cohort.uns["provenance"] = json.dumps(dict(provenance), sort_keys=True, default=str)
    return cohort


def _windows_of_all(names: pd.Index, cnv: Iterable[ad.AnnData]) -> tuple[npt.NDArray[np.float32], pd.DataFrame]:
    """Copy-number windows of all patients in the order of ``names``, and where the windows lie."""
    values: npt.NDArray[np.float32] | None = None
    windows = pd.DataFrame({column: pd.Series(dtype=object) for column in WINDOW_COLUMNS})
    seen = np.zeros(len(names), dtype=bool)
    for patient in cnv:
        label = _patient(patient)
        part: Any = patient.obsm[X_CNV]
        rows = names.get_indexer(patient.obs_names.astype(object))
        if (rows < 0).any():
            raise ContractError(
                f"copy number of {label}: cell {patient.obs_names[rows < 0][0]!r} is not among the cells that passed "
                "QC; rerun rule infer_copy_number"
            )
        if seen[rows].any():
            raise ContractError(
                f"copy number of {label}: cell {names[rows[seen[rows]]][0]!r} belongs to another patient"
            )
        seen[rows] = True
        if not part.shape[1]:
            continue
        own = _window_table(patient, label, part.shape[1])
        if values is None:
            values, windows = np.full((len(names), part.shape[1]), np.nan, dtype=np.float32), own
        elif not own.equals(windows):
            raise ContractError(
                f"copy number of {label}: its {len(own)} windows are not the {len(windows)} windows of the patients "
                "before; all patients must be smoothed over the same genes; rerun rule infer_copy_number"
            )
        values[rows] = part.toarray() if hasattr(part, "toarray") else np.asarray(part)
    if values is None:
        values = np.zeros((len(names), 0), dtype=np.float32)
    without = int(np.isnan(values).all(axis=1).sum()) if values.shape[1] else len(names)
    log.info("copy-number windows: %d; cells without them: %d of %d", values.shape[1], without, len(names))
    return values, windows


def _corrected_of_all(
    names: pd.Index, genes: pd.Index, ambient: Iterable[ad.AnnData]
) -> tuple[sp.csr_matrix | None, dict[str, Any]]:
    """Corrected counts of all samples in the order of ``names`` and ``genes``, and each sample's status."""
    parts, places, statuses = [], [], {}
    for sample in ambient:
        part = sp.csr_matrix(sample.layers[AMBIENT_CORRECTED], dtype=np.float32)
        rows = names.get_indexer(sample.obs_names.astype(object))
        columns = genes.get_indexer(sample.var_names.astype(object))
        if (rows < 0).any() or (columns < 0).any():
            kind, what = (
                ("cell", sample.obs_names[rows < 0]) if (rows < 0).any() else ("gene", sample.var_names[columns < 0])
            )
            raise ContractError(
                f"corrected counts: {kind} {what[0]!r} is not in the cohort; rerun rules correct_ambient, embed_cohort"
            )
        wide = sp.csr_matrix(
            (part.data, columns.astype(np.int32)[part.indices], part.indptr), shape=(part.shape[0], len(genes))
        )
        parts.append(wide)
        places.append(rows)
        if len(rows):
            statuses[str(sample.obs_names[0]).split(":", 1)[0]] = {
                k: _plain(v) for k, v in sample.uns["ambient"].items()
            }
    if not parts:
        return None, {}
    place = np.concatenate(places)
    if place.size != len(names) or np.unique(place).size != place.size:
        raise ContractError(
            f"corrected counts of {np.unique(place).size} cells, {len(names)} passed QC; rerun rule correct_ambient"
        )
    corrected = sp.csr_matrix(sp.vstack(parts, format="csr")[np.argsort(place)])
    corrected.sort_indices()
    return corrected, statuses


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _patient(cnv: ad.AnnData) -> str:
    if cnv.n_obs and "patient_id" in cnv.obs:
        return f"patient {cnv.obs['patient_id'].iloc[0]}"
    return f"the patient of cell {cnv.obs_names[0]!r}" if cnv.n_obs else "a patient without cells"


def _window_table(cnv: ad.AnnData, label: str, n_windows: int) -> pd.DataFrame:
    table = pd.DataFrame(cnv.uns["cnv_windows"])
    missing = [column for column in WINDOW_COLUMNS if column not in table.columns]
    if missing or len(table) != n_windows:
        raise ContractError(
            f"copy number of {label}: uns['cnv_windows'] has {len(table)} rows and columns "
            f"{', '.join(map(str, table.columns))}; "
            f"obsm['{X_CNV}'] has {n_windows} windows, which need the columns {', '.join(WINDOW_COLUMNS)}"
        )
    return pd.DataFrame(
        {
            "chromosome": table["chromosome"].astype(str).to_numpy(dtype=object),
            "start": table["start"].to_numpy(dtype=np.int64),
            "end": table["end"].to_numpy(dtype=np.int64),
            "arm": table["arm"].astype(str).to_numpy(dtype=object),
        }
    )
