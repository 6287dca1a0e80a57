"""The figure of a claim and that of the controls: any number of patients, any scale, nothing missing in silence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dtcflow.plot import style
from dtcflow.plot.claims import Beside, Dot, Endpoint, Mark, Pool, claim_figure
from dtcflow.plot.controls import ControlGroup, ControlRow, controls_figure

POOL = Pool(1.0, 0.6, 1.4, 0.7, 1.3, 0.2, 1.8)


def dots(n: int) -> list[Dot]:
    return [Dot(f"P{i} · 12 / 1,140", 0.5 + i / 10, 0.1 + i / 10, 0.9 + i / 10) for i in range(n)]


def endpoint(n: int, pool: Pool = POOL, **options: object) -> Endpoint:
    given = {"band": (-0.5, 0.5), "marks": (Mark(0.0, "no difference"),)} | options
    return Endpoint("Patients", "DTC minus PT, SD", dots(n), pool, **given)  # type: ignore[arg-type]


def svg(*endpoints: Endpoint, beside: tuple[Beside, ...] = ()) -> str:
    return style.svg_file(claim_figure(endpoints, beside, beside_title="Its parts"))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 100])
def test_any_number_of_patients_gives_a_figure(n: int) -> None:
    found = svg(endpoint(n, null=np.linspace(-0.3, 0.3, 10)))
    if n == 0:
        assert "No patient has a value" in found
        return
    for words in ("P0 · 12 / 1,140", "10 random gene sets", "all patients, 95 % CI", "all patients, 90 % CI"):
        assert words in found
    assert "no difference" in found


def test_a_patient_that_is_not_used_says_why() -> None:
    one = Endpoint("Patients", "SD", [*dots(2), Dot("P9 · 2 / 80", used=False, note="2 DTC, 3 needed")], POOL)
    assert "not used: 2 DTC, 3 needed" in svg(one)
    assert "no reason recorded" in svg(Endpoint("Patients", "SD", [Dot("P9", used=False)], POOL))


def test_missing_parts_are_said() -> None:
    found = svg(endpoint(2, Pool()))
    assert "no estimate" in found
    assert "random gene sets" not in found
    only = svg(endpoint(2, Pool(1.0, 0.5, 1.5)))
    assert only.count("not available") == 2, "neither 90 % interval nor prediction"
    assert "not available" in svg(endpoint(2), beside=(Beside("a part"), Beside("another", 0.1, 0, 0.2)))


def test_patients_are_drawn_in_the_given_order_from_top_to_bottom() -> None:
    figure = claim_figure([endpoint(3)])
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == [f"P{i} · 12 / 1,140" for i in range(3)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first is on top"


def test_points_bars_and_diamond_are_where_the_numbers_are() -> None:
    ax = claim_figure([endpoint(2)]).axes[0]
    points = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "o"]
    assert points == [0.5, 0.6]
    diamond = ax.patches[-1].get_xy()
    assert sorted({round(x, 6) for x in diamond[:, 0]}) == [0.6, 1.0, 1.4]
    bars = [tuple(line.get_xdata()) for line in ax.get_lines() if line.get_marker() == "|"]
    assert bars == [(0.7, 1.3), (0.2, 1.8)]


def test_a_logarithmic_axis_keeps_zeros_as_arrows_at_the_edge() -> None:
    patients = [Dot("P1 · 3 of 10,000", 300, 80, 800), Dot("P2 · 0 of 9,000", 0, 0, 400)]
    rate = Endpoint("Rates", "in a million", patients, Pool(150, 20, 700, 30, 600), (1000, np.inf), (Mark(1000),), True)
    figure = claim_figure([rate])
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    arrows = [line for line in ax.get_lines() if line.get_marker() == "<"]
    assert [line.get_xdata()[0] for line in arrows] == [ax.get_xlim()[0]]
    assert "none found" in style.svg_file(figure)


def test_no_axis_for_rates_breaks_when_there_is_nothing_positive() -> None:
    nothing = Endpoint("Rates", "in a million", [Dot("P1", 0, 0, 0)], Pool(0, 0, 0), None, (), True)
    assert "none found" in svg(nothing)


def test_two_endpoints_share_their_rows_and_parts_stand_below() -> None:
    figure = claim_figure([endpoint(4), endpoint(4)], (Beside("the claim", 1, 0.5, 1.5), Beside("a control", 0)))
    first, second, below = figure.axes
    assert list(first.get_yticks()) == list(second.get_yticks())
    assert not "".join(label.get_text() for label in second.get_yticklabels())
    assert below.get_position().y1 < first.get_position().y0


def test_parts_show_their_minimum_and_controls_their_own_mark() -> None:
    rows = (Beside("control", 0, -0.1, 0.1, control=True), Beside("part", 1, 0.5, 1.5, [0.2, 1.1], minimum=0.25))
    ax = claim_figure([endpoint(2)], rows).axes[-1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["part", "control"], "controls come last"
    assert {line.get_marker() for line in ax.get_lines()} >= {"D", "s", "o"}
    assert [0.25, 0.25] in [list(line.get_xdata()) for line in ax.get_lines()]


def test_nothing_of_the_user_is_markup_or_mathematics() -> None:
    evil = "<script>$x_1$</script>"
    one = Endpoint(evil, evil, [Dot(evil, 1, 0, 2), Dot(evil, used=False, note=evil)], POOL)
    found = svg(one, beside=(Beside(evil, 1, 0, 2), Beside(evil)))
    assert "<script" not in found
    assert "$x_1$" in found


@pytest.mark.parametrize("n", [1, 9, 60])
def test_figures_are_the_same_bytes_every_time(n: int) -> None:
    def made() -> tuple[str, bytes]:
        figure = claim_figure([endpoint(n), endpoint(n)], (Beside("the claim", 1, 0.5, 1.5), Beside("b", 0)))
        return style.svg_file(figure), style.pdf_bytes(figure)

    first, second = made(), made()
    assert first == second
    assert first[1].startswith(b"%PDF")
    assert not re.search(rb"CreationDate|ModDate|Producer", first[1])


def test_sixty_patients_stay_a_page() -> None:
    assert claim_figure([endpoint(60)]).get_figheight() < 13


def test_controls_say_in_words_and_by_mark_whether_they_hold() -> None:
    rows = [
        ControlRow("random gene sets", 0.0, -0.2, 0.2, "rate 5.0 %", True),
        ControlRow("negative control", 0.8, 0.6, 1.0, "", False),
        ControlRow("unknown", 0.1),
    ]
    figure = controls_figure([ControlGroup("P2", "SD", rows, 0.5), ControlGroup("C4", "SD", rows[:1])])
    found = style.svg_file(figure)
    for words in ("Controls of P2", "Controls of C4", "✓ holds", "✕ does not hold", "? not checked", "rate 5.0 %"):
        assert words in found
    squares = [line for line in figure.axes[0].get_lines() if line.get_marker() == "s"]
    assert [line.get_markerfacecolor() == "white" for line in squares] == [False, True, False]


def test_no_control_is_said() -> None:
    assert "No control was computed" in style.svg_file(controls_figure([]))
    assert "No control was computed" in style.svg_file(controls_figure([ControlGroup("P2", "SD", [])]))
