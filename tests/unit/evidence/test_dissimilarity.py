from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dtcflow.cnv.arms import ArmStatistics
from dtcflow.contracts import MALIGNANT_DOUBLET
from dtcflow.evidence import dissimilarity as di
from dtcflow.evidence.shared_errors import shared_variance

ARMS = tuple(f"{1 + j // 2}{'pq'[j % 2]}" for j in range(38))


def patient(name, *, keep, n_dtc=8, n_primary=20, n_normal=0, depth=(60.0, 200.0), rng=None, error=0.0, offset=0.0):
    """Cells of a tumour with ten altered arms; a disseminated cell keeps each with probability ``keep``."""
    events = rng.choice(len(ARMS), 10, replace=False)
    sign = np.where(rng.random(10) < 0.5, 0.4, -0.4)
    wrong = rng.normal(0, error, len(ARMS))
    bias = rng.normal(0, offset, len(ARMS))
    rows, truth, info = [], [], []

    def add(group, where, n, profile, depth, clone=""):
        for i in range(n):
            rows.append((f"{name}_{where}:{group}{i:03d}", f"{name}_{where}", group, clone))
            truth.append(profile() + bias)
            info.append(depth * np.exp(rng.normal(0, 0.3)))

    def clone():
        out = np.zeros(len(ARMS))
        out[events] = sign
        return out + wrong

    def disseminated():
        out = np.zeros(len(ARMS))
        kept = rng.random(10) < keep
        out[events[kept]] = sign[kept]
        free = np.setdiff1d(np.arange(len(ARMS)), events[kept])
        other = rng.choice(free, int((~kept).sum()), replace=False)
        out[other] = np.where(rng.random(other.size) < 0.5, 0.4, -0.4)
        return out + wrong

    add("DTC", "marrow", n_dtc, disseminated, depth[0])
    add("PT", "primary", n_primary, clone, depth[1], "c1")
    add("normal", "marrow", n_normal, lambda: np.zeros(len(ARMS)), depth[0])
    add("normal", "primary", n_normal, lambda: np.zeros(len(ARMS)), depth[1])
    info = np.array(info)[:, None] * np.ones(len(ARMS))
    u = (np.array(truth) + rng.normal(size=info.shape) / np.sqrt(info)) * info
    cells = pd.DataFrame(rows, columns=["cell_id", "sample_id", "group", "clone_id"])
    return di.ArmCells(cells, ArmStatistics(u, info, ARMS))


def cohort(keep, n=8, seed=0, **options):
    rng = np.random.default_rng(seed)
    return {f"P{p}": patient(f"P{p}", keep=keep, rng=rng, **options) for p in range(n)}


@pytest.mark.parametrize(("keep", "expected"), [(1.0, 1.0), (0.5**0.5, 0.5), (0.0, 0.0)])
def test_ratio_is_the_share_of_common_events(keep, expected):
    found = di.evaluate_dissimilarity(cohort(keep, n_dtc=20), repeats=5)
    assert found.fit.n == 8
    assert found.fit.estimate == pytest.approx(expected, abs=0.12)
    assert found.fit.ci_low - 0.05 < expected < found.fit.ci_high + 0.05
    table = found.patients
    span = table["ceiling"] - table["floor"]
    assert ((table["similarity"] - table["floor"]) / span).to_numpy() == pytest.approx(table["value_a"].to_numpy())
    assert (table["value_a"] - 0.5).to_numpy() == pytest.approx(table["difference"].to_numpy())


def test_dissimilar_and_alike_cells_get_their_verdict():
    apart, alike = (di.evaluate_dissimilarity(cohort(keep), repeats=5) for keep in (0.2, 1.0))
    assert apart.fit.ci_high < 0.5
    assert apart.test.p_value < 0.05
    assert alike.fit_low.ci90_low > 0.5


@pytest.mark.parametrize("depth", [(20.0, 400.0), (100.0, 100.0), (200.0, 30.0)])
def test_depth_of_either_kind_does_not_move_the_ratio(depth):
    found = di.evaluate_dissimilarity(cohort(1.0, depth=depth, n_dtc=12), repeats=10)
    # unmatched, pairs at 20 and 400 would have a ratio of about .4
    assert found.fit.estimate == pytest.approx(1.0, abs=0.15)


def test_unmatched_noise_would_have_mattered(monkeypatch):
    monkeypatch.setattr(di, "_levelled", lambda own, **_: (own.dtc, own.primary))
    found = di.evaluate_dissimilarity(cohort(1.0, depth=(20.0, 400.0), n_dtc=12), repeats=1)
    assert found.fit.estimate < 0.7


