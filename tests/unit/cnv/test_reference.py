from __future__ import annotations

import numpy as np
import pandas as pd

from dtcflow.cnv.reference import choose_reference
from dtcflow.order import stable_order


def cells(**columns) -> pd.DataFrame:
    n = len(columns["cell_type"])
    base = {
        "cell_id": [f"s:{i}" for i in range(n)],
        "epithelial_z": np.zeros(n),
        "n_epithelial_markers": np.zeros(n),
        "is_doublet": np.zeros(n, dtype=bool),
    }
    return pd.DataFrame(base | columns)


def choose(frame: pd.DataFrame, **changes):
    arguments = {"max_per_type": 30, "min_cells": 40, "seed": 0, "epithelial_z": 3.0} | changes
    return choose_reference(frame, **arguments)


def test_candidates_doublets_unknown_and_small_types_are_left_out() -> None:
    frame = cells(
        cell_type=np.array(
            ["T_NK"] * 50 + ["B"] * 19 + ["unknown"] * 30 + ["epithelial"] * 30 + ["monocyte"] * 25, dtype=object
        )
    )
    frame.loc[:4, ["epithelial_z", "n_epithelial_markers"]] = [5.0, 3]
    frame.loc[5:9, "is_doublet"] = True
    reference = choose(frame)
    assert reference.status == "ok"
    assert reference.counts == {"T_NK": 30, "monocyte": 25}
    assert not set(reference.rows) & set(range(10))


def test_status_instead_of_a_substitute() -> None:
    none = choose(cells(cell_type=np.array(["epithelial"] * 60 + ["T_NK"] * 5, dtype=object)))
    assert none.status == "no_reference"
    assert len(none.rows) == 0
    assert "5 normal cells" in none.note
    small = choose(cells(cell_type=np.array(["T_NK"] * 25, dtype=object)))
    assert small.status == "small_reference"
    assert "25 reference cells, 40 are needed" in small.note
    assert choose(cells(cell_type=np.array([], dtype=object))).status == "no_reference"


def test_users_labels_decide_when_given() -> None:
    frame = cells(cell_type=np.array(["unknown"] * 60, dtype=object), mine=["normal"] * 45 + ["tumour"] * 15)
    reference = choose(frame, max_per_type=100, key="mine", labels=["normal"])
    assert reference.counts == {"normal": 45}


def test_choice_does_not_depend_on_row_order_or_other_cells() -> None:
    frame = cells(cell_type=np.array(["T_NK"] * 100, dtype=object))
    chosen = set(frame["cell_id"].to_numpy()[choose(frame).rows])
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    assert set(shuffled["cell_id"].to_numpy()[choose(shuffled).rows]) == chosen
    more = pd.concat(
        [frame, cells(cell_type=np.array(["B"] * 15, dtype=object)).assign(cell_id=lambda d: "x" + d.cell_id)]
    )
    assert set(more["cell_id"].to_numpy()[choose(more.reset_index(drop=True)).rows]) == chosen


def test_stable_order_depends_on_id_and_seed_only() -> None:
    assert stable_order(["a", "b"], seed=0)[0] == stable_order(["b", "a"], seed=0)[1]
    assert stable_order(["a"], seed=0)[0] != stable_order(["a"], seed=1)[0]
