"""A random order of cells that depends on their ids alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def stable_order(ids: Sequence[str], *, seed: int) -> npt.NDArray[np.uint64]:
    """Give every id a pseudo-random 64-bit key that depends on the id and the seed only.

    Sub-sampling and folds made from these keys do not change when cells are permuted or other cells are added.
    """
    salt = f"{seed}:".encode()
    return np.array(
        [int.from_bytes(hashlib.blake2b(salt + i.encode(), digest_size=8).digest(), "little") for i in ids],
        dtype=np.uint64,
    )
