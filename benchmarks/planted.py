"""Marrow samples with planted single tumour cells, doublets with a tumour cell and ambient-coated marrow cells.

Cells of known kind for ``arbitration.py`` and ``doublets.py``: drawn by the simulator's own machinery, or made of real
ovarian carcinoma and immune cells. Nothing is written.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from semireal import IMMUNE, THINNING, thinned

from dtcflow.simulate.cells import Cells, draw_cells
from dtcflow.simulate.counts import draw_counts
from dtcflow.simulate.design import CARCINOMA, SCENARIOS, STATES, join_events, plan_cohort
from dtcflow.simulate.expression import build_universe, draw_patient

KINDS = ("single", "doublet", "coated")
MARROW_DEPTH = 0.7
"""Median UMI of a marrow cell of factor 1, relative to the depth of the planted cells (2,800 where they have 4,000)."""
COATED_SHARE = (0.3, 0.6)
"""Range of the ambient share of a coated cell."""


@dataclass(frozen=True)
class Planted:
    """One sample (stage ``intake`` as far as quality control reads it) and what each cell is."""

    adata: ad.AnnData
    truth: pd.DataFrame
    """Index as ``adata``: ``kind`` (one of :data:`KINDS`; ``resident``; ``resident_doublet``), ``cell_type`` of the
    resident part, ``second_type`` (residents' doublets), ``heterotypic``,
    ``dying``, ``summed`` (a doublet with the depth of both its cells), ``part`` (tumour cell's share of a doublet's
    counts, soup's share of a coated cell's)."""


def _wrap(counts: sp.spmatrix, genes: pd.Index, truth: pd.DataFrame, *, sample: str) -> Planted:
    obs = pd.DataFrame(
        {"sample_id": sample, "patient_id": sample, "compartment": "marrow", "batch": "", "platform": "droplet"},
        index=pd.Index([f"{sample}:c{i:05d}" for i in range(counts.shape[0])], dtype=object),
    )
    names = pd.Index(genes.astype(str), dtype=object)
    adata = ad.AnnData(obs=obs, var=pd.DataFrame({"symbol": names}, index=names))
    adata.layers["counts"] = sp.csr_matrix(counts, dtype=np.float32)
    return Planted(adata, truth.set_index(obs.index))


def simulated(
    seed: int,
    *,
    single: int = 10,
    doublet: int = 10,
    coated: int = 10,
    depth: float = 4_000,
    marrow_cells: int = 1_200,
    lysed_tumour: float = 0.2,
    lysed_red: float = 0.0,
    doublet_rate: float = 0.0,
    scenario: str = "progenitor",
    patient: int = 0,
) -> Planted:
    """Draw a marrow with planted cells.

    Parameters
    ----------
    seed
        Seed of the simulated cohort.
    single, doublet, coated
        Planted cells of each kind. Every second doublet is the sum of two cells (1.7 x ``depth``), the others have
        ``depth`` in all, shared by a Beta(4, 4) draw.
    depth
        Expected counts of a planted cell; the marrow around it has :data:`MARROW_DEPTH` of that.
    marrow_cells
        Barcodes of the marrow around them, without tumour cells.
    lysed_tumour, lysed_red
        Share of the soup that comes from burst tumour cells and from burst red cells of which no droplet is left.
    doublet_rate
        Share of the marrow's barcodes that hold two marrow cells.
    scenario, patient
        Scenario and patient (from 0) of the simulator.
    """
    shape = dataclasses.replace(
        SCENARIOS[scenario],
        dtc_fractions=(0.0,),
        doublet_rate=doublet_rate,
        library_marrow=MARROW_DEPTH * depth,
        library_dtc=depth,
    )
    plan = plan_cohort(patient + 1, marrow_cells, 0)[2 * patient]
    universe = build_universe(shape, seed)
    person = draw_patient(shape, seed, patient, len(universe.genes))
    marrow = draw_cells(plan, person, shape, seed)
    rng = np.random.default_rng([seed, patient, 17])
    own = marrow.components
    healthy = own[(own["dying"] == 0) & ~own["stray"]]
    tumour_events = join_events(person.karyotype[person.dtc_clone])
    n_planted = single + doublet + coated
    part = np.full(marrow_cells + n_planted, np.nan)
    first = marrow_cells
    rows: list[dict[str, object]] = []

    def component(barcode: int, state: str, library: float, **changes: object) -> None:
        concentration = shape.ambient_concentration
        mean = shape.ambient_dtc if state == CARCINOMA else shape.ambient_mean
        tumour = state == CARCINOMA
        rows.append(
            {
                "barcode": barcode,
                "state": state,
                "clone": person.dtc_clone if tumour else "",
                "altered": tumour_events if tumour else "",
                "programme": bool(tumour and rng.random() < person.programme_dtc),
                "phase": 0,
                "dying": 0.0,
                "stray": False,
                "ambient": rng.beta(mean * concentration, (1 - mean) * concentration),
                "library": library,
                **changes,
            }
        )

    partners = rng.choice(healthy["state"].to_numpy(object), doublet + coated)
    summed = np.zeros(marrow_cells + n_planted, dtype=bool)
    for i in range(single):
        component(first + i, CARCINOMA, depth)
    for i in range(doublet):
        barcode, share = first + single + i, rng.beta(4, 4)
        summed[barcode] = i % 2 == 0
        mine, its = (depth, MARROW_DEPTH * depth) if summed[barcode] else (share * depth, (1 - share) * depth)
        part[barcode] = mine / (mine + its)
        component(barcode, CARCINOMA, mine)
        component(barcode, str(partners[i]), its)
    for i in range(coated):
        barcode = first + single + doublet + i
        part[barcode] = rng.uniform(*COATED_SHARE)
        component(barcode, str(partners[doublet + i]), depth, ambient=part[barcode])
    # burst cells shape the soup, which is the mean of all cells by their counts; their own barcodes are dropped
    total = float(own["library"].sum()) + sum(float(row["library"]) for row in rows)
    gone = 1 - lysed_tumour - lysed_red
    for k, (state, share) in enumerate(((CARCINOMA, lysed_tumour), ("erythroid", lysed_red))):
        if share > 0:
            component(first + n_planted + k, state, share / gone * total, ambient=0.0)
    n_barcodes = first + n_planted + 2
    components = pd.concat([own, pd.DataFrame(rows)], ignore_index=True)
    barcodes = np.array([f"b{i}" for i in range(n_barcodes)], dtype=object)
    counts = draw_counts(plan, Cells(barcodes, components, marrow.truth), person, universe, shape, seed)
    resident = np.where(marrow.truth["is_doublet"], "resident_doublet", "resident")
    partner_types = [STATES[str(state)].cell_type for state in partners]
    truth = pd.DataFrame(
        {
            "kind": [*resident, *np.repeat(KINDS, (single, doublet, coated))],
            "cell_type": [*marrow.truth["true_type"], *[""] * single, *partner_types],
            "second_type": [*marrow.truth["second_type"], *[""] * n_planted],
            "heterotypic": [*(marrow.truth["doublet_kind"] == "heterotypic"), *[False] * n_planted],
            "dying": [*marrow.truth["is_dying"], *[False] * n_planted],
            "summed": summed,
            "part": part,
        }
    )
    return _wrap(counts[: first + n_planted], universe.genes.index, truth, sample=f"sim{seed}p{patient}")


def semireal(
    cells: ad.AnnData,
    patient: str,
    *,
    seed: int,
    single: int = 10,
    doublet: int = 10,
    coated: int = 10,
    resident_doublets: int = 0,
    soup_carcinoma: float = 0.25,
) -> Planted:
    """Plant real carcinoma cells among the immune cells of the same patient.

    A single cell is a carcinoma cell thinned to :data:`semireal.THINNING`. A doublet is the sum of an unused carcinoma
    cell, thinned alike, and an immune cell, thinned as a whole to the depth of a planted single cell. A coated cell is
    an immune cell of which :data:`COATED_SHARE` was replaced by a draw from the soup: the pooled immune cells and
    ``soup_carcinoma`` of pooled unused carcinoma cells. No cell serves twice.

    Parameters
    ----------
    cells
        The ovarian cells (``semireal.ovarian_cells``).
    patient
        Value of ``obs["sample"]``.
    seed
        Seed of all draws.
    single, doublet, coated
        Planted cells of each kind.
    resident_doublets
        Sums of two immune cells of different type, thinned to the depth of the deeper one.
    soup_carcinoma
        Share of carcinoma counts in the soup.
    """
    rng = np.random.default_rng([seed, int(patient)])
    kind = cells.obs["cell_type"].astype(str).to_numpy()
    mine = (cells.obs["sample"].astype(str) == patient).to_numpy()
    counts = sp.csr_matrix(cells.X, dtype=np.float32)
    carcinoma = rng.permutation(np.flatnonzero(mine & (kind == "Epithelial")))
    immune = rng.permutation(np.flatnonzero(mine & np.isin(kind, IMMUNE)))
    singles, in_doublets, burst = np.split(carcinoma, [single, single + doublet])
    partners, bases, immune = np.split(immune, [doublet, doublet + coated])
    pool = [np.asarray(counts[rows].sum(axis=0), dtype=float).ravel() for rows in (immune, burst)]
    soup = (1 - soup_carcinoma) * pool[0] / pool[0].sum() + soup_carcinoma * pool[1] / pool[1].sum()

    planted = [thinned(counts[singles], THINNING, rng)]
    depths = np.asarray(planted[0].sum(axis=1)).ravel()
    part = [np.nan] * single
    for a, b in zip(in_doublets, partners, strict=True):
        mine_thinned = thinned(counts[a], THINNING, rng)
        both = sp.csr_matrix(mine_thinned + counts[b])
        part.append(float(mine_thinned.sum()) / float(both.sum()))
        planted.append(thinned(both, min(1.0, float(rng.choice(depths)) / float(both.sum())), rng))
    for row in bases:
        share, total = rng.uniform(*COATED_SHARE), float(counts[row].sum())
        part.append(share)
        drawn = rng.multinomial(round(share * total), soup).astype(np.float32)
        planted.append(sp.csr_matrix(thinned(counts[row], 1 - share, rng) + sp.csr_matrix(drawn)))
    pairs: list[tuple[str, str]] = []
    while len(pairs) < resident_doublets:
        a, b = immune[0], next(row for row in immune[1:] if kind[row] != kind[immune[0]])
        immune = np.setdiff1d(immune, [a, b], assume_unique=True)
        both, deeper = sp.csr_matrix(counts[a] + counts[b]), max(counts[a].sum(), counts[b].sum())
        planted.append(thinned(both, float(deeper) / float(both.sum()), rng))
        pairs.append((kind[a], kind[b]))
        immune = rng.permutation(immune)
    n = (single, doublet, coated, len(pairs))
    truth = pd.DataFrame(
        {
            "kind": [*["resident"] * len(immune), *np.repeat([*KINDS, "resident_doublet"], n)],
            "cell_type": [*kind[immune], *[""] * single, *kind[partners], *kind[bases], *(a for a, _ in pairs)],
            "second_type": [*[""] * (len(immune) + sum(n[:3])), *(b for _, b in pairs)],
            "heterotypic": [*[False] * (len(immune) + sum(n[:3])), *[True] * len(pairs)],
            "dying": False,
            "summed": False,
            "part": [*[np.nan] * len(immune), *part, *[np.nan] * len(pairs)],
        }
    )
    return _wrap(sp.vstack([counts[immune], *planted]), cells.var_names, truth, sample=f"OV{patient}")
