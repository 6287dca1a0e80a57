"""The data contract: every key, column, dtype and code that crosses a stage boundary.

This module imports nothing else of the package. Whatever two stages must agree on is written here once;
:func:`read_stage` / :func:`write_stage` and :func:`read_table` / :func:`write_table` check it in both directions.

Files are written to a temporary neighbour and renamed, so that a killed job never leaves a half-written
result that looks finished, and byte for byte the same whenever the content is the same.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

# ---------------------------------------------------------------------------------------------------------------------
# Vocabulary
# ---------------------------------------------------------------------------------------------------------------------

COUNTS: Final = "counts"
"""``layers`` key of the raw, integer-valued counts (CSR)."""
LOGNORM: Final = "lognorm"
"""``layers`` key of log1p counts per 10,000 (CSR, float32)."""
AMBIENT_CORRECTED: Final = "ambient_corrected"
"""``layers`` key of the counts expected without ambient RNA (CSR, float32); beside the counts, never instead."""
AMBIENT_COUNT: Final = "ambient_count"
"""``var`` column of a sample with an unfiltered matrix: counts of the gene summed over its empty droplets."""
X_CNV: Final = "X_cnv"
"""``obsm`` key of the smoothed copy-number windows."""
CNV: Final = "cnv"
"""``uns`` key of what infercnvpy keeps beside them: ``chr_pos``, the first window of each chromosome."""

COMPARTMENTS: Final = (
    "marrow",
    "primary",
    "blood",
    "metastasis",
    "normal_breast",
    "normal_marrow",
    "normal_blood",
)
NORMAL_COMPARTMENTS: Final = ("normal_breast", "normal_marrow", "normal_blood")
HAEMATOPOIETIC_COMPARTMENTS: Final = ("marrow", "blood", "normal_marrow", "normal_blood")
"""Compartments whose resident cells are blood cells: an epithelial cell in them is a finding."""

EPITHELIAL: Final = "epithelial"
UNKNOWN: Final = "unknown"
HAEMATOPOIETIC_TYPES: Final = (
    "T_NK",
    "B",
    "plasma",
    "monocyte",
    "dendritic",
    "neutrophil",
    "erythroid",
    "megakaryocyte",
    "HSPC",
    "mast",
)
STROMAL_TYPES: Final = ("fibroblast", "endothelial", "pericyte")
CELL_TYPES: Final = (*HAEMATOPOIETIC_TYPES, *STROMAL_TYPES, EPITHELIAL, UNKNOWN)

MalignantCall = Literal["malignant", "normal", "indeterminate"]
MALIGNANT_CALLS: Final = ("malignant", "normal", "indeterminate")
MALIGNANT_DOUBLET: Final = "malignant_doublet"
"""``malignant_class`` of a droplet with a tumour cell and another cell: a finding, no measurement of a tumour cell."""
Verdict = Literal["SUPPORTED", "NOT_SUPPORTED", "INCONCLUSIVE"]
VERDICTS: Final = ("SUPPORTED", "NOT_SUPPORTED", "INCONCLUSIVE")
CODES: Final = {
    "LOW_N": "fewer paired patients than the rule asks for",
    "LOW_CELLS": "too few cells per patient and compartment",
    "LOW_COVERAGE": "too few genes of the signature measured or detected",
    "LOW_QUALITY": "cells too shallow for this score",
    "CONTAMINATION": "the haematopoietic control shows the same effect",
    "CONFOUNDED": "compartment cannot be told from study, platform or batch",
    "IMPRECISE": "confidence interval wider than the smallest effect of interest",
    "FRAGILE": "the result depends on one patient or one analysis choice",
    "NO_DATA": "a field that the claim needs is absent",
    "NOT_EVALUATED": "the analysis plan names this claim, this version does not test it",
    "GATE_FAILED": "the malignant-identity gate C0 was not passed",
    "NO_EFFECT_SHOWN": "neither support nor refutation: the test did not reach its threshold",
    "GENE_SET_NULL": "random gene sets of the same kind show as much",
    "NOT_ROBUST_TO_COVARIATES": "the effect goes away when technical covariates are adjusted for",
    "NO_TUMOUR_CELLS": "no malignant cell was called",
    "DOUBTFUL_IDENTITY": "samples of two patients of the claim hold the same cells",
}
ARM_STATES: Final = ("gain", "loss", "neutral", "not_assessable")

# ---------------------------------------------------------------------------------------------------------------------
# Tables: column order is part of the contract. Extra columns may follow.
# ---------------------------------------------------------------------------------------------------------------------

CELLS_COLUMNS: Final = (
    *("cell_id", "sample_id", "patient_id", "compartment", "pass_qc", "qc_reasons", "n_counts", "n_genes"),
    *("pct_mt", "doublet_score", "ambient_fraction", "cell_type", "epithelial_z", "cnv_burden_q", "clone_llr"),
    *("malignancy_q", "malignant_call", "clone_id", "call_reasons", "is_dtc"),
)

TABLES: Final[dict[str, tuple[str, ...]]] = {
    "cells": CELLS_COLUMNS,
    "qc_cells": (
        *("cell_id", "sample_id", "patient_id", "compartment", "pass_qc", "qc_reasons", "n_counts", "n_genes"),
        *("pct_mt", "pct_ribo", "pct_hb", "log10_genes_per_count", "doublet_score", "is_doublet"),
        *("ambient_fraction", "epithelial_z", "n_epithelial_markers", "lineage", "doublet_methods"),
        *("arbitration", "p_single", "p_doublet", "p_coated", "doublet_partner", "qc_class", "lineage_z"),
    ),
    "annotation": ("cell_id", "cell_type", "cell_type_margin", "runner_up", "cell_type_source"),
    "cnv_cells": (
        *("cell_id", "cnv_status", "is_reference", "cnv_burden", "cnv_burden_p", "cnv_burden_q", "clone_llr"),
        *("clone_llr_p", "n_arms_altered", "cnv_score_infercnvpy", "clone_t", "clone_decoy_q"),
    ),
    "calls": (
        *("cell_id", "cnv_burden_q", "clone_llr", "malignancy_q", "malignant_call", "malignant_class"),
        *("clone_id", "call_reasons", "is_dtc"),
    ),
    "arms": (
        *("patient_id", "sample_id", "clone_id", "arm", "log_ratio", "ci_low", "ci_high", "q_value", "state"),
        *("n_cells", "n_genes", "power", "smallest_detectable"),
    ),
    # a sample and clone each, against the tumour's known copy number, on chromosome arms and on 1 Mb bins
    "comparison": (
        *("patient_id", "sample_id", "clone_id", "resolution", "n_cells", "profile_format", "profile_values"),
        *("n_regions", "n_gain", "n_loss", "n_neutral", "pearson", "spearman", "auc_gain", "auc_loss", "f1"),
        *("f1_gain", "f1_loss", "rmse_neutral", "offset", "dosage_slope"),
    ),
    # SEG for IGV: the names of the format, not ours
    "segments": ("ID", "chrom", "loc.start", "loc.end", "num.mark", "seg.mean"),
    "clones": (
        *("patient_id", "clone_id", "n_cells", "n_dtc", "status", "gains", "losses", "support"),
        *("parent", "trunk_events", "branch_events", "n_bootstrap"),
    ),
    # an event of the clone tree each
    "clone_events": (
        *("patient_id", "branch", "kind", "event", "arm", "state", "clones", "n_cells", "log_ratio"),
        *("posterior", "support", "n_bootstrap"),
    ),
    "loss_audit": (
        *("cell_id", "sample_id", "patient_id", "compartment", "stage", "status", "reason", "evidence"),
        *("epithelial_z", "n_epithelial_markers", "cnv_burden_q", "malignancy_q"),
        *("n_counts", "evidence_level"),
    ),
    "qc_waterfall": (
        *("sample_id", "patient_id", "compartment", "lineage", "reason", "n_with_reason", "n_removed", "n_left"),
    ),
    "qc_summary": (
        *("sample_id", "patient_id", "compartment", "n_cells", "n_pass", "n_good", "n_ambiguous", "n_poor"),
        *("median_counts", "median_genes", "median_pct_mt", "doublets", "n_doublets", "ambient", "ambient_fraction"),
        *("n_epithelial_evidence", "n_epithelial_evidence_removed", "warnings"),
    ),
    "claims": (
        *("claim_id", "title", "role", "verdict", "codes", "unit", "n_patients", "estimate", "ci_low"),
        *("ci_high", "p_value", "p_adjusted", "p_gene_set", "sesoi", "mde80", "patients_needed"),
        *("sensitivity_agreement", "self_check_type1", "contrast", "primary_signature"),
    ),
    "patients": (
        *("claim_id", "analysis", "patient_id", "contrast", "signature", "n_cells_a", "n_cells_b", "value_a"),
        *("value_b", "difference", "variance", "usable", "reason"),
    ),
    "signature_coverage": (
        *("signature", "role", "n_genes", "n_present", "n_detected", "n_renamed", "effective_n_genes"),
        *("depth_correlation", "status"),
    ),
    # a cell each: nucleotides of its barcode, hash of its genes and counts
    "fingerprints": ("barcode", "content", "n_counts", "n_genes"),
    # a finding each
    "identity": (
        *("finding", "severity", "sample_id", "patient_id", "other_sample_id", "other_patient_id", "n_cells"),
        *("n_other", "n_shared", "expected_shared", "correlation", "detail", "advice"),
    ),
}

TABLE_MAKERS: Final = {
    "fingerprints": "read_sample",
    "identity": "check_identities",
    "cells": "assemble_cohort",
    "qc_cells": "qc_sample",
    "annotation": "annotate_cells",
    "cnv_cells": "infer_copy_number",
    "calls": "call_cells",
    "arms": "call_cells",
    "clones": "call_cells",
    "comparison": "compare_profiles",
    "segments": "export_segments",
    "clone_events": "call_cells",
    "loss_audit": "audit_losses",
    "qc_waterfall": "summarise_qc",
    "qc_summary": "summarise_qc",
    "claims": "test_claims",
    "patients": "test_claims",
    "signature_coverage": "score_signatures",
}

BOOLEAN_COLUMNS: Final = frozenset({"pass_qc", "is_doublet", "is_reference", "is_dtc", "usable"})
TEXT_COLUMNS: Final = frozenset(
    {
        *("cell_id", "sample_id", "patient_id", "compartment", "qc_reasons", "cell_type", "malignant_call", "clone_id"),
        *("call_reasons", "lineage", "runner_up", "cell_type_source", "cnv_status", "malignant_class", "arm", "state"),
        *("status", "gains", "losses", "stage", "reason", "evidence", "claim_id", "title", "role", "verdict", "codes"),
        *("barcode", "content", "finding", "severity", "other_sample_id", "other_patient_id", "detail", "advice"),
        *("doublet_methods", "arbitration", "doublet_partner"),
        *("unit", "contrast", "primary_signature", "analysis", "signature", "batch", "gene", "symbol", "gene_id"),
        *("resolution", "profile_format", "profile_values", "ID", "chrom"),
        *("qc_class", "evidence_level", "doublets", "ambient", "warnings", "first_pass_type"),
    }
)


@dataclass(frozen=True)
class Stage:
    """What an ``.h5ad`` between two rules must hold."""

    maker: str
    layers: tuple[str, ...] = ()
    obs: tuple[str, ...] = ()
    var: tuple[str, ...] = ()
    obsm: tuple[str, ...] = ()
    uns: tuple[str, ...] = ()


OBS_IDENTITY: Final = ("sample_id", "patient_id", "compartment", "batch", "platform")
VAR_GENES: Final = ("symbol", "gene_id", "chromosome", "start", "end", "arm")

STAGES: Final[dict[str, Stage]] = {
    # obs index = cell_id ("sample_id:barcode"), var index = current symbol, made unique
    "intake": Stage("read_sample", layers=(COUNTS,), obs=OBS_IDENTITY, var=VAR_GENES),
    # one sample, cells that passed QC; uns["ambient"] says how, or why the layer is the counts themselves
    "ambient": Stage("correct_ambient", layers=(AMBIENT_CORRECTED,), uns=("ambient",)),
    # cells that passed QC, all samples
    "embedding": Stage(
        "embed_cohort",
        layers=(COUNTS, LOGNORM),
        obs=(*OBS_IDENTITY, "leiden"),
        var=(*VAR_GENES, "highly_variable", "in_all_samples"),
        obsm=("X_pca", "X_umap"),
    ),
    # one patient: no counts, only obsm["X_cnv"]; uns["cnv_windows"] columns chromosome,start,end,arm
    "cnv": Stage("infer_copy_number", obsm=(X_CNV,), uns=("cnv_windows", "segments", "arm_noise", "clone_nulls")),
    "cohort": Stage(
        "assemble_cohort",
        layers=(COUNTS, LOGNORM),
        obs=CELLS_COLUMNS[1:],
        var=VAR_GENES,
        obsm=("X_pca", "X_umap", X_CNV),
        uns=("provenance",),
    ),
}


# ---------------------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: where, what was found, what is allowed, what to do."""

    where: str
    """File, with row and column or key where there is one."""
    found: str
    allowed: str
    fix: str
    row: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        place = self.where
        if self.row is not None:
            place += f", row {self.row}"
        if self.key is not None:
            place += f", {self.key}"
        return f"{place}: found {self.found}; allowed: {self.allowed}; fix: {self.fix}"


