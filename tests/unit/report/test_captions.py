"""Captions of Snakemake's own report: each is used, is valid reStructuredText, and quotes the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

WORKFLOW = Path(__file__).parents[3] / "workflow"
CAPTIONS = sorted((WORKFLOW / "report").glob("*.rst"))
CONFIG = {
    "study": {"title": "A <title>", "notice": "SIMULATED"},
    "qc": {"n_mads": 3.25},
    "copy_number": {"min_abs_log_ratio": 0.234},
    "report": {"max_points": 4321},
}


def rendered(path: Path, config: dict[str, object]) -> str:
    return jinja2.Template(path.read_text(), undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config=config)
    )


def test_captions_and_report_items_match() -> None:
    sources = [*(WORKFLOW / "rules").glob("*.smk"), WORKFLOW / "Snakefile"]
    used = {name for path in sources for name in re.findall(r"report/([a-z_]+\.rst)", path.read_text())}
    assert used == {path.name for path in CAPTIONS}


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("config", [{}, CONFIG], ids=["defaults", "own"])
def test_captions_are_valid(path: Path, config: dict[str, object]) -> None:
    core = pytest.importorskip("docutils.core")
    settings = {"halt_level": 2, "report_level": 5, "file_insertion_enabled": False, "raw_enabled": False}
    html = core.publish_parts(rendered(path, config), writer_name="html5", settings_overrides=settings)["body"]
    assert len(re.sub("<[^>]+>", "", html)) > 150


@pytest.mark.parametrize(
    ("name", "value"),
    [("workflow", "SIMULATED"), ("qc_waterfall", "3.25"), ("arms", "0.234"), ("umap", "4321")],
)
def test_captions_quote_the_configuration(name: str, value: str) -> None:
    assert value in rendered(WORKFLOW / "report" / f"{name}.rst", CONFIG)
