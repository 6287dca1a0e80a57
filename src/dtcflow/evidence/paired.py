"""A paired contrast of the plan, computed: patient values, estimate, tests, adjustment, robustness, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.evidence import controls as control
from dtcflow.evidence.adjust import adjusted_values
from dtcflow.evidence.contrasts import Differences, Floats, Layout, average, differences, group_values, lay_out
from dtcflow.evidence.design import FACTORS, Aliasing, find_aliasing
from dtcflow.evidence.inference import MetaAnalysis, SignFlip, random_effects, set_null_p, sign_flip
from dtcflow.evidence.layout import at_timepoint, cells_of
from dtcflow.evidence.plan import POPULATIONS, Claim, Rules
from dtcflow.evidence.plan_checks import claim_panel
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed, spread
from dtcflow.evidence.robustness import (
    SPECIFICATION_COLUMNS,
    Robustness,
    assess,
    combine,
    shown_signatures,
    specifications,
    studies_of,
)
from dtcflow.evidence.scoring import Scored, score_contrast
from dtcflow.scores.signatures import GeneSet, Synonyms

NAN: Final = float("nan")
BLANK: Final = random_effects([], [])
NO_TEST: Final = SignFlip(NAN, 0, True)
NOT_ALIASED: Final = Aliasing((), {})
PATIENT_COLUMNS: Final = (
    *("patient_id", "contrast", "signature", "n_cells_a", "n_cells_b", "value_a", "value_b", "difference", "variance"),
    *("usable", "reason", "n_called_a", "n_called_b", "scale", "share_kept_a", "share_kept_b", "samples_left_out"),
)
BLOOD_REPEATS: Final = 5
"""Depth repeats of the controls made of blood cells."""
DOUBT_COLUMNS: Final = ("patient_id", "other_patient_id", "detail")


@dataclass(frozen=True)
class Cohort:
    """What every claim is computed from.

    Attributes
    ----------
    cells
        One row per QC-passed cell, index = row of ``counts``.
    counts
        Cells x genes.
    genes
        Symbols, only genes measured in all samples.
    panel
        Signatures by name.
    synonyms
        Older and newer gene symbols.
    markers
        Marker panels that named the cell types; tested signatures lose their genes.
    samples
        The sample sheet, one row per sample, or None.
    doubts
        Findings of the identity check that cast doubt on who is who: one row per pair of patients that share cells
        (``patient_id other_patient_id detail``).
    """

    cells: pd.DataFrame
    counts: sp.csr_matrix
    genes: pd.Index
    panel: Mapping[str, GeneSet]
    synonyms: Synonyms | pd.DataFrame | None
    markers: Mapping[str, GeneSet] = field(default_factory=dict)
    samples: pd.DataFrame | None = None
    doubts: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(DOUBT_COLUMNS)))

    @cached_property
    def _by_name(self) -> NDArray[np.int64]:
        return np.argsort(np.asarray(self.genes, dtype=str), kind="stable")

    @cached_property
    def symbols(self) -> pd.Index:
        """Symbols in alphabetical order: neither random draws nor last digits may depend on the order of the genes."""
        return self.genes[self._by_name]

    def take(self, rows: NDArray[np.int64]) -> sp.csr_matrix:
        """Counts of some cells, genes in the order of :attr:`symbols`, float32 without stored zeros."""
        counts = sp.csr_matrix(self.counts[rows], dtype=np.float32)[:, self._by_name]
        counts.sum_duplicates()
        counts.eliminate_zeros()
        return sp.csr_matrix(counts)


def _no_leave_one_out() -> pd.DataFrame:
    return pd.DataFrame(columns=["patient_id", "estimate", "ci_low", "ci_high", "ci90_low", "ci90_high"])


@dataclass(frozen=True)
class Paired:
    """A computed contrast; everything the rules and the report need. The defaults stand for "nothing to compute".

    ``patients`` holds one block of rows per ``analysis`` (primary, adjusted, confirmatory, negative_control, reported).
    Estimates are in standard deviations between reference cells.
    """

    claim: Claim
    layout: Layout
    patients: pd.DataFrame
    n_called_a: int = 0
    compartments_absent: tuple[str, ...] = ()
    aliasing: Aliasing = NOT_ALIASED
    fit: MetaAnalysis = BLANK
    test: SignFlip = NO_TEST
    p_gene_set: float = NAN
    adjusted: MetaAnalysis = BLANK
    covariates_used: tuple[str, ...] = ()
    covariates_missing: tuple[str, ...] = ()
    confirmatory: MetaAnalysis = BLANK
    confirmatory_test: SignFlip = NO_TEST
    robustness: Robustness = field(default_factory=lambda: Robustness(0, 0, NAN, NAN, NAN, _no_leave_one_out()))
    sensitivity: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(SPECIFICATION_COLUMNS)))
    controls: pd.DataFrame = field(default_factory=lambda: control.frame([]))
    null: Floats = field(default_factory=lambda: np.zeros(0))
    coverage: pd.DataFrame = field(default_factory=pd.DataFrame)
    median_genes: dict[str, float] = field(default_factory=dict)
    plate: bool = False
    mde80: float = NAN
    patients_needed: int | None = None
    self_check_type1: float = NAN
    self_check_se: float = NAN
    scale: float = NAN
    depth_repeats: int = 0
    n_cells: int = 0
    n_genes_used: int = 0
    n_sides: tuple[int, int] | None = None
    """Patients on each side, of an unpaired contrast."""
    method: str = "Paule-Mandel mean with a Hartung-Knapp-Sidik-Jonkman t interval; p by sign-flip over patients"
    removed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Genes taken out of tested signatures because they also chose the cells."""
    doubts: tuple[str, ...] = ()
    """Pairs of patients that may be one person, in words."""
    scored: Scored | None = None
    values: Differences | None = None
    """Scores of the cells and differences of the patients, for claims about this one."""
    adjusted_values: Differences | None = None

    @property
    def p_value(self) -> float:
        """P value that is adjusted within the claim's family."""
        return self.test.p_value


