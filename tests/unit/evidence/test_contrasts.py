import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dtcflow.evidence import contrasts as con


def table(spec):
    """(patient, compartment, sample, call, number) -> cell table with its row numbers as index."""
    rows = []
    for patient, compartment, sample, call, n in spec:
        rows += [
            {
                "cell_id": f"{sample}:{call}{i:02d}",
                "sample_id": sample,
                "patient_id": patient,
                "compartment": compartment,
                "malignant_call": call,
                "malignancy_q": 0.005 if i % 2 else 0.03,
            }
            for i in range(n)
        ]
    return pd.DataFrame(rows)


def lay_out(cells, **options):
    return con.lay_out(cells, **({"a": "DTC", "b": "PT", "strict_q": 0.01} | options))


def two_patients():
    return lay_out(
        table(
            [
                ("A", "marrow", "A_m", "malignant", 3),
                ("A", "primary", "A_p", "malignant", 4),
                ("B", "marrow", "B_m", "malignant", 5),
                ("B", "primary", "B_p", "malignant", 3),
            ]
        )
    )


def test_every_missing_pattern_has_its_reason():
    cells = table(
        [
            ("full", "marrow", "f_m", "malignant", 3),
            ("full", "marrow", "f_m", "normal", 9),
            ("full", "primary", "f_p", "malignant", 3),
            ("noprimary", "marrow", "n_m", "malignant", 5),
            ("nodtc", "marrow", "d_m", "normal", 5),
            ("nodtc", "primary", "d_p", "malignant", 5),
            ("few", "marrow", "w_m", "malignant", 2),
            ("few", "primary", "w_p", "malignant", 5),
            ("donor", "normal_marrow", "o_m", "normal", 5),
        ]
    )
    found = lay_out(cells)
    assert found.patients == ("full",)
    assert len(found.table) == 6
    reasons = found.overview.set_index("patient_id")["reason"].to_dict()
    assert reasons == {
        "full": "",
        "noprimary": "no primary sample",
        "nodtc": "no malignant cell in marrow",
        "few": "2 malignant cells in marrow, 3 needed",
    }


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_cells_leave_nobody(n):
    cells = table(
        [("A", "marrow", "m", "malignant", n), ("A", "primary", "p", "malignant", 9), ("A", "marrow", "m", "normal", 1)]
    )
    found = lay_out(cells)
    assert found.patients == ()
    assert found.table.empty


def test_small_samples_are_pooled_not_dropped():
    cells = table(
        [
            ("A", "marrow", "left", "malignant", 2),
            ("A", "marrow", "right", "malignant", 2),
            ("A", "marrow", "third", "malignant", 4),
            ("A", "primary", "p", "malignant", 3),
        ]
    )
    own = lay_out(cells).table.query("side == 0")
    assert own["sample"].value_counts().to_dict() == {con.SMALL_SAMPLES: 4, "third": 4}


def test_cells_are_capped_by_a_choice_that_ignores_their_order():
    cells = table([("A", "marrow", "m", "malignant", 30), ("A", "primary", "p", "malignant", 40)])
    first = lay_out(cells, max_cells=10, seed=4)
    assert len(first.table) == 20
    shuffled = cells.sample(frac=1, random_state=1)
    again = lay_out(shuffled, max_cells=10, seed=4)
    assert again.table.equals(first.table)
    other = lay_out(cells, max_cells=10, seed=5)
    assert set(other.table["cell_id"]) != set(first.table["cell_id"])


def test_choice_of_one_patient_does_not_depend_on_the_others():
    one = table([("A", "marrow", "m", "malignant", 30), ("A", "primary", "p", "malignant", 40)])
    two = pd.concat([one, table([("B", "marrow", "x", "malignant", 9), ("B", "primary", "y", "malignant", 9)])])
    alone = lay_out(one, max_cells=10)
    together = lay_out(two.reset_index(drop=True), max_cells=10)
    own = together.table["patient_id"] == "A"
    assert list(together.table.loc[own, "cell_id"]) == list(alone.table["cell_id"])


