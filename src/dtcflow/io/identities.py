"""Do the samples of a cohort belong to whom the sheet says? Cells in two samples, and sexes that do not fit.

Nothing here stops a run: every finding is a warning that a person has to look at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from dtcflow.contracts import TABLES
from dtcflow.io.fingerprints import MAX_CELLS

log = logging.getLogger(__name__)

WHITELIST: Final = 737_280
"""Barcodes of the smallest whitelist in wide use (10x v2). Two runs share n1 * n2 / 737,280 of them by chance."""
MIN_SHARED: Final = 20
MIN_CORRELATION: Final = 0.9
"""Smallest rank correlation of the counts of shared barcodes that makes them the same cells. Cells that share a barcode
by chance have none; plates that use one set of barcodes have a little."""
_CHANCE: Final = 1e-6
_SWAP: Final = "look for a swap of tubes, files or rows of the sheet"


def _finding(finding: str, sample: str, patients: Mapping[str, str], other: str = "", **values: Any) -> dict[str, Any]:
    return {
        "finding": finding,
        "severity": "warning",
        "sample_id": sample,
        "patient_id": patients[sample],
        "other_sample_id": other,
        "other_patient_id": patients[other] if other else "",
        **values,
    }


# ---------------------------------------------------------------------------------------------------------------------
# The same cells
# ---------------------------------------------------------------------------------------------------------------------


def _contents(prints: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"sample": sample, "content": frame.loc[frame["content"] != "", "content"].astype(str)})
        for sample, frame in prints.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"sample": [], "content": []})


def _same_cells(
    prints: Mapping[str, pd.DataFrame], sizes: Mapping[str, int], patients: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Cells with the same counts of the same genes, in two samples or twice in one."""
    contents = _contents(prints)
    twice = contents[contents.duplicated(keep="first")].groupby("sample", sort=True).size()
    for sample, number in twice.items():
        yield _finding(
            "cells_twice",
            str(sample),
            patients,
            n_cells=sizes[str(sample)],
            n_shared=int(number),
            detail=f"{number:,} cells have exactly the counts of another cell of the sample, under another barcode",
            advice="the sample was joined with itself: read each matrix once",
        )
    shared = contents.drop_duplicates()
    shared = shared[shared["content"].duplicated(keep=False)]
    pairs: dict[tuple[str, str], int] = {}
    for _, group in shared.groupby("content", sort=False):
        for pair in combinations(sorted(group["sample"]), 2):
            pairs[pair] = pairs.get(pair, 0) + 1
    for (one, other), number in sorted(pairs.items()):
        of = "cells" if max(sizes[one], sizes[other]) <= MAX_CELLS else "of the compared cells"
        across = "two patients" if patients[one] != patients[other] else "one patient"
        yield _finding(
            "same_cells",
            one,
            patients,
            other,
            n_cells=sizes[one],
            n_other=sizes[other],
            n_shared=number,
            detail=f"{number:,} {of} have exactly the same counts in two samples of {across}",
            advice=f"a matrix was given twice, or parts of it: {_SWAP}",
        )


def _same_libraries(
    prints: Mapping[str, pd.DataFrame],
    sizes: Mapping[str, int],
    patients: Mapping[str, str],
    known: set[tuple[str, str]],
) -> Iterator[dict[str, Any]]:
    """Samples that share more barcodes than chance lets them, with counts that go together."""
    tables = {}
    for sample, frame in sorted(prints.items()):
        own = frame[frame["barcode"] != ""].drop_duplicates("barcode", keep=False)
        tables[sample] = own.set_index("barcode")["n_counts"].sort_index()
    for one, other in combinations(tables, 2):
        first, second = tables[one], tables[other]
        expected = len(first) * len(second) / WHITELIST
        shared = first.index.intersection(second.index)
        limit = max(MIN_SHARED, float(stats.poisson.isf(_CHANCE, expected)))
        if len(shared) < limit or (one, other) in known:
            continue
        ranks = np.vstack([stats.rankdata(table.loc[shared]) for table in (first, second)])
        # constant counts have no correlation
        correlation = float(np.asarray(np.corrcoef(ranks))[0, 1]) if (ranks.std(axis=1) > 0).all() else 0.0
        if correlation >= MIN_CORRELATION:
            yield _finding(
                "same_library",
                one,
                patients,
                other,
                n_cells=sizes[one],
                n_other=sizes[other],
                n_shared=len(shared),
                expected_shared=expected,
                correlation=correlation,
                detail=f"{len(shared):,} barcodes are in both samples ({expected:.3g} expected by chance), and their "
                f"counts go together (rank correlation {correlation:.2f}): one library read twice",
                advice=f"give each library once, or join its runs before counting: {_SWAP}",
            )


