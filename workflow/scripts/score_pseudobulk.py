"""Score pseudobulks of tumour cells with ssGSEA and GSVA; screening only."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cells import passed_cells
from dtcflow.contracts import read_stage, write_table
from dtcflow.evidence.pseudobulk_scores import score_cohort_pseudobulks
from dtcflow.scores.signatures import load_gmt, load_panel

scores = score_cohort_pseudobulks(
    read_stage(snakemake.input.cohort, "embedding"),
    passed_cells(snakemake.input.qc, {"calls": snakemake.input.calls}),
    [*load_panel(snakemake.input.panel), *(s for path in snakemake.input.gmt for s in load_gmt(path))],
    leave_out=snakemake.params.leave_out,
    seed=snakemake.params.seed,
)
write_table(scores, snakemake.output.scores)
