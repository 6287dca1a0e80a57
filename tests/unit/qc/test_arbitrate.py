from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow import contracts
from dtcflow.qc import explanations
from dtcflow.qc.arbitrate import CLASSES, COLUMNS, arbitrate, candidates
from dtcflow.scores.signatures import load_markers

PANEL = tuple(load_markers()["epithelial"].up)


@pytest.fixture(scope="module")
def planted(marrow):
    """230 residents, then 6 single tumour cells, 6 doublets as deep as they are, 6 coated T cells."""
    residents = marrow.draw({"T_NK": 90, "monocyte": 90, "B": 50}, ambient=0.04, seed=1)
    single = marrow.draw({"epithelial": 6}, seed=2).layers["counts"]
    doublet = marrow.draw({"epithelial": 6}, counts=1500.0, seed=3).layers["counts"]
    doublet = doublet + marrow.draw({"monocyte": 6}, counts=1500.0, seed=4).layers["counts"]
    rng = np.random.default_rng(5)
    pooled = np.asarray(residents.layers["counts"].sum(axis=0), dtype=float).ravel()
    soup = 0.7 * pooled / pooled.sum() + 0.3 * marrow.profiles["epithelial"]
    coated = marrow.draw({"T_NK": 6}, counts=1500.0, seed=6).layers["counts"] + sp.csr_matrix(
        rng.poisson(1500 * soup, (6, soup.size)).astype(np.float32)
    )
    counts = sp.csr_matrix(sp.vstack([residents.layers["counts"], single, doublet, coated]), dtype=np.float32)
    n = counts.shape[0]
    first = pd.DataFrame(
        {
            "first_pass_type": [*residents.obs["truth"], *["epithelial"] * 12, *["T_NK"] * 6],
            "epithelial_z": [*[0.0] * 230, *[10.0] * 12, *[3.0] * 6],
            "n_epithelial_markers": [*[0] * 230, *[12] * 12, *[4] * 6],
        }
    )
    return SimpleNamespace(
        counts=counts,
        genes=residents.var_names,
        first=first,
        ids=pd.Index([f"c{i:04d}" for i in range(n)]),
        kind=np.array([*[""] * 230, *np.repeat(CLASSES, 6)]),
    )


def ask(p: SimpleNamespace, rows: np.ndarray | None = None, **options: object):
    rows = np.arange(len(p.ids)) if rows is None else rows
    return arbitrate(
        sp.csr_matrix(p.counts[rows]), p.genes, p.first.iloc[rows], cell_ids=p.ids[rows], panel=PANEL, **options
    )


@pytest.fixture(scope="module")
def answer(planted):
    return ask(planted)


def test_planted_cells_are_told_apart(planted, answer) -> None:
    assert answer.status == "arbitrated"
    assert tuple(answer.cells.columns) == COLUMNS
    assert answer.cells["arbitration"].tolist() == planted.kind.tolist()
    assert (answer.cells.loc[236:241, "doublet_partner"] == "monocyte").all()
    assert (answer.cells.loc[planted.kind != "doublet", "doublet_partner"] == "").all()
    assert answer.soup_epithelial == pytest.approx(0.3, abs=0.15)
    json.dumps(contracts._plain(answer.as_dict()), allow_nan=False)


def test_probabilities_add_up_and_only_candidates_have_them(planted, answer) -> None:
    p = answer.cells[["p_single", "p_doublet", "p_coated"]].to_numpy(float)
    asked = planted.kind != ""
    np.testing.assert_allclose(p[asked].sum(axis=1), 1)
    assert np.isnan(p[~asked]).all()
    assert answer.n_candidates == asked.sum()


def test_order_of_cells_and_genes_does_not_matter(planted, answer) -> None:
    rng = np.random.default_rng(3)
    rows, columns = rng.permutation(len(planted.ids)), rng.permutation(len(planted.genes))
    again = arbitrate(
        sp.csr_matrix(planted.counts[rows][:, columns]),
        planted.genes[columns],
        planted.first.iloc[rows],
        cell_ids=planted.ids[rows],
        panel=PANEL,
    )
    assert again.cells["arbitration"].tolist() == answer.cells["arbitration"].to_numpy()[rows].tolist()
    np.testing.assert_allclose(
        again.cells["p_doublet"].to_numpy(), answer.cells["p_doublet"].to_numpy()[rows], atol=1e-3
    )


