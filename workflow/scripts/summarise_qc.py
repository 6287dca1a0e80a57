"""What quality control did to every sample: two tables and a figure."""

from dtcflow.logs import setup

setup(snakemake.log[0], threads=snakemake.threads)

import pandas as pd

from dtcflow.contracts import read_json, read_table, write_table, write_text
from dtcflow.plot import qc as plot
from dtcflow.plot.style import svg_file
from dtcflow.qc.waterfall import fates, summary_table, waterfall_table

cells = [read_table(path, "qc_cells") for path in snakemake.input.cells]
summary = summary_table([read_json(path) for path in snakemake.input.summaries])
lost = summary.set_index("sample_id")["n_epithelial_evidence_removed"]
write_table(waterfall_table(cells), snakemake.output.waterfall, "qc_waterfall")
write_table(summary, snakemake.output.summary, "qc_summary")
shares = plot.waterfall_table(fates(pd.concat(cells, ignore_index=True)))
write_text(snakemake.output.figure, svg_file(plot.waterfall(shares, lost)))
