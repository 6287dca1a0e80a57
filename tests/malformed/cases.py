"""What the malformed inputs are made with: a sound study, a sound matrix, and a register of ways to break them.

A case is a function that breaks a study. The register holds the words that the one message must contain, and whether
the header shows the damage (``dtcflow check``) or only the values do (``dtcflow check --read``).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import yaml

ROOT = Path(__file__).parents[2]
HEADER = ["sample_id", "patient_id", "compartment", "path"]
GENES = [
    "ACTB",
    "GAPDH",
    "B2M",
    "TMSB4X",
    "EEF1A1",
    "RPLP0",
    "RPS3",
    "RPL13",
    "HSP90AB1",
    "TUBA1B",
    "FTH1",
    "FTL",
    "MALAT1",
    "PTPRC",
    "CD3D",
    "CD3E",
    "CD2",
    "IL7R",
    "CD8A",
    "NKG7",
    "GNLY",
    "MS4A1",
    "CD79A",
    "CD19",
    "LYZ",
    "S100A8",
    "S100A9",
    "CD14",
    "FCGR3A",
    "CST3",
    "HBB",
    "HBA1",
    "HBA2",
    "GYPA",
    "PPBP",
    "PF4",
    "CD34",
    "KIT",
    "MPO",
    "ELANE",
    "EPCAM",
    "KRT8",
    "KRT18",
    "KRT19",
    "KRT7",
    "MUC1",
    "ERBB2",
    "ESR1",
    "GATA3",
    "COL1A1",
    "COL1A2",
    "PECAM1",
    "VWF",
    "MT-CO1",
    "MT-CO2",
    "MT-ND1",
    "MT-ATP6",
    "MT-CYB",
    "XIST",
    "JUN",
]


def sound() -> ad.AnnData:
    """24 cells x 60 genes of counts that nothing is wrong with."""
    rng = np.random.default_rng(8)
    values = rng.poisson(rng.gamma(0.6, 3.0, 60) * rng.uniform(0.5, 2.0, (24, 1))).astype(np.float32)
    values[:, 0] += 5
    cells = [f"ACGTACGTACGTAC{a}{b}-1" for a in "ACGT" for b in "ACGTAC"][:24]
    cells = [f"{name[:-4]}{i:02d}-1" for i, name in enumerate(cells)]
    return ad.AnnData(sp.csr_matrix(values), obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=GENES))


def table(adata: ad.AnnData | None = None, *, separator: str = ",") -> str:
    """The matrix as text, one row per cell."""
    adata = sound() if adata is None else adata
    frame = pd.DataFrame(adata.X.toarray().astype(int), index=adata.obs_names, columns=adata.var_names)
    return frame.to_csv(sep=separator)


def h5ad_bytes(adata: ad.AnnData) -> bytes:
    """The .h5ad of a matrix, as it is on disk."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        ad.io.write_elem(file, "/", adata)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its hash; links are named, not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


class Study:
    """A study folder of two samples; the first is the one that a case breaks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        shutil.copytree(ROOT / "config", folder / "config")
        self.header = list(HEADER)
        self.rows = [["P1_marrow", "P1", "marrow", "bad"], ["P2_marrow", "P2", "marrow", "good.csv"]]
        self.settings: dict[str, object] = {"seed": 1}
        other = sound()
        other.X = other.X[::-1]
        (folder / "good.csv").write_text(table(other))
        self.put("bad", table())

    def write(self) -> None:
        """Write sheet and configuration as they stand."""
        self.sheet("\n".join("\t".join(row) for row in (self.header, *self.rows)) + "\n")
        self.config(yaml.safe_dump(self.settings))

    def sheet(self, content: str | bytes) -> None:
        (self.folder / "config" / "samples.tsv").write_bytes(_bytes(content))

    def config(self, content: str | bytes) -> None:
        (self.folder / "config" / "config.yaml").write_bytes(_bytes(content))

    def put(self, name: str, content: str | bytes, *, packed: bool = False) -> Path:
        """Put a file into the study, and make it the matrix of the first sample."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(_bytes(content), mtime=0) if packed else _bytes(content))
        self.rows[0][3] = name
        return path

    def column(self, name: str, value: str, other: str = "") -> None:
        """Add a column to the sheet."""
        self.header.append(name)
        self.rows[0].append(value)
        for row in self.rows[1:]:
            row.append(other)


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


@dataclass(frozen=True)
class Case:
    """One way to break a study."""

    name: str
    make: Callable[[Study], None]
    words: tuple[str, ...]
    read: bool
    raw: bool
    """The case writes sheet or configuration itself."""
    n: int
    """Problems that must be listed: one, unless several fields are at fault."""


class Register(list[Case]):
    """Cases in the order they were written."""

    def case(
        self, *words: str, read: bool = False, raw: bool = False, n: int = 1
    ) -> Callable[[Callable[[Study], None]], Callable[[Study], None]]:
        """Register a function as a case."""

        def add(make: Callable[[Study], None]) -> Callable[[Study], None]:
            assert make.__name__ not in {case.name for case in self}, make.__name__
            self.append(Case(make.__name__, make, words, read, raw, n))
            return make

        return add
