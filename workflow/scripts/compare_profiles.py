"""Compare copy number from expression with the known copy number of the tumours that have one."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cnv.compare import compare_patient, stack_comparisons
from dtcflow.cnv.given import read_given
from dtcflow.contracts import read_stage, read_table, write_table

files, params = snakemake.input, snakemake.params
calls = read_table(files.calls, "calls")
tables = [
    compare_patient(
        read_given(path, patient_id=patient, sample_ids=samples, build=params.build),
        read_stage(windows, "cnv"),
        calls,
        patient_id=patient,
        effect=params.effect,
        build=params.build,
    )
    for (patient, samples), windows, path in zip(params.patients.items(), files.windows, files.profiles, strict=True)
]
write_table(stack_comparisons(tables), snakemake.output.comparison, "comparison")
