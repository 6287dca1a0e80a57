"""Known karyotypes planted in real held-out normal cells: unsupervised, with the profile given, and a small clone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from caller import ours, theirs
from caller.data import Bools, Pool, sample_of, thin_to
from caller.measures import Row, ranking, row

LOSS_KEPT, GAIN_ADDED = 0.6, 0.4
"""A lost copy keeps 0.6 of the counts and a gained one adds 0.4: a dosage slope of 0.8."""
KARYOTYPES = {
    "1q+ 16q-": {"1q": 1, "16q": -1},
    "8q+ 17p- 13q-": {"8q": 1, "17p": -1, "13q": -1},
    "10 arms": {
        **dict.fromkeys(("1q", "8q", "16p", "20q", "17q"), 1),
        **dict.fromkeys(("16q", "8p", "17p", "11q", "13q"), -1),
    },
}
"""Frequent events of luminal breast cancer (Curtis et al. 2012, doi:10.1038/nature10983)."""
DEPTHS = (4_000, 2_000, 1_000)
DEVELOPMENT_SEEDS = (1, 2)
TEST_SEEDS = (3, 4)


def plant(
    counts: sp.csr_matrix, arms: Sequence[str], events: dict[str, int], rng: np.random.Generator
) -> sp.csr_matrix:
    """Give cells the events: binomial thinning of the genes of a lost arm, binomial extra draws of a gained one."""
    planted = sp.csr_matrix(counts, copy=True)
    change = np.array([events.get(str(arm), 0) for arm in arms])[planted.indices]
    data = planted.data.astype(np.int64)
    lost, gained = change < 0, change > 0
    data[lost] = rng.binomial(data[lost], LOSS_KEPT)
    data[gained] += rng.binomial(data[gained], GAIN_ADDED)
    planted.data = data.astype(np.float32)
    planted.eliminate_zeros()
    return planted


def planted_pool(
    pool: Pool, *, events: dict[str, int], depth: float, n_reference: int, n_planted: int | None = None, seed: int
) -> tuple[Pool, Bools, Bools]:
    """Normal cells at one depth: reference, cells with the karyotype, cells without; no cell serves twice.

    Parameters
    ----------
    pool
        Cells to draw from.
    events
        Altered arms, 1 for a gained and -1 for a lost copy.
    depth
        Counts per cell after thinning. Judged cells have at least as many before; reference cells may have fewer.
    n_reference
        Reference cells; all others with enough counts are judged.
    n_planted
        Judged cells that get the events; ``None``: half of them.
    seed
        Of the draw.

    Returns
    -------
    The cells, which of them are reference, and which have the events.
    """
    rng = np.random.default_rng([seed, int(depth)])
    mixed = rng.permutation(pool.normals)
    rest = mixed[n_reference:]
    judged = rest[np.asarray(pool.counts[rest].sum(axis=1)).ravel() >= depth]
    n_planted = len(judged) // 2 if n_planted is None else n_planted
    part = pool[np.concatenate([mixed[:n_reference], judged])]
    counts = thin_to(part.counts, depth, rng)
    place = np.arange(len(part))
    altered = (place >= n_reference) & (place < n_reference + n_planted)
    arms = part.var["arm"].astype(str).tolist()
    done = [counts[:n_reference], plant(counts[altered], arms, events, rng), counts[n_reference + n_planted :]]
    return Pool(sp.csr_matrix(sp.vstack(done)), part.var, part.donor, part.kind), place < n_reference, altered


def evaluate(pool: Pool, name: str, depth: float, *, seed: int) -> list[dict[str, object]]:
    """One karyotype at one depth, half of the held-out cells planted."""
    events = KARYOTYPES[name]
    n_reference = len(pool.normals) // 2
    part, reference, altered = planted_pool(pool, events=events, depth=depth, n_reference=n_reference, seed=seed)
    sample = sample_of(part, reference=reference, tumour=altered)
    found = ours.evidence(sample, tumour_lineage="any")
    scores = {
        "infercnvpy": theirs.run(sample, np.where(reference, part.kind, "")).score,
        "ours_burden": ours.burden_score(found.cells),
        "ours_full": ours.score(found.cells),
        "ours_given": ours.score(ours.evidence(sample, profile=ours.given(events), tumour_lineage="any").cells),
    }
    normal = ~reference & ~altered
    return [
        {
            "karyotype": name,
            "depth": depth,
            "seed": seed,
            "half": "dev" if seed in DEVELOPMENT_SEEDS else "test",
            "method": method,
            "clone_status": str(found.status.get("clone_status", "")),
            **ranking(score, altered, normal),
        }
        for method, score in scores.items()
    ]


def measure(
    pool: Pool,
    *,
    seeds: Sequence[int] = (*DEVELOPMENT_SEEDS, *TEST_SEEDS),
    depths: Sequence[float] = DEPTHS,
    karyotypes: Sequence[str] = tuple(KARYOTYPES),
) -> pd.DataFrame:
    """One line per karyotype, depth, seed and method."""
    lines = []
    for name in karyotypes:
        for depth in depths:
            for seed in seeds:
                lines += evaluate(pool, name, depth, seed=seed)
            print(
                f"  planted {name}, {depth} UMI: {lines[-2]['auc']:.3f} learned, {lines[-1]['auc']:.3f} given",
                flush=True,
            )
    return pd.DataFrame(lines)


TARGETS = {("10 arms", 1_000, "ours_full"): ("auc", 0.90), ("1q+ 16q-", 4_000, "ours_given"): ("tpr_0.01", 0.85)}
LABELS = {
    "ours_burden": "unsupervised, burden",
    "ours_full": "unsupervised, profile learned (half of the cells planted)",
    "ours_given": "profile given",
}


def rows(runs: pd.DataFrame) -> list[Row]:
    """AUC and TPR at 1 % FPR of every karyotype, depth and mode."""
    mean = runs.groupby(["karyotype", "depth", "method", "half"], sort=False)[["auc", "tpr_0.01"]].mean()

    def value(name: str, depth: float, method: str, half: str, key: str) -> float:
        return float(mean[key].get((name, depth, method, half), np.nan))

    found = []
    for name in runs["karyotype"].unique():
        for depth in runs["depth"].unique():
            for method, text in LABELS.items():
                for key, measure_ in (("auc", "AUC"), ("tpr_0.01", "TPR at 1 % FPR")):
                    aim = TARGETS.get((name, depth, method), ("", 0.0))
                    mine = [value(name, depth, method, half, key) for half in ("dev", "test")]
                    base = [value(name, depth, "infercnvpy", half, key) for half in ("dev", "test")]
                    found.append(
                        row(
                            "b",
                            f"planted {name}, {depth:,.0f} UMI, {text}, {measure_}",
                            theirs=(base[0], base[1]),
                            ours=(mine[0], mine[1]),
                            target=f">= {aim[1]}" if aim[0] == key else "",
                            reached=bool(np.nanmin(mine) >= aim[1]) if aim[0] == key else None,
                        )
                    )
    return found
