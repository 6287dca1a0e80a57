"""Rows on disk: one line of JSON per cohort, appended in one write, so that a killed run loses at most one cohort."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a row in a single write: a reader sees it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, sort_keys=True, allow_nan=False) + "\n").encode()
    torn = path.is_file() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, b"\n" + line if torn else line)
    finally:
        os.close(handle)


def read(path: Path, *, plan_sha256: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of one plan; a line that a killed run left half-written is skipped.

    Of a cohort that was appended twice the first row counts.
    """
    if not path.is_file():
        return []
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if plan_sha256 is None or row["plan_sha256"] == plan_sha256:
            rows.setdefault((row["scenario"], row["replicate"]), row)
    return list(rows.values())
