"""What quality control must do to any matrix: properties over drawn matrices, not examples."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dtcflow.qc.lineage import LINEAGES
from dtcflow.qc.loss_audit import audit_losses
from dtcflow.qc.metrics import METRICS, qc_metrics
from dtcflow.qc.run import qc_sample
from dtcflow.qc.thresholds import Rule, apply_thresholds, find_thresholds, qc_classes, removing_reasons

GENES = ["MT-CO1", "MT-ND1", "RPL3", "RPS2", "HBB", "HBA1", "EPCAM", "KRT8", "KRT18", "CD3E", "LYZ", "ACTB"]
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 40), st.just(len(GENES))), elements=st.integers(0, 400).map(float)
)


def wrap(counts: np.ndarray, genes: list[str] = GENES) -> ad.AnnData:
    names = pd.Index([f"S1:c{i:03d}" for i in range(len(counts))])
    identity = {"sample_id": "S1", "patient_id": "P1", "compartment": "marrow", "platform": "droplet"}
    adata = ad.AnnData(obs=pd.DataFrame(identity, index=names), var=pd.DataFrame({"symbol": genes}, index=genes))
    adata.layers["counts"] = sp.csr_matrix(counts, dtype=np.float32)
    return adata


def run(adata: ad.AnnData) -> pd.DataFrame:
    return qc_sample(adata, settings={}, epithelial_z_threshold=3.0, seed=1, n_null=20)[0].set_index("cell_id")


@QUICK
@given(counts=matrices, seed=st.integers(0, 1000))
def test_order_of_cells_and_genes_is_nothing(counts: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    adata = wrap(counts)
    shuffled = adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()
    expected, found = run(adata), run(shuffled).loc[adata.obs_names]
    for column in ("pass_qc", "qc_reasons", "qc_class", "lineage", "n_counts", "n_genes", "n_epithelial_markers"):
        assert (expected[column] == found[column]).all(), column
    np.testing.assert_allclose(expected["pct_mt"], found["pct_mt"], rtol=1e-12)


@QUICK
@given(counts=matrices)
def test_every_cell_has_a_row_a_class_and_where_removed_a_reason(counts: np.ndarray) -> None:
    cells = run(wrap(counts))
    assert len(cells) == len(counts)
    assert (cells["qc_class"].eq("poor") == ~cells["pass_qc"]).all()
    for text, passed in zip(cells["qc_reasons"], cells["pass_qc"], strict=True):
        assert bool(removing_reasons(text)) != passed
    assert (~cells.loc[counts.sum(axis=1) == 0, "pass_qc"]).all()


@QUICK
@given(counts=matrices, factor=st.integers(2, 50))
def test_shares_do_not_change_with_depth(counts: np.ndarray, factor: int) -> None:
    one, many = qc_metrics(wrap(counts)), qc_metrics(wrap(counts * factor))
    np.testing.assert_array_equal(many["n_counts"], factor * one["n_counts"])
    for column in ("n_genes", "pct_mt", "pct_ribo", "pct_hb"):
        np.testing.assert_allclose(many[column], one[column], rtol=1e-12)


@QUICK
@given(counts=matrices, extra=st.integers(1, 5))
def test_genes_without_counts_change_no_metric(counts: np.ndarray, extra: int) -> None:
    wide = np.hstack([counts, np.zeros((len(counts), extra), np.float32)])
    more = qc_metrics(wrap(wide, [*GENES, *(f"ZZ{i}" for i in range(extra))]))
    pd.testing.assert_frame_equal(more[list(METRICS)], qc_metrics(wrap(counts))[list(METRICS)])


depths = st.lists(st.integers(50, 20_000), min_size=25, max_size=150)
lineages = st.sampled_from(LINEAGES)


def metrics_of(depth: np.ndarray, pct_mt: np.ndarray | float = 4.0) -> pd.DataFrame:
    frame = pd.DataFrame({"n_counts": depth, "n_genes": np.ceil(3 * depth**0.7), "pct_mt": pct_mt})
    frame["log10_genes_per_count"] = np.log10(frame["n_genes"]) / np.log10(frame["n_counts"])
    return frame


def passing(metrics: pd.DataFrame, labels: np.ndarray) -> np.ndarray:
    lineage = pd.Series(labels, index=metrics.index, dtype=object)
    return apply_thresholds(metrics, lineage, find_thresholds(metrics, lineage))["pass_qc"].to_numpy(bool)


@QUICK
@given(depth=depths, n=st.integers(1, 10), factor=st.floats(50, 1000), lineage=lineages)
def test_cells_with_many_counts_all_pass(depth: list[int], n: int, factor: float, lineage: str) -> None:
    before = np.asarray(depth, float)
    large = np.full(n, factor * before.max())
    labels = np.array(["haematopoietic"] * len(before) + [lineage] * n, dtype=object)
    kept = passing(metrics_of(np.concatenate([before, large])), labels)
    assert kept[len(before) :].all()


@QUICK
@given(depth=depths, lineage=lineages, mt=st.floats(0, 100))
def test_a_cell_is_judged_by_its_values_and_lineage_alone(depth: list[int], lineage: str, mt: float) -> None:
    counts = np.asarray([*depth, depth[0], depth[0]], float)
    pct = np.append(np.full(len(depth), 4.0), [mt, mt])
    kept = passing(metrics_of(counts, pct), np.array(["haematopoietic"] * len(depth) + [lineage] * 2, dtype=object))
    assert kept[-1] == kept[-2]


@QUICK
@given(depth=depths, low=st.floats(0, 100), more=st.floats(0, 100), lineage=lineages)
def test_a_lower_mitochondrial_share_never_removes(depth: list[int], low: float, more: float, lineage: str) -> None:
    # the cell itself moves its group's limit, so that the limits are found without it
    metrics = metrics_of(np.asarray(depth, float), 4.0)
    labels = pd.Series(["haematopoietic"] * len(metrics), dtype=object)
    labels.iloc[0] = lineage
    limits = find_thresholds(metrics, labels)
    kept = []
    for share in (low, min(100.0, low + more)):
        changed = metrics.copy()
        changed.loc[0, "pct_mt"] = share
        kept.append(bool(apply_thresholds(changed, labels, limits)["pass_qc"].iloc[0]))
    assert kept[0] or not kept[1]


@QUICK
@given(depth=depths, limit=st.integers(1, 30_000), of=lineages, lineage=lineages)
def test_a_fixed_limit_of_a_lineage_acts_on_that_lineage_only(
    depth: list[int], limit: int, of: str, lineage: str
) -> None:
    metrics = metrics_of(np.asarray(depth, float))
    labels = pd.Series([lineage] * len(metrics), dtype=object)
    rule = Rule.from_settings({"min_genes": 0, "lineages": {of: {"min_counts": limit}}})
    kept = apply_thresholds(metrics, labels, find_thresholds(metrics, labels, rule=rule), rule=rule)["pass_qc"]
    if of == lineage:
        assert (kept == (metrics["n_counts"] >= limit)).all()
    else:
        plain = Rule.from_settings({"min_genes": 0})
        without = apply_thresholds(metrics, labels, find_thresholds(metrics, labels, rule=plain), rule=plain)
        assert (kept == without["pass_qc"]).all()


@QUICK
@given(
    reasons=st.lists(st.sampled_from(["", "low_counts(1<2)", "note:low_complexity(0.1<0.2)"]), max_size=20),
    seed=st.integers(0, 99),
)
def test_classes_follow_from_reasons_and_flags(reasons: list[str], seed: int) -> None:
    text = pd.Series(reasons, dtype=object)
    passed = pd.Series([not removing_reasons(value) for value in reasons], dtype=bool)
    flag = pd.Series(np.random.default_rng(seed).random(len(reasons)) < 0.5, dtype=bool)
    for value, ok, doublet, found in zip(reasons, passed, flag, qc_classes(text, passed, flag), strict=True):
        assert found == ("poor" if not ok else "ambiguous" if value or doublet else "good")


@QUICK
@given(counts=matrices)
def test_no_epithelial_transcript_of_a_removed_cell_goes_unlisted(counts: np.ndarray) -> None:
    cells = run(wrap(counts)).reset_index()
    calls = pd.DataFrame(
        columns=["cell_id", "malignant_call", "malignancy_q", "cnv_burden_q", "call_reasons", "malignant_class"]
    )
    listed = set(audit_losses(cells, calls, epithelial_z=3.0)["cell_id"])
    assert set(cells.loc[(cells["n_epithelial_markers"] > 0) & ~cells["pass_qc"], "cell_id"]) <= listed
    # without any call all cells that passed are undecided
    assert set(cells.loc[cells["pass_qc"], "cell_id"]) <= listed
