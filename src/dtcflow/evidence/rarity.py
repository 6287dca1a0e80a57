"""C1: how rare are disseminated tumour cells in the marrow?

Per patient the called tumour cells and the nucleated marrow cells they were found among; over patients a beta-binomial
model, in which a patient's own rate varies, so that patients without a tumour cell count as zeros instead of being left
out. The mean rate comes with a profile-likelihood interval; its limit is taken from the t distribution (the square of
its quantile instead of the chi-square's), as patients are few.

A rate needs a denominator. Marrow that was enriched or depleted before sequencing has none, unless the sample sheet
says how many nucleated cells were screened. Cells lost on the way (and tumour cells not called) make the rate a lower
bound.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import betaln, gammaln

from dtcflow.cells import single_malignant
from dtcflow.evidence.contrasts import Floats, tumour_patients
from dtcflow.evidence.inference import MetaAnalysis
from dtcflow.evidence.paired import BLANK, PATIENT_COLUMNS
from dtcflow.evidence.within import meta

_LOG = logging.getLogger(__name__)

NAN: Final = float("nan")
MARROW: Final = "marrow"
PER: Final = 1e6
SESOI: Final = 1e-3
"""Rate below which tumour cells count as rare: the upper end of the range of 1 in 10^3 to 10^6 marrow cells that this
project starts from (DESIGN, first property). A weaker limit would call common what nobody called rare."""
RANGE: Final = (1e-6, 1e-3)
RARITY_COLUMNS: Final = (*PATIENT_COLUMNS, "rate_per_million", "rate_low", "rate_high", "denominator")
LEFT_OUT: Final = ("patient_id", "estimate", "ci_low", "ci_high", "ci90_low", "ci90_high")
SHAPES: Final = (0.1, 1e4)
"""Range of the shape of the distribution of rates over patients. Its coefficient of variation, ``1 / sqrt(shape)``,
is at most 3.2. Without a bound, no number of patients without a tumour cell could say anything: all might be in
one patient of a hundred."""
_CONTINUITY: Final = 0.5


@dataclass(frozen=True)
class Rarity:
    """C1, computed; the defaults stand for "nothing to compute". Rates are shares; times 10^6 is the claim's unit.

    Attributes
    ----------
    patients
        One row per patient, :data:`RARITY_COLUMNS`: ``n_cells_a`` tumour cells, ``n_cells_b`` nucleated cells,
        ``value_a`` the rate, ``value_b`` the threshold, ``difference`` and ``variance`` the distance of their logs;
        ``rate_per_million`` with its Jeffreys interval, and ``denominator`` (``screened``, ``captured`` or empty).
    rate, low, high, low90, high90
        Mean rate over patients and its 95 % and 90 % limits.
    shape
        Of the beta distribution of rates over patients; their coefficient of variation is ``1 / sqrt(shape)``.
    p_value
        Two-sided p of a mean rate equal to the threshold, from the same profile likelihood and t distribution as the
        limits: below .05 exactly where the threshold lies outside the 95 % interval.
    fit
        Mean log rate over patients (zeros with half a cell added); for planning only.
    leave_one_out
        One row per patient left out: ``patient_id estimate ci_low ci_high ci90_low ci90_high``.
    n_called
        Tumour cells in the marrow, all patients.
    n_positive
        Usable patients with at least one.
    in_range
        Whether the interval overlaps the range of 1 in 10^3 to 10^6.
    """

    patients: pd.DataFrame
    rate: float = NAN
    low: float = NAN
    high: float = NAN
    low90: float = NAN
    high90: float = NAN
    shape: float = NAN
    p_value: float = NAN
    fit: MetaAnalysis = BLANK
    leave_one_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(LEFT_OUT)))
    n_called: int = 0
    n_positive: int = 0
    in_range: bool | None = None


def jeffreys(k: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Jeffreys interval of a share; the lower limit is 0 for no success and the upper 1 for no failure.

    Brown, Cai and DasGupta 2001, Stat Sci 16:101.
    """
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k + 0.5, n - k + 0.5))
    high = 1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 0.5, n - k + 0.5))
    return low, high


# ---------------------------------------------------------------------------------------------------------------------
# Beta-binomial
# ---------------------------------------------------------------------------------------------------------------------


