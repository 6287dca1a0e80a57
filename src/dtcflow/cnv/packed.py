"""Read the additive statistics of a patient out of stage ``cnv``."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.null import Floats


def unpack(packed: ad.AnnData) -> tuple[SplitStatistics, Floats, Floats]:
    """Arm statistics (with their segments), inflation and tau per arm from an object of stage ``cnv``."""
    noise = packed.uns["arm_noise"]
    arms = tuple(noise["arm"].astype(str))
    full, *halves = (
        ArmStatistics(np.asarray(packed.obsm[f"arm_u{s}"]), np.asarray(packed.obsm[f"arm_info{s}"]), arms)
        for s in ("", "_half0", "_half1")
    )
    segments, _, _, table = unpack_segments(packed)
    column = {arm: index for index, arm in enumerate(arms)}
    segment_arm = table["arm"].astype(str).map(column).to_numpy(dtype=np.int64)
    return (
        SplitStatistics(full, (halves[0], halves[1]), segments.full, segment_arm),
        noise["inflation"].to_numpy(dtype=float),
        noise["tau"].to_numpy(dtype=float),
    )


def unpack_segments(packed: ad.AnnData) -> tuple[SplitStatistics, Floats, Floats, pd.DataFrame]:
    """Segment statistics, inflation and tau per segment, and the table of segments, from an object of stage ``cnv``."""
    segments = packed.uns["segments"]
    names = tuple(segments["segment"].astype(str))
    first, second = (
        ArmStatistics(
            np.asarray(packed.obsm[f"segment_u_half{half}"], dtype=np.float64),
            np.asarray(packed.obsm[f"segment_info_half{half}"], dtype=np.float64),
            names,
        )
        for half in (0, 1)
    )
    return (
        SplitStatistics(ArmStatistics(first.u + second.u, first.info + second.info, names), (first, second)),
        segments["inflation"].to_numpy(dtype=float),
        segments["tau"].to_numpy(dtype=float),
        segments,
    )
