"""Error rates and power of the claims P1, P4, C3 and C1, on simulated cohorts of eight patients.

P1 and P4 start from simulated counts (profiles, programmes and dispersions of ``dtcflow.simulate``), C3 from arm
statistics, C1 from numbers of cells. Every row of the table is one scenario: how often the claim would be SUPPORTED and
NOT_SUPPORTED by the part of the rule that these modules compute (no gate, no multiverse, no multiplicity), how often
the two-sided test rejects, and the mean estimate. Random sets are 60 instead of 500, splits 2 instead of 8.

Run with ``python benchmarks/claims_calibration.py [--repeats N] [--only P1] [--kind null]``.
Cohorts in ``--runs`` are not drawn again, unless their setting has changed (after a change of the code, remove the
file); effects run with a quarter of the cohorts.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.arms import ArmStatistics
from dtcflow.evidence.dissimilarity import ArmCells, evaluate_dissimilarity
from dtcflow.evidence.duality import SESOI as DUALITY_SESOI
from dtcflow.evidence.duality import evaluate_duality
from dtcflow.evidence.existence import SESOI as EXISTENCE_SESOI
from dtcflow.evidence.existence import Existence, evaluate_existence
from dtcflow.evidence.paired import Cohort
from dtcflow.evidence.rarity import beta_binomial
from dtcflow.evidence.within import Within
from dtcflow.scores.signatures import GeneSet, load_panel
from dtcflow.simulate.design import ARM_WEIGHTS, CARCINOMA, get_scenario
from dtcflow.simulate.expression import Universe, build_universe, dosage_factor

STEMNESS = "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"
DORMANCY = "WIECEK_G0_ARREST_NOPROLIF"
CONTROLS = ("EPPERT_HSC_R", "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP")
COVARIATES = ("TIROSH_S_PHASE", "TIROSH_G2M_PHASE", "GAVISH_MP5_STRESS", "log_genes", "log_counts")
UNIVERSES, N_GENES, RANDOM_SETS, SPLITS, NORMAL = 20, 4000, 60, 2, 8
COLUMNS = (
    "claim",
    "kind",
    "scenario",
    "cohorts",
    "supported",
    "not_supported",
    "rejected",
    "estimate",
    "sd",
    "se_rate",
)
RUN_COLUMNS = ("claim", "kind", "scenario", "setting", "seed", "supported", "not_supported", "rejected", "estimate")
ROUND = 25


# ---------------------------------------------------------------------------------------------------------------------
# Counts
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """What is planted in the disseminated cells of a cohort."""

    n_patients: int = 8
    n_dtc: int = 16
    n_primary: int = 15
    share: float = 0.0
    """Share of disseminated cells that run the programme."""
    log2fc: float = 0.65
    common: float = 0.0
    """Log2 shift of the programme's genes in all disseminated cells."""
    quiescence: float = 0.0
    """Log2 fold change of the quiescence genes in programme cells."""
    library: float = 3500
    library_sd: float = 0.45
    ambient: float = 0.04
    ambient_concentration: float = 40.0
    cycling: float = 0.05
    progenitors: float = 0.0
    """Share of the called cells that are haematopoietic progenitors."""
    subclones: int = 0
    """Arms in which half of the disseminated cells differ from the other half."""
    genes: int | None = None
    """Use only so many genes of the signature."""
    controls: bool = False
    """Whether the negative controls are computed too (three times the cost; they can only prevent support)."""
    stress: float = 0.0
    """SD over cells of the log2 level of the stress genes."""


@functools.cache
def universe(seed: int) -> Universe:
    return build_universe(replace(get_scenario("progenitor"), n_genes=N_GENES), seed)


@functools.cache
def panel() -> dict[str, GeneSet]:
    return {one.name: one for one in load_panel()}


def _draw(
    u: Universe, rate: np.ndarray, library: np.ndarray, soup: np.ndarray, ambient: np.ndarray, rng
) -> sp.csr_matrix:
    rate = rate / rate.sum(axis=1, keepdims=True)
    phi = u.dispersion.astype(np.float32)
    rate *= rng.standard_gamma(1 / phi, size=rate.shape, dtype=np.float32) * phi
    mixed = rate * (1 - ambient[:, None]) + ambient[:, None] * soup
    return sp.csr_matrix(rng.poisson(mixed * library[:, None]).astype(np.float32))


