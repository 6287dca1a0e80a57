"""UMAP panels: which cells are drawn, and that the picture does not depend on their order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.plot import style
from dtcflow.plot.embedding import choose_cells, umap_panels


def cells(n: int, *, n_malignant: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "cell_id": [f"S{i % 3}:{i:04d}" for i in range(n)],
            "cell_type": ["epithelial" if i < n_malignant else ("B", "T_NK")[i % 2] for i in range(n)],
            "compartment": ["marrow" if i % 2 else "primary" for i in range(n)],
            "sample_id": [f"S{i % 3}" for i in range(n)],
            "malignant_call": ["malignant" if i < n_malignant else "normal" for i in range(n)],
            "is_dtc": [i < n_malignant and i % 2 == 1 for i in range(n)],
        }
    )


def test_small_sets_are_drawn_whole() -> None:
    assert choose_cells(["normal"] * 5, ["a"] * 5, max_points=10).tolist() == [0, 1, 2, 3, 4]
    assert choose_cells([], [], max_points=10).tolist() == []


def test_cells_not_called_normal_are_never_dropped() -> None:
    calls = ["normal"] * 90 + ["malignant"] * 7 + ["indeterminate"] * 3
    chosen = choose_cells(calls, ["a"] * 100, max_points=20)
    assert len(chosen) == 20
    assert set(range(90, 100)) <= set(chosen.tolist())
    assert choose_cells(["malignant"] * 9, ["a"] * 9, max_points=2).tolist() == list(range(9))


def test_every_stratum_keeps_its_share_and_the_rare_one_survives() -> None:
    strata = ["common"] * 180 + ["rare"] * 20
    chosen = choose_cells(["normal"] * 200, strata, max_points=50)
    assert sum(position >= 180 for position in chosen) == 5
    assert len(chosen) == 50


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_any_number_of_cells_gives_a_figure(n: int) -> None:
    xy = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    svg = style.svg_file(umap_panels(xy, cells(n, n_malignant=min(n, 2))))
    assert ("No cell passed quality control" in svg) == (n == 0)


def test_picture_does_not_depend_on_the_order_of_cells() -> None:
    rng = np.random.default_rng(1)
    frame, xy = cells(60, n_malignant=5), rng.normal(size=(60, 2)).astype(np.float32)
    order = rng.permutation(60)
    first = umap_panels(xy, frame, max_points=30)
    second = umap_panels(xy[order], frame.iloc[order], max_points=30)
    assert style.svg_file(first) == style.svg_file(second)


def test_keys_count_all_cells_and_name_dtcs() -> None:
    xy = np.random.default_rng(2).normal(size=(60, 2)).astype(np.float32)
    svg = style.svg_file(umap_panels(xy, cells(60, n_malignant=4), max_points=10))
    assert "normal (56)" in svg
    assert "malignant (4)" in svg
    assert "DTC: malignant, in marrow (2)" in svg


def test_many_samples_are_said_to_be_grey() -> None:
    frame = cells(40).assign(sample_id=[f"S{i % 20:02d}" for i in range(40)])
    svg = style.svg_file(umap_panels(np.zeros((40, 2), dtype=np.float32), frame))
    assert "the 16 largest of 20 coloured" in svg
