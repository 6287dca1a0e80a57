"""Figures of one report: rendered for the page, and kept as files where Snakemake's own report shows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup
from matplotlib.figure import Figure

from dtcflow.plot import style
from dtcflow.report import page


@dataclass
class Pictures:
    """Renders figures and collects the files to write (name to bytes)."""

    files: dict[str, bytes] = field(default_factory=dict)

    def inline(self, figure: Figure, *, prefix: str, alt: str, caption: str) -> page.Figure:
        """Render for the page. ``prefix`` keeps the ids of this figure apart from all others."""
        # svg_inline escapes every text through an XML serialiser: nothing of the user's is markup here
        return page.Figure(Markup(style.svg_inline(figure, prefix=prefix, alt=alt)), caption)

    def keep(self, name: str, figure: Figure, *, dpi: int = 150) -> None:
        """Keep a figure as a file; the suffix chooses the format."""
        if name.endswith(".svg"):
            self.files[name] = style.svg_file(figure).encode()
        else:
            self.files[name] = style.png_bytes(figure, dpi=dpi)
