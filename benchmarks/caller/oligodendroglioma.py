"""Four oligodendrogliomas with known loss of 1p and 19q (Tirosh et al. 2016), full-length reads, GRCh37."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from caller import ours, theirs
from caller.data import DATA, REFERENCE, Pool, Sample, sample_of
from caller.measures import Row, auc, row
from dtcflow.call import call_cohort
from dtcflow.cnv.packed import unpack
from dtcflow.genes import load_aliases, load_positions, place_genes

DELETED = ("1p", "19q")
TARGETS = {"1p": 1.000, "19q": 0.997}
OLIGODENDROCYTE, MICROGLIA = "Oligodendrocytes (non-malignant)", "Microglia/Macrophage"
VARIANTS = {
    "both normal types": (OLIGODENDROCYTE, MICROGLIA),
    "oligodendrocytes only": (OLIGODENDROCYTE,),
    "no reference": (),
}
MIN_REFERENCE = 20
"""There are 42 normal cells in all, fewer than the 50 that the shipped settings ask for."""
FOLDER = "oligodendroglioma_tirosh_infercnv"


def read(folder: Path = DATA) -> Pool:
    """The cells; counts are rounded as intake does with the authors' expected counts."""
    cells = ad.read_h5ad(folder / FOLDER / f"{FOLDER}.h5ad")
    positions = load_positions(folder / FOLDER / "gencode_downsampled.EXAMPLE_ONLY.hg19.txt", build="GRCh37")
    genes = pd.DataFrame(index=pd.Index(cells.var_names.astype(str), dtype=object))
    var = place_genes(genes, positions, load_aliases())
    var["in_all_samples"] = True
    kind = cells.obs["cell_type"].astype(str).to_numpy(dtype=object)
    donor = cells.obs["patient"].astype(str).str.removeprefix("MGH").to_numpy(dtype=object)
    return Pool(sp.csr_matrix(cells.X, dtype=np.float32), var, donor, kind)


def sample(pool: Pool, tumours: tuple[str, ...], reference: tuple[str, ...]) -> Sample:
    """The malignant cells of the tumours with all normal cells; the normal types are pooled under one label.

    Nineteen microglia are too few to be a type of their own.
    """
    normal = np.isin(pool.kind, [OLIGODENDROCYTE, MICROGLIA])
    malignant = np.char.startswith(pool.kind.astype(str), "malignant") & np.isin(pool.donor, tumours)
    part = pool[normal | malignant]
    tumour = np.char.startswith(part.kind.astype(str), "malignant")
    in_reference = np.isin(part.kind, reference)
    made = sample_of(part, reference=in_reference, tumour=tumour)
    made.cells["compartment"] = "primary"
    made.cells["cell_type"] = np.where(tumour, "unknown", "glia")
    made.cells[REFERENCE] = np.where(in_reference, "normal", "")
    return made


def log_ratios(found: ours.Ours) -> pd.DataFrame:
    """Log ratio per cell of each arm, centred on the cell's median; reference cells by models they had no part in."""
    statistics, _, _ = unpack(found.packed)
    return pd.DataFrame(statistics.full.centred()[0], columns=list(statistics.full.arms))


def _options(reference: tuple[str, ...]) -> dict[str, object]:
    return {
        "tumour_lineage": "any",
        "min_reference_cells": MIN_REFERENCE,
        "reference_key": REFERENCE,
        "reference_labels": ["normal"] if reference else ["none"],
    }


def measure(pool: Pool) -> pd.DataFrame:
    """One line per reference variant and tumour (``all``: the four as one sample)."""
    tumours = tuple(sorted(set(pool.donor[np.char.startswith(pool.kind.astype(str), "malignant")])))
    lines = []
    for name, reference in VARIANTS.items():
        for group in (tumours, *((t,) for t in tumours)):
            made = sample(pool, group, reference)
            options = _options(reference)
            found = ours.run(made, **options)
            line: dict[str, object] = {
                "reference": name,
                "tumour": "all" if len(group) > 1 else group[0],
                "status": str(found.status["status"]),
                "note": str(found.status.get("reason") or found.status.get("reference_note", "")),
                "cells": int(made.tumour.sum()),
                "called": int((found.called & made.tumour).sum()),
                "false": int((found.called & ~made.tumour).sum()),
            }
            if found.status["status"] == "ok":
                ratios = log_ratios(found)
                for arm in DELETED:
                    # a loss: tumour cells have the smaller log ratio
                    value = -ratios[arm].to_numpy()
                    line[f"auc_{arm}"] = auc(value[made.tumour], value[~made.tumour])
                line["auc_burden"] = auc(*_sides(ours.burden_score(found.cells), made.tumour))
                line["auc_full"] = auc(*_sides(ours.score(found.cells), made.tumour))
                joined = made.cells.merge(
                    found.cells[[c for c in found.cells if c not in made.cells or c == "cell_id"]]
                )
                arms = call_cohort(
                    {"S": (joined, found.packed, found.status)}, settings=ours.settings(made, **options)
                ).arms
                for arm in DELETED:
                    line[arm] = ",".join(arms.loc[arms["arm"] == arm, "state"])
                    line[f"{arm}_q"] = float(arms.loc[arms["arm"] == arm, "q_value"].max())
                line["infercnvpy_auc"] = auc(
                    *_sides(theirs.run(made, made.cells[REFERENCE].to_numpy(dtype=object)).score, made.tumour)
                )
            lines.append(line)
    return pd.DataFrame(lines)


def _sides(score: np.ndarray, tumour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return score[tumour], score[~tumour]


def rows(runs: pd.DataFrame) -> list[Row]:
    """AUC of both arms, calls per patient, and what is said of other references. These tumours chose no threshold."""
    found = []
    for name in VARIANTS:
        part = runs[runs["reference"] == name]
        whole = part[part["tumour"] == "all"].iloc[0]
        each = part[part["tumour"] != "all"]
        if whole["status"] != "ok":
            found.append(
                row(
                    "i",
                    f"oligodendroglioma, {name}",
                    ours=("", f"{whole['status']}: {whole['note']}; {int(part['called'].sum())} calls"),
                    target="reported, no call",
                    reached=bool((part["status"] != "ok").all() and part["called"].sum() == 0),
                )
            )
            continue
        aimed = name == "both normal types"
        for arm in DELETED:
            found.append(
                row(
                    "i",
                    f"oligodendroglioma, {name}, AUC of {arm} per cell",
                    ours=("", f"{whole[f'auc_{arm}']:.4f}"),
                    target=f">= {TARGETS[arm]:.3f}" if aimed else "",
                    reached=bool(round(whole[f"auc_{arm}"], 3) >= TARGETS[arm]) if aimed else None,
                )
            )
        both = int(((each["1p"] == "loss") & (each["19q"] == "loss")).sum())
        found.append(
            row(
                "i",
                f"oligodendroglioma, {name}, 1p and 19q called lost, each patient alone",
                ours=(
                    "",
                    f"{both} of {len(each)} patients; called cells {each['called'].sum()} of "
                    f"{each['cells'].sum()}, false {each['false'].sum()}",
                ),
                target="every patient" if aimed else "",
                reached=both == len(each) if aimed else None,
            )
        )
        found.append(
            row(
                "i",
                f"oligodendroglioma, {name}, AUC tumour against normal",
                theirs=("", float(whole["infercnvpy_auc"])),
                ours=("", f"burden {whole['auc_burden']:.4f}, full {whole['auc_full']:.4f}"),
            )
        )
    return found
