import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from dtcflow.evidence import power


@pytest.mark.parametrize(("n", "expected"), [(6, 1.44), (8, 1.16), (10, 1.00), (15, 0.78), (30, 0.53)])
def test_smallest_detectable_effect_of_the_plan(n, expected):
    assert power.minimum_detectable_effect(1.0, n) == pytest.approx(expected, abs=0.006)
    assert power.minimum_detectable_effect(0.5, n) == pytest.approx(expected / 2, abs=0.006)


@pytest.mark.parametrize(("effect", "n"), [(0.5, 8), (1.0, 6), (0.2, 40)])
def test_power_agrees_with_statsmodels(effect, n):
    assert power.paired_power(effect, 1.0, n) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-4)


def test_patients_needed_is_the_smallest_number_that_reaches_the_power():
    n = power.patients_needed(0.5, 0.7)
    assert n == 18
    assert power.paired_power(0.5, 0.7, n) >= 0.8 > power.paired_power(0.5, 0.7, n - 1)
    assert power.patients_needed(0.5, 0.1) == 6  # never fewer than a verdict needs
    assert power.patients_needed(-0.5, 0.7) == 18


@pytest.mark.parametrize(("effect", "sd"), [(0, 1), (np.nan, 1), (0.5, 0), (0.5, np.nan), (1e-5, 1)])
def test_unknown_numbers_of_patients(effect, sd):
    assert power.patients_needed(effect, sd) is None


def test_unknown_detectable_effects():
    assert np.isnan(power.minimum_detectable_effect(1.0, 1))
    assert np.isnan(power.minimum_detectable_effect(0.0, 8))
    assert np.isnan(power.paired_power(1, 1, 1))
    assert power.paired_power(100, 1, 20) == 1.0


def test_smallest_p():
    assert [power.smallest_p(n) for n in (1, 5, 6)] == [1.0, 0.0625, 0.03125]
    assert np.isnan(power.smallest_p(0))


def test_spread():
    assert power.spread([1, 3]) == pytest.approx(np.sqrt(2))
    assert np.isnan(power.spread([1]))
