from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from dtcflow.cnv.tree import branch_names, build_tree, newick, newick_of, placement, shortest_tree

ARMS = ("1q", "8q", "16q", "17p", "13q")


def states(*clones: str) -> np.ndarray:
    rows = np.zeros((len(clones), len(ARMS)), dtype=np.int64)
    for j, events in enumerate(clones):
        for event in events.split():
            rows[j, ARMS.index(event[:-1])] = 1 if event[-1] == "+" else -1
    return rows


def test_trunk_branch_and_private_events() -> None:
    table = states("1q+ 16q-", "1q+ 16q- 8q+ 17p-", "1q+ 16q- 8q+ 13q-")
    tree = build_tree(table, ARMS, [table] * 10)
    assert tree.status == "resolved"
    assert tree.trunk == {"1q+", "16q-"}
    assert tree.clades == {frozenset({1, 2}): {"8q+"}}
    assert tree.leaves == (frozenset(), {"17p-"}, {"13q-"})
    assert tree.support[frozenset({1, 2})] == 1.0
    assert tree.event_support[frozenset({1}), "17p-"] == 1.0
    names = ["P_c1", "P_c2", "P_c3"]
    assert newick_of({"P": (tree, names)}) == (
        "((('P_c2':1,'P_c3':1)'P_n1/1.00':1,'P_c1':0)'P_trunk/1.00':2)diploid;\n"
    )
    # the first clone sits at the trunk: it is the ancestor of the others
    assert placement(tree, names, "P") == [
        ("diploid", {"1q+", "16q-"}),
        ("P_n1", {"17p-"}),
        ("P_n1", {"13q-"}),
    ]
    assert branch_names(tree, names, "P")[frozenset({1, 2})] == "P_n1"


def test_a_clone_at_an_inner_node_is_the_parent() -> None:
    tree = build_tree(states("1q+", "1q+ 8q+", "1q+ 8q+ 17p-"), ARMS, ())
    assert placement(tree, ["a", "b", "c"], "P") == [("diploid", {"1q+"}), ("a", {"8q+"}), ("b", {"17p-"})]


def test_a_branch_that_few_replicates_show_is_collapsed() -> None:
    table = states("1q+ 16q-", "1q+ 8q+ 17p-", "1q+ 8q+ 13q-")
    star = states("1q+ 16q-", "1q+ 17p-", "1q+ 13q-")
    tree = build_tree(table, ARMS, [table] * 6 + [star] * 4)
    assert tree.status == "tree_not_resolvable"
    assert not tree.clades
    assert tree.leaves[1] == {"8q+", "17p-"}
    assert build_tree(table, ARMS, [table] * 7 + [star] * 3).status == "resolved"


def test_clones_that_no_event_tells_apart_have_no_tree() -> None:
    assert build_tree(states("1q+", "1q+"), ARMS, ()).status == "tree_not_resolvable"


@pytest.mark.parametrize(("n", "status"), [(0, "no_clones"), (1, "single_clone")])
def test_no_clone_and_one_clone(n, status) -> None:
    tree = build_tree(states(*["1q+"] * n), ARMS, [states(*["1q+"] * n)])
    assert tree.status == status


def test_a_reversal_costs_two() -> None:
    """8q+ in two of three clones that share 16q- with nobody else: gained twice (2) or lost once (1 + 2): gained once
    on the branch of the two is 1."""
    branches = shortest_tree(states("1q+ 8q+", "1q+ 8q+", "1q+"), ARMS)
    assert branches[frozenset({0, 1})] == {"8q+"}
    assert branches[frozenset({0, 1, 2})] == {"1q+"}


def test_conflicting_events_keep_no_inner_branch() -> None:
    """Every pair of the three clones shares one event: three trees are equally short."""
    branches = shortest_tree(states("1q+ 8q+", "1q+ 16q-", "8q+ 16q-"), ARMS)
    assert {len(clade) for clade in branches} == {1, 3}


def test_order_of_the_clones_does_not_matter() -> None:
    rows = states("1q+ 16q-", "1q+ 8q+ 17p-", "1q+ 8q+ 13q-", "1q+ 8q+ 13q- 16q+")
    whole = shortest_tree(rows, ARMS)
    for order in permutations(range(4)):
        again = shortest_tree(rows[list(order)], ARMS)
        assert {frozenset(order[j] for j in clade): events for clade, events in again.items()} == whole


def test_newick_from_events() -> None:
    tree = newick(
        {
            "P1": {"P1_c1": frozenset({"1q+", "8q+"}), "P1_c2": frozenset({"1q+", "16q-"})},
            "P2": {"P2_c1": frozenset({"1q+"})},
            "P3": {},
        }
    )
    assert tree == "(('P1_c1':1,'P1_c2':1)'P1_trunk':1,'P2_c1':1)diploid;\n"
