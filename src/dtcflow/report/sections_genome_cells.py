"""Copy number: every cell's clone statistic beside what chance makes of it, and the kinds of evidence apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from dtcflow.plot import copy_number_cells as plot
from dtcflow.report.assets import Assets, read_clone_nulls
from dtcflow.report.page import (
    NONE,
    Block,
    Bullets,
    Column,
    Details,
    Heading,
    Paragraph,
    Table,
    count,
    num,
    number,
    percent,
    plural,
    text,
    words,
)
from dtcflow.report.pictures import Pictures

OPEN_PATIENTS: Final = 1
"""Patients whose cells are open at once; the others unfold."""
MAX_EMPTY: Final = 20
"""Samples without a malignant cell that are listed."""
SURE: Final = 0.95
"""Probability of seeing at least one tumour cell that the smallest number of cells refers to."""

_SCORES: Final = {"clone_t": "clone statistic T", "clone_llr": "log-likelihood ratio of the clone (ln)"}
_NULL_COLUMN: Final = {"clone_t": "t", "clone_llr": "llr"}


@dataclass(frozen=True)
class PatientCells:
    """Cells of one patient with their evidence, and the statistic that is drawn of them."""

    patient_id: str
    cells: pd.DataFrame
    score: str
    """Column of the clone statistic: ``clone_t``, or ``clone_llr`` of a stage that has no ``clone_t``."""
    nulls: Mapping[str, Any]
    sizes: Mapping[str, int]
    """Decoys in all, by kind, where ``nulls`` holds those that explain a cell better than the learned profile."""
    null_note: str
    """Why there are no nulls; empty when there are."""

    @property
    def scored(self) -> bool:
        """Whether any cell has a clone statistic."""
        return bool(np.isfinite(_floats(self.cells[self.score])).any())

    @property
    def n_candidates(self) -> int:
        """Tumour candidates with a clone statistic: the cells that decoys compete for."""
        scored = np.isfinite(_floats(self.cells[self.score]))
        return int((scored & self.candidate).sum())

    @property
    def candidate(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which cells are tumour candidates; none where the table does not say."""
        return _true(self.cells["is_candidate"]) if "is_candidate" in self.cells else np.zeros(len(self.cells), bool)

    @property
    def threshold(self) -> float | None:
        """Lowest statistic of a cell that was called malignant."""
        called = _floats(self.cells.loc[self.cells["malignant_call"] == "malignant", self.score])
        called = called[np.isfinite(called)]
        return float(called.min()) if len(called) else None

    def distribution(self) -> plot.ScoreDistribution:
        """What :func:`dtcflow.plot.copy_number_cells.score_histogram` draws."""
        call = self.cells["malignant_call"].replace("", "indeterminate").astype(str).to_numpy(dtype=object)
        dtc = self.cells["is_dtc"].to_numpy(dtype=bool)
        if self.scored:
            return plot.ScoreDistribution(
                *(self.patient_id, _floats(self.cells[self.score]), call, dtc, self.nulls, self.threshold),
                label=_SCORES[self.score],
                stands_for={kind: self.n_candidates for kind in self.nulls if kind.startswith("decoy")},
                sizes=self.sizes,
            )
        p = _floats(self.cells["cnv_burden_p"])
        log_p = np.where(p > 0, -np.log10(np.maximum(p, 1e-300)), np.where(p == 0, 300.0, np.nan))
        log_p = np.minimum(log_p, plot.MAX_LOG_P)
        n = max(int(np.isfinite(log_p).sum()), 1)
        uniform = -np.log10((np.arange(n) + 0.5) / n)
        return plot.ScoreDistribution(
            *(self.patient_id, log_p, call, dtc),
            label="copy-number burden, −log10 p",
            expected={"uniform": uniform},
        )


def _floats(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)


