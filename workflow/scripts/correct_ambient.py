"""Counts of one sample without what came from the ambient soup, as a layer."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import read_stage, read_table, write_stage
from dtcflow.qc.decontaminate import correct_sample

corrected = correct_sample(read_stage(snakemake.input.matrix, "intake"), read_table(snakemake.input.cells, "qc_cells"))
write_stage(corrected, snakemake.output.layer, "ambient")
