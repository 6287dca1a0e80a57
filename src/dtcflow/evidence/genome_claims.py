"""Claims that use no signature: how alike the genomes of a patient's tumour cells are (C3), how rare they are (C1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from dtcflow.cnv.arms import ArmStatistics
from dtcflow.contracts import ContractError
from dtcflow.evidence.claims import Judged, claim_row
from dtcflow.evidence.contrasts import tumour_patients
from dtcflow.evidence.decide import Rule, candidate, decide
from dtcflow.evidence.dissimilarity import ArmCells, Dissimilarity, arm_cells
from dtcflow.evidence.numeric import Case, data_checks, patient_check, precision_check, protocol_rule
from dtcflow.evidence.plan import Claim, Rules
from dtcflow.evidence.power import minimum_detectable_effect, patients_needed, spread
from dtcflow.evidence.rarity import Rarity

LIKENESS_UNIT: Final = "likeness of cells (0 = strangers, 1 = one clone)"
RATE_UNIT: Final = "share of nucleated marrow cells"


@dataclass(frozen=True)
class PatientGenomes:
    """Arm statistics of one patient's cells: their ids, scores and information, and the noise's inflation per arm."""

    cell_ids: tuple[str, ...]
    statistics: ArmStatistics
    inflation: NDArray[np.float64]


def read_genomes(paths: Iterable[str | Path]) -> dict[str, PatientGenomes]:
    """Read the arm statistics of every patient from stage ``cnv``, named ``<patient>.h5ad``; nothing else is read.

    Raises
    ------
    ContractError
        A file lacks them.
    """
    out = {}
    for path in map(Path, paths):
        try:
            with h5py.File(path, "r") as file:
                noise = read_elem(file["uns/arm_noise"])
                names = read_elem(file["obs"]).index.astype(str)
                u, info = (np.asarray(read_elem(file[f"obsm/{key}"]), dtype=float) for key in ("arm_u", "arm_info"))
        except KeyError as error:
            raise ContractError(
                f"{path} lacks the arm statistics of cells ({error}); rerun rule infer_copy_number"
            ) from error
        arms = tuple(noise["arm"].astype(str))
        inflation = noise["inflation"].to_numpy(dtype=float)
        out[path.stem] = PatientGenomes(tuple(names), ArmStatistics(u, info, arms), inflation)
    return out


def genomes_of(genomes: Mapping[str, PatientGenomes], cells: pd.DataFrame) -> dict[str, ArmCells]:
    """Arm statistics of each patient's cells, with their calls.

    Parameters
    ----------
    genomes
        From :func:`read_genomes`.
    cells
        Cells that passed QC with their calls: ``cell_id patient_id sample_id compartment malignant_call clone_id``.
        Cells of a patient that it lacks (another time point) are left out. Patients and donors without a tumour sample
        are no patients.
    """
    by_id = cells.assign(cell_id=cells["cell_id"].astype(str)).set_index("cell_id", drop=False)
    if "clone_id" not in by_id:
        by_id["clone_id"] = ""
    out = {}
    patients = set(tumour_patients(cells))
    for patient, one in genomes.items():
        if patient not in patients:
            continue
        names = pd.Index(one.cell_ids)
        kept = np.flatnonzero(names.isin(by_id.index))
        own = ArmStatistics(one.statistics.u[kept], one.statistics.info[kept], one.statistics.arms)
        out[patient] = arm_cells(by_id.loc[names[kept]].reset_index(drop=True), own, one.inflation)
    return out


def _from_threshold(leave_one_out: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Estimates and limits less the threshold: where a claim compares with it instead of with 0."""
    numbers = ["estimate", "ci_low", "ci_high", "ci90_low", "ci90_high"]
    return leave_one_out.assign(**{name: leave_one_out[name] - threshold for name in numbers})


