"""The scenarios of ``benchmarks/claims_calibration.py`` are what their names say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from claims_calibration import KEEP, true_likeness

pytestmark = pytest.mark.validation


@pytest.mark.parametrize("likeness", sorted(KEEP))
def test_cells_that_keep_so_many_events_are_so_much_alike(likeness):
    assert true_likeness(KEEP[likeness]) == pytest.approx(likeness, abs=0.03)
