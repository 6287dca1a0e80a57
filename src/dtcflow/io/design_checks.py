"""What the sample sheet leaves open and a claim would take for known."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dtcflow.io.sheet import GIVEN


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {'sample' if len(names) == 1 else 'samples'} ({shown})"


def warn_of_design(samples: pd.DataFrame) -> list[str]:
    """Return what a default of the sheet hides from the claims.

    Parameters
    ----------
    samples
        From :func:`dtcflow.io.sheet.read_samples`.

    Returns
    -------
    Sentences: no word of which samples were processed together, although compartments are compared; marrow of which
    nothing says whether it was enriched; and an outcome without events.
    """
    given = samples.attrs.get(GIVEN, {})
    found = []
    silent = [
        name for name in samples.index.astype(str) if name not in {*given.get("batch", ()), *given.get("study", ())}
    ]
    if silent and samples["compartment"].nunique() > 1:
        found.append(
            f"no batch and no study of {_some(silent)}: they count as prepared and sequenced together, and a claim can "
            "be told CONFOUNDED only by what the sheet says. Name in the column batch what was processed together"
        )
    marrow = samples[(samples["compartment"] == "marrow") & samples["nucleated_cells_screened"].isna()]
    silent = [name for name in marrow.index.astype(str) if name not in given.get("enrichment", ())]
    if silent:
        found.append(
            f"not said whether the marrow was enriched: {_some(silent)} counts as unenriched, and the rate of tumour "
            "cells (C1) is taken among the cells of the matrix. Say none, depletion or selection in the column "
            "enrichment, or give nucleated_cells_screened"
        )
    for event in ("dfs_event", "os_event"):
        known = samples.drop_duplicates("patient_id")[event].dropna() if event in samples else samples.iloc[:0]
        if len(known) and not known.astype(float).any():
            found.append(
                f"{event} is 0 for all {len(known)} patients that have it: no claim about this outcome could be made "
                "(and this version makes none)"
            )
    return found
