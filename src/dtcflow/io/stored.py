"""Matrices that lie in HDF5 or zarr: checked by their headers, then read in blocks, only the rows that are wanted.

No array is trusted. Before a byte of it is read its codec must be a plain one (nothing is ever unpickled), its values
must lie in this very input, and its announced size must be explained by what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import zarr

from dtcflow.contracts import InputError
from dtcflow.io.files import check_announced, refuse
from dtcflow.io.values import MAX_EXACT

BLOCK: Final = 8_000_000
"""Values that are in memory at a time beside the result."""
MAX_SIDE: Final = 2**31 - 1
"""Most cells or genes; 32-bit indices reach so far."""
_DEEPEST: Final = 4
_BLOSC_HEADER: Final = 16
_CODECS: Final = frozenset(
    {"bytes", "blosc", "gzip", "zlib", "zstd", "lz4", "bz2", "lzma", "crc32", "crc32c", "adler32", "fletcher32"}
    | {"shuffle", "delta", "bitround", "packbits", "fixedscaleoffset", "astype", "transpose", "sharding_indexed"}
    | {"vlen-utf8"}
)
"""Codecs that turn bytes into numbers or text and do nothing else; ``pickle`` and its like are not among them."""

Mask = npt.NDArray[np.bool_]
Node = Any
"""A group or array of h5py or zarr; the two offer the same."""


def is_group(node: Node) -> bool:
    """Whether a node of HDF5 or zarr is a group."""
    return isinstance(node, h5py.Group | zarr.Group)


def is_array(node: Node) -> bool:
    """Whether a node of HDF5 or zarr is an array."""
    return isinstance(node, h5py.Dataset | zarr.Array)


@contextmanager
def whole(path: Path, part: str) -> Iterator[None]:
    """Turn what h5py, zarr and anndata raise on damaged content into one message."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise refuse(
            path, f"{part} does not fit into memory", str(error) or "too large", "enough memory", "ask for more memory"
        ) from error
    except Exception as error:  # a damaged file makes these libraries raise nearly anything
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise refuse(
            path,
            f"{part} cannot be read",
            f"a damaged or unknown entry ({text[:200]})",
            "a complete file",
            "copy the file again, or save it again with a current anndata",
        ) from error


