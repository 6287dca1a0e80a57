"""Evaluate the analysis plan on a cohort: the one entry point of this stage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anndata as ad
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from dtcflow import genes
from dtcflow.contracts import COUNTS, TABLES, ContractError, check_counts, read_table
from dtcflow.evidence.claims import claims_table, not_evaluated
from dtcflow.evidence.controls import CONTROL_COLUMNS
from dtcflow.evidence.design import FACTORS
from dtcflow.evidence.genome_claims import PatientGenomes, read_genomes
from dtcflow.evidence.paired import DOUBT_COLUMNS, Cohort
from dtcflow.evidence.plan import Plan, load_plan
from dtcflow.evidence.plan_checks import check_plan
from dtcflow.evidence.registry import Context, Evaluated, evaluate_claims, judge_claims
from dtcflow.evidence.robustness import SPECIFICATION_COLUMNS
from dtcflow.evidence.verdict import verdict_document
from dtcflow.scores.signatures import GeneSet, Synonyms, load_gmt, load_markers, load_panel

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
DEFAULTS: Final = {
    "depth_repeats": 20,
    "max_cells_per_group": 150,
    "self_check_repeats": 200,
    "alternative_scores": True,
}
SHARED_CELLS: Final = ("same_cells", "same_library")
"""Findings of the identity check that make two samples one."""
SAMPLE_FACTS: Final = (*FACTORS, "timepoint")
"""Columns of the sample sheet that the claims use."""
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


def _join(adata: ad.AnnData, cells: pd.DataFrame, samples: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of the cell table in the order of ``adata``, with facts of the sample sheet; index = row number."""
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
    for name in SAMPLE_FACTS:
        if name in joined:
            continue
        if samples is not None and name in samples:
            facts = samples.set_index("sample_id")[name]
            joined[name] = joined["sample_id"].astype(str).map(facts).fillna("").astype(str).to_numpy(dtype=object)
        elif name in adata.obs:
            joined[name] = adata.obs[name].astype(str).to_numpy()
    return joined


def doubts_of(identities: pd.DataFrame | None) -> pd.DataFrame:
    """Pairs of patients whose samples share cells, from the table ``identity``: one row a pair, patients in order."""
    if identities is None or identities.empty:
        return pd.DataFrame(columns=list(DOUBT_COLUMNS))
    found = identities.fillna({"other_patient_id": ""})
    across = found["finding"].isin(SHARED_CELLS) & (found["other_patient_id"] != "")
    found = found[across & (found["patient_id"].astype(str) != found["other_patient_id"].astype(str))]
    rows = [
        (*sorted((str(one), str(other))), str(detail))
        for one, other, detail in found[["patient_id", "other_patient_id", "detail"]].to_numpy()
    ]
    return pd.DataFrame(rows, columns=list(DOUBT_COLUMNS)).drop_duplicates(list(DOUBT_COLUMNS[:2]))


