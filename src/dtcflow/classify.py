"""From evidence to a class: which cells are malignant, which are normal, and which cannot be decided.

Three kinds of evidence stay apart until here: lineage (epithelial markers), copy-number burden (is this genome unlike
that of held-out normal cells?) and clone likelihood (is it like the profile learned from *other* cells of this
patient?). A malignant call needs two of the three, one of them copy number; a cell of a lineage that does not speak
against it (no reference type, or a resident one that is no blood cell) needs half of the profile instead of markers.
With ``tumour_lineage: any`` the clone decides alone, and then its genome must be one: on two chromosomes or more, and
constant along its arms. No cell is called malignant on markers alone, and none is called normal because nothing could
be measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.call_reasons import write_reasons
from dtcflow.cnv.coherence import MIN_CHROMOSOMES, MIN_SHARED_Z
from dtcflow.cnv.fdr import stratified_q
from dtcflow.cnv.genome import Genome, chromosomes, events, mosaic_hints
from dtcflow.cnv.profile import MANY_CHROMOSOMES
from dtcflow.cnv.run import cell_strata
from dtcflow.contracts import (
    EPITHELIAL,
    HAEMATOPOIETIC_TYPES,
    MALIGNANT_DOUBLET,
    UNKNOWN,
)
from dtcflow.shared_droplets import two_in_one

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

MIN_FRACTION = 1 / 3
"""Least share of the tumour's profile in a called cell. A tumour cell in 20 % ambient RNA still carries about 0.8."""
HALF_PROFILE = 0.5
"""Share of the tumour's profile that a doublet of one tumour cell and one normal cell carries."""
MAX_OWN_P = 0.05
"""A called cell must speak for itself at this level, whatever its company: where nearly all candidates are tumour cells
the adaptive false-discovery rate alone would let p-values of .2 pass."""
MIN_DOUBLET_FRACTION = HALF_PROFILE / 2
"""Least share in a droplet of two cells: from here on half the profile is likelier than none. With a sixth, as it was,
droplets whose genome speaks against the profile were called (log-likelihood ratios down to -103; ovarian patients 11
and 13)."""
HALF_PROFILE_Z = 1.645
"""One-sided 5 %: a cell with a normal lineage's markers must carry significantly more than a doublet would."""
MIN_ARMS = 2
"""Altered arms, seen in both halves of the genes, without which burden alone decides nothing."""
SUGGESTIVE_P = 0.05
"""An epithelial-looking cell of normal lineage stays undecided while its copy-number p-value is below this."""
MAX_COATED_Z = 6.0
"""A cell of resident lineage with a stronger epithelial score is no ambient-coated cell; it stays undecided."""
MIN_EPITHELIAL_MEMBERS = 3
MIN_EPITHELIAL_SHARE = 0.1
"""A carcinoma's clone has cells that look epithelial and have no resident type's markers: this many, or this share of
its members. Otherwise it is benign mosaicism as far as anybody can tell: ovarian patient 12 has fibroblasts with
keratins, +7 and -21, and a carcinoma with neither."""
MIN_BLOCK = 5
"""Cells of one label that share a clone: from here on they are asked whether it is a genome that they share."""

CLASSES: Final[Mapping[str, str]] = {
    "malignant_confirmed": "malignant",
    MALIGNANT_DOUBLET: "malignant",
    "aneuploid_only": "indeterminate",
    "epithelial_cnv_neutral": "indeterminate",
    "possible_tumour_doublet": "indeterminate",
    "unassessable": "indeterminate",
    "normal": "normal",
}


