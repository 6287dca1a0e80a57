"""Evaluate the analysis plan."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.cells import passed_cells
from dtcflow.contracts import read_stage, write_json, write_table
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import evaluate_plan
from dtcflow.scores.signatures import load_panel

result = evaluate_plan(
    read_stage(snakemake.input.cohort, "embedding"),
    passed_cells(snakemake.input.qc, {"annotation": snakemake.input.annotation, "calls": snakemake.input.calls}),
    load_plan(snakemake.input.claims),
    load_panel(snakemake.input.panel),
    settings=snakemake.params.settings,
    seed=snakemake.params.seed,
)
write_table(result.claims, snakemake.output.claims, "claims")
write_table(result.patients, snakemake.output.patients, "patients")
write_table(result.sensitivity, snakemake.output.sensitivity)
write_table(result.controls, snakemake.output.controls)
write_json(snakemake.output.verdict, result.verdict)
