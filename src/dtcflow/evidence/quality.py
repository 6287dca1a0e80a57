"""Rules on the depth of the cells that enter a claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dtcflow.evidence.decide import Rule
from dtcflow.evidence.plan import POPULATIONS, Rules

PLATE_RATIO: Final = 1.2
"""Full-length reads are thinned to one median number of reads, not of genes. Up to this ratio of the median numbers of
genes of the two sides that is no matter; beyond it a difference would be one of depth."""


def gene_rules(medians: Mapping[str, float], rules: Rules, *, plate: bool) -> list[Rule]:
    """Enough genes per cell in every group, and, of full-length data, about as many in both.

    Parameters
    ----------
    medians
        Median genes per cell, by group.
    rules
        Thresholds.
    plate
        Whether cells of full-length data are among them.
    """
    limit = rules.genes_per_cell_plate if plate else rules.genes_per_cell_droplet
    checks = [
        Rule(
            f"genes per cell, {group}",
            median,
            limit,
            median >= limit,
            "LOW_QUALITY",
            f"median of {median:.0f} genes per cell in {POPULATIONS[group].place}; at least {limit} are needed",
        )
        for group, median in medians.items()
    ]
    both = list(medians.values())
    if plate and len(both) == 2 and min(both) > 0:
        ratio = max(both) / min(both)
        words = f"full-length reads: the sides differ {ratio:.1f}-fold in genes per cell; {PLATE_RATIO:g} is allowed"
        checks.append(
            Rule("genes per cell of both sides", ratio, PLATE_RATIO, ratio <= PLATE_RATIO, "LOW_QUALITY", words)
        )
    return checks
