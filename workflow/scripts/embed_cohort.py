"""Merge the cells that passed QC and embed and cluster them."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import write_stage, write_table
from dtcflow.embed import embed_cohort
from dtcflow.merge import merge_samples

merged = merge_samples(snakemake.input.matrices, snakemake.input.qc)
embedded = embed_cohort(merged, settings=snakemake.params.settings, seed=snakemake.params.seed)
write_stage(embedded, snakemake.output.cohort, "embedding")
write_table(embedded.var.reset_index(drop=True), snakemake.output.genes)
write_table(embedded.uns["leiden_stability"], snakemake.output.stability)
