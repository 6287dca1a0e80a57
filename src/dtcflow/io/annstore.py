"""Reader for the layout of anndata, in one HDF5 file (.h5ad of any age) or in a zarr folder.

Only names, counts and the cell table are read; embeddings, graphs and free-form entries stay in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd

from dtcflow.io.files import refuse
from dtcflow.io.hdf5 import open_hdf5
from dtcflow.io.raw import RawMatrix, Request, looks_ensembl
from dtcflow.io.slots import choose, in_order, named_slot
from dtcflow.io.stored import (
    DenseMatrix,
    Mask,
    Matrix,
    Node,
    SparseMatrix,
    as_text,
    guard,
    guard_tree,
    is_array,
    is_group,
    whole,
)
from dtcflow.io.zarr_store import open_zarr

_ID_COLUMNS: Final = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "Accession")


def _open(path: Path) -> AbstractContextManager[Any]:
    return open_zarr(path) if path.is_dir() else open_hdf5(path)


# ---------------------------------------------------------------------------------------------------------------------
# Tables of cells and genes
# ---------------------------------------------------------------------------------------------------------------------


def _index_key(group: Node) -> str:
    key = group.attrs.get("_index", "_index")
    return key.decode() if isinstance(key, bytes) else str(key)


def _columns(node: Node) -> list[str]:
    if is_array(node):
        return [name for name in (node.dtype.names or ()) if name not in ("index", "_index")]
    hidden = {_index_key(node), "__categories"}
    return sorted(str(name) for name in node if name not in hidden)


def _length(node: Node) -> int:
    """Number of cells or genes, from the header of the table."""
    array = node if is_array(node) else node[_index_key(node)]
    if is_group(array):  # a nullable index
        array = array["values"]
    return int(array.shape[0])


def _records(root: Node, node: Node, path: Path) -> pd.DataFrame:
    """A table as anndata wrote it before 0.7: one array of records, categories apart in ``uns``."""
    records = guard(node, path)[:]
    fields = list(records.dtype.names or ())
    if not fields:
        raise ValueError("a table of cells or genes that is a plain array")
    index = next((field for field in ("index", "_index") if field in fields), fields[0])
    columns: dict[str, Any] = {}
    for field in fields:
        values = records[field]
        key = f"uns/{field}_categories"
        if values.dtype.kind in "iu" and key in root and is_array(root[key]):
            names = np.array([*as_text(guard(root[key], path)[:]), ""], dtype=object)
            columns[field] = names[np.where((values < 0) | (values >= names.size - 1), names.size - 1, values)]
        else:
            columns[field] = as_text(values) if values.dtype.kind in "SO" else values
    return pd.DataFrame(columns).set_index(index)


def _frame(root: Node, key: str, path: Path) -> pd.DataFrame:
    node = root[key]
    if is_array(node):
        return _records(root, node, path)
    guard_tree(node, path)
    frame = ad.io.read_elem(node)
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"{key} is not a table")
    return frame


def _selected(root: Node, request: Request, path: Path) -> Mask | None:
    """Which cells are wanted, from one column of the cell table."""
    if request.selection is None:
        return None
    node, column = root["obs"], request.selection.column
    request.selection.check(_columns(node), path)
    if is_group(node) and "__categories" not in node:
        guard_tree(node[column], path)
        values: Any = ad.io.read_elem(node[column])
    else:
        values = _frame(root, "obs", path)[column]
    return request.selection.rows(values, path)


# ---------------------------------------------------------------------------------------------------------------------
# Matrices
# ---------------------------------------------------------------------------------------------------------------------


def _matrix(node: Node, path: Path) -> Matrix | None:
    """Describe a stored matrix, or return None for what is not one (an absent ``X``, a one-dimensional array)."""
    if is_array(node):
        return DenseMatrix(node, path) if len(node.shape) == 2 else None
    kind = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    kind = (kind.decode() if isinstance(kind, bytes) else str(kind))[:3]
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    if kind not in ("csr", "csc") or shape is None or len(shape) != 2:
        return None
    size = (int(shape[0]), int(shape[1]))
    return SparseMatrix(node["data"], node["indices"], node["indptr"], size, kind == "csr", path)


def _slots(root: Node, path: Path) -> dict[str, Matrix]:
    """Where counts can be, in the order they are tried."""
    nodes = {"X": root["X"]} if "X" in root else {}
    for key in ("raw/X", "raw.X"):  # "raw.X" before anndata 0.7
        if key in root:
            nodes["raw.X"] = root[key]
    layers = root.get("layers")
    if layers is not None and is_group(layers):
        nodes |= {f"layers['{name}']": layers[name] for name in sorted(layers)}
    slots = {words: _matrix(node, path) for words, node in nodes.items()}
    return in_order({words: matrix for words, matrix in slots.items() if matrix is not None})


def _var_key(root: Node, source: str) -> str:
    return next((key for key in ("raw/var", "raw.var") if source == "raw.X" and key in root), "var")


def _check_sizes(matrix: Matrix, source: str, n_cells: int, n_genes: int, path: Path) -> None:
    if matrix.shape != (n_cells, n_genes):
        raise refuse(
            path,
            "matrix and names do not fit",
            f"{source} of {matrix.shape[0]:,} x {matrix.shape[1]:,}, {n_cells:,} cells, {n_genes:,} genes",
            "one row per cell and one column per gene",
            "save the file again",
        )


def read_annstore(path: Path, request: Request) -> RawMatrix:
    """Read counts, names and the cell table of an .h5ad or a zarr store; see :func:`dtcflow.io.readers.read_matrix`."""
    with _open(path) as root, whole(path, "the anndata file"):
        slots = _slots(root, path)
        n_cells = _length(root["obs"])
        for words, matrix in slots.items():
            _check_sizes(matrix, words, n_cells, _length(root[_var_key(root, words)]), path)
        rows = _selected(root, request, path)
        counts, source, notes = choose(slots, path, layer=request.layer, platform=request.platform, rows=rows)
        obs = _frame(root, "obs", path)
        var = _frame(root, _var_key(root, source), path)
        obs = obs if rows is None else obs.iloc[np.flatnonzero(rows)]
    raw = RawMatrix(counts, as_text(obs.index), as_text(var.index), obs=obs, source=source, warnings=notes)
    if rows is not None and request.selection is not None:
        raw.selected = request.selection.words(rows)
    for column in _ID_COLUMNS:
        if column in var.columns and looks_ensembl(ids := as_text(var[column])) >= 0.5:
            raw.gene_ids = ids
            break
    if "feature_types" in var.columns:
        raw.feature_types = as_text(var["feature_types"])
    if "genome" in var.columns:
        raw.genomes = ["" if pd.isna(value) else str(value) for value in var["genome"]]
    return raw


def inspect_annstore(path: Path, request: Request) -> tuple[int, int]:
    """Return cells and genes of an .h5ad or a zarr store from its headers, without loading values."""
    with _open(path) as root, whole(path, "the header"):
        slots = _slots(root, path)
        words = named_slot(slots, request.layer, path)
        matrix = slots[words]
        matrix.check()
        _check_sizes(matrix, words, _length(root["obs"]), _length(root[_var_key(root, words)]), path)
        rows = _selected(root, request, path)
        return matrix.shape[0] if rows is None else int(rows.sum()), matrix.shape[1]


def annstore_columns(path: Path) -> Sequence[str]:
    """Return the columns of the cell table."""
    with _open(path) as root, whole(path, "the header"):
        return _columns(root["obs"])
