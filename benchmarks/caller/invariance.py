"""What a cell's values depend on besides the cell: order, chunks, threads and the company of other cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from caller import ours, theirs
from caller.data import PATIENTS, REFERENCE, Integers, Pool, Sample, sample_of
from caller.measures import Row, row
from dtcflow.cnv.arms import arm_statistics, fit_arm_model, usable_genes
from dtcflow.cnv.run import genome_order

STAGE_1 = ("cnv_burden", "cnv_burden_p")
STAGE_2 = ("clone_llr", "clone_llr_p", "clone_fraction")
N_NORMAL, N_TUMOUR = 600, 60
ADDED_TOLERANCE = 1e-6
CHUNK = 200
"""Chunk in which the order of cells is changed for infercnvpy: its default of 5,000 holds the whole sample."""
COMPANY = 10
"""Cells of which infercnvpy's threshold is shown with and without company."""

MAX_PRINTED = 10.0


@dataclass(frozen=True)
class Change:
    """Largest change of a cell's value under one perturbation, in absolute terms and relative to its larger value."""

    what: str
    method: str
    absolute: float
    relative: float


def base_sample(pool: Pool, *, seed: int = 3) -> tuple[Sample, Integers]:
    """Half reference, half query normals and carcinoma cells of all patients."""
    rng = np.random.default_rng(seed)
    normal = rng.permutation(pool.normals)[:N_NORMAL]
    tumour = np.concatenate([rng.choice(pool.carcinoma(p), N_TUMOUR // 4, replace=False) for p in PATIENTS])
    rows_ = np.concatenate([normal, tumour])
    return sample_of(pool[rows_], reference=np.arange(len(rows_)) < N_NORMAL // 2), rows_


def permuted(sample: Sample, *, cells: bool, seed: int) -> Sample:
    """The same sample with its cells or its genes in another order."""
    rng = np.random.default_rng(seed)
    if cells:
        return sample[rng.permutation(len(sample))]
    order = rng.permutation(sample.adata.n_vars)
    return Sample(sample.adata[:, order].copy(), sample.cells, sample.tumour)


def compared(what: str, method: str, before: np.ndarray, after: np.ndarray) -> Change:
    """Change between two arrays; a value missing on one side only is an infinite change."""
    one_sided = np.isnan(before) != np.isnan(after)
    if one_sided.any():
        return Change(what, method, float("inf"), float("inf"))
    difference = np.nan_to_num(np.abs(before - after))
    larger = np.nan_to_num(np.maximum(np.abs(before), np.abs(after)))
    share = difference[difference > 0] / larger[difference > 0]
    return Change(what, method, float(difference.max(initial=0.0)), float(share.max(initial=0.0)))


def _values(sample: Sample, columns: tuple[str, ...]) -> pd.DataFrame:
    return ours.evidence(sample, tumour_lineage="any").cells.set_index("cell_id")[list(columns)].astype(float)


def _their_values(sample: Sample, **options: object) -> pd.Series:
    run: Callable[..., theirs.Theirs] = theirs.run
    score = run(sample, sample.cells[REFERENCE].to_numpy(dtype=object), **options).score
    return pd.Series(score, index=sample.cells["cell_id"].to_numpy(dtype=object))


def chunks_and_threads(sample: Sample) -> list[Change]:
    """The arm statistics with other chunk sizes and numbers of threads."""
    reference = sample.cells[REFERENCE].to_numpy(dtype=object)
    order = genome_order(sample.adata.var)
    counts = sample.adata.layers["counts"].astype(np.float64)[:, order]
    var = sample.adata.var.iloc[order]
    rows_ = np.flatnonzero(reference != "")
    model = fit_arm_model(
        counts[rows_], reference[rows_], var["arm"].astype(str).to_numpy(dtype=object), usable_genes(var)
    )
    whole = arm_statistics(model, counts)
    found = []
    for chunk in (1, 64, 100_000):
        part = arm_statistics(model, counts, chunk=chunk)
        found.append(compared(f"chunk of {chunk:,} cells", "ours, arm statistics", whole.u, part.u))
    with threadpool_limits(limits=2):
        found.append(compared("two threads", "ours, arm statistics", whole.u, arm_statistics(model, counts).u))
    return found


def measure(pool: Pool) -> pd.DataFrame:
    """One line per perturbation and method."""
    sample, rows_ = base_sample(pool)
    columns = (*STAGE_1, *STAGE_2)
    before = _values(sample, columns)
    theirs_before = _their_values(sample)
    found: list[Change] = []

    def both(what: str, other: Sample, columns: tuple[str, ...] = columns, **options: object) -> None:
        ids = [i for i in before.index if i in set(other.cells["cell_id"])]
        after = _values(other, columns).loc[ids]
        for name, chosen in (("ours, stage 1", STAGE_1), ("ours, all stages", columns)):
            if set(chosen) <= set(columns):
                old, new = before.loc[ids, list(chosen)], after[list(chosen)]
                found.append(compared(what, name, old.to_numpy(), new.to_numpy()))
        base = _their_values(sample, **options) if options else theirs_before
        after_theirs = _their_values(other, **options).loc[ids].to_numpy()
        found.append(compared(what, "infercnvpy", base.loc[ids].to_numpy(), after_theirs))

    both(f"cell order (infercnvpy: chunks of {CHUNK} cells)", permuted(sample, cells=True, seed=1), chunksize=CHUNK)
    both("gene order", permuted(sample, cells=False, seed=2))
    fewer = np.flatnonzero(~sample.tumour)
    both("query cells added (60 carcinoma cells)", sample[fewer], STAGE_1)
    found += chunks_and_threads(sample)
    small = _their_values(sample, chunksize=100)
    found.append(compared("chunk of 100 cells", "infercnvpy", theirs_before.to_numpy(), small.to_numpy()))
    found += company(pool, rows_)
    return pd.DataFrame([vars(change) for change in found])


def company(pool: Pool, rows_: Integers) -> list[Change]:
    """Windows of the same ten carcinoma cells alone with normal cells, and with the other carcinoma cells."""
    normal = rows_[:N_NORMAL]
    rng = np.random.default_rng(11)
    carcinoma = rng.permutation(np.concatenate([pool.carcinoma(p) for p in PATIENTS]))[: COMPANY + N_NORMAL]
    found = []
    for threshold, name in ((1.5, "infercnvpy, default"), (None, "infercnvpy, dynamic_threshold=None")):
        scores = []
        for members in (carcinoma[:COMPANY], carcinoma):
            part = pool[np.concatenate([members, normal])]
            reference = np.where(np.arange(len(part)) >= len(members), part.kind, "")
            scores.append(theirs.run(sample_of(part), reference, dynamic_threshold=threshold).score[:COMPANY])
        what = f"company of ten carcinoma cells ({scores[0].mean():.3f} to {scores[1].mean():.3f})"
        found.append(compared(what, name, scores[0], scores[1]))
    return found


def _percent(change: float) -> str:
    """A relative change; beyond tenfold the size says nothing but that a value near 0 changed."""
    return "> 1,000 %" if change > MAX_PRINTED else f"{100 * change:.0f} %"


def rows(runs: pd.DataFrame) -> list[Row]:
    """One row per perturbation; a value of 0 means identical bits."""
    found = []
    for what, part in runs.groupby("what", sort=False):
        mine = part[part["method"].str.startswith("ours")]
        other = part[part["method"].str.startswith("infercnvpy")]
        text = "; ".join(
            f"{m.removeprefix('ours, ')}: {a:.2g}" for m, a in zip(mine["method"], mine["absolute"], strict=True)
        )
        base = "; ".join(
            f"{m.removeprefix('infercnvpy').strip(', ')} {_percent(r)}".strip()
            for m, r in zip(other["method"], other["relative"], strict=True)
        )
        added = "added" in str(what)
        limit = ADDED_TOLERANCE if added else 0.0
        found.append(
            row(
                "k" if "company" in str(what) else "j",
                f"invariance, {what}: largest change (infercnvpy: of the cell's score)",
                theirs=("", base),
                ours=("", text),
                target=("<= 1e-6 (stage 1)" if added else "0") if len(mine) else "",
                reached=bool(mine["absolute"].max() <= limit) if len(mine) else None,
            )
        )
    return found
