import numpy as np
import pandas as pd
import pytest

from dtcflow.scores.halves import split_halves
from dtcflow.scores.signatures import GeneSet, load_panel

GENES = [f"G{i:03d}" for i in range(101)]
MEANS = pd.DataFrame({"mean": np.exp(np.random.default_rng(2).normal(0, 2, 101))}, index=GENES)


def test_halves_are_disjoint_complete_and_of_one_size():
    a, b = split_halves(GeneSet("S", tuple(GENES), weights=tuple(np.arange(1.0, 102.0))), MEANS)
    assert (a.name, b.name) == ("S_HALF_A", "S_HALF_B")
    assert set(a.up) | set(b.up) == set(GENES)
    assert not set(a.up) & set(b.up)
    assert abs(len(a.up) - len(b.up)) == 1
    for half in (a, b):
        assert half.role == "sensitivity"
        assert dict(zip(half.genes, half.weights, strict=True)) == {gene: 1.0 + GENES.index(gene) for gene in half.up}


def test_halves_are_matched_on_expression():
    level = np.log(MEANS["mean"])
    gaps = [
        abs(level[list(a.up)].mean() - level[list(b.up)].mean())
        for a, b in (split_halves(GeneSet("S", tuple(GENES)), MEANS, salt=str(i)) for i in range(50))
    ]
    alone = [
        abs(level[list(a.up)].mean() - level[list(b.up)].mean())
        for a, b in (split_halves(GeneSet("S", tuple(GENES)), salt=str(i)) for i in range(50))
    ]
    # an unmatched split of 101 genes with a spread of 2 differs by 2 * sqrt(4 / 101) = .4 on the average of its square
    assert max(gaps) < 0.2
    assert np.median(alone) > 3 * np.median(gaps)


def test_the_split_depends_on_genes_and_means_only():
    order = np.random.default_rng(0).permutation(101)
    first = split_halves(GeneSet("S", tuple(GENES)), MEANS)
    second = split_halves(GeneSet("OTHER", tuple(np.array(GENES)[order])), MEANS.iloc[order])
    assert [half.up for half in first] == [half.up for half in second]
    assert first[0].up != split_halves(GeneSet("S", tuple(GENES)), MEANS, salt="x")[0].up


def test_directions_are_split_apart_and_unknown_genes_by_hash():
    one = GeneSet("S", tuple(GENES[:20]), tuple(GENES[20:27]))
    a, b = split_halves(one, MEANS.iloc[:10])
    assert (len(a.up), len(b.up)) == (10, 10)
    assert {len(a.down), len(b.down)} == {3, 4}
    assert set(a.down) | set(b.down) == set(GENES[20:27])
    with pytest.raises(ValueError, match="one down gene"):
        split_halves(GeneSet("S", ("A", "B"), ("C",)))


def test_every_shipped_stemness_set_can_be_split():
    for one in load_panel():
        if one.role in ("primary", "confirmatory", "progenitor", "dormancy"):
            a, b = split_halves(one)
            assert set(a.genes) | set(b.genes) == set(one.genes)
