from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.evidence import within
from dtcflow.evidence.marrow import marrow_axis
from dtcflow.evidence.paired import Cohort


def table(spec):
    """(patient, compartment, sample, call, number) -> cell table."""
    rows = [
        {
            "cell_id": f"{sample}:{call}{i:02d}",
            "sample_id": sample,
            "patient_id": patient,
            "compartment": compartment,
            "malignant_call": call,
        }
        for patient, compartment, sample, call, n in spec
        for i in range(n)
    ]
    return pd.DataFrame(rows)


CELLS = table(
    [
        ("A", "marrow", "A_m", "malignant", 6),
        ("A", "marrow", "A_n", "malignant", 2),
        ("A", "primary", "A_p", "malignant", 40),
        ("B", "marrow", "B_m", "malignant", 5),
        ("C", "marrow", "C_m", "malignant", 4),
        ("C", "primary", "C_p", "malignant", 9),
        ("D", "primary", "D_p", "malignant", 9),
        ("E", "marrow", "E_m", "normal", 40),
        ("F", "normal_marrow", "F_m", "normal", 9),
    ]
)
OPTIONS = {"group": "DTC", "reference": "PT", "minimum": 5, "max_cells": 100, "max_reference": 10, "seed": 1}


def test_patients_are_used_without_a_primary_and_every_other_one_has_a_reason():
    found = within.choose(CELLS, **OPTIONS)
    reasons = found.overview.set_index("patient_id")["reason"].to_dict()
    assert reasons == {
        "A": "",
        "B": "",
        "C": "4 malignant cells in marrow, 5 needed",
        "D": "no marrow sample",
        "E": "no malignant cell in marrow",
    }
    sides = found.table.groupby(["patient_id", "side"]).size().to_dict()
    assert sides == {("A", 0): 8, ("A", 1): 10, ("B", 0): 5, ("C", 0): 4, ("C", 1): 9, ("D", 1): 9}
    assert found.table.loc[found.table["cell_id"].str.startswith("A_n"), "sample"].unique() == ["(small samples)"]


def test_choice_does_not_depend_on_the_order_of_cells():
    shuffled = CELLS.sample(frac=1, random_state=3)
    assert within.choose(shuffled, **OPTIONS).table.equals(within.choose(CELLS, **OPTIONS).table)


def test_both_sides_come_to_the_lower_depth_of_their_patient():
    layout = within.choose(CELLS, **OPTIONS)
    totals = np.where(layout.side == 0, 1000.0, 4000.0)
    totals[(layout.table["patient_id"] == "C") & (layout.side == 0)] = 8000.0
    share = within.depth_shares(totals, layout)
    by = pd.Series(share).groupby([layout.table["patient_id"], layout.side]).unique().map(list).to_dict()
    # D has no cell of its own to go by: the cohort's median; the deeper cells of C come down to her primary's
    assert by == {("A", 0): [1], ("A", 1): [0.25], ("B", 0): [1], ("C", 0): [0.5], ("C", 1): [1], ("D", 1): [0.25]}
    # B has no primary: her cells come to the depth of the others' primaries, in whose spread they are measured
    deep = np.where(layout.side == 0, 8000.0, 2000.0)
    assert within.depth_shares(deep, layout) == pytest.approx(np.where(layout.side == 0, 0.25, 1))
    # reads have no depth in common with molecules: nobody on her platform has a primary, so B keeps what she has
    platform = np.where(layout.table["patient_id"] == "B", "plate", "droplet")
    mixed = within.depth_shares(deep, layout, platform)
    assert mixed == pytest.approx(np.where((layout.side == 0) & (platform == "droplet"), 0.25, 1))
    alone = within.choose(CELLS[CELLS["compartment"] == "marrow"], **OPTIONS)
    assert (within.depth_shares(np.full(len(alone.table), 500.0), alone) == 1).all()


