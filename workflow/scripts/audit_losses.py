"""List every cell with tumour evidence that was removed or left undecided."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

import pandas as pd

from dtcflow.contracts import read_table, write_table
from dtcflow.qc.loss_audit import audit_losses

audit = audit_losses(
    pd.concat([read_table(path, "qc_cells") for path in snakemake.input.qc], ignore_index=True),
    read_table(snakemake.input.calls, "calls"),
    epithelial_z=snakemake.params.epithelial_z,
    fdr=snakemake.params.fdr,
)
write_table(audit, snakemake.output.audit, "loss_audit")
