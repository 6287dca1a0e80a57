"""Copy number: arms, their log ratios, a given karyotype, and clones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from dtcflow.cnv.profile import NOT_ASSESSABLE_FROM, SINGLE_COPY_GAIN
from dtcflow.contracts import ARM_STATES
from dtcflow.plot import copy_number_arms as plot
from dtcflow.report.assets import Assets, read_given_profile
from dtcflow.report.page import (
    NONE,
    Block,
    Cell,
    Column,
    Details,
    Heading,
    Paragraph,
    Table,
    count,
    estimate,
    frame_table,
    listed_texts,
    num,
    number,
    p_value,
    plural,
    short,
    text,
    words,
)
from dtcflow.report.pictures import Pictures

MAX_ARM_ROWS: Final = 150
OPEN_LOLLIPOPS: Final = 1
"""Patients whose log ratios are open at once; the others unfold."""


def arm_blocks(assets: Assets, pictures: Pictures, *, full: int) -> list[Block]:
    """Grid of arm states, log ratios of ``full`` patients with their intervals, and the tables."""
    blocks: list[Block] = [Heading("Chromosome arms")]
    arms = assets.arms
    if arms is None:
        return [*blocks, Paragraph("The arm table is not part of this run.", "missing")]
    if not len(arms):
        return [
            *blocks,
            Paragraph("No arm was tested: no malignant cell was called or copy number was not assessable.", "missing"),
        ]
    states = arms["state"].astype(str).value_counts()
    summary = "; ".join(f"{state.replace('_', ' ')} {int(states.get(state, 0)):,}" for state in ARM_STATES)
    groups = arms[["sample_id", "clone_id"]].fillna("").drop_duplicates()
    cut = f", the first {plot.MAX_GROUPS} drawn" if len(groups) > plot.MAX_GROUPS else ""
    blocks.append(
        pictures.inline(
            plot.arm_grid(arms),
            prefix="arms",
            alt=f"Grid of chromosome-arm states of {len(groups)} groups of cells: {summary}.",
            caption=(
                f"State of every chromosome arm in {plural(len(groups), 'sample-and-clone group')}{cut} ({summary}); "
                "the number behind a group is its cells. How to read it: compare a clone's marrow row with its "
                "primary row; an empty grey tile is tested and neutral, a dot is not assessable with these cells."
            ),
        )
    )
    blocks += _lollipops(assets, arms, pictures, full=full)
    altered = arms[arms["state"].isin(["gain", "loss"])].copy()
    altered["_order"] = [plot.arm_order(arm) for arm in altered["arm"].astype(str)]
    altered = altered.sort_values(["patient_id", "sample_id", "clone_id", "_order"], kind="stable")
    table = _arm_table(
        altered,
        f"Altered arms (n = {len(altered):,}"
        + (f", first {MAX_ARM_ROWS} shown)." if len(altered) > MAX_ARM_ROWS else ").")
        + " Log ratio against the reference with 95 % CI; q by Benjamini-Hochberg.",
        note=f"Whole table: {assets.names.get('arms', 'arms.tsv')}.",
        empty="No arm is called gained or lost.",
    )
    blocks.append(Details(f"Altered arms with confidence intervals ({len(altered):,})", [table]))
    others = arms[~arms["state"].isin(["gain", "loss"])].copy()
    others["_order"] = [plot.arm_order(arm) for arm in others["arm"].astype(str)]
    others = others.sort_values(["state", "patient_id", "sample_id", "clone_id", "_order"], kind="stable")
    if len(others):
        table = _arm_table(
            others,
            f"Arms that are neutral or not assessable (n = {len(others):,}"
            + (f", first {MAX_ARM_ROWS} shown)." if len(others) > MAX_ARM_ROWS else ").")
            + " For these the smallest detectable log ratio says what could have been missed.",
            note=f"Whole table: {assets.names.get('arms', 'arms.tsv')}.",
            empty="",
        )
        blocks.append(Details(f"Neutral and not assessable arms ({len(others):,})", [table]))
    return blocks


def least_log_ratio(assets: Assets) -> float | None:
    """Least absolute log ratio of a called arm, from the configuration."""
    value = (assets.config.get("copy_number") or {}).get("min_abs_log_ratio")
    return float(value) if isinstance(value, int | float) else None


def _lollipops(assets: Assets, arms: pd.DataFrame, pictures: Pictures, *, full: int) -> list[Block]:
    """Log ratios of the patients with clones; who is not drawn is named."""
    effect = least_log_ratio(assets)
    of_patient = {str(name): rows for name, rows in arms.groupby("patient_id", sort=True)}
    with_clone = [name for name, rows in of_patient.items() if plot.panel_keys(rows)]
    blocks: list[Block] = []
    for i, patient in enumerate(with_clone[:full]):
        rows = of_patient[patient]
        figure = pictures.inline(
            plot.lollipops(rows, min_abs_log_ratio=effect, one_copy=(SINGLE_COPY_GAIN, -NOT_ASSESSABLE_FROM)),
            prefix=f"lollipop-{i}",
            alt=f"Log ratio with confidence interval of every chromosome arm of patient {text(patient, 60)}.",
            caption=_lollipop_caption(patient, rows, effect),
        )
        summary = f"Log ratios of patient {text(patient, 40)}"
        blocks.append(figure if i < OPEN_LOLLIPOPS else Details(summary, [figure]))
    if rest := with_clone[full:]:
        blocks.append(
            Paragraph(
                f"Log ratios are drawn for {plural(min(full, len(with_clone)), 'patient')} of {len(with_clone):,} with "
                f"a clone; those of {', '.join(text(name, 40) for name in rest)} are in {_file(assets)}.",
                "missing",
            )
        )
    if without := [name for name in of_patient if name not in with_clone]:
        blocks.append(
            Paragraph(
                f"No clone, so no arm of a tumour was assessed: {', '.join(text(name, 40) for name in without)}. What "
                "would have been seen is in the tables of this section.",
                "missing",
            )
        )
    return blocks


def _lollipop_caption(patient: str, rows: pd.DataFrame, effect: float | None) -> str:
    keys = plot.panel_keys(rows)
    cut = f" (first {plot.MAX_PANELS} drawn)" if len(keys) > plot.MAX_PANELS else ""
    own = rows[rows["clone_id"].fillna("").astype(str) != ""]
    out = int((own["state"].astype(str) == "not_assessable").sum())
    smallest = pd.to_numeric(own["smallest_detectable"], errors="coerce")
    seen = smallest[own["state"].astype(str).ne("not_assessable") & np.isfinite(smallest)]
    detectable = (
        f" Smallest detectable absolute log ratio over the assessable arms: median {number(seen.median())}, largest "
        f"{number(seen.max())}."
        if len(seen)
        else ""
    )
    sizes = own.groupby(["clone_id", "sample_id"])["n_cells"].max()
    threshold = "" if effect is None else f"The dashed lines are ±{effect:g}, the least log ratio of a call. "
    return (
        f"Patient {text(patient, 60)}: natural-log ratio of expression against the reference on every chromosome arm, "
        f"with 95 % confidence interval, in {plural(len(keys), 'clone-and-sample group')}{cut} of "
        f"{count(sizes.min())} to {count(sizes.max())} cells. {threshold}A call also needs q below 0.05 over the arms "
        "and both halves of the genes in agreement. The interval holds the error of an unmatched cell type, which more "
        "cells do not shrink. Dotted lines: one copy more or less in every cell, were expression to follow dosage with "
        f"slope 0.8. {plural(out, 'arm')} of {len(own):,} not assessable (hatched): a lost copy could not have been "
        f"seen there, and the open mark decides nothing.{detectable} How to read it: a change counts when its interval "
        "stays clear of zero, it lies beyond the dashed line, and the same clone shows it in both samples; a neutral "
        "arm excludes only what lies outside its pale band."
    )


def _file(assets: Assets) -> str:
    return assets.names.get("arms", "arms.tsv")


# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GivenComparison:
    """A given profile beside what one group of a patient's tumour cells shows."""

    table: pd.DataFrame
    """``arm``; ``given`` and ``measured`` (natural-log ratio, NaN: not known); ``ci_low``, ``ci_high``, ``state``."""
    group: str
    """Whose cells were measured."""