def patient_cells(assets: Assets) -> list[PatientCells]:
    """Cells with copy-number evidence by patient, in order of their names."""
    if assets.cnv_cells is None:
        return []
    wanted = ["cell_id", "sample_id", "patient_id", "epithelial_z", "malignant_call", "malignant_class", "is_dtc"]
    cells = assets.cells.assign(malignant_class=_classes(assets.cells))[wanted]
    new = [name for name in assets.cnv_cells.columns if name not in wanted[1:]]
    both = cells.merge(assets.cnv_cells[new], on="cell_id", how="inner", validate="one_to_one")
    found = []
    for patient, rows in both.groupby("patient_id", sort=True):
        has_t = "clone_t" in rows and bool(np.isfinite(_floats(rows["clone_t"])).any())
        score = "clone_t" if has_t else "clone_llr"
        path = assets.cnv_windows.get(str(patient))
        table = None if path is None else read_clone_nulls(path)
        nulls, sizes, note = {}, {}, ""
        if table is None:
            note = "the results of this patient hold no null and decoy statistics"
        else:
            values = {str(kind): _floats(own[_NULL_COLUMN[score]]) for kind, own in table.groupby("kind", sort=False)}
            order = [*plot.NULL_NAMES, *sorted(set(values) - set(plot.NULL_NAMES))]
            nulls = {kind: values[kind] for kind in order if kind in values and np.isfinite(values[kind]).any()}
            if "beats_target" in table:
                for kind in [kind for kind in nulls if kind.startswith("decoy")]:
                    sizes[kind] = int(np.isfinite(nulls[kind]).sum())
                    nulls[kind] = nulls[kind][_true(table.loc[table["kind"] == kind, "beats_target"])]
            note = "" if nulls else "no null or decoy cell was scored"
        found.append(PatientCells(str(patient), rows.reset_index(drop=True), score, nulls, sizes, note))
    return found


def _classes(cells: pd.DataFrame) -> pd.Series[str]:
    """Class of every cell; a table without the column names it first among the reasons."""
    if "malignant_class" in cells:
        return cells["malignant_class"].fillna("").astype(str)
    first = cells["call_reasons"].fillna("").astype(str).str.split(";").str[0]
    plain = {"malignant": "malignant_confirmed", "normal": "normal"}
    rest = cells["malignant_call"].astype(str).map(plain).fillna("unassessable")
    return first.where(first.isin(list(plot.CLASS_NAMES)), rest)


# ---------------------------------------------------------------------------------------------------------------------


def cell_blocks(assets: Assets, pictures: Pictures, *, full: int) -> list[Block]:
    """Histograms, evidence panels and what would have been seen; ``full`` patients are drawn large."""
    blocks: list[Block] = [Heading("Cells against chance")]
    patients = patient_cells(assets)
    if not patients:
        return [*blocks, Paragraph("The copy-number evidence of single cells is not part of this run.", "missing")]
    assessed = [own for own in patients if (own.cells["cnv_status"].astype(str) == "ok").any()]
    if silent := [own.patient_id for own in patients if own not in assessed]:
        blocks.append(
            Paragraph(
                f"Copy number not assessable, so no cell has a statistic: {', '.join(text(p, 40) for p in silent)}. "
                "Nothing can be said about tumour cells there, in either direction.",
                "missing",
            )
        )
    for i, own in enumerate(assessed[:full]):
        parts = _patient(assets, own, pictures, prefix=f"cells-{i}")
        blocks += parts if i < OPEN_PATIENTS else [Details(f"Cells of patient {text(own.patient_id, 40)}", parts)]
    blocks += _condensed(assessed[full:], pictures)
    blocks += _detectable(assets, assessed)
    return blocks


def _patient(assets: Assets, own: PatientCells, pictures: Pictures, *, prefix: str) -> list[Block]:
    name = text(own.patient_id, 60)
    panel = own.distribution()
    blocks: list[Block] = [
        pictures.inline(
            plot.score_histogram(panel),
            prefix=f"{prefix}-histogram",
            alt=f"Histogram of the {panel.label} of {panel.n_scored} cells of patient {name}, with nulls over it.",
            caption=_histogram_caption(own, panel),
        )
    ]
    if own.scored and own.null_note:
        blocks.append(
            Paragraph(
                f"Patient {name}: {own.null_note}, so the histogram shows the cells alone; p-values were computed "
                "against held-out reference cells all the same.",
                "missing",
            )
        )
    if not own.scored:
        blocks.append(Paragraph(_nothing_found(assets, own), "warn"))
        return blocks
    epithelial_z = (assets.config.get("annotation") or {}).get("epithelial_z")
    figure = plot.evidence(
        *(own.cells,),
        score=own.score,
        label=_SCORES[own.score],
        threshold=own.threshold,
        epithelial_z=float(epithelial_z) if isinstance(epithelial_z, int | float) else None,
    )
    blocks.append(
        pictures.inline(
            figure,
            prefix=f"{prefix}-evidence",
            alt=f"Copy-number burden and epithelial score of {panel.n_scored} cells of patient {name} against their "
            "clone statistic.",
            caption=_evidence_caption(own, panel, epithelial_z),
        )
    )
    return blocks