def test_strict_cells_are_those_with_a_small_q():
    strict = two_patients().table.query("patient_id == 'B' and side == 0")["strict"]
    assert list(strict) == [False, True, False, True, False]


def test_depth_fractions_bring_the_deeper_side_to_the_lower_median():
    layout = two_patients()
    totals = np.array([100.0, 200, 300] + [1000, 1000, 400, 1000] + [900] * 5 + [300, 300, 300])
    share = con.depth_fractions(totals, layout)
    assert share == pytest.approx([1, 1, 1] + [0.2] * 4 + [1 / 3] * 5 + [1, 1, 1])
    moved = totals * share
    for p in (0, 1):
        sides = [np.median(moved[(layout.patient == p) & (layout.side == k)]) for k in (0, 1)]
        assert sides[0] == pytest.approx(sides[1])


def test_unpaired_people_lose_what_they_have_beyond_the_depth_of_their_study():
    """A shallow patient of the deeper group keeps what she has; one share for the group would take nine tenths."""
    spec = [(f"D{i}", "marrow", f"D{i}_m", "malignant", 3) for i in range(3)]
    spec += [(f"P{i}", "primary", f"P{i}_p", "malignant", 3) for i in range(3)]
    layout = lay_out(table(spec), paired=False)
    depth = {"D0": 1500.0, "D1": 20_000, "D2": 20_000, "P0": 1000, "P1": 2000, "P2": 4000}
    totals = np.array([depth[name] for name in layout.table["patient_id"]])
    moved = pd.Series(totals * con.depth_fractions(totals, layout)).groupby(layout.table["patient_id"]).first()
    assert moved.to_dict() == pytest.approx({"D0": 1500, "D1": 2000, "D2": 2000, "P0": 1000, "P1": 2000, "P2": 2000})


def test_equal_depth_thins_nothing():
    assert con.depth_fractions(np.full(15, 500.0), two_patients()) == pytest.approx(np.ones(15))


def counts_for(layout, n_genes=400, seed=0):
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(2.0, size=(len(layout.table), n_genes)).astype(np.float32))


def test_thinning_keeps_the_expected_share_and_never_adds():
    layout = two_patients()
    counts = counts_for(layout, 4000)
    share = np.where(layout.side == 1, 0.3, 1.0)
    out = con.ThinnedDraws(counts, share, layout, seed=1).whole(0)
    before, after = (np.asarray(m.sum(axis=1)).ravel() for m in (counts, out))
    # binomial: 8,000 transcripts at .3 have a standard error of .005
    assert after / before == pytest.approx(share, abs=0.02)
    assert (out - counts).max() <= 0
    assert (out.data > 0).all()
    same = layout.side == 0
    assert (out[same] != counts[same]).nnz == 0


def test_thinning_is_seeded_and_each_patient_has_a_stream():
    layout = two_patients()
    counts, share = counts_for(layout), np.full(15, 0.5)
    first = con.ThinnedDraws(counts, share, layout, seed=1).whole(0)
    assert (con.ThinnedDraws(counts, share, layout, seed=1).whole(0) != first).nnz == 0
    assert (con.ThinnedDraws(counts, share, layout, seed=1).whole(1) != first).nnz > 0
    only_b = np.where(layout.patient == 1, 0.5, 1.0)
    alone = con.ThinnedDraws(counts, only_b, layout, seed=1).whole(0)
    own = layout.patient == 1
    assert (alone[own] != first[own]).nnz == 0


@pytest.mark.parametrize("n", [1, 2, 5, 9, 10, 20, 100])
def test_trimmed_mean_is_scipys(n):
    values = np.random.default_rng(n).normal(size=(n, 3))
    assert con.trimmed_mean(values) == pytest.approx(stats.trim_mean(values, 0.1, axis=0))


