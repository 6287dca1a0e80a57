"""Tumour cells of planted clones and a diploid reference, simulated or real, as segment statistics.

For ``caller_clones.py``. Simulated cells are drawn by the simulator's own machinery (stem-like programme and cell cycle
included). Real cells are normal cells of one type and one donor, thinned to a common expected depth with a probability
that is proportional to the dosage of the gene, so that the events are planted without any added noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.arms import SplitStatistics, bin_statistics, fit_arm_model, usable_genes
from dtcflow.cnv.null import cross_fit
from dtcflow.genes import load_positions
from dtcflow.simulate.cells import Cells, draw_cells
from dtcflow.simulate.counts import draw_counts
from dtcflow.simulate.design import ARM_WEIGHTS, CARCINOMA, SCENARIOS, join_events, plan_cohort
from dtcflow.simulate.expression import build_universe, draw_patient

DOSAGE = 0.8
"""Expression of a planted arm goes with (copies / 2) ** DOSAGE."""
TRUNK_ARMS = (4, 5)
PRIVATE_ARMS = (1, 3)
DONORS = ("11", "12", "13", "14")


@dataclass(frozen=True)
class PlantedClones:
    """Cells of one patient: tumour cells with a known clone, and normal cells."""

    counts: sp.csr_matrix
    var: pd.DataFrame
    """Index symbol; ``chromosome arm``, in genome order."""
    types: np.ndarray
    """Normal type; ``""`` for a tumour cell."""
    clone: np.ndarray
    """Planted clone; ``""`` for a normal cell."""
    events: Mapping[str, Mapping[str, int]]
    """Clone -> arm -> change of copies."""
    reference: np.ndarray
    """Normal cells that make the reference."""
    programme: np.ndarray
    """Whether a simulated cell runs the stem-like programme or cycles."""


def draw_events(rng: np.random.Generator, n_clones: int, *, nested: bool = False) -> dict[str, dict[str, int]]:
    """Single-copy events of ``n_clones`` clones: a trunk of 4-5 arms and 1-3 private arms each, no arm twice.

    ``nested``: the first clone carries the trunk only.
    """
    names = [chr(ord("A") + k) for k in range(n_clones)]
    n_trunk = int(rng.integers(*TRUNK_ARMS, endpoint=True))
    private = rng.integers(*PRIVATE_ARMS, size=n_clones, endpoint=True)
    if nested:
        private[0] = 0
    weights = np.array([weight for _, weight in ARM_WEIGHTS.values()])
    drawn = rng.choice(list(ARM_WEIGHTS), n_trunk + int(private.sum()), replace=False, p=weights / weights.sum())
    change = {str(arm): ARM_WEIGHTS[str(arm)][0] for arm in drawn}
    trunk, own = drawn[:n_trunk], np.split(drawn[n_trunk:], np.cumsum(private)[:-1])
    return {
        name: {str(arm): change[str(arm)] for arm in (*trunk, *mine)} for name, mine in zip(names, own, strict=True)
    }


@cache
def _universe(seed: int):
    return build_universe(SCENARIOS["progenitor"], seed)


def simulated(
    seed: int, *, n_clones: int, size: int, depth: float, normals: int = 300, nested: bool = False, cycling: float = 0.2
) -> PlantedClones:
    """``n_clones`` clones of ``size`` tumour cells with median ``depth`` UMI among ``normals`` marrow cells."""
    shape = dataclasses.replace(
        SCENARIOS["progenitor"], dtc_fractions=(0.0,), doublet_rate=0.0, dying_rate=0.0, library_dtc=depth
    )
    rng = np.random.default_rng([seed, n_clones, size, int(depth), int(nested)])
    plan = plan_cohort(1, normals, 0)[0]
    universe = _universe(seed)
    person = draw_patient(shape, seed, 0, len(universe.genes))
    marrow = draw_cells(plan, person, shape, seed)
    events = draw_events(rng, n_clones, nested=nested)
    label = np.repeat(list(events), size)
    n = len(label)
    tumour = pd.DataFrame(
        {
            "barcode": normals + np.arange(n),
            "state": CARCINOMA,
            "clone": label,
            "altered": [join_events(events[name]) for name in label],
            "programme": rng.random(n) < 0.5,
            "phase": np.where(rng.random(n) < cycling, rng.integers(1, 3, n), 0),
            "dying": 0.0,
            "stray": False,
            "ambient": rng.beta(1.6, 38.4, n),
            "library": depth * np.exp(rng.normal(0.0, shape.library_sd, n)),
        }
    )
    components = pd.concat([marrow.components, tumour], ignore_index=True)
    barcodes = np.array([f"b{i}" for i in range(normals + n)], dtype=object)
    counts = draw_counts(plan, Cells(barcodes, components, marrow.truth), person, universe, shape, seed)
    types = np.concatenate([marrow.truth["true_type"].to_numpy(object), np.repeat("", n)])
    common = set(pd.Series(types[:normals]).value_counts().loc[lambda sizes: sizes >= 20].index)
    return PlantedClones(
        sp.csr_matrix(counts, dtype=np.float64),
        universe.genes[["chromosome", "arm"]],
        types,
        np.concatenate([np.repeat("", normals), label]).astype(object),
        events,
        np.isin(types, list(common)),
        np.concatenate([np.zeros(normals, bool), (tumour["programme"] | (tumour["phase"] > 0)).to_numpy()]),
    )


@cache
def ovarian(path: Path) -> ad.AnnData:
    """The ovarian cells with genes in genome order (genes without a position left out)."""
    cells = ad.read_h5ad(path)
    positions = load_positions()
    positions = positions[~positions["symbol"].duplicated()].set_index("symbol")
    measured = set(cells.var_names)
    known = [symbol for symbol in positions.index if symbol in measured]
    cells = cells[:, known].copy()
    cells.var = positions.loc[known, ["chromosome", "arm", "start"]].fillna({"arm": ""})
    rank = cells.var["chromosome"].astype(str).str.removeprefix("chr").replace({"X": "23", "Y": "24", "M": "25"})
    order = np.lexsort((cells.var["start"].to_numpy(), pd.to_numeric(rank, errors="coerce").fillna(99).to_numpy()))
    cells = cells[:, order].copy()
    cells.X = sp.csr_matrix(cells.X, dtype=np.float64)
    return cells


def real(
    path: Path, seed: int, *, donor: str, cell_type: str, n_clones: int, size: int, depth: float, nested: bool = False
) -> PlantedClones | None:
    """Clones planted in normal cells of one type and ovarian donor; the donor's other normal types are the reference.

    None when there are too few cells that are deep enough.
    """
    cells = ovarian(path)
    kind = cells.obs["cell_type"].astype(str).to_numpy(object)
    mine = (cells.obs["sample"].astype(str) == donor).to_numpy() & (kind != "Epithelial")
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    rng = np.random.default_rng([seed, int(donor), n_clones, size, int(depth), int(nested)])
    deep = np.flatnonzero(mine & (kind == cell_type) & (totals >= 1.15 * depth))
    if len(deep) < n_clones * size:
        return None
    chosen = rng.permutation(deep)[: n_clones * size]
    events = draw_events(rng, n_clones, nested=nested)
    label = np.repeat(list(events), size)
    arms = cells.var["arm"].astype(str).to_numpy(object)
    block = sp.csr_matrix(cells.X[chosen])
    for name, changes in events.items():
        dosage = np.ones(len(arms))
        for arm, change in changes.items():
            dosage[arms == arm] = (1 + change / 2) ** DOSAGE
        for i in np.flatnonzero(label == name):
            part = slice(block.indptr[i], block.indptr[i + 1])
            factor = dosage[block.indices[part]]
            share = np.minimum(1.0, depth * factor / (factor * block.data[part]).sum())
            block.data[part] = rng.binomial(block.data[part].astype(np.int64), share)
    block.eliminate_zeros()
    sizes = pd.Series(kind[mine & (kind != cell_type)]).value_counts()
    normal = np.flatnonzero(mine & np.isin(kind, sizes.index[sizes >= 20]))
    normal = np.concatenate([rng.permutation(normal[kind[normal] == name])[:150] for name in sorted(set(kind[normal]))])
    n = len(normal)
    return PlantedClones(
        sp.csr_matrix(sp.vstack([cells.X[normal], block])),
        cells.var[["chromosome", "arm"]],
        np.concatenate([kind[normal], np.repeat("", len(label))]).astype(object),
        np.concatenate([np.repeat("", n), label]).astype(object),
        events,
        np.concatenate([np.ones(n, bool), np.zeros(len(label), bool)]),
        np.zeros(n + len(label), bool),
    )


def _columns(planted: PlantedClones) -> tuple[np.ndarray, np.ndarray]:
    var = planted.var.assign(symbol=planted.var.index)
    var["arm"] = var["arm"].astype(object).where(var["arm"].notna(), "").astype(str)
    return usable_genes(var), var["arm"].to_numpy(object)


def segment_statistics(planted: PlantedClones) -> tuple[SplitStatistics, np.ndarray, np.ndarray]:
    """Segment statistics of all cells; inflation and tau per segment from reference cells held out in folds."""
    usable, arms = _columns(planted)
    rows = np.flatnonzero(planted.reference)
    counts, types = sp.csr_matrix(planted.counts[rows]), planted.types[rows]
    model = fit_arm_model(counts, types, arms, usable)
    null = cross_fit(counts, types, [f"c{i}" for i in rows], arms, usable, model, folds=3, seed=1)
    noise = null.noise(of="segments")
    return bin_statistics(model, planted.counts).segments(), noise.inflation, noise.tau
