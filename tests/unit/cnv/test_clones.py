from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from dtcflow.cnv.clone_arms import clone_arm_table, estimate_arms, segment_tau
from dtcflow.cnv.clones import MIN_CELLS_PER_CLONE, find_clones
from dtcflow.cnv.mixture import MIN_RUN, candidate_regions
from dtcflow.cnv.states import clone_states, infer_states

from .planted_segments import ARMS, names, segments

TRUNK = {"1q": 0.38, "8q": 0.38, "3p": -0.43, "6q": -0.43}
A = TRUNK | {"11q": -0.43, "13q": -0.43, "5p": 0.38}
B = TRUNK | {"2p": 0.38, "9p": -0.43}
C = TRUNK | {"7q": 0.38, "12q": -0.43, "14q": -0.43}
ONE = np.ones(len(names()))


def found(statistics, *, compartment=None, inflation=ONE, **options):
    n = len(statistics.full.u)
    where = np.repeat("primary", n).astype(object) if compartment is None else compartment
    return find_clones(
        statistics, np.ones(n, dtype=bool), where, inflation=inflation, min_abs_log_ratio=0.15, **options
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("profiles", "sizes"), [((A, B), (30, 30)), ((A, B, C), (40, 30, 30)), ((A, B), (80, 15))])
def test_finds_the_planted_clones(profiles, sizes, seed) -> None:
    statistics, truth = segments(list(profiles), list(sizes), seed=seed)
    clones = found(statistics)
    assert clones.n_clones == len(sizes)
    assert clones.status == "resolved"
    # two arms and three at this depth leave about one cell in a hundred on the wrong side
    assert adjusted_rand_score(truth, clones.label) >= 0.85
    assert np.all(np.diff(np.bincount(clones.label)) <= 0)
    assert np.nanmin(clones.posterior) >= 0.5 / len(sizes)


@pytest.mark.slow
def test_one_clone_stays_one_clone() -> None:
    """40 tumours of one clone, half of them with a programme in every second cell: at most 5 % may be divided."""
    divided = 0
    for seed in range(40):
        statistics, _ = segments([A], [60], seed=seed, programme=0.15 * (seed % 2))
        divided += found(statistics).n_clones > 1
    assert divided <= 2


@pytest.mark.parametrize("seed", range(3))
def test_a_strong_programme_is_no_clone(seed) -> None:
    """Every second cell differs in all segments by an SD of 0.3, but not alike in the halves."""
    statistics, _ = segments([A], [120], seed=seed, programme=0.3)
    assert found(statistics).n_clones == 1


def test_a_run_within_an_arm_is_an_event() -> None:
    focal = TRUNK | {f"{arm}:{i:02d}": change for arm, change in (("4q", -0.5), ("10q", 0.6)) for i in range(4)}
    statistics, truth = segments([TRUNK, focal], [50, 50], seed=1, information=9.0)
    clones = found(statistics)
    assert clones.n_clones == 2
    assert adjusted_rand_score(truth, clones.label) >= 0.8


def test_order_of_cells_does_not_matter() -> None:
    statistics, _ = segments([A, B, C], [30, 25, 20], seed=3)
    where = np.array(["primary", "marrow"], dtype=object)[(np.arange(75) % 5 == 0).astype(int)]
    first = found(statistics, compartment=where, bootstraps=5)
    order = np.random.default_rng(0).permutation(75)
    second = found(statistics[order], compartment=where[order], bootstraps=5)
    np.testing.assert_array_equal(second.label, first.label[order])
    np.testing.assert_array_equal(second.posterior, first.posterior[order])
    assert second.support == first.support


def test_cells_outside_the_tumour_do_not_matter() -> None:
    statistics, _ = segments([A, B, {}], [30, 30, 50], seed=4)
    malignant = np.arange(110) < 60
    where = np.repeat("primary", 110).astype(object)
    options = {"inflation": ONE, "min_abs_log_ratio": 0.15}
    whole = find_clones(statistics, malignant, where, **options)
    part = find_clones(statistics[malignant], np.ones(60, dtype=bool), where[:60], **options)
    np.testing.assert_array_equal(whole.label[:60], part.label)
    assert (whole.label[60:] == -1).all()
    assert np.isnan(whole.posterior[60:]).all()


@pytest.mark.slow
def test_expression_of_a_compartment_is_no_clone() -> None:
    """Marrow cells of one clone differ from the primary in every segment; the same clones are found in both."""
    for seed in range(4):
        marrow = np.arange(90) % 3 == 0
        statistics, _ = segments([A], [90], seed=seed, offset=marrow.astype(float))
        where = np.where(marrow, "marrow", "primary").astype(object)
        assert found(statistics, compartment=where).n_clones == 1
        statistics, truth = segments([A, B], [45, 45], seed=seed, offset=marrow.astype(float))
        clones = found(statistics, compartment=where)
        assert clones.n_clones == 2
        assert adjusted_rand_score(truth[marrow], clones.label[marrow]) >= 0.75


def test_disseminated_cells_of_one_clone_join_it() -> None:
    marrow = np.zeros(110, dtype=bool)
    marrow[40:60] = True
    statistics, truth = segments([A, B], [60, 50], seed=5, offset=marrow.astype(float))
    clones = found(statistics, compartment=np.where(marrow, "marrow", "primary").astype(object))
    assert clones.n_clones == 2
    home = np.bincount(clones.label[truth == 0]).argmax()
    assert (clones.label[marrow] == home).mean() >= 0.9


