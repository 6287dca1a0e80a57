"""In which order the events of a patient's clones arose: a tree of fewest events under a diploid root.

An event arises at a cost of one, going back to two copies costs two, because a lost copy is not regained and an
extra one is rarely lost (infinite sites with an escape). All rooted trees of the clones are compared (at most five
clones, 105 trees) by Sankoff's algorithm (1975, SIAM J Appl Math 28:35). Branches without an event do not exist;
branches that fewer than 70 % of the bootstrap replicates show are collapsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dtcflow.cnv.null import Floats

States: TypeAlias = npt.NDArray[np.int64]
Clade: TypeAlias = frozenset[int]
Node: TypeAlias = "int | tuple[Node, Node]"

LEVELS = (-1, 0, 1)
REVERSAL = 2.0
COST = np.array(
    [[0.0 if a == b else (1.0 if a == 0 else (REVERSAL if b == 0 else REVERSAL + 1.0)) for b in LEVELS] for a in LEVELS]
)
"""Cost from the state of a parent (row: loss, neutral, gain) to that of a child."""
MIN_EDGE_SUPPORT = 0.7


@dataclass(frozen=True)
class CloneTree:
    """Tree of the clones of one patient."""

    status: str
    """``resolved``, ``tree_not_resolvable``, ``single_clone`` or ``no_clones``."""
    trunk: frozenset[str]
    clades: Mapping[Clade, frozenset[str]]
    """Inner branches (at least two clones, not all) that stand, and their events."""
    leaves: tuple[frozenset[str], ...]
    """Events on the branch of each clone."""
    support: Mapping[Clade, float]
    """Share of the bootstrap replicates per branch (single clones and all clones included)."""
    event_support: Mapping[tuple[Clade, str], float]
    """The same per branch and event."""
    n_bootstrap: int


def _topologies(leaves: Sequence[int]) -> list[Node]:
    if len(leaves) == 1:
        return [leaves[0]]
    trees: list[Node] = [(leaves[0], leaves[1])]
    for leaf in leaves[2:]:
        trees = [grown for tree in trees for grown in _insert(tree, leaf)]
    return trees


def _insert(tree: Node, leaf: int) -> list[Node]:
    found: list[Node] = [(tree, leaf)]
    if isinstance(tree, tuple):
        found += [(grown, tree[1]) for grown in _insert(tree[0], leaf)]
        found += [(tree[0], grown) for grown in _insert(tree[1], leaf)]
    return found


def _clade(tree: Node) -> Clade:
    return frozenset({tree}) if isinstance(tree, int) else _clade(tree[0]) | _clade(tree[1])


def _costs(tree: Node, states: States, memory: dict[Clade, Floats]) -> Floats:
    """Arms x levels: least cost below a node for each of its states."""
    if isinstance(tree, int):
        cost = np.where(states[tree][:, None] == np.array(LEVELS)[None, :], 0.0, np.inf)
    else:
        cost = np.zeros((states.shape[1], len(LEVELS)))
        for child in tree:
            below = _costs(child, states, memory)
            cost = cost + np.min(COST[None] + below[:, None, :], axis=2)
    memory[_clade(tree)] = cost
    return np.asarray(cost)


def _branches(tree: Node, arms: Sequence[str], memory: dict[Clade, Floats]) -> dict[Clade, frozenset[str]]:
    """Events on the branch above every node, with the parent's state kept as long as it costs nothing."""
    found: dict[Clade, frozenset[str]] = {}

    def visit(node: Node, parent: States) -> None:
        total = COST[parent] + memory[_clade(node)]
        least = total.min(axis=1)
        kept = total[np.arange(len(arms)), parent] <= least + 1e-9
        own = np.where(kept, parent, np.argmin(total, axis=1))
        found[_clade(node)] = frozenset(
            _event(arms[a], int(parent[a]), int(own[a])) for a in np.flatnonzero(own != parent).tolist()
        )
        if isinstance(node, tuple):
            for child in node:
                visit(child, own)

    visit(tree, np.full(len(arms), LEVELS.index(0)))
    return found


