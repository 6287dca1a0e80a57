"""Segment statistics with planted clones, drawn directly: score = information times change, plus noise."""

from __future__ import annotations

import numpy as np

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics

ARMS = tuple(f"{chromosome}{arm}" for chromosome in range(1, 16) for arm in "pq")
SEGMENTS = 6


def names() -> tuple[str, ...]:
    return tuple(f"{arm}:{i:02d}" for arm in ARMS for i in range(SEGMENTS))


def segments(
    profiles: list[dict[str, float]],
    sizes: list[int],
    *,
    seed: int = 0,
    information: float = 6.0,
    expression: float = 0.2,
    programme: float = 0.0,
    offset: np.ndarray | None = None,
) -> tuple[SplitStatistics, np.ndarray]:
    """Statistics and the clone of every cell.

    ``profiles``: relative change per arm, or per segment (``"1q:02"``), of each clone. ``expression``: SD over segments
    of what all cells differ from the reference by; ``programme``: of what every second cell differs by.
    """
    rng = np.random.default_rng(seed)
    columns = names()
    truth = np.repeat(np.arange(len(sizes)), sizes)
    change = np.array([[p.get(c, p.get(c.split(":")[0], 0.0)) for c in columns] for p in profiles])[truth]
    runs = rng.random(len(truth)) < 0.5
    half_u, half_info = [], []
    depth = rng.lognormal(0.0, 0.3, len(truth))[:, None]
    for half in range(2):
        own = rng.normal(0.0, expression, len(columns)) + change
        own = own + runs[:, None] * rng.normal(0.0, programme, len(columns))
        if offset is not None:
            own = own + offset[:, None] * np.random.default_rng([7, half]).normal(0.0, 0.25, len(columns))
        info = depth * rng.gamma(8.0, information / 16.0, len(columns))
        half_info.append(info)
        half_u.append(info * own + rng.normal(0.0, 1.0, info.shape) * np.sqrt(info * (1.0 + np.maximum(own, -0.9))))
    halves = tuple(ArmStatistics(u, i, columns) for u, i in zip(half_u, half_info, strict=True))
    full = ArmStatistics(half_u[0] + half_u[1], half_info[0] + half_info[1], columns)
    return SplitStatistics(full, (halves[0], halves[1])), truth
