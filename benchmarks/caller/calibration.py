"""P-values of normal cells that no reference holds: are they uniform down to one in a thousand?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from caller import ours
from caller.data import DEVELOPMENT, PATIENTS, Pool, sample_of
from caller.measures import Row, row
from caller.open_truth import OpenTruth

SPLITS = (1, 2, 3, 4, 5, 6)
TAILS = (0.05, 0.01, 0.001)
COVER = 0.95
QUANTILES = tuple(np.round(10 ** np.arange(-3.0, -0.29, 0.1), 6))
"""Levels from 0.001 to 0.5 at which the whole curve is compared with its band."""


def evaluate(pool: Pool, donor: str, *, seed: int) -> pd.DataFrame:
    """Burden p-values of one random half of a patient's normal cells against the other half, types matched.

    Each patient has a reference of its own, as in the workflow: a mixture of patients fits none of them exactly.
    """
    rows_ = pool.normals[pool.donor[pool.normals] == donor]
    half = np.random.default_rng([seed, 177, int(donor)]).random(len(rows_)) < 0.5
    normal = pool[rows_]
    sample = sample_of(normal, reference=half)
    cells = ours.evidence(sample).cells
    held = ~half & ~cells["is_reference"].to_numpy(dtype=bool)
    return pd.DataFrame(
        {
            "cell": rows_[held],
            "half": "dev" if donor in DEVELOPMENT else "test",
            "kind": normal.kind[held],
            "seed": seed,
            "p": cells["cnv_burden_p"].to_numpy(dtype=float)[held],
        }
    )


def measure(pool: Pool, unclear: OpenTruth, *, splits: Sequence[int] = SPLITS) -> pd.DataFrame:
    """P-values of all patients and splits; a cell is judged in about half of the splits."""
    found = pd.concat([evaluate(pool, donor, seed=seed) for donor in PATIENTS for seed in splits], ignore_index=True)
    found["open"] = unclear.either[found["cell"].to_numpy()]
    print(f"  p-values: {len(found)} of {found['cell'].nunique()} cells", flush=True)
    return found


def rate(values: pd.DataFrame, level: float) -> float:
    """Share of p-values at or below ``level``, every cell counted once (the mean over its splits)."""
    return float((values["p"] <= level).groupby(values["cell"]).mean().mean())


def band(level: float, n_cells: int) -> tuple[float, float]:
    """Central 95 % of the share at or below ``level`` of ``n_cells`` uniform p-values.

    The number of different cells counts, not that of p-values: a cell's p-values of several splits are nearly the same.
    """
    low, high = stats.binom.interval(COVER, n_cells, level)
    return float(low) / n_cells, float(high) / n_cells


def curve(values: pd.DataFrame, levels: Sequence[float] = QUANTILES) -> pd.DataFrame:
    """Observed share and band at each level."""
    n = values["cell"].nunique()
    lines = [(level, rate(values, level), *band(level, n)) for level in levels]
    return pd.DataFrame(lines, columns=["level", "observed", "low", "high"])


def outside(values: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Levels at which the curve leaves the band."""
    found = curve(values)
    out = (found["observed"] < found["low"]) | (found["observed"] > found["high"])
    return found.loc[out, "level"].to_numpy(dtype=float)


def rows(values: pd.DataFrame) -> list[Row]:
    """Tail rates with their bands, and whether the whole curve stays in the band; with and without open truth."""
    return [*_rows(values, ""), *_rows(values[~values["open"]], ", without cells of open truth")]


def _rows(values: pd.DataFrame, whose: str) -> list[Row]:
    halves = [values[values["half"] == half] for half in ("dev", "test")]
    found = []
    for level in TAILS:
        texts, good = [], []
        for part in halves:
            low, high = band(level, part["cell"].nunique())
            seen = rate(part, level)
            good.append(low <= seen <= high)
            texts.append(f"{seen:.4f} (band {low:.4f} to {high:.4f}, {part['cell'].nunique()} cells)")
        found.append(
            row(
                "h",
                f"p-values of held-out normals, the patient's own reference: share <= {level:g}{whose}",
                ours=(texts[0], texts[1]),
                target="inside the 95 % band",
                reached=all(good),
            )
        )
    out = [outside(part) for part in halves]
    texts = [
        f"outside at {len(o)} of {len(QUANTILES)} levels" + (f" ({o.min():.3g} to {o.max():.3g})" if len(o) else "")
        for o in out
    ]
    found.append(
        row(
            "h",
            f"p-values of held-out normals: QQ curve from 0.001 to 0.5{whose}",
            ours=(texts[0], texts[1]),
            target="inside the 95 % band",
            reached=not any(len(o) for o in out),
        )
    )
    return found