def _event(arm: str, before: int, after: int) -> str:
    """``1q+`` and ``1q-``; a return to two copies is ``1q+ reverted``."""
    if LEVELS[after]:
        return f"{arm}{'+' if LEVELS[after] > 0 else '-'}"
    return f"{arm}{'+' if LEVELS[before] > 0 else '-'} reverted"


def shortest_tree(states: States, arms: Sequence[str]) -> dict[Clade, frozenset[str]]:
    """Branches with their events of the tree of fewest events.

    Where several trees are equally short, only inner branches with an event that all of them have are kept.

    Parameters
    ----------
    states
        clones x arms: -1, 0 or 1.
    """
    k = len(states)
    best, found = np.inf, []  # type: tuple[float, list[dict[Clade, frozenset[str]]]]
    for tree in _topologies(range(k)):
        memory: dict[Clade, Floats] = {}
        below = _costs(tree, states, memory)
        total = float((COST[LEVELS.index(0)] + below).min(axis=1).sum())
        if total < best - 1e-9:
            best, found = total, []
        if total <= best + 1e-9:
            found.append(_branches(tree, arms, memory))
    shared = [
        clade
        for clade, events in found[0].items()
        if len(clade) in (1, k) or (events and all(other.get(clade) for other in found))
    ]
    return {clade: found[0][clade] for clade in shared}


def collapse(branches: Mapping[Clade, frozenset[str]], kept: set[Clade], k: int) -> dict[Clade, frozenset[str]]:
    """Remove inner branches that are not kept; their events move to each clone below."""
    result = {clade: events for clade, events in branches.items() if len(clade) in (1, k) or clade in kept}
    for clade, events in branches.items():
        if clade not in result:
            for leaf in clade:
                result[frozenset({leaf})] = result[frozenset({leaf})] | events
    return result


def build_tree(states: States, arms: Sequence[str], replicates: Sequence[States]) -> CloneTree:
    """Tree of the clones with bootstrap support.

    Parameters
    ----------
    states
        clones x arms: -1, 0 or 1.
    replicates
        The same from resampled genes.
    """
    k = len(states)
    if k == 0:
        return CloneTree("no_clones", frozenset(), {}, (), {}, {}, 0)
    branches = shortest_tree(states, arms)
    counts: dict[Clade, int] = {}
    events: dict[tuple[Clade, str], int] = {}
    for replicate in replicates:
        for clade, found in shortest_tree(replicate, arms).items():
            counts[clade] = counts.get(clade, 0) + bool(found)
            for event in found:
                events[clade, event] = events.get((clade, event), 0) + 1
    n = len(replicates)

    def share(count: int) -> float:
        return count / n if n else float("nan")

    everyone = frozenset(range(k))
    inner = {clade for clade in branches if 1 < len(clade) < k}
    kept = {clade for clade in inner if not n or share(counts.get(clade, 0)) >= MIN_EDGE_SUPPORT}
    final = collapse(branches, kept, k)
    status = "resolved"
    if k == 1:
        status = "single_clone"
    elif kept != inner or len({tuple(row) for row in states.tolist()}) < k:
        status = "tree_not_resolvable"
    leaves = tuple(final[frozenset({j})] for j in range(k))
    return CloneTree(
        status,
        final[everyone] if k > 1 else frozenset(),
        {clade: final[clade] for clade in kept},
        leaves,
        {clade: share(counts.get(clade, 0)) for clade in final},
        {(clade, e): share(events.get((clade, e), 0)) for clade, found in final.items() for e in found},
        n,
    )


