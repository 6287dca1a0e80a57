"""One complete run of a small simulated study, shared by the tests of this folder, and tools to compare runs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dtcflow.simulate import write_study

ROOT = Path(__file__).parents[2]
TABLES = (".tsv", ".tsv.gz", ".json", ".nwk", ".html")

# Settings that cost time and change nothing about how files, steps and messages fit together.
FAST = {
    "scores": {"n_null": 100},
    "evidence": {"depth_repeats": 2, "max_cells_per_group": 30, "self_check_repeats": 20},
    "embedding": {"resolutions": [0.5, 1.0]},
}


def set_config(folder: Path, **blocks: dict[str, object] | str | int) -> None:
    """Change blocks of a study's configuration."""
    path = folder / "config" / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    for block, values in blocks.items():
        settings[block] = {**(settings.get(block) or {}), **values} if isinstance(values, dict) else values
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


@dataclass(frozen=True)
class Run:
    """A study folder whose run has ended."""

    folder: Path
    text: str

    @property
    def results(self) -> Path:
        return self.folder / "results"


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated study that has not been run: two patients, marrow and primary."""
    folder = tmp_path_factory.mktemp("cohort") / "study"
    write_study(folder, "progenitor", seed=1, n_patients=2, marrow_cells=250, primary_cells=120)
    set_config(folder, **FAST)
    return folder


@pytest.fixture(scope="session")
def copy_of(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``copy_of(name)``: the study, unrun, in a folder of its own."""

    def copy(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "study"
        shutil.copytree(cohort, folder)
        return folder

    return copy


@pytest.fixture(scope="session")
def fingerprints() -> Callable[[Path], dict[str, str]]:
    """``fingerprints(results)``: hash of every table and page of a run; logs and benchmarks are not results."""

    def hashes(results: Path) -> dict[str, str]:
        return {
            str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(results.rglob("*"))
            if path.name.endswith(TABLES) and not {"logs", "benchmarks"} & set(path.relative_to(results).parts)
        }

    return hashes


@pytest.fixture(scope="session")
def finished(copy_of: Callable[..., Path], snakemake: Callable[..., object], house: Path) -> Run:
    """The study, run to its end on two cores."""
    folder = copy_of("finished")
    done = snakemake(folder, cores=2, house=house)
    assert done.code == 0, done.text
    return Run(folder, done.text)
