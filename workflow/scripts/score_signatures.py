"""Score signatures against matched random gene sets."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import read_stage, write_table
from dtcflow.scores.run import score_cohort
from dtcflow.scores.signatures import load_gmt, load_panel

scores, coverage = score_cohort(
    read_stage(snakemake.input.cohort, "embedding"),
    load_panel(snakemake.input.panel),
    [gene_set for path in snakemake.input.gmt for gene_set in load_gmt(path)],
    n_null=snakemake.params.settings["n_null"],
    seed=snakemake.params.seed,
)
write_table(scores, snakemake.output.cells)
write_table(coverage, snakemake.output.signatures, "signature_coverage")