def test_a_measured_soup_is_used(planted) -> None:
    soup = np.asarray(planted.counts[:230].sum(axis=0), dtype=float).ravel()
    found = ask(planted, ambient_counts=soup)
    assert found.soup_profile == "empty_droplets"
    assert found.cells["arbitration"].tolist() == planted.kind.tolist()
    assert ask(planted, ambient_counts=np.zeros_like(soup)).soup_profile == "pooled"


def test_one_tumour_cell_alone_is_single(planted) -> None:
    rows = np.arange(231)
    assert ask(planted, rows).cells["arbitration"].iloc[230] == "single"


def test_no_candidate_is_a_complete_result(planted) -> None:
    found = ask(planted, np.arange(230))
    assert found.status == "arbitrated"
    assert (found.cells["arbitration"] == "").all()


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_few_cells_are_a_status(planted, n: int) -> None:
    found = ask(planted, np.arange(230 - n // 2, 230 - n // 2 + n))
    assert found.status.startswith("not_arbitrated: ")
    assert len(found.cells) == n
    assert found.cells[["p_single", "p_doublet", "p_coated"]].isna().all().all()


def test_a_panel_is_a_status(planted) -> None:
    found = arbitrate(planted.counts[:, :400], planted.genes[:400], planted.first, cell_ids=planted.ids, panel=PANEL)
    n_seen = int((planted.counts[:, :400].sum(axis=0) > 0).sum())
    assert found.status == f"not_arbitrated: {n_seen} genes with counts, 1000 are needed"


def test_what_makes_a_candidate() -> None:
    z = np.array([2.0, 1.9, np.nan, np.nan, 9.0])
    assert candidates(z, np.array([2, 9, 2, 1, 1])).tolist() == [True, False, True, False, False]


def test_the_grid_reads_off_a_smooth_function_and_each_hypothesis_stays_in_its_place() -> None:
    grid = explanations._grid(0.05)
    np.testing.assert_allclose(grid.mix.sum(axis=1), 1)
    values = -30 * (grid.mix[:, 0] - 0.3) ** 2 + 5 * grid.mix[:, 2]
    for points, at in zip(grid.points, grid.at, strict=True):
        expected = -30 * (at[..., 0] - 0.3) ** 2 + 5 * at[..., 2]
        np.testing.assert_allclose(points @ values, expected, atol=0.05)
    single, doublet, coated, resident = grid.at
    assert single[..., 1].max() < 1e-9
    assert doublet[..., 0].min() > 0.01
    for k, extra in enumerate(explanations.SOUP_EPITHELIAL):
        # epithelial RNA of a coated cell is in the soup's ratio to the rest of the soup
        for at in (coated[k], resident[k]):
            inside = at[:, 2] < explanations.COATED_RANGE[1] - 1e-9
            np.testing.assert_allclose(at[inside, 0], at[inside, 2] * extra / (1 - extra), atol=1e-9)


def test_posterior_by_hand() -> None:
    # likelihoods that say nothing: the prior is what the other cells and the start make it
    flat = explanations._posterior(np.zeros((2, 4, 1)), n_others=94)
    np.testing.assert_allclose(flat.probability.sum(axis=1), 1)
    assert flat.prior[3] > 0.9
    # one candidate that can only be single: (1 + 1) / (1 + 4)
    sure = np.full((1, 4, 2), -1000.0)
    sure[0, 0, 1] = 0.0
    found = explanations._posterior(sure, n_others=0)
    np.testing.assert_allclose(found.prior, [0.4, 0.2, 0.2, 0.2], rtol=1e-3)
    np.testing.assert_allclose(found.soup, [0, 1], atol=1e-9)