def log_likelihood(mean: float, shape: float, k: Floats, n: Floats) -> float:
    """Log-likelihood of ``k`` of ``n`` when rates are Beta(shape, shape (1 - mean) / mean) over patients."""
    a, b = shape, shape * (1 - mean) / mean
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return float((choose + betaln(k + a, n - k + b) - betaln(a, b)).sum())


def _profile(mean: float, k: Floats, n: Floats) -> tuple[float, float]:
    """Largest log-likelihood at this mean rate, and the shape that reaches it."""
    low, high = (math.log(shape) for shape in SHAPES)
    grid = np.linspace(low, high, 25)
    at = int(np.argmax([log_likelihood(mean, math.exp(x), k, n) for x in grid]))
    bounds = (grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)])
    best = optimize.minimize_scalar(
        lambda x: -log_likelihood(mean, math.exp(x), k, n), bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return -float(best.fun), math.exp(float(best.x))


def beta_binomial(k: Floats, n: Floats, *, threshold: float | None = None) -> dict[str, float]:
    """Mean rate over patients with profile-likelihood limits.

    Parameters
    ----------
    k, n
        Tumour cells and nucleated cells per patient, at least two patients.
    threshold
        Rate that a p value is wanted for.

    Returns
    -------
    ``rate``, ``shape``, ``low``, ``high`` (95 %), ``low90``, ``high90`` (90 %), and ``p_value`` of ``threshold``.
    Without any tumour cell the rate and the lower limits are 0.
    """
    k, n = np.asarray(k, dtype=float), np.asarray(n, dtype=float)
    floor = math.log(1e-3 / n.sum())
    ceiling = math.log(0.5)

    def down(x: float) -> float:
        return -_profile(math.exp(x), k, n)[0]

    if k.sum() == 0:
        best, at = 0.0, floor
        rate, shape = 0.0, NAN
    else:
        start = math.log(k.sum() / n.sum())
        grid = np.linspace(max(floor, start - 5), min(ceiling, start + 5), 41)
        near = int(np.argmin([down(x) for x in grid]))
        found = optimize.minimize_scalar(
            down, bounds=(grid[max(near - 1, 0)], grid[min(near + 1, 40)]), method="bounded", options={"xatol": 1e-6}
        )
        best, at = -float(found.fun), float(found.x)
        rate, shape = math.exp(at), _profile(math.exp(at), k, n)[1]

    def limit(drop: float, end: float) -> float:
        def gap(x: float) -> float:
            return best - _profile(math.exp(x), k, n)[0] - drop

        return math.exp(float(optimize.brentq(gap, at, end, xtol=1e-6))) if gap(end) > 0 else math.exp(end)

    out = {"rate": rate, "shape": shape}
    for name, alpha in (("", 0.05), ("90", 0.10)):
        drop = float(stats.t.isf(alpha / 2, len(k) - 1)) ** 2 / 2
        out[f"high{name}"] = limit(drop, ceiling)
        out[f"low{name}"] = limit(drop, floor) if rate > 0 else 0.0
    if threshold is not None:
        drop = max(0.0, best - _profile(threshold, k, n)[0])
        out["p_value"] = float(2 * stats.t.sf(math.sqrt(2 * drop), len(k) - 1))
    return out


def _left_out(names: Sequence[str], k: Floats, n: Floats) -> pd.DataFrame:
    """Rate and limits without each patient."""
    rows = []
    for i, name in enumerate(names):
        found = beta_binomial(np.delete(k, i), np.delete(n, i)) if len(names) > 2 else {}
        rows.append((name, *(found.get(key, NAN) for key in ("rate", "low", "high", "low90", "high90"))))
    return pd.DataFrame(rows, columns=list(LEFT_OUT))


# ---------------------------------------------------------------------------------------------------------------------
# The claim
# ---------------------------------------------------------------------------------------------------------------------


def _number(value: object) -> float:
    """A positive whole number of cells, or NaN."""
    number = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
    return float(number) if pd.notna(number) and float(number) > 0 else NAN


def _denominators(samples: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Tumour cells, nucleated cells and where that number comes from, per marrow sample."""
    rows = []
    captured = cells["sample_id"].astype(str).value_counts()
    tumour = cells.loc[single_malignant(cells), "sample_id"].astype(str).value_counts()
    for row in samples[samples["compartment"] == MARROW].to_dict("records"):
        name = str(row["sample_id"])
        screened = _number(row.get("nucleated_cells_screened"))
        k = int(tumour.get(name, 0))
        if math.isfinite(screened):
            n, source = screened, "screened"
        elif str(row.get("enrichment")) == "none":
            n, source = float(captured.get(name, 0)), "captured"
        else:
            n, source = NAN, ""
        rows.append({"patient_id": str(row["patient_id"]), "sample_id": name, "k": k, "n": n, "source": source})
    frame = pd.DataFrame(rows, columns=["patient_id", "sample_id", "k", "n", "source"])
    return frame.astype({"k": "int64", "n": float})  # also where there is no marrow sample


def evaluate_rarity(
    samples: pd.DataFrame,
    cells: pd.DataFrame,
    *,
    sesoi: float = SESOI,
    estimate_patients: int = 3,
) -> Rarity:
    """Compute C1.

    Parameters
    ----------
    samples
        Sample sheet: ``sample_id patient_id compartment`` and, where known, ``enrichment nucleated_cells_screened``.
    cells
        One row per cell that passed QC: ``sample_id patient_id compartment malignant_call`` and, where known,
        ``malignant_class``. Its rows are the denominator of an unenriched sample.
    sesoi
        Rate below which tumour cells count as rare.
    estimate_patients
        Fewer usable patients: no estimate.

    Returns
    -------
    Rarity
        The rule: supported when ``high < sesoi`` (the p value says the same), refuted when ``low90 > sesoi``. A patient
        all of whose marrow samples lack a denominator is not usable; with no usable patient there are no data.
    """
    marrow = _denominators(samples, cells)
    names = sorted(set(tumour_patients(samples)))
    rows = []
    for name in names:
        own = marrow[marrow["patient_id"] == name]
        known = own[np.isfinite(own["n"]) & (own["n"] > 0)]
        k, n = int(known["k"].sum()), float(known["n"].sum())
        reason = ""
        if own.empty:
            reason = "no marrow sample"
        elif known.empty:
            reason = "enriched or depleted marrow, or not said, and no number of nucleated cells screened"
        elif k > n:
            reason = f"{k} tumour cells among {n:.0f} nucleated cells screened: the number cannot be right"
        row: dict[str, object] = dict.fromkeys(RARITY_COLUMNS, np.nan)
        row |= {
            "patient_id": name,
            "contrast": "DTC / nucleated marrow cells",
            "signature": "",
            "n_cells_a": k,
            "n_cells_b": int(n),
            "n_called_a": int(own["k"].sum()),
            "n_called_b": int(n),
            "value_b": sesoi,
            "usable": not reason,
            "reason": reason,
            "denominator": "+".join(sorted(set(known["source"]))),
        }
        if not reason:
            low, high = jeffreys(k, int(n))
            row |= {
                "value_a": k / n,
                "difference": math.log((k + _CONTINUITY) / (n + 2 * _CONTINUITY)) - math.log(sesoi),
                "variance": 1 / (k + _CONTINUITY),
                "rate_per_million": PER * k / n,
                "rate_low": PER * low,
                "rate_high": PER * high,
            }
        rows.append(row)
    patients = pd.DataFrame(rows, columns=list(RARITY_COLUMNS)).astype({"usable": bool})
    used = patients[patients["usable"]]
    called = int(patients["n_called_a"].sum())
    if len(used) < max(2, estimate_patients):
        return Rarity(patients, n_called=called, n_positive=int((used["n_cells_a"] > 0).sum()))
    k_of, n_of = (used[name].to_numpy(dtype=float) for name in ("n_cells_a", "n_cells_b"))
    found = beta_binomial(k_of, n_of, threshold=sesoi)
    difference = used["difference"].to_numpy(dtype=float)
    _LOG.info("C1: %d patients, %.3g tumour cells in 10^6 nucleated marrow cells", len(used), PER * found["rate"])
    return Rarity(
        patients,
        rate=found["rate"],
        low=found["low"],
        high=found["high"],
        low90=found["low90"],
        high90=found["high90"],
        shape=found["shape"],
        fit=meta(difference, used["variance"].to_numpy(dtype=float)),
        p_value=found["p_value"],
        leave_one_out=_left_out(used["patient_id"].astype(str).tolist(), k_of, n_of),
        n_called=called,
        n_positive=int((used["n_cells_a"] > 0).sum()),
        in_range=bool(found["low"] <= RANGE[1] and found["high"] >= RANGE[0]),
    )
