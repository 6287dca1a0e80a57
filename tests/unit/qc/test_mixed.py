from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.qc.doublets import Doublets
from dtcflow.qc.lineage import first_pass_lineage
from dtcflow.qc.mixed import COLUMNS, METHODS, mixed_droplets
from dtcflow.scores.signatures import load_markers

PANEL = tuple(load_markers()["epithelial"].up)


@pytest.fixture(scope="module")
def sample(marrow):
    adata = marrow.draw({"T_NK": 60, "monocyte": 60, "B": 40, "epithelial": 5}, ambient=0.03, seed=21)
    first = first_pass_lineage(adata.layers["counts"], adata.var_names, cell_ids=adata.obs_names, n_null=50).cells
    return adata, first


def scrublet(n: int, *, flagged: int = 0, status: str = "run") -> Doublets:
    flags = np.arange(n) < flagged
    return Doublets(np.where(flags, 0.9, 0.1), flags, status, 0.01)


def mixed(sample, **options):
    adata, first = sample
    arguments = {"scrublet": scrublet(adata.n_obs), "panel": PANEL, **options}
    return mixed_droplets(
        adata.layers["counts"], adata.var_names, first, arguments.pop("scrublet"), cell_ids=adata.obs_names, **arguments
    )


def test_flags_of_all_methods_are_joined_and_named(sample) -> None:
    cells, summary = mixed(sample, scrublet=scrublet(165, flagged=3))
    assert tuple(cells.columns) == COLUMNS
    assert cells["is_doublet"].iloc[:3].all()
    assert cells["doublet_methods"].iloc[:3].str.startswith("scrublet").all()
    assert (cells["is_doublet"] == (cells["doublet_methods"] != "")).all()
    assert {m for text in cells["doublet_methods"] for m in text.split(";")} <= {"", *METHODS}
    assert (cells["arbitration"].iloc[160:] == "single").all()
    assert summary["arbitration"]["status"] == "arbitrated"
    assert summary["two_types"]["status"] == "run"


def test_plate_data_are_not_arbitrated(sample) -> None:
    cells, summary = mixed(sample, plate=True, scrublet=scrublet(165, status="not_run: plate data"))
    assert summary["arbitration"]["status"] == "not_arbitrated: plate data"
    assert summary["two_types"]["status"].startswith("not_run: plate data")
    assert (cells["arbitration"] == "").all()
    assert not cells["is_doublet"].any()


def test_without_an_epithelial_panel(sample) -> None:
    assert mixed(sample, panel=())[1]["arbitration"]["status"] == "not_arbitrated: no epithelial marker panel"


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_small_samples(sample, n: int) -> None:
    adata, first = sample
    part = adata[:n]
    cells, summary = mixed_droplets(
        part.layers["counts"], part.var_names, first.iloc[:n], scrublet(n), cell_ids=part.obs_names, panel=PANEL
    )
    assert len(cells) == n
    assert summary["arbitration"]["status"].startswith("not_arbitrated")
    assert summary["two_types"]["status"].startswith("not_run")
    pd.testing.assert_index_equal(cells.index, part.obs_names)
