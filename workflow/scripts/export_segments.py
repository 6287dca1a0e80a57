"""Write the copy number of every sample and clone as a SEG file for IGV."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cnv.seg import patient_segments, stack_segments
from dtcflow.contracts import read_stage, read_table, write_table

params = snakemake.params
calls = read_table(snakemake.input.calls, "calls")
tables = [patient_segments(read_stage(path, "cnv"), calls, effect=params.effect) for path in snakemake.input.windows]
write_table(stack_segments(tables), snakemake.output.segments, "segments")