def as_text(values: Any) -> list[str]:
    """Return names as text, whether they were stored as text or as bytes."""
    return [
        value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
        for value in np.asarray(values)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Is it safe to read?
# ---------------------------------------------------------------------------------------------------------------------


def _codecs(entry: Any) -> Iterator[str]:
    """Every codec that the metadata of a zarr array names, those inside of other codecs too."""
    if isinstance(entry, dict):
        name = entry.get("id", entry.get("name"))
        if isinstance(name, str):
            yield name.removeprefix("numcodecs.")
        inner = entry.get("configuration", {})
        for key in ("codecs", "index_codecs"):
            yield from _codecs(inner.get(key) if isinstance(inner, dict) else None)
    elif isinstance(entry, list | tuple):
        for part in entry:
            yield from _codecs(part)


def _guard_zarr(array: Any, path: Path) -> int:
    metadata = array.metadata.to_dict()
    used = [name for key in ("codecs", "filters", "compressor") for name in _codecs(metadata.get(key))]
    kind = metadata.get("dtype", metadata.get("data_type"))
    foreign = sorted({name for name in used if name not in _CODECS})
    if foreign or (kind == "|O" and "vlen-utf8" not in used):
        raise refuse(
            path,
            "an array of Python objects or with an unknown codec, which is never opened (it can run code)",
            f"{array.path}: {kind}, codec {', '.join(foreign or used) or 'none'}",
            "numbers, or text as anndata writes it",
            "save it again with a current anndata",
        )
    if used[-1:] == ["blosc"]:
        _check_blosc(array, path)
    return int(array.nbytes_stored())


def _check_blosc(array: Any, path: Path) -> None:
    """Refuse cut chunks: blosc does not look where its input ends, and would read foreign memory."""
    folder = path / array.path
    for chunk in sorted(part for part in folder.rglob("*") if part.is_file()):
        if chunk.name in (".zarray", ".zattrs", "zarr.json"):
            continue
        size = chunk.stat().st_size
        with chunk.open("rb") as handle:
            header = handle.read(_BLOSC_HEADER)
        if len(header) < _BLOSC_HEADER or int.from_bytes(header[12:16], "little") != size:
            raise refuse(
                path,
                "truncated or damaged zarr store",
                f"a chunk that is not as long as it says: {chunk.relative_to(path)}",
                "complete chunks",
                "copy the whole folder again",
            )


def _guard_hdf5(array: h5py.Dataset, path: Path) -> int:
    if array.external or array.is_virtual or Path(array.file.filename) != path:
        raise refuse(
            path,
            "values that lie in another file",
            f"{array.name} points to another file",
            "a file that holds all of its values",
            "copy the values into one file (save it again with anndata)",
        )
    return int(array.id.get_storage_size())


def guard(array: Node, path: Path) -> Node:
    """Return ``array`` when it is safe to read: a plain codec, in this file, as large as announced."""
    stored = _guard_hdf5(array, path) if isinstance(array, h5py.Dataset) else _guard_zarr(array, path)
    announced = int(np.prod([int(n) for n in array.shape], dtype=object)) * max(1, getattr(array.dtype, "itemsize", 1))
    check_announced(path, str(getattr(array, "name", "")).lstrip("/") or "an array", announced, stored)
    return array


def guard_tree(node: Node, path: Path, depth: int = 0) -> None:
    """Check every array below a node; a group that holds itself ends in a message."""
    if is_array(node):
        guard(node, path)
        return
    if depth > _DEEPEST:
        raise refuse(path, "groups nested too deep", node.name, "a table of cells or genes", "save the file again")
    for key in node:
        guard_tree(node[key], path, depth + 1)


def numeric(array: Node, path: Path, kinds: str = "iufb") -> Node:
    """Return ``array`` when it can be read and holds numbers."""
    kind = getattr(array.dtype, "kind", "O")
    if kind not in kinds:
        raise refuse(
            path, "the matrix does not hold numbers", f"values of type {array.dtype}", "numbers", "export it again"
        )
    return guard(array, path)


def to_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Cast to float32 so that finite stays finite and what is too large for a count stays too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(np.float32)
        large = values > MAX_EXACT
        if large.any():
            limit = np.finfo(np.float32)
            beyond = np.nextafter(np.float32(MAX_EXACT), limit.max)
            cast[large & np.isfinite(values)] = np.clip(cast[large & np.isfinite(values)], beyond, limit.max)
        low = np.isneginf(cast) & np.isfinite(values)
        cast[low] = np.finfo(np.float32).min
    return cast


def _damaged(path: Path, what: str) -> InputError:
    return refuse(
        path,
        "the matrix is damaged",
        f"sparse arrays that do not fit each other ({what})",
        "a consistent matrix",
        "copy or export it again",
    )


def _check_side(path: Path, shape: tuple[int, int]) -> None:
    if not all(0 <= side <= MAX_SIDE for side in shape):
        raise _damaged(path, f"a shape of {shape[0]:,} x {shape[1]:,}")


# ---------------------------------------------------------------------------------------------------------------------
# Matrices
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SparseMatrix:
    """Cells x genes as three arrays; ``by_cells`` tells whether ``indptr`` runs over cells (CSR) or genes (CSC)."""

    data: Node
    indices: Node
    indptr: Node
    shape: tuple[int, int]
    by_cells: bool
    path: Path

    @property
    def blockwise(self) -> bool:
        """Whether a few cells can be read without reading all."""
        return self.by_cells

    def check(self) -> None:
        """Check sizes and kinds of the three arrays from their headers.

        Raises
        ------
        InputError
            When they do not fit each other or the shape, or are larger than what is stored explains.
        """
        numeric(self.data, self.path)
        for array in (self.indices, self.indptr):
            numeric(array, self.path, kinds="iu")
        _check_side(self.path, self.shape)
        major = self.shape[0 if self.by_cells else 1]
        sizes = [array.shape for array in (self.data, self.indices, self.indptr)]
        if any(len(size) != 1 for size in sizes):
            raise _damaged(self.path, "arrays that are not one-dimensional")
        if sizes[2][0] != major + 1:
            raise _damaged(self.path, f"indptr of {sizes[2][0]:,} entries for {major:,} rows or columns")
        if sizes[0] != sizes[1]:
            raise _damaged(self.path, f"{sizes[0][0]:,} values, {sizes[1][0]:,} indices")
        self._check_chunks()

    def _check_chunks(self) -> None:
        """A copy of a zarr store that lacks chunks would be read as zeros."""
        n_rows = self.shape[0 if self.by_cells else 1]
        for array in (self.data, self.indices):
            # a chunk of zeros is not written; among indices there can be one only when no row has two entries
            if isinstance(array, zarr.Array) and (array is self.data or array.shape[0] > n_rows):
                absent = array.nchunks - array.nchunks_initialized
                if absent:
                    raise refuse(
                        self.path,
                        "the zarr store is not complete",
                        f"{absent:,} of {array.nchunks:,} chunks of {array.path} are not there",
                        "all chunks",
                        "copy the whole folder again",
                    )

    def _pointers(self) -> npt.NDArray[np.int64]:
        pointers = np.asarray(self.indptr[:]).astype(np.int64)
        size = int(self.data.shape[0])
        if pointers[0] != 0 or pointers[-1] != size or (np.diff(pointers) < 0).any():
            raise _damaged(self.path, f"indptr does not rise from 0 to {size:,}")
        return pointers

    def load(self, rows: Mask | None = None) -> sp.csr_matrix:
        """Read the cells of ``rows`` (all when None): cells x genes, CSR, float32, canonical."""
        self.check()
        pointers = self._pointers()
        n_minor = self.shape[1 if self.by_cells else 0]
        major, minor = (rows, None) if self.by_cells else (None, rows)
        lengths = np.diff(pointers)
        kept = lengths if major is None else lengths[major]
        new_number = None if minor is None else np.cumsum(minor) - 1
        room = int(kept.sum())
        wide = np.int64 if room > MAX_SIDE else np.int32
        values, places = np.empty(room, dtype=np.float32), np.empty(room, dtype=wide)
        counts = np.zeros(lengths.size, dtype=np.int64)
        filled = 0
        for first, last in _spans(pointers):
            if major is not None and not major[first:last].any():
                continue
            low, high = int(pointers[first]), int(pointers[last])
            index = np.asarray(self.indices[low:high])
            if index.size and (int(index.min()) < 0 or int(index.max()) >= n_minor):
                raise _damaged(self.path, f"an index beyond {n_minor:,}")
            value = np.asarray(self.data[low:high])
            if major is None and minor is None:
                counts[first:last] = lengths[first:last]
            else:
                owner = np.repeat(np.arange(last - first), lengths[first:last])
                wanted = major[first + owner] if major is not None else minor[index]  # type: ignore[index]
                index, value = index[wanted], value[wanted]
                counts[first:last] = np.bincount(owner[wanted], minlength=last - first)
            places[filled : filled + index.size] = index if new_number is None else new_number[index]
            values[filled : filled + index.size] = to_float32(value)
            filled += index.size
        if major is not None:
            counts = counts[major]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(wide)
        arrays: Any = (values[:filled], places[:filled], starts)
        n_cells = self.shape[0] if rows is None else int(rows.sum())
        shape = (n_cells, self.shape[1])
        maker = sp.csr_matrix if self.by_cells else sp.csc_matrix
        result = sp.csr_matrix(maker(arrays, shape=shape))
        result.sum_duplicates()
        return result


def _spans(pointers: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut rows into runs of about :data:`BLOCK` stored values; a single row is never cut."""
    first, n_rows = 0, pointers.size - 1
    while first < n_rows:
        last = int(np.searchsorted(pointers, pointers[first] + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), n_rows)
        yield first, last
        first = last


@dataclass(frozen=True)
class DenseMatrix:
    """Cells x genes as one array; ``turned`` when the array is genes x cells, as in loom."""

    values: Node
    path: Path
    turned: bool = False
    blockwise: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        first, second = (int(n) for n in self.values.shape)
        return (second, first) if self.turned else (first, second)

    def check(self) -> None:
        """Check kind and size of the array from its header."""
        numeric(self.values, self.path)
        _check_side(self.path, self.shape)

    def load(self, rows: Mask | None = None) -> sp.csr_matrix:
        """Read the cells of ``rows`` (all when None): cells x genes, CSR, float32."""
        self.check()
        n_cells, n_genes = self.shape
        axis = 1 if self.turned else 0
        chunk = int((self.values.chunks or (1, 1))[axis])
        # whole chunks, because a packed chunk is unpacked as a whole each time one of its rows is read
        step = max(1, BLOCK // max(1, n_genes))
        step = max(chunk, step // chunk * chunk) if chunk * n_genes <= 4 * BLOCK else step
        blocks = []
        for first in range(0, n_cells, step):
            wanted = None if rows is None else rows[first : first + step]
            if wanted is not None and not wanted.any():
                continue
            part = slice(first, min(first + step, n_cells))
            block = np.asarray(self.values[:, part]).T if self.turned else np.asarray(self.values[part])
            blocks.append(sp.csr_matrix(to_float32(block if wanted is None else block[wanted])))
        if not blocks:
            return sp.csr_matrix(np.zeros((0, n_genes), dtype=np.float32))
        return sp.csr_matrix(sp.vstack(blocks, format="csr"))


Matrix = SparseMatrix | DenseMatrix


def head(matrix: Matrix, rows: Mask | None, count: int = 1000) -> sp.csr_matrix:
    """Read the first ``count`` cells (of ``rows``), enough to see that values are not counts."""
    matrix.check()  # before anything of the announced size is made
    chosen = np.ones(matrix.shape[0], dtype=np.bool_) if rows is None else rows.copy()
    chosen[np.cumsum(chosen) > count] = False
    return matrix.load(chosen)