def test_group_values_by_hand():
    layout = two_patients()
    z = np.zeros((15, 1))
    z[:3, 0] = [1, 2, 3]
    z[3:7, 0] = [0, 0, 2, 2]
    z[7:12, 0] = [5, 5, 5, 5, 10]
    z[12:, 0] = [1, 1, 4]
    groups = con.group_values(z, layout)
    assert groups.value[:, :, 0] == pytest.approx(np.array([[2, 1], [6, 2]]))
    assert groups.variance[:, :, 0] == pytest.approx(np.array([[1, 4 / 3], [5, 3]]))
    assert groups.n.tolist() == [[3, 4], [5, 3]]
    assert con.group_values(z, layout, aggregation="median").value[1, 0, 0] == 5

    found = con.differences(groups)
    scale = np.median([np.sqrt(4 / 3), np.sqrt(3)])
    pooled_a = (2 * 1 + 4 * 5) / 6
    pooled_b = (3 * 4 / 3 + 2 * 3) / 5
    assert found.scale == pytest.approx([scale])
    assert found.difference[:, 0] == pytest.approx([1 / scale, 4 / scale])
    assert found.variance[:, 0] == pytest.approx(
        [(pooled_a / 3 + pooled_b / 4) / scale**2, (pooled_a / 5 + pooled_b / 3) / scale**2]
    )
    assert found.value_a - found.value_b == pytest.approx(found.difference)


def test_samples_of_a_patient_are_weighted_by_their_cells():
    cells = table(
        [
            ("A", "marrow", "m1", "malignant", 6),
            ("A", "marrow", "m2", "malignant", 3),
            ("A", "primary", "p", "malignant", 3),
        ]
    )
    layout = lay_out(cells)
    z = np.where(layout.table["sample"].to_numpy() == "m2", 3.0, 0.0)[:, None]
    groups = con.group_values(z, layout)
    assert groups.value[0, 0, 0] == pytest.approx(1.0)  # (6 * 0 + 3 * 3) / 9
    assert groups.variance[0, 0, 0] == 0  # the difference between samples is no variance between cells
    assert groups.freedom[0, 0] == 7


def test_side_without_enough_cells_is_unusable():
    layout = two_patients()
    keep = ~((layout.patient == 0) & (layout.side == 0)) | (np.arange(15) == 0)
    groups = con.group_values(np.random.default_rng(0).normal(size=(15, 2)), layout, cells=keep)
    found = con.differences(groups)
    assert found.usable.tolist() == [False, True]
    assert np.isnan(found.difference[0]).all()
    assert np.isfinite(found.difference[1]).all()


def test_missing_scores_do_not_count():
    layout = two_patients()
    z = np.ones((15, 2))
    z[0] = np.nan
    z[7:12, 1] = np.nan
    groups = con.group_values(z, layout)
    assert groups.value[0, 0] == pytest.approx([1, 1])
    assert groups.value[1, 0, 0] == 1
    assert np.isnan(groups.value[1, 0, 1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(0.2, 5))
def test_difference_ignores_level_and_unit_of_the_score(seed, level, unit):
    layout = two_patients()
    z = np.random.default_rng(seed).normal(size=(15, 1))
    first = con.differences(con.group_values(z, layout))
    moved = con.differences(con.group_values(z * unit + level, layout))
    assert moved.difference == pytest.approx(first.difference, rel=1e-6, abs=1e-9)
    assert moved.variance == pytest.approx(first.variance, rel=1e-6)


def test_median_has_a_larger_variance():
    layout = two_patients()
    groups = con.group_values(np.random.default_rng(0).normal(size=(15, 1)), layout)
    plain, median = con.differences(groups), con.differences(groups, aggregation="median")
    assert median.variance == pytest.approx(plain.variance * np.pi / 2)


def test_average_over_repeats():
    layout = two_patients()
    parts = [con.group_values(np.full((15, 1), float(i)), layout) for i in (1, 3)]
    assert con.average(parts).value == pytest.approx(np.full((2, 2, 1), 2.0))
