"""Compare pseudobulks of tumour cells between compartments; screening only."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cells import passed_cells
from dtcflow.contracts import read_stage, write_table
from dtcflow.evidence.pseudobulk import compare_pseudobulk, pseudobulk
from dtcflow.scores.signatures import load_gmt, load_panel

bulk = pseudobulk(
    read_stage(snakemake.input.cohort, "embedding"),
    passed_cells(snakemake.input.qc, {"calls": snakemake.input.calls}),
    leave_out=snakemake.params.leave_out,
)
panel = [*load_panel(snakemake.input.panel), *(s for path in snakemake.input.gmt for s in load_gmt(path))]
comparison = compare_pseudobulk(bulk, panel, seed=snakemake.params.seed)
write_table(comparison.genes, snakemake.output.genes)
write_table(comparison.pathways, snakemake.output.pathways)
