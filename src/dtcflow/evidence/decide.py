"""The three-way rule: from numbers to SUPPORTED, NOT_SUPPORTED or INCONCLUSIVE with its codes. No discretion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import pandas as pd

from dtcflow.contracts import CODES

CODE_ORDER: Final = (
    *("NO_TUMOUR_CELLS", "NOT_EVALUATED", "NO_DATA", "DOUBTFUL_IDENTITY", "LOW_N", "CONFOUNDED", "LOW_CELLS"),
    *("LOW_COVERAGE", "LOW_QUALITY", "GATE_FAILED", "CONTAMINATION", "IMPRECISE", "FRAGILE", "GENE_SET_NULL"),
    *("NOT_ROBUST_TO_COVARIATES", "NO_EFFECT_SHOWN"),
)
"""Order in which codes are listed: what would have to be mended first comes first."""


@dataclass(frozen=True)
class Rule:
    """One rule of the plan as it was applied.

    Attributes
    ----------
    name
        What is compared.
    value, threshold
        In numbers; NaN where there is none.
    holds
        Whether the rule is met.
    code
        Code the claim gets when it is not.
    sentence
        The same in words.
    blocks
        ``"verdict"`` rules must hold for either verdict, ``"support"`` rules only for SUPPORTED.
    """

    name: str
    value: float
    threshold: float
    holds: bool
    code: str
    sentence: str
    blocks: str = "verdict"

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """A verdict with its codes (empty unless INCONCLUSIVE)."""

    verdict: str
    codes: tuple[str, ...]


def order_codes(codes: Iterable[str]) -> tuple[str, ...]:
    """Each code once, in :data:`CODE_ORDER`."""
    unknown = set(codes) - set(CODES)
    if unknown:
        raise ValueError(f"codes that the contract does not know: {', '.join(sorted(unknown))}")
    return tuple(code for code in CODE_ORDER if code in set(codes))


QUALIFIES: Final = frozenset({"CONTAMINATION", "GENE_SET_NULL", "NOT_ROBUST_TO_COVARIATES"})
"""Codes that say what an effect may be instead of the one that is claimed."""


def candidate(*, supports: bool, refutes: bool) -> str:
    """Verdict the interval and test lead to, before the rules have their say."""
    if supports and not refutes:
        return "SUPPORTED"
    return "NOT_SUPPORTED" if refutes else "INCONCLUSIVE"


def decide(wanted: str, rules: Sequence[Rule], *, tested: bool = True, effect: bool = False) -> Decision:
    """Apply the rules to a candidate verdict.

    SUPPORTED needs every rule, NOT_SUPPORTED every rule that does not only concern support. Otherwise the claim is
    INCONCLUSIVE and carries the code of each broken rule, with two exceptions. Where neither threshold was met,
    ``NO_EFFECT_SHOWN`` says so (unless there was nothing to test, ``tested`` false, or too few patients for the test to
    reach any threshold); without an ``effect`` (:func:`shows_effect`) it takes the place of support-only rules that
    qualify one (:data:`QUALIFIES`): what was not shown cannot be contamination, nor go away with a covariate. Where the
    estimate refutes but a rule on the data does not hold, support-only rules are left out.
    """
    broken = [rule for rule in rules if not rule.holds]
    hard = [rule.code for rule in broken if rule.blocks == "verdict"]
    broken_codes = {rule.code for rule in broken}
    soft = [rule.code for rule in broken if rule.blocks == "support"]
    if wanted == "SUPPORTED" and not broken:
        return Decision("SUPPORTED", ())
    if wanted == "NOT_SUPPORTED" and not hard:
        return Decision("NOT_SUPPORTED", ())
    codes = list(hard)
    if wanted == "SUPPORTED":
        codes += soft
    elif wanted == "INCONCLUSIVE":
        if tested and "LOW_N" not in broken_codes:
            soft = [code for code in soft if effect or code not in QUALIFIES] + ["NO_EFFECT_SHOWN"]
        codes += soft
    # an undecided claim always says why, also where no number could be had and no rule speaks of it
    return Decision("INCONCLUSIVE", order_codes(codes or ["NO_DATA"]))


class Limits(Protocol):
    """An estimate over patients with its 95 % and 90 % limits."""

    @property
    def estimate(self) -> float: ...  # noqa: D102
    @property
    def ci_low(self) -> float: ...  # noqa: D102
    @property
    def ci_high(self) -> float: ...  # noqa: D102
    @property
    def ci90_low(self) -> float: ...  # noqa: D102
    @property
    def ci90_high(self) -> float: ...  # noqa: D102


def supports(found: Limits, *, p_adjusted: float, sign: int, sesoi: float, alpha: float) -> bool:
    """Adjusted p below alpha, 95 % interval beyond zero in the predicted direction, estimate at least the SESOI."""
    limit = found.ci_low if sign > 0 else -found.ci_high
    return bool(p_adjusted < alpha and limit > 0 and found.estimate * sign >= sesoi)


def shows_effect(found: Limits, *, sign: int, sesoi: float) -> bool:
    """95 % interval beyond zero in the predicted direction, estimate at least the SESOI; whatever the p value."""
    return supports(found, p_adjusted=0.0, sign=sign, sesoi=sesoi, alpha=1.0)


def refutes(found: Limits, *, sign: int, sesoi: float) -> bool:
    """90 % interval below the SESOI, or 95 % interval beyond zero on the other side."""
    upper90 = found.ci90_high if sign > 0 else -found.ci90_low
    upper95 = found.ci_high if sign > 0 else -found.ci_low
    return bool(math.isfinite(upper90) and (upper90 < sesoi or upper95 < 0))


def overturned(wanted: str, leave_one_out: pd.DataFrame, *, sign: int, sesoi: float) -> list[str]:
    """Patients without whom one part of a claim would no longer say what it says.

    For SUPPORTED the interval must still exclude zero in the predicted direction and the estimate still reach
    ``sesoi``; for NOT_SUPPORTED the part must still be refuted. Nothing can be overturned in an undecided claim. The
    exact p is not asked for: without one of six patients it cannot be below .0625.

    Parameters
    ----------
    leave_one_out
        One row per patient left out: ``patient_id estimate ci_low ci_high ci90_low ci90_high``.
    """
    if wanted not in ("SUPPORTED", "NOT_SUPPORTED"):
        return []
    out = []
    row: Any  # a named tuple whose types pandas cannot tell
    for row in leave_one_out.itertuples():
        if wanted == "SUPPORTED":
            kept = shows_effect(row, sign=sign, sesoi=sesoi)
        else:
            kept = refutes(row, sign=sign, sesoi=sesoi)
        if not kept:
            out.append(str(row.patient_id))
    return out
