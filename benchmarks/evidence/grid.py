"""What is simulated, how often, and what is true for each claim in each scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dtcflow.evidence.plan import Claim
from dtcflow.simulate.evidence import EvidenceScenario

Truth = Literal["absent", "present", "undefined"]
PROGRAMME_OF: Final = {"LIM_MAMMARY_STEM_CELL": "stemness", "PECE_MAMMARY_STEM_CELL": "stemness"} | {
    "LIM_MAMMARY_LUMINAL_PROGENITOR": "progenitor",
    "WIECEK_G0_ARREST": "arrest",
}
"""Programme that a claim's primary signature measures, by the start of its name."""


@dataclass(frozen=True)
class Entry:
    """A scenario, how many cohorts of it a full and a small run make, and its place in the order of importance.

    ``permuted``: the cohorts of the scenario with compartment labels of the tumour cells exchanged within patients.
    """

    scenario: EvidenceScenario
    full: int
    small: int = 4
    permuted: bool = False

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"{self.scenario.name}, labels permuted" if self.permuted else self.scenario.name


def _present(name: str, effect: float, full: int, **values: float) -> Entry:
    return Entry(EvidenceScenario(name, effects={"stemness": effect}, **values), full)  # type: ignore[arg-type]


STRONG: Final = EvidenceScenario("d 1.0, 10 patients", n_patients=10, dtc_floor=12, effects={"stemness": 1.0})

CORE: Final = (
    Entry(EvidenceScenario("null"), 1000, small=12),
    Entry(STRONG, 200),
    Entry(EvidenceScenario("null, aliased with study", aliased=True), 100),
    Entry(EvidenceScenario("null, 20 % haematopoietic", contamination=0.2), 100),
    Entry(EvidenceScenario("null, depth .3", depth_ratio=0.3), 200),
    _present("d 0.5", 0.5, 200),
    Entry(EvidenceScenario("null, cycling imbalance", cycling_dtc=0.5, cycling_pt=0.05), 100),
    Entry(STRONG, 100, permuted=True),
    Entry(EvidenceScenario("null, 20 % of cells miscalled", miscalled=0.2), 100),
)
"""Scenarios of the acceptance figures."""
MORE: Final = (
    Entry(EvidenceScenario("null, slope SD 0", slope_sd=0.0), 100),
    Entry(EvidenceScenario("null, slope SD 1", slope_sd=1.0), 100),
    _present("d 1.0", 1.0, 100),
    _present("d 1.0, 6 patients", 1.0, 60, n_patients=6),
    _present("d 0.5, 15 patients", 0.5, 60, n_patients=15),
    Entry(EvidenceScenario("null, 15 patients", n_patients=15), 60),
    _present("d 1.0, depth .3", 1.0, 60, depth_ratio=0.3),
    _present("d 0.5, 10 patients, 12 cells", 0.5, 60, n_patients=10, dtc_floor=12),
    Entry(EvidenceScenario("null, 5 % haematopoietic", contamination=0.05), 60),
    _present("d 0.5, 20 patients", 0.5, 40, n_patients=20),
    Entry(EvidenceScenario("null, 4 patients", n_patients=4), 40),
    Entry(EvidenceScenario("subset .1, log2FC 1", subset_share=0.1, subset_log2fc=1.0), 40),
    Entry(EvidenceScenario("subset .3, log2FC 1", subset_share=0.3, subset_log2fc=1.0), 40),
    Entry(EvidenceScenario("arrest 1.0", effects={"arrest": 1.0}, cycling_dtc=0.03), 40),
)
GRID: Final = (*CORE, *MORE)
"""In order of importance."""
SIZES: Final = {"null": 2000, "null, depth .3": 1000, "d 0.5": 1000, STRONG.name: 1000}
"""Cohorts in which only the test over patients is made (:mod:`evidence.size`), by scenario."""
SMALL_SIZES: Final = dict.fromkeys(SIZES, 10)


def programme_of(claim: Claim) -> str | None:
    """Programme that the claim's primary signature measures, None when it measures none of the simulated ones."""
    return next((name for start, name in PROGRAMME_OF.items() if claim.primary_signature.startswith(start)), None)


def truth(entry: Entry, claim: Claim) -> Truth:
    """Whether the claim is true in a scenario; ``undefined`` where the simulation says nothing about it.

    A contrast is true when its programme differs by the smallest effect of interest or more. Contamination, wrong
    calls, depth, cycling and study put no programme into a tumour cell: the claim is false. A subset that runs the
    programme makes the claim of a subset (P1) true, and leaves the mean shift (P2, P3) undefined; without one P1 is
    undefined, because all simulated tumour cells differ in how much of the programme they run.
    """
    s = entry.scenario
    if claim.test == "identity_share":
        return "undefined" if s.miscalled else "present"
    subset = s.subset_share > 0
    if claim.id == "P1":
        return "present" if subset else "undefined"
    if claim.id == "P4":  # stemness and arrest are drawn independently of each other within cells
        return "absent"
    name = programme_of(claim)
    if (claim.test != "paired_contrast" and claim.id not in ("P3", "C4")) or (name is None and claim.id != "P3"):
        return "undefined"
    name = name or "stemness"
    effect = 0.0 if entry.permuted else s.effects.get(name, 0.0)
    if name == "stemness" and subset:
        return "undefined"
    if effect == 0:
        return "absent"
    return "present" if effect * claim.sign >= claim.sesoi else "undefined"
