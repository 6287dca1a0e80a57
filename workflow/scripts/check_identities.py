"""Look for swapped, mixed and repeated samples in the cohort."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from dtcflow.contracts import read_json, read_table, write_table
from dtcflow.io.identities import check_identities

samples = snakemake.params.samples
findings = check_identities(
    dict(zip(samples, map(read_json, snakemake.input.reports), strict=True)),
    {name: read_table(path, "fingerprints") for name, path in zip(samples, snakemake.input.fingerprints, strict=True)},
    samples,
)
write_table(findings, snakemake.output.findings, "identity")