@dataclass(frozen=True)
class Lineage:
    """What markers say, one entry per cell; no copy number in it."""

    assessed: Bools
    candidate: Bools
    suspect: Bools
    """Left the reference for sharing a tumour-like genome with others of its type."""
    cell_type: Objects
    resident: Bools
    """Has the markers of a normal type."""
    blood: Bools
    epithelial: Bools
    """Looks epithelial: typed so, or with epithelial evidence. All false with ``tumour_lineage: any``."""
    z: Floats
    doublet: Bools
    two_in_one: Bools
    """Expression says two cells, one epithelial beyond any coating with ambient RNA."""
    stratum: npt.NDArray[np.int64]

    @classmethod
    def of(cls, cells: pd.DataFrame, *, tumour_lineage: str) -> Lineage:
        """Read the annotation and quality-control columns."""
        candidate = cells["is_candidate"].to_numpy(dtype=bool)
        suspect = cells["left_reference"].to_numpy(dtype=bool)
        cell_type = cells["cell_type"].to_numpy(dtype=object)
        resident = ~np.isin(cell_type, [EPITHELIAL, UNKNOWN, ""])
        blood = np.isin(cell_type, list(HAEMATOPOIETIC_TYPES))
        looks = (candidate & ~suspect) | (cell_type == EPITHELIAL)
        return cls(
            assessed=(cells["cnv_status"] == "ok").to_numpy(dtype=bool),
            candidate=candidate,
            suspect=suspect,
            cell_type=cell_type,
            resident=resident,
            blood=blood,
            epithelial=looks & (tumour_lineage != "any"),
            z=cells["epithelial_z"].to_numpy(dtype=float),
            doublet=cells["is_doublet"].to_numpy(dtype=bool),
            two_in_one=two_in_one(cells),
            stratum=cell_strata(cells, candidate),
        )