@pytest.mark.parametrize("n", [2, 5, 20])
def test_annihilator_takes_out_sample_means_and_slopes_and_nothing_else(n):
    rng = np.random.default_rng(n)
    sample = np.array(["a", "b"] * n, dtype=object)
    nuisance = rng.normal(size=(2 * n, 1))
    project, freedom = within.annihilator(sample, nuisance)
    assert freedom == 2 * n - 3
    assert np.trace(project) == pytest.approx(freedom)
    assert project @ (3.0 * (sample == "a") - 2 * nuisance[:, 0]) == pytest.approx(np.zeros(2 * n), abs=1e-9)
    rest = project @ rng.normal(size=2 * n)
    assert project @ rest == pytest.approx(rest)


def test_constant_nuisance_costs_no_degree_of_freedom():
    _, freedom = within.annihilator(np.array(["a"] * 6, dtype=object), np.full((6, 2), 7.0))
    assert freedom == 5


def marrow_cohort(shares, n_genes=300, seed=0):
    """Tumour cells of one patient with these shares of marrow in them, a primary, and normal marrow cells."""
    rng = np.random.default_rng(seed)
    tumour, marrow = (rng.dirichlet(np.full(n_genes, 0.5)) for _ in range(2))
    cells = table(
        [
            ("A", "marrow", "A_m", "malignant", len(shares)),
            ("A", "primary", "A_p", "malignant", 40),
            ("A", "marrow", "A_m", "normal", 40),
        ]
    )
    rates = [(1 - a) * tumour + a * marrow for a in shares] + [tumour] * 40 + [marrow] * 40
    counts = sp.csr_matrix(rng.poisson(3000 * np.array(rates)).astype(np.float32))
    return Cohort(cells, counts, pd.Index([f"G{i}" for i in range(n_genes)]), {}, None)


def axis(cohort, exclude=()):
    layout = within.choose(cohort.cells, **OPTIONS | {"max_reference": 100})
    counts = cohort.take(layout.table["row"].to_numpy())
    return marrow_axis(cohort, counts, layout, group="DTC", exclude=exclude, seed=1), layout


def test_marrow_axis_follows_the_contaminating_share():
    shares = np.linspace(0, 0.5, 20)
    cohort = marrow_cohort(shares)
    found, layout = axis(cohort)
    own = found[layout.side == 0]
    assert np.corrcoef(own, shares)[0, 1] > 0.98
    assert found[layout.side == 1].mean() == pytest.approx(own[0], abs=0.1 * np.ptp(own))


def test_marrow_axis_ignores_excluded_genes():
    cohort = marrow_cohort(np.linspace(0, 0.5, 20))
    gene = int(np.asarray(cohort.counts.mean(axis=0)).argmax())
    out = cohort.genes[[gene]]
    without, layout = axis(cohort, out)
    share = cohort.counts[layout.table["row"].to_numpy(), gene].toarray().ravel()
    share = share / np.asarray(cohort.counts[layout.table["row"].to_numpy()].sum(axis=1)).ravel()
    # what the gene adds to the axis is its share times one weight
    added = (axis(cohort)[0] - without)[share > 0] / share[share > 0]
    assert added == pytest.approx(np.full(added.size, added[0]))
    assert abs(added[0]) > 0


def test_marrow_axis_needs_normal_cells():
    cohort = marrow_cohort(np.zeros(20))
    few = cohort.cells.index[cohort.cells["malignant_call"] == "normal"][5:]
    cells = cohort.cells.copy()
    cells.loc[few, "malignant_call"] = "indeterminate"
    assert axis(replace(cohort, cells=cells))[0] is None


def test_weighted_null_uses_the_weights_of_the_estimate():
    null = np.array([[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]])
    found = within.weighted_null(null, np.array([1.0, 0.5, np.nan]), 0.0)
    assert found == pytest.approx([(1 + 2 * 3) / 3, (2 + 2 * 6) / 3])
    assert within.weighted_null(null, np.full(3, np.nan), 0.0).size == 0


def test_leave_one_out_names_who_is_left_out():
    found = within.leave_one_out(["A", "B", "C"], np.array([1.0, 2.0, 6.0]), np.ones(3))
    assert found["patient_id"].tolist() == ["A", "B", "C"]
    assert found["estimate"].to_numpy() == pytest.approx([4.0, 3.5, 1.5])
