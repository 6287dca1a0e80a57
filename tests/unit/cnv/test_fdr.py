from __future__ import annotations

import numpy as np
import pytest

from dtcflow.cnv.fdr import MIN_NULL_SHARE, benjamini_hochberg, decoy_q


def test_benjamini_hochberg_keeps_missing_missing() -> None:
    q = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03]))
    assert np.isnan(q[1])
    assert q[[0, 2, 3]] == pytest.approx([0.03, 0.04, 0.04])


def test_adaptive_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.001, 0.01, 0.02, 0.6])
    # one of four above 1/2: share of nulls (1 + 1) / 2 = 1; with none above: (1 + 0) / 2 = 0.5
    assert benjamini_hochberg(p, adaptive=True) == pytest.approx(benjamini_hochberg(p))
    p[3] = 0.4
    assert benjamini_hochberg(np.full(100, 0.01), adaptive=True) == pytest.approx(MIN_NULL_SHARE * 0.01)
    assert benjamini_hochberg(p, adaptive=True) == pytest.approx(0.5 * benjamini_hochberg(p))


def test_adaptive_benjamini_hochberg_keeps_its_level() -> None:
    """Realised false-discovery proportion over 400 sets of 15 true and 15 null p-values."""
    rng = np.random.default_rng(0)
    proportions = []
    for _ in range(400):
        p = np.concatenate([rng.beta(0.05, 3, 15), rng.random(15)])
        called = benjamini_hochberg(p, adaptive=True) <= 0.05
        proportions.append(called[15:].sum() / max(called.sum(), 1))
    # nominal .05, Monte-Carlo error of the mean about .003
    assert np.mean(proportions) <= 0.06


def test_target_against_decoy_by_hand() -> None:
    target = np.array([9.0, 8.0, 3.0, 1.0, np.nan])
    # one decoy: it beats the target in cells 2 and 3 only; cell 0 has a high decoy score, but the target explains it
    decoys = np.array([[8.5], [1.0], [4.0], [2.0], [50.0]])
    q = decoy_q(target, decoys)
    # at 9: (1 + 0) / 1; at 8: (1 + 0) / 2; at 3: (1 + 1) / 3; at 1: (1 + 2) / 4; minima from below
    assert q[:4] == pytest.approx([0.5, 0.5, 2 / 3, 0.75])
    assert np.isnan(q[4])


def test_decoy_rate_of_null_scores_is_no_smaller_than_nominal() -> None:
    """Where the profile says nothing no cell is called, but for chance."""
    rng = np.random.default_rng(3)
    called = [(decoy_q(rng.normal(size=300), rng.normal(size=(300, 20))) <= 0.05).any() for _ in range(200)]
    assert np.mean(called) <= 0.1


def test_decoy_rate_is_the_realised_one() -> None:
    rng = np.random.default_rng(4)
    false, found = 0, 0
    for _ in range(100):
        target = np.r_[rng.normal(4.5, 1, 30), rng.normal(size=970)]
        called = decoy_q(target, rng.normal(size=(1000, 20))) <= 0.05
        false, found = false + called[30:].sum(), found + called[:30].sum()
    assert false / (false + found) <= 0.07
    assert found / 3000 > 0.7
