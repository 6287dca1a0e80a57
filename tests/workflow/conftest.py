"""Study folders with matrices of two cells: enough for a plan of the jobs, which reads headers only."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tests" / "configs"


def sheet_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a sample sheet."""
    header, *lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``small_study(name)``: the study of ``tests/configs/<name>``, with a tiny matrix for each row of its sheet."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(CONFIGS / name, folder / "config")
        if not (folder / "config" / "claims.yaml").is_file():
            shutil.copyfile(ROOT / "config" / "claims.yaml", folder / "config" / "claims.yaml")
        for row in sheet_rows(folder / "config" / "samples.tsv"):
            matrix = folder / row["path"]
            matrix.parent.mkdir(parents=True, exist_ok=True)
            matrix.write_text(f"barcode,EPCAM,KRT8,PTPRC\nA,4,2,0\nB,0,0,3\n{row['sample_id']},1,0,0\n")
        return folder

    return make


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configuration in a folder of its own."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "config", folder / "config")
    return folder
