"""Single real tumours and normal tissues through the whole workflow: what is called, and what must not be.

The data sets are read from a folder beside the project (``--data``, default ``../shared/data``); none is part of the
project. Writes ``single_tumours`` (one row per data set) and ``single_tumours_arms`` (1p and 19q of the
oligodendrogliomas) as TSV and Markdown.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from run_study import ROOT, run_study
from scipy import stats
from semireal import plain_matrix, write_study
from truth_table import compare, read_truth, with_truth, write_pair

from dtcflow.cnv.clone_arms import clone_arm_table
from dtcflow.cnv.run import unpack_segments
from dtcflow.contracts import InputError, Problem, read_json, read_stage, read_table, write_table
from dtcflow.simulate.cohort import write_matrix

DATA = ROOT.parent / "shared" / "data"
DELETED = ("1p", "19q")
EFFECT = 0.15
"""The shipped ``copy_number.min_abs_log_ratio``."""
NORMAL_BRAIN = ("Oligodendrocytes (non-malignant)", "Microglia/Macrophage")
SUMMARY = (
    *("data_set", "outcome", "cnv_status", "clone_status", "cells", "passed_qc", "labelled_tumour", "called"),
    *("indeterminate", "false_calls", "recall", "precision", "auc_burden", "auc_clone_llr", "profile_strength"),
    *("profile_arms", "reference", "tumour_call_by_label"),
)


@dataclass(frozen=True)
class Study:
    """A study folder to be written: sheet, labels of its cells, changed settings, and whether it must be refused."""

    title: str
    notice: str
    samples: list[dict[str, Any]]
    truth: pd.DataFrame
    """``cell_id true_type is_tumour``."""
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: bool = False


def _truth(sample_id: str, barcodes: list[str], kinds: list[str], tumour: list[bool]) -> pd.DataFrame:
    return pd.DataFrame(
        {"cell_id": [f"{sample_id}:{b}" for b in barcodes], "true_type": kinds, "is_tumour": tumour}, dtype=object
    )


def tnbc(data: Path, out: Path) -> Study:
    """One triple-negative breast cancer, 10x; the labels are the calls of another tool, not truth."""
    path = data / "tnbc_copykat" / "tnbc_copykat.h5ad"
    obs = ad.read_h5ad(path, backed="r").obs
    label = obs["copykat_prediction"].astype(str).tolist()
    return Study(
        "One triple-negative breast cancer",
        "The labels that this run is compared with are another tool's calls, not truth.",
        [{"sample_id": "TNBC", "patient_id": "TNBC", "compartment": "primary", "path": str(path), "sex": "female"}],
        _truth("TNBC", obs.index.astype(str).tolist(), label, [x == "aneuploid" for x in label]),
    )


def _oligodendroglioma(path: Path, data: Path, key: str, labels: list[str]) -> Study:
    obs = ad.read_h5ad(data / "oligodendroglioma_tirosh_infercnv" / "oligodendroglioma_tirosh_infercnv.h5ad").obs
    kinds = obs["cell_type"].astype(str).tolist()
    return Study(
        "Oligodendrogliomas (full-length reads, GRCh37)",
        "NOT BREAST CANCER. Four oligodendrogliomas and the normal cells found in three of them, as one sample.",
        [{"sample_id": "OD", "patient_id": "OD", "compartment": "primary", "path": str(path), "platform": "plate"}],
        _truth("OD", obs.index.astype(str).tolist(), kinds, (obs["malignant"].astype(str) == "yes").tolist()),
        {
            "intake": {
                "gene_positions": str(
                    data / "oligodendroglioma_tirosh_infercnv" / "gencode_downsampled.EXAMPLE_ONLY.hg19.txt"
                ),
                "genome_build": "GRCh37",
            },
            "copy_number": {
                "reference_key": key,
                "reference_labels": labels,
                "min_reference_cells": 20,
                "tumour_lineage": "any",
            },
        },
    )


def oligodendroglioma(data: Path, out: Path) -> Study:
    """Four oligodendrogliomas, the reference by the authors' labels (19 microglia are too few to be a type)."""
    path = data / "oligodendroglioma_tirosh_infercnv" / "oligodendroglioma_tirosh_infercnv.h5ad"
    return _oligodendroglioma(path, data, "cell_type", list(NORMAL_BRAIN))


