"""The figures of the claims as vector files, for a paper or a talk: one folder, the same bytes every time.

Layout of the folder, for every claim that was evaluated::

    <claim_id>.svg  <claim_id>.pdf                                  patients, estimate, random gene sets, parts
    <claim_id>_specifications.svg  <claim_id>_specifications.pdf    specification curve, where the claim has one
    controls.svg  controls.pdf                                      all controls of all claims
    captions.tsv                                                    file (without suffix), claim_id, kind, caption

Text in the SVG and PDF files is text, not outlines: it can be searched and edited.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dtcflow.contracts import ContractError, Problem, read_table, write_bytes, write_table
from dtcflow.plot import style
from dtcflow.report.claim_views import claim_views
from dtcflow.report.sections_claims import caption, draw, draw_specifications, specification_caption, specifications_of
from dtcflow.report.sections_controls import CONTROLS_CAPTION, draw_controls

log = logging.getLogger(__name__)

SPECIFICATIONS: Final = "_specifications"
CONTROLS: Final = "controls"
CAPTIONS: Final = "captions.tsv"
CAPTION_COLUMNS: Final = ("file", "claim_id", "kind", "caption")
_SAFE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,15}")
"""Ids of claims as the schema of the plan allows them."""


def write_claim_figures(
    *,
    claims: str | Path,
    patients: str | Path,
    verdict: str | Path,
    sensitivity: str | Path,
    controls: str | Path,
    folder: str | Path,
) -> list[str]:
    """Draw every evaluated claim into ``folder``.

    Parameters
    ----------
    claims, patients, verdict, sensitivity, controls
        Outputs of the evidence.
    folder
        Made when it does not exist. What it holds is described in this module.

    Returns
    -------
    Names of the files, in the order they were written.

    Raises
    ------
    dtcflow.contracts.ContractError
        A table is not what its contract says, or two claims would have files of one name.
    """
    folder = Path(folder)
    found: dict[str, Any] = json.loads(Path(verdict).read_text(encoding="utf-8"))
    table = read_table(claims, "claims")
    tests, alternatives = read_table(controls), read_table(sensitivity)
    views = claim_views(table, read_table(patients, "patients"), found, tests)
    _check_names([view.claim_id for view in views], claims)
    drawn: list[tuple[str, str, str, str, Figure]] = []
    for view in views:
        drawn.append((view.claim_id, view.claim_id, "claim", caption(view), draw(view)))
        rows = specifications_of(alternatives, view.claim_id)
        known = rows[np.isfinite(pd.to_numeric(rows["estimate"], errors="coerce"))] if len(rows) else rows
        if len(known):
            figure, agree = draw_specifications(view, known)
            words = specification_caption(view, rows, known, agree)
            drawn.append((f"{view.claim_id}{SPECIFICATIONS}", view.claim_id, "specifications", words, figure))
    drawn.append((CONTROLS, "", "controls", CONTROLS_CAPTION, draw_controls(tests, table)))
    files = []
    for name, *_, figure in drawn:
        write_bytes(folder / f"{name}.svg", style.svg_file(figure).encode())
        write_bytes(folder / f"{name}.pdf", style.pdf_bytes(figure))
        files += [f"{name}.svg", f"{name}.pdf"]
    write_table(pd.DataFrame([line[:4] for line in drawn], columns=list(CAPTION_COLUMNS)), folder / CAPTIONS)
    log.info("%s: %d figures of %d claims", folder, len(drawn), len(views))
    return [*files, CAPTIONS]


def _check_names(names: list[str], source: str | Path) -> None:
    """Every claim must give files of its own, on any file system."""
    taken = {CONTROLS}
    problems = []
    for name in names:
        if not _SAFE.fullmatch(name) or taken & {name.lower(), f"{name}{SPECIFICATIONS}".lower()}:
            problems.append(
                Problem(
                    str(source),
                    repr(name),
                    "a letter, then letters, digits and _; no name twice, not 'controls'",
                    "rename the claim in the analysis plan",
                    key="claim_id",
                )
            )
        taken |= {name.lower(), f"{name}{SPECIFICATIONS}".lower()}
    if problems:
        raise ContractError("The figures of the claims cannot be written: an id does not name a file.", problems)
