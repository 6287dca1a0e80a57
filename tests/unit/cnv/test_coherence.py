"""A clone shifts whole arms, a cell type shifts genes: both at the same strength of the arm means."""

from __future__ import annotations

import numpy as np
import pytest

from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.coherence import (
    arm_of_segments,
    coherence,
    permutation_p,
    segment_scatter,
    strongest_pool,
)

ARMS = [f"{c}{a}" for c in range(1, 21) for a in "pq"]
SEGMENTS = tuple(f"{arm}:{k:02d}" for arm in ARMS for k in range(6))
ONES = np.ones(len(SEGMENTS))


def cells(
    n: int, *, clone: dict[str, float] | None = None, type_sd: float = 0.0, seed: int = 0, info: float = 15.0
) -> ArmStatistics:
    """``n`` cells of one kind: arm shifts of a clone, one shift per segment of a type, sampling noise."""
    rng = np.random.default_rng(seed)
    shift = np.array([(clone or {}).get(arm, 0.0) for arm in arm_of_segments(SEGMENTS)])
    shift = shift + np.random.default_rng(1000 + seed).normal(0, type_sd, len(SEGMENTS))
    information = np.full((n, len(SEGMENTS)), info)
    return ArmStatistics(information * shift + rng.normal(0, np.sqrt(information)), information, SEGMENTS)


def group(statistics: ArmStatistics):
    return coherence(statistics, inflation=ONES, min_abs_log_ratio=0.15)


CLONE = {"1q": 0.3, "16q": -0.45, "8q": 0.35, "17p": -0.4}


def test_scatter_by_hand() -> None:
    arm = np.array(["1p"] * 21 + ["1q"] * 2, dtype=object)
    # neighbours differ by 0.2 throughout; the jump between the arms is no pair
    ratio = np.array([0.1, -0.1] * 10 + [0.1, 5.0, 4.8])
    error = np.sqrt(3 / 21) * 0.02
    assert segment_scatter(ratio, np.zeros(23), arm) == pytest.approx(np.sqrt(0.02 + error))
    assert segment_scatter(ratio, np.full(23, 0.02), arm) == pytest.approx(np.sqrt(error))
    assert segment_scatter(ratio, np.full(23, 0.05), arm) == pytest.approx(np.sqrt(error))
    assert np.isnan(segment_scatter(ratio[:10], np.zeros(10), arm[:10]))


def test_a_breakpoint_hardly_moves_the_scatter() -> None:
    rng = np.random.default_rng(0)
    arm = np.repeat(np.array(ARMS, dtype=object), 6)
    ratio = rng.normal(0, 0.1, len(arm))
    broken = ratio.copy()
    for a in range(0, 40, 4):
        broken[a * 6 : a * 6 + 3] += 0.5
    variance = np.zeros(len(arm))
    assert segment_scatter(broken, variance, arm) < 1.35 * segment_scatter(ratio, variance, arm)


def test_a_clone_of_an_unknown_type_is_found_and_an_unknown_type_is_not() -> None:
    found = group(cells(20, clone=CLONE, type_sd=0.15))
    assert found.is_clone
    assert set(found.arms.index[found.arms["counts"]]) >= set(CLONE)
    assert found.scatter == pytest.approx(0.15, abs=0.03)
    # the same cells as a caller without segments sees them: arm means beyond the sampling error everywhere
    kind = cells(100, type_sd=0.25)
    arm_mean = (kind.u.sum(axis=0) / kind.info.sum(axis=0)).reshape(-1, 6).mean(axis=1)
    assert (np.abs(arm_mean) > 4 / np.sqrt(100 * 15 * 6)).sum() > 20
    assert not group(kind).is_clone