def _histogram_caption(own: PatientCells, panel: plot.ScoreDistribution) -> str:
    name = text(own.patient_id, 60)
    n_malignant = int((panel.call == "malignant").sum())
    if not own.scored:
        return (
            f"Patient {name}: no clone profile was learned, so cells are shown by their copy-number burden alone "
            f"(n = {panel.n_scored:,}; {n_malignant:,} malignant). Line: what uniform p-values would give. How to read "
            "it: a tumour would lift the right end of the bars above the line; bars that follow it are a genome like "
            "the reference's."
        )
    sentences = [
        f"Patient {name}: {panel.label} of {plural(panel.n_scored, 'cell')} (log count axis), {n_malignant:,} "
        f"malignant, {int(panel.is_dtc.sum()):,} DTCs. A cell is scored by a profile learned without it."
    ]
    if panel.nulls:
        lines = []
        for kind in panel.nulls:
            out, n = panel.beyond(kind)
            wins = f", {len(panel.nulls[kind]):,} win" if kind in panel.sizes else ""
            share = "" if panel.threshold is None else f", {out:,} beyond ({percent(out, n, 2)})"
            lines.append(f"{plot.NULL_NAMES.get(kind, text(kind, 40))}, n = {n:,}{wins}{share}")
        decoys = (
            f" Decoys are the {plural(own.n_candidates, 'tumour candidate')} scored with spoilt profiles and drawn for "
            "that number of cells; they count against a call only where they explain a cell better than the learned "
            f"profile does (there they win){', and only those are drawn and counted as beyond' if panel.sizes else ''}."
            if panel.stands_for
            else ""
        )
        sentences.append(
            "Lines, scaled to the number of scored cells, so that they say how many cells per bin would lie there if "
            f"all were of that kind: {'; '.join(lines)}.{decoys}"
        )
    if panel.threshold is not None:
        above = panel.score >= panel.threshold
        others = int((above & (panel.call != "malignant")).sum())
        sentences.append(
            f"Vertical line: the lowest called cell ({number(panel.threshold, 1)}). It is no sharp cut: the q-value is "
            "taken within groups of cells, and a call also asks for lineage and for at least a third of the profile; "
            f"{plural(others, 'cell')} at or beyond it {'was' if others == 1 else 'were'} not called malignant."
        )
    else:
        sentences.append("No cell was called malignant, so there is no line of the lowest called cell.")
    sentences.append(
        "How to read it: tumour cells form a hill of their own to the right of every line; where the hill and the line "
        "of the held-out reference with its type left out overlap, single cells cannot be told from an unmatched "
        "normal type."
    )
    return " ".join(sentences)


def _evidence_caption(own: PatientCells, panel: plot.ScoreDistribution, epithelial_z: Any) -> str:
    scored = own.cells[np.isfinite(_floats(own.cells[own.score]))]
    classes = scored["malignant_class"].value_counts()
    shown = "; ".join(
        f"{plot.CLASS_NAMES.get(name, text(name, 30))} {int(classes[name]):,}"
        for name in [*plot.CLASS_NAMES, *sorted(set(classes.index) - set(plot.CLASS_NAMES))]
        if name in classes
    )
    edge = int((_floats(scored["cnv_burden_p"]) < 10.0**-plot.MAX_LOG_P).sum())
    line = f", dashed: z of {number(epithelial_z, 1)}, from which a cell is a candidate" if epithelial_z else ""
    return (
        f"Patient {text(own.patient_id, 60)}: {panel.n_scored:,} cells ({shown}). Left: burden (is this genome unlike "
        "the reference's anywhere?) against the clone statistic (is it like the profile learned from other cells?). "
        "Right: the epithelial score, which sees no copy number, against the same statistic. Solid line: the lowest "
        f"called cell{line}. "
        + (f"{plural(edge, 'cell')} with a burden p below 1e-{plot.MAX_LOG_P:.0f} at the upper edge. " if edge else "")
        + "How to read it: malignant cells lie in the upper right of the right panel. Epithelial cells at the left are "
        "near-diploid or not tumour, cells at the lower right have the genome without the lineage (aneuploid only); "
        "both stay apart and neither is called malignant. A cell high in burden but not along the clone has another "
        "genome, or is of a type that the reference lacks."
    )