def given_comparisons(assets: Assets) -> dict[str, GivenComparison]:
    """Per patient with a given profile and a clone: the profile beside the largest group of cells of one clone."""
    found: dict[str, GivenComparison] = {}
    if assets.arms is None:
        return found
    for patient, path in assets.cnv_windows.items():
        given = read_given_profile(path)
        arms = assets.arms[(assets.arms["patient_id"].astype(str) == patient).to_numpy()]
        keys = plot.panel_keys(arms)
        if given is None or not keys:
            continue
        own = arms[["clone_id", "sample_id"]].astype(str)
        groups = [arms[((own["clone_id"] == c) & (own["sample_id"] == s)).to_numpy()] for c, s in keys]
        largest = int(np.argmax([pd.to_numeric(rows["n_cells"], errors="coerce").max() for rows in groups]))
        measured = groups[largest][["arm", "log_ratio", "ci_low", "ci_high", "state"]]
        expected = given[["arm", "expected"]].astype({"arm": str}).rename(columns={"expected": "given"})
        table = measured.rename(columns={"log_ratio": "measured"}).merge(expected, on="arm", how="outer")
        clone, sample = keys[largest]
        number_of = plural(int(groups[largest]["n_cells"].max()), "cell")
        found[patient] = GivenComparison(table, f"{text(clone, 40)} in {text(sample, 60)}, {number_of}")
    return found


