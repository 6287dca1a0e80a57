"""Planted tumour cells, doublets and coated cells, in small: the tables of ``benchmarks`` hold the whole study."""

from __future__ import annotations

import arbitration
import doublets
import numpy as np
import pandas as pd
import pytest
from planted import simulated

pytestmark = pytest.mark.validation
SEEDS = (11, 12)


@pytest.mark.parametrize(("depth", "required"), [(4_000, 0.95), (1_000, 0.85)])
def test_planted_cells_are_told_apart(depth, required):
    cells = arbitration.simulated_cells(seeds=SEEDS, number=8, depth=depth, marrow_cells=800)
    row = arbitration.row("", cells)
    assert row["n"] >= 2 * 2 * 8
    assert row["accuracy"] >= required
    # 40 cells: a bin of five in which one call is wrong moves it by 0.02
    assert row["ece"] <= 0.06
    assert row["residents_called_single"] == 0
    assert row["residents_called_doublet"] <= 0.005 * row["residents"]


def test_heterotypic_doublets_are_flagged_and_single_cells_are_not():
    sample = simulated(11, single=8, doublet=8, coated=0, lysed_tumour=0.02, doublet_rate=0.04, marrow_cells=800)
    cells, seconds = doublets.flags(sample, seed=11, tried=False)
    line = next(line for line in doublets.table("", cells) if line["method"] == "is_doublet")
    assert line["both"] >= 0.8
    assert line["single_residents"] <= 0.05
    by_type = cells[cells["kind"] == "resident"].groupby("cell_type")["is_doublet"].agg(["mean", "size"])
    assert (by_type.loc[by_type["size"] >= 50, "mean"] <= 0.05).all()
    # the target is 3 s for 1,200 cells; a shared machine may be twice as slow
    assert seconds <= 6


def test_calibration_by_hand():
    cells = pd.DataFrame(
        {
            "kind": ["single", "doublet", "coated", "coated", "resident"],
            "arbitration": ["single", "single", "coated", "", "single"],
            "p_single": [0.95, 0.65, 0.0, np.nan, 0.9],
            "p_doublet": [0.05, 0.35, 0.15, np.nan, 0.1],
            "p_coated": [0.0, 0.0, 0.85, np.nan, 0.0],
            "summed": False,
            "sample": "S",
            "seed": 1,
        }
    )
    bins = arbitration.calibration(cells)
    assert bins["cells"].tolist() == [1, 1, 1]
    assert bins["confidence"].tolist() == pytest.approx([0.65, 0.85, 0.95])
    assert bins["right"].tolist() == [0, 1, 1]
    row = arbitration.row("", cells)
    assert row["accuracy"] == pytest.approx(2 / 3)
    assert row["ece"] == pytest.approx((0.65 + 0.15 + 0.05) / 3)
    assert row["coated_without_evidence"] == 1
    assert row["residents_called_single"] == 1
