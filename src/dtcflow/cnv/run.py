"""Copy-number evidence for all cells of one patient."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.arms import SplitStatistics, usable_genes
from dtcflow.cnv.burden import burden
from dtcflow.cnv.decoys import decoy_scores
from dtcflow.cnv.fdr import decoy_q, strata, stratified_q
from dtcflow.cnv.given import GivenProfile, PlacedProfile, as_table, describe, profile_status, score_patient
from dtcflow.cnv.null import (
    STRICT_TAIL_FRACTION,
    TAIL_FRACTION,
    TAU_FLOOR,
    Floats,
    Noise,
    normal_tail_p_values,
    tail_p_values,
)
from dtcflow.cnv.packed import unpack as unpack
from dtcflow.cnv.packed import unpack_segments as unpack_segments
from dtcflow.cnv.profile import (
    MIN_PROFILE_ARMS,
    BestMatch,
    best_match,
    profile_of,
)
from dtcflow.cnv.reference import choose_reference
from dtcflow.cnv.scoring import (
    Scored,
    believable_clones,
    learn_tumour,
    score_against_clones,
    score_cells,
    suspect_reference,
)
from dtcflow.cnv.statuses import MANY_CELLS, check_settings, shallow_reason, smallest_detectable
from dtcflow.cnv.windows import Windows, smooth_windows, window_score
from dtcflow.contracts import (
    COUNTS,
    EPITHELIAL,
    HAEMATOPOIETIC_COMPARTMENTS,
    HAEMATOPOIETIC_TYPES,
    UNKNOWN,
    X_CNV,
)
from dtcflow.order import stable_order
from dtcflow.qc.loss_audit import epithelial_evidence
from dtcflow.scores.calibrated import log_normalise
from dtcflow.sparse import cells_per_gene

log = logging.getLogger(__name__)

MAX_SCREENING_ROUNDS = 5
"""A type that hides tumour cells can explain away those of another; screening is repeated once they are gone."""


EMPTY_TABLES: dict[str, dict[str, Any]] = {
    "cnv_windows": {"chromosome": object, "start": np.int64, "end": np.int64, "arm": object, "n_genes": np.int64},
    "segments": {"segment": object, "arm": object, "chromosome": object, "start": np.int64, "end": np.int64}
    | {"n_genes": np.int64, "inflation": float, "tau": float},
    "arm_noise": {"arm": object, "inflation": float, "tau": float, "n_genes": np.int64},
    "clone_nulls": {"kind": object, "t": float, "llr": float, "beats_target": bool},
}
"""Tables of stage ``cnv`` and their columns, as they are when nothing could be assessed."""


@dataclass(frozen=True)
class CopyNumber:
    """Everything later steps need of one patient: per-cell evidence, arm statistics, windows and the status."""

    cells: pd.DataFrame
    """Table ``cnv_cells``; one row per cell that passed QC."""
    windows: ad.AnnData
    """Stage ``cnv``: ``obsm["X_cnv"]`` plus the additive arm statistics ``arm_u``, ``arm_info`` and their halves."""
    status: dict[str, Any]


def candidate_cells(cells: pd.DataFrame, *, epithelial_z: float, tumour_lineage: str) -> npt.NDArray[np.bool_]:
    """Cells that may be tumour: typed epithelial or with epithelial evidence; with ``any`` every cell is one."""
    if tumour_lineage == "any":
        return np.ones(len(cells), dtype=bool)
    typed = (cells["cell_type"] == EPITHELIAL).to_numpy(dtype=bool)
    return np.asarray(typed | epithelial_evidence(cells, epithelial_z=epithelial_z).to_numpy(dtype=bool))


def infer_copy_number(
    adata: ad.AnnData,
    cells: pd.DataFrame,
    *,
    patient_id: str,
    settings: Mapping[str, Any],
    epithelial_z: float,
    seed: int,
    given: GivenProfile | None = None,
) -> CopyNumber:
    """Copy-number evidence for one patient.

    Parameters
    ----------
    adata
        The patient's cells that passed QC (all samples, from :func:`dtcflow.merge.merge_samples`):
        ``layers["counts"]`` and gene positions in ``var``; genes with ``var["in_all_samples"]`` false are not used, so
        that the windows of all patients are the same.
    cells
        One row per cell in the order of ``adata``: annotation and QC columns (``cell_type epithelial_z
        n_epithelial_markers is_doublet compartment sample_id``).
    settings
        ``copy_number`` section of the configuration.
    epithelial_z
        From this calibrated z on (and with two markers) a cell is a tumour candidate.
    given
        The tumour's known copy number; cells are then scored by it and not by a profile learned from them.

    Returns
    -------
    CopyNumber
        Always complete: without a usable reference, or with too few genes, every cell is ``not_assessable`` with the
        reason in ``status`` and no number is made up.
    """
    check_settings(settings)
    cell_ids = cells["cell_id"].tolist()
    in_all = (
        adata.var["in_all_samples"].to_numpy(dtype=bool)
        if "in_all_samples" in adata.var
        else np.ones(adata.n_vars, bool)
    )
    order = genome_order(adata.var)
    order = order[in_all[order]]
    var = adata.var.iloc[order]
    counts = sp.csr_matrix(adata.layers[COUNTS][:, order])
    usable = usable_genes(var)
    expressed = usable & (cells_per_gene(counts) >= max(3, 0.01 * counts.shape[0]))
    reference = choose_reference(
        cells,
        max_per_type=settings["max_reference_per_type"],
        min_cells=settings["min_reference_cells"],
        seed=seed,
        epithelial_z=epithelial_z,
        key=settings["reference_key"],
        labels=settings["reference_labels"],
    )
    status: dict[str, Any] = {
        "patient_id": patient_id,
        "n_cells": len(cells),
        "reference": reference.counts,
        "reference_note": reference.note,
        "n_genes": int(expressed.sum()),
        "status": reference.status,
        "reason": "" if reference.status == "ok" else reference.note,
    }
    if reference.status == "ok" and expressed.sum() < settings["min_genes"]:
        status["status"] = "too_few_genes"
        status["reason"] = f"{int(expressed.sum())} expressed genes with a position, {settings['min_genes']} are needed"
    suspects = np.zeros(len(cells), dtype=bool)
    scored: Scored | None = None
    if status["status"] == "ok":
        gene_arms = var["arm"].astype(str).to_numpy(dtype=object)
        scored = score_cells(counts, cell_ids, reference, gene_arms, usable, folds=settings["folds"], seed=seed)
        for _ in range(MAX_SCREENING_ROUNDS):
            suspect = suspect_reference(
                scored, seed=seed, folds=settings["folds"], effect=settings["min_abs_log_ratio"]
            )
            if not suspect.any():
                break
            suspects[reference.rows[suspect]] = True
            log.warning("%s: %d reference cells carry a tumour-like genome and left it", patient_id, suspect.sum())
            reference = reference.without(suspect, min_cells=settings["min_reference_cells"])
            status.update(reference=reference.counts, reference_note=reference.note, status=reference.status)
            status["reason"] = "" if reference.status == "ok" else reference.note
            if reference.status != "ok":
                break
            scored = score_cells(counts, cell_ids, reference, gene_arms, usable, folds=settings["folds"], seed=seed)
        if status["status"] == "ok" and len(scored.model.arms) <= MIN_PROFILE_ARMS:
            status.update(status="too_few_genes", reason=f"{len(scored.model.arms)} arms have enough informative genes")
    status["n_suspect_reference"] = int(suspects.sum())
    candidate = candidate_cells(cells, epithelial_z=epithelial_z, tumour_lineage=settings["tumour_lineage"])
    if status["status"] == "ok" and scored is not None:
        n_cells = max(MANY_CELLS, int(candidate.sum()))
        needed = smallest_detectable(scored.statistics.full, candidate, scored.noise, sizes=(n_cells,))
        shallow = shallow_reason(needed[f"arms_at_{n_cells}_cells"], len(scored.model.arms), n_cells=n_cells)
        if shallow:
            status.update(status="too_shallow", reason=shallow)
    if status["status"] != "ok" or scored is None:
        log.warning("%s: copy number not assessable: %s", patient_id, status["reason"])
        return _not_assessable(cells, candidate, status)
    known = None if given is None else given.on_model(var, scored.model)
    table, nulls = evidence_table(
        cells, scored, candidate, suspects, settings=settings, seed=seed, status=status, given=known
    )
    smoothed = smooth_windows(
        log_normalise(adata.layers[COUNTS]),
        adata.var,
        reference.rows,
        reference.types,
        window_size=settings["window_size"],
        step=settings["step"],
        genes=in_all,
    )
    table["cnv_score_infercnvpy"] = window_score(smoothed)
    table["left_reference"] = suspects
    status["infercnvpy_concordance"] = concordance(table, cells)
    packed = _pack(cells, var, smoothed, scored, nulls)
    if given is not None and known is not None:
        status.update(describe(given, known))
        packed.uns["given_profile"] = as_table(known.arms)
        if status["profile_source"] == "given":
            packed.uns["given_segments"] = as_table(known.segments)
        for warning in status["profile_warnings"]:
            log.warning("%s: %s", patient_id, warning)
    return CopyNumber(table, packed, status)


def evidence_table(
    cells: pd.DataFrame,
    scored: Scored,
    candidate: npt.NDArray[np.bool_],
    suspect: npt.NDArray[np.bool_],
    *,
    settings: Mapping[str, Any],
    seed: int,
    status: dict[str, Any],
    given: PlacedProfile | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Burden and clone evidence per cell; fills ``status``.

    A ``given`` profile that can be used goes before a learned one, which is still learned for comparison.

    Returns
    -------
    pandas.DataFrame
        Table ``cnv_cells`` but for infercnvpy's score.
    pandas.DataFrame
        What the clone scores are compared with: ``kind`` (``matched``, ``unseen``, ``decoy_flipped``,
        ``decoy_permuted``), ``t``, ``llr``, and whether a decoy explains its cell better than the learned profile does.
    """
    cell_ids = cells["cell_id"].tolist()
    reference, statistics, noise = scored.reference, scored.statistics, scored.noise
    inflation, tau, effect = noise.inflation, noise.tau, settings["min_abs_log_ratio"]
    is_reference = np.zeros(len(cells), dtype=bool)
    is_reference[reference.rows] = True
    candidate = candidate & ~is_reference & ~suspect
    unmatched = ~np.isin(cells["cell_type"].to_numpy(dtype=object), list(reference.counts)) | candidate | suspect
    unmatched = unmatched & ~is_reference

    def p_values(matched: Floats, unseen: Floats) -> Floats:
        return np.where(unmatched, unseen, matched)

    known, unknown = np.full_like(tau, TAU_FLOOR), tau
    as_known, as_unknown = (burden(statistics.full, inflation, t) for t in (known, unknown))
    of_matched, of_unseen = burden(scored.matched, inflation, known), burden(scored.unseen, inflation, unknown)
    # seeds need a ranking without ties; what is reported is not extrapolated as far
    seed_p, burden_p = (
        p_values(
            tail_p_values(as_known, of_matched, fraction=fraction),
            tail_p_values(as_unknown, of_unseen, fraction=fraction),
        )
        for fraction in (TAIL_FRACTION, STRICT_TAIL_FRACTION)
    )
    fold = (stable_order(cell_ids, seed=seed + 2) % np.uint64(settings["folds"])).astype(np.int64)

    tumour = learn_tumour(
        scored, candidate, suspect, seed_p, fold, effect=effect, own_lineage=settings["tumour_lineage"] != "any"
    )
    scored, learned, profile = tumour.scored, tumour.learned, tumour.profile
    statistics = scored.statistics
    candidate = candidate | suspect
    taking_part = candidate | tumour.taking_part
    compartment = cells["compartment"].to_numpy(dtype=object)
    # clones that lack each other's events weaken the mean profile of the tumour; one strong clone vouches for it
    if profile is None and learned.table is not None and learned.status == "ok":
        whole = profile_of(learned.table)
        if np.count_nonzero(whole) >= MIN_PROFILE_ARMS and believable_clones(
            scored, learned, compartment, effect=effect
        ):
            profile = whole
    empty = np.full(len(cells), np.nan)
    t = llr = llr_p = fraction = fraction_se = decoy = empty
    profiles = np.zeros((0, len(scored.model.arms)))
    nulls = pd.DataFrame({column: [] for column in EMPTY_TABLES["clone_nulls"]}, dtype=object)
    best, by_given = None, None
    of_null: dict[str, BestMatch] = {}
    decoys: Mapping[str, Floats] = {}
    if given is not None and not given.problem:
        by_given = score_patient(given, scored, candidate, seed=seed)
        best, decoys = by_given.best, by_given.decoys
        of_null = {"matched": by_given.matched, "unseen": by_given.unseen}
    elif profile is not None:
        best = score_against_clones(
            scored, learned, profile, compartment, np.where(taking_part, fold, -1), effect=effect
        )
        of_null = {
            "matched": best_match(best.profiles, scored.matched, inflation),
            "unseen": best_match(best.profiles, scored.unseen, inflation),
        }
        decoys = decoy_scores(
            statistics,
            taking_part,
            seed_p,
            fold,
            profile,
            inflation=inflation,
            tau=tau,
            min_abs_log_ratio=effect,
            seed=seed,
        )
    if best is not None:
        profiles, t, llr, fraction, fraction_se = best.profiles, best.t, best.llr, best.fraction, best.fraction_se
        llr_p = p_values(*(normal_tail_p_values(t, of_null[kind].t) for kind in ("matched", "unseen")))
        stratum = cell_strata(cells, candidate)
        decoy = np.full(len(cells), np.nan)
        for group in np.unique(stratum):
            inside = stratum == group
            decoy[inside] = decoy_q(t[inside], np.column_stack([d[inside] for d in decoys.values()]))
        nulls = pd.concat(
            [
                *(
                    pd.DataFrame({"kind": kind, "t": b.t, "llr": b.llr, "beats_target": False})
                    for kind, b in of_null.items()
                ),
                *(
                    pd.DataFrame({"kind": f"decoy_{name.split('_')[0]}", "t": d[taking_part], "llr": np.nan}).assign(
                        beats_target=(d > t)[taking_part]
                    )
                    for name, d in decoys.items()
                ),
            ],
            ignore_index=True,
        )
    learned_status = learned.status if profile is not None or learned.status != "ok" else "weak_profile"
    learned_log_ratio = learned.table["log_ratio"].to_numpy() if learned.table is not None else None
    status.update(
        profile_status(given, by_given, learned=learned_log_ratio, believed=profile is not None),
        clone_status="given" if by_given else learned_status,
        n_candidates=int(candidate.sum()),
        profile_strength=tumour.strength,
        learned_among=tumour.among,
        n_profile_arms=0 if profile is None else int(np.count_nonzero(profile)),
        n_profiles=len(profiles),
        inflation=float(np.median(inflation)),
        tau=float(np.median(tau)),
        smallest_detectable=smallest_detectable(statistics.full, candidate, noise, strength=scored.min_strength),
        n_arms=len(scored.model.arms),
    )
    table = pd.DataFrame(
        {
            "cell_id": cell_ids,
            "cnv_status": "ok",
            "is_reference": is_reference,
            "cnv_burden": np.where(unmatched, as_unknown, as_known),
            "cnv_burden_p": burden_p,
            "cnv_burden_q": stratified_q(burden_p, candidate),
            "clone_t": t,
            "clone_llr": llr,
            "clone_llr_p": llr_p,
            "clone_decoy_q": decoy,
            "n_arms_altered": _arms_altered(statistics, noise),
            "is_candidate": candidate,
            "clone_membership": learned.membership if by_given is None else np.zeros(len(cells)),
            "clone_fraction": fraction,
            "clone_fraction_se": fraction_se,
        }
    )
    return table, nulls


