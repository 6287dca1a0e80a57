"""House style: safe text, stable bytes, unique ids, colours that can be told apart."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dtcflow.contracts import CELL_TYPES, COMPARTMENTS, MALIGNANT_CALLS, VERDICTS
from dtcflow.plot import style

SVG = "{http://www.w3.org/2000/svg}"


def draw(label: str = "a", *, points: int = 0) -> Figure:
    with style.language():
        figure = style.new_figure(3, 2)
        ax = figure.add_subplot()
        ax.plot([0, 1], [0, 1], clip_on=True)
        if points:
            values = np.linspace(0, 1, points)
            ax.scatter(values, values, rasterized=True)
        ax.set_title(style.plain(label))
    return figure


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("P-01_a", "P-01_a"),
        ("a\x00b\x1fc", "a b c"),
        ("left\u202eright\u200b", "leftright"),
        ("x" * 60, "x" * 47 + "…"),
        (3.5, "3.5"),
        ("", ""),
    ],
)
def test_plain_text(given: object, shown: str) -> None:
    assert style.plain(given) == shown


@pytest.mark.parametrize("label", ["$x_1$", "a_b^c", r"\frac{1}{2}", "$unclosed", "100 % & <b>"])
def test_text_is_drawn_as_written(label: str) -> None:
    assert label in texts(style.svg_inline(draw(label), prefix="f", alt="x"))


def test_markup_in_text_and_alt_stays_text() -> None:
    payload = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
    svg = style.svg_inline(draw(payload), prefix="f", alt=payload)
    root = ET.fromstring(svg)
    assert not [element for element in root.iter() if element.tag.split("}")[-1] in {"script", "img"}]
    assert root.get("aria-label") == payload
    assert any("onerror" in text for text in texts(svg))


def test_same_figure_same_bytes() -> None:
    assert style.svg_file(draw(points=50)) == style.svg_file(draw(points=50))
    assert style.svg_inline(draw(), prefix="f", alt="x") == style.svg_inline(draw(), prefix="f", alt="x")
    assert style.png_bytes(draw(points=50)) == style.png_bytes(draw(points=50))


def test_inline_ids_are_unique_in_a_page_and_all_resolve() -> None:
    both = [ET.fromstring(style.svg_inline(draw(), prefix=prefix, alt="x")) for prefix in ("one", "two")]
    ids = [{element.get("id") for element in root.iter() if element.get("id")} for root in both]
    assert ids[0]
    assert not ids[0] & ids[1]
    for root, own in zip(both, ids, strict=True):
        used = {
            value.split("#", 1)[1].rstrip(")")
            for element in root.iter()
            for name, value in element.attrib.items()
            if "url(#" in value or (name.endswith("href") and value.startswith("#"))
        }
        assert used == own


def test_inline_has_no_metadata_and_no_style_that_reaches_the_page() -> None:
    svg = style.svg_inline(draw(), prefix="f", alt="x")
    assert "metadata" not in svg
    assert "Date" not in svg
    css = [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}style")]
    assert all(text.strip().startswith("svg *") for text in css)


@pytest.mark.parametrize("prefix", ["", "1a", 'x" onload="y', "a b"])
def test_prefix_must_be_an_id(prefix: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        style.svg_inline(draw(), prefix=prefix, alt="x")


def test_style_does_not_leak() -> None:
    before = dict(mpl.rcParams)
    style.svg_file(draw())
    assert dict(mpl.rcParams) == before


def test_user_settings_do_not_change_a_figure() -> None:
    plain = style.svg_file(draw())
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert style.svg_file(draw()) == plain


def test_rasterised_points_shrink_to_a_palette() -> None:
    (image,) = ET.fromstring(style.svg_file(draw(points=5000))).iter(f"{SVG}image")
    assert len(image.get("{http://www.w3.org/1999/xlink}href", "")) < 20_000


def test_few_colours_are_kept_exactly() -> None:
    shades = np.array([[238, 241, 244], [255, 255, 255], [178, 24, 43], [253, 254, 254]], dtype=np.uint8)
    with style.language():
        figure = Figure(figsize=(2, 2))
        figure.add_axes((0, 0, 1, 1)).imshow(shades.reshape(2, 2, 3), interpolation="none")
    (image,) = ET.fromstring(style.svg_file(figure)).iter(f"{SVG}image")
    data = base64.b64decode(image.get("{http://www.w3.org/1999/xlink}href", "").partition(",")[2])
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.sort(np.unique(found.reshape(-1, 3), axis=0), axis=0), np.sort(shades, axis=0))


def test_legend_keeps_labels_that_begin_with_an_underscore() -> None:
    with style.language():
        figure = style.new_figure(3, 2)
        ax = figure.add_subplot()
        handles = style.dots(["_a", "b"], {"_a": "#000000", "b": "#111111"})
        style.legend(ax, handles, ["_a", "b"])
    found = [text.strip() for text in texts(style.svg_file(figure))]
    assert "_a" in found
    assert "b" in found


def test_every_word_of_the_vocabulary_has_its_colour() -> None:
    assert set(style.CELL_TYPE_COLOURS) == set(CELL_TYPES)
    assert set(style.COMPARTMENT_COLOURS) == set(COMPARTMENTS)
    assert set(style.CALL_COLOURS) == set(MALIGNANT_CALLS)
    assert set(style.VERDICT_COLOURS) == set(VERDICTS)
    for colours in (style.CELL_TYPE_COLOURS, style.COMPARTMENT_COLOURS, style.CALL_COLOURS):
        assert len(set(colours.values())) == len(colours)


def test_own_cell_types_get_spare_colours() -> None:
    colours = style.cell_type_colours(["B", "mine", "yours"])
    assert colours["B"] == style.CELL_TYPE_COLOURS["B"]
    assert len(set(colours.values())) == 3


def luminance(colour: str) -> float:
    channels = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("colour", [*style.VERDICT_COLOURS.values(), style.INK, style.MUTED])
def test_text_colours_meet_wcag_aa_on_white(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5