def given_blocks(
    comparisons: Mapping[str, GivenComparison],
    statuses: Mapping[str, Mapping[str, Any]],
    pictures: Pictures,
    *,
    effect: float | None,
    full: int,
) -> list[Block]:
    """The karyotype that the user gave beside the one measured in the cells; nothing when none was given.

    Parameters
    ----------
    comparisons
        From :func:`given_comparisons`.
    statuses
        Copy-number status per patient; with a given profile it has ``profile_format``, ``profile_source`` (which
        profile the cells were scored by) and ``profile_warnings``.
    effect
        Least absolute log ratio of a called arm.
    full
        Patients drawn.
    """
    stated = [name for name, status in statuses.items() if status.get("profile_format")]
    if not comparisons and not stated:
        return []
    blocks: list[Block] = [Heading("Given and measured karyotype")]
    for patient in sorted({*comparisons, *stated}):
        blocks += [
            Paragraph(f"Patient {text(patient, 60)}: {text(warning, 400)}.", "warn")
            for warning in listed_texts(statuses.get(patient, {}).get("profile_warnings"))
        ]
    drawn, left = 0, []
    for patient, comparison in sorted(comparisons.items()):
        table = comparison.table
        seen = table.assign(
            **{name: pd.to_numeric(table[name], errors="coerce") for name in ("given", "measured")}
        ).dropna(subset=["given"])
        judged = seen[
            seen["state"].isin([state for state in ARM_STATES if state != "not_assessable"])
            & np.isfinite(seen["measured"])
        ]
        if not len(seen) or not len(judged):
            why = "covers no measured arm" if not len(seen) else "can be compared on no arm: none is assessable"
            blocks.append(Paragraph(f"The profile given for patient {text(patient, 60)} {why}.", "missing"))
        elif drawn == full:
            left.append(text(patient, 40))
        else:
            drawn += 1
            by_given = statuses.get(patient, {}).get("profile_source") == "given"
            name = f"Patient {text(patient, 60)} ({comparison.group})"
            blocks.append(
                pictures.inline(
                    plot.karyotype(table, min_abs_log_ratio=effect),
                    prefix=f"karyotype-{drawn}",
                    alt=f"Given and measured log ratio of {len(judged)} chromosome arms. {name}.",
                    caption=_karyotype_caption(name, seen, judged, effect, by_given=by_given),
                )
            )
    if left:
        blocks.append(Paragraph(f"A profile was given and is not drawn here: {', '.join(left)}.", "missing"))
    if missing := [text(name, 40) for name in stated if name not in comparisons]:
        blocks.append(
            Paragraph(
                f"A profile was given, but there is no clone to compare it with: {', '.join(missing)}.", "missing"
            )
        )
    return blocks


