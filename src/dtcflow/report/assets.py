"""Read everything the report shows, check it once, and keep it in one place."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from dtcflow.contracts import X_CNV, ContractError, Problem, read_table
from dtcflow.report.inputs import ReportInputs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Umap:
    """UMAP coordinates (cells x 2) with their cell ids; ``status`` says why there are none."""

    cell_ids: NDArray[np.object_]
    coordinates: NDArray[np.float32]
    status: str = "ok"


@dataclass(frozen=True)
class Windows:
    """Copy-number windows of one patient: cells x windows, log ratio."""

    cell_ids: NDArray[np.object_]
    values: NDArray[np.float32]
    layout: pd.DataFrame


@dataclass(frozen=True)
class Assets:
    """Everything read. ``None`` and empty containers: not part of this run."""

    config: Mapping[str, Any]
    names: Mapping[str, str]
    """File name of each input, for "the whole table is in ..."."""
    cells: pd.DataFrame
    claims: pd.DataFrame
    patients: pd.DataFrame
    verdict: Mapping[str, Any]
    sensitivity: pd.DataFrame | None = None
    controls: pd.DataFrame | None = None
    pathways: pd.DataFrame | None = None
    arms: pd.DataFrame | None = None
    clones: pd.DataFrame | None = None
    loss_audit: pd.DataFrame | None = None
    identity: pd.DataFrame | None = None
    signature_coverage: pd.DataFrame | None = None
    stability: pd.DataFrame | None = None
    cnv_cells: pd.DataFrame | None = None
    umap: Umap | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    qc_summaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    intake_reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cnv_statuses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cnv_windows: Mapping[str, Path] = field(default_factory=dict)
    """File per patient: windows are read one patient at a time."""


def load(inputs: ReportInputs) -> Assets:
    """Read all inputs.

    Raises
    ------
    dtcflow.contracts.ContractError
        When a file is absent or does not hold what its contract says; all absent files at once.
    """
    _check_present(inputs)

    def table(path: Path | None, name: str | None = None) -> pd.DataFrame | None:
        return None if path is None else _read_table(Path(path), name)

    cells = _read_table(Path(inputs.cells), "cells")
    _check_unique(cells, inputs.cells)
    cnv_cells = [_read_table(Path(path), "cnv_cells") for path in inputs.cnv_cells]
    return Assets(
        config=inputs.config,
        names={name: Path(value).name for name, value in vars(inputs).items() if isinstance(value, str | Path)},
        cells=cells,
        claims=_read_table(Path(inputs.claims), "claims"),
        patients=_read_table(Path(inputs.patients), "patients"),
        verdict=_object(Path(inputs.verdict)),
        sensitivity=table(inputs.sensitivity),
        controls=table(inputs.controls),
        pathways=table(inputs.pathways),
        arms=table(inputs.arms, "arms"),
        clones=table(inputs.clones, "clones"),
        loss_audit=table(inputs.loss_audit, "loss_audit"),
        identity=table(inputs.identity, "identity"),
        signature_coverage=table(inputs.signature_coverage, "signature_coverage"),
        stability=table(inputs.stability),
        cnv_cells=pd.concat(cnv_cells, ignore_index=True) if cnv_cells else None,
        umap=None if inputs.embedding is None else read_umap(Path(inputs.embedding)),
        provenance={} if inputs.provenance is None else _object(Path(inputs.provenance)),
        qc_summaries=_objects(inputs.qc_summaries, "sample_id"),
        intake_reports=_objects(inputs.intake_reports, "sample_id"),
        cnv_statuses=_objects(inputs.cnv_statuses, "patient_id"),
        cnv_windows={Path(path).stem: Path(path) for path in sorted(map(str, inputs.cnv_windows))},
    )


def _paths(inputs: ReportInputs) -> list[Path]:
    found: list[Path] = []
    for name, value in vars(inputs).items():
        if name == "config" or value is None:
            continue
        values: Sequence[Any] = [value] if isinstance(value, str | Path) else value
        found.extend(Path(item) for item in values)
    return found


def _check_present(inputs: ReportInputs) -> None:
    absent = [path for path in _paths(inputs) if not path.is_file()]
    if absent:
        raise ContractError(
            "The report cannot be written: results are missing.",
            [Problem(str(path), "no file", "a result of an earlier rule", "rerun the workflow") for path in absent],
        )


def _check_unique(cells: pd.DataFrame, path: Path) -> None:
    if not cells["cell_id"].is_unique:
        twice = cells.loc[cells["cell_id"].duplicated(), "cell_id"].iloc[0]
        raise ContractError(
            "The table of cells names a cell twice.",
            [Problem(str(path), repr(twice), "each cell_id once", "rerun rule assemble_cohort", key="cell_id")],
        )


def _read_table(path: Path, name: str | None) -> pd.DataFrame:
    try:
        return read_table(path, name)
    except pd.errors.EmptyDataError as error:
        raise ContractError(
            "The report cannot be written: a table is empty.",
            [Problem(str(path), "an empty file", "a header line at least", "rerun the rule that makes it")],
        ) from error


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ContractError(
            "The report cannot be written: a JSON file cannot be read.",
            [Problem(str(path), str(error), "a JSON object", "rerun the rule that makes it")],
        ) from error
    if not isinstance(content, dict):
        raise ContractError(
            "The report cannot be written: a JSON file has the wrong shape.",
            [Problem(str(path), type(content).__name__, "a JSON object", "rerun the rule that makes it")],
        )
    return content


def _objects(paths: Sequence[Path], key: str) -> dict[str, Mapping[str, Any]]:
    """One object per sample or patient, by the id it carries or else by its file name, sorted."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in map(Path, paths):
        content = _object(path)
        found[str(content.get(key, path.name.removesuffix(".json")))] = content
    return dict(sorted(found.items()))