@dataclass(frozen=True)
class CloneEvidence:
    """How a cell compares with the clone of its patient; everything false or NaN where no clone was found."""

    p: Floats
    q: Floats
    llr: Floats
    fraction: Floats
    like: Bools
    """``q``, ``p`` and the share of the profile all reach their thresholds."""
    half: Bools
    """``q``, and the share that a doublet carries."""
    above_half: Bools
    """Significantly more of the profile than a doublet of two equal cells."""

    @property
    def found(self) -> Bools:
        """Cells that could be compared with a clone."""
        return np.isfinite(self.p)

    @classmethod
    def of(cls, cells: pd.DataFrame, stratum: npt.NDArray[np.int64], *, fdr: float) -> CloneEvidence:
        """Test every cell within its stratum.

        Where nearly all candidates are tumour cells any q is small, so the cell's own share of the profile counts, too.
        """
        p = cells["clone_llr_p"].to_numpy(dtype=float)
        # two nulls that owe nothing to each other have to agree: held-out reference cells, and decoys of the profile
        q = np.fmax(stratified_q(p, stratum, adaptive=True), cells["clone_decoy_q"].to_numpy(dtype=float))
        fraction = cells["clone_fraction"].to_numpy(dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            z_half = (fraction - HALF_PROFILE) / cells["clone_fraction_se"].to_numpy(dtype=float)
        significant = (np.nan_to_num(q, nan=1.0) <= fdr) & (np.nan_to_num(p, nan=1.0) <= MAX_OWN_P)
        return cls(
            p,
            q,
            cells["clone_llr"].to_numpy(dtype=float),
            fraction,
            significant & (np.nan_to_num(fraction) >= MIN_FRACTION),
            significant & (np.nan_to_num(fraction) >= MIN_DOUBLET_FRACTION),
            np.nan_to_num(z_half, nan=-np.inf) > HALF_PROFILE_Z,
        )


@dataclass(frozen=True)
class CloneCheck:
    """Second question to the clone: is it a tumour's genome? Per cell, with the reason where it is not."""

    accepted: Bools
    refusal: Objects
    member: Bools
    """Cells that the clone was learned from, believed or not."""


def call_cells(cells: pd.DataFrame, *, fdr: float, tumour_lineage: str, genome: Genome | None = None) -> pd.DataFrame:
    """Classify the cells of one patient.

    Parameters
    ----------
    cells
        ``cnv_cells`` joined with annotation and QC (``cell_type epithelial_z is_doublet compartment`` ...).
    fdr
        False-discovery rate per patient, within clear candidates, candidates of a resident lineage and other cells,
        separately for marrow (or blood) and tissue.
    tumour_lineage
        ``epithelial``: markers and copy number together; ``any``: copy number decides alone.
    genome
        Additive statistics of the same cells; without them clones are taken as they are and no arm is named.

    Returns
    -------
    pandas.DataFrame
        ``cell_id cnv_burden_q clone_llr malignancy_q malignant_call malignant_class call_reasons is_dtc`` and, behind
        them, ``clone_llr_p clone_fraction altered_arms mosaic_arms``.
    """
    lineage = Lineage.of(cells, tumour_lineage=tumour_lineage)
    clone = CloneEvidence.of(cells, lineage.stratum, fdr=fdr)
    check = check_clone(cells, lineage, clone, genome, tumour_lineage=tumour_lineage)
    burden_p = cells["cnv_burden_p"].to_numpy(dtype=float)
    # second look, only at cells that the clone does not explain: is their genome abnormal in another way?
    other_q = stratified_q(np.where(clone.like, np.nan, burden_p), lineage.stratum)
    enough_arms = cells["n_arms_altered"].to_numpy() >= MIN_ARMS
    own_arms, mosaic, n_chromosomes = _arms_by_cell(genome, lineage)
    abnormal = (np.nan_to_num(other_q, nan=1.0) <= fdr) & enough_arms
    q = np.where(clone.found, clone.q, other_q)

    assessed, like = lineage.assessed, clone.like & check.accepted
    if tumour_lineage == "any":
        confirmed = assessed & lineage.candidate & like
    else:
        plain = lineage.epithelial & ~lineage.resident
        # a blood cell needs epithelial evidence: a clone among blood cells is no carcinoma, whatever its genome
        believed = (lineage.candidate & ~lineage.suspect) | ~lineage.blood
        mislabelled = lineage.resident & clone.above_half & believed
        bare = (lineage.cell_type == UNKNOWN) & (np.nan_to_num(clone.fraction) >= HALF_PROFILE)
        # without a clone, a lone cell: its own markers must name it and its own genome must be abnormal, by more than
        # one trisomy; a member of a clone that was not believed is not alone
        alone = ~clone.found & abnormal & (lineage.cell_type == EPITHELIAL) & (n_chromosomes >= MIN_CHROMOSOMES)
        alone &= ~check.member
        confirmed = assessed & ((like & (plain | mislabelled | bare)) | alone)

    klass = np.full(len(cells), "normal", dtype=object)
    neutral = assessed & lineage.epithelial & ~clone.like & ~abnormal
    # ambient-coated cells: resident lineage, some epithelial transcripts, a genome that gives no hint of a tumour
    coated = neutral & lineage.resident & ~(np.fmin(clone.p, burden_p) < SUGGESTIVE_P) & ~(lineage.z >= MAX_COATED_Z)
    klass[neutral & ~coated] = "epithelial_cnv_neutral"
    beyond = assessed & (clone.like | abnormal) & ~confirmed
    klass[beyond] = "aneuploid_only"
    # a cell with significantly more of the profile than a doublet's half is not normal, even if its p-value cannot say
    # so (a small reference bounds p from below)
    klass[assessed & (klass == "normal") & clone.above_half & (clone.llr > 0)] = "aneuploid_only"
    # what a suspect shared with its type was no tumour's genome after all; what it was is open
    klass[assessed & lineage.suspect & ~confirmed] = "aneuploid_only"
    both = clone.like & check.accepted & lineage.resident & (lineage.doublet | lineage.epithelial)
    klass[beyond & both] = "possible_tumour_doublet"
    klass[confirmed] = "malignant_confirmed"
    # two cells in one droplet, one of them epithelial: half the share of the profile is asked for
    half = assessed & clone.half & check.accepted & (lineage.z >= MAX_COATED_Z)
    klass[lineage.two_in_one & (confirmed | (half & lineage.epithelial & ~lineage.suspect))] = MALIGNANT_DOUBLET
    klass[~assessed & (~lineage.resident | lineage.epithelial | lineage.candidate)] = "unassessable"

    call = np.array([CLASSES[k] for k in klass], dtype=object)
    reasons = write_reasons(
        cells,
        klass=klass,
        q=q,
        altered_arms=own_arms,
        mosaic_arms=mosaic,
        refusal=check.refusal,
        coated=coated,
        thresholds={"fdr": fdr, "own_p": MAX_OWN_P, "fraction": MIN_FRACTION, "arms": MIN_ARMS},
        clone_q=clone.q,
        other_q=other_q,
    )
    return pd.DataFrame(
        {
            "cell_id": cells["cell_id"].to_numpy(dtype=object),
            "cnv_burden_q": cells["cnv_burden_q"].to_numpy(dtype=float),
            "clone_llr": clone.llr,
            "clone_llr_p": clone.p,
            "clone_fraction": clone.fraction,
            "malignancy_q": q,
            "malignant_call": call,
            "malignant_class": klass,
            "call_reasons": reasons,
            "is_dtc": (call == "malignant") & (cells["compartment"] == "marrow").to_numpy(),
            "altered_arms": own_arms,
            "mosaic_arms": mosaic,
        }
    )


def check_clone(
    cells: pd.DataFrame, lineage: Lineage, clone: CloneEvidence, genome: Genome | None, *, tumour_lineage: str
) -> CloneCheck:
    """Ask of the clone whether it is a tumour's genome.

    Three answers refuse it: it lies on a single chromosome (benign mosaicism looks like that); with ``tumour_lineage:
    epithelial``, hardly any of the cells it was learned from is epithelial and nothing else, and it lies on few
    chromosomes (a carcinoma without markers is known by many); or the cells of one label that are like the clone do not
    share a genome but an expression (their arms are not constant along their length), which refuses that label only;
    cells typed epithelial have their markers as well and are not asked it. A clone that the user gave (nothing was
    learned) answers the third question only, and in another form: do the cells of the label share *that* profile,
    beyond the scatter of their segments around it?
    """
    n = len(cells)
    refusal = np.full(n, "", dtype=object)
    member = np.zeros(n, dtype=bool)
    if "clone_membership" in cells:
        membership = cells["clone_membership"].to_numpy(dtype=float)
        member = membership > 0.5
        on: set[str] = set()
        if genome is not None and member.any():
            profile = genome.clone_profile(membership)
            on = chromosomes([str(arm) for arm in profile.index[profile != 0]])
            if 0 < len(on) < MIN_CHROMOSOMES:
                refusal[:] = f"clone_on_one_chromosome({events(list(profile.index), np.sign(profile.to_numpy()))})"
        if tumour_lineage != "any" and member.any() and len(on) < MANY_CHROMOSOMES:
            n_epithelial = int((member & lineage.epithelial & ~lineage.resident).sum())
            if n_epithelial < min(MIN_EPITHELIAL_MEMBERS, MIN_EPITHELIAL_SHARE * member.sum()):
                refusal[:] = f"clone_without_epithelial_cells({n_epithelial}_of_{int(member.sum())})"
    labels = set(lineage.cell_type[clone.like].tolist()) - (set() if tumour_lineage == "any" else {EPITHELIAL})
    for label in sorted(labels) if genome is not None else ():
        block = clone.like & (lineage.cell_type == label)
        if genome is None or block.sum() < MIN_BLOCK:
            continue
        if genome.given_change is not None and not member.any():
            if (z := genome.shares_given(block)) < MIN_SHARED_Z:
                refusal[block] = f"given_profile_not_shared({label},z={z:.1f})"
            continue
        found = genome.coherence(block)
        if np.isfinite(found.scatter) and not found.is_clone:
            block &= refusal == ""
            refusal[block] = f"arms_not_constant_along_their_length({label},strength={found.strength:.0f})"
    return CloneCheck(refusal == "", np.where(clone.like, refusal, ""), member)


def _arms_by_cell(genome: Genome | None, lineage: Lineage) -> tuple[list[str], list[str], npt.NDArray[np.int64]]:
    """Altered arms, mosaic hints and number of altered chromosomes per cell (many, where nothing is known of arms)."""
    n = len(lineage.assessed)
    if genome is None:
        return [""] * n, [""] * n, np.full(n, MIN_CHROMOSOMES, dtype=np.int64)
    signs, arms = genome.signs(), genome.arms.full.arms
    on = [len(chromosomes([arm for arm, sign in zip(arms, row, strict=True) if sign])) for row in signs]
    return (
        [events(arms, row) for row in signs],
        mosaic_hints(genome, lineage.cell_type),
        np.array(on, dtype=np.int64),
    )
