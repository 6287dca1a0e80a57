"""A simulated cohort as a study folder that the workflow runs as it is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from dtcflow import resources
from dtcflow.contracts import InputError, Problem, write_bytes, write_table, write_text
from dtcflow.simulate.cohort import MARROW_CELLS, N_PATIENTS, PRIMARY_CELLS, write_cohort
from dtcflow.simulate.design import Scenario, get_scenario, sample_sheet

NOTICE = "SIMULATED DATA. These patients do not exist."


def shipped_config_dir() -> Path:
    """Return the folder of the configuration that ships with the workflow, beside the workflow's own folder."""
    return resources.folder().parents[1] / "config"


def _shipped(name: str) -> Path:
    path = shipped_config_dir() / name
    if not path.is_file():
        raise InputError(
            f"the shipped {name} is not there",
            [Problem(str(path), "no such file", "the file that ships with dtcflow", "install dtcflow again")],
        )
    return path


def study_config(shipped: dict[str, Any], *, title: str, notice: str = NOTICE) -> dict[str, Any]:
    """Return the shipped configuration without its ``simulate`` block and with another study title and notice."""
    config = {key: value for key, value in shipped.items() if key != "simulate"}
    return config | {"study": {**(config.get("study") or {}), "title": title, "notice": notice}}


def write_study(
    out_dir: str | Path,
    scenario: Scenario | str,
    *,
    seed: int,
    n_patients: int = N_PATIENTS,
    marrow_cells: int = MARROW_CELLS,
    primary_cells: int = PRIMARY_CELLS,
    samples: Collection[str] | None = None,
) -> None:
    """Simulate a cohort into a study folder: ``snakemake --directory out_dir`` runs it as a user's own data.

    Besides what :func:`~dtcflow.simulate.cohort.write_cohort` writes there are ``config/config.yaml`` (the shipped one
    without its ``simulate`` block), ``config/samples.tsv`` and ``config/claims.yaml``. The truth lies in ``truth/``,
    which no rule reads.

    Parameters
    ----------
    out_dir
        Folder; made when it is not there.
    scenario, seed, n_patients, marrow_cells, primary_cells, samples
        See :func:`~dtcflow.simulate.cohort.simulate_cohort`; the sheet lists the samples that are written.

    Raises
    ------
    InputError
        For an unknown scenario or sample, a negative seed, or an incomplete installation.
    """
    scenario = get_scenario(scenario)
    out_dir = Path(out_dir)
    shipped = yaml.safe_load(_shipped("config.yaml").read_text(encoding="utf-8"))
    claims = _shipped("claims.yaml").read_bytes()
    write_cohort(
        out_dir,
        scenario,
        seed=seed,
        n_patients=n_patients,
        marrow_cells=marrow_cells,
        primary_cells=primary_cells,
        samples=samples,
    )
    config = study_config(shipped, title=f"simulated breast-cancer cohort (scenario {scenario.name}, seed {seed})")
    config |= {"samples": "config/samples.tsv", "claims": "config/claims.yaml"}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    header = (
        "# Written by dtcflow.simulate from the shipped configuration; the keys are explained in config/README.md.\n"
    )
    write_text(out_dir / "config" / "config.yaml", header + text)
    write_bytes(out_dir / "config" / "claims.yaml", claims)
    sheet = sample_sheet(n_patients, path="matrices/{sample_id}.h5ad")
    if samples is not None:
        sheet = sheet[sheet["sample_id"].isin(set(samples))]
    write_table(sheet, out_dir / "config" / "samples.tsv")
