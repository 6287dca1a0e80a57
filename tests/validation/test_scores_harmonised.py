"""With both sides at one depth, real carcinoma cells score what they scored before one side was thinned."""

from __future__ import annotations

import pytest
import scores_depth

pytestmark = [
    pytest.mark.validation,
    pytest.mark.slow,
    pytest.mark.skipif(not scores_depth.DATA.is_file(), reason="the ovarian data set is not beside the project"),
]


@pytest.fixture(scope="module")
def shifts():
    table = scores_depth.measure(scores_depth.DATA, splits=3, repeats=5, alternatives=False)
    return scores_depth.summary(table)


def test_every_primary_signature_stays_within_a_tenth_of_a_deviation(shifts):
    matched = shifts[(shifts["depth"] == "matched") & (shifts["aggregation"] == "trimmed_mean")]
    assert {"LIM_MAMMARY_STEM_CELL_UP_NOPROLIF", "PECE_MAMMARY_STEM_CELL_UP", "WIECEK_G0_ARREST"} <= set(
        matched["signature"]
    )
    assert (matched["mean_shift"].abs() <= 0.10).all()
    # single patients: the error of six splits of 156 cells is .03 to .04, so that .10 may be passed by chance
    # (no error where one patient alone can be scored: then .10 holds as it stands)
    assert (matched["largest_shift"].abs() <= 0.10 + 2 * matched["its_error"].fillna(0.0)).all()