def test_an_event_of_one_compartment_makes_a_clone() -> None:
    marrow = np.arange(100) >= 60
    statistics, _ = segments([TRUNK, TRUNK | {"13q": -0.5, "5p": 0.5}], [60, 40], seed=6)
    clones = found(statistics, compartment=np.where(marrow, "marrow", "primary").astype(object))
    assert clones.n_clones == 2
    assert len(set(clones.label[marrow])) == 1


@pytest.mark.parametrize("n", [0, 1, 2, 5, 2 * MIN_CELLS_PER_CLONE - 1])
def test_too_few_cells_are_one_clone(n) -> None:
    statistics, _ = segments([A], [n])
    clones = found(statistics)
    assert clones.status == "too_few_cells"
    assert clones.n_clones == int(n > 0)
    assert (clones.label == 0).sum() == n


def test_whole_arms_serve_as_well() -> None:
    statistics, truth = segments([A, B], [40, 40], seed=2, information=8.0)
    member = np.array([[float(name.split(":")[0] == arm) for arm in ARMS] for name in names()])

    def pooled(part):
        return type(part)(part.u @ member, part.info @ member, ARMS)

    arms = type(statistics)(pooled(statistics.full), tuple(pooled(h) for h in statistics.halves))
    clones = found(arms, inflation=np.ones(len(ARMS)))
    assert clones.n_clones == 2
    assert adjusted_rand_score(truth, clones.label) >= 0.85


def test_bootstrap_support_is_high_for_clear_clones_only() -> None:
    statistics, _ = segments([A, B], [40, 40], seed=1)
    clones = found(statistics, bootstraps=10)
    assert clones.n_bootstrap == 10
    assert min(clones.support) >= 0.8


def test_regions_are_arms_and_runs_of_one_arm() -> None:
    regions = candidate_regions(("1p", "1q:00", "1q:01", "1q:02", "1q:03"))
    assert regions.arms == ("1p", "1q")
    sizes = regions.member.sum(axis=1)
    # 1p; 1q as a whole; its two runs of three
    assert sorted(sizes) == [1, MIN_RUN, MIN_RUN, 4]
    assert regions.log_prior[sizes == 4] > regions.log_prior[sizes == MIN_RUN].max()


def test_segment_tau_by_hand() -> None:
    """One arm of three segments with values -.1, 0, .1 and noise .005 each: Q = .02/.005 = 4, tau^2 = 2/400."""
    tau = segment_tau(np.array([-0.1, 0.0, 0.1]), np.full(3, 0.005), np.ones((1, 3)))
    assert tau == pytest.approx(np.sqrt((4 - 2) / 400.0))


@pytest.mark.parametrize("expression", [0.0, 0.15, 0.3])
def test_arm_errors_cover_the_expression_of_the_group(expression) -> None:
    """z of unaltered arms has an SD of about one whatever the expression, and few arms are called."""
    z, false = [], 0
    for seed in range(20):
        statistics, _ = segments([{}], [60], seed=seed, expression=expression * np.sqrt(2))
        table = clone_arm_table(statistics, inflation=ONE, tau=ONE * 0.1, min_abs_log_ratio=0.15)
        z += (table["log_ratio"] / table["se"]).tolist()
        false += int(table["state"].isin(["gain", "loss"]).sum())
    assert np.std(z) <= 1.1
    assert false <= 0.02 * len(z)


def test_centre_is_that_of_the_unaltered_arms() -> None:
    """11 of 30 arms lost: the median is drawn down, the centre is not."""
    u = np.zeros(len(names()))
    info = np.full(len(names()), 1e6)
    lost = [arm.split(":")[0] in ARMS[:11] for arm in names()]
    u[lost] = -0.4 * 1e6
    u += np.random.default_rng(0).normal(0, 0.02, len(u)) * 1e6
    estimate = estimate_arms(u, info, names(), ONE)
    assert abs(np.median(estimate.log_ratio[11:])) < 0.02
    assert np.all(estimate.log_ratio[:11] < -0.35)


def test_clones_share_the_state_that_cannot_be_told_apart() -> None:
    agree = np.ones((2, 4), dtype=bool)
    ratio = np.array([[0.38, 0.0, 0.30, -0.40], [0.36, 0.02, -0.02, 0.0]])
    state, posterior = infer_states(ratio, np.full((2, 4), 0.04), np.full(4, 0.08), agree)
    assert state.tolist() == [[1, 0, 1, -1], [1, 0, 0, 0]]
    assert posterior.min() > 0.5
    none, _ = infer_states(ratio, np.full((2, 4), 0.04), np.full(4, 0.08), ~agree)
    assert not none.any()


def test_states_of_planted_clones() -> None:
    statistics, truth = segments([A, B], [60, 60], seed=8, expression=0.1)
    states = clone_states(statistics, truth, inflation=ONE, tau=ONE * 0.1, effect=0.15)
    for k, planted in enumerate((A, B)):
        assert states.events(k) == {f"{arm}{'+' if change > 0 else '-'}" for arm, change in planted.items()}
