from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtcflow.contracts import InputError
from dtcflow.qc.thresholds import Rule, apply_thresholds, find_thresholds, qc_classes, removing_reasons


def frame(
    n_counts: Any, n_genes: Any = None, pct_mt: Any = 4.0, lineage: Any = "haematopoietic", complexity: Any = None
) -> tuple[pd.DataFrame, pd.Series]:
    n_counts = np.atleast_1d(np.asarray(n_counts, dtype=float))
    n_genes = n_counts / 2 if n_genes is None else n_genes
    metrics = pd.DataFrame({"n_counts": n_counts, "n_genes": n_genes, "pct_mt": pct_mt})
    metrics["log10_genes_per_count"] = 0.9 if complexity is None else complexity
    metrics.index = pd.Index([f"c{i}" for i in range(len(metrics))])
    return metrics, pd.Series(lineage, index=metrics.index, dtype=object)


def decide(metrics: pd.DataFrame, lineage: pd.Series, **rule: Any) -> pd.DataFrame:
    made = Rule(**rule)
    return apply_thresholds(metrics, lineage, find_thresholds(metrics, lineage, rule=made), rule=made)


def limit(metrics: pd.DataFrame, lineage: pd.Series, metric: str, of: str, **rule: Any) -> Any:
    found = find_thresholds(metrics, lineage, rule=Rule(**rule))
    return next(t for t in found if (t.metric, t.lineage) == (metric, of))


def two_sided_5_mad(metrics: pd.DataFrame) -> np.ndarray:
    """The filter in common use: removes what lies 5 MAD away on either side."""
    keep = np.ones(len(metrics), dtype=bool)
    for name in ("n_counts", "n_genes"):
        values = np.log1p(metrics[name].to_numpy())
        distance = np.abs(values - np.median(values))
        keep &= distance <= 5 * np.median(distance)
    return keep


# ------------------------------------------------------------------------------------------------ the limits themselves


def test_hand_computed_mad_limit() -> None:
    # log1p counts 2, 4, ..., 200 with median 101 and MAD 50: scaled by 1 / 100
    metrics, lineage = frame(np.expm1(np.arange(2, 202, 2) / 100))
    found = limit(metrics, lineage, "n_counts", "haematopoietic", n_mads=2)
    assert (found.origin, found.n_cells, found.side) == ("mad", 100, "low")
    assert np.log1p(found.median) == pytest.approx(1.01)
    assert found.spread == pytest.approx(1.4826 * 0.50)
    assert np.log1p(found.value) == pytest.approx(1.01 - 2 * 1.4826 * 0.50)


def test_a_tight_group_does_not_remove_its_neighbours() -> None:
    # MAD is 0; a cell stays until it is below a third of the median counts (half of the median genes)
    metrics, lineage = frame([1000.0] * 60 + [900.0, 400.0, 300.0], n_genes=[500.0] * 63)
    found = decide(metrics, lineage)
    assert found["pass_qc"].tolist() == [True] * 62 + [False]
    # expm1(log1p(1000) - log 3) = 1001 / 3 - 1
    assert found["qc_reasons"].iloc[-1] == "low_counts(300<332.7)"


def test_a_flat_mitochondrial_share_does_not_remove_its_neighbours() -> None:
    metrics, lineage = frame([1000.0] * 62, pct_mt=[0.0] * 60 + [4.9, 5.1])
    found = decide(metrics, lineage)
    assert found["pass_qc"].tolist() == [True] * 61 + [False]
    assert found["qc_reasons"].iloc[-1] == "high_mt(5.10>5.00)"


def test_many_counts_and_high_complexity_never_remove() -> None:
    metrics, lineage = frame(
        [1000.0] * 100 + [1e7], n_genes=[500.0] * 100 + [19000.0], complexity=[0.9] * 100 + [0.999]
    )
    found = decide(metrics, lineage)
    assert found["pass_qc"].all()
    assert (found["qc_reasons"] == "").all()


