"""Specification curve: what is shown, what is marked, what is said when something is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dtcflow.plot import style
from dtcflow.plot.evidence import MAX_SPECIFICATIONS, Synthesis, specification_curve

SYNTHESIS = Synthesis(1.0, 0.5, "DTC minus PT, SD between reference cells")


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


def test_voting_and_shown_specifications_are_marked_and_counted() -> None:
    frame = specifications(20)
    svg = style.svg_file(specification_curve(frame, ["signature"], SYNTHESIS))
    assert "votes on robustness (10)" in svg
    assert "shown only (10)" in svg
    only = style.svg_file(specification_curve(frame.assign(votes=True), ["signature"], SYNTHESIS))
    assert "shown only" not in only


def test_new_choices_are_rows_of_the_curve() -> None:
    frame = specifications(8).assign(score=["calibrated", "AUCell"] * 4, reference=["PT"] * 4 + ["NE"] * 4)
    svg = style.svg_file(specification_curve(frame, ["signature", "score", "reference"], SYNTHESIS))
    for words in ("score:  AUCell", "calibrated", "reference:  NE"):
        assert words in svg or words.replace("  ", " ") in svg
