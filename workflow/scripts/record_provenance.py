"""Record parameters, input hashes, versions and the methods text."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from pathlib import Path

from dtcflow import provenance
from dtcflow.contracts import read_json, write_json
from dtcflow.evidence.plan import load_plan
from dtcflow.report.text import methods

inputs = {Path(path).stem: read_json(path) for path in snakemake.input.intake}
content = provenance.record(
    config=snakemake.params.config,
    samples=snakemake.params.samples,
    inputs=inputs,
    tables=[Path(path) for path in snakemake.input.tables],
    profiles={name: Path(path) for name, path in zip(snakemake.params.patients, snakemake.input.profiles, strict=True)},
    plan_hash=load_plan(snakemake.input.claims).sha256,
    methods="\n\n".join(methods(snakemake.params.config, provenance.package_versions())),
)
write_json(snakemake.output.provenance, content)