@pytest.mark.parametrize("ratio", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n_tumour", [2, 20, 60])
def test_large_tumour_cells_are_all_kept_where_a_two_sided_filter_loses_them(ratio: float, n_tumour: int) -> None:
    rng = np.random.default_rng(11)
    counts = 3000 * np.exp(rng.normal(0, 0.3, 1000))
    tumour = 3000 * ratio * np.exp(rng.normal(0, 0.3, n_tumour))
    depth = np.concatenate([counts, tumour])
    labels = np.array(["haematopoietic"] * 1000 + ["epithelial"] * n_tumour, dtype=object)
    mt = np.concatenate([rng.normal(4, 1, 1000), rng.normal(12, 3, n_tumour)]).clip(0)
    metrics, lineage = frame(depth, n_genes=3 * depth**0.75, pct_mt=mt, lineage=labels)
    assert decide(metrics, lineage)["pass_qc"].iloc[1000:].all()
    lost = (~two_sided_5_mad(metrics)[1000:]).mean()
    if ratio >= 5:
        assert lost > 0.5
    if ratio == 8:
        assert lost > 0.9


# ---------------------------------------------------------------------------------------------------------- rare groups


def test_a_rare_group_borrows_and_is_not_removed_for_being_unlike_the_rest() -> None:
    rng = np.random.default_rng(1)
    mt = np.concatenate([rng.normal(4, 1, 500), [22.0, 25.0, 27.0, 24.0, 23.0]])
    depth = np.concatenate([rng.normal(4000, 300, 500), [900.0, 1000.0, 950.0, 1100.0, 1000.0]])
    labels = ["haematopoietic"] * 500 + ["epithelial"] * 5
    metrics, lineage = frame(depth, pct_mt=mt, lineage=labels)
    assert limit(metrics, lineage, "pct_mt", "haematopoietic").value < 15
    assert limit(metrics, lineage, "n_counts", "haematopoietic").value > 1200
    own = limit(metrics, lineage, "pct_mt", "epithelial")
    assert own.origin == "borrowed"
    assert own.n_cells == 5
    assert decide(metrics, lineage)["pass_qc"].iloc[500:].all()
    # the same cells without a lineage are judged by the sample
    nameless = lineage.replace("epithelial", "unknown")
    assert not decide(metrics, nameless)["pass_qc"].iloc[500:].any()


def test_the_cap_holds_for_a_rare_group_too() -> None:
    metrics, lineage = frame(
        [4000.0] * 103, pct_mt=[4.0] * 100 + [48.0, 49.0, 60.0], lineage=["haematopoietic"] * 100 + ["epithelial"] * 3
    )
    assert limit(metrics, lineage, "pct_mt", "epithelial").value == 50
    assert decide(metrics, lineage)["pass_qc"].tolist() == [True] * 102 + [False]
    assert not decide(metrics, lineage, max_pct_mt_cap=40)["pass_qc"].iloc[100:].any()


@pytest.mark.parametrize("n_red", [20, 200])
def test_red_cells_are_not_thrown_away_for_having_few_genes(n_red: int) -> None:
    rng = np.random.default_rng(2)
    depth = np.concatenate([4000 * np.exp(rng.normal(0, 0.3, 600)), 700 * np.exp(rng.normal(0, 0.3, n_red))])
    genes = np.concatenate([1500 * np.exp(rng.normal(0, 0.2, 600)), 150 * np.exp(rng.normal(0, 0.2, n_red))])
    metrics, lineage = frame(depth, genes, lineage=["haematopoietic"] * 600 + ["erythroid"] * n_red)
    assert limit(metrics, lineage, "n_genes", "haematopoietic").value > 150
    assert decide(metrics, lineage)["pass_qc"].iloc[600:].mean() > 0.97


def test_cells_of_a_rich_lineage_are_good_when_the_sample_would_take_them() -> None:
    # 100 tumour cells around 30,000 counts and one with 4,000: as good as the median marrow cell
    rng = np.random.default_rng(5)
    depth = np.concatenate([rng.normal(4000, 800, 800), rng.normal(30000, 1500, 100), [4000.0]])
    metrics, lineage = frame(depth, lineage=["haematopoietic"] * 800 + ["epithelial"] * 101)
    found = limit(metrics, lineage, "n_counts", "epithelial")
    assert found.origin == "borrowed"
    assert decide(metrics, lineage)["pass_qc"].iloc[-1]


# ---------------------------------------------------------------------------------------------------------- dying cells


def test_dying_cells_go_and_living_mitochondria_rich_cells_stay_with_a_note() -> None:
    rng = np.random.default_rng(4)
    n_genes = np.concatenate([rng.normal(1500, 100, 300), [300.0] * 30, [2500.0], [2500.0]])
    mt = np.concatenate([rng.normal(4, 1, 300), [35.0] * 30, [35.0], [55.0]])
    labels = ["haematopoietic"] * 300 + ["unknown"] * 32
    metrics, lineage = frame([5000.0] * 332, n_genes, mt, labels)
    found = decide(metrics, lineage)
    assert not found["pass_qc"].iloc[300:330].any()
    assert found["pass_qc"].iloc[330]
    assert found["qc_reasons"].iloc[330].startswith("note:high_mt_rna_rich(35.00>")
    assert removing_reasons(found["qc_reasons"].iloc[330]) == []
    assert not found["pass_qc"].iloc[331]
    assert removing_reasons(found["qc_reasons"].iloc[331]) == ["high_mt"]
    # a blood cell with the same values is not excused
    assert not decide(metrics, lineage.replace("unknown", "stromal").where(lineage.index != "c330", "haematopoietic"))[
        "pass_qc"
    ].iloc[330]


def test_low_complexity_alone_is_only_a_note() -> None:
    metrics, lineage = frame(
        [1000.0] * 100 + [1000.0, 100.0], [500.0] * 100 + [500.0, 5.0], complexity=[0.9] * 100 + [0.35] * 2
    )
    found = decide(metrics, lineage)
    assert found["pass_qc"].tolist() == [True] * 101 + [False]
    assert found["qc_reasons"].iloc[100] == "note:low_complexity(0.350<0.850)"
    assert removing_reasons(found["qc_reasons"].iloc[101]) == ["low_counts", "low_genes"]
    assert "note:low_complexity" in found["qc_reasons"].iloc[101]


# ----------------------------------------------------------------------------------------------------------- edge cases


@pytest.mark.parametrize("n", [0, 1, 2, 5, 19])
def test_tiny_samples_have_no_mad_rule(n: int) -> None:
    metrics, lineage = frame([10.0**i for i in range(1, 6)] * 4, pct_mt=[1.0, 60.0, 3.0, 4.0, 5.0] * 4)
    metrics, lineage = metrics.iloc[:n], lineage.iloc[:n]
    found = decide(metrics, lineage)
    assert found["pass_qc"].tolist() == [i % 5 != 1 for i in range(n)]
    assert {t.origin for t in find_thresholds(metrics, lineage) if t.metric != "pct_mt"} <= {"none"}
    assert {t.origin for t in find_thresholds(metrics, lineage) if t.metric == "pct_mt"} <= {"fixed"}


def test_empty_cells_fail_and_take_no_part_in_the_medians() -> None:
    metrics, lineage = frame([0.0] * 200 + [1000.0] * 50, lineage=["unknown"] * 200 + ["haematopoietic"] * 50)
    metrics.loc[metrics["n_counts"] == 0, ["pct_mt", "log10_genes_per_count"]] = np.nan
    found = decide(metrics, lineage)
    assert found["pass_qc"].tolist() == [False] * 200 + [True] * 50
    assert (found["qc_reasons"].iloc[:200] == "empty(0 counts)").all()
    assert limit(metrics, lineage, "n_counts", "unknown").median == pytest.approx(1000)


def test_without_mitochondrial_genes_nothing_is_removed_for_them() -> None:
    metrics, lineage = frame([1000.0] * 60, pct_mt=np.nan)
    assert np.isnan(limit(metrics, lineage, "pct_mt", "haematopoietic").value)
    assert limit(metrics, lineage, "pct_mt", "haematopoietic").origin == "none"
    assert decide(metrics, lineage)["pass_qc"].all()


def test_fixed_limits_replace_the_rule_in_every_lineage() -> None:
    metrics, lineage = frame(
        [1000.0] * 60 + [499.0, 500.0],
        n_genes=[300.0] * 62,
        pct_mt=[4.0] * 60 + [70.0, 60.0],
        lineage=["haematopoietic"] * 60 + ["epithelial", "unknown"],
    )
    found = decide(metrics, lineage, min_counts=500, min_genes=10, max_pct_mt=65)
    assert found["pass_qc"].tolist() == [True] * 60 + [False, True]
    assert found["qc_reasons"].iloc[60] == "low_counts(499<500);high_mt(70.00>65.00)"
    assert {
        t.origin for t in find_thresholds(metrics, lineage, rule=Rule(min_counts=500)) if t.metric == "n_counts"
    } == {"fixed"}


def test_a_fixed_limit_also_works_for_one_cell() -> None:
    metrics, lineage = frame([300.0])
    assert decide(metrics, lineage, min_counts=500)["qc_reasons"].tolist() == ["low_counts(300<500)"]


def test_order_of_cells_does_not_matter() -> None:
    rng = np.random.default_rng(8)
    labels = rng.choice(["haematopoietic", "erythroid", "epithelial", "unknown"], 300, p=[0.7, 0.1, 0.1, 0.1])
    metrics, lineage = frame(np.exp(rng.normal(7, 1, 300)), pct_mt=rng.gamma(2, 4, 300), lineage=labels)
    order = rng.permutation(300)
    shuffled = decide(metrics.iloc[order], lineage.iloc[order])
    pd.testing.assert_frame_equal(decide(metrics, lineage), shuffled.loc[metrics.index])


@settings(max_examples=60, deadline=None)
@given(
    depth=st.lists(st.integers(1, 200_000), min_size=1, max_size=120),
    factor=st.floats(1.0, 50.0),
    lineage=st.sampled_from(["haematopoietic", "epithelial", "unknown"]),
)
def test_more_counts_never_turn_a_passing_cell_into_a_failing_one(
    depth: list[int], factor: float, lineage: str
) -> None:
    metrics, labels = frame(np.asarray(depth, float), lineage=[lineage, *["haematopoietic"] * (len(depth) - 1)])
    thresholds = find_thresholds(metrics, labels)
    before = apply_thresholds(metrics, labels, thresholds)["pass_qc"].iloc[0]
    richer = metrics.copy()
    richer.loc["c0", ["n_counts", "n_genes"]] *= factor
    after = apply_thresholds(richer, labels, thresholds)["pass_qc"].iloc[0]
    assert after or not before


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_are_read_and_all_wrong_ones_named_at_once() -> None:
    shipped = {"n_mads": 5, "min_counts": None, "max_pct_mt": 20, "max_pct_mt_cap": 50, "expected_doublet_rate": None}
    assert Rule.from_settings(shipped) == Rule(max_pct_mt=20)
    assert Rule.from_settings({}) == Rule()
    with pytest.raises(InputError) as caught:
        Rule.from_settings(
            {"n_mads": 0, "min_counts": "many", "max_pct_mt": 120, "max_pct_mt_cap": None, "min_genes": 5}
        )
    assert [problem.key for problem in caught.value.problems] == [
        "qc.n_mads",
        "qc.min_counts",
        "qc.max_pct_mt",
        "qc.max_pct_mt_cap",
    ]
    assert "found 'many'; allowed: a number at least 0, or null" in str(caught.value)


def test_removing_reasons_skips_notes() -> None:
    assert removing_reasons("low_counts(1<2);note:low_complexity(0.1<0.2);high_mt(60.00>50.00)") == [
        "low_counts",
        "high_mt",
    ]
    assert removing_reasons("empty(0 counts)") == ["empty"]
    assert removing_reasons("") == []


# ------------------------------------------------------------------------------------------ limits per lineage, classes


def test_a_fixed_limit_of_one_lineage_goes_before_that_of_all() -> None:
    metrics, lineage = frame(
        [1000.0] * 62, pct_mt=[4.0] * 60 + [58.0, 58.0], lineage=["haematopoietic"] * 61 + ["epithelial"]
    )
    rule: dict[str, Any] = {"max_pct_mt": 20.0, "lineages": {"epithelial": {"max_pct_mt": 60.0}}}
    assert limit(metrics, lineage, "pct_mt", "epithelial", **rule).value == 60
    assert limit(metrics, lineage, "pct_mt", "haematopoietic", **rule).value == 20
    assert decide(metrics, lineage, **rule)["pass_qc"].tolist() == [True] * 60 + [False, True]


def test_a_fixed_mitochondrial_limit_of_a_lineage_spares_nobody_above_it() -> None:
    metrics, lineage = frame([1000.0] * 61, pct_mt=[4.0] * 60 + [30.0], lineage=["haematopoietic"] * 60 + ["unknown"])
    assert decide(metrics, lineage)["qc_reasons"].iloc[-1].startswith("note:high_mt_rna_rich")
    assert not decide(metrics, lineage, lineages={"unknown": {"max_pct_mt": 25.0}})["pass_qc"].iloc[-1]


def test_settings_of_lineages_are_read_and_checked() -> None:
    read = Rule.from_settings({"lineages": {"epithelial": {"max_pct_mt": 60, "min_genes": None}, "stromal": None}})
    assert read.fixed("pct_mt", "epithelial") == 60
    assert read.fixed("n_genes", "epithelial") is read.fixed("pct_mt", "stromal") is None
    assert read.fixed("log10_genes_per_count", "epithelial") is None
    assert Rule.from_settings({"lineages": None}) == Rule()
    with pytest.raises(InputError) as caught:
        Rule.from_settings({"lineages": {"epithelium": {}, "erythroid": {"min_counts": -1}, "stromal": {"max_mt": 3}}})
    assert [problem.key for problem in caught.value.problems] == [
        "qc.lineages",
        "qc.lineages.erythroid.min_counts",
        "qc.lineages.stromal.max_mt",
    ]


def test_who_passes_by_a_borrowed_limit_says_so() -> None:
    depth = [4000.0] * 500 + [30000.0] * 20 + [4000.0]
    metrics, lineage = frame(depth, lineage=["haematopoietic"] * 500 + ["epithelial"] * 21)
    found = decide(metrics, lineage)
    assert found["pass_qc"].all()
    assert (found["qc_reasons"].iloc[:-1] == "").all()
    # a third of the median of its own group (half of its genes), which it does not reach
    assert found["qc_reasons"].iloc[-1] == (
        "note:borrowed_limit(n_counts 4000<9999.3);note:borrowed_limit(n_genes 2000<7499.5)"
    )
    assert removing_reasons(found["qc_reasons"].iloc[-1]) == []


def test_an_epithelial_cell_rich_in_mitochondria_needs_fewer_genes_than_the_median() -> None:
    # the epithelial group's own limit is far away, so that one of 9 % is put in its place
    n_genes = [1000.0] * 303 + [400.0, 399.0, 999.0]
    labels = ["haematopoietic"] * 300 + ["epithelial"] * 5 + ["unknown"]
    metrics, lineage = frame([3000.0] * 306, n_genes, [4.0] * 303 + [30.0] * 3, labels)
    rule = Rule(min_genes=100)
    limits = [
        dataclasses.replace(t, value=9.0, strict=9.0) if (t.metric, t.lineage) == ("pct_mt", "epithelial") else t
        for t in find_thresholds(metrics, lineage, rule=rule)
    ]
    found = apply_thresholds(metrics, lineage, limits, rule=rule)
    assert found["pass_qc"].tolist() == [True] * 304 + [False, False]
    assert found["qc_reasons"].iloc[303] == "note:high_mt_rna_rich(30.00>9.00)"


def test_classes() -> None:
    reasons = pd.Series(["", "", "note:low_complexity(0.1<0.2)", "low_counts(1<2)", "low_counts(1<2)"])
    passed = pd.Series([True, True, True, False, False])
    doublet = pd.Series([False, True, False, False, True])
    assert qc_classes(reasons, passed, doublet).tolist() == ["good", "ambiguous", "ambiguous", "poor", "poor"]
