"""How tests run the workflow: always through Snakemake's command line, always in a temporary folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# numba reads this again and again and stops when it changes after its first use; steps run in this process set it
os.environ["NUMBA_NUM_THREADS"] = "1"

ROOT = Path(__file__).parents[1]
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (?P<rule>\w+):\n(?P<body>(?:    .*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """A job that Snakemake said it runs, or would run."""

    rule: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    log: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def jobs(self) -> list[Job]:
        """Jobs in the order they were announced, without the target rule that has no output."""
        found = []
        for match in JOB.finditer(self.text):
            fields = dict(line.strip().split(": ", 1) for line in match["body"].splitlines() if ": " in line)
            parts = {key: tuple(sorted(fields.get(key, "").split(", "))) for key in ("input", "output", "log")}
            if parts["output"] != ("",):
                found.append(Job(match["rule"], **parts))
        return found

    @property
    def rules(self) -> list[str]:
        return sorted(job.rule for job in self.jobs)


def environment(house: Path) -> dict[str, str]:
    """The package of ``house`` goes before an installed one; a user's own Snakemake profile is not read."""
    kept = {key: value for key, value in os.environ.items() if key != "SNAKEMAKE_PROFILE"}
    return kept | {"PYTHONPATH": str(house / "src")}


def command(*arguments: str | Path, cwd: Path, house: Path = ROOT) -> Done:
    """Run Python with ``arguments`` to its end."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(house),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def snakemake_arguments(directory: Path, *arguments: str | Path, house: Path, snakefile: str) -> list[str]:
    """What follows ``python`` when the workflow of ``house`` runs in ``directory``."""
    where = ["--snakefile", str(house / snakefile), "--directory", str(directory)]
    return ["-m", "snakemake", *where, *map(str, arguments)]


Snakemake = Callable[..., Done]


@pytest.fixture(scope="session")
def snakemake() -> Snakemake:
    """``snakemake(directory, *arguments)``: the workflow in a study folder, to its end."""

    def run(
        directory: Path, *arguments: str | Path, cores: int = 2, house: Path = ROOT, snakefile: str = "Snakefile"
    ) -> Done:
        assert ROOT not in (directory, *directory.parents), "tests run in temporary folders"
        given = snakemake_arguments(directory, "--cores", str(cores), *arguments, house=house, snakefile=snakefile)
        return command(*given, cwd=directory, house=house)

    return run


@pytest.fixture(scope="session")
def dry_run(snakemake: Snakemake) -> Callable[..., Done]:
    """``dry_run(directory)``: the jobs that would run; fails with what Snakemake said when it cannot tell."""

    def run(directory: Path, *arguments: str, **options: object) -> Done:
        done = snakemake(directory, "--dry-run", *arguments, **options)
        assert done.code == 0, done.text
        return done

    return run


@pytest.fixture(scope="session")
def killed() -> Callable[..., str]:
    """``killed(directory, steps=, seconds=)``: a run that SIGKILL ends so long after so many of its steps; its words.

    The whole process group is killed, as by a machine that goes down; ``while_alive`` is called just before.
    """

    def run(
        directory: Path,
        *,
        steps: int,
        seconds: float,
        house: Path = ROOT,
        while_alive: Callable[[], None] = lambda: None,
    ) -> str:
        given = snakemake_arguments(directory, "--cores", "2", house=house, snakefile="Snakefile")
        process = subprocess.Popen(
            [sys.executable, *given],
            cwd=directory,
            env=environment(house),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        said, finished = [], 0
        try:
            for line in process.stdout:
                said.append(line)
                finished += line.startswith("Finished jobid")
                if finished >= steps and "Execute" in line:
                    break
            time.sleep(seconds)
            while_alive()
            assert process.poll() is None, "the run ended before it could be killed:\n" + "".join(said)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
        return "".join(said)

    return run


@pytest.fixture(scope="session")
def dtcflow() -> Callable[..., Done]:
    """``dtcflow(*arguments, cwd=...)``: the command line."""

    def run(*arguments: str | Path, cwd: Path, house: Path = ROOT) -> Done:
        return command("-m", "dtcflow.cli", *arguments, cwd=cwd, house=house)

    return run


def copy_house(
    target: Path, *, names: Sequence[str] = ("Snakefile", "workflow", "src", "config", "profiles", "envs")
) -> Path:
    """Copy what the workflow runs from, so that a test may edit it."""
    target.mkdir(parents=True)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow and the package that all runs of a session share: nobody edits it under a running test."""
    return copy_house(tmp_path_factory.mktemp("house") / "dtcflow")