def placement(tree: CloneTree, names: Sequence[str], patient: str) -> list[tuple[str, frozenset[str]]]:
    """Parent of each clone and the events that separate the two.

    A clone without events of its own sits at its inner node: it is the parent of the others there, and the events that
    lead to the node are its own. Where no clone sits at a node, the node is named instead (``P1_trunk``).
    """
    inner = _inner(tree, len(names), patient)
    above = [sorted((clade for clade in inner if j in clade), key=len) for j in range(len(names))]
    sitting: dict[Clade, int] = {}
    for j in range(len(names)):
        if above[j] and not tree.leaves[j]:
            sitting.setdefault(above[j][0], j)

    def name(clades: Sequence[Clade]) -> str:
        if not clades:
            return "diploid"
        return names[sitting[clades[0]]] if clades[0] in sitting else inner[clades[0]]

    found = []
    for j in range(len(names)):
        if above[j] and sitting.get(above[j][0]) == j:
            node = above[j][0]
            found.append((name(above[j][1:]), tree.trunk if len(node) == len(names) else tree.clades[node]))
        else:
            found.append((name(above[j]), tree.leaves[j]))
    return found


def _inner(tree: CloneTree, k: int, patient: str) -> dict[Clade, str]:
    """Inner nodes and their names: ``P1_trunk``, ``P1_n1`` ..."""
    if k < 2:
        return {}
    names = {frozenset(range(k)): f"{patient}_trunk"} if tree.trunk else {}
    ordered = sorted(tree.clades, key=lambda clade: (-len(clade), sorted(clade)))
    return names | {clade: f"{patient}_n{i + 1}" for i, clade in enumerate(ordered)}


def branch_names(tree: CloneTree, names: Sequence[str], patient: str) -> dict[Clade, str]:
    """Name of the node below every branch: trunk, inner nodes, clones."""
    return _inner(tree, len(names), patient) | {frozenset({j}): name for j, name in enumerate(names)}


def subtree(tree: CloneTree, names: Sequence[str], patient: str) -> list[str]:
    """Newick strings (no semicolon) of what hangs from the diploid root: one for a patient with a trunk.

    Branch lengths are numbers of events. Inner nodes are labelled with their name and, after a ``/``, the share of the
    bootstrap replicates that show them.
    """
    inner = _inner(tree, len(names), patient)

    def text(clade: Clade) -> str:
        below = [c for c in inner if c < clade and not any(c < d < clade for d in inner)]
        loose = [j for j in sorted(clade) if not any(j in c for c in below)]
        parts = [text(c) for c in sorted(below, key=sorted)]
        parts += [f"{_quote(names[j])}:{len(tree.leaves[j])}" for j in loose]
        if clade not in inner:
            return ",".join(parts)
        support = tree.support.get(clade, float("nan"))
        label = inner[clade] + (f"/{support:.2f}" if np.isfinite(support) else "")
        length = len(tree.trunk if len(clade) == len(names) else tree.clades[clade])
        return f"({','.join(parts)}){_quote(label)}:{length}"

    return [text(frozenset(range(len(names))))] if names else []


def newick(events: Mapping[str, Mapping[str, frozenset[str]]]) -> str:
    """Newick trees of all patients from the events of their clones alone: patient -> clone -> events (``"1q+"``)."""
    trees = {}
    for patient, clones in events.items():
        names = sorted(clones)
        arms = sorted({event[:-1] for found in clones.values() for event in found})
        states = np.zeros((len(names), len(arms)), dtype=np.int64)
        for j, name in enumerate(names):
            for event in clones[name]:
                states[j, arms.index(event[:-1])] = 1 if event.endswith("+") else -1
        trees[patient] = (build_tree(states, arms, ()), names)
    return newick_of(trees)


def newick_of(patients: Mapping[str, tuple[CloneTree, Sequence[str]]]) -> str:
    """Newick trees of all patients (tree and names of the clones) under one diploid root."""
    parts = [part for patient in sorted(patients) for part in subtree(*patients[patient], patient)]
    return f"({','.join(parts)})diploid;\n" if parts else "diploid;\n"


def _quote(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