def _condensed(rest: list[PatientCells], pictures: Pictures) -> list[Block]:
    if not rest:
        return []
    panels = [own.distribution() for own in rest]
    blocks: list[Block] = []
    for scored, what in ((True, "clone statistic"), (False, "copy-number burden")):
        for score in _SCORES if scored else ("",):
            group = [
                panel
                for own, panel in zip(rest, panels, strict=True)
                if own.scored is scored and (not scored or own.score == score)
            ]
            if not group:
                continue
            figure = pictures.inline(
                plot.score_histograms(group),
                prefix=f"cells-small-{score.replace('_', '-') or 'burden'}",
                alt=f"Small histograms of the {what} of {len(group)} patients.",
                caption=(
                    f"{group[0].label[:1].upper()}{group[0].label[1:]} of the other "
                    f"{plural(len(group), 'patient')} ({sum(panel.n_scored for panel in group):,} cells; malignant of "
                    "scored cells above each panel), lines and marks as above; axes differ between panels. How to read "
                    "it: malignant cells should stand to the right of every line."
                ),
            )
            blocks.append(Details(f"The other {plural(len(group), 'patient')}, {what}", [figure]))
    return blocks


# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoneCell:
    """Whether a single tumour cell of a sample would have been called."""

    needed: float | None
    """Statistic a lone tumour cell needs; None when not known."""
    expected: float
    """Median expected statistic of a cell that carries the whole profile at the depth of this sample's cells."""
    power: float
    """Probability that such a cell is called."""

    @property
    def cells_for_one(self) -> float:
        """Tumour cells from which at least one is called with probability :data:`SURE`."""
        if not self.power > 0:
            return float("inf")
        return float(np.ceil(np.log(1 - SURE) / np.log1p(-min(self.power, 1 - 1e-9)))) if self.power < SURE else 1.0


def lone_cell(own: PatientCells, sample: str, *, fdr: float) -> LoneCell | None:
    """Power to call one tumour cell of a sample, from the depth of the sample's own cells.

    A cell with the whole profile is expected at :math:`T = 1 / se` with ``se`` the standard error of its share of the
    profile, and spreads around it with SD 1. Among ``n`` candidates of its sample that are not tumour, it is called
    (Benjamini-Hochberg) when its p-value is at most ``fdr / (n + 1)``; which ``T`` that takes is read from the cells of
    this patient that have both numbers. None without a clone statistic ``T``.
    """
    cells = own.cells
    if own.score != "clone_t" or not {"clone_fraction_se", "is_candidate"} <= set(cells.columns):
        return None
    mine = (cells["sample_id"].astype(str) == sample).to_numpy()
    error = _floats(cells["clone_fraction_se"])
    usable = mine & np.isfinite(error) & (error > 0)
    if not usable.any():
        return None
    candidate = own.candidate
    rivals = int((mine & candidate & (cells["malignant_call"] != "malignant").to_numpy()).sum())
    t, p = _floats(cells["clone_t"]), _floats(cells["clone_llr_p"])
    enough = candidate & np.isfinite(t) & (p <= fdr / (rivals + 1))
    expected = 1.0 / error[usable]
    if not enough.any():
        return LoneCell(None, float(np.median(expected)), float("nan"))
    needed = float(t[enough].min())
    return LoneCell(needed, float(np.median(expected)), float(stats.norm.sf(needed - expected).mean()))


