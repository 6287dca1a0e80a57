"""Simulated cohorts of called cells, small enough for a unit test, scored by the real functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import EvidenceResult, evaluate_plan
from dtcflow.scores.signatures import GeneSet, derive_variants

N_GENES = 3000
GENES = [f"G{i:04d}" for i in range(N_GENES)]
NO_SYNONYMS = pd.DataFrame({"alias": [], "symbol": [], "kind": []}, dtype=object)
PLAN = Path(__file__).parents[3] / "config" / "claims.yaml"
SETTINGS = {"depth_repeats": 3, "max_cells_per_group": 60, "self_check_repeats": 60}


def _sets() -> dict[str, tuple[list[str], str, str]]:
    order = np.random.default_rng(11).permutation(GENES)
    start = iter(np.cumsum([0, 60, 40, 30, 30, 40, 25, 25, 30, 40, 50, 400]))

    def take(n: int) -> list[str]:
        first = next(start)
        return order[first : first + n].tolist()

    lim, pece, progenitor, eppert, jaatinen = take(60), take(40), take(30), take(30), take(40)
    s_phase, g2m, stress, emt = take(25), take(25), take(30), take(40)
    g0 = take(50)
    return {
        "WIECEK_G0_ARREST": ([*g0, *s_phase[6:12]], "dormancy", "dormancy"),
        "LIM_MAMMARY_STEM_CELL_UP": ([*lim, *s_phase[:6], *emt[:8]], "primary", "stemness_mammary"),
        "PECE_MAMMARY_STEM_CELL_UP": ([*pece, *g2m[:4]], "confirmatory", "stemness_mammary"),
        "LIM_MAMMARY_LUMINAL_PROGENITOR_UP": (progenitor, "progenitor", "stemness_mammary"),
        "EPPERT_HSC_R": (eppert, "negative_control", "haematopoietic"),
        "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP": (jaatinen, "negative_control", "haematopoietic"),
        "TIROSH_S_PHASE": (s_phase, "covariate", "proliferation"),
        "TIROSH_G2M_PHASE": (g2m, "covariate", "proliferation"),
        "GAVISH_MP5_STRESS": (stress, "covariate", "stress"),
        "HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION": (emt, "covariate", "emt"),
    }


SETS = _sets()
PANEL = derive_variants(
    [GeneSet(name, tuple(genes), role=role, family=family) for name, (genes, role, family) in SETS.items()]
)


@dataclass
class Scenario:
    """What is planted. Effects are natural-log fold changes of the named sets' genes in DTCs."""

    n_patients: int = 8
    n_dtc: int = 14
    n_pt: int = 45
    effect: float = 0.0
    affected: int = 10**6
    """How many patients carry the effect."""
    slope_sd: float = 0.0
    raised: tuple[str, ...] = ("LIM_MAMMARY_STEM_CELL_UP", "PECE_MAMMARY_STEM_CELL_UP")
    also: dict[str, float] = field(default_factory=dict)
    linked: float = 0.0
    """Spread of a programme that moves stress and stem-cell genes alike, two spreads higher in DTCs."""
    depth_dtc: float = 2500
    depth_pt: float = 2500
    n_blood: int = 0
    """Normal T cells per marrow."""
    false_epithelial: int = 1
    """Putative DTCs per patient that are not called malignant."""
    seed: int = 0


