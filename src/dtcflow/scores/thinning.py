"""Binomial thinning of counts: fewer transcripts per cell, as if the same library had been sequenced less deeply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Integers = npt.NDArray[np.int64]

_SMALL: Final = 8
"""Up to this count every transcript gets a uniform number of its own: faster than a binomial draw."""


@dataclass(frozen=True)
class _Block:
    """Entries of the cells that share a random stream, in the order in which they are drawn.

    ``small`` holds, per count 1, 2, ..., the places of the entries and their shares; ``places``, ``counts`` and
    ``shares`` the other entries, sorted by share and count, because equal neighbours spare the generator its set-up.
    """

    small: tuple[tuple[Integers, npt.NDArray[np.float32]], ...]
    places: Integers
    counts: Integers
    shares: npt.NDArray[np.float64]


class Thinning:
    """Repeated thinning of the same cells.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers, no stored zeros.
    share
        One per cell, in [0, 1]: the probability with which each transcript is kept.
    group
        One per cell: cells of a group draw from one random stream, so that they do not depend on the other groups.

    Notes
    -----
    Given the streams, a draw depends on the cells of a group, their order and the order of the genes.
    """

    def __init__(self, counts: Any, share: npt.ArrayLike, group: npt.ArrayLike) -> None:
        self._counts = sp.csr_matrix(counts)
        per_cell, groups = np.asarray(share, dtype=np.float64), np.asarray(group, dtype=np.int64)
        n = self._counts.shape[0]
        if per_cell.shape != (n,) or groups.shape != (n,):
            raise ValueError(f"{n} cells need {n} shares and groups, found {per_cell.shape} and {groups.shape}")
        if n and not (per_cell.min() >= 0 and per_cell.max() <= 1):
            raise ValueError("shares must lie between 0 and 1")
        lengths = np.diff(self._counts.indptr)
        values = np.rint(self._counts.data).astype(np.int64)
        shares, owner = np.repeat(per_cell, lengths), np.repeat(groups, lengths)
        self._blocks = {int(one): _block(np.flatnonzero(owner == one), values, shares) for one in np.unique(groups)}

    def draw(self, streams: Callable[[int], np.random.Generator]) -> sp.csr_matrix[Any]:
        """Thin every cell once.

        Parameters
        ----------
        streams
            Gives the random stream of a group.

        Returns
        -------
        Cells x genes, float32, zeros removed.
        """
        kept = np.zeros(self._counts.nnz, dtype=np.int32)
        for name, block in self._blocks.items():
            rng = streams(name)
            for number, (places, shares) in enumerate(block.small, start=1):
                if places.size:
                    uniform = rng.random((number, places.size), dtype=np.float32)
                    kept[places] = np.add.reduce(uniform < shares, axis=0, dtype=np.uint8)
            if block.places.size:
                kept[block.places] = rng.binomial(block.counts, block.shares)
        left = np.flatnonzero(kept)
        pointer = np.searchsorted(left, self._counts.indptr)
        values = kept[left].astype(np.float32)
        return sp.csr_matrix((values, self._counts.indices[left], pointer), shape=self._counts.shape)


def _block(places: Integers, values: Integers, shares: npt.NDArray[np.float64]) -> _Block:
    own = values[places]
    small: Sequence[Integers] = [places[own == number] for number in range(1, _SMALL + 1)]
    large = places[own > _SMALL]
    large = large[np.lexsort((large, values[large], shares[large]))]
    return _Block(tuple((part, shares[part].astype(np.float32)) for part in small), large, values[large], shares[large])


def thin_counts(counts: Any, share: npt.ArrayLike, *, seed: int = 0) -> sp.csr_matrix[Any]:
    """Thin cells once, from one stream.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    share
        One per cell, in [0, 1].
    """
    matrix = sp.csr_matrix(counts)
    rng = np.random.default_rng(seed)
    return Thinning(matrix, share, np.zeros(matrix.shape[0], dtype=np.int64)).draw(lambda _: rng)
