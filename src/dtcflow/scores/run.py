"""Score a cohort with the signature panel, and check on random sets that the calibration holds for these cells."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import COUNTS, LOGNORM, InputError, Problem
from dtcflow.genes import load_aliases
from dtcflow.scores.calibrated import (
    OK,
    apply_sets,
    depth_correlation,
    draw_matched_sets,
    gene_statistics,
    log_normalise,
)
from dtcflow.scores.cycle import CYCLE_SETS, cycle_sets
from dtcflow.scores.entropy import COLUMN as ENTROPY
from dtcflow.scores.entropy import transcript_entropy
from dtcflow.scores.matching import MIN_DETECTION
from dtcflow.scores.signatures import GeneSet, Synonyms

_LOG = logging.getLogger(__name__)

STRESS: Final = "stress"
HYPOXIA: Final = "hypoxia"
COVARIATE_COLUMNS: Final = {**CYCLE_SETS, "GAVISH_MP5_STRESS": STRESS, "HALLMARK_HYPOXIA": HYPOXIA}
"""Column of the score table for the panel's covariates; other sets keep their name."""

MAX_REFERENCE_PER_SAMPLE: Final = 500
MIN_GROUP_CELLS: Final = 50
"""Smallest group whose own cells can serve as its reference."""

SELF_CHECK_CELLS: Final = 1000
SELF_CHECK_SETS: Final = 200
SELF_CHECK: Final = "self_check"
SELF_CHECK_NAME: Final = "RANDOM_SETS"
SELF_CHECK_FAILED: Final = "SELF_CHECK_FAILED"


@dataclass(frozen=True)
class SelfCheck:
    """What random gene sets score when they are treated as signatures.

    Parameters
    ----------
    mean, sd
        Mean over cells of the mean and the standard deviation of z over the random sets; 0 and 1 when calibrated.
    depth_correlation
        Median over the sets of the Spearman correlation of z with log counts; 0 when calibrated.
    n_sets, size
        Random sets and genes in each.
    n_cells
        Cells scored.
    """

    mean: float
    sd: float
    depth_correlation: float
    n_sets: int
    size: int
    n_cells: int

    @property
    def passed(self) -> bool:
        """Whether bias, spread and depth dependence are small beside the effects that are tested (0.5 SD)."""
        return abs(self.mean) <= 0.15 and 0.8 <= self.sd <= 1.25 and abs(self.depth_correlation) <= 0.1


def reference_cells(
    cell_ids: pd.Index[Any], samples: pd.Series[Any], *, max_per_sample: int = MAX_REFERENCE_PER_SAMPLE
) -> npt.NDArray[np.bool_]:
    """Choose the cells that gene statistics are taken from: at most ``max_per_sample`` of each sample.

    No sample dominates. The choice goes by a hash of the cell id, so that it does not depend on the order of cells and
    hardly changes when cells are added.
    """
    keys = [hashlib.blake2b(str(cell).encode(), digest_size=8).digest() for cell in cell_ids]
    table = pd.DataFrame({"sample": np.asarray(samples.astype(str)), "key": keys, "row": np.arange(len(cell_ids))})
    chosen = table.sort_values(["sample", "key"]).groupby("sample", sort=False).head(max_per_sample)["row"]
    mask = np.zeros(len(cell_ids), dtype=bool)
    mask[chosen.to_numpy()] = True
    return mask