def test_errors_of_one_patient_pull_towards_one_and_normal_cells_take_them_out():
    without = di.evaluate_dissimilarity(cohort(0.0, offset=0.3), repeats=5).fit.estimate
    with_normal = di.evaluate_dissimilarity(cohort(0.0, offset=0.3, n_normal=40), repeats=5).fit.estimate
    assert without > 0.3
    assert with_normal == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("error", [0.05, 0.1])
@pytest.mark.parametrize(
    ("gains", "losses", "cells", "information"),
    [(5, 5, 60, 100.0), (10, 0, 60, 100.0), (9, 1, 60, 100.0), (3, 0, 60, 100.0), (0, 0, 60, 100.0), (8, 2, 4, 30.0)],
)
def test_variance_of_shared_errors_is_found_beside_events(error, gains, losses, cells, information):
    found = []
    for seed in range(30):
        rng = np.random.default_rng([seed, gains, cells])
        truth = np.zeros(39)
        where = rng.choice(39, gains + losses, replace=False)
        truth[where[:gains]], truth[where[gains:]] = 0.35, -0.35
        truth += rng.normal(0, error, 39)
        noise = np.full((cells, 39), 1 / information)
        ratio = truth + rng.normal(size=noise.shape) * np.sqrt(noise)
        found.append(shared_variance(ratio, noise, np.full(cells, "c1", dtype=object)) / error**2)
        mirrored = shared_variance(-ratio, noise, np.full(cells, "c1", dtype=object)) / error**2
        assert mirrored == pytest.approx(found[-1], rel=1e-3)
    if cells > 10:
        assert np.median(found) == pytest.approx(1.0, abs=0.4)
    # where levels cannot be told from noise: too much rather than too little
    assert np.mean(found) > 0.75


def test_own_expression_supports_no_dissimilarity_and_refutes_none():
    apart, alike = (
        di.evaluate_dissimilarity(cohort(keep, error=error, n_dtc=25), repeats=5)
        for keep, error in ((0.5**0.5, 0.12), (1.0, 0.06))
    )
    assert apart.fit.ci90_low > 0.5  # pulled towards 1 by what the cells of a patient share
    assert apart.fit_low.ci90_low < 0.5
    assert apart.fit_low.estimate < 0.55
    assert alike.fit_low.ci90_low > 0.5
    table = apart.patients
    raised = table["floor"] + table["own_expression"]
    low = ((table["similarity"] - raised) / (table["ceiling"] - raised)).clip(upper=table["value_a"])
    left = table["ceiling"] - raised > 0.2
    assert left.sum() >= 4
    assert low[left].to_numpy() == pytest.approx(table.loc[left, "value_low"].to_numpy())
    assert (table["value_low"] <= table["value_a"]).all()


def test_where_nothing_is_left_above_the_raised_floor_cells_may_be_strangers():
    mean = di._Mean(0.5, np.array([0.5, 0.5]), 1)
    low, high = mean.raised(0.3), mean.raised(0.32)
    assert di._low(0.8, 0.1, mean, low, high) == (0.0, 0.1)
    assert di._low(-0.2, 0.1, mean, low, high) == (-0.2, 0.1)
    # as alike as cells of one clone, above whatever floor
    assert di._low(1.2, 0.1, mean, low, high) == (1.2, 0.1)
    # similarity below the raised floor: no less than strangers
    assert di._low(0.8, 0.1, mean, low, mean.raised(0.5))[0] == 0.0


def test_normal_cells_are_used_in_all_samples_or_in_none():
    group = cohort(0.5, n=3, offset=0.3, n_normal=40)
    both = di.evaluate_dissimilarity(group, repeats=2).patients
    one_sided = {}
    for name, one in group.items():
        marrow = one.cells["cell_id"].str.contains("_marrow:normal")
        cells = one.cells.assign(group=one.cells["group"].where(~marrow, ""))
        one_sided[name] = replace(one, cells=cells)
    neither = {
        name: replace(one, cells=one.cells.assign(group=one.cells["group"].replace("normal", "")))
        for name, one in group.items()
    }
    first, second = (di.evaluate_dissimilarity(one, repeats=2).patients for one in (one_sided, neither))
    assert first["value_a"].tolist() == second["value_a"].tolist()
    assert (both["value_a"] < second["value_a"]).all()


