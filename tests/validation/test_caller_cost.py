"""The measurement of the caller's cost, on few cells: its limits hold for many."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from caller_cost import LIMITS, MEMORY_LIMIT_MB, STEPS, THEIRS, cost_table, make_cells, within_limits

pytestmark = pytest.mark.validation


def test_every_step_is_measured_beside_infercnvpy(tmp_path) -> None:
    make_cells(tmp_path / "cells.h5ad", n_cells=1000, n_genes=6000, seed=1)
    table = cost_table(tmp_path / "cells.h5ad", repeats=1).set_index("step")
    assert table.index.tolist() == list(STEPS)
    assert (table["cpu_s"] > 0).all()
    assert table.loc[THEIRS, "ratio_to_infercnvpy"] == 1
    # 0.07 on 20,000 cells
    assert table.loc["windows", "ratio_to_infercnvpy"] < 0.5
    assert (table["peak_mb_above_matrix"] <= MEMORY_LIMIT_MB).all()


@pytest.mark.parametrize(
    ("column", "value", "fine"),
    [
        ("cpu", 0.99, True),
        ("cpu", 1.01, False),
        ("peak", MEMORY_LIMIT_MB - 1, True),
        ("peak", MEMORY_LIMIT_MB + 1, False),
    ],
)
def test_a_ratio_or_a_peak_beyond_its_limit_fails(column: str, value: float, fine: bool) -> None:
    table = pd.DataFrame(
        {
            "step": [THEIRS, "stage 1", "windows"],
            "ratio_to_infercnvpy": [1.0, LIMITS["stage 1"] * (value if column == "cpu" else 0.5), 5.0],
            "limit": [np.nan, LIMITS["stage 1"], np.nan],
            "peak_mb_above_matrix": [5000.0, value if column == "peak" else 1.0, 1.0],
            "peak_limit_mb": [np.nan, MEMORY_LIMIT_MB, MEMORY_LIMIT_MB],
        }
    )
    assert within_limits(table) == fine