@dataclass
class DtcflowError(Exception):
    """An error a user can act on. Shown without a traceback. ``problems`` lists all of an input at once."""

    message: str
    problems: Sequence[Problem] = field(default_factory=tuple)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message, tuple(self.problems)))


class InputError(DtcflowError):
    """The user's configuration, sample sheet or data is wrong."""


class ContractError(DtcflowError):
    """A file between two stages does not hold what its contract says."""


# ---------------------------------------------------------------------------------------------------------------------
# Reading and writing
# ---------------------------------------------------------------------------------------------------------------------


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` all or nothing, through a temporary neighbour."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, content: str) -> None:
    """Write text as UTF-8, all or nothing."""
    write_bytes(path, content.encode())


def _plain(value: Any) -> Any:
    """Turn numpy and pandas scalars into JSON's own types; a missing number becomes null, never NaN."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray | pd.Index | pd.Series):
        return [_plain(v) for v in (sorted(value) if isinstance(value, set | frozenset) else list(value))]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON with sorted keys; NaN and infinities become ``null``."""
    write_text(path, json.dumps(_plain(content), indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def _check_columns(frame: pd.DataFrame, table: str, path: str | Path) -> None:
    missing = [column for column in TABLES[table] if column not in frame.columns]
    if missing:
        raise ContractError(
            f"{path} is not a '{table}' table",
            [
                Problem(
                    str(path),
                    f"columns {', '.join(map(str, frame.columns[:40]))}",
                    f"column {column}",
                    f"rerun rule {TABLE_MAKERS.get(table, 'that makes it')}",
                    key=column,
                )
                for column in missing
            ],
        )


def write_table(frame: pd.DataFrame, path: str | Path, table: str | None = None) -> None:
    """Write a tab-separated table (gzip when the name ends in ``.gz``), byte-stable.

    ``table`` names an entry of :data:`TABLES`; its columns come first and in order. Numbers have six significant
    digits, booleans are ``true``/``false``, missing values are empty.
    """
    path = Path(path)
    if table is not None:
        _check_columns(frame, table, path)
        first = list(TABLES[table])
        frame = frame[[*first, *(c for c in frame.columns if c not in first)]]
    shown = frame.copy()
    for column in shown.columns:
        if shown[column].dtype == bool or str(shown[column].dtype) == "boolean":
            shown[column] = shown[column].map({True: "true", False: "false"})
    text = shown.to_csv(sep="\t", index=False, float_format="%.6g", lineterminator="\n")
    content = text.encode()
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as handle:
            handle.write(content)
        content = buffer.getvalue()
    write_bytes(path, content)


def read_table(path: str | Path, table: str | None = None) -> pd.DataFrame:
    """Read a table written by :func:`write_table` and check its columns against the contract.

    Text columns of the contract come back as ``str`` (missing is the empty string), booleans as ``bool``.
    """
    path = Path(path)
    header = list(pd.read_csv(path, sep="\t", nrows=0).columns)
    text = {column: str for column in header if column in TEXT_COLUMNS}
    frame = pd.read_csv(
        path,
        sep="\t",
        dtype=text,
        keep_default_na=False,
        na_values={column: [""] for column in header if column not in TEXT_COLUMNS},
    )
    for column in text:
        frame[column] = frame[column].astype(object)
    for column in BOOLEAN_COLUMNS & set(header):
        values = frame[column]
        if values.dtype != bool:
            frame[column] = (
                values.map({"true": True, "false": False, True: True, False: False}).fillna(False).astype(bool)
            )
    if table is not None:
        _check_columns(frame, table, path)
    return frame


def join_side_car(
    cells: pd.DataFrame, side_car: pd.DataFrame, *, name: str, how: Literal["equal", "subset"] = "equal"
) -> pd.DataFrame:
    """Join a side-car table to ``cells`` on ``cell_id`` after checking the id sets; never a blind reindex.

    ``how="equal"`` asks for identical id sets; ``"subset"`` allows cells without an entry, whose fields stay empty.
    Columns that ``cells`` has already are not taken from the side-car.
    """
    for label, frame in (("cells", cells), (name, side_car)):
        if not frame["cell_id"].is_unique:
            twice = frame.loc[frame["cell_id"].duplicated(), "cell_id"].iloc[0]
            raise ContractError(f"{label}: cell_id {twice!r} occurs more than once")
    have, want = set(side_car["cell_id"]), set(cells["cell_id"])
    if extra := have - want:
        raise ContractError(f"{name}: {len(extra)} cells are in no input, for example {min(extra)!r}")
    if how == "equal" and (missing := want - have):
        raise ContractError(f"{name}: {len(missing)} cells have no entry, for example {min(missing)!r}")
    new = ["cell_id", *(c for c in side_car.columns if c not in cells.columns)]
    return cells.merge(side_car[new], on="cell_id", how="left", validate="one_to_one")


def check_counts(matrix: Any, where: str) -> None:
    """Refuse a matrix that is not CSR with finite, non-negative, integer-valued entries."""
    if not isinstance(matrix, sp.csr_matrix | sp.csr_array):
        raise ContractError(f"{where}: layers['{COUNTS}'] must be a CSR matrix, found {type(matrix).__name__}")
    data = matrix.data
    if data.size and (not np.isfinite(data).all() or data.min() < 0 or not np.array_equal(data, np.rint(data))):
        raise ContractError(f"{where}: layers['{COUNTS}'] must hold non-negative whole numbers")


def check_stage(adata: ad.AnnData, stage: str, where: str) -> None:
    """Check ``adata`` against the contract of ``stage``; all missing keys are named at once."""
    contract = STAGES[stage]
    problems = [
        Problem(where, f"{slot} without it", f"{slot}[{key!r}]", f"rerun rule {contract.maker}", key=f"{slot}[{key!r}]")
        for slot in ("layers", "obs", "var", "obsm", "uns")
        for key in getattr(contract, slot)
        if key not in getattr(adata, slot)
    ]
    if not adata.obs_names.is_unique:
        problems.append(Problem(where, "repeated cell ids", "unique cell ids", f"rerun rule {contract.maker}"))
    if problems:
        raise ContractError(f"{where} does not meet the contract of stage '{stage}'", problems)
    if COUNTS in contract.layers:
        check_counts(adata.layers[COUNTS], where)


def read_stage(path: str | Path, stage: str) -> ad.AnnData:
    """Read the ``.h5ad`` of a stage and check its contract."""
    try:
        adata = ad.read_h5ad(path)
    except OSError as error:
        raise ContractError(
            f"{path} cannot be read ({error})",
            [Problem(str(path), "an unreadable file", "an .h5ad file", f"rerun rule {STAGES[stage].maker}")],
        ) from error
    check_stage(adata, stage, str(path))
    return adata


def write_stage(adata: ad.AnnData, path: str | Path, stage: str) -> None:
    """Check the contract of ``stage`` and write ``adata`` all or nothing."""
    path = Path(path)
    check_stage(adata, stage, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        adata.write_h5ad(temporary, compression="gzip", compression_opts=1)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def join_reasons(reasons: Iterable[str]) -> str:
    """Reasons as one field: ``a;b;c`` (empty when there are none)."""
    return ";".join(reasons)
