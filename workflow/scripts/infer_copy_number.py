"""Copy-number evidence for the cells of one patient."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cells import patient_cells
from dtcflow.cnv.run import infer_copy_number
from dtcflow.contracts import write_json, write_stage, write_table

files = snakemake.input
key = snakemake.params.settings["reference_key"]
adata, cells = patient_cells(files.matrices, files.qc, files.annotation, files.genes, reference_key=key)
result = infer_copy_number(
    adata,
    cells,
    patient_id=snakemake.wildcards.patient,
    settings=snakemake.params.settings,
    epithelial_z=snakemake.params.epithelial_z,
    seed=snakemake.params.seed,
)
write_table(result.cells, snakemake.output.cells, "cnv_cells")
write_stage(result.windows, snakemake.output.windows, "cnv")
write_json(snakemake.output.status, result.status)
