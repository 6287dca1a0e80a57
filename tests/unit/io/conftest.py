"""Tiny inputs, made on the fly."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

GENES = ["ACTB", "GAPDH", "KRT8", "KRT18", "EPCAM", "MT-CO1", "CD3E", "PTPRC"]
IDS = [f"ENSG{number:011d}" for number in range(1, len(GENES) + 1)]


@pytest.fixture
def counts() -> np.ndarray:
    """6 cells x 8 genes; every cell has a 1 and a total of its own."""
    values = np.random.default_rng(3).poisson(3, (6, 8)).astype(np.float32)
    values[:, 0] = 1
    values[:, 1] = [300, 20, 77, 41, 5, 9]
    return values


@pytest.fixture
def barcodes() -> list[str]:
    return [f"AAAC{letter}-1" for letter in "ABCDEF"]


@pytest.fixture
def write_h5ad(tmp_path: Path, barcodes: list[str]) -> Callable[..., Path]:
    def write(values: Any, *, name: str = "a b.h5ad", obs: pd.DataFrame | None = None, **slots: Any) -> Path:
        n_cells, n_genes = values.shape if values is not None else slots["shape"]
        index = [*barcodes, *(f"more{i}" for i in range(n_cells))][:n_cells]
        genes = slots.pop("genes", None) or [*GENES, *(f"GENE{i}" for i in range(n_genes))][:n_genes]
        slots.pop("shape", None)
        raw = slots.pop("raw", None)
        cells = pd.DataFrame(index=index) if obs is None else obs.set_axis(index, axis=0)
        adata = ad.AnnData(X=values, obs=cells, var=pd.DataFrame(index=genes), **slots)
        if raw is not None:
            adata.raw = ad.AnnData(X=raw, obs=cells, var=pd.DataFrame(index=genes))
        path = tmp_path / name
        adata.write_h5ad(path)
        return path

    return write


@pytest.fixture
def write_10x_h5(tmp_path: Path, barcodes: list[str]) -> Callable[..., Path]:
    def write(values: np.ndarray, *, generation: int = 3, types: list[str] | None = None, **options: Any) -> Path:
        path = tmp_path / f"v{generation}.h5"
        matrix = sp.csr_matrix(values)  # cells x genes by row is genes x cells by column
        with h5py.File(path, "w") as file:
            for genome in options.get("genomes", ["GRCh38"]) if generation == 2 else ["matrix"]:
                group = file.create_group(genome)
                group["data"] = matrix.data.astype(np.int32)
                group["indices"] = options.get("indices", matrix.indices)
                group["indptr"] = matrix.indptr
                group["shape"] = np.array([values.shape[1], values.shape[0]])
                group["barcodes"] = np.array(barcodes[: values.shape[0]], dtype="S")
                names = np.array(GENES[: values.shape[1]], dtype="S")
                ids = np.array(IDS[: values.shape[1]], dtype="S")
                if generation == 2:
                    group["genes"], group["gene_names"] = ids, names
                else:
                    features = group.create_group("features")
                    features["id"], features["name"] = ids, names
                    features["feature_type"] = np.array(types or ["Gene Expression"] * len(names), dtype="S")
                    features["genome"] = np.array(options.get("genomes", ["GRCh38"] * len(names)), dtype="S")
        return path

    return write


@pytest.fixture
def write_10x_folder(tmp_path: Path, barcodes: list[str]) -> Callable[..., Path]:
    def write(
        values: np.ndarray, *, generation: int = 3, packed: bool = True, prefix: str = "", **options: Any
    ) -> Path:
        folder = tmp_path / options.get("name", "folder 1")
        folder.mkdir()
        names = options.get("genes", GENES[: values.shape[1]])
        types = options.get("types", ["Gene Expression"] * len(names))
        rows = [[i, n, t] if generation == 3 else [i, n] for i, n, t in zip(IDS, names, types, strict=False)]
        scipy.io.mmwrite(folder / "m.mtx", sp.coo_matrix(values.T.astype(int)))
        texts = {
            "matrix.mtx": (folder / "m.mtx").read_text(),
            ("features.tsv" if generation == 3 else "genes.tsv"): "".join("\t".join(row) + "\n" for row in rows),
            "barcodes.tsv": "".join(f"{b}\n" for b in options.get("barcodes", barcodes)[: values.shape[0]]),
        }
        (folder / "m.mtx").unlink()
        for name, text in texts.items():
            if packed:
                (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
            else:
                (folder / f"{prefix}{name}").write_text(text)
        return folder

    return write