def oligodendroglioma_pooled(data: Path, out: Path) -> Study:
    """The same with both normal types under one label, so that the microglia are part of the reference."""
    cells = ad.read_h5ad(data / "oligodendroglioma_tirosh_infercnv" / "oligodendroglioma_tirosh_infercnv.h5ad")
    pooled = plain_matrix(sp.csr_matrix(cells.X), cells.obs_names.astype(str).tolist(), cells.var_names)
    pooled.obs["reference"] = np.array(["normal" if x == "no" else "tumour" for x in cells.obs["malignant"]], object)
    write_matrix(pooled, out / "matrices" / "OD.h5ad")
    return _oligodendroglioma(Path("matrices/OD.h5ad"), data, "reference", ["normal"])


def breast_normal(data: Path, out: Path) -> Study:
    """Two normal breasts, as 10x folders: no tumour."""
    folder = data / "breast_normal_10x_scdeconr"
    rows, truth = [], []
    for number in (1, 2):
        sample = f"NB{number}"
        with gzip.open(folder / f"sample{number}" / "barcodes.tsv.gz", "rt") as handle:
            barcodes = handle.read().split()
        labels = pd.read_csv(folder / f"phenodata_sample{number}.txt", sep="\t", index_col=0)["celltype"]
        truth.append(_truth(sample, barcodes, labels.loc[barcodes].tolist(), [False] * len(barcodes)))
        rows.append(
            {
                "sample_id": sample,
                "patient_id": sample,
                "compartment": "normal_breast",
                "path": str(folder / f"sample{number}"),
                "sex": "female",
            }
        )
    return Study("Two normal breasts", "No tumour in these samples.", rows, pd.concat(truth, ignore_index=True))


def _without_tumour(path: Path, sample: str, compartment: str, title: str, changes: dict[str, Any]) -> Study:
    barcodes = ad.read_h5ad(path, backed="r").obs_names.astype(str).tolist()
    return Study(
        title,
        "No tumour in this sample.",
        [{"sample_id": sample, "patient_id": sample, "compartment": compartment, "path": str(path)}],
        _truth(sample, barcodes, ["normal"] * len(barcodes), [False] * len(barcodes)),
        changes,
    )


def normal_immune(data: Path, out: Path) -> Study:
    """Normal immune cells of more than one donor, given as marrow: no tumour."""
    path = data / "normal_immune_celltypist_sample" / "normal_immune_celltypist_sample.h5ad"
    return _without_tumour(path, "IMM", "marrow", "Normal immune cells as marrow", {})


def normal_immune_any(data: Path, out: Path) -> Study:
    """The same with every lineage a candidate: copy number decides alone, the hardest case for false calls."""
    path = data / "normal_immune_celltypist_sample" / "normal_immune_celltypist_sample.h5ad"
    changes = {"copy_number": {"tumour_lineage": "any"}}
    return _without_tumour(path, "IMM", "marrow", "Normal immune cells, any lineage", changes)


def normal_bone_marrow(data: Path, out: Path) -> Study:
    """Normal marrow, a panel of 462 genes: copy number must end as not assessable."""
    path = data / "normal_bone_marrow_triana_scuba" / "normal_bone_marrow_triana_scuba.h5ad"
    return _without_tumour(path, "BM", "normal_marrow", "Normal marrow, 462 genes", {})


def normalised_ctc(data: Path, out: Path) -> Study:
    """Circulating tumour cells, already normalised: must be refused."""
    path = data / "ctc_breast_jordan_GSE75367_normalised" / "ctc_breast_jordan_GSE75367_normalised.h5ad"
    barcodes = ad.read_h5ad(path, backed="r").obs_names.astype(str).tolist()
    return Study(
        "Normalised values",
        "",
        [{"sample_id": "CTC", "patient_id": "CTC", "compartment": "blood", "path": str(path), "platform": "plate"}],
        _truth("CTC", barcodes, ["CTC"] * len(barcodes), [True] * len(barcodes)),
        refused=True,
    )


