"""A short fingerprint of every cell, by which cells that are in two samples are found without comparing matrices."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

MIN_GENES: Final = 50
"""Cells with fewer detected genes have no fingerprint of their content: two can be alike by chance."""
MAX_CELLS: Final = 50_000
"""Of a larger sample the cells with the smallest hash of their barcode stand for all: of a barcode that two samples
share, both keep the cell or neither does."""
_BLOCK: Final = 10_000
_SEQUENCE: Final = re.compile(r"[ACGTN]{8,}(?:[-_.+]?[ACGTN]{6,})*")
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)


def barcode_sequence(barcode: str) -> str:
    """Return the nucleotides of a barcode without what was added to it (``S1_AAAC...-1``), or "" when it has none.

    Parts of a combined barcode (``AAAC..._GGTT...``) stay together.
    """
    found = _SEQUENCE.findall(barcode)
    return max(found, key=len) if found else ""


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finalise 64-bit hashes (the mixing function of splitmix64, Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def content_hashes(counts: Any, symbols: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return one 64-bit hash per cell of its genes and their counts, whatever the order of the genes.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    symbols
        ``n_genes`` symbols.
    """
    matrix = sp.csr_matrix(counts)
    keys = np.array([_hash(str(symbol)) for symbol in symbols], dtype=np.uint64)
    out = np.zeros(matrix.shape[0], dtype=np.uint64)
    for start in range(0, matrix.shape[0], _BLOCK):
        block = matrix[start : start + _BLOCK]
        block.eliminate_zeros()
        # sums wrap around, on purpose: a sum does not depend on the order of the genes
        parts = _mix(keys[block.indices] + np.rint(block.data).astype(np.uint64) * _ODD)
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(parts, dtype=np.uint64)])
        out[start : start + _BLOCK] = running[block.indptr[1:]] - running[block.indptr[:-1]]
    return out


def cell_fingerprints(counts: Any, symbols: Sequence[str], barcodes: Sequence[str]) -> pd.DataFrame:
    """Return the fingerprints of a sample's cells.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    symbols, barcodes
        Names of genes and cells.

    Returns
    -------
    ``barcode`` (nucleotides only, or "" when the barcode is a name), ``content`` (16 hexadecimal digits, "" below
    :data:`MIN_GENES` detected genes), ``n_counts``, ``n_genes``; in the order of the cells, at most :data:`MAX_CELLS`.
    """
    matrix = sp.csr_matrix(counts)
    n_genes = np.asarray((matrix > 0).sum(axis=1)).ravel().astype(np.int64)
    hashes = content_hashes(matrix, symbols)
    frame = pd.DataFrame(
        {
            "barcode": pd.Series([barcode_sequence(str(barcode)) for barcode in barcodes], dtype=object),
            "content": pd.Series(
                [f"{value:016x}" if n >= MIN_GENES else "" for value, n in zip(hashes.tolist(), n_genes, strict=True)],
                dtype=object,
            ),
            "n_counts": np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64),
            "n_genes": n_genes,
        }
    )
    if len(frame) > MAX_CELLS:
        order = np.array(
            [_hash(sequence or str(name)) for sequence, name in zip(frame["barcode"], barcodes, strict=True)],
            dtype=np.uint64,
        )
        frame = frame.iloc[np.sort(np.argsort(order, kind="stable")[:MAX_CELLS])].reset_index(drop=True)
    return frame
