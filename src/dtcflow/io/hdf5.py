"""HDF5 inputs: opening them, telling their kind, and the two generations of 10x .h5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from dtcflow.io.files import refuse
from dtcflow.io.raw import RawMatrix, Request
from dtcflow.io.stored import Node, SparseMatrix, as_text, guard, guard_tree, whole


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; a truncated one ends in one message."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        text = str(error)
        found = "a file that ends too early" if "truncated" in text or "eof" in text else f"a damaged file ({text})"
        raise refuse(
            path, "truncated or damaged HDF5 file", found, "a complete .h5ad, .h5 or .loom", "copy or download it again"
        ) from error
    with file:
        yield file


def hdf5_format(path: Path, reads: str) -> str:
    """Return the format of an HDF5 file from its keys, or refuse it by name."""
    with open_hdf5(path) as file, whole(path, "the header"):
        keys = sorted(file.keys())
        groups = [key for key in keys if isinstance(file.get(key), h5py.Group)]
        if "obs" in keys and "var" in keys:
            return "h5ad"
        if "matrix" in groups and "barcodes" in file["matrix"]:
            return "10x_h5"
        if "row_attrs" in groups and "col_attrs" in groups:
            return "loom"
        if "mod" in groups:
            listed = ", ".join(file["mod"])
            raise refuse(path, "this is a MuData file", f"modalities {listed}", reads, "save its RNA part as .h5ad")
        if "assays" in groups and "cell.names" in keys:
            raise refuse(
                path, "this is an h5Seurat file", "h5Seurat", reads, "save the counts from R as a 10x folder or .h5ad"
            )
        if any({"barcodes", "indptr", "genes"} <= set(file[key]) for key in groups):
            return "10x_h5"
        if any("pandas_type" in file[key].attrs for key in groups):
            raise refuse(
                path,
                "a pandas HDFStore, which can hold Python pickles and is never opened",
                f"top-level keys {', '.join(keys[:20])}",
                reads,
                "save the table as .csv or .h5ad",
            )
    raise refuse(
        path,
        "an HDF5 file, but no count matrix",
        f"top-level keys {', '.join(keys[:20]) or '(none)'}",
        reads,
        "convert it to .h5ad",
    )


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


def _tenx_matrix(group: h5py.Group, features: Node, keys: tuple[str, str], path: Path) -> SparseMatrix:
    """Describe the matrix after checking that it fits its names."""
    n_genes, n_cells = (int(n) for n in guard(group["shape"], path)[:])
    n_barcodes, *n_names = (int(array.shape[0]) for array in (group["barcodes"], *(features[key] for key in keys)))
    if (n_barcodes, *n_names) != (n_cells, n_genes, n_genes):
        raise refuse(
            path,
            "matrix and names do not fit",
            f"a matrix of {n_genes:,} x {n_cells:,}, {n_names[1]:,} features, {n_barcodes:,} barcodes",
            "one name per row and column",
            "export the file again",
        )
    # stored as genes x cells by column, which is cells x genes by row
    matrix = SparseMatrix(group["data"], group["indices"], group["indptr"], (n_cells, n_genes), True, path)
    matrix.check()
    return matrix


def read_10x_h5(path: Path, _request: Request) -> RawMatrix:
    """Read a 10x .h5 (generation 2: a group per genome; generation 3: ``matrix/features``)."""
    with open_hdf5(path) as file, whole(path, "the 10x .h5"):
        group, third = _tenx_group(file, path)
        features = group["features"] if third else group
        keys = ("id", "name") if third else ("genes", "gene_names")
        matrix = _tenx_matrix(group, features, keys, path)
        guard_tree(features if third else group, path)
        guard(group["barcodes"], path)
        barcodes = as_text(group["barcodes"][:])
        ids, names = as_text(features[keys[0]][:]), as_text(features[keys[1]][:])
        types = as_text(features["feature_type"][:]) if third and "feature_type" in features else None
        genomes = as_text(features["genome"][:]) if third and "genome" in features else None
        counts = matrix.load()
    return RawMatrix(counts, barcodes, names, gene_ids=ids, feature_types=types, genomes=genomes)


def inspect_10x_h5(path: Path, _request: Request) -> tuple[int, int]:
    """Return cells and genes of a 10x .h5 from its headers."""
    with open_hdf5(path) as file, whole(path, "the header"):
        group, third = _tenx_group(file, path)
        keys = ("id", "name") if third else ("genes", "gene_names")
        return _tenx_matrix(group, group["features"] if third else group, keys, path).shape