def patient_rows(
    layout: Layout,
    *,
    claim: Claim,
    analysis: str,
    signature: str,
    values: Differences | None = None,
    column: int = 0,
    shares: Floats | None = None,
) -> pd.DataFrame:
    """Rows of one analysis: every patient of the cohort, used or not.

    ``values`` is None for a signature that could not be scored; ``shares`` (patients x 2) is what each side kept of its
    transcripts at harmonised depth.
    """
    frame = pd.DataFrame(
        {name: pd.Series(np.nan, index=layout.overview["patient_id"], dtype=float) for name in PATIENT_COLUMNS[5:9]}
    )
    overview = layout.overview.set_index("patient_id")
    frame["n_cells_a"], frame["n_cells_b"] = overview["n_cells_a"], overview["n_cells_b"]
    frame["usable"], frame["reason"] = False, overview["reason"]
    frame["scale"] = frame["share_kept_a"] = frame["share_kept_b"] = np.nan
    if values is None:
        frame.loc[overview["usable"].astype(bool), "reason"] = f"{signature} cannot be scored"
    else:
        names = list(layout.patients)
        frame.loc[names, ["n_cells_a", "n_cells_b"]] = values.n
        for name in ("value_a", "value_b", "difference", "variance"):
            frame.loc[names, name] = getattr(values, name)[:, column]
        frame.loc[names, "usable"] = values.usable & np.isfinite(values.difference[:, column])
        frame["scale"] = values.scale[column]
        if shares is not None:
            frame.loc[names, ["share_kept_a", "share_kept_b"]] = shares
    frame["n_called_a"], frame["n_called_b"] = overview["n_cells_a"], overview["n_cells_b"]
    frame["samples_left_out"] = overview["samples_left_out"]
    frame["contrast"], frame["signature"] = claim.contrast, signature
    frame = frame.rename_axis("patient_id").reset_index()[list(PATIENT_COLUMNS)]
    whole = dict.fromkeys(("n_cells_a", "n_cells_b", "n_called_a", "n_called_b"), "int64")
    return frame.astype(whole).assign(analysis=analysis)


