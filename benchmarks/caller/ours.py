"""The caller as the workflow runs it, on one sample."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from caller.data import REFERENCE, Sample
from dtcflow.classify import call_cells
from dtcflow.cnv.genome import Genome
from dtcflow.cnv.given import GivenProfile, read_given
from dtcflow.cnv.run import infer_copy_number
from dtcflow.genes import load_arms
from dtcflow.simulate.study import shipped_config_dir

SEED = 0


@cache
def shipped() -> dict[str, Any]:
    """The shipped configuration."""
    return dict(yaml.safe_load((shipped_config_dir() / "config.yaml").read_text()))


def settings(sample: Sample, **changes: Any) -> dict[str, Any]:
    """Section ``copy_number`` as shipped, the reference by the sample's labels where it has them."""
    named = sorted(set(sample.cells[REFERENCE]) - {""}) if REFERENCE in sample.cells else []
    own = {"reference_key": REFERENCE, "reference_labels": named} if named else {}
    return {**shipped()["copy_number"], **own, **changes}


@dataclass(frozen=True)
class Ours:
    """Evidence and calls of one sample, rows in its order."""

    cells: pd.DataFrame
    """Table ``cnv_cells`` with the sample's own columns, and ``malignant_call malignant_class`` once called."""
    packed: ad.AnnData
    status: dict[str, Any]

    @property
    def called(self) -> npt.NDArray[np.bool_]:
        """Cells called malignant."""
        return (self.cells["malignant_call"] == "malignant").to_numpy()


def given(events: Mapping[str, int]) -> GivenProfile:
    """Profile as a user's table of arms gives it; ``events`` are the gained (1) and lost (-1) arms."""
    states = {1: "gain", -1: "loss", 0: "neutral"}
    arms = load_arms()
    table = pd.DataFrame({"arm": arms["arm"], "state": [states[events.get(arm, 0)] for arm in arms["arm"]]})
    autosomes = ~arms["chromosome"].isin(["chrX", "chrY"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arms.tsv"
        table[autosomes].to_csv(path, sep="\t", index=False)
        return read_given(path)


def evidence(sample: Sample, *, profile: GivenProfile | None = None, seed: int = SEED, **changes: Any) -> Ours:
    """Copy-number evidence without calls; ``changes`` are settings that differ from the shipped ones."""
    found = infer_copy_number(
        sample.adata,
        sample.cells,
        patient_id="S",
        settings=settings(sample, **changes),
        epithelial_z=shipped()["annotation"]["epithelial_z"],
        seed=seed,
        given=profile,
    )
    joined = sample.cells.merge(found.cells, on="cell_id", validate="one_to_one")
    return Ours(joined, found.windows, found.status)


def run(sample: Sample, *, profile: GivenProfile | None = None, seed: int = SEED, **changes: Any) -> Ours:
    """Copy-number evidence and calls; clones, arms and tree, which no call depends on, are left out."""
    chosen = settings(sample, **changes)
    found = evidence(sample, profile=profile, seed=seed, **changes)
    genome = Genome.read(found.packed, min_abs_log_ratio=chosen["min_abs_log_ratio"])
    calls = call_cells(found.cells, fdr=chosen["fdr"], tumour_lineage=chosen["tumour_lineage"], genome=genome)
    own = [c for c in calls.columns if c not in found.cells.columns or c == "cell_id"]
    return Ours(found.cells.merge(calls[own], on="cell_id", validate="one_to_one"), found.packed, found.status)


def _ordered(p: npt.NDArray[np.float64], statistic: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank (larger: more tumour-like) by p-value; equal p-values, such as the smallest possible one, by statistic."""
    order = np.lexsort((statistic, -p))
    rank = np.empty(len(p))
    keys = np.column_stack([p, statistic])[order]
    new = np.concatenate([[True], np.any(keys[1:] != keys[:-1], axis=1)])
    rank[order] = np.cumsum(new)
    return rank


def burden_score(cells: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Stage 1: how unlike a held-out normal genome; needs no other query cell."""
    p = cells["cnv_burden_p"].fillna(1.0).to_numpy(dtype=float)
    return _ordered(p, cells["cnv_burden"].fillna(0.0).to_numpy(dtype=float))


def score(cells: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The caller's final score: clone likelihood by the learned (or given) profile, or burden where there is none.

    Every cell of a run has the one or the other, so that the ranks of a run are comparable.
    """
    p = cells["clone_llr_p"].to_numpy(dtype=float)
    if not np.isfinite(p).any():
        return burden_score(cells)
    statistic = cells["clone_t"].to_numpy(dtype=float)
    return _ordered(np.nan_to_num(p, nan=1.0), np.nan_to_num(statistic, nan=-np.inf))
