"""Gate C0: which share of the putative tumour cells of a compartment carries tumour copy-number alterations?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import expit

from dtcflow.cells import single_malignant
from dtcflow.contracts import EPITHELIAL, UNKNOWN
from dtcflow.evidence.inference import MetaAnalysis, random_effects, sign_flip
from dtcflow.evidence.layout import at_timepoint, tumour_patients
from dtcflow.evidence.plan import GROUPS, Claim, Rules
from dtcflow.shared_droplets import two_in_one

CONTINUITY = 0.5


@dataclass(frozen=True)
class Identity:
    """Result of the gate.

    Attributes
    ----------
    patients
        One row per patient, columns of the ``patients`` table except claim and analysis.
    share, low, high, low90, high90
        Typical share over patients with its 95 % and 90 % interval, between 0 and 1.
    fit
        The meta-analysis behind it, on the log-odds scale.
    p_value
        Sign-flip p that the log-odds are symmetric about those of the share to exceed (``sesoi``).
    n_called
        Patients with at least ``claim.called_cells`` called cells.
    n_malignant
        Called cells of the compartment over all patients, putative or not, alone in their droplet.
    sampled
        Whether the cohort has a sample of the compartment.
    doubts
        Pairs of the gate's patients that may be one person, in words.
    """

    patients: pd.DataFrame
    share: float
    low: float
    high: float
    low90: float
    high90: float
    fit: MetaAnalysis
    p_value: float
    n_called: int
    n_malignant: int
    sampled: bool = True
    doubts: tuple[str, ...] = ()


NOT_NORMAL: Final = (EPITHELIAL, UNKNOWN, "mixed")
"""Cell types that do not explain epithelial transcripts away."""


def putative(cells: pd.DataFrame, *, epithelial_z: float, epithelial_markers: int) -> pd.Series:
    """Cells that look like tumour cells in a marrow: what morphology and cytokeratin stain are to a pathologist.

    Enough of the epithelial panel (calibrated z) in more than one marker gene, and annotated as epithelial, unknown
    or mixed, or epithelial in the first pass of quality control (``lineage``, where the table has it). A blood cell
    with a few keratin transcripts from its surroundings is not putative: z reaches 3 in one of some hundred cells by
    chance, and the thousands of blood cells of a marrow would outnumber its tumour cells.

    The malignant call plays no part: a denominator that knew it would make the share 1 by construction.
    """
    z = pd.to_numeric(cells["epithelial_z"], errors="coerce")
    markers = pd.to_numeric(cells["n_epithelial_markers"], errors="coerce")
    lineage = cells["cell_type"].astype(str).isin(NOT_NORMAL)
    if "lineage" in cells:
        lineage |= cells["lineage"].astype(str) == EPITHELIAL
    return (z >= epithelial_z) & (markers >= epithelial_markers) & lineage


def identity_share(cells: pd.DataFrame, claim: Claim, rules: Rules, *, doubts: Sequence[str] = ()) -> Identity:
    """Estimate the share of putative tumour cells that are called malignant, with the patient as the unit.

    A patient with ``k`` called of ``m`` putative cells contributes the log-odds ``log((k + 1/2) / (m - k + 1/2))``
    with variance ``1 / (k + 1/2) + 1 / (m - k + 1/2)``; these go through the same random-effects meta-analysis as
    every other claim, and mean and limits are transformed back. The half counts keep shares of 0 and 1 finite and
    pull small patients towards one half, against the claim. A t interval on raw shares would collapse to a point when
    all patients have share 1, and leave [0, 1] when they do not.

    Parameters
    ----------
    cells
        QC-passed cells: ``patient_id compartment malignant_call cell_type epithelial_z n_epithelial_markers`` and,
        where known, ``malignant_class``, ``arbitration`` and ``p_doublet``: droplets with two cells take no part.
    claim
        Whose group ``a`` is asked about, with the definition of a putative cell.
    rules
        ``value_cells``: putative cells a patient needs.
    doubts
        Pairs of patients that may be one person, in words.
    """
    compartment = GROUPS[claim.a]
    # a droplet with two cells is no proof of a tumour cell, called or not: it takes part on neither side
    shared = two_in_one(cells) | (
        (cells["malignant_call"] == "malignant").to_numpy(dtype=bool) & ~single_malignant(cells)
    )
    there = (cells["compartment"] == compartment).to_numpy(dtype=bool) & at_timepoint(cells, claim.timepoint)
    sampled = set(cells.loc[there, "patient_id"].astype(str))
    here = cells.loc[there & ~shared]
    is_putative = putative(here, epithelial_z=claim.epithelial_z, epithelial_markers=claim.epithelial_markers)
    malignant = here["malignant_call"] == "malignant"
    patient = here["patient_id"].astype(str)
    rows = []
    for name in tumour_patients(cells):
        own = patient == name
        m, k = int((own & is_putative).sum()), int((own & is_putative & malignant).sum())
        usable = m >= rules.value_cells
        if name not in sampled:
            reason = f"no {compartment} sample"
        else:
            reason = "" if usable else f"{m} putative cells in {compartment}, {rules.value_cells} needed"
        log_odds = np.log((k + CONTINUITY) / (m - k + CONTINUITY))
        variance = 1 / (k + CONTINUITY) + 1 / (m - k + CONTINUITY)
        rows.append(
            {
                "patient_id": name,
                "contrast": claim.contrast,
                "signature": "",
                "n_cells_a": k,
                "n_cells_b": m,
                "value_a": k / m if m else np.nan,
                "value_b": claim.sesoi,
                "difference": log_odds if usable else np.nan,
                "variance": variance if usable else np.nan,
                "usable": usable,
                "reason": reason,
                "n_called_a": k,
            }
        )
    columns = [
        *(
            "patient_id",
            "contrast",
            "signature",
            "n_cells_a",
            "n_cells_b",
            "value_a",
            "value_b",
            "difference",
            "variance",
        ),
        *("usable", "reason", "n_called_a"),
    ]
    patients = pd.DataFrame(rows, columns=columns)
    used = patients[patients["usable"].astype(bool)]
    fit = random_effects(used["difference"], used["variance"])
    threshold = np.log(claim.sesoi / (1 - claim.sesoi))
    test = sign_flip(used["difference"].to_numpy(dtype=float) - threshold)
    return Identity(
        patients=patients,
        share=float(expit(fit.estimate)),
        low=float(expit(fit.ci_low)),
        high=float(expit(fit.ci_high)),
        low90=float(expit(fit.ci90_low)),
        high90=float(expit(fit.ci90_high)),
        fit=fit,
        p_value=test.p_value,
        n_called=int((patients["n_called_a"] >= claim.called_cells).sum()),
        n_malignant=int(malignant.sum()),
        sampled=bool(sampled),
        doubts=tuple(doubts),
    )