STUDIES: dict[str, Callable[[Path, Path], Study]] = {
    function.__name__: function
    for function in (
        tnbc,
        oligodendroglioma,
        oligodendroglioma_pooled,
        breast_normal,
        normal_immune,
        normal_immune_any,
        normal_bone_marrow,
        normalised_ctc,
    )
}


def prepare(name: str, data: Path, out: Path) -> Study:
    """Write the study folder of one data set and its truth."""
    if not data.is_dir():
        raise InputError(
            "the real data sets are not there",
            [Problem(str(data), "no such folder", "the folder with the data sets", "give it with --data")],
        )
    study = STUDIES[name](data, out)
    write_study(out, pd.DataFrame(study.samples), title=study.title, notice=study.notice, changes=study.changes)
    write_table(study.truth, out / "truth" / "cells.tsv.gz")
    return study


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve by ranks; ties count half; NaN when a side is empty. Missing values are left out."""
    positive, negative = positive[np.isfinite(positive)], negative[np.isfinite(negative)]
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def _crosstab(cells: pd.DataFrame) -> str:
    call = cells["malignant_call"].replace("", "removed")
    sizes = cells.groupby(["true_type", call]).size()
    kinds = sizes.index.get_level_values(0).unique()
    return "; ".join(f"{kind}: " + ", ".join(f"{c} {n}" for c, n in sizes[kind].items()) for kind in kinds)


def summary(name: str, out: Path) -> dict[str, Any]:
    """One row of the table from a finished run."""
    results = out / "results"
    truth = read_truth(out / "truth" / "cells.tsv.gz")
    cells = read_table(results / "cells.tsv.gz", "cells")
    joined = with_truth(cells, truth)
    table = compare(cells, truth)
    patients = sorted(cells["patient_id"].unique())
    status = [read_json(results / "cnv" / "patients" / f"{p}.json") for p in patients]
    scores = pd.concat([read_table(results / "cnv" / "patients" / f"{p}.cells.tsv.gz", "cnv_cells") for p in patients])
    scored = joined[["cell_id", "is_tumour"]].merge(
        scores[["cell_id", "cnv_burden", "clone_llr"]], on="cell_id", validate="one_to_one"
    )
    is_tumour = scored["is_tumour"].to_numpy(dtype=bool)

    def area(column: str) -> float:
        values = scored[column].to_numpy(dtype=float)
        return auc(values[is_tumour], values[~is_tumour])

    sample_rows = table[table["sample_id"] != "all"]
    n_tumour, called = int(sample_rows["tumour"].sum()), int(sample_rows["called"].sum())
    false_calls = int(sample_rows["false_calls"].sum())
    return {
        "data_set": name,
        "outcome": "complete",
        "cnv_status": ", ".join(sorted({s["status"] for s in status})),
        "clone_status": ", ".join(sorted({s["clone_status"] for s in status})),
        "cells": len(cells),
        "passed_qc": int(cells["pass_qc"].sum()),
        "labelled_tumour": n_tumour,
        "called": called + false_calls,
        "indeterminate": int((cells["malignant_call"] == "indeterminate").sum()),
        "false_calls": false_calls,
        "recall": called / n_tumour if n_tumour else float("nan"),
        "precision": called / (called + false_calls) if called + false_calls else float("nan"),
        "auc_burden": area("cnv_burden"),
        "auc_clone_llr": area("clone_llr"),
        "profile_strength": max((s.get("profile_strength", float("nan")) for s in status), default=float("nan")),
        "profile_arms": max(s["n_profile_arms"] for s in status),
        "reference": "; ".join(s["reference_note"] or s["reason"] for s in status),
        "tumour_call_by_label": _crosstab(joined),
    }


def arms_by_tumour(name: str, data: Path, out: Path) -> pd.DataFrame:
    """1p and 19q of each oligodendroglioma (its malignant-labelled cells pooled after the run) and its other calls."""
    obs = ad.read_h5ad(data / "oligodendroglioma_tirosh_infercnv" / "oligodendroglioma_tirosh_infercnv.h5ad").obs
    tumour = {
        f"OD:{barcode}": f"MGH{str(patient).removeprefix('MGH')}"
        for barcode, patient, malignant in zip(obs.index, obs["patient"], obs["malignant"], strict=True)
        if malignant == "yes"
    }
    packed = read_stage(out / "results" / "cnv" / "patients" / "OD.h5ad", "cnv")
    statistics, inflation, tau, _ = unpack_segments(packed)
    group = np.array([tumour.get(cell, "") for cell in packed.obs_names], dtype=object)
    rows = []
    for label in sorted(set(group) - {""}):
        members = np.flatnonzero(group == label)
        table = clone_arm_table(statistics[members], inflation=inflation, tau=tau, min_abs_log_ratio=EFFECT)
        row: dict[str, Any] = {"data_set": name, "tumour": label, "cells": len(members)}
        for arm in DELETED:
            row[arm] = str(table.loc[arm, "state"])
            row[f"{arm}_log_ratio"] = float(table.loc[arm, "log_ratio"])
            row[f"{arm}_q"] = float(table.loc[arm, "q_value"])
        called = table[table["state"].isin(["gain", "loss"]) & ~table.index.isin(DELETED)]
        row["other_arms_called"] = ",".join(f"{a}{'+' if s == 'gain' else '-'}" for a, s in called["state"].items())
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> int:
    """Build, run and tabulate the chosen data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the study folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the data sets")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=sorted(STUDIES), help="only these data sets")
    arguments = parser.parse_args()
    rows, arms = [], []
    try:
        for name in arguments.only or STUDIES:
            out = arguments.work / name
            study = prepare(name, arguments.data, out)
            print(f"{name}: running", flush=True)
            code = run_study(out, cores=arguments.cores)
            if study.refused:
                screen = (out / "run.log").read_text()
                reason = next((line.strip() for line in screen.splitlines() if "found" in line), "")
                outcome = "refused" if code and reason else f"NOT REFUSED (exit {code})"
                rows.append({"data_set": name, "outcome": outcome, "cells": len(study.truth)})
                print(f"{name}: {outcome}: {reason}")
            elif code:
                rows.append({"data_set": name, "outcome": f"FAILED (exit {code})", "cells": len(study.truth)})
                print(f"{name}: failed, see {out / 'run.log'}", file=sys.stderr)
            else:
                rows.append(summary(name, out))
                if name.startswith("oligodendroglioma"):
                    arms.append(arms_by_tumour(name, arguments.data, out))
                print({k: v for k, v in rows[-1].items() if k != "data_set"})
    except InputError as error:
        print(f"dtcflow: {error}", file=sys.stderr)
        return 2
    command = "make single-tumours"
    if arguments.only:
        command = " ".join(["python benchmarks/single_tumours.py --only", *arguments.only])
    table = pd.DataFrame(rows).reindex(columns=list(SUMMARY))
    for column in ("passed_qc", "labelled_tumour", "called", "indeterminate", "false_calls", "profile_arms"):
        table[column] = table[column].astype("Int64")
    write_pair(
        table,
        arguments.out / "single_tumours",
        title="Single tumours and normal tissues through the whole workflow",
        notes=(
            "The labels of tnbc are another tool's calls, not truth. AUC: labelled tumour cells against all other "
            "cells, reference cells scored by models they had no part in.",
        ),
        command=command,
    )
    if arms:
        write_pair(
            pd.concat(arms, ignore_index=True),
            arguments.out / "single_tumours_arms",
            title="1p and 19q in four oligodendrogliomas (co-deleted in all, Tirosh et al. 2016)",
            command=command,
        )
    return int(any("FAILED" in str(o) or "NOT REFUSED" in str(o) for o in table["outcome"]))


if __name__ == "__main__":
    sys.exit(main())
