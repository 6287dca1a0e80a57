"""Write the one-page report and the figures."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

from pathlib import Path

from dtcflow.report.build import write_report
from dtcflow.report.figures import write_claim_figures
from dtcflow.report.inputs import ReportInputs

named = {
    name: Path(value) if isinstance(value, str) else [Path(path) for path in value]
    for name, value in snakemake.input.items()
}
write_report(
    ReportInputs(config=snakemake.params.config, **named),
    snakemake.output.page,
    figures=Path(snakemake.output.patients).parent,
)
write_claim_figures(
    **{name: snakemake.input[name] for name in ("claims", "patients", "verdict", "sensitivity", "controls")},
    folder=snakemake.output.claim_figures,
)
