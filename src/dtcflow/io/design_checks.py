"""What the sample sheet leaves open and a claim would take for known."""

from __future__ import annotations

import pandas as pd

from dtcflow.io.sheet import GIVEN


def warn_of_design(samples: pd.DataFrame) -> list[str]:
    """Return what a default of the sheet hides from the claims.

    Parameters
    ----------
    samples
        From :func:`dtcflow.io.sheet.read_samples`.

    Returns
    -------
    Sentences: no word of which samples were processed together, although compartments are compared; and marrow of
    which nothing says whether it was enriched.
    """
    given = set(samples.attrs.get(GIVEN, ()))
    marrow = samples[samples["compartment"] == "marrow"]
    found = []
    if samples["compartment"].nunique() > 1 and not given & {"batch", "study"}:
        found.append(
            "the sample sheet has neither batch nor study: all samples count as prepared and sequenced together, so "
            "that no claim can be told CONFOUNDED. Say in the column batch which samples were"
        )
    if len(marrow) and "enrichment" not in given and marrow["nucleated_cells_screened"].isna().any():
        found.append(
            "the sample sheet does not say whether marrow was enriched: it counts as unenriched, and the rate of "
            "tumour cells (C1) is taken among the cells of the matrix. Say depletion or selection in the column "
            "enrichment, or give nucleated_cells_screened"
        )
    return found
