"""One visual language for every figure: colours, sizes, and byte-stable output.

Colours are those of Okabe and Ito (Color Universal Design, 2008) and, where more than eight are needed, of Paul Tol's
muted scheme; both stay distinguishable with the common colour-vision deficiencies. A meaning has one colour in the
whole report. No text is ever typeset as mathematics, so an id with ``$`` or ``_`` is drawn as it is written.
"""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from PIL import Image

from dtcflow.contracts import COMPARTMENTS
from dtcflow.plot.plain import plain as plain

# Okabe-Ito
BLACK: Final = "#000000"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
YELLOW: Final = "#F0E442"
BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"

INK: Final = "#1f2933"
MUTED: Final = "#52606d"
RULE: Final = "#cbd2d9"
PALE: Final = "#e9edf1"
SESOI_BAND: Final = "#eef3d9"

CALL_COLOURS: Final[dict[str, str]] = {"malignant": VERMILION, "indeterminate": BLUE, "normal": "#b8c1cb"}
CELL_TYPE_COLOURS: Final[dict[str, str]] = {
    "T_NK": SKY,
    "B": BLUE,
    "plasma": "#332288",
    "monocyte": ORANGE,
    "dendritic": YELLOW,
    "neutrophil": "#DDCC77",
    "erythroid": PURPLE,
    "megakaryocyte": "#882255",
    "HSPC": GREEN,
    "mast": "#999933",
    "fibroblast": "#44AA99",
    "endothelial": "#117733",
    "pericyte": "#88CCEE",
    "epithelial": VERMILION,
    "unknown": "#c4c9cf",
}
COMPARTMENT_COLOURS: Final[dict[str, str]] = dict(
    zip(COMPARTMENTS, (BLUE, ORANGE, PURPLE, GREEN, YELLOW, SKY, "#8f99a3"), strict=True)
)
VERDICT_COLOURS: Final[dict[str, str]] = {
    "SUPPORTED": "#00694d",
    "NOT_SUPPORTED": "#a33f00",
    "INCONCLUSIVE": "#4a5563",
}
ARM_COLOURS: Final[dict[str, str]] = {
    "gain": "#b2182b",
    "loss": "#2166ac",
    "neutral": "#eef1f4",
    "not_assessable": "#ffffff",
}
CLASS_COLOURS: Final[dict[str, str]] = {
    "malignant_confirmed": VERMILION,
    "malignant_doublet": ORANGE,
    "possible_tumour_doublet": "#332288",
    "aneuploid_only": PURPLE,
    "epithelial_cnv_neutral": BLUE,
    "unassessable": MUTED,
    "normal": "#b8c1cb",
}
"""Classes of cells; every class has a mark of its own, too: :data:`CLASS_MARKS`."""
CLASS_MARKS: Final[dict[str, str]] = {
    "malignant_confirmed": "o",
    "malignant_doublet": "s",
    "possible_tumour_doublet": "P",
    "aneuploid_only": "D",
    "epithelial_cnv_neutral": "^",
    "unassessable": "x",
    "normal": ".",
}
Dash = Literal["solid", "dashed", "dashdot", "dotted"]
NULL_LINES: Final[dict[str, tuple[str, Dash]]] = {
    "matched": (BLACK, "solid"),
    "unseen": ("#5b4a00", "dashed"),
    "decoy_flipped": ("#00694d", "dashdot"),
    "decoy_permuted": ("#882255", "dotted"),
}
"""Colour and dash of the distributions that tumour cells are compared with."""
CLONE_COLOURS: Final = ("#332288", "#DDCC77", "#882255", "#44AA99", "#661100", "#88CCEE", "#999933", "#AA4499")
"""Side bar of a clone, by its place among the clones of its patient; the clone is named beside it."""
OTHER_COLOURS: Final = ("#AA4499", "#661100", "#6699CC", "#CC6677", "#999999", "#004488", "#BBAA33", "#225555")

