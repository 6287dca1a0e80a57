"""Score signatures against matched random gene sets."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import read_stage, write_table
from dtcflow.scores.overlaps import overlap_table
from dtcflow.scores.run import score_cohort
from dtcflow.scores.signatures import load_gmt, load_panel

panel = load_panel(snakemake.input.panel)
own = [gene_set for path in snakemake.input.gmt for gene_set in load_gmt(path)]
scores, coverage = score_cohort(
    read_stage(snakemake.input.cohort, "embedding"),
    panel,
    own,
    n_null=snakemake.params.settings["n_null"],
    seed=snakemake.params.seed,
)
write_table(scores, snakemake.output.cells)
write_table(coverage, snakemake.output.signatures, "signature_coverage")
write_table(overlap_table([*panel, *own]), snakemake.output.overlaps)
