import numpy as np
import pytest

from dtcflow.evidence.adjust import residualise


def cohort(effect=0.0, slope=0.8, gap=2.0, seed=0):
    """Three patients; the covariate is higher by ``gap`` on the tested side, the score follows it with ``slope``."""
    rng = np.random.default_rng(seed)
    patient = np.repeat([0, 1, 2], 400)
    reference = np.tile(np.repeat([True, False], 200), 3)
    x = rng.normal(patient * 3.0, 1.0) + np.where(reference, 0, gap)
    z = 5.0 * patient + slope * x + np.where(reference, 0, effect) + rng.normal(0, 0.3, patient.size)
    return z, np.column_stack([x, np.ones(patient.size)]), patient, reference


def gap_of(z, patient, reference):
    return np.array([z[(patient == p) & ~reference].mean() - z[(patient == p) & reference].mean() for p in range(3)])


def test_a_difference_made_by_the_covariate_goes_away():
    z, x, patient, reference = cohort(effect=0.0)
    assert gap_of(z, patient, reference) == pytest.approx([1.6] * 3, abs=0.3)
    # three standard errors of a mean of 200 cells and of the slope
    assert gap_of(residualise(z, x, patient, reference), patient, reference) == pytest.approx([0] * 3, abs=0.15)


def test_an_effect_on_top_of_it_stays():
    z, x, patient, reference = cohort(effect=1.0)
    assert gap_of(residualise(z, x, patient, reference), patient, reference) == pytest.approx([1.0] * 3, abs=0.15)


def test_model_has_seen_reference_cells_only():
    z, x, patient, reference = cohort()
    first = residualise(z, x, patient, reference)
    changed = z.copy()
    changed[~reference] += np.random.default_rng(1).normal(0, 50, (~reference).sum())
    second = residualise(changed, x, patient, reference)
    assert second[reference] == pytest.approx(first[reference])


def test_a_constant_covariate_changes_nothing():
    z, x, patient, reference = cohort()
    assert residualise(z, x[:, [1]], patient, reference) == pytest.approx(z)


def test_collinear_covariates_are_fine():
    z, x, patient, reference = cohort()
    once = residualise(z, x[:, [0]], patient, reference)
    twice = residualise(z, np.column_stack([x[:, 0], 2 * x[:, 0]]), patient, reference)
    assert twice == pytest.approx(once)


def test_missing_scores_stay_missing():
    z, x, patient, reference = cohort()
    z[5] = np.nan
    out = residualise(z, x, patient, reference)
    assert np.isnan(out[5])
    assert np.isfinite(np.delete(out, 5)).all()