def self_check(
    lognorm: sp.csr_matrix[Any],
    log_counts: npt.NDArray[np.float64],
    statistics: pd.DataFrame,
    *,
    n_sets: int = SELF_CHECK_SETS,
    size: int = 50,
    n_null: int = 200,
    seed: int = 0,
) -> SelfCheck:
    """Score random gene sets as if they were signatures.

    Parameters
    ----------
    lognorm, statistics
        Cells to score and the gene statistics the signatures use.
    log_counts
        One value a cell.
    n_sets, size, n_null
        Random sets, their genes (a tenth of the genes where these are few), and random sets each is compared with.
    """
    usable = np.sort(statistics.index[statistics["detection"] >= MIN_DETECTION].to_numpy(dtype=object).astype(str))
    size = min(size, len(usable) // 10)
    if size < 3 or lognorm.shape[0] == 0:
        return SelfCheck(np.nan, np.nan, np.nan, 0, size, lognorm.shape[0])
    rng = np.random.default_rng(seed)
    sets = {
        f"random_{i}": GeneSet(f"random_{i}", tuple(rng.choice(usable, size, replace=False).tolist()), role=SELF_CHECK)
        for i in range(n_sets)
    }
    matched = draw_matched_sets(statistics, sets, n_null=n_null, seed=seed, relaxed=True)
    z = apply_sets(lognorm, matched).z
    scored = z[np.isfinite(z).all(axis=1)].astype(np.float64)
    if not len(scored):
        return SelfCheck(np.nan, np.nan, np.nan, len(matched.names), size, 0)
    depth = depth_correlation(z, log_counts)
    depth = depth[np.isfinite(depth)]
    return SelfCheck(
        mean=float(scored.mean()),
        sd=float(scored.std(axis=1, ddof=1).mean()),
        depth_correlation=float(np.median(depth)) if len(depth) else np.nan,
        n_sets=len(matched.names),
        size=size,
        n_cells=len(scored),
    )


def _collect(panel: Sequence[GeneSet], gmt_sets: Sequence[GeneSet]) -> tuple[dict[str, GeneSet], dict[str, GeneSet]]:
    """Sets by column: those under the strict coverage gates and the covariates under the relaxed one."""
    strict: dict[str, GeneSet] = {}
    relaxed = dict(cycle_sets(panel))
    for one in panel:
        if one.role == "mask" or one.name in CYCLE_SETS:
            continue
        column = COVARIATE_COLUMNS.get(one.name, one.name)
        (relaxed if one.role == "covariate" else strict)[column] = replace(one, name=column)
    problems = []
    for one in gmt_sets:
        if one.name in strict or one.name in relaxed or one.name in ("cell_id", SELF_CHECK_NAME, ENTROPY):
            fix = "rename the set in the GMT file"
            problems.append(
                Problem("scores.gmt", f"a set {one.name}", "names the panel does not have", fix, key=one.name)
            )
        strict.setdefault(one.name, one)
    if problems:
        raise InputError("gene sets of the GMT files have names of the panel", problems)
    return strict, relaxed


def _score(
    lognorm: sp.csr_matrix[Any],
    statistics: pd.DataFrame,
    sets: tuple[Mapping[str, GeneSet], Mapping[str, GeneSet]],
    *,
    n_null: int,
    seed: int,
    synonyms: Synonyms,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score all cells against one set of gene statistics: z (cells x columns) and coverage."""
    columns: list[pd.DataFrame] = []
    coverage: list[pd.DataFrame] = []
    for group, relaxed in zip(sets, (False, True), strict=True):
        matched = draw_matched_sets(statistics, group, n_null=n_null, seed=seed, relaxed=relaxed, synonyms=synonyms)
        z = pd.DataFrame(apply_sets(lognorm, matched).z, columns=list(matched.names))
        columns.append(z.reindex(columns=list(group)).astype(np.float32))
        coverage.append(matched.coverage)
    return pd.concat(columns, axis=1), pd.concat(coverage, ignore_index=True)


def _group_rows(adata: ad.AnnData, groups: pd.Series[Any] | None) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each group that is large enough to be its own reference, by label."""
    if groups is None:
        return {}
    if not groups.index.is_unique or set(groups.index) != set(adata.obs_names):
        found = f"{len(groups)} labels, {int(adata.obs_names.isin(groups.index).sum())} of {adata.n_obs} cells labelled"
        fix = "index the labels by cell id; leave the label of an ungrouped cell empty"
        raise InputError("the score groups do not fit the cells", [Problem("groups", found, "one entry a cell", fix)])
    labels = groups.reindex(adata.obs_names)
    text = labels.where(labels.notna(), "").astype(str).to_numpy(dtype=object)
    rows = {label: np.flatnonzero(text == label) for label in sorted(set(text) - {""})}
    for label, members in rows.items():
        if len(members) < MIN_GROUP_CELLS:
            _LOG.warning("group %s has %d cells, below %d: common reference", label, len(members), MIN_GROUP_CELLS)
    return {label: members for label, members in rows.items() if len(members) >= MIN_GROUP_CELLS}


def _check_row(check: SelfCheck) -> pd.DataFrame:
    """Log the self-check and put it into a row of the coverage table."""
    _LOG.log(
        logging.INFO if check.passed else logging.WARNING,
        "self-check with %d random sets of %d genes on %d cells: mean z %.3f, SD %.3f, depth correlation %.3f (%s)",
        check.n_sets,
        check.size,
        check.n_cells,
        check.mean,
        check.sd,
        check.depth_correlation,
        "passed" if check.passed else "FAILED: scores of these cells are not calibrated",
    )
    row = {
        "signature": SELF_CHECK_NAME,
        "role": SELF_CHECK,
        "n_genes": check.size,
        "n_present": check.size,
        "n_detected": check.size,
        "n_renamed": 0,
        "effective_n_genes": np.nan,
        "depth_correlation": check.depth_correlation,
        "status": OK if check.passed else SELF_CHECK_FAILED,
        "reason": f"{check.n_sets} sets on {check.n_cells} cells",
        "mean_z": check.mean,
        "sd_z": check.sd,
    }
    return pd.DataFrame([row])


def score_cohort(
    adata: ad.AnnData,
    panel: Sequence[GeneSet],
    gmt_sets: Sequence[GeneSet] = (),
    *,
    n_null: int = 1000,
    seed: int = 0,
    groups: pd.Series[Any] | None = None,
    max_per_sample: int = MAX_REFERENCE_PER_SAMPLE,
    aliases: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every cell of a cohort with the panel and the user's gene sets.

    The reference cells, whose gene statistics decide which genes match, are all cells of ``adata`` (they passed QC),
    at most ``max_per_sample`` of each sample. With ``groups``, each group is scored against its own cells, chosen the
    same way. A set whose genes are typical of one cell type is far from its null in a mixed reference, and such an
    offset shrinks in shallow cells; against cells of its own kind it starts near 0 and a difference in depth cannot
    pose as a difference in state. Comparisons within a group gain from it, those between groups need the common scale.
    Only genes that all samples have (``var["in_all_samples"]``, where present) take part.

    Parameters
    ----------
    adata
        Stage "embedding": ``layers["counts"]``, ``obs["sample_id"]``, unique symbols as ``var_names``; ``lognorm`` is
        computed where absent.
    panel
        From :func:`dtcflow.scores.signatures.load_panel`; ``mask`` sets are not scored.
    gmt_sets
        Further sets, from :func:`dtcflow.scores.signatures.load_gmt`.
    n_null, seed
        Random sets per signature and the seed of their draw.
    groups
        One label per cell, indexed by cell id (for example the patient, for malignant cells); a missing label, or a
        group of fewer than 50 cells, means the common reference.
    aliases
        Alias table (``alias``, ``symbol``, ``kind``) for genes under another symbol; ``None`` reads the shipped one.

    Returns
    -------
    scores
        ``cell_id``, then one column a set (``S_score``, ``G2M_score``, ``stress`` and ``hypoxia`` for the covariates),
        z in standard deviations of the random sets; empty where a set or a cell cannot be scored. Last,
        ``transcript_entropy`` (0 to 1, :mod:`dtcflow.scores.entropy`), which describes and is no signature.
    coverage
        Table ``signature_coverage`` with the further columns ``reason``, ``mean_z``, ``sd_z`` (over all cells). Its
        last row is the self-check on random sets: ``depth_correlation``, ``mean_z``, ``sd_z`` ought to be 0, 0 and 1.

    Raises
    ------
    InputError
        When a user's set has the name of a panel set, or ``groups`` is not indexed by the cells.
    """
    sets = _collect(panel, gmt_sets)
    counts = sp.csr_matrix(adata.layers[COUNTS])
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    log_counts = np.log(totals, out=np.full_like(totals, np.nan), where=totals > 0)
    lognorm = sp.csr_matrix(adata.layers[LOGNORM]) if LOGNORM in adata.layers else log_normalise(counts)
    genes = pd.Index(adata.var_names.astype(str))
    if "in_all_samples" in adata.var and not adata.var["in_all_samples"].all():
        shared = adata.var["in_all_samples"].to_numpy(dtype=bool)
        lognorm, genes = sp.csr_matrix(lognorm[:, np.flatnonzero(shared)]), genes[shared]
        counts = sp.csr_matrix(counts[:, np.flatnonzero(shared)])
        _LOG.info("%d of %d genes are in all samples and take part in scoring", shared.sum(), len(shared))
    synonyms = Synonyms.from_table(load_aliases() if aliases is None else aliases)

    reference = reference_cells(adata.obs_names, adata.obs["sample_id"], max_per_sample=max_per_sample)
    statistics = gene_statistics(lognorm, genes, rows=reference)
    _LOG.info("gene statistics from %d of %d cells", reference.sum(), adata.n_obs)
    z, coverage = _score(lognorm, statistics, sets, n_null=n_null, seed=seed, synonyms=synonyms)
    for label, members in _group_rows(adata, groups).items():
        part = lognorm[members]
        chosen = reference_cells(
            adata.obs_names[members], adata.obs["sample_id"].iloc[members], max_per_sample=max_per_sample
        )
        own = gene_statistics(part, genes, rows=chosen)
        _LOG.info("group %s: %d cells scored against %d of their own", label, len(members), chosen.sum())
        z.iloc[members] = _score(part, own, sets, n_null=n_null, seed=seed, synonyms=synonyms)[0].to_numpy()

    values = z.to_numpy(dtype=np.float32)
    coverage["depth_correlation"] = depth_correlation(values, log_counts)
    finite = z.astype(np.float64)
    coverage["mean_z"], coverage["sd_z"] = finite.mean().to_numpy(), finite.std().to_numpy()
    few = max(1, SELF_CHECK_CELLS // max(adata.obs["sample_id"].nunique(), 1))
    some = np.flatnonzero(reference_cells(adata.obs_names, adata.obs["sample_id"], max_per_sample=few))
    check = self_check(lognorm[some], log_counts[some], statistics, n_sets=SELF_CHECK_SETS, seed=seed)
    coverage = pd.concat([coverage, _check_row(check)], ignore_index=True)
    scores = z.copy()
    scores[ENTROPY] = transcript_entropy(counts, genes, adata.obs_names, seed=seed).to_numpy()
    scores.insert(0, "cell_id", adata.obs_names.astype(str).to_numpy(dtype=object))
    return scores.reset_index(drop=True), coverage
