"""Thirty cells with three altered arms among 1,500: learned without labels, and what of it is called."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from caller import ours, theirs
from caller.data import Pool, Sample, sample_of
from caller.measures import Counts, Row, best_recall, counted, row, together
from caller.planted import DEVELOPMENT_SEEDS, KARYOTYPES, planted_pool

KARYOTYPE = "8q+ 17p- 13q-"
N_PLANTED, N_ALL, DEPTH = 30, 1_500, 2_000
"""A few of the 1,500 have fewer counts than that and are left out."""
SEEDS = tuple(range(1, 13))
N_STRAY = 30
"""Normal cells that look epithelial besides the planted ones, in mode ``epithelial``."""
MODES = ("any", "epithelial")
FDR = 0.05
TARGET = 0.80


def marked(sample: Sample, *, stray: np.ndarray) -> Sample:
    """The planted cells and some normal ones as cells with epithelial evidence."""
    cells = sample.cells.copy()
    candidate = sample.tumour.copy()
    candidate[stray] = True
    cells.loc[candidate, "cell_type"] = "epithelial"
    cells.loc[candidate, "epithelial_z"] = 8.0
    cells.loc[candidate, "n_epithelial_markers"] = 6
    return Sample(sample.adata, cells, sample.tumour)


def evaluate(pool: Pool, *, seed: int) -> list[dict[str, object]]:
    """Both modes and infercnvpy on one draw."""
    n_reference = len(pool.normals) - N_ALL
    part, reference, altered = planted_pool(
        pool,
        events=KARYOTYPES[KARYOTYPE],
        depth=DEPTH,
        n_reference=n_reference,
        n_planted=N_PLANTED,
        seed=seed + 100,
    )
    sample = sample_of(part, reference=reference, tumour=altered)
    query = ~reference
    common = {"seed": seed, "half": "dev" if seed in DEVELOPMENT_SEEDS else "test"}
    stray = np.random.default_rng([seed, 5]).choice(np.flatnonzero(query & ~altered), N_STRAY, replace=False)
    samples = {"any": sample, "epithelial": marked(sample, stray=stray)}
    profiles = {"ours": None, "given": ours.given(KARYOTYPES[KARYOTYPE])}
    lines = []
    for mode, (name, profile) in product(MODES, profiles.items()):
        found = ours.run(samples[mode], profile=profile, tumour_lineage=mode)
        calls = counted(found.called, altered, of=query)
        asked = query if mode == "any" else query & found.cells["is_candidate"].to_numpy(dtype=bool)
        score = ours.score(found.cells)
        lines.append(
            {
                **common,
                "method": f"{name}_{mode}",
                "recall": calls.recall,
                "called": calls.called,
                "false": calls.false,
                "best_recall": best_recall(score[asked], altered[asked], false_share=FDR, n_tumour=N_PLANTED),
                "clone_status": str(found.status.get("clone_status", "")),
            }
        )
    base = theirs.run(sample, np.where(reference, part.kind, ""))
    recall, precision = theirs.isolates(theirs.clusters(base).label, altered)
    best = best_recall(base.score[query], altered[query], false_share=FDR)
    lines.append({**common, "method": "infercnvpy", "recall": recall, "precision": precision, "best_recall": best})
    return lines


def measure(pool: Pool, *, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """One line per draw and method."""
    lines = []
    for seed in seeds:
        lines += evaluate(pool, seed=seed)
    frame = pd.DataFrame(lines)
    print(
        frame.groupby("method")[["recall", "best_recall", "false"]].mean().round(3).to_string(),
        flush=True,
    )
    return frame


def counts_of(runs: pd.DataFrame, mode: str, half: str, *, name: str = "ours") -> list[Counts]:
    """Counts of every draw."""
    part = runs[(runs["method"] == f"{name}_{mode}") & (runs["half"] == half)]
    return [Counts(N_PLANTED, int(c), int(f)) for c, f in zip(part["called"], part["false"], strict=True)]


def rows(runs: pd.DataFrame) -> list[Row]:
    """Recall and realised false-discovery rate of the calls, and the recall that the ranking allows."""

    def best(method: str) -> tuple[float, float]:
        part = runs[runs["method"] == method]
        dev, test = (float(part.loc[part["half"] == h, "best_recall"].mean()) for h in ("dev", "test"))
        return dev, test

    found = []
    for mode, (name, text) in product(MODES, {"ours": "profile learned", "given": "profile given"}.items()):
        texts, verdicts = [], []
        for half in ("dev", "test"):
            each = counts_of(runs, mode, half, name=name)
            if not each:
                texts.append("")
                continue
            recall = together(each).recall
            realised = float(np.mean([c.false_share for c in each]))
            verdicts.append(recall >= TARGET and realised <= FDR)
            texts.append(f"recall {recall:.3f}, false share {realised:.3f} ({len(each)} draws)")
        what = f"planted {KARYOTYPE}, {N_PLANTED} cells of {N_ALL:,}, {DEPTH:,} UMI, {text}, mode {mode}"
        found.append(
            row(
                "c",
                f"{what}: calls",
                ours=(texts[0], texts[1]),
                target=f"recall >= {TARGET:g} at false share <= {FDR:g}" if name == "ours" else "",
                reached=all(verdicts) if name == "ours" else None,
            )
        )
        found.append(
            row(
                "c",
                f"{what}: best recall of the ranking at a realised false share <= {FDR:g}",
                theirs=best("infercnvpy"),
                ours=best(f"{name}_{mode}"),
            )
        )
    return found