def test_types_are_not_clones_at_any_scatter_or_number_of_cells() -> None:
    """Size of the rule: 150 types, none a clone; and the z of an arm is near a normal one."""
    z = []
    for seed in range(150):
        found = group(cells((5, 30, 200)[seed % 3], type_sd=(0.05, 0.15, 0.3)[seed // 3 % 3], seed=seed))
        assert not found.is_clone
        z.append(found.arms["z"])
    assert np.std(np.concatenate(z)) == pytest.approx(1.0, abs=0.1)


def test_small_clones_are_found() -> None:
    """Power of the rule: five cells with four altered arms and an expression of their own."""
    found = [group(cells(5, clone=CLONE, type_sd=0.12, seed=seed, info=20.0)).is_clone for seed in range(40)]
    assert np.mean(found) >= 0.9


def test_one_chromosome_is_mosaicism_and_no_clone() -> None:
    found = group(cells(60, clone={"12p": 0.35, "12q": 0.35}, type_sd=0.05))
    assert not found.is_clone
    assert found.n_chromosomes == 1
    assert set(found.arms.index[found.arms["counts"]]) == {"12p", "12q"}
    assert found.strength >= 75


def test_permuted_positions_reach_the_strength_of_a_type_but_not_that_of_a_clone() -> None:
    def p(statistics: ArmStatistics) -> float:
        return permutation_p(statistics, inflation=ONES, min_abs_log_ratio=0.15, n_permutations=99, seed=1)

    assert p(cells(30, clone=CLONE, type_sd=0.15)) <= 0.02
    of_types = np.array([p(cells(50, type_sd=0.3, seed=seed)) for seed in range(40)])
    # at most the upper 99 % limit of a binomial of 40 and .1
    assert (of_types <= 0.1).sum() <= 9


def test_weights_leave_cells_out() -> None:
    clone, normal = cells(20, clone=CLONE), cells(20, seed=1)
    both = ArmStatistics(np.vstack([clone.u, normal.u]), np.vstack([clone.info, normal.info]), SEGMENTS)
    inside = np.repeat([1.0, 0.0], 20)
    weighted = coherence(both, inflation=ONES, min_abs_log_ratio=0.15, weights=inside)
    assert weighted.strength == pytest.approx(group(clone).strength)
    assert not coherence(both, inflation=ONES, min_abs_log_ratio=0.15, weights=1 - inside).is_clone


def split(*parts: ArmStatistics, seed: int = 0) -> SplitStatistics:
    """Cells with independent halves of half the information each."""
    rng = np.random.default_rng(seed)
    u, info = (np.vstack([getattr(p, name) for p in parts]) for name in ("u", "info"))
    noise = rng.normal(0, np.sqrt(info / 4))
    first = ArmStatistics(u / 2 + noise, info / 2, SEGMENTS)
    second = ArmStatistics(u / 2 - noise, info / 2, SEGMENTS)
    return SplitStatistics(ArmStatistics(u, info, SEGMENTS), (first, second))


@pytest.mark.parametrize("n", [6, 15])
def test_seeds_are_the_clone_and_not_the_unknown_type_around_it(n: int) -> None:
    mixed = split(cells(60, type_sd=0.2, seed=5), cells(n, clone=CLONE, type_sd=0.12, seed=6, info=30.0))
    pool = strongest_pool(mixed, inflation=ONES, min_abs_log_ratio=0.15)
    assert pool is not None
    assert pool.is_clone
    assert (pool.rows >= 60).mean() >= 0.8


def test_no_seeds_in_an_unknown_type() -> None:
    for seed in range(4):
        pool = strongest_pool(split(cells(60, type_sd=0.2, seed=seed)), inflation=ONES, min_abs_log_ratio=0.15)
        assert pool is not None
        assert not pool.is_clone


@pytest.mark.parametrize("n", [0, 1, 4])
def test_few_cells_are_no_error(n: int) -> None:
    part = cells(n)
    assert strongest_pool(split(part), inflation=ONES, min_abs_log_ratio=0.15) is None
    assert not group(part).is_clone


def test_too_few_segments_say_nothing() -> None:
    part = ArmStatistics(np.ones((5, 3)) * 9, np.ones((5, 3)) * 10, ("1p:00", "1p:01", "2p:00"))
    found = coherence(part, inflation=np.ones(3), min_abs_log_ratio=0.15)
    assert np.isnan(found.scatter)
    assert found.strength == 0
    assert not found.is_clone
    assert found.arms["z"].tolist() == [0.0, 0.0]


def test_segments_without_information_are_left_out() -> None:
    part = cells(20, clone=CLONE, type_sd=0.1)
    part.info[:, :3] = 0
    part.u[:, :3] = 0
    assert group(part).is_clone
    part.info[:, :6] = 0
    part.u[:, :6] = 0
    found = group(part)
    assert np.isnan(found.arms.loc["1p", "log_ratio"])
    assert found.is_clone
