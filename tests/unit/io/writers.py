"""One small matrix written in every format that is read; each writer returns the path to give to the reader."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

GENES = ["ACTB", "GAPDH", "KRT8", "KRT18", "EPCAM", "MT-CO1", "CD3E", "PTPRC"]
IDS = [f"ENSG{number:011d}" for number in range(1, len(GENES) + 1)]
BARCODES = [f"AAAC{letter}-1" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]


def counts_of(n_cells: int = 6, seed: int = 3) -> np.ndarray:
    """Cells x 8 genes; every cell has a 1 and a total of its own."""
    values = np.random.default_rng(seed).poisson(3, (n_cells, len(GENES)))
    values[:, 0] = 1
    values[:, 1] += np.arange(n_cells) * 7
    return values.astype(np.float32)


def names_of(values: np.ndarray) -> list[str]:
    return [BARCODES[i] if i < len(BARCODES) else f"CELL{i}-1" for i in range(values.shape[0])]


def anndata_of(values: Any, **slots: Any) -> ad.AnnData:
    obs = pd.DataFrame(index=names_of(values))
    return ad.AnnData(X=values, obs=obs, var=pd.DataFrame({"gene_ids": IDS}, index=GENES), **slots)


def text(path: Path, content: str, *, packed: bool = False) -> Path:
    path.write_bytes(gzip.compress(content.encode(), mtime=0) if packed else content.encode())
    return path


def mtx(values: np.ndarray, *, cells_in_rows: bool = False, kind: str = "integer", shuffled: bool = False) -> str:
    """Matrix Market text of cells x genes ``values``, stored as genes x cells unless ``cells_in_rows``."""
    matrix = sp.coo_matrix(values if cells_in_rows else values.T)
    table = pd.DataFrame({"row": matrix.row + 1, "column": matrix.col + 1, "value": matrix.data})
    if shuffled:
        table = table.sample(frac=1, random_state=0)
    else:  # as the programs write it: cell after cell
        table = table.sort_values(["row", "column"] if cells_in_rows else ["column", "row"])
    head = f"%%MatrixMarket matrix coordinate {kind} general\n% made here\n"
    size = f"{matrix.shape[0]} {matrix.shape[1]} {len(table)}\n"
    return head + size + table.to_csv(sep=" ", header=False, index=False, float_format="%g")


def lines(names: list[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def h5ad(folder: Path, values: np.ndarray) -> Path:
    anndata_of(sp.csr_matrix(values)).write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


def h5ad_csc_layer(folder: Path, values: np.ndarray) -> Path:
    anndata_of(values / 3, layers={"counts": sp.csc_matrix(values)}).write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


def h5ad_raw(folder: Path, values: np.ndarray) -> Path:
    adata = anndata_of(sp.csr_matrix(values))
    adata.raw = adata.copy()
    adata.X = np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4)
    adata[:, :5].copy().write_h5ad(folder / "a.h5ad", compression="gzip")
    return folder / "a.h5ad"


def _zarr(folder: Path, values: np.ndarray, version: int, make: Callable[..., Any]) -> Path:
    before = ad.settings.zarr_write_format
    ad.settings.zarr_write_format = version
    try:
        anndata_of(make(values)).write_zarr(folder / "a.zarr")
    finally:
        ad.settings.zarr_write_format = before
    return folder / "a.zarr"


def zarr_2(folder: Path, values: np.ndarray) -> Path:
    return _zarr(folder, values, 2, sp.csr_matrix)


def zarr_3(folder: Path, values: np.ndarray) -> Path:
    return _zarr(folder, values, 3, sp.csc_matrix)


def zarr_dense(folder: Path, values: np.ndarray) -> Path:
    return _zarr(folder, values, 3, np.asarray)


def loom(folder: Path, values: np.ndarray, **layers: np.ndarray) -> Path:
    with h5py.File(folder / "a.loom", "w") as file:
        file.create_dataset("matrix", data=values.T, chunks=True, compression="gzip")
        file.create_group("layers")
        for name, layer in layers.items():
            file["layers"][name] = layer.T
        file["row_attrs/Gene"] = GENES
        file["row_attrs/Accession"] = np.array(IDS, dtype="S")
        file["col_attrs/CellID"] = names_of(values)
        file["col_attrs/donor"] = ["P1" if i % 2 else "P2" for i in range(values.shape[0])]
        file["col_attrs/embedding"] = np.zeros((values.shape[0], 2))
    return folder / "a.loom"


def tenx_h5_2(folder: Path, values: np.ndarray) -> Path:
    return tenx_h5(folder, values, generation=2)


def tenx_h5(folder: Path, values: np.ndarray, *, generation: int = 3) -> Path:
    matrix = sp.csr_matrix(values)
    with h5py.File(folder / "m.h5", "w") as file:
        group = file.create_group("matrix" if generation == 3 else "GRCh38")
        for name, array in (("data", matrix.data.astype(np.int32)), ("indices", matrix.indices.astype(np.int64))):
            group.create_dataset(name, data=array, chunks=True, compression="gzip")
        group["indptr"] = matrix.indptr.astype(np.int64)
        group["shape"] = np.array(values.shape[::-1], dtype=np.int32)
        group["barcodes"] = np.array(names_of(values), dtype="S")
        if generation == 2:
            group["genes"], group["gene_names"] = np.array(IDS, dtype="S"), np.array(GENES, dtype="S")
        else:
            group["features/id"], group["features/name"] = np.array(IDS, dtype="S"), np.array(GENES, dtype="S")
            group["features/feature_type"] = np.array(["Gene Expression"] * len(IDS), dtype="S")
            group["features/genome"] = np.array(["GRCh38"] * len(IDS), dtype="S")
    return folder / "m.h5"


def tenx_folder(folder: Path, values: np.ndarray, *, packed: bool = True, prefix: str = "") -> Path:
    end = ".gz" if packed else ""
    features = lines([f"{i}\t{name}\tGene Expression" for i, name in zip(IDS, GENES, strict=True)])
    text(folder / f"{prefix}matrix.mtx{end}", mtx(values), packed=packed)
    text(folder / f"{prefix}features.tsv{end}", features, packed=packed)
    text(folder / f"{prefix}barcodes.tsv{end}", lines(names_of(values)), packed=packed)
    return folder


def starsolo(folder: Path, values: np.ndarray) -> Path:
    for feature in ("Gene", "GeneFull"):
        for kind in ("filtered", "raw"):
            (folder / "Solo.out" / feature / kind).mkdir(parents=True)
            tenx_folder(folder / "Solo.out" / feature / kind, values, packed=False)
    (folder / "Solo.out" / "Velocyto" / "filtered").mkdir(parents=True)
    for part in ("spliced", "unspliced", "ambiguous"):
        text(folder / "Solo.out" / "Velocyto" / "filtered" / f"{part}.mtx", mtx(values))
    text(folder / "Solo.out" / "Gene" / "raw" / "UniqueAndMult-EM.mtx", mtx(values / 3, kind="real"))
    text(folder / "Solo.out" / "Gene" / "Summary.csv", "Number of Reads,10\n")
    return folder / "Solo.out" / "Gene" / "filtered"


def alevin(folder: Path, values: np.ndarray) -> Path:
    text(folder / "quants_mat.mtx", mtx(values, cells_in_rows=True, kind="real"))
    text(folder / "quants_mat_rows.txt", lines(names_of(values)))
    text(folder / "quants_mat_cols.txt", lines(IDS))
    return folder


def alevin_parts(folder: Path, values: np.ndarray) -> Path:
    """Spliced, unspliced and ambiguous counts, of which the first and the last add up to ``values``."""
    ambiguous = np.minimum(values, 2)
    parts = np.hstack([values - ambiguous, values + 5, ambiguous])
    text(folder / "quants_mat.mtx", mtx(parts, cells_in_rows=True, kind="real"))
    text(folder / "quants_mat_rows.txt", lines(names_of(values)))
    text(folder / "quants_mat_cols.txt", lines([*IDS, *(f"{i}-U" for i in IDS), *(f"{i}-A" for i in IDS)]))
    return folder


def kb(folder: Path, values: np.ndarray, *, matrix: str = "cells_x_genes") -> Path:
    text(folder / f"{matrix}.mtx", mtx(values, cells_in_rows=True, kind="real"))
    text(folder / "cells_x_genes.barcodes.txt", lines(names_of(values)))
    text(folder / "cells_x_genes.genes.txt", lines([f"{i}.7" for i in IDS]))
    text(folder / "cells_x_genes.genes.names.txt", lines(GENES))
    return folder


def kb_sums(folder: Path, values: np.ndarray) -> Path:
    for part in ("nascent", "mature", "ambiguous", "total"):
        kb(folder, values + 1, matrix=f"cells_x_genes.{part}")
    return kb(folder, values, matrix="cells_x_genes.cell")


def bustools(folder: Path, values: np.ndarray) -> Path:
    text(folder / "gene.mtx", mtx(values, cells_in_rows=True, kind="real"))
    text(folder / "gene.barcodes.txt", lines(names_of(values)))
    text(folder / "gene.genes.txt", lines(IDS))
    return folder / "gene.mtx"


def parse_biosciences(folder: Path, values: np.ndarray) -> Path:
    text(folder / "DGE.mtx", mtx(values, cells_in_rows=True))
    rows = [f"{i},{name},hg38" for i, name in zip(IDS, GENES, strict=True)]
    text(folder / "all_genes.csv", lines(["gene_id,gene_name,genome", *rows]))
    text(folder / "cell_metadata.csv", lines(["bc_wells,sample", *(f"{name},s1" for name in names_of(values))]))
    return folder


def written_from_r(folder: Path, values: np.ndarray) -> Path:
    text(folder / "GSE1_P1_counts.mtx.gz", mtx(values, shuffled=True), packed=True)
    rows = [f'"{n}","{gene}"' for n, gene in enumerate(GENES, 1)]
    text(folder / "GSE1_P1_genes.csv", '"","x"\r\n' + "\r\n".join(rows) + "\r\n")
    text(folder / "GSE1_P1_cells.txt", lines(names_of(values)))
    text(folder / "GSE1_P2_cells.txt", lines(["other"]))
    return folder / "GSE1_P1_counts.mtx.gz"


def array_mtx(folder: Path, values: np.ndarray) -> Path:
    head = f"%%MatrixMarket matrix array integer general\n{values.shape[1]} {values.shape[0]}\n"
    text(folder / "x.mtx", head + lines([f"{value:g}" for value in values.ravel()]))
    text(folder / "genes.tsv", lines(GENES))
    text(folder / "barcodes.tsv", lines(names_of(values)))
    return folder / "x.mtx"


def _table(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values.astype(int), index=names_of(values), columns=GENES)


def csv(folder: Path, values: np.ndarray) -> Path:
    _table(values).to_csv(folder / "t.csv")
    return folder / "t.csv"


def tsv_gz(folder: Path, values: np.ndarray) -> Path:
    _table(values).T.to_csv(folder / "t.tsv.gz", sep="\t")
    return folder / "t.tsv.gz"


def quoted_csv(folder: Path, values: np.ndarray) -> Path:
    _table(values).T.to_csv(folder / "t.csv", quoting=1)
    return folder / "t.csv"


def r_txt(folder: Path, values: np.ndarray) -> Path:
    """As R's ``write.table`` does without options: spaces, quoted names, no corner."""
    head = " ".join(f'"{name}"' for name in names_of(values))
    rows = [f'"{gene}" ' + " ".join(f"{x:g}" for x in column) for gene, column in zip(GENES, values.T, strict=True)]
    return text(folder / "t.txt", lines([head, *rows]))