def _index(handle: h5py.File) -> NDArray[np.object_]:
    key = handle["obs"].attrs["_index"]
    return np.asarray(read_elem(handle["obs"][key]), dtype=object).astype(str).astype(object)


def read_umap(path: Path) -> Umap:
    """Read ``obsm["X_umap"]`` and the cell ids of an ``.h5ad`` and nothing else of it.

    The result has no cells, and a status that says so, when the file has no UMAP or one that was not computed.
    """
    with h5py.File(path, "r") as handle:
        if "X_umap" not in handle.get("obsm", {}):
            return _no_umap("the file has no UMAP")
        ids = _index(handle)
        coordinates = np.asarray(handle["obsm"]["X_umap"][...], dtype=np.float32)[:, :2]
        status = (
            str(read_elem(handle["uns"]["embedding_status"])) if "embedding_status" in handle.get("uns", {}) else "ok"
        )
    known = np.isfinite(coordinates).all(axis=1)
    if not known.any():
        return _no_umap(status if status != "ok" else "no cell has coordinates")
    return Umap(ids[known], coordinates[known])


def _no_umap(status: str) -> Umap:
    return Umap(np.empty(0, dtype=object), np.empty((0, 2), dtype=np.float32), status)


def read_windows(path: Path) -> Windows:
    """Read the copy-number windows, their layout and the cell ids of one patient's ``.h5ad``."""
    with h5py.File(path, "r") as handle:
        missing = [
            name
            for name, group in ((X_CNV, "obsm"), ("cnv_windows", "uns"))
            if group not in handle or name not in handle[group]
        ]
        if missing:
            raise ContractError(
                f"{path} is not a 'cnv' stage",
                [Problem(str(path), "an .h5ad", name, "rerun rule infer_copy_number", key=name) for name in missing],
            )
        values = read_elem(handle["obsm"][X_CNV])
        values = values.toarray() if hasattr(values, "toarray") else values
        layout = read_elem(handle["uns"]["cnv_windows"])
        return Windows(_index(handle), np.asarray(values, dtype=np.float32), pd.DataFrame(layout))


def read_given_profile(path: Path) -> pd.DataFrame | None:
    """Read the profile that the user gave (``arm``, ``expected`` log ratio) from a patient's file; None without."""
    with h5py.File(path, "r") as handle:
        if "given_profile" not in handle.get("uns", {}):
            return None
        frame = pd.DataFrame(read_elem(handle["uns"]["given_profile"]))
    return frame if len(frame) and {"arm", "expected"} <= set(frame.columns) else None


def read_clone_nulls(path: Path) -> pd.DataFrame | None:
    """Read the statistics of null and decoy cells (``kind``, ``t``, ``llr``) of one patient's ``.h5ad``.

    None when the file has none: written by an older version, or nothing was scored.
    """
    with h5py.File(path, "r") as handle:
        if "clone_nulls" not in handle.get("uns", {}):
            return None
        frame = pd.DataFrame(read_elem(handle["uns"]["clone_nulls"]))
    if not len(frame) or not {"kind", "t", "llr"} <= set(frame.columns):
        return None
    frame["kind"] = frame["kind"].astype(str)
    return frame