def judge_dissimilarity(
    claim: Claim,
    found: Dissimilarity,
    rules: Rules,
    case: Case,
    *,
    given: bool,
    mixed: bool,
) -> Judged:
    """Apply the plan to C3.

    SUPPORTED: the adjusted p (R against ``sesoi``) is below alpha and the upper 95 % limit of R is below ``sesoi``.
    NOT_SUPPORTED: the lower 90 % limit of R low (without the errors that a patient's tumour cells share) is above it.
    Every rule holds either way; ``given`` says whether copy number by cell was given, ``mixed`` whether the patient's
    two kinds of tumour cells come from different platforms, whose noise is not alike.
    """
    fit, low, sesoi = found.fit, found.fit_low, claim.sesoi
    held = bool(case.p_adjusted < rules.alpha and fit.ci_high < sesoi)
    wanted = candidate(supports=held, refutes=bool(low.ci90_low > sesoi))
    n = int(found.patients["usable"].sum())
    checks = data_checks(claim, rules, case, n=n, n_called=found.n_called)
    checks.append(protocol_rule(claim, mixed))
    if not given:
        checks.append(Rule("copy number by cell", 0, 1, False, "NO_DATA", "no copy number by cell was given"))
    if fit.n >= rules.estimate_patients:
        without = found.leave_one_out_low if wanted == "NOT_SUPPORTED" else found.leave_one_out
        checks.append(precision_check(fit, allowed=sesoi, sign=-1, beyond=sesoi))
        checks.append(patient_check(wanted, _from_threshold(without, sesoi), sign=-1, sesoi=0.0))
    decision = decide(wanted, checks, tested=fit.n >= rules.estimate_patients)
    own = found.patients.loc[found.patients["usable"].astype(bool), "value_a"].to_numpy(dtype=float)
    sd = spread(own)
    row = claim_row(
        claim,
        decision,
        unit=LIKENESS_UNIT,
        n_patients=n,
        estimate=fit.estimate,
        ci_low=fit.ci_low,
        ci_high=fit.ci_high,
        p_value=found.test.p_value,
        p_adjusted=case.p_adjusted,
        sesoi=sesoi,
        mde80=sesoi - minimum_detectable_effect(sd, fit.n, alpha=rules.alpha),
        patients_needed=patients_needed(
            fit.estimate - sesoi, sd, alpha=rules.alpha, minimum=rules.confirmatory_patients
        ),
    )
    detail: dict[str, Any] = {
        "evaluated": True,
        "method": "R = (similarity - floor) / (ceiling - floor) of arm profiles; Paule-Mandel mean, "
        "Hartung-Knapp-Sidik-Jonkman interval; p by sign-flip of R against sesoi over patients",
        "meta_analysis": fit.as_dict(),
        "meta_analysis_low": low.as_dict(),
        "arms": list(found.arms),
        "repeats": found.repeats,
        "leave_one_out": found.leave_one_out.to_dict("records"),
        "leave_one_out_low": found.leave_one_out_low.to_dict("records"),
        "patients": found.patients.to_dict("records"),
    }
    return Judged(claim, decision, row, detail, tuple(checks))


def judge_rarity(
    claim: Claim,
    found: Rarity,
    rules: Rules,
    case: Case,
) -> Judged:
    """Apply the plan to C1.

    SUPPORTED: the upper 95 % limit of the mean rate is below ``sesoi`` and the adjusted p against it below alpha.
    NOT_SUPPORTED: the lower 90 % limit is above it. NO_DATA where no patient has a denominator: marrow that was
    enriched has none unless the sheet says how many nucleated cells were screened. Patients without a tumour cell
    count as zeros beside others that have some; a cohort without any, or without proof of identity (C0), shows no
    rate: nothing says that its tumour cells would have been called.
    """
    sesoi, n = claim.sesoi, int(found.patients["usable"].sum())
    held = bool(case.p_adjusted < rules.alpha and found.high < sesoi)
    wanted = candidate(supports=held, refutes=bool(found.low90 > sesoi))
    checks = data_checks(claim, rules, case, n=n, n_called=found.n_called)
    words = f"{n} patients have a number of nucleated marrow cells (unenriched, or nucleated_cells_screened)"
    checks.append(Rule("denominator", n, 1, n > 0, "NO_DATA", words))
    checks.append(patient_check(wanted, _from_threshold(found.leave_one_out, sesoi), sign=-1, sesoi=0.0))
    decision = decide(wanted, checks, tested=n >= max(2, rules.estimate_patients))
    own = found.patients.loc[found.patients["usable"].astype(bool), "difference"].to_numpy(dtype=float)
    row = claim_row(
        claim,
        decision,
        unit=RATE_UNIT,
        n_patients=n,
        estimate=found.rate,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        p_adjusted=case.p_adjusted,
        sesoi=sesoi,
        patients_needed=patients_needed(
            found.fit.estimate, spread(own), alpha=rules.alpha, minimum=rules.confirmatory_patients
        ),
    )
    detail: dict[str, Any] = {
        "evaluated": True,
        "method": "beta-binomial mean rate over patients, zeros kept; limits and p against sesoi from the profile "
        "likelihood and the t distribution",
        "ci90": [found.low90, found.high90],
        "shape": found.shape,
        "patients_with_tumour_cells": found.n_positive,
        "tumour_cells": found.n_called,
        "within_1e-6_to_1e-3": found.in_range,
        "log_rate": found.fit.as_dict(),
        "leave_one_out": found.leave_one_out.to_dict("records"),
        "patients": found.patients.to_dict("records"),
    }
    return Judged(claim, decision, row, detail, tuple(checks))
