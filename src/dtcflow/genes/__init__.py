"""What a gene is called, where it lies and which family it belongs to.

Three concerns, three modules: reference tables of positions (:mod:`~dtcflow.genes.positions`), placing the genes of a
matrix on them (:mod:`~dtcflow.genes.placement`), and gene families (:mod:`~dtcflow.genes.families`).
"""

from __future__ import annotations

from dtcflow.genes.families import FAMILIES, gene_class, gene_mask
from dtcflow.genes.placement import check_placement, load_aliases, place_genes, placement_report
from dtcflow.genes.positions import BUILDS, CHROMOSOMES, load_arms, load_positions, looks_like_hg19, share_shifted

__all__ = [
    "BUILDS",
    "CHROMOSOMES",
    "FAMILIES",
    "check_placement",
    "gene_class",
    "gene_mask",
    "load_aliases",
    "load_arms",
    "load_positions",
    "looks_like_hg19",
    "place_genes",
    "placement_report",
    "share_shifted",
]