def cell_strata(cells: pd.DataFrame, candidate: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """:func:`dtcflow.cnv.fdr.strata` of a table of cells with ``cell_type`` and ``compartment``."""
    cell_type = cells["cell_type"].to_numpy(dtype=object)
    return strata(
        candidate,
        lineage_normal=~np.isin(cell_type, [EPITHELIAL, UNKNOWN, ""]),
        blood=np.isin(cell_type, list(HAEMATOPOIETIC_TYPES)),
        marrow=np.isin(cells["compartment"].to_numpy(dtype=object), list(HAEMATOPOIETIC_COMPARTMENTS)),
    )


def concordance(table: pd.DataFrame, cells: pd.DataFrame) -> dict[str, float | None]:
    """Per sample: Spearman correlation of our burden with infercnvpy's window score, the second opinion."""
    found: dict[str, float | None] = {}
    for sample in sorted(set(cells["sample_id"])):
        part = table[(cells["sample_id"] == sample).to_numpy(dtype=bool)]
        rho = part["cnv_burden"].corr(part["cnv_score_infercnvpy"], method="spearman") if len(part) > 2 else np.nan
        found[str(sample)] = float(rho) if np.isfinite(rho) else None
    return found


def _arms_altered(statistics: SplitStatistics, noise: Noise) -> npt.NDArray[np.int64]:
    """Arms per cell with |z| >= 3 and the same sign in both halves of the genes (a description, not a test)."""
    log_ratio, _ = statistics.full.centred()
    z = log_ratio / np.sqrt(noise.inflation / np.maximum(statistics.full.info, 1e-9) + noise.tau**2)
    first, second = (half.centred()[0] for half in statistics.halves)
    agree = (np.sign(first) == np.sign(log_ratio)) & (np.sign(second) == np.sign(log_ratio))
    return np.asarray(((np.abs(z) >= 3.0) & agree).sum(axis=1), dtype=np.int64)


def genome_order(var: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Column order by chromosome, start and symbol, so that results do not depend on the order of the genes."""
    rank = {f"chr{i}": i for i in range(1, 23)} | {"chrX": 23, "chrY": 24, "chrM": 25}
    chromosome = var["chromosome"].astype(str).map(rank).fillna(99).to_numpy(dtype=float)
    return np.lexsort((var.index.astype(str).to_numpy(dtype=str), var["start"].to_numpy(dtype=float), chromosome))


def _identity(cells: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index(cells["cell_id"].astype(str), name=None, dtype=object))


def _pack(cells: pd.DataFrame, var: pd.DataFrame, windows: Windows, scored: Scored, nulls: pd.DataFrame) -> ad.AnnData:
    packed = ad.AnnData(obs=_identity(cells))
    packed.obsm[X_CNV] = windows.values
    statistics, layout = scored.statistics, scored.model.layout
    for suffix, part in (("", statistics.full), ("_half0", statistics.halves[0]), ("_half1", statistics.halves[1])):
        packed.obsm[f"arm_u{suffix}"] = part.u
        packed.obsm[f"arm_info{suffix}"] = part.info
    for half in (0, 1):
        packed.obsm[f"segment_u_half{half}"] = scored.bins.u[:, half::2]
        packed.obsm[f"segment_info_half{half}"] = scored.bins.info[:, half::2]
    packed.uns["cnv_windows"] = windows.layout
    segment_of = layout.column_bin // 2
    placed = var.assign(segment=segment_of)[segment_of >= 0].groupby("segment", observed=True)
    of_segments = scored.null.noise(of="segments")
    packed.uns["segments"] = pd.DataFrame(
        {
            "segment": list(layout.segments),
            "arm": [layout.arms[a] for a in layout.segment_arm],
            "chromosome": placed["chromosome"].first().astype(str).to_numpy(dtype=object),
            "start": placed["start"].min().to_numpy(dtype=np.int64),
            "end": placed["end"].max().to_numpy(dtype=np.int64),
            "n_genes": layout.n_genes,
            "inflation": of_segments.inflation,
            "tau": of_segments.tau,
        }
    )
    packed.uns["arm_noise"] = pd.DataFrame(
        {
            "arm": list(layout.arms),
            "inflation": scored.noise.inflation,
            "tau": scored.noise.tau,
            "n_genes": np.bincount(layout.segment_arm, weights=layout.n_genes, minlength=len(layout.arms)).astype(int),
        }
    )
    packed.uns["clone_nulls"] = nulls.astype(EMPTY_TABLES["clone_nulls"])
    return packed


def _not_assessable(cells: pd.DataFrame, candidate: npt.NDArray[np.bool_], status: dict[str, Any]) -> CopyNumber:
    empty = np.full(len(cells), np.nan)
    table = pd.DataFrame({"cell_id": cells["cell_id"], "cnv_status": status["status"], "is_reference": False})
    for column in (
        "cnv_burden",
        "cnv_burden_p",
        "cnv_burden_q",
        "clone_t",
        "clone_llr",
        "clone_llr_p",
        "clone_decoy_q",
    ):
        table[column] = empty
    table["n_arms_altered"] = 0
    table["cnv_score_infercnvpy"] = empty
    table["is_candidate"] = candidate
    table["left_reference"] = False
    table["clone_membership"] = 0.0
    table["clone_fraction"] = empty
    table["clone_fraction_se"] = empty
    packed = ad.AnnData(obs=_identity(cells))
    packed.obsm[X_CNV] = np.zeros((len(cells), 0), dtype=np.float32)
    for suffix in ("", "_half0", "_half1"):
        packed.obsm[f"arm_u{suffix}"] = np.zeros((len(cells), 0))
        packed.obsm[f"arm_info{suffix}"] = np.zeros((len(cells), 0))
    for half in (0, 1):
        packed.obsm[f"segment_u_half{half}"] = np.zeros((len(cells), 0), dtype=np.float32)
        packed.obsm[f"segment_info_half{half}"] = np.zeros((len(cells), 0), dtype=np.float32)
    for name, columns in EMPTY_TABLES.items():
        packed.uns[name] = pd.DataFrame({column: pd.Series([], dtype=dtype) for column, dtype in columns.items()})
    status.update(profile_source="none", profile_warnings=[])
    status.update(clone_status="not_assessed", n_candidates=int(candidate.sum()), n_profile_arms=0)
    return CopyNumber(table, packed, status)
