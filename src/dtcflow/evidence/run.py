"""Evaluate the analysis plan on a cohort: the one entry point of this stage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from dtcflow import genes
from dtcflow.contracts import COUNTS, TABLES, ContractError, check_counts
from dtcflow.evidence.claims import Judged, adjust_families, claims_table, judge_identity, judge_paired, not_evaluated
from dtcflow.evidence.controls import CONTROL_COLUMNS
from dtcflow.evidence.design import FACTORS
from dtcflow.evidence.identity import Identity, identity_share
from dtcflow.evidence.paired import Cohort, Paired, evaluate_paired
from dtcflow.evidence.plan import GROUPS, Plan, check_signatures
from dtcflow.evidence.robustness import SPECIFICATION_COLUMNS
from dtcflow.evidence.verdict import verdict_document
from dtcflow.scores.signatures import GeneSet, Synonyms

_LOG = logging.getLogger(__name__)

NEEDED_CELL_COLUMNS: Final = (
    "cell_id",
    "sample_id",
    "patient_id",
    "compartment",
    "malignant_call",
    "malignancy_q",
    "cell_type",
    "epithelial_z",
    "n_epithelial_markers",
)
DEFAULTS: Final = {"depth_repeats": 20, "max_cells_per_group": 150, "self_check_repeats": 200}
NULL_COLUMNS: Final = ("claim_id", "signature", "random_set", "estimate")


@dataclass(frozen=True)
class EvidenceResult:
    """What the stage writes.

    Attributes
    ----------
    claims, patients
        Tables of the contract.
    verdict
        Content of ``verdict.json``.
    sensitivity
        One row per claim and specification.
    controls
        One row per claim and control.
    null_distribution
        One row per claim and random gene set.
    """

    claims: pd.DataFrame
    patients: pd.DataFrame
    verdict: dict[str, Any]
    sensitivity: pd.DataFrame
    controls: pd.DataFrame
    null_distribution: pd.DataFrame


def _join(adata: ad.AnnData, cells: pd.DataFrame) -> pd.DataFrame:
    """Rows of the cell table in the order of ``adata``, with the factors of the sample sheet; index = row number."""
    missing = [name for name in NEEDED_CELL_COLUMNS if name not in cells]
    if missing:
        raise ContractError(f"the joined cell table lacks the columns {', '.join(missing)}")
    if not cells["cell_id"].is_unique:
        raise ContractError("the joined cell table has a cell_id more than once")
    at = pd.Index(cells["cell_id"].astype(str)).get_indexer(pd.Index(adata.obs_names.astype(str)))
    if (at < 0).any():
        example = adata.obs_names[int(np.flatnonzero(at < 0)[0])]
        raise ContractError(
            f"{int((at < 0).sum())} cells have no entry in the joined cell table, for example {example!r}"
        )
    joined = cells.iloc[at].reset_index(drop=True)
    for name in FACTORS:
        if name not in joined and name in adata.obs:
            joined[name] = adata.obs[name].astype(str).to_numpy()
    return joined


def cohort_of(
    adata: ad.AnnData,
    cells: pd.DataFrame,
    panel: Iterable[GeneSet],
    *,
    synonyms: Synonyms | pd.DataFrame | None = None,
) -> Cohort:
    """Bring cells, counts and signatures together.

    Parameters
    ----------
    adata
        Stage ``embedding``: QC-passed cells with ``layers["counts"]``, index = cell id. Genes that were not measured in
        all samples (``var["in_all_samples"]``) are left out: their zeros are no measurements.
    cells
        Joined table, one row per cell (more rows than ``adata`` has cells are fine).
    panel
        Signatures, derived variants included.
    synonyms
        Older and newer gene symbols; None takes the shipped table.

    Raises
    ------
    ContractError
        A column is missing, a cell has no entry, an id occurs twice, or counts are not whole numbers.
    """
    counts = adata.layers[COUNTS]
    check_counts(counts, "the cohort")
    joined = _join(adata, cells)
    symbols = pd.Index(adata.var_names.astype(str))
    if "in_all_samples" in adata.var:
        keep = np.flatnonzero(adata.var["in_all_samples"].to_numpy(dtype=bool))
        if keep.size < symbols.size:
            _LOG.info("%d of %d genes were measured in all samples", keep.size, symbols.size)
            # only tumour cells are scored: slicing their rows later is cheaper than copying all cells here
            counts, symbols = counts[:, keep], symbols[keep]
    return Cohort(
        cells=joined,
        counts=counts,
        genes=symbols,
        panel={one.name: one for one in panel},
        synonyms=genes.load_aliases() if synonyms is None else synonyms,
    )


def evaluate_plan(
    adata: ad.AnnData,
    cells: pd.DataFrame,
    plan: Plan,
    panel: Iterable[GeneSet],
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    synonyms: Synonyms | pd.DataFrame | None = None,
) -> EvidenceResult:
    """Evaluate every claim of the plan.

    Parameters
    ----------
    adata, cells, panel, synonyms
        See :func:`cohort_of`. ``cells`` needs ``cell_id sample_id patient_id compartment malignant_call malignancy_q
        cell_type epithelial_z n_epithelial_markers``, and ``pct_mt`` for that covariate.
    plan
        From :func:`dtcflow.evidence.plan.load_plan`.
    settings
        Block ``evidence`` of the configuration.
    seed
        Start of every random stream. The result does not depend on the order of cells, genes or patients.

    Raises
    ------
    InputError
        The plan names a signature that the panel does not have.
    ContractError
        See :func:`cohort_of`.
    """
    used = {**DEFAULTS, **(settings or {})}
    cohort = cohort_of(adata, cells, panel, synonyms=synonyms)
    check_signatures(plan, cohort.panel)
    identities: dict[str, Identity] = {}
    contrasts: dict[str, Paired] = {}
    with threadpool_limits(limits=1):  # sums in another order round differently, and ties decide exact tests
        for claim in plan.claims:
            if not claim.evaluated:
                continue
            if claim.test == "identity_share":
                identities[claim.id] = identity_share(cohort.cells, claim, plan.rules)
            else:
                contrasts[claim.id] = evaluate_paired(cohort, claim, plan.rules, settings=used, seed=seed)
    adjusted = adjust_families(plan, {name: found.test.p_value for name, found in contrasts.items()})
    judged = _judge(plan, cohort, identities, contrasts, adjusted)
    for one in judged:
        _LOG.info("%s: %s %s", one.claim.id, one.decision.verdict, ";".join(one.decision.codes))
    return EvidenceResult(
        claims=claims_table(judged),
        patients=_patients(plan, identities, contrasts),
        verdict=verdict_document(plan, judged, settings=used, seed=seed, adjusted=adjusted),
        sensitivity=_stack([found.sensitivity for found in contrasts.values()], SPECIFICATION_COLUMNS),
        controls=_stack([found.controls for found in contrasts.values()], CONTROL_COLUMNS),
        null_distribution=_stack([_null(found) for found in contrasts.values()], NULL_COLUMNS),
    )


def _judge(
    plan: Plan,
    cohort: Cohort,
    identities: Mapping[str, Identity],
    contrasts: Mapping[str, Paired],
    adjusted: Mapping[str, float],
) -> list[Judged]:
    sampled = set(cohort.cells["compartment"].astype(str))
    gates: dict[str, Judged] = {}
    for name, found in identities.items():
        claim = plan.claim(name)
        gates[name] = judge_identity(claim, plan.rules, found, sampled=GROUPS[claim.a] in sampled)
    verdicts = {name: gates[name].decision.verdict if name in gates else "INCONCLUSIVE" for name in plan.gates}
    judged = []
    for claim in plan.claims:
        if claim.id in gates:
            judged.append(gates[claim.id])
        elif claim.id in contrasts:
            own = {name: verdict for name, verdict in verdicts.items() if name != claim.id}
            judged.append(judge_paired(contrasts[claim.id], plan.rules, p_adjusted=adjusted[claim.id], gates=own))
        else:
            judged.append(not_evaluated(claim))
    return judged


def _stack(frames: list[pd.DataFrame], columns: Iterable[str]) -> pd.DataFrame:
    kept = [frame for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(columns))


def _patients(plan: Plan, identities: Mapping[str, Identity], contrasts: Mapping[str, Paired]) -> pd.DataFrame:
    frames = []
    for claim in plan.claims:
        if claim.id in identities:
            frames.append(identities[claim.id].patients.assign(claim_id=claim.id, analysis="primary"))
        elif claim.id in contrasts:
            frames.append(contrasts[claim.id].patients.assign(claim_id=claim.id))
    frame = _stack(frames, TABLES["patients"])
    first = list(TABLES["patients"])
    return frame[[*first, *(name for name in frame.columns if name not in first)]]


def _null(found: Paired) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "claim_id": found.claim.id,
            "signature": found.claim.primary_signature,
            "random_set": np.arange(found.null.size),
            "estimate": found.null,
        }
    )
