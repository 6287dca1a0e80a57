"""Reader for loom: HDF5 with genes in rows, cells in columns, and their attributes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import h5py
import pandas as pd

from dtcflow.io.files import refuse
from dtcflow.io.hdf5 import open_hdf5
from dtcflow.io.raw import RawMatrix, Request, looks_ensembl
from dtcflow.io.slots import choose, in_order, named_slot
from dtcflow.io.stored import DenseMatrix, Mask, Matrix, as_text, guard, whole

_CELLS: Final = ("CellID", "obs_names", "cell_id", "barcode", "barcodes", "Barcode", "cell_names", "index")
_GENES: Final = ("Gene", "var_names", "gene_name", "gene_names", "Symbol", "symbol", "gene", "index")
_IDS: Final = ("Accession", "gene_ids", "gene_id", "ensembl_id", "EnsemblID")


def _attributes(group: h5py.Group, length: int, path: Path) -> dict[str, h5py.Dataset]:
    """Attributes with one value per cell (or gene), in the order of their names."""
    return {
        name: guard(group[name], path)
        for name in sorted(group)
        if isinstance(group[name], h5py.Dataset) and group[name].shape == (length,)
    }


def _key(attributes: Mapping[str, h5py.Dataset], names: Sequence[str], path: Path, what: str) -> str:
    found = next((name for name in names if name in attributes), None)
    if found is None:
        raise refuse(
            path,
            f"no names of {what} in the loom file",
            f"attributes {', '.join(attributes) or '(none)'}",
            f"one of {', '.join(names)}, one value per {what[:-1]}",
            f"add the attribute {names[0]}",
        )
    return found


def _slots(file: h5py.File, path: Path) -> dict[str, Matrix]:
    nodes = {"matrix": file.get("matrix")}
    layers = file.get("layers")
    if isinstance(layers, h5py.Group):
        nodes |= {f"layers['{name}']": layers[name] for name in sorted(layers)}
    return in_order(
        {
            words: DenseMatrix(node, path, turned=True)
            for words, node in nodes.items()
            if isinstance(node, h5py.Dataset) and len(node.shape) == 2
        }
    )


def _cells(file: h5py.File, slots: Mapping[str, Matrix], path: Path) -> dict[str, h5py.Dataset]:
    """Attributes of cells, after checking that all matrices are of one size."""
    shapes = {matrix.shape for matrix in slots.values()}
    if len(shapes) > 1:
        listed = ", ".join(f"{words} of {m.shape[1]:,} x {m.shape[0]:,}" for words, m in slots.items())
        raise refuse(path, "layers of different size", listed, "one size", "save the file again")
    return _attributes(file["col_attrs"], next(iter(shapes))[0], path)


def _selected(cells: Mapping[str, h5py.Dataset], request: Request, path: Path) -> Mask | None:
    if request.selection is None:
        return None
    request.selection.check(list(cells), path)
    return request.selection.rows(cells[request.selection.column][:], path)


def read_loom(path: Path, request: Request) -> RawMatrix:
    """Read a loom file: ``layers/counts`` or the main matrix (velocyto: spliced + unspliced), or the named layer."""
    with open_hdf5(path) as file, whole(path, "the loom file"):
        slots = _slots(file, path)
        named_slot(slots, request.layer, path)
        cells = _cells(file, slots, path)
        genes = _attributes(file["row_attrs"], next(iter(slots.values())).shape[1], path)
        cell_key, gene_key = _key(cells, _CELLS, path, "cells"), _key(genes, (*_GENES, *_IDS), path, "genes")
        rows = _selected(cells, request, path)
        counts, source, notes = choose(slots, path, layer=request.layer, platform=request.platform, rows=rows)
        names = as_text(genes[gene_key][:])
        ids = next((as_text(genes[name][:]) for name in _IDS if name in genes), None)
        obs = pd.DataFrame(
            {
                name: as_text(values[:]) if values.dtype.kind in "SO" else values[:]
                for name, values in cells.items()
                if name != cell_key
            },
            index=pd.Index(as_text(cells[cell_key][:]), dtype=object),
        )
    obs = obs if rows is None else obs[rows]
    raw = RawMatrix(counts, [str(name) for name in obs.index], names, obs=obs, source=source, warnings=notes)
    if ids is not None and looks_ensembl(ids) >= 0.5:
        raw.gene_ids = ids
    if rows is not None and request.selection is not None:
        raw.selected = request.selection.words(rows)
    return raw


def inspect_loom(path: Path, request: Request) -> tuple[int, int]:
    """Return cells and genes of a loom file from its headers."""
    with open_hdf5(path) as file, whole(path, "the header"):
        slots = _slots(file, path)
        words = named_slot(slots, request.layer, path)
        slots[words].check()
        cells = _cells(file, slots, path)
        n_cells, n_genes = slots[words].shape
        _key(cells, _CELLS, path, "cells")
        _key(_attributes(file["row_attrs"], n_genes, path), (*_GENES, *_IDS), path, "genes")
        rows = _selected(cells, request, path)
        return n_cells if rows is None else int(rows.sum()), n_genes


def loom_columns(path: Path) -> Sequence[str]:
    """Return the attributes of cells."""
    with open_hdf5(path) as file, whole(path, "the header"):
        slots = _slots(file, path)
        named_slot(slots, None, path)
        return list(_cells(file, slots, path))