def _plain(rng, soup: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Library sizes, soup and ambient shares of normal marrow cells."""
    return 2800 * np.exp(rng.normal(0, 0.45, NORMAL)), soup, rng.beta(1.6, 38.4, NORMAL), rng


def simulate(cells: Cells, seed: int) -> Cohort:
    """Malignant cells of marrow and primary, as the caller would hand them over."""
    rng = np.random.default_rng([20260, seed])
    u = universe(seed % UNIVERSES)
    n = len(u.genes)
    stress = np.isin(u.genes.index, list(panel()["GAVISH_MP5_STRESS"].up)).astype(np.float32)
    in_programme = (u.programme != 0).astype(np.float32)
    normal = np.array([u.profiles[state] for state in ("T_NK", "monocyte", "erythroid")], dtype=np.float32)
    soup = normal.mean(axis=0)
    blocks, rows = [], []
    for p in range(cells.n_patients):
        own = np.exp(rng.normal(0, 0.12, n))
        tumour = u.profiles[CARCINOMA] * own * np.exp(rng.normal(0, 0.4, n))
        niche = np.exp(rng.normal(0, 0.1, n))
        arms = rng.choice(list(ARM_WEIGHTS), size=max(cells.subclones, 1), replace=False)
        blocks.append(
            _draw(u, normal[rng.integers(len(normal), size=NORMAL)] * own.astype(np.float32), *_plain(rng, soup))
        )
        rows += [(f"P{p}_marrow:n{i:03d}", f"P{p}_marrow", f"P{p}", "marrow", "normal") for i in range(NORMAL)]
        for where, size in (("marrow", cells.n_dtc), ("primary", cells.n_primary)):
            marrow = where == "marrow"
            profile = (
                tumour * niche * np.exp2(in_programme * (cells.common + rng.normal(0, 0.06))) if marrow else tumour
            )
            rate = np.repeat(profile[None].astype(np.float32), size, axis=0)
            runs = rng.random(size) < (cells.share if marrow else 0.05 * (cells.share > 0))
            rate[runs] *= np.exp2(u.programme * cells.log2fc / 0.65).astype(np.float32)
            if cells.quiescence:
                rate[runs] *= np.exp2(u.quiescence * cells.quiescence / 0.6).astype(np.float32)
            phase = np.where(rng.random(size) < (cells.cycling if marrow else 0.2), rng.integers(1, 3, size), 0)
            for k, change in ((1, u.s_phase), (2, u.g2m_phase)):
                rate[phase == k] *= np.exp2(change).astype(np.float32)
            if cells.stress:
                rate *= np.exp2(rng.normal(0, cells.stress, size)[:, None] * stress[None]).astype(np.float32)
            if marrow and cells.subclones:
                other = rng.random(size) < 0.5
                rate[other] *= dosage_factor(u, {arm: ARM_WEIGHTS[arm][0] for arm in arms}).astype(np.float32)
            if marrow and cells.progenitors:
                rate[rng.random(size) < cells.progenitors] = (u.profiles["HSPC"] * own).astype(np.float32)
            median = cells.library if marrow else 6000.0
            library = median * np.exp(rng.normal(0, cells.library_sd if marrow else 0.45, size))
            mean, concentration = (cells.ambient, cells.ambient_concentration) if marrow else (0.04, 40.0)
            ambient = rng.beta(mean * concentration, (1 - mean) * concentration, size)
            blocks.append(_draw(u, rate, library, soup, ambient, rng))
            rows += [(f"P{p}_{where}:{i:03d}", f"P{p}_{where}", f"P{p}", where, "malignant") for i in range(size)]
    table = pd.DataFrame(rows, columns=["cell_id", "sample_id", "patient_id", "compartment", "malignant_call"])
    sets = dict(panel())
    if cells.genes is not None:
        own = [gene for gene in sets[STEMNESS].up if gene in u.genes.index]
        chosen = np.random.default_rng(seed % UNIVERSES).choice(own, size=cells.genes, replace=False)
        sets[STEMNESS] = GeneSet(STEMNESS, tuple(sorted(chosen)))
    return Cohort(table, sp.vstack(blocks, format="csr"), pd.Index(u.genes.index.astype(str)), sets, None)


# ---------------------------------------------------------------------------------------------------------------------
# Rules: what the modules compute of them
# ---------------------------------------------------------------------------------------------------------------------

Outcome = tuple[bool, bool, bool, float]
"""Supported, not supported, test rejects, estimate."""


def judge_existence(found: Existence) -> Outcome:
    fit, sesoi = found.fit, EXISTENCE_SESOI
    half = (fit.ci90_high - fit.ci90_low) / 2
    precise = half <= sesoi or fit.ci_low > sesoi
    supported = (
        fit.n >= 6
        and found.test.p_value < 0.05
        and fit.ci_low > 0
        and fit.estimate >= sesoi
        and found.tail_fit.ci90_low > 0
        and found.p_gene_set < 0.05
        and not found.adjusted.estimate < sesoi / 2
        and bool(found.controls["ok"].all())
        and precise
    )
    refuted = (fit.ci90_high < sesoi or fit.ci_high < 0) and found.n_well >= 6 and half <= sesoi
    return supported, bool(refuted), found.test.p_value < 0.05, fit.estimate


def one_existence(cells: Cells, seed: int) -> Outcome:
    found = evaluate_existence(
        simulate(cells, seed),
        Within(covariates=COVARIATES, random_sets=RANDOM_SETS, seed=seed),
        signature=STEMNESS,
        negative_controls=CONTROLS if cells.controls else (),
        splits=SPLITS,
    )
    return judge_existence(found)


def one_duality(cells: Cells, seed: int) -> Outcome:
    found = evaluate_duality(
        simulate(cells, seed),
        Within(cells=10, covariates=("log_genes", "log_counts"), random_sets=RANDOM_SETS, seed=seed),
        stemness=STEMNESS,
        dormancy=DORMANCY,
    )
    sesoi = DUALITY_SESOI
    rejected = found.test.p_value < 0.05
    supported = (
        rejected and found.ci_low > 0 and found.estimate >= sesoi and found.p_gene_set < 0.05 and found.fit.n >= 6
    )
    refuted = found.fit.n >= 6 and (found.ci90_high < sesoi or found.ci_high < 0)
    return bool(supported), bool(refuted), rejected, found.estimate


# ---------------------------------------------------------------------------------------------------------------------
# Arms
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Genomes:
    """Arm profiles of a cohort: a disseminated cell keeps each event of its patient's clone with probability ``keep``.

    It gains as many others as it lost, and patients share arms that are altered often, so that R is less than
    ``keep ** 2``: see :data:`KEEP`. With ``cells`` None their number is negative binomial with mean 12 and at least 3.
    """

    keep: float = 1.0
    cells: int | None = None
    n_patients: int = 8
    n_primary: int = 60
    events: int = 8
    dtc_information: float = 50.0
    primary_information: float = 110.0
    shared_error: float = 0.05
    """SD of an arm's error that the tumour cells of all patients share."""
    own_error: float = 0.05
    """SD of an arm's error that the tumour cells of one patient share."""
    gains: bool = False
    """Whether all events are gains: there is one level beside the unaltered one."""


KEEP = {0.5: 0.775, 0.25: 0.592, 0.1: 0.393}
"""Probability to keep an event at which R is so much: the same estimate in 40 patients with 40 cells each, almost
without noise (information 10^6) and without errors of arms (:func:`true_likeness`, six cohorts: .493, .251, .097)."""
N_ARMS = 39


def genomes(setting: Genomes, seed: int) -> dict[str, ArmCells]:
    rng = np.random.default_rng([30260, seed])
    arms = tuple(f"{1 + j // 2}{'pq'[j % 2]}" for j in range(N_ARMS))
    common = np.where(np.arange(N_ARMS) < 10, 4.0, 1.0)  # arms that many tumours of the disease change
    direction = np.where(np.random.default_rng(5).random(N_ARMS) < 0.5, 1.0, -1.0)
    size = np.exp(np.random.default_rng(6).normal(0, 0.5, N_ARMS))
    shared = rng.normal(0, setting.shared_error, N_ARMS)
    out = {}

    def event_arms(k: int, taken: Iterable[int] = ()) -> list[int]:
        weight = common.copy()
        weight[list(taken)] = 0
        return rng.choice(N_ARMS, size=k, replace=False, p=weight / weight.sum()).tolist()

    def profile(altered: Iterable[int]) -> np.ndarray:
        out = np.zeros(N_ARMS)
        out[list(altered)] = (1.0 if setting.gains else direction[list(altered)]) * 0.35
        return out

    for p in range(setting.n_patients):
        trunk = event_arms(setting.events)
        clones = [[*trunk, *event_arms(2, trunk)] for _ in range(2)]
        wrong = shared + rng.normal(0, setting.own_error, N_ARMS)
        n_dtc = setting.cells or max(3, int(rng.negative_binomial(2, 2 / 14)))
        rows, truth, information = [], [], []
        for i in range(n_dtc):
            kept = [arm for arm in clones[0] if rng.random() < setting.keep]
            truth.append(profile([*kept, *event_arms(len(clones[0]) - len(kept), kept)]) + wrong)
            rows.append((f"P{p}_marrow:{i:03d}", f"P{p}_marrow", "DTC", ""))
            information.append(setting.dtc_information)
        for i in range(setting.n_primary):
            truth.append(profile(clones[i % 2]) + wrong)
            rows.append((f"P{p}_primary:{i:03d}", f"P{p}_primary", "PT", f"c{i % 2}"))
            information.append(setting.primary_information)
        for where, depth in (("marrow", setting.dtc_information), ("primary", setting.primary_information)):
            for i in range(60):
                truth.append(np.zeros(N_ARMS))
                rows.append((f"P{p}_{where}:n{i:03d}", f"P{p}_{where}", "normal", ""))
                information.append(depth)
        info = np.array(information)[:, None] * size[None] * np.exp(rng.normal(0, 0.45, len(rows)))[:, None]
        ratio = np.array(truth) + rng.normal(0, 1, info.shape) / np.sqrt(info)
        table = pd.DataFrame(rows, columns=["cell_id", "sample_id", "group", "clone_id"])
        out[f"P{p}"] = ArmCells(table, ArmStatistics(ratio * info, info, arms))
    return out


def true_likeness(keep: float, seeds: int = 1) -> float:
    """R where nothing has to be estimated."""
    plain = Genomes(keep, 40, n_patients=40, dtc_information=1e6, primary_information=1e6, shared_error=0, own_error=0)
    found = [evaluate_dissimilarity(genomes(plain, seed), repeats=1, seed=seed) for seed in range(seeds)]
    return float(np.mean([one.fit.estimate for one in found]))


def one_dissimilarity(setting: Genomes, seed: int) -> Outcome:
    found = evaluate_dissimilarity(genomes(setting, seed), repeats=5, seed=seed)
    enough = found.fit.n >= 6
    supported, refuted = enough and found.fit.ci_high < 0.5, enough and found.fit_low.ci90_low > 0.5
    return bool(supported), bool(refuted), found.test.p_value < 0.05, found.fit.estimate


# ---------------------------------------------------------------------------------------------------------------------
# Rates
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Numbers of tumour cells in eight patients whose rates are gamma or log-normal with this mean and spread."""

    mean: float
    shape: float | None = None
    log_sd: float | None = None
    screened: float = 1e6
    n_patients: int = 8


def one_rarity(setting: Rates, seed: int) -> Outcome:
    rng = np.random.default_rng([40260, seed])
    if setting.shape is not None:
        rate = rng.gamma(setting.shape, setting.mean / setting.shape, setting.n_patients)
    else:
        sd = setting.log_sd or 0.0
        rate = setting.mean * np.exp(rng.normal(-(sd**2) / 2, sd, setting.n_patients))
    k = rng.poisson(np.minimum(rate, 0.5) * setting.screened)
    found = beta_binomial(k.astype(float), np.full(setting.n_patients, setting.screened))
    outside = not found["low"] <= setting.mean <= found["high"]
    return found["high"] < 1e-3, found["low90"] > 1e-3, outside, found["rate"] * 1e6


# ---------------------------------------------------------------------------------------------------------------------
# Study
# ---------------------------------------------------------------------------------------------------------------------

Setting = Cells | Genomes | Rates
NULLS = {
    "none": Cells(),
    "none, 8 cells": Cells(n_dtc=8),
    "none, 25 cells": Cells(n_dtc=25),
    "all cells shifted by 1": Cells(common=1.0),
    "shifted by 1, depth sd .9": Cells(common=1.0, library=2500, library_sd=0.9),
    "shifted by 1, ambient mean .2 sd .15": Cells(common=1.0, ambient=0.2, ambient_concentration=6.0),
    "40 % of cells cycle": Cells(cycling=0.4),
    "two subclones, 6 arms": Cells(subclones=6),
    "20 % are marrow progenitors": Cells(progenitors=0.2, controls=True),
}
POWER = {
    "10 % at 1": Cells(share=0.1, log2fc=1.0),
    "30 % at .65": Cells(share=0.3),
    "30 % at 1, with controls": Cells(share=0.3, log2fc=1.0, controls=True),
    "70 % at .65, 12 cells, with controls": Cells(share=0.7, n_dtc=12, controls=True),
    "70 % at .65": Cells(share=0.7),
    "50 % at .65, 100 genes": Cells(share=0.5, genes=100),
    "50 % at 1, 100 genes": Cells(share=0.5, log2fc=1.0, genes=100),
    "5 % at .65": Cells(share=0.05),
}


def study() -> dict[str, dict[tuple[str, str], tuple[Callable[..., Outcome], Setting]]]:
    """Scenarios by claim: kind and name to the function and its setting."""
    return {
        "P1": {("null", name): (one_existence, one) for name, one in NULLS.items()}
        | {("effect", name): (one_existence, one) for name, one in POWER.items()},
        "P4": {
            ("null", "none"): (one_duality, Cells()),
            ("null", "40 % of cells cycle"): (one_duality, Cells(cycling=0.4)),
            ("null", "half run the programme, rest unrelated"): (one_duality, Cells(share=0.5)),
            ("null", "depth sd .9, all shifted by 1"): (
                one_duality,
                Cells(common=1.0, library=2500, library_sd=0.9),
            ),
            ("effect", "half at 1, quiescence .6"): (one_duality, Cells(share=0.5, log2fc=1.0, quiescence=0.6)),
            ("effect", "half at 1, quiescence 1"): (one_duality, Cells(share=0.5, log2fc=1.0, quiescence=1.0)),
            ("effect", "half at 1, quiescence 1, 30 cells"): (
                one_duality,
                Cells(share=0.5, log2fc=1.0, quiescence=1.0, n_dtc=30),
            ),
        },
        "C3": {
            ("null", "R = 1"): (one_dissimilarity, Genomes()),
            ("null", "R = 1, 3 cells"): (one_dissimilarity, Genomes(cells=3)),
            ("null", "R = 1, errors of .1"): (one_dissimilarity, Genomes(own_error=0.1)),
            ("null", "R = .5"): (one_dissimilarity, Genomes(KEEP[0.5])),
            ("null", "R = .5, 3 cells"): (one_dissimilarity, Genomes(KEEP[0.5], 3)),
            ("null", "R = .5, errors of .1"): (one_dissimilarity, Genomes(KEEP[0.5], own_error=0.1)),
            ("null", "R = .5, errors of .1, gains only"): (
                one_dissimilarity,
                Genomes(KEEP[0.5], own_error=0.1, gains=True),
            ),
            ("null", "R = .5, no errors"): (one_dissimilarity, Genomes(KEEP[0.5], own_error=0.0)),
            ("effect", "R = .25"): (one_dissimilarity, Genomes(KEEP[0.25])),
            ("effect", "R = .25, errors of .1"): (one_dissimilarity, Genomes(KEEP[0.25], own_error=0.1)),
            ("effect", "R = .1"): (one_dissimilarity, Genomes(KEEP[0.1])),
            ("effect", "R = 0"): (one_dissimilarity, Genomes(0.0)),
            ("effect", "R = 0, 3 cells"): (one_dissimilarity, Genomes(0.0, 3)),
            ("effect", "R = 0, errors of .1"): (one_dissimilarity, Genomes(0.0, own_error=0.1)),
        },
        "C1": {
            ("null", "1e-3, shape 1"): (one_rarity, Rates(1e-3, shape=1.0)),
            ("null", "1e-3, shape .3"): (one_rarity, Rates(1e-3, shape=0.3)),
            ("null", "1e-3, log-normal sd 1.5"): (one_rarity, Rates(1e-3, log_sd=1.5)),
            ("effect", "1e-5, shape 1"): (one_rarity, Rates(1e-5, shape=1.0)),
            ("effect", "1e-6, shape .3"): (one_rarity, Rates(1e-6, shape=0.3)),
            ("effect", "2e-2, shape 2"): (one_rarity, Rates(2e-2, shape=2.0, screened=1200)),
        },
    }


def _read(path: Path) -> pd.DataFrame:
    """Cohorts so far; ``null`` is the name of a kind, not a missing value."""
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])


def _hash(setting: Setting) -> str:
    return hashlib.sha256(repr(setting).encode()).hexdigest()[:12]


def run(repeats: int, only: str, wanted: str, path: Path) -> pd.DataFrame:
    """Every scenario in rounds of :data:`ROUND` cohorts; cohorts that ``path`` holds already are not drawn again."""
    done = _read(path) if path.exists() else pd.DataFrame(columns=list(RUN_COLUMNS))
    known = set(zip(done["claim"], done["kind"], done["scenario"], done["setting"], done["seed"], strict=True))
    if not path.exists():
        done.to_csv(path, sep="\t", index=False)
    current = set()
    for start in range(0, repeats, ROUND):
        for claim, scenarios in study().items():
            for (kind, name), (function, setting) in scenarios.items():
                end = repeats // 4 if kind == "effect" else repeats
                state = _hash(setting)
                current.add((claim, kind, name, state))
                if (only and claim != only) or (wanted and kind != wanted):
                    continue
                rows = []
                for seed in range(start, min(start + ROUND, end)):
                    if (claim, kind, name, state, seed) not in known:
                        found = (float(value) for value in function(setting, seed))
                        rows.append((claim, kind, name, state, seed, *found))
                new = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
                new.to_csv(path, sep="\t", index=False, header=False, mode="a", float_format="%.6g")
        print(f"{time.strftime('%H:%M:%S')} {start + ROUND} cohorts", flush=True)
    runs = _read(path)
    keys = zip(runs["claim"], runs["kind"], runs["scenario"], runs["setting"], strict=True)
    return runs[[key in current for key in keys]]


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per scenario, in the order of the study."""
    rows = []
    for claim, scenarios in study().items():
        for kind, name in scenarios:
            own = runs[(runs["claim"] == claim) & (runs["kind"] == kind) & (runs["scenario"] == name)]
            if own.empty:
                continue
            rate = own[["supported", "not_supported", "rejected", "estimate"]].mean()
            error = float(np.sqrt(rate["supported"] * (1 - rate["supported"]) / len(own)))
            rows.append((claim, kind, name, len(own), *rate, own["estimate"].std(), error))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_page(rows: pd.DataFrame, path: Path, repeats: int) -> None:
    """Write the table as Markdown."""
    lines = [
        f"<!-- made by: python benchmarks/claims_calibration.py --repeats {repeats} --out benchmarks/tables -->",
        "",
        "# Error rates and power of P1, P4, C3 and C1",
        "",
        "Eight patients a cohort; 16 disseminated cells a patient where the row says nothing else. `supported` and",
        "`not supported` are shares of cohorts; `rejected` is the two-sided test against 0 (P1, P4), against R = .5",
        "(C3), or the true mean outside the 95 % interval (C1). The estimate is the coherence (P1), the rank",
        "correlation (P4), R (C3) and cells in 10^6 (C1). `se` is the Monte-Carlo standard error of `supported`.",
        "",
        "| claim | kind | scenario | cohorts | supported | not supported | rejected | estimate | sd | se |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.to_dict("records"):
        numbers = " | ".join(f"{row[name]:.3g}" for name in COLUMNS[4:])
        lines.append(f"| {row['claim']} | {row['kind']} | {row['scenario']} | {row['cohorts']} | {numbers} |")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--only", default="", choices=["", "P1", "P4", "C3", "C1"])
    parser.add_argument("--kind", default="", choices=["", "null", "effect"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/tables"))
    parser.add_argument("--runs", type=Path, default=Path("results/claims_calibration_runs.tsv"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    rows = summarise(run(options.repeats, options.only, options.kind, options.runs))
    rows.to_csv(options.out / "claims_calibration.tsv", sep="\t", index=False, float_format="%.4g")
    write_page(rows, options.out / "claims_calibration.md", options.repeats)


if __name__ == "__main__":
    main()
