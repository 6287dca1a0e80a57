"""How the call of one cell came about, in plain words, from the tables of a finished run."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dtcflow.contracts import InputError, Problem, read_json, read_table

_WIDTH = 110

CLASS_WORDS: Mapping[str, str] = {
    "malignant_confirmed": "a tumour cell: its markers and its genome agree",
    "malignant_doublet": "a droplet with a tumour cell and another cell",
    "aneuploid_only": "undecided: its genome is unlike that of normal cells, but nothing says carcinoma",
    "epithelial_cnv_neutral": "undecided: it looks epithelial and no change of copy number was seen in it",
    "possible_tumour_doublet": "undecided: markers of a resident cell and the genome of the tumour, perhaps two cells",
    "unassessable": "undecided: copy number could not be assessed",
    "normal": "a normal cell",
}
STATUS_WORDS: Mapping[str, str] = {
    "no_reference": "the patient has no normal cells to compare with",
    "small_reference": "the patient has too few normal cells to compare with",
    "too_few_genes": "too few genes have a position and are expressed (a panel?)",
    "too_shallow": "the cells have too few counts to see even a clone of many altered arms",
}
REMARKS: Mapping[str, str] = {
    "doublet_flag": "It is flagged as a doublet.",
    "epithelial_transcripts_in_normal_lineage": "Its epithelial transcripts are few enough to be ambient RNA.",
    "reference_cell_scored_held_out": "It is a reference cell; it was scored by models that it had no part in.",
    "left_reference": "It was taken out of the reference because it shares a genome with others of its type.",
    "clone_on_one_chromosome": "The clone is altered on one chromosome only, as in benign mosaicism",
    "clone_without_epithelial_cells": "Hardly any cell of the clone is epithelial and nothing else",
    "arms_not_constant_along_their_length": "What the cells of this label share is not constant along the arms: "
    "the expression of a cell type, not a genome",
}


def explain_cell(results: str | Path, cell_id: str) -> str:
    """Explain the call of one cell.

    Parameters
    ----------
    results
        Results folder of a finished run.
    cell_id
        ``{sample_id}:{barcode}``.

    Returns
    -------
    str
        Paragraphs on the class, on lineage, burden and clone, on the altered arms and on the thresholds.

    Raises
    ------
    InputError
        When the folder holds no finished run, or no such cell.
    """
    results = Path(results)
    path = results / "cells.tsv.gz"
    if not path.is_file():
        raise InputError(
            f"{results} holds no finished run",
            [Problem(str(path), "no such file", "the results of a finished run", "run the workflow first")],
        )
    cells = read_table(path, "cells")
    found = cells[(cells["cell_id"] == cell_id).to_numpy(dtype=bool)]
    if not len(found):
        close = difflib.get_close_matches(cell_id, cells["cell_id"].tolist()[:200_000], n=3)
        raise InputError(
            f"no cell {cell_id}",
            [
                Problem(
                    str(path),
                    f"no cell {cell_id}",
                    "a cell_id of this table: sample_id:barcode",
                    f"did you mean {', '.join(close)}?" if close else "look the cell up in the table",
                    key="cell_id",
                )
            ],
        )
    cell = {str(name): value for name, value in found.iloc[0].items()}
    if not cell["pass_qc"]:
        return _text([_headline(cell), ["It was removed by quality control and not assessed:", cell["qc_reasons"]]])
    patient = str(cell["patient_id"])
    evidence = _evidence(results / "cnv" / "patients" / f"{patient}.cells.tsv.gz", cell_id)
    status_path = results / "cnv" / "patients" / f"{patient}.json"
    status = read_json(status_path) if status_path.is_file() else {}
    reasons = parse_reasons(str(cell["call_reasons"]))
    return _text(
        [
            _headline(cell),
            ["Lineage (markers)", *_lineage(cell, evidence)],
            ["Copy-number burden (unlike normal cells?)", *_burden(cell, evidence, reasons)],
            ["Clone (like the other tumour cells of this patient?)", *_clone(evidence, status, reasons)],
            ["Decision", *_decision(cell, status, reasons)],
        ]
    )


def parse_reasons(text: str) -> dict[str, str]:
    """``call_reasons`` as a mapping from the name of a field to its value (the class under ``class``)."""
    parts = [part for part in text.split(";") if part]
    fields = {"class": parts[0]} if parts else {}
    for part in parts[1:]:
        cut = min((part.index(mark) for mark in ":=" if mark in part), default=len(part))
        fields[part[:cut]] = part[cut + 1 :]
    return fields


def _text(blocks: list[list[str]]) -> str:
    shown = []
    for head, *lines in blocks:
        wrapped = [
            textwrap.fill(
                line,
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            for line in lines
            if line
        ]
        shown.append("\n".join([head, *wrapped]))
    return "\n\n".join(shown)


def _headline(cell: Mapping[str, Any]) -> list[str]:
    klass = str(cell.get("malignant_class") or "")
    words = CLASS_WORDS.get(klass, "")
    return [
        f"{cell['cell_id']}: {cell['malignant_call']}" + (f" ({klass})" if klass else ""),
        f"{words[:1].upper()}{words[1:]}." if words else "",
        f"Patient {cell['patient_id']}, {cell['compartment']}, {_number(cell['n_counts'])} counts.",
    ]


def _evidence(path: Path, cell_id: str) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    table = read_table(path, "cnv_cells")
    found = table[(table["cell_id"] == cell_id).to_numpy(dtype=bool)]
    return {str(name): value for name, value in found.iloc[0].items()} if len(found) else {}


def _number(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return "not known" if math.isnan(number) else f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"


def _lineage(cell: Mapping[str, Any], evidence: Mapping[str, Any]) -> list[str]:
    kind = cell["cell_type"] or "unknown"
    z = _number(cell["epithelial_z"])
    candidate = evidence.get("is_candidate")
    return [
        f"Annotated as {kind}; calibrated epithelial score z = {z}.",
        "It has enough epithelial evidence to be a candidate."
        if candidate
        else "It is not a candidate by its markers.",
    ]


def _burden(cell: Mapping[str, Any], evidence: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    status = str(evidence.get("cnv_status", "ok"))
    if status != "ok":
        return [f"Not assessable ({status}): {STATUS_WORDS.get(status, 'see the status of the patient')}."]
    p = evidence.get("cnv_burden_p", float("nan"))
    q = f"q = {_number(cell['cnv_burden_q'])}"
    arms = reasons.get("arms", "")
    return [
        f"p = {_number(p)} against held-out normal cells, {q}.",
        f"Altered arms of its own (|z| >= 3, both halves of the genes): {arms.replace(',', ', ')}."
        if arms
        else "No arm of its own stands out in both halves of the genes.",
        f"Arms it shares with more cells of its type than chance explains (possible benign mosaic): "
        f"{reasons['possible_mosaic'].replace(',', ', ')}."
        if "possible_mosaic" in reasons
        else "",
    ]


def _clone(evidence: Mapping[str, Any], status: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    if "clone_p" not in reasons:
        why = status.get("clone_status", "")
        return ["No clone was found in this patient" + (f" ({why})." if why else "."), *_detectable(status)]
    llr, fraction = (_number(evidence.get(name, float("nan"))) for name in ("clone_llr", "clone_fraction"))
    error = _number(evidence.get("clone_fraction_se", float("nan")))
    p = _number(evidence.get("clone_llr_p", float("nan")))
    return [
        f"The clone was learned from other cells and has {status.get('n_profile_arms', '?')} altered arms. This cell: "
        f"log-likelihood ratio {llr}, p = {p}, share of the clone's profile {fraction} (standard error {error}; about "
        "1 in a tumour cell, 0.5 in a doublet with a normal cell, 0 in a normal cell).",
        _refusal(reasons["clone_refused"]) if "clone_refused" in reasons else "",
    ]


def _refusal(text: str) -> str:
    name, _, detail = text.partition("(")
    return f"The clone was not accepted. {REMARKS.get(name, name)} ({detail.rstrip(')').replace('_', ' ')})."


def _detectable(status: Mapping[str, Any]) -> list[str]:
    smallest = status.get("smallest_detectable")
    if not smallest:
        return []
    parts = []
    for name, arms in smallest.items():
        n = str(name).removeprefix("arms_at_").removesuffix("_cells")
        parts.append(f"{arms:.0f} arms in {n} cells")
    return [f"At this depth a clone needs about: {', '.join(parts)}."]


def _decision(cell: Mapping[str, Any], status: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    q = cell["malignancy_q"]
    lines = [f"q = {_number(q)} among the cells it is compared with." if not pd.isna(q) else "No q-value."]
    for name, words in (("passed", "Thresholds reached"), ("missed", "Thresholds missed")):
        if name in reasons:
            lines.append(f"{words}: {reasons[name].replace(',', ', ')}.")
    lines += [text for name, text in REMARKS.items() if name in reasons]
    if status.get("status", "ok") != "ok":
        lines.append(f"Status of the patient: {status['status']}. {status.get('reason', '')}".strip())
    lines.append(f"All reasons: {cell['call_reasons']}")
    return lines
