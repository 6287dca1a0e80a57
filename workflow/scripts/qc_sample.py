"""Quality control of one sample: every cell keeps its row."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import read_stage, write_json, write_table
from dtcflow.qc.run import qc_sample
from dtcflow.scores.signatures import load_markers

cells, summary = qc_sample(
    read_stage(snakemake.input.matrix, "intake"),
    settings=snakemake.params.settings,
    epithelial_z_threshold=snakemake.params.epithelial_z,
    seed=snakemake.params.seed,
    markers=load_markers(snakemake.input.markers),
)
write_table(cells, snakemake.output.cells, "qc_cells")
write_json(snakemake.output.summary, {"sample_id": snakemake.wildcards.sample, **summary})