def _karyotype_caption(
    name: str, seen: pd.DataFrame, judged: pd.DataFrame, effect: float | None, *, by_given: bool
) -> str:
    given = judged["given"].to_numpy(dtype=float)
    measured = judged["measured"].to_numpy(dtype=float)
    r = plot.pearson(given, measured)
    sentences = [
        f"{name}: log ratio that the given profile predicts (grey bars) and that the cells show "
        f"(marks, 95 % CI), n = {plural(len(judged), 'arm')}; {plural(len(seen) - len(judged), 'covered arm')} not "
        "assessable (hatched) and left out of every number here."
    ]
    if np.isfinite(r):
        sentences.append(f"Pearson r = {number(r)}.")
    if effect is not None:
        states = judged["state"].astype(str).to_numpy()
        for sign, state, name in ((1, "gain", "gains"), (-1, "loss", "losses")):
            expected = sign * given >= effect
            called = states == state
            sentences.append(
                f"Given {name} of at least {effect:g}: {int(expected.sum())}, found {int((expected & called).sum())}; "
                f"called without being given: {int((~expected & called).sum())}."
            )
    sentences.append(
        "The cells were called with the given profile, which favours cells that follow it: agreement is a check of the "
        "size of the changes and of other arms, no independent proof."
        if by_given
        else "The cells were called without the given profile, so that agreement is independent evidence."
    )
    sentences.append(
        "How to read it: marks should follow the bars, shrunken alike on all arms when normal RNA or a dosage slope "
        "below 1 dilutes them; one arm off the line is a different clone, a change after the given sample was taken, "
        "or an error of either method."
    )
    return " ".join(sentences)


def _arm_table(arms: pd.DataFrame, caption: str, *, note: str, empty: str) -> Table:
    columns = [
        Column("Patient"),
        Column("Sample"),
        Column("Clone"),
        Column("Arm"),
        Column("State"),
        Column("Log ratio (95\u00a0%\u00a0CI)", True),
        Column("q", True),
        Column("Cells", True),
        Column("Genes", True),
        Column("Power", True, "to see a single-copy change with these cells"),
        Column("Smallest detectable", True, "log ratio"),
    ]
    marks = {"gain": "+ gain", "loss": "– loss", "neutral": "neutral", "not_assessable": "· not assessable"}
    rows = [
        [
            words(row.patient_id),
            words(row.sample_id),
            words(row.clone_id),
            Cell(text(row.arm), tone="strong"),
            words(marks.get(str(row.state), row.state)),
            num(estimate(row.log_ratio, row.ci_low, row.ci_high)),
            num(p_value(row.q_value)),
            num(count(row.n_cells)),
            num(count(row.n_genes)),
            num(short(row.power)),
            num(short(row.smallest_detectable)),
        ]
        for row in arms.head(MAX_ARM_ROWS).itertuples(index=False)
    ]
    return Table(caption, columns, rows, note, empty)


def clone_blocks(assets: Assets) -> list[Block]:
    """Table of clones."""
    blocks: list[Block] = [Heading("Clones")]
    if assets.clones is None:
        return [*blocks, Paragraph("The table of clones is not part of this run.", "missing")]
    return [
        *blocks,
        frame_table(
            assets.clones,
            f"Clones (n = {len(assets.clones):,}). Gains and losses are chromosome arms.",
            max_rows=200,
            note=f"Whole table: {assets.names.get('clones', 'clones.tsv')}. {NONE} means none or not computed.",
            empty="No clone was found.",
        ),
    ]