def simulate(scenario: Scenario) -> tuple[ad.AnnData, pd.DataFrame]:
    """Cells x genes with the columns evaluate_plan asks for."""
    rng = np.random.default_rng(scenario.seed)
    base = rng.normal(0.0, 1.0, N_GENES)
    # genes differ in how bursty they are: with one dispersion for all, genes of a planted programme would be each
    # other's nearest neighbours in mean and detection, and so their own random sets
    shape = np.exp(rng.uniform(np.log(0.5), np.log(10), N_GENES))
    position = {name: i for i, name in enumerate(GENES)}

    def raise_sets(names: tuple[str, ...], by: float) -> np.ndarray:
        out = np.zeros(N_GENES)
        for name in names:
            out[[position[g] for g in SETS[name][0]]] = by
        return out

    blocks, rows = [], []
    for p in range(scenario.n_patients):
        own = base + rng.normal(0, 0.3, N_GENES)
        size = scenario.effect + rng.normal(0, scenario.slope_sd)
        shift = raise_sets(scenario.raised, size if p < scenario.affected else 0.0)
        for name, by in scenario.also.items():
            shift = shift + raise_sets((name,), by)
        groups = [
            ("marrow", scenario.n_dtc, scenario.depth_dtc, shift, "malignant"),
            ("primary", scenario.n_pt, scenario.depth_pt, 0.0, "malignant"),
            ("marrow", scenario.false_epithelial, scenario.depth_dtc, 0.0, "normal"),
        ]
        for compartment, n, depth, moved, call in groups:
            log_rate = own + moved + rng.normal(0, 0.1, N_GENES)
            rate = np.exp(log_rate)
            rate = rate / rate.sum()
            totals = depth * np.exp(rng.normal(0, 0.3, n))
            level = rng.normal(2 * scenario.linked if compartment == "marrow" else 0.0, scenario.linked, n)
            programme = raise_sets(("LIM_MAMMARY_STEM_CELL_UP", "GAVISH_MP5_STRESS"), 1.0)
            mean = (
                totals[:, None]
                * rate[None]
                * np.exp(level[:, None] * programme)
                * rng.gamma(shape, 1 / shape, size=(n, N_GENES))
            )
            blocks.append(sp.csr_matrix(rng.poisson(mean).astype(np.float32)))
            sample = f"P{p}_{compartment}"
            rows += [
                {
                    "cell_id": f"{sample}:{call}{i:03d}",
                    "sample_id": sample,
                    "patient_id": f"P{p}",
                    "compartment": compartment,
                    "malignant_call": call,
                    "malignancy_q": 0.001,
                    "epithelial_z": 6.0,
                    "n_epithelial_markers": 5,
                    "cell_type": "epithelial",
                    "pct_mt": float(rng.uniform(1, 10)),
                    "batch": "one",
                    "platform": "droplet",
                }
                for i in range(n)
            ]
    if scenario.n_blood:
        blood = np.random.default_rng([scenario.seed, 1])
        rate = np.exp(base + blood.normal(0, 0.3, N_GENES))
        for p in range(scenario.n_patients):
            totals = scenario.depth_dtc * np.exp(blood.normal(0, 0.3, scenario.n_blood))
            mean = totals[:, None] * (rate / rate.sum()) * blood.gamma(shape, 1 / shape, (scenario.n_blood, N_GENES))
            blocks.append(sp.csr_matrix(blood.poisson(mean).astype(np.float32)))
            rows += [
                rows[0]
                | {
                    "cell_id": f"P{p}_marrow:blood{i:03d}",
                    "sample_id": f"P{p}_marrow",
                    "patient_id": f"P{p}",
                    "compartment": "marrow",
                    "malignant_call": "normal",
                    "malignancy_q": 0.9,
                    "epithelial_z": 0.0,
                    "n_epithelial_markers": 0,
                    "cell_type": "T_NK",
                    "pct_mt": 5.0,
                }
                for i in range(scenario.n_blood)
            ]
    cells = pd.DataFrame(rows)
    counts = sp.vstack(blocks, format="csr")
    adata = ad.AnnData(
        obs=pd.DataFrame(index=cells["cell_id"].to_numpy(dtype=object)),
        var=pd.DataFrame(index=np.array(GENES, dtype=object)),
    )
    adata.layers["counts"] = counts
    return adata, cells


def run(
    scenario: Scenario, *, plan_changes: dict[str, object] | None = None, seed: int = 1, context: bool = False
) -> EvidenceResult:
    adata, cells = simulate(scenario)
    return evaluate(adata, cells, plan_changes=plan_changes, seed=seed, context=context)


def plan_values(*, context: bool = False, **rules: object) -> dict[str, Any]:
    """The shipped plan with fewer random sets, with or without the claims that never vote."""
    values = load_plan(PLAN).values
    values["rules"] |= {"random_sets": 150, "genes_per_cell_droplet": 300, **rules}
    if not context:
        values["claims"] = [claim for claim in values["claims"] if claim["role"] in ("gate", "necessary")]
    return values


def evaluate(
    adata: ad.AnnData,
    cells: pd.DataFrame,
    *,
    plan_changes: dict[str, object] | None = None,
    seed: int = 1,
    context: bool = False,
    identities: pd.DataFrame | None = None,
    samples: pd.DataFrame | None = None,
    plan: dict[str, Any] | None = None,
    **settings: int,
) -> EvidenceResult:
    values = plan or plan_values(context=context, **(plan_changes or {}))
    return evaluate_plan(
        adata,
        cells,
        load_plan(values),
        PANEL,
        settings=SETTINGS | settings,
        seed=seed,
        synonyms=NO_SYNONYMS,
        identities=identities,
        samples=samples,
    )


@dataclass(frozen=True)
class Lab:
    """The functions above, for tests."""

    scenario = staticmethod(Scenario)
    simulate = staticmethod(simulate)
    run = staticmethod(run)
    evaluate = staticmethod(evaluate)
    plan_values = staticmethod(plan_values)
    panel = tuple(PANEL)
    sets = SETS
    genes = tuple(GENES)
    plan_path = PLAN
    no_synonyms = NO_SYNONYMS


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def progenitor() -> EvidenceResult:
    """Eight patients with a clear effect in all."""
    return run(Scenario(effect=0.45, slope_sd=0.05, seed=3, n_blood=40), context=True)


@pytest.fixture(scope="session")
def nothing() -> EvidenceResult:
    """Eight patients, no effect, DTCs at 30 % of the depth."""
    return run(Scenario(effect=0.0, depth_dtc=1500, depth_pt=5000, seed=4), context=True)