def test_every_patient_without_a_ratio_has_a_reason():
    group = cohort(1.0, n=5)
    rng = np.random.default_rng(9)
    group["none"] = patient("none", keep=1, n_dtc=0, rng=rng)
    group["two"] = patient("two", keep=1, n_dtc=2, rng=rng)
    group["noprimary"] = patient("noprimary", keep=1, n_primary=0, rng=rng)
    group["noclone"] = patient("noclone", keep=1, rng=rng)
    group["noclone"].cells["clone_id"] = ""
    flat = patient("flat", keep=1, rng=rng)
    noise = np.random.default_rng(1).normal(size=flat.statistics.u.shape) * np.sqrt(flat.statistics.info)
    group["flat"] = replace(flat, statistics=ArmStatistics(noise, flat.statistics.info, ARMS))
    found = di.evaluate_dissimilarity(group, repeats=5)
    table = found.patients.set_index("patient_id")
    assert table["reason"].to_dict() == {
        **{f"P{p}": "" for p in range(5)},
        "none": "no disseminated cell",
        "two": "2 disseminated cells, 3 needed",
        "noprimary": "no clone with 3 primary cells",
        "noclone": "no clone with 3 primary cells",
        "flat": "pairs of one clone are not reliably more alike than pairs of strangers",
    }
    assert table.loc[table["reason"] != "", ["value_a", "difference", "variance"]].isna().all(None)
    assert found.fit.n == 5


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_patients_have_no_estimate(n):
    found = di.evaluate_dissimilarity(cohort(1.0, n=n), repeats=2)
    assert np.isnan([found.fit.estimate, found.test.p_value]).all()
    assert len(found.patients) == n
    if n == 1:
        assert found.patients["reason"].tolist() == ["no other patient as floor"]


def test_too_few_common_arms_is_a_reason():
    group = cohort(1.0, n=3)
    one = group["P0"]
    few = ArmStatistics(one.statistics.u[:, :5], one.statistics.info[:, :5], ARMS[:5])
    found = di.evaluate_dissimilarity(group | {"P0": replace(one, statistics=few)}, repeats=2)
    assert set(found.patients["reason"]) == {"5 arms assessed in all patients, 10 needed"}


def test_result_does_not_depend_on_the_order_of_cells_and_patients():
    group = cohort(0.6, n=4, n_normal=25)
    first = di.evaluate_dissimilarity(group, repeats=3, seed=2)
    moved = {}
    for name in reversed(group):
        one = group[name]
        order = np.random.default_rng(3).permutation(len(one.cells))
        moved[name] = replace(one, cells=one.cells.iloc[order].reset_index(drop=True), statistics=one.statistics[order])
    again = di.evaluate_dissimilarity(moved, repeats=3, seed=2)
    numbers = first.patients.select_dtypes("number").columns
    # to the last bit: verdict.json is the same byte for byte
    np.testing.assert_array_equal(again.patients[numbers].to_numpy(float), first.patients[numbers].to_numpy(float))
    assert again.fit_low == first.fit_low


def test_cells_are_capped_by_a_choice_that_ignores_their_order():
    one = patient("A", keep=1, n_primary=30, rng=np.random.default_rng(0))
    rows = di._own_group(one, di.PRIMARY, 10, patient="A", seed=1)
    order = np.random.default_rng(3).permutation(len(one.cells))
    moved = replace(one, cells=one.cells.iloc[order].reset_index(drop=True))
    again = di._own_group(moved, di.PRIMARY, 10, patient="A", seed=1)
    names = one.cells["cell_id"].to_numpy()[rows].tolist()
    assert moved.cells["cell_id"].to_numpy()[again].tolist() == names
    assert len(set(names)) == 10


def test_jackknife_of_a_mean_of_pairs_by_hand():
    correlation = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]])
    found = di._mean_of_pairs(correlation, ~np.eye(3, dtype=bool))
    assert found.value == pytest.approx(0.4)
    assert found.without == pytest.approx([0.6, 0.4, 0.2])
    assert found.variance == pytest.approx(2 / 3 * 0.08)
    assert found.n == 3


def test_weighted_correlation():
    rng = np.random.default_rng(0)
    profiles, weight = rng.normal(size=(2, 30)), rng.random(30)
    unit = di._unit(profiles, weight)
    cov = np.cov(profiles, aweights=weight)
    assert unit[0] @ unit[1] == pytest.approx(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]))
    assert di._unit(np.ones((1, 30)), weight).sum() == 0


def test_arm_cells_sorts_cells_into_groups():
    calls = ["malignant", "malignant", "malignant", "normal", "indeterminate", "malignant"]
    cells = pd.DataFrame(
        {
            "cell_id": list("abcdef"),
            "sample_id": "s",
            "compartment": ["marrow", "primary", "marrow", "marrow", "marrow", "blood"],
            "malignant_call": calls,
            "malignant_class": ["malignant_confirmed", "malignant_confirmed", MALIGNANT_DOUBLET, "normal", "", ""],
            "clone_id": "",
        }
    )
    one = di.arm_cells(cells, ArmStatistics(np.zeros((6, 1)), np.ones((6, 1)), ("1p",)), np.ones(1))
    assert one.cells["group"].tolist() == ["DTC", "PT", "", "normal", "", ""]
