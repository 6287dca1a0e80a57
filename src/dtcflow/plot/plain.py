"""Text of users made safe to show."""

from __future__ import annotations

import re
from typing import Final

_NOT_XML: Final = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]")
# Invisible marks that reorder or hide text (bidirectional controls, zero-width characters)
_INVISIBLE: Final = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def plain(text: object, limit: int = 48) -> str:
    """Make any value safe to draw: no control or invisible characters, at most ``limit`` characters."""
    shown = _INVISIBLE.sub("", _NOT_XML.sub(" ", str(text)))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
