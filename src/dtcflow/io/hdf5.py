"""Readers for HDF5 inputs: .h5ad of any age and the two generations of 10x .h5.

Only names, counts and the cell table are read; embeddings, graphs and free-form entries stay in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import COUNTS, InputError
from dtcflow.io.detect import open_hdf5, refuse
from dtcflow.io.raw import RawMatrix, build_sparse, looks_ensembl
from dtcflow.io.values import USE_PLATE, Values, classify

log = logging.getLogger(__name__)

_DENSE_BLOCK = 8_000_000
"""Values of a dense matrix that are in memory at a time."""
_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "Accession")


@contextmanager
def _whole(path: Path, part: str) -> Iterator[None]:
    """Turn what h5py and anndata raise on damaged content into one message."""
    try:
        yield
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise refuse(
            path,
            f"{part} cannot be read",
            f"a damaged or unknown entry ({text})",
            "a complete file",
            "copy the file again, or save it again with a current anndata",
        ) from error


def _text(values: Any) -> list[str]:
    return [
        value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
        for value in np.asarray(values)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# .h5ad
# ---------------------------------------------------------------------------------------------------------------------


def _frame(file: h5py.File | h5py.Group, name: str) -> pd.DataFrame:
    node = file[name]
    if isinstance(node, h5py.Dataset):  # written before anndata 0.7: one array of records
        records = node[:]
        fields = list(records.dtype.names or ())
        if not fields:
            raise ValueError(f"{name} is a plain array")
        index = next((field for field in ("index", "_index") if field in fields), fields[0])
        frame = pd.DataFrame(
            {field: _text(records[field]) if records[field].dtype.kind in "SO" else records[field] for field in fields}
        )
        return frame.set_index(index)
    frame = ad.io.read_elem(node)
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"{name} is not a table")
    return frame


def _sparse_format(node: h5py.Group) -> str | None:
    kind = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    return kind[:3] if kind[:3] in ("csr", "csc") else None


def _shape(node: h5py.Group | h5py.Dataset) -> tuple[int, int] | None:
    """Shape of a stored matrix from its header, or None when it is not a matrix."""
    if isinstance(node, h5py.Dataset):
        return tuple(node.shape) if len(node.shape) == 2 else None
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    if _sparse_format(node) is None or shape is None or len(shape) != 2:
        return None
    return int(shape[0]), int(shape[1])


def _load(node: h5py.Group | h5py.Dataset, path: Path) -> sp.csr_matrix:
    shape = _shape(node)
    if shape is None:
        raise ValueError("not a matrix")
    if isinstance(node, h5py.Group):
        rows = _sparse_format(node) == "csr"
        return build_sparse(node["data"][:], node["indices"][:], node["indptr"][:], shape, rows=rows, path=path)
    if node.dtype.kind not in "iufb":
        raise refuse(
            path, "the matrix does not hold numbers", f"values of type {node.dtype}", "numbers", "export it again"
        )
    step = max(1, _DENSE_BLOCK // max(1, shape[1]))
    blocks = [sp.csr_matrix(node[start : start + step]) for start in range(0, shape[0], step)]
    return sp.csr_matrix(sp.vstack(blocks, format="csr")) if blocks else sp.csr_matrix(shape)


def _slots(file: h5py.File) -> dict[str, str]:
    """Where counts can be, in the order they are tried: words for the user -> key in the file."""
    slots = {}
    layers = list(file["layers"]) if isinstance(file.get("layers"), h5py.Group) else []
    if COUNTS in layers:
        slots[f"layers['{COUNTS}']"] = f"layers/{COUNTS}"
    if "X" in file:
        slots["X"] = "X"
    if isinstance(file.get("raw"), h5py.Group) and "X" in file["raw"]:
        slots["raw.X"] = "raw/X"
    for name in layers:
        if name != COUNTS:
            slots[f"layers['{name}']"] = f"layers/{name}"
    return {words: key for words, key in slots.items() if _shape(file[key]) is not None}


def _layer_slot(slots: dict[str, str], layer: str, path: Path) -> tuple[str, str]:
    for words in (f"layers['{layer}']", layer):
        if words in slots:
            return words, slots[words]
    listed = ", ".join(slots) or "no matrix at all"
    raise refuse(path, f"no layer {layer!r}", listed, "one of these", "correct intake.layer, or set it to null")


def _choose(file: h5py.File, path: Path, layer: str | None, platform: str) -> tuple[sp.csr_matrix, str, list[str]]:
    """Return the first slot that holds counts, its name, and what to tell the user about the choice."""
    slots = _slots(file)
    if not slots:
        raise refuse(
            path,
            "no matrix in the file",
            f"keys {', '.join(file)}",
            "counts in X, a layer or raw",
            "save the counts into X",
        )
    if layer is not None:
        words, key = _layer_slot(slots, layer, path)
        return _load(file[key], path), words, []
    seen: list[tuple[str, Values]] = []
    held: tuple[sp.csr_matrix, str] | None = None
    first = [words for words in slots if words in (f"layers['{COUNTS}']", "X", "raw.X")]
    for words in first:
        matrix = _load(file[slots[words]], path)
        values = classify(matrix)
        if values.kind in ("counts", "empty"):
            notes = [f"{other} holds {what.words}; the counts were read from {words}" for other, what in seen]
            return matrix, words, notes
        if values.kind == "estimated" and platform == "plate" and held is None:
            held = (matrix, words)
        seen.append((words, values))
    if held is not None:
        return *held, []
    others = {words: classify(_load(file[key], path)) for words, key in slots.items() if words not in first}
    raise _no_counts(path, seen, others)


def _no_counts(path: Path, seen: list[tuple[str, Values]], others: dict[str, Values]) -> InputError:
    words = "; ".join(f"{slot}: {values.words}" for slot, values in [*seen, *others.items()])
    with_counts = [slot for slot, values in others.items() if values.kind == "counts"]
    kinds = {values.kind for _, values in seen}
    if with_counts:
        name = with_counts[0].removeprefix("layers['").removesuffix("']")
        fix = f"set intake.layer: {name}"
    elif kinds == {"estimated"}:
        fix = USE_PLATE
    else:
        fix = "give the file with the raw counts (often in raw.X or a layer), or save them as layers['counts']"
    message = "no raw counts in this file" if kinds != {"estimated"} else "fractional counts on platform droplet"
    return refuse(path, message, words, "raw counts: whole numbers >= 0", fix)


def read_h5ad(path: Path, *, layer: str | None, platform: str) -> RawMatrix:
    """Read counts, names and the cell table of an .h5ad; see :func:`dtcflow.io.readers.read_matrix`."""
    with open_hdf5(path) as file, _whole(path, "the .h5ad"):
        matrix, source, notes = _choose(file, path, layer, platform)
        obs = _frame(file, "obs")
        var = _frame(file["raw"] if source == "raw.X" and "var" in file["raw"] else file, "var")
    if matrix.shape != (len(obs), len(var)):
        raise refuse(
            path,
            "matrix and names do not fit",
            f"{source} of {matrix.shape[0]:,} x {matrix.shape[1]:,}, {len(obs):,} cells, {len(var):,} genes",
            "one row per cell and one column per gene",
            "save the file again",
        )
    raw = RawMatrix(matrix, _text(obs.index), _text(var.index), obs=obs, source=source, warnings=notes)
    for column in _ID_COLUMNS:
        if column in var.columns and looks_ensembl(ids := _text(var[column])) >= 0.5:
            raw.gene_ids = ids
            break
    if "feature_types" in var.columns:
        raw.feature_types = _text(var["feature_types"])
    if "genome" in var.columns:
        raw.genomes = ["" if pd.isna(value) else str(value) for value in var["genome"]]
    return raw


# ---------------------------------------------------------------------------------------------------------------------
# 10x .h5
# ---------------------------------------------------------------------------------------------------------------------


def _tenx_group(file: h5py.File, path: Path) -> tuple[h5py.Group, bool]:
    """Return the matrix group and whether it is of the third generation."""
    if "matrix" in file:
        return file["matrix"], True
    genomes = [name for name in file if isinstance(file[name], h5py.Group) and "indptr" in file[name]]
    if len(genomes) != 1:
        raise refuse(
            path,
            "several genomes in one file" if genomes else "no count matrix in the file",
            ", ".join(genomes) or f"keys {', '.join(file)}",
            "one human genome",
            "keep the human cells and genes, and save them alone",
        )
    return file[genomes[0]], False


def read_10x_h5(path: Path) -> RawMatrix:
    """Read a 10x .h5 (generation 2: a group per genome; generation 3: ``matrix/features``)."""
    with open_hdf5(path) as file, _whole(path, "the 10x .h5"):
        group, third = _tenx_group(file, path)
        n_genes, n_cells = (int(n) for n in group["shape"][:])
        # stored as genes x cells by column, which is cells x genes by row
        matrix = build_sparse(
            group["data"][:], group["indices"][:], group["indptr"][:], (n_cells, n_genes), rows=True, path=path
        )
        barcodes = _text(group["barcodes"][:])
        features = group["features"] if third else group
        ids = _text(features["id" if third else "genes"][:])
        names = _text(features["name" if third else "gene_names"][:])
        types = _text(features["feature_type"][:]) if third and "feature_type" in features else None
        genomes = _text(features["genome"][:]) if third and "genome" in features else None
    if (len(barcodes), len(names), len(ids)) != (n_cells, n_genes, n_genes):
        raise refuse(
            path,
            "matrix and names do not fit",
            f"a matrix of {n_genes:,} x {n_cells:,}, {len(names):,} features, {len(barcodes):,} barcodes",
            "one name per row and column",
            "export the file again",
        )
    return RawMatrix(matrix, barcodes, names, gene_ids=ids, feature_types=types, genomes=genomes)


def inspect_hdf5(path: Path, kind: str, layer: str | None) -> tuple[int, int]:
    """Return cells and genes of an HDF5 input from its headers, without loading values."""
    with open_hdf5(path) as file, _whole(path, "the header"):
        if kind == "10x_h5":
            group, _ = _tenx_group(file, path)
            n_genes, n_cells = (int(n) for n in group["shape"][:])
            return n_cells, n_genes
        slots = _slots(file)
        if not slots:
            raise refuse(
                path,
                "no matrix in the file",
                f"keys {', '.join(file)}",
                "counts in X, a layer or raw",
                "save the counts into X",
            )
        key = _layer_slot(slots, layer, path)[1] if layer is not None else next(iter(slots.values()))
        shape = _shape(file[key])
        if shape is None:
            raise ValueError("not a matrix")
        return shape
