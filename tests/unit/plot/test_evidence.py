"""Patient figure and specification curve: what is said when something is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.plot import style
from dtcflow.plot.evidence import MAX_SPECIFICATIONS, Synthesis, patient_effects, specification_curve

SYNTHESIS = Synthesis(1.0, 0.6, 1.4, 0.5, "SD between reference cells")
NOTHING = Synthesis(np.nan, np.nan, np.nan, np.nan, "SD")
CONTROLS = pd.DataFrame(
    {"label": ["negative control"], "estimate": [0.1], "ci_low": [-0.1], "ci_high": [0.3], "variant": [False]}
)


def patients(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient_id": [f"P{i}" for i in range(n)],
            "difference": [0.5 + i / 10 for i in range(n)],
            "variance": [0.04] * n,
            "n_cells_a": [12] * n,
            "n_cells_b": [1140] * n,
            "usable": [True] * n,
            "reason": [""] * n,
        }
    )


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_any_number_of_patients_gives_a_figure(n: int) -> None:
    svg = style.svg_file(patient_effects(patients(n), SYNTHESIS, CONTROLS, null=np.zeros(10)))
    if n == 0:
        assert "No patient has a value" in svg
    else:
        assert "P0 · 12 / 1,140" in svg
        assert "10 random gene sets" in svg
        assert "negative control" in svg


def test_a_patient_that_is_not_used_says_why() -> None:
    frame = patients(3)
    frame.loc[2, ["difference", "variance"]] = np.nan
    frame.loc[2, "reason"] = "2 DTC, 3 needed"
    frame["usable"] = [True, True, False]
    svg = style.svg_file(patient_effects(frame, SYNTHESIS, CONTROLS))
    assert "not used: 2 DTC, 3 needed" in svg


def test_missing_parts_are_said() -> None:
    svg = style.svg_file(patient_effects(patients(2), NOTHING, CONTROLS.iloc[:0]))
    for sentence in ("no estimate", "Random gene sets: not computed", "no control was computed"):
        assert sentence in svg


def test_patients_are_sorted_by_effect() -> None:
    svg = style.svg_file(patient_effects(patients(3).iloc[[1, 0, 2]], SYNTHESIS, CONTROLS))
    assert svg.index("P2 ·") < svg.index("P1 ·") < svg.index("P0 ·")


def specifications(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "signature": [f"S{i % 3}" for i in range(n)],
            "depth": "matched",
            "votes": [i % 2 == 0 for i in range(n)],
            "estimate": np.linspace(-1, 1, n),
        }
    )


@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_any_number_of_specifications_gives_a_figure(n: int) -> None:
    svg = style.svg_file(specification_curve(specifications(n), ["signature", "depth"], SYNTHESIS))
    assert ("No alternative specification" in svg) == (n == 0)


def test_only_choices_that_vary_are_shown() -> None:
    svg = style.svg_file(specification_curve(specifications(20), ["signature", "depth"], SYNTHESIS))
    assert "signature:  S0" in svg or "signature: S0" in svg
    assert "depth" not in svg
    assert "20 specifications" in svg


def test_long_curves_keep_both_ends() -> None:
    frame = specifications(3 * MAX_SPECIFICATIONS)
    svg = style.svg_file(specification_curve(frame, ["signature"], SYNTHESIS))
    assert f"{MAX_SPECIFICATIONS} specifications" in svg


def test_curve_does_not_depend_on_the_order_of_rows() -> None:
    frame = specifications(20)
    first = specification_curve(frame, ["signature", "depth"], SYNTHESIS)
    second = specification_curve(frame.iloc[::-1], ["signature", "depth"], SYNTHESIS)
    assert style.svg_file(first) == style.svg_file(second)
