"""Read one sample's counts and place its genes."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import COUNTS, write_json, write_stage, write_table
from dtcflow.genes import load_aliases, load_positions
from dtcflow.io.fingerprints import cell_fingerprints
from dtcflow.io.intake import read_sample
from dtcflow.scores.signatures import load_markers

adata, report = read_sample(
    {**snakemake.params.row, "path": snakemake.input.matrix},
    config=snakemake.params.config,
    positions=load_positions(snakemake.input.positions, build=snakemake.params.config["intake"]["genome_build"]),
    aliases=load_aliases(),
    markers=load_markers(snakemake.input.markers),
)
write_stage(adata, snakemake.output.matrix, "intake")
write_json(snakemake.output.report, report)
prints = cell_fingerprints(adata.layers[COUNTS], adata.var["symbol"], adata.obs["barcode"])
write_table(prints, snakemake.output.fingerprints, "fingerprints")
