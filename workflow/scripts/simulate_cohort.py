"""Simulate the demo cohort and its truth."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from pathlib import Path

from dtcflow.simulate import write_cohort

design = snakemake.params.design
write_cohort(Path(snakemake.output.matrices[0]).parents[1], design["scenario"], seed=design["seed"])