def samples_of(cells: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """One row per sample, side and factor levels that enters the contrast."""
    there = [name for name in FACTORS if name in cells]
    rows = layout.table["row"].to_numpy(dtype=np.int64)
    own = cells.loc[rows, ["patient_id", "sample_id", *there]].reset_index(drop=True)
    own["side"] = layout.table["side"].to_numpy(dtype=np.int64)
    return own.drop_duplicates().reset_index(drop=True)


def begin(cohort: Cohort, claim: Claim, rules: Rules, *, settings: Mapping[str, Any], seed: int) -> Paired:
    """Lay out the cells of a contrast; nothing is scored yet."""
    cells = cohort.cells
    layout = lay_out(
        cells,
        a=claim.a,
        b=claim.b,
        strict_q=rules.strict_q,
        minimum=rules.value_cells,
        max_cells=int(settings["max_cells_per_group"]),
        seed=seed,
        timepoint=claim.timepoint,
        paired=claim.design == "paired",
    )
    there = cells.loc[at_timepoint(cells, claim.timepoint), "compartment"]
    wanted = [POPULATIONS[group] for group in (claim.a, claim.b)]
    return Paired(
        claim=claim,
        layout=layout,
        patients=patient_rows(layout, claim=claim, analysis="primary", signature=claim.primary_signature),
        n_called_a=int(layout.overview["n_cells_a"].sum()),
        compartments_absent=tuple(group.place for group in wanted if not there.isin(group.compartments).any()),
        covariates_missing=claim.covariates,
        doubts=doubts_among(cohort.doubts, layout.patients),
    )


def doubts_among(doubts: pd.DataFrame, patients: Sequence[str]) -> tuple[str, ...]:
    """Pairs of these patients whose samples share cells, in words."""
    both = doubts["patient_id"].isin(patients) & doubts["other_patient_id"].isin(patients)
    kept = doubts[both].sort_values(list(DOUBT_COLUMNS))
    return tuple(f"{one} and {other}: {detail}" for one, other, detail in kept[list(DOUBT_COLUMNS)].to_numpy())


def score_claim(
    cohort: Cohort, claim: Claim, rules: Rules, layout: Layout, *, settings: Mapping[str, Any], seed: int
) -> tuple[Scored, dict[str, tuple[str, ...]]]:
    """Score every signature of a claim, and return the genes taken out of each (:func:`plan_checks.claim_panel`)."""
    sets, removed = claim_panel(claim, cohort.panel, cohort.markers)
    scored = score_contrast(
        cohort.take(layout.table["row"].to_numpy(dtype=np.int64)),
        cohort.symbols,
        layout,
        sets,
        tested=[claim.primary_signature],
        repeats=int(settings["depth_repeats"]),
        n_null=rules.random_sets,
        trim=rules.trim,
        minimum_coverage=rules.coverage,
        minimum_genes=rules.detected_genes,
        minimum_effective=rules.effective_genes,
        synonyms=cohort.synonyms,
        seed=seed,
        alternatives=shown_signatures(claim) if settings.get("alternative_scores", True) else (),
    )
    return scored, removed


def evaluate_paired(cohort: Cohort, claim: Claim, rules: Rules, *, settings: Mapping[str, Any], seed: int) -> Paired:
    """Compute one paired contrast.

    Parameters
    ----------
    cohort
        Cells, counts and signatures.
    claim, rules
        What the plan asks for.
    settings
        ``depth_repeats``, ``max_cells_per_group``, ``self_check_repeats`` and ``alternative_scores``;
        ``blood_controls`` false leaves out the controls made of blood cells, which no rule reads.
    seed
        Start of every random stream.

    Returns
    -------
    Paired
        Complete also when nothing can be computed: then every number is NaN and every patient has a reason.
    """
    start = begin(cohort, claim, rules, settings=settings, seed=seed)
    layout, cells = start.layout, cohort.cells
    if not layout.patients:
        return start
    rows = layout.table["row"].to_numpy(dtype=np.int64)
    scored, removed = score_claim(cohort, claim, rules, layout, settings=settings, seed=seed)
    own = cells.loc[rows]
    values = differences(
        average([group_values(z, layout, trim=rules.trim) for z in scored.matched]), minimum=rules.value_cells
    )
    table = specifications(
        claim, rules, layout, scored.names, scored.matched, scored.full, scored.scorable(), scored.alternatives
    )
    found = replace(
        start,
        patients=_signature_rows(claim, layout, scored, values),
        aliasing=find_aliasing(samples_of(cells, layout)),
        sensitivity=table,
        coverage=scored.coverage,
        median_genes=_median_genes(claim, layout, scored),
        plate="platform" in own and bool((own["platform"].astype(str) == "plate").any()),
        depth_repeats=len(scored.matched),
        n_cells=len(layout.table),
        n_genes_used=scored.n_genes_used,
        removed=removed,
        scored=scored,
        values=values,
    )
    column = scored.column(claim.primary_signature)
    if column is None:
        return found
    found = _with_adjustment(found, own, scored, float(values.scale[column]), rules)
    blood = _blood_controls(cohort, claim, rules, settings=settings, seed=seed)
    # an estimate from one or two patients would be shown as if it meant something
    if len(layout.patients) >= rules.estimate_patients:
        studies = studies_of(cells, layout.patients)
        found = _with_estimate(found, scored, values, column, rules, seed, studies)
    repeats = int(settings["self_check_repeats"])
    return _with_controls(found, scored, values, column, rules, blood, repeats=repeats, seed=seed)


def _blood_controls(
    cohort: Cohort, claim: Claim, rules: Rules, *, settings: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Controls made of the marrow's blood cells, for claims about tumour cells of the marrow."""
    wanted = claim.a == "DTC" and claim.b != control.BLOOD and settings.get("blood_controls", True)
    if not wanted or not cells_of(cohort.cells, control.BLOOD).any():
        return []
    repeats = min(BLOOD_REPEATS, int(settings["depth_repeats"]))
    few = {**settings, "depth_repeats": repeats, "alternative_scores": False}
    bare = replace(
        claim,
        confirmatory_signature="",
        sensitivity_signatures=(),
        reported_signatures=(),
        negative_controls=(),
        covariates=(),
        purged_signatures=(),
        borrowed=(),
        rivals=(),
    )
    check = fit = None
    for a, b in ((claim.a, control.BLOOD), (control.BLOOD, claim.b)):
        own = replace(bare, a=a, b=b)
        layout = begin(cohort, own, rules, settings=few, seed=seed).layout
        if len(layout.patients) < rules.estimate_patients:
            continue
        # the signature is that of the claim: marker genes of blood cells are no matter here
        scored, _ = score_claim(cohort, bare, rules, layout, settings=few, seed=seed)
        column = scored.column(claim.primary_signature)
        if column is None:
            continue
        groups = average([group_values(z, layout, trim=rules.trim) for z in scored.matched])
        values = differences(groups, minimum=rules.value_cells)
        if b == control.BLOOD:
            repeats, scale = int(settings["self_check_repeats"]), float(values.scale[column])
            check = control.split_reference(layout, scored, column, rules, repeats=repeats, scale=scale, seed=seed)
        else:
            fit = combine(values, column)
    return [control.blood_split(claim, rules, check, seed=seed), control.blood_contrast(claim, fit)]


def _shares(layout: Layout, scored: Scored) -> Floats:
    """Smallest share of its transcripts a side of a patient kept (all cells of a side keep the same), patients x 2."""
    out = np.ones((len(layout.patients), 2))
    np.minimum.at(out, (layout.patient, layout.side), scored.share)
    return out


def _signature_rows(claim: Claim, layout: Layout, scored: Scored, values: Differences) -> pd.DataFrame:
    wanted = [("primary", claim.primary_signature), ("confirmatory", claim.confirmatory_signature)]
    wanted += [("negative_control", name) for name in claim.negative_controls]
    wanted += [("reported", name) for name in claim.reported_signatures]
    shares = _shares(layout, scored)
    blocks = []
    for analysis, name in wanted:
        if not name:
            continue
        column = scored.column(name)
        block = patient_rows(
            layout,
            claim=claim,
            analysis=analysis,
            signature=name,
            values=None if column is None else values,
            column=column or 0,
            shares=shares,
        )
        blocks.append(block)
    return pd.concat(blocks, ignore_index=True)


def _median_genes(claim: Claim, layout: Layout, scored: Scored) -> dict[str, float]:
    """Median over patients of the median number of genes per cell, at the original depth."""
    medians = {}
    for k, group in enumerate((claim.a, claim.b)):
        own = [scored.n_genes[(layout.patient == p) & (layout.side == k)] for p in range(len(layout.patients))]
        medians[group] = float(np.median([np.median(values) for values in own]))
    return medians


def _with_adjustment(found: Paired, own: pd.DataFrame, scored: Scored, scale: float, rules: Rules) -> Paired:
    """Add the estimate after covariate adjustment, in the unit of the unadjusted one."""
    claim, layout = found.claim, found.layout
    groups, used, missing = adjusted_values(claim, layout, scored, own, trim=rules.trim)
    found = replace(found, covariates_used=used, covariates_missing=missing, scale=scale)
    if groups is None:
        return found
    moved = differences(groups, minimum=rules.value_cells, scale=np.array([scale]))
    rows = patient_rows(
        layout,
        claim=claim,
        analysis="adjusted",
        signature=claim.primary_signature,
        values=moved,
        shares=_shares(layout, scored),
    )
    enough = len(layout.patients) >= rules.estimate_patients
    return replace(
        found,
        adjusted=combine(moved, 0) if enough else BLANK,
        adjusted_values=moved,
        patients=pd.concat([found.patients, rows], ignore_index=True),
    )


def _with_estimate(
    found: Paired,
    scored: Scored,
    values: Differences,
    column: int,
    rules: Rules,
    seed: int,
    studies: Sequence[str],
) -> Paired:
    """Add estimate, tests, robustness and power."""
    claim = found.claim
    fit, test = combine(values, column), sign_flip(values.difference[values.usable, column], seed=seed)
    confirmatory, confirmatory_test = BLANK, NO_TEST
    second = scored.column(claim.confirmatory_signature)
    if second is not None:
        confirmatory = combine(values, second)
        confirmatory_test = sign_flip(values.difference[values.usable, second], seed=seed)
    sd = spread(values.difference[values.usable, column])
    return replace(
        found,
        fit=fit,
        test=test,
        confirmatory=confirmatory,
        confirmatory_test=confirmatory_test,
        robustness=assess(claim, fit.estimate, found.sensitivity, values, column, found.layout.patients, studies),
        mde80=minimum_detectable_effect(sd, fit.n, alpha=rules.alpha),
        patients_needed=patients_needed(claim.sesoi, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients),
    )


def _with_controls(
    found: Paired,
    scored: Scored,
    values: Differences,
    column: int,
    rules: Rules,
    blood: list[dict[str, Any]],
    *,
    repeats: int,
    seed: int,
) -> Paired:
    """Add every control, and the gene-set null that is both a control and a test."""
    claim, layout, scale = found.claim, found.layout, found.scale
    enough = found.fit.n >= rules.estimate_patients
    null = control.gene_set_null(scored, claim, rules, seed=seed) if enough else control.NO_NULL
    p_gene_set = set_null_p(found.fit.estimate, null.estimates)
    check = control.split_reference(layout, scored, column, rules, repeats=repeats, scale=scale, seed=seed)
    split = control.split_controls(claim, rules, check, seed=seed)
    rows = [
        *(control.negative_controls(claim, scored, values) if enough else []),
        *split,
        control.random_set_control(claim, null, p_gene_set, found.fit.n),
        control.flip_control(claim, values, column, seed=seed),
        control.depth_control(claim, rules, layout, scored, column, scale),
        *blood,
    ]
    return replace(
        found,
        controls=control.frame(rows),
        null=null.estimates,
        p_gene_set=p_gene_set,
        self_check_type1=float(split[0]["rate"]),
        self_check_se=float(split[0]["rate_se"]),
    )
