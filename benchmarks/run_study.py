"""Run the workflow's real root Snakefile on a study folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_study(folder: Path, *, cores: int, log: Path | None = None) -> int:
    """Run all rules on ``folder``; screen output goes to ``log`` (default: ``run.log`` in the folder).

    Returns
    -------
    Exit code of Snakemake: 0 when every public output was made.
    """
    log = folder / "run.log" if log is None else log
    environment = os.environ | {"PYTHONNOUSERSITE": "1"}
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--rerun-incomplete"]
    # a run that was killed leaves a lock behind; the study folder belongs to this script alone
    subprocess.run(
        [*snakemake, "--directory", str(folder), "--unlock"], check=False, capture_output=True, env=environment
    )
    with log.open("w") as screen:
        done = subprocess.run(
            [*snakemake, "--directory", str(folder), "--cores", str(cores)],
            check=False,
            stdout=screen,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    return done.returncode
