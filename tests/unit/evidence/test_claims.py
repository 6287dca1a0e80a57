"""The rules on a result that are stated in claims.py itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dtcflow.evidence.claims import _precision_rule
from dtcflow.evidence.inference import random_effects
from dtcflow.evidence.plan import load_plan


@pytest.fixture
def plan(lab):
    return load_plan(lab.plan_path)


@pytest.mark.parametrize(
    ("differences", "sign", "holds"),
    [
        ([0.9, 1.0, 1.1, 1.0, 0.9, 1.1, 1.0], 1, True),  # narrow
        ([0.2, 3.0, 1.9, 3.1, 2.2, 2.6, 3.4], 1, True),  # wide, but wholly beyond the SESOI: lower limit 1.3
        ([-0.2, -3.0, -1.9, -3.1, -2.2, -2.6, -3.4], -1, True),  # the same for a claim of the other direction
        ([-0.2, -3.0, -1.9, -3.1, -2.2, -2.6, -3.4], 1, False),  # beyond it on the wrong side is no precision
        ([-0.7, 1.7, 0.6, 1.8, 0.9, 1.3, 2.1], 1, False),  # wide, above zero, but the SESOI is inside the interval
        ([-2.0, 2.0, -1.9, 2.1, 0.2, 1.6, -2.4], 1, False),  # wide around zero
    ],
)
def test_wide_interval_decides_only_when_it_excludes_the_sesoi(plan, differences, sign, holds):
    claim = replace(
        next(claim for claim in plan.claims if claim.id == "P2"),
        direction="greater" if sign > 0 else "less",
        sesoi=0.5,
    )
    fit = random_effects(differences, np.full(len(differences), 0.02))
    rule = _precision_rule(claim, fit)
    assert rule.holds is holds
    assert rule.code == "IMPRECISE"
    if sign > 0 and holds and rule.value > 0.5:
        assert "lies wholly beyond it" in rule.sentence
