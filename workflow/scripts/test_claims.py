"""Evaluate the analysis plan."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cells import passed_cells
from dtcflow.contracts import read_stage, write_json, write_table
from dtcflow.evidence.run import evaluate_plan, read_inputs

given = snakemake.input
result = evaluate_plan(
    read_stage(given.cohort, "embedding"),
    passed_cells(given.qc, {"annotation": given.annotation, "calls": given.calls}),
    **read_inputs(given, samples=snakemake.params.samples),
    settings=snakemake.params.settings,
    seed=snakemake.params.seed,
)
write_table(result.claims, snakemake.output.claims, "claims")
write_table(result.patients, snakemake.output.patients, "patients")
write_table(result.sensitivity, snakemake.output.sensitivity)
write_table(result.controls, snakemake.output.controls)
write_json(snakemake.output.verdict, result.verdict)
