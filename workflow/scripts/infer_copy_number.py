"""Copy-number evidence for the cells of one patient."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cells import patient_cells
from dtcflow.cnv.given import read_given
from dtcflow.cnv.run import infer_copy_number
from dtcflow.contracts import write_json, write_stage, write_table

files, params, patient = snakemake.input, snakemake.params, snakemake.wildcards.patient
key = params.settings["reference_key"]
adata, cells = patient_cells(files.matrices, files.qc, files.annotation, files.genes, reference_key=key)
profiles = [
    read_given(path, patient_id=patient, sample_ids=params.samples, build=params.build) for path in files.profile
]
result = infer_copy_number(
    adata,
    cells,
    patient_id=patient,
    settings=params.settings,
    epithelial_z=params.epithelial_z,
    seed=params.seed,
    given=profiles[0] if profiles else None,
)
write_table(result.cells, snakemake.output.cells, "cnv_cells")
write_stage(result.windows, snakemake.output.windows, "cnv")
write_json(snakemake.output.status, result.status)