# ---------------------------------------------------------------------------------------------------------------------
# Sex
# ---------------------------------------------------------------------------------------------------------------------


def _sexes(
    calls: Mapping[str, Mapping[str, Any]],
    patients: Mapping[str, str],
    said: Mapping[str, str],
    sizes: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    for sample, call in calls.items():
        sheet = said.get(sample, "")
        if call["call"] in ("female", "male") and sheet in ("female", "male") and sheet != call["call"]:
            yield _finding(
                "sex_sheet",
                sample,
                patients,
                n_cells=sizes[sample],
                detail=f"the cells are {call['call']} ({call['reason']}), the sheet says {sheet}",
                advice=f"{_SWAP}; a marrow transplant from a donor of the other sex looks alike",
            )
        if call["mixed"]:
            finding = _finding(
                "mixed_sex",
                sample,
                patients,
                n_cells=sizes[sample],
                detail=str(call["reason"]),
                advice="two donors in one sample (pooled, contaminated, after a transplant), or XXY: settle which",
            )
            yield finding | {"severity": "note"}
    by_patient: dict[str, list[str]] = {}
    for sample, call in calls.items():
        if call["call"] in ("female", "male"):
            by_patient.setdefault(patients[sample], []).append(sample)
    for samples in by_patient.values():
        for sample in samples[1:]:
            first = samples[0]
            if calls[sample]["call"] != calls[first]["call"]:
                yield _finding(
                    "sex_patient",
                    first,
                    patients,
                    sample,
                    n_cells=sizes[first],
                    n_other=sizes[sample],
                    detail=f"the cells of one sample are {calls[first]['call']}, those of another of the same patient "
                    f"{calls[sample]['call']}",
                    advice=_SWAP,
                )


def check_identities(
    reports: Mapping[str, Mapping[str, Any]],
    prints: Mapping[str, pd.DataFrame],
    samples: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Look for swapped, mixed and repeated samples in a cohort.

    Parameters
    ----------
    reports
        Sample -> intake report (:func:`dtcflow.io.intake.read_sample`), of which ``n_cells`` and ``sex`` are used.
    prints
        Sample -> :func:`dtcflow.io.fingerprints.cell_fingerprints`.
    samples
        Sample -> its row of the sheet, of which ``patient_id`` and ``sex`` are used.

    Returns
    -------
    Table ``identity``, one row per finding, sorted: ``same_cells`` (the same counts in two samples), ``same_library``
    (shared barcodes whose counts go together), ``cells_twice`` (a sample joined with itself), ``sex_sheet`` and
    ``sex_patient`` (the sex of the cells against the sheet, and between samples of one patient), and as a note
    ``mixed_sex``. Empty when nothing was found. Every finding is logged.
    """
    names = sorted(reports)
    patients = {sample: str(samples[sample]["patient_id"]) for sample in names}
    said = {sample: str(samples[sample].get("sex") or "") for sample in names}
    sizes = {sample: int(reports[sample]["n_cells"]) for sample in names}
    ordered = {sample: prints[sample] for sample in names}
    found = list(_same_cells(ordered, sizes, patients))
    known = {(row["sample_id"], row["other_sample_id"]) for row in found}
    found += _same_libraries(ordered, sizes, patients, known)
    found += _sexes({sample: reports[sample]["sex"] for sample in names}, patients, said, sizes)
    columns = list(TABLES["identity"])
    frame = pd.DataFrame(found, columns=columns)
    for column in ("n_cells", "n_other", "n_shared"):
        frame[column] = frame[column].astype("Int64")
    frame = frame.sort_values(
        ["severity", "finding", "sample_id", "other_sample_id"], ascending=[False, True, True, True]
    )
    for row in frame.to_dict("records"):
        both = f"{row['sample_id']} and {row['other_sample_id']}" if row["other_sample_id"] else row["sample_id"]
        log.warning("%s: %s; %s", both, row["detail"], row["advice"])
    return frame.reset_index(drop=True)
