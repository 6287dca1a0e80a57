"""Studies under the hands of people who make mistakes, or mean harm: how they are made, checked and looked at after."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import Study, tree  # noqa: E402

from dtcflow import genes  # noqa: E402
from dtcflow.cli import main  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _positions_read_once() -> Iterator[None]:
    """Gene positions and aliases are the same for all cases: read them once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_positions", "load_aliases"):
            patch.setattr(genes, name, functools.cache(getattr(genes, name)))
        yield


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A sound study of two samples."""
    return Study(tmp_path / "study")


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[dict[str, object]], str]]:
    """``check(study, read=)``: exit code, problems and all output of ``dtcflow check``, which must write nothing."""

    def run(study: Study, *, read: bool = False) -> tuple[int, list[dict[str, object]], str]:
        before = tree(study.folder.parent)
        code = main(["check", "--directory", str(study.folder), "--json", *(["--read"] if read else [])])
        printed = capsys.readouterr()
        assert tree(study.folder.parent) == before, "a check writes nothing"
        problems = json.loads(printed.out)["problems"] if printed.out.strip() else []
        return code, problems, printed.out + printed.err

    return run
