"""Rules on the depth of the cells that enter a contrast."""

from __future__ import annotations

from typing import Final

from dtcflow.evidence.decide import Rule
from dtcflow.evidence.paired import Paired
from dtcflow.evidence.plan import POPULATIONS, Rules

PLATE_RATIO: Final = 1.2
"""Full-length reads are thinned to one median number of reads, not of genes. Up to this ratio of the median numbers of
genes of the two sides that is no matter; beyond it a difference would be one of depth."""


def quality_rules(found: Paired, rules: Rules) -> list[Rule]:
    """Enough genes per cell on either side, and, of full-length data, about as many on both."""
    limit = rules.genes_per_cell_plate if found.plate else rules.genes_per_cell_droplet
    checks = [
        Rule(
            f"genes per cell, {group}",
            median,
            limit,
            median >= limit,
            "LOW_QUALITY",
            f"median of {median:.0f} genes per cell in {POPULATIONS[group].place}; at least {limit} are needed",
        )
        for group, median in found.median_genes.items()
    ]
    medians = list(found.median_genes.values())
    if found.plate and len(medians) == 2 and min(medians) > 0:
        ratio = max(medians) / min(medians)
        words = f"full-length reads: the sides differ {ratio:.1f}-fold in genes per cell; {PLATE_RATIO:g} is allowed"
        checks.append(
            Rule("genes per cell of both sides", ratio, PLATE_RATIO, ratio <= PLATE_RATIO, "LOW_QUALITY", words)
        )
    return checks
