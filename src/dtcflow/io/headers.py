"""Gene names of an input without its counts: what :func:`dtcflow.io.checks.check_study` tells before a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from dtcflow.contracts import InputError
from dtcflow.io.detect import MATRIX_MARKET
from dtcflow.io.files import open_binary
from dtcflow.io.folders import folder_files, matrix_files
from dtcflow.io.hdf5 import open_hdf5
from dtcflow.io.names import share_known
from dtcflow.io.stored import as_text
from dtcflow.io.zarr_store import open_zarr

_ROWS: Final = 200
"""Rows of a dense table whose names are read."""
_LINE: Final = 64_000_000
_NAMED: Final = 0.5
"""A list of names of which fewer are known is compared with the other columns of the table of genes."""
_COLUMNS: Final = (
    *("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id", "Accession", "ensembl_gene_id"),
    *("gene_name", "gene_names", "feature_name", "gene_symbol", "gene_symbols", "symbol", "hgnc_symbol", "Gene"),
)


@dataclass(frozen=True)
class GeneNames:
    """Names of the genes of an input."""

    names: Sequence[str]
    """All of them; of a dense table with genes in rows the first 200."""
    genomes: Sequence[str] = ()
    """Genomes that the file names, sorted."""
    complete: bool = True


def _dataset(node: Any) -> list[str]:
    """Text of one column of a table of genes: plain, with a mask, or categories and codes."""
    if isinstance(node, h5py.Dataset):
        return as_text(node[:])
    if isinstance(node, h5py.Group) and "values" in node:
        return _dataset(node["values"])
    if isinstance(node, h5py.Group) and {"categories", "codes"} <= set(node):
        categories = np.array(_dataset(node["categories"]), dtype=object)
        codes = np.asarray(node["codes"][:])
        return [str(categories[code]) if code >= 0 else "" for code in codes]
    return []


def _of_table(node: Any) -> list[list[str]]:
    """Index and then the columns that can hold names, of a table of genes in an .h5ad of any age."""
    if isinstance(node, h5py.Dataset):  # records, before anndata 0.7
        fields = list(node.dtype.names or ())
        index = next((field for field in ("index", "_index") if field in fields), fields[0] if fields else "")
        order = [index, *(field for field in _COLUMNS if field in fields)]
        return [as_text(node[field]) for field in order if field and node.dtype[field].kind in "SO"]
    index = node.attrs.get("_index", "_index")
    index = index.decode() if isinstance(index, bytes) else str(index)
    found = [_dataset(node[index])] if index in node else []
    if found and share_known(found[0]) >= _NAMED:
        return found
    return found + [_dataset(node[column]) for column in _COLUMNS if column in node]


def _best(candidates: Sequence[Sequence[str]]) -> Sequence[str]:
    return max(candidates, key=share_known) if candidates else []


def _h5ad(path: Path) -> GeneNames:
    with open_hdf5(path) as file:
        candidates = _of_table(file["var"])
        if share_known(_best(candidates)) < _NAMED and isinstance(file.get("raw"), h5py.Group) and "var" in file["raw"]:
            candidates += _of_table(file["raw"]["var"])
        genomes = (
            _dataset(file["var"]["genome"]) if isinstance(file["var"], h5py.Group) and "genome" in file["var"] else []
        )
    return GeneNames(_best(candidates), sorted(set(genomes) - {""}))


def _tenx_h5(path: Path) -> GeneNames:
    with open_hdf5(path) as file:
        if "matrix" in file:
            features = file["matrix"]["features"]
            genomes = sorted(set(_dataset(features["genome"]))) if "genome" in features else []
            candidates = [_dataset(features[key]) for key in ("name", "id") if key in features]
        else:
            genomes = [name for name in file if isinstance(file[name], h5py.Group) and "indptr" in file[name]]
            candidates = [
                _dataset(file[genome][key])
                for genome in genomes
                for key in ("gene_names", "genes")
                if key in file[genome]
            ]
    return GeneNames(_best(candidates), [genome for genome in genomes if genome])


def _zarr(path: Path) -> GeneNames:
    with open_zarr(path) as store:
        index = store["var"][str(store["var"].attrs.get("_index", "_index"))]
        return GeneNames(as_text(index[:]))


def _loom(path: Path) -> GeneNames:
    with open_hdf5(path) as file:
        rows = file["row_attrs"]
        return GeneNames(_best([as_text(rows[key][:]) for key in ("Gene", *_COLUMNS) if key in rows]))


def _folder(path: Path) -> GeneNames:
    files = folder_files(path) if path.is_dir() else matrix_files(path)
    with open_binary(files.features) as handle:
        rows = [line.rstrip("\r\n").split("\t") for line in io.TextIOWrapper(handle, encoding="utf-8-sig")]
    rows = [row for row in rows if any(row)]
    columns = range(min(2, min(map(len, rows), default=0)))
    return GeneNames(_best([[row[column].strip() for row in rows] for column in columns]))


def _table(path: Path) -> GeneNames:
    """Names of the header and of the first rows; genes are where more are known."""
    rows: list[str] = []
    header: list[str] = []
    with open_binary(path) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig")
        while len(rows) < _ROWS and (line := text.readline(_LINE)):
            if not header and (line.startswith("#") or not line.strip()):
                continue
            if not header:
                separator = max("\t,;", key=line.count)
                header = [name.strip() for name in next(csv.reader([line.rstrip("\r\n")], delimiter=separator))]
            elif line.strip():
                rows.append(line.split(separator, 1)[0].strip().strip('"'))
    columns = header[1:] if header and share_known(header[:1]) == 0 else header
    if share_known(rows) > share_known(columns):
        return GeneNames(rows, complete=len(rows) < _ROWS)
    return GeneNames(columns)


_READERS: Final[Mapping[str, Callable[[Path], GeneNames]]] = {
    "h5ad": _h5ad,
    "10x_h5": _tenx_h5,
    "zarr": _zarr,
    "loom": _loom,
    **dict.fromkeys(MATRIX_MARKET, _folder),
    "csv": _table,
    "tsv": _table,
}


def read_gene_names(path: str | Path, kind: str) -> GeneNames | None:
    """Return the gene names of an input without reading a count.

    Parameters
    ----------
    path
        The input.
    kind
        Its format, as :func:`dtcflow.io.readers.inspect_matrix` tells it.

    Returns
    -------
    Of several lists of names in the file (symbols, Ensembl ids) the one of which more are known. None for a format of
    which the names are not read here, and for a file whose names cannot be read: the run will say what is wrong.

    Raises
    ------
    InputError
        As :func:`dtcflow.io.readers.read_matrix`, for a damaged file.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return None
    try:
        return reader(Path(path))
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, csv.Error):
        return None
