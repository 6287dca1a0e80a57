"""Join everything known about every cell into the public table and object."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.assemble import assemble_cells, assemble_cohort
from dtcflow.cells import shown_scores
from dtcflow.contracts import read_json, read_stage, read_table, write_stage, write_table
from dtcflow.scores.signatures import load_panel

files = snakemake.input
scores = read_table(files.scores)
cells = assemble_cells(
    [read_table(path, "qc_cells") for path in files.qc],
    read_table(files.annotation, "annotation"),
    read_table(files.calls, "calls"),
    scores,
    primary_scores=shown_scores(load_panel(files.panel), scores),
)
windows = (read_stage(path, "cnv") for path in files.windows)
ambient = (read_stage(path, "ambient") for path in files.ambient)
cohort = assemble_cohort(
    read_stage(files.cohort, "embedding"), cells, windows, provenance=read_json(files.provenance), ambient=ambient
)
write_stage(cohort, snakemake.output.cohort, "cohort")
write_table(cells, snakemake.output.cells, "cells")
