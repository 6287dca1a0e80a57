"""Opening zarr stores, which are folders: format 2 and 3, as anndata writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import zarr

from dtcflow.io.files import refuse
from dtcflow.io.stored import whole

MARKS: Final = frozenset({".zgroup", ".zattrs", ".zmetadata", "zarr.json"})
"""Files that only a zarr store has at its top."""


@contextmanager
def open_zarr(path: Path) -> Iterator[Any]:
    """Open a zarr store for reading."""
    with whole(path, "the zarr store"):
        # entry by entry: consolidated metadata is a copy, which need not agree with what would be read
        root = zarr.open_group(str(path), mode="r", use_consolidated=False)
    yield root


def check_zarr(path: Path) -> None:
    """Refuse a zarr store that is not one of anndata, and say what it is."""
    with open_zarr(path) as root, whole(path, "the zarr store"):
        keys = sorted(str(key) for key in root)
        inner = [f"tables/{key}" for key in root["tables"]] if "tables" in keys else []
        inner += [f"mod/{key}" for key in root["mod"]] if "mod" in keys else []
    if {"obs", "var"} <= set(keys):
        return
    raise refuse(
        path,
        "a zarr store, but not of one count matrix",
        f"entries {', '.join(keys[:20]) or '(none)'}",
        "a store as anndata writes it, with obs, var and X",
        f"give the path of its RNA table, for example {path / inner[0]}" if inner else "save the counts as .h5ad",
    )