def _true(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(values.astype(str).str.lower().isin(["true", "1", "1.0"]), dtype=bool)


def _detectable(assets: Assets, patients: list[PatientCells]) -> list[Block]:
    """Per sample: what was found, and what would have been; samples without a malignant cell are named first."""
    fdr = float((assets.config.get("copy_number") or {}).get("fdr", 0.05))
    rows, empty = [], []
    for own in patients:
        arms = arms_needed(assets.cnv_statuses.get(own.patient_id, {}).get("smallest_detectable"))
        for name, cells in own.cells.groupby("sample_id", sort=True):
            sample = str(name)
            lone = lone_cell(own, sample, fdr=fdr)
            assessed = int((cells["cnv_status"].astype(str) == "ok").sum())
            malignant = int((cells["malignant_call"] == "malignant").sum())
            if not malignant:
                empty.append(f"{text(sample, 60)}: none of {plural(assessed, 'assessed cell')}; {_seen(lone, arms)}.")
            rows.append(
                [
                    words(sample, tone="strong"),
                    words(own.patient_id),
                    num(count(assessed)),
                    num(count(malignant), tone="" if malignant else "muted"),
                    num(NONE if lone is None else number(lone.expected, 1)),
                    num(NONE if lone is None or lone.needed is None else number(lone.needed, 1)),
                    num(NONE if lone is None or lone.needed is None else percent(lone.power, 1.0, 0)),
                    num(_smallest(lone)),
                    words(arms),
                ]
            )
    table = Table(
        f"What would have been seen (n = {plural(len(rows), 'sample')}): with a clone known, a single tumour cell; "
        "without one, a new clone.",
        [
            Column("Sample"),
            Column("Patient"),
            Column("Cells assessed", True),
            Column("Malignant", True),
            Column("Expected T", True, "median over the sample's cells: of a cell that carries the whole profile"),
            Column("T needed", True, "by a lone tumour cell among this sample's other candidates"),
            Column("Power per cell", True, "chance that such a cell is called"),
            Column("Smallest number of cells", True, f"from which one is called with probability {SURE:g}"),
            Column("New clone", hint="altered arms (one copy) that a clone of so many cells must have to be learned"),
        ],
        rows,
        note=(
            "Expected T assumes a cell as deep as the others of its sample, without ambient RNA, that carries every "
            "arm of the learned profile; a subclone that lacks some is seen less often. Power counts the p-value of "
            "copy number only: competition with decoys can ask for more, and a cell removed before, or without "
            "epithelial transcripts, is not called at any T."
        ),
        empty="No sample was assessed.",
    )
    blocks: list[Block] = []
    if empty:
        more = [f"{len(empty) - MAX_EMPTY:,} further samples: see the table."] if len(empty) > MAX_EMPTY else []
        blocks += [
            Paragraph(f"No malignant cell was called in {plural(len(empty), 'sample')}; that means:", "warn"),
            Bullets([*empty[:MAX_EMPTY], *more]),
        ]
    return [*blocks, Details(f"What would have been seen, per sample ({len(rows):,})", [table])]


def _seen(lone: LoneCell | None, arms: str | None) -> str:
    if lone is not None and lone.needed is not None:
        return (
            f"a cell with the whole profile of this patient's tumour would have been called with probability "
            f"{percent(lone.power, 1.0, 0)}, at least one of {_smallest(lone)} with {percent(SURE, 1.0, 0)}"
        )
    if arms:
        return f"a clone would have been learned from these altered arms (one copy each): {arms}"
    return "what would have been seen is not recorded"


def _smallest(lone: LoneCell | None) -> str:
    if lone is None or lone.needed is None:
        return NONE
    n = lone.cells_for_one
    return count(n) if n <= 10_000 else "> 10,000"


def arms_needed(value: Any) -> str | None:
    """``5 arms in 5 cells, 4 in 10``: altered arms a clone of so many cells needs to be seen; None when not known."""
    if not isinstance(value, Mapping):
        return None
    parts = []
    for key, n_arms in value.items():
        digits = "".join(filter(str.isdigit, str(key)))
        if digits and isinstance(n_arms, int | float) and np.isfinite(n_arms):
            parts.append((int(digits), f"{n_arms:g}"))
    shown = [f"{n_arms} in {n_cells}" for n_cells, n_arms in sorted(parts)]
    return ", ".join(shown).replace(" in ", " arms in ", 1).replace(",", " cells,", 1) if shown else None


def _nothing_found(assets: Assets, own: PatientCells) -> str:
    status = assets.cnv_statuses.get(own.patient_id, {})
    p = _floats(own.cells["cnv_burden_p"])
    tested = own.candidate & np.isfinite(p)
    needed = arms_needed(status.get("smallest_detectable"))
    n, low = int(tested.sum()), int((p[tested] <= 0.05).sum())
    return (
        f"Patient {text(own.patient_id, 60)}: no clone was found. {plural(n, 'candidate cell')} tested, {low:,} with a "
        f"burden p of at most 0.05 ({0.05 * n:.1f} expected by chance). "
        + (
            f"At this depth a clone would have been learned with these altered arms (one copy each): {needed}. Fewer "
            "cells, fewer arms or a near-diploid tumour would have been missed."
            if needed
            else "What would have been seen is not recorded."
        )
    )
