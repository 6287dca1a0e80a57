"""Call malignant cells, clones and chromosome arms."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.call import call_cohort, read_patients
from dtcflow.contracts import write_table, write_text

files, output = snakemake.input, snakemake.output
patients = read_patients(files.qc, files.annotation, files.cells, files.windows, files.status)
calls = call_cohort(patients, settings=snakemake.params.settings)
write_table(calls.cells, output.cells, "calls")
write_table(calls.arms, output.arms, "arms")
write_table(calls.clones, output.clones, "clones")
write_table(calls.events, output.events, "clone_events")
write_text(output.tree, calls.tree)
