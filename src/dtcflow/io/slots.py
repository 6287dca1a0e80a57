"""Which of the matrices of one file holds the counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import scipy.sparse as sp

from dtcflow.contracts import COUNTS, InputError
from dtcflow.io.files import refuse
from dtcflow.io.stored import Mask, Matrix, head
from dtcflow.io.values import USE_PLATE, Values, classify

COUNTS_LAYER = f"layers['{COUNTS}']"
_MAIN = (COUNTS_LAYER, "X", "raw.X", "matrix")
"""Where counts are looked for, in this order; other layers are named to the user, never taken by themselves."""


def in_order(slots: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Return the slots in the order in which they are tried."""
    return {words: slots[words] for words in (*_MAIN, *slots) if words in slots}


def named_slot(slots: Mapping[str, Matrix], layer: str | None, path: Path) -> str:
    """Return the slot that ``layer`` names, or the first one that is tried.

    Raises
    ------
    InputError
        When there is no such layer, or no matrix at all.
    """
    if not slots:
        raise refuse(
            path,
            "no matrix in the file",
            "cells and genes without values",
            "counts in X, a layer or raw",
            "save the counts into X",
        )
    if layer is None:
        return next(iter(slots))
    for words in (f"layers['{layer}']", layer):
        if words in slots:
            return words
    raise refuse(
        path, f"no layer {layer!r}", ", ".join(slots), "one of these", "correct intake.layer, or set it to null"
    )


def choose(
    slots: Mapping[str, Matrix], path: Path, *, layer: str | None, platform: str, rows: Mask | None
) -> tuple[sp.csr_matrix, str, list[str]]:
    """Return the first slot that holds counts, its name, and what to tell the user about the choice.

    A slot whose first cells are not counts is passed over without being read.
    """
    first = named_slot(slots, layer, path)
    if layer is not None:
        return slots[first].load(rows), first, []
    seen: list[tuple[str, Values]] = []
    held: tuple[sp.csr_matrix, str] | None = None
    for words in (words for words in slots if words in _MAIN):
        if (values := _cannot_be_counts(slots[words], platform, rows)) is not None:
            seen.append((words, values))
            continue
        matrix = slots[words].load(rows)
        values = classify(matrix)
        if values.kind in ("counts", "empty"):
            notes = [f"{other} holds {what.words}; the counts were read from {words}" for other, what in seen]
            return matrix, words, notes
        if values.kind == "estimated" and platform == "plate" and held is None:
            held = (matrix, words)
        seen.append((words, values))
    if held is not None:
        return *held, []
    others = {words: classify(head(slots[words], rows)) for words in slots if words not in _MAIN}
    raise _no_counts(path, seen, others)


def _cannot_be_counts(matrix: Matrix, platform: str, rows: Mask | None) -> Values | None:
    """What the first cells hold, when one of them already rules out that the whole holds counts."""
    if not matrix.blockwise:
        return None
    values = classify(head(matrix, rows))
    ruled_out = {"negative", "not_finite", "overflow"} | ({"log", "estimated"} if platform == "droplet" else set())
    return values if values.kind in ruled_out else None


def _no_counts(path: Path, seen: list[tuple[str, Values]], others: Mapping[str, Values]) -> InputError:
    words = "; ".join(f"{slot}: {values.words}" for slot, values in [*seen, *others.items()])
    with_counts = [slot for slot, values in others.items() if values.kind == "counts"]
    kinds = {values.kind for _, values in seen}
    if with_counts:
        name = with_counts[0].removeprefix("layers['").removesuffix("']")
        fix = f"set intake.layer: {name}"
    elif kinds == {"estimated"}:
        fix = USE_PLATE
    else:
        fix = "give the file with the raw counts (often in raw.X or a layer), or save them as layers['counts']"
    message = "no raw counts in this file" if kinds != {"estimated"} else "fractional counts on platform droplet"
    return refuse(path, message, words, "raw counts: whole numbers >= 0", fix)