def aligned_txt_gz(folder: Path, values: np.ndarray) -> Path:
    return text(folder / "t.txt.gz", _table(values).to_string() + "\n", packed=True)


WRITERS: dict[str, tuple[Callable[[Path, np.ndarray], Path], str]] = {
    "h5ad": (h5ad, "h5ad"),
    "h5ad, CSC in a layer": (h5ad_csc_layer, "h5ad"),
    "h5ad, raw": (h5ad_raw, "h5ad"),
    "zarr 2, CSR": (zarr_2, "zarr"),
    "zarr 3, CSC": (zarr_3, "zarr"),
    "zarr 3, dense": (zarr_dense, "zarr"),
    "loom": (loom, "loom"),
    "10x h5, generation 2": (tenx_h5_2, "10x_h5"),
    "10x h5, generation 3": (tenx_h5, "10x_h5"),
    "10x folder": (tenx_folder, "10x_mtx"),
    "STARsolo": (starsolo, "10x_mtx"),
    "alevin-fry": (alevin, "alevin"),
    "alevin-fry, three parts": (alevin_parts, "alevin"),
    "kb": (kb, "kb"),
    "kb, sums": (kb_sums, "kb"),
    "bustools": (bustools, "kb"),
    "Parse": (parse_biosciences, "mtx"),
    "mtx from R": (written_from_r, "mtx"),
    "mtx, array": (array_mtx, "mtx"),
    "csv": (csv, "csv"),
    "csv, quoted": (quoted_csv, "csv"),
    "tsv.gz": (tsv_gz, "tsv"),
    "txt from R": (r_txt, "tsv"),
    "txt, aligned": (aligned_txt_gz, "tsv"),
}
"""What it is called -> how it is written, and the format it is recognised as."""


def pickled_zarr(folder: Path) -> Path:
    """A zarr 2 array of Python objects whose only chunk is a pickle that writes a file when it is opened."""
    store = zarr_2(folder, counts_of())
    column = store / "obs" / "note"
    column.mkdir()
    metadata = (
        '{"shape": [6], "chunks": [6], "dtype": "|O", "fill_value": null, "order": "C", "zarr_format": 2, '
        '"filters": [{"id": "pickle", "protocol": 4}], "compressor": null}'
    )
    (column / ".zarray").write_text(metadata)
    (column / "0").write_bytes(b"cpathlib\nPath\n(S'" + str(folder / "ran").encode() + b"'\ntR.")
    return store
