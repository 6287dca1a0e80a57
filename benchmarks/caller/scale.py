"""Ten tumour cells among 20,000 normal ones: simulated marrow, and real normal cells drawn again and thinned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import planted as drawn
import scipy.sparse as sp

from caller import ours
from caller.annotated import annotated
from caller.data import DEVELOPMENT, Bools, Pool, Sample, place, sample_of
from caller.measures import Counts, Row, row, together
from caller.planted import DEVELOPMENT_SEEDS

N_TUMOUR, N_NORMAL = 10, 20_000
THINNING = 0.5
"""Share of its counts that a cell keeps: two draws of one cell share its expression, not its molecules."""
SIMULATED_SEEDS = (1, 3)
REAL = (("11", 1), ("12", 3), ("14", 4))
MODES = ("epithelial", "any")
RECALL_TARGET, FALSE_TARGET = 0.9, 2


def resampled(pool: Pool, unclear: Bools, patient: str, *, seed: int, n_normal: int = N_NORMAL) -> Sample:
    """Real normal cells of all patients drawn with replacement, and ten carcinoma cells, all thinned by half.

    Cells of open truth (:mod:`caller.open_truth`) are not drawn: eight times over, a dozen would be a clone of a
    hundred, beside ten tumour cells.
    """
    rng = np.random.default_rng([seed, int(patient), 9])
    normal = pool.normals[~unclear[pool.normals]]
    rows_ = np.concatenate([rng.choice(normal, n_normal), rng.choice(pool.carcinoma(patient), N_TUMOUR, replace=False)])
    part = pool[rows_]
    counts = part.counts.copy()
    counts.data = rng.binomial(counts.data.astype(np.int64), THINNING).astype(np.float32)
    counts.eliminate_zeros()
    return sample_of(Pool(counts, part.var, part.donor, part.kind))


def simulated(seed: int, *, n_normal: int = N_NORMAL) -> Sample:
    """A marrow of the simulator with ten single tumour cells (4,000 UMI) and no doublets with one."""
    made = drawn.simulated(seed, single=N_TUMOUR, doublet=0, coated=0, marrow_cells=n_normal, patient=seed % 3)
    tumour = (made.truth["kind"] == "single").to_numpy()
    n = len(tumour)
    kind = made.truth["cell_type"].replace("", "epithelial").to_numpy(dtype=object)
    pool = Pool(
        sp.csr_matrix(made.adata.layers["counts"]), place(made.adata.var_names), np.full(n, "SIM", object), kind
    )
    return sample_of(pool, tumour=tumour)


def evaluate(name: str, half: str, whole: Sample, *, modes: Sequence[str] = MODES) -> list[dict[str, object]]:
    """Calls in both modes."""
    sample, _ = annotated(whole)
    lines: list[dict[str, object]] = []
    for mode in modes:
        found = ours.run(sample, tumour_lineage=mode)
        lines.append(
            {
                "sample": name,
                "half": half,
                "method": f"ours_{mode}",
                "tumour": N_TUMOUR,
                "called": int((found.called & sample.tumour).sum()),
                "false": int((found.called & ~sample.tumour).sum()),
                "cells": len(whole),
                "clone_status": str(found.status.get("clone_status", found.status["status"])),
            }
        )
        print(f"  {name}, {mode}: {lines[-1]['called']} of {N_TUMOUR}, {lines[-1]['false']} false", flush=True)
    return lines


def measure(
    pool: Pool | None,
    unclear: Bools | None = None,
    *,
    n_normal: int = N_NORMAL,
    seeds: Sequence[int] = SIMULATED_SEEDS,
) -> pd.DataFrame:
    """One line per sample and mode; without the real cells the simulated samples only."""
    lines = []
    for seed in seeds:
        half = "dev" if seed in DEVELOPMENT_SEEDS else "test"
        lines += evaluate(f"simulated, seed {seed}", half, simulated(seed, n_normal=n_normal))
    for patient, seed in REAL if pool is not None and unclear is not None else ():
        half = "dev" if patient in DEVELOPMENT else "test"
        lines += evaluate(
            f"real, patient {patient}", half, resampled(pool, unclear, patient, seed=seed, n_normal=n_normal)
        )
    return pd.DataFrame(lines)


def counts_of(runs: pd.DataFrame, mode: str, half: str) -> list[Counts]:
    """Counts of every sample."""
    part = runs[(runs["method"] == f"ours_{mode}") & (runs["half"] == half)]
    return [
        Counts(int(n), int(c), int(f)) for n, c, f in zip(part["tumour"], part["called"], part["false"], strict=True)
    ]


def rows(runs: pd.DataFrame) -> list[Row]:
    """Recall and false calls, simulated and real apart."""
    found = []
    for source in ("simulated", "real"):
        part = runs[runs["sample"].str.startswith(source)]
        for mode in MODES:
            texts, good = [], []
            for half in ("dev", "test"):
                each = counts_of(part, mode, half)
                if not each:
                    texts.append("")
                    continue
                pooled, worst = together(each), max(c.false for c in each)
                good.append(pooled.recall >= RECALL_TARGET and worst <= FALSE_TARGET)
                texts.append(f"recall {pooled.recall:.2f}, most false calls {worst} ({len(each)} samples)")
            if good:
                n_normal = int(part["cells"].max() - N_TUMOUR)
                found.append(
                    row(
                        "e",
                        f"{N_TUMOUR} tumour cells among {n_normal:,} normals, {source}, mode {mode}",
                        ours=(texts[0], texts[1]),
                        target=f"recall >= {RECALL_TARGET:g}, <= {FALSE_TARGET} false",
                        reached=all(good),
                    )
                )
    return found
