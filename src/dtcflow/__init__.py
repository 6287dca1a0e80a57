"""dtcflow: are some disseminated tumour cells self-renewing progenitors?

A typed package for the analysis of single-cell RNA counts of bone marrow, primary tumour, blood and metastases,
and the Snakemake workflow that runs it. The package is usable without Snakemake.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dtcflow")
except PackageNotFoundError:  # running from a checkout that was never installed
    __version__ = "0+unknown"
