"""Label cells by marker panels."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.annotate import annotate_cells
from dtcflow.contracts import read_stage, write_table
from dtcflow.scores.signatures import load_markers

annotation = annotate_cells(
    read_stage(snakemake.input.cohort, "embedding"),
    load_markers(snakemake.input.markers),
    settings=snakemake.params.settings,
    seed=snakemake.params.seed,
)
write_table(annotation, snakemake.output.cells, "annotation")