def cohort_of(
    adata: ad.AnnData,
    cells: pd.DataFrame,
    panel: Iterable[GeneSet],
    *,
    synonyms: Synonyms | pd.DataFrame | None = None,
    markers: Mapping[str, GeneSet] | None = None,
    samples: pd.DataFrame | None = None,
    identities: pd.DataFrame | None = None,
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
    markers
        Marker panels that named the cell types; None takes the shipped ones.
    samples
        The sample sheet, one row per ``sample_id``; ``study``, ``platform``, ``batch`` and ``timepoint`` are used.
    identities
        Table ``identity`` of the intake; findings of shared cells across patients cast doubt on claims.

    Raises
    ------
    ContractError
        A column is missing, a cell has no entry, an id occurs twice, or counts are not whole numbers.
    """
    counts = adata.layers[COUNTS]
    check_counts(counts, "the cohort")
    joined = _join(adata, cells, samples)
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
        markers=load_markers() if markers is None else markers,
        samples=samples,
        doubts=doubts_of(identities),
    )


class PlanFiles(Protocol):
    """Paths of what the plan is evaluated with, beside the cells."""

    claims: str
    panel: str
    gmt: Sequence[str]
    markers: str
    identities: str
    genomes: Sequence[str]


def read_inputs(files: PlanFiles, *, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Read the files of the plan into keywords of :func:`evaluate_plan`.

    Parameters
    ----------
    files
        Paths: analysis plan, signature table and GMT files, marker table, findings of the identity check, stage ``cnv``
        of every patient.
    samples
        Rows of the sample sheet.
    """
    plan = load_plan(files.claims)
    panel = [*load_panel(files.panel), *(one for path in files.gmt for one in load_gmt(path))]
    wanted = any(claim.evaluated and claim.test == "dissimilarity" for claim in plan.claims)
    return {
        "plan": plan,
        "panel": panel,
        "markers": load_markers(files.markers),
        "samples": pd.DataFrame(list(samples)),
        "identities": read_table(files.identities, "identity"),
        "genomes": read_genomes(files.genomes) if wanted else {},
    }


def evaluate_plan(
    adata: ad.AnnData,
    cells: pd.DataFrame,
    plan: Plan,
    panel: Iterable[GeneSet],
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    synonyms: Synonyms | pd.DataFrame | None = None,
    markers: Mapping[str, GeneSet] | None = None,
    samples: pd.DataFrame | None = None,
    identities: pd.DataFrame | None = None,
    genomes: Mapping[str, PatientGenomes] | None = None,
) -> EvidenceResult:
    """Evaluate every claim of the plan.

    Parameters
    ----------
    adata, cells, panel, synonyms, markers, samples, identities
        See :func:`cohort_of`. ``cells`` needs ``cell_id sample_id patient_id compartment malignant_call malignancy_q
        cell_type epithelial_z n_epithelial_markers``, and ``pct_mt`` for that covariate.
    plan
        From :func:`dtcflow.evidence.plan.load_plan`.
    genomes
        Arm statistics of the cells by patient (``genome_claims.read_genomes``); without them claims about genomes have
        no data.
    settings
        Block ``evidence`` of the configuration.
    seed
        Start of every random stream. The result does not depend on the order of cells, genes or patients.

    Raises
    ------
    InputError
        The plan names a signature that the panel does not have, or tests the genes that chose the cells.
    ContractError
        See :func:`cohort_of`.
    """
    used = {**DEFAULTS, **(settings or {})}
    cohort = cohort_of(adata, cells, panel, synonyms=synonyms, markers=markers, samples=samples, identities=identities)
    check_plan(plan, cohort.panel, cohort.markers)
    with threadpool_limits(limits=1):  # sums in another order round differently, and ties decide exact tests
        found = evaluate_claims(Context(cohort, plan.rules, used, seed, genomes=genomes or {}), plan.claims)
    by_id, adjusted = judge_claims(plan, found)
    judged = [by_id.get(claim.id) or not_evaluated(claim) for claim in plan.claims]
    for one in judged:
        _LOG.info("%s: %s %s", one.claim.id, one.decision.verdict, ";".join(one.decision.codes))
    return EvidenceResult(
        claims=claims_table(judged),
        patients=_patients(found),
        verdict=verdict_document(plan, judged, settings=used, seed=seed, adjusted=adjusted),
        sensitivity=_stack([one.sensitivity for one in found.values()], SPECIFICATION_COLUMNS),
        controls=_stack([one.controls for one in found.values()], CONTROL_COLUMNS),
        null_distribution=_stack([one.null for one in found.values()], NULL_COLUMNS),
    )


def _stack(frames: list[pd.DataFrame], columns: Iterable[str]) -> pd.DataFrame:
    kept = [frame for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(columns))


def _patients(found: Mapping[str, Evaluated]) -> pd.DataFrame:
    frames = [one.patients.assign(claim_id=name) for name, one in found.items()]
    frame = _stack(frames, TABLES["patients"])
    first = list(TABLES["patients"])
    for name in ("n_called_a", "n_called_b"):  # whole numbers with gaps: as floats they would lose digits
        if name in frame:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("Int64")
    return frame[[*first, *(name for name in frame.columns if name not in first)]]
