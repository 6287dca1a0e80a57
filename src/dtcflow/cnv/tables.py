"""Arm, clone and event tables of one patient from the cells that were called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from dtcflow.cnv.arms import SplitStatistics
from dtcflow.cnv.clone_arms import clone_arm_table
from dtcflow.cnv.clones import BOOTSTRAPS, Clones, find_clones, resampled_units
from dtcflow.cnv.mixture import arm_of, candidate_regions
from dtcflow.cnv.null import Floats
from dtcflow.cnv.run import unpack_segments
from dtcflow.cnv.states import CloneStates, clone_states
from dtcflow.cnv.tree import CloneTree, branch_names, build_tree, placement
from dtcflow.contracts import TABLES

BOOTSTRAP_SEED = 20
KINDS = ("trunk", "branch", "clone")


@dataclass(frozen=True)
class CloneTables:
    """What is known of the clones of one patient."""

    clone_id: list[str]
    """Per cell; empty outside the clones."""
    clone_posterior: Floats
    """Per cell: posterior probability of its clone; NaN outside."""
    names: list[str]
    arms: pd.DataFrame
    clones: pd.DataFrame
    events: pd.DataFrame
    tree: CloneTree


def clone_tables(
    cells: pd.DataFrame,
    packed: ad.AnnData,
    *,
    malignant: npt.NDArray[np.bool_],
    is_dtc: npt.NDArray[np.bool_],
    patient_id: str,
    status: Mapping[str, Any],
    effect: float,
    bootstraps: int = BOOTSTRAPS,
) -> CloneTables:
    """Clones, their arms and their tree.

    Parameters
    ----------
    cells
        One row per cell in the order of ``packed``: ``sample_id compartment``.
    packed
        Stage ``cnv`` of the patient.
    malignant
        Cells that make the clones: malignant and alone in their droplet, because droplets of two cells would dilute the
        profile of their clone.
    is_dtc
        Disseminated cells among them, counted per clone.
    status
        The patient's copy-number status.
    effect
        Smallest log ratio of an arm that is called.
    """
    statistics, inflation, tau, _ = unpack_segments(packed)
    samples = cells["sample_id"].to_numpy(dtype=object)
    compartment = cells["compartment"].to_numpy(dtype=object)
    if malignant.any():
        clones = find_clones(
            statistics,
            malignant,
            compartment,
            inflation=inflation,
            min_abs_log_ratio=effect,
            bootstraps=bootstraps,
            seed=BOOTSTRAP_SEED,
        )
    else:
        clones = Clones(np.full(len(cells), -1, dtype=np.int64), 0, "none", (), np.full(len(cells), np.nan))
    names = [f"{patient_id}_c{k + 1}" for k in range(clones.n_clones)]
    n_genes = _genes_per_arm(packed)
    arm_rows: list[pd.DataFrame] = []
    for sample in sorted(set(samples.tolist())):
        present = [k for k in range(clones.n_clones) if ((clones.label == k) & (samples == sample)).any()]
        for k in present:
            members = (clones.label == k) & (samples == sample)
            table = clone_arm_table(statistics[members], inflation=inflation, tau=tau, min_abs_log_ratio=effect)
            arm_rows.append(_label(table, patient_id, sample, names[k], int(members.sum()), n_genes))
        if not present:
            arm_rows.append(_unassessed(patient_id, sample, list(n_genes), n_genes))
    tree, states = clone_tree(
        statistics, clones, inflation=inflation, tau=tau, effect=effect, bootstraps=bootstraps, seed=BOOTSTRAP_SEED
    )
    rows = _clone_rows(clones, names, tree, states, is_dtc=is_dtc, patient_id=patient_id)
    if not rows:
        state = "no_tumour_cells" if status["status"] == "ok" else f"not_assessable:{status['status']}"
        rows = [
            dict.fromkeys(TABLES["clones"], "")
            | {"patient_id": patient_id, "n_cells": 0, "n_dtc": 0, "status": state, "support": np.nan}
            | {"n_bootstrap": 0}
        ]
    return CloneTables(
        [names[k] if k >= 0 else "" for k in clones.label],
        clones.posterior,
        names,
        stack_tables(arm_rows, "arms"),
        pd.DataFrame(rows),
        _event_rows(statistics, clones, names, tree, states, patient_id=patient_id),
        tree,
    )


def clone_tree(
    statistics: SplitStatistics,
    clones: Clones,
    *,
    inflation: Floats,
    tau: Floats,
    effect: float,
    bootstraps: int,
    seed: int,
) -> tuple[CloneTree, CloneStates]:
    """States of the clones and their tree; the half-segments of every arm are resampled for its support."""
    options = {"inflation": inflation, "tau": tau, "effect": effect}
    states = clone_states(statistics, clones.label, **options)  # type: ignore[arg-type]
    if clones.n_clones == 0:
        return build_tree(states.state, states.arms, ()), states
    rng = np.random.default_rng(seed)
    regions = candidate_regions(statistics.full.arms)
    replicates = [
        clone_states(statistics, clones.label, times=resampled_units(regions, rng), **options).state  # type: ignore[arg-type]
        for _ in range(bootstraps)
    ]
    return build_tree(states.state, states.arms, replicates), states


def _clone_rows(
    clones: Clones,
    names: Sequence[str],
    tree: CloneTree,
    states: CloneStates,
    *,
    is_dtc: npt.NDArray[np.bool_],
    patient_id: str,
) -> list[dict[str, Any]]:
    status = clones.status
    if status == "resolved" and tree.status == "tree_not_resolvable":
        status = tree.status
    rows = []
    placed = placement(tree, names, patient_id)
    for k, name in enumerate(names):
        members = clones.label == k
        rows.append(
            {
                "patient_id": patient_id,
                "clone_id": name,
                "n_cells": int(members.sum()),
                "n_dtc": int((members & is_dtc).sum()),
                "status": status,
                "gains": ",".join(a for a, s in zip(states.arms, states.state[k], strict=True) if s > 0),
                "losses": ",".join(a for a, s in zip(states.arms, states.state[k], strict=True) if s < 0),
                "support": clones.support[k],
                "parent": placed[k][0],
                "trunk_events": _in_order(tree.trunk, states.arms),
                "branch_events": _in_order(placed[k][1], states.arms),
                "n_bootstrap": clones.n_bootstrap,
            }
        )
    return rows


def _in_order(events: frozenset[str], arms: Sequence[str]) -> str:
    place = {arm: i for i, arm in enumerate(arms)}
    return ",".join(sorted(events, key=lambda event: (place[_arm(event)], event)))


def _arm(event: str) -> str:
    return event.split(" ")[0][:-1]


def _event_rows(
    statistics: SplitStatistics,
    clones: Clones,
    names: Sequence[str],
    tree: CloneTree,
    states: CloneStates,
    *,
    patient_id: str,
) -> pd.DataFrame:
    """One row per event of the tree: on which branch, in which clones, how sure."""
    branches = branch_names(tree, names, patient_id)
    everyone = frozenset(range(len(names)))
    found = {frozenset({j}): events for j, events in enumerate(tree.leaves)} | dict(tree.clades)
    if len(names) > 1:
        found[everyone] = tree.trunk
    place = {arm: i for i, arm in enumerate(states.arms)}
    rows = []
    for clade in sorted(found, key=lambda c: (-len(c), sorted(c))):
        members = np.isin(clones.label, sorted(clade))
        for event in sorted(found[clade], key=lambda e: (place[_arm(e)], e)):
            a = place[_arm(event)]
            columns = np.array([arm_of(name) == states.arms[a] for name in statistics.full.arms])
            info = statistics.full.info[np.ix_(members, columns)].sum()
            # the levels of the arm as they were measured, before they were centred: the clones' own tables hold those
            log_ratio = statistics.full.u[np.ix_(members, columns)].sum() / max(info, 1e-9)
            rows.append(
                {
                    "patient_id": patient_id,
                    "branch": branches.get(clade, "diploid"),
                    "kind": KINDS[0] if clade == everyone else KINDS[2] if len(clade) == 1 else KINDS[1],
                    "event": event,
                    "arm": states.arms[a],
                    "state": "reverted" if event.endswith("reverted") else "gain" if event.endswith("+") else "loss",
                    "clones": ",".join(names[j] for j in sorted(clade)),
                    "n_cells": int(members.sum()),
                    "log_ratio": float(log_ratio),
                    "posterior": float(np.min(states.posterior[sorted(clade), a])),
                    "support": tree.event_support[clade, event],
                    "n_bootstrap": tree.n_bootstrap,
                }
            )
    return pd.DataFrame(rows, columns=list(TABLES["clone_events"]))


def _genes_per_arm(packed: ad.AnnData) -> dict[str, int]:
    noise = packed.uns["arm_noise"]
    return dict(zip(noise["arm"].astype(str), noise["n_genes"].astype(int), strict=True))


def _label(
    table: pd.DataFrame, patient: str, sample: str, clone: str, n_cells: int, n_genes: Mapping[str, int]
) -> pd.DataFrame:
    labelled = table.reset_index()
    labelled.insert(0, "patient_id", patient)
    labelled.insert(1, "sample_id", sample)
    labelled.insert(2, "clone_id", clone)
    labelled["n_cells"] = n_cells
    labelled["n_genes"] = [n_genes[a] for a in labelled["arm"]]
    return labelled[list(TABLES["arms"])]


def _unassessed(patient: str, sample: str, arms: Sequence[str], n_genes: Mapping[str, int]) -> pd.DataFrame:
    """Rows that say that this sample has no clone whose arms could be assessed."""
    table = pd.DataFrame({"arm": list(arms)}, dtype=object)
    for column in ("log_ratio", "ci_low", "ci_high", "q_value", "power", "smallest_detectable"):
        table[column] = np.nan
    table["power"] = 0.0
    table["state"] = "not_assessable"
    return _label(table.set_index("arm"), patient, sample, "", 0, n_genes)


def stack_tables(frames: Sequence[pd.DataFrame], table: str) -> pd.DataFrame:
    """Frames below each other; a frame with the table's columns when there are none."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame({column: pd.Series([], dtype=object) for column in TABLES[table]})
    return pd.concat(filled, ignore_index=True)