POINT_DPI: Final = 144
"""Resolution of rasterised layers, dots per inch."""
FULL_WIDTH: Final = 9.4
"""Width of a figure that fills the text column, inches."""

RC: Final[dict[str, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "svg.fonttype": "none",
    "svg.hashsalt": "dtcflow",
    "svg.id": None,
    "path.simplify": True,
    "image.composite_image": False,
}

_SVG_LENGTHS: Final = {"d", "x", "y"}
_LONG_NUMBER: Final = re.compile(r"(\.\d{2})\d+")
"""Points have two decimals in an SVG: a hundredth of a point is less than any screen or printer shows."""
_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"


@contextmanager
def language() -> Iterator[None]:
    """Draw and save within the house style; nothing outside the block is changed."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]  # the stubs want literal keys
        yield


def new_figure(width: float = FULL_WIDTH, height: float = 3.0) -> Figure:
    """Return an empty figure of ``width`` x ``height`` inches that lays itself out. Call it within :func:`language`."""
    return Figure(figsize=(width, height), layout="constrained")


def settled(figure: Figure) -> Figure:
    """Fix the layout of a finished figure, so that every format and every run gets the same places.

    The layout engine solves for the places of the axes in an order that differs between runs; the last digits of its
    result do, too, and a PDF shows them.
    """
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.set(w_pad=0.1, h_pad=0.06)  # text is a little wider in a browser than where it was measured
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        left, bottom, width, height = (round(float(part), 4) for part in ax.get_position().bounds)
        ax.set_position((left, bottom, width, height))
    return figure


def cell_type_colours(types: Iterable[str]) -> dict[str, str]:
    """Return a colour for each type: the fixed one, or for a type of the user's own panel the next spare one."""
    chosen: dict[str, str] = {}
    spare = 0
    for name in types:
        if name in CELL_TYPE_COLOURS:
            chosen[name] = CELL_TYPE_COLOURS[name]
        else:
            chosen[name] = OTHER_COLOURS[spare % len(OTHER_COLOURS)]
            spare += 1
    return chosen


def copy_number_colours() -> Colormap:
    """Blue (loss) through white to red (gain); the two ends differ for red-green colour blindness too."""
    return mpl.colormaps["RdBu_r"].with_extremes(bad="#d9dee3")


def dots(labels: Sequence[str], colours: Mapping[str, str], *, size: float = 5.0) -> list[Line2D]:
    """Legend handles: one round mark per label."""
    return [
        Line2D([], [], linestyle="none", marker="o", markersize=size, markeredgewidth=0, color=colours[label])
        for label in labels
    ]


def legend(ax: Axes, handles: Sequence[Any], labels: Sequence[object], **options: Any) -> Legend:
    """Legend with labels drawn as written (matplotlib drops labels that begin with an underscore)."""
    shown = ["\u00a0" + text if text.startswith("_") else text for text in (plain(label, 44) for label in labels)]
    return ax.legend(list(handles), shown, **options)


def say(ax: Axes, sentence: str) -> None:
    """Use an axes for one sentence: what is missing, and why."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, plain(sentence, 200), ha="center", va="center", color=MUTED, transform=ax.transAxes, wrap=True)


def sentence_figure(sentence: str, *, width: float = FULL_WIDTH) -> Figure:
    """Return a figure that only says why there is nothing to draw."""
    figure = new_figure(width, 0.9)
    say(figure.add_subplot(), sentence)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Output
# ---------------------------------------------------------------------------------------------------------------------


def png_bytes(figure: Figure, *, dpi: int = 150, colours: int = 256) -> bytes:
    """Render to a palette PNG without time stamp."""
    buffer = io.BytesIO()
    with language():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return _fewer_colours(buffer.getvalue(), colours)


def pdf_bytes(figure: Figure) -> bytes:
    """Render to a PDF with editable text, byte for byte the same for the same figure."""
    buffer = io.BytesIO()
    with language(), mpl.rc_context({"pdf.fonttype": 42}):
        nothing = dict.fromkeys(("CreationDate", "ModDate", "Creator", "Producer"))
        figure.savefig(buffer, format="pdf", metadata=nothing)
    return buffer.getvalue()


def svg_file(figure: Figure) -> str:
    """Render to a stand-alone SVG document, byte for byte the same for the same figure."""
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(_svg_tree(figure), encoding="unicode") + "\n"


def svg_inline(figure: Figure, *, prefix: str, alt: str) -> str:
    """Render to an ``<svg>`` element for an HTML page.

    Parameters
    ----------
    figure
        The figure.
    prefix
        Letters, digits and hyphens that make every id of this figure unique in the page.
    alt
        What a reader who cannot see the figure should know.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", prefix):
        raise ValueError(f"prefix {prefix!r} is not an id")
    root = _svg_tree(figure)
    _rename_ids(root, prefix)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    # matplotlib counts 72 points to the inch, a browser 96 pixels
    root.set("style", f"width:{width * 96 / 72:.0f}px")
    root.set("role", "img")
    root.set("aria-label", plain(alt, 600))
    return ET.tostring(root, encoding="unicode")


def _svg_tree(figure: Figure) -> ET.Element:
    buffer = io.StringIO()
    with language():
        figure.savefig(buffer, format="svg", dpi=POINT_DPI, metadata={"Date": None, "Creator": None})
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    # the text is matplotlib's own output of this process, not a document from outside
    root = ET.fromstring(buffer.getvalue())
    for parent in root.iter():
        if "'DejaVu Sans'" in (css := parent.get("style", "")):  # a viewer without it: the nearest in width
            parent.set("style", css.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana"))
        for key in _SVG_LENGTHS & set(parent.keys()):
            parent.set(key, _LONG_NUMBER.sub(r"\1", parent.attrib[key]))
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}metadata":
                parent.remove(child)
            elif child.tag == f"{{{_SVG}}}image":
                _shrink(child)
    for style in root.iter(f"{{{_SVG}}}style"):
        style.text = (style.text or "").replace("*{", "svg *{")  # inside a page it must not reach beyond figures
    return root


def _rename_ids(root: ET.Element, prefix: str) -> None:
    used = {
        match
        for element in root.iter()
        for name, value in element.attrib.items()
        if name != "id"
        for match in re.findall(r"#([A-Za-z_][\w.-]*)", value)
    }
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                if value in used:
                    element.set(name, f"{prefix}-{value}")
                else:
                    del element.attrib[name]
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
            elif name == f"{{{_XLINK}}}href" and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")


def _shrink(image: ET.Element) -> None:
    key = f"{{{_XLINK}}}href"
    head, _, data = image.get(key, "").partition(",")
    if head.startswith("data:image/png"):
        small = _fewer_colours(base64.b64decode(data), 64)
        image.set(key, "data:image/png;base64," + base64.b64encode(small).decode())


def _fewer_colours(png: bytes, colours: int) -> bytes:
    """Reduce a PNG to a palette: point clouds and heatmaps need few colours and become several times smaller."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    pixels = np.asarray(image)
    opaque = bool((pixels[..., 3] == 255).all())
    packed = np.ascontiguousarray(pixels).view(np.dtype("<u4")).ravel()  # one number a pixel: 20 times faster than rows
    values, index = np.unique(packed, return_inverse=True)
    present = values.view(np.uint8).reshape(-1, 4)
    if opaque and len(present) <= colours:  # exact: a tile or a bar keeps the very colour of its legend
        small = Image.frombytes("P", image.size, index.astype(np.uint8).tobytes())
        small.putpalette(present[:, :3].tobytes())
    elif opaque:
        small = image.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    else:
        small = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue() if buffer.tell() < len(png) else png
