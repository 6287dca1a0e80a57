"""The ways in which infercnvpy misleads, each as a regression test."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.cnv.windows import smooth_windows, window_layout, window_score
from dtcflow.contracts import DtcflowError
from dtcflow.scores.calibrated import log_normalise

from .conftest import make_patient

WINDOWS = {"window_size": 20, "step": 5}


@pytest.fixture(scope="module")
def inputs():
    patient = make_patient(n_normal=30, n_primary_tumour=10)
    lognorm = log_normalise(sp.csr_matrix(patient.adata.layers["counts"]))
    rows = np.flatnonzero(~patient.tumour)
    types = patient.cells["cell_type"].to_numpy(dtype=object)[rows]
    return patient, lognorm, rows, types


def test_refuses_without_reference(inputs) -> None:
    patient, lognorm, rows, types = inputs
    with pytest.raises(DtcflowError, match="need reference cells"):
        smooth_windows(lognorm, patient.adata.var, rows[:0], types[:0], **WINDOWS)


def test_layout_matches_and_gains_are_above_losses(inputs) -> None:
    patient, lognorm, rows, types = inputs
    windows = smooth_windows(lognorm, patient.adata.var, rows, types, **WINDOWS)
    assert windows.values.shape == (lognorm.shape[0], len(windows.layout))
    assert (windows.layout["n_genes"] == 20).all()
    tumour = windows.values[patient.tumour].mean(axis=0)
    gained = windows.layout["arm"].isin(patient.gains).to_numpy()
    lost = windows.layout["arm"].isin(patient.losses).to_numpy()
    assert tumour[gained].mean() > 0.02 > -0.02 > tumour[lost].mean()
    score = window_score(windows)
    assert np.median(score[patient.tumour]) > np.median(score[rows])


def test_small_chromosome_is_one_window() -> None:
    var = make_patient(n_normal=1).adata.var
    layout = window_layout(var.iloc[:15], window_size=20, step=5)
    assert layout["n_genes"].tolist() == [15]


def test_a_cells_windows_do_not_depend_on_order_chunk_genes_or_other_cells(inputs, monkeypatch) -> None:
    patient, lognorm, rows, types = inputs
    whole = smooth_windows(lognorm, patient.adata.var, rows, types, **WINDOWS).values
    cells = np.random.default_rng(0).permutation(lognorm.shape[0])
    back = np.argsort(cells)
    shuffled = smooth_windows(sp.csr_matrix(lognorm[cells]), patient.adata.var, back[rows], types, **WINDOWS).values
    np.testing.assert_allclose(shuffled[back], whole, atol=1e-6)
    genes = np.random.default_rng(1).permutation(lognorm.shape[1])
    moved = smooth_windows(
        sp.csr_matrix(lognorm[:, genes]), patient.adata.var.iloc[genes], rows, types, **WINDOWS
    ).values
    np.testing.assert_allclose(moved, whole, atol=1e-6)
    monkeypatch.setattr("dtcflow.cnv.windows.CHUNK_CELLS", 17)
    chunked = smooth_windows(lognorm, patient.adata.var, rows, types, **WINDOWS).values
    np.testing.assert_array_equal(chunked, whole)
    keep = np.concatenate([rows, np.flatnonzero(patient.tumour)[:3]])
    fewer = smooth_windows(
        sp.csr_matrix(lognorm[keep]), patient.adata.var, np.arange(len(rows)), types, **WINDOWS
    ).values
    np.testing.assert_allclose(fewer, whole[keep], atol=1e-6)


def test_equal_gene_starts_do_not_leave_the_order_to_chance(inputs) -> None:
    patient, lognorm, rows, types = inputs
    var = patient.adata.var.copy()
    var["start"] = (var["start"] // 1_000_000) * 1_000_000
    genes = np.random.default_rng(3).permutation(lognorm.shape[1])
    first = smooth_windows(lognorm, var, rows, types, **WINDOWS).values
    second = smooth_windows(sp.csr_matrix(lognorm[:, genes]), var.iloc[genes], rows, types, **WINDOWS).values
    np.testing.assert_allclose(second, first, atol=1e-6)


def test_reference_is_pooled_with_equal_weight_per_type(inputs) -> None:
    """Ten times as many T cells in the reference must not move the profile of the reference towards T cells."""
    patient, lognorm, rows, types = inputs
    whole = smooth_windows(lognorm, patient.adata.var, rows, types, **WINDOWS).values
    repeated = np.concatenate([rows, *[rows[types == "T_NK"]] * 9])
    weighted = smooth_windows(
        lognorm, patient.adata.var, repeated, np.concatenate([types, *[types[types == "T_NK"]] * 9]), **WINDOWS
    ).values
    assert np.corrcoef(weighted[patient.tumour].ravel(), whole[patient.tumour].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("pyarrow", [True, False])
def test_runs_with_and_without_pyarrow(pyarrow: bool) -> None:
    """With pandas 3 and pyarrow, text columns are arrow strings on which infercnvpy's chromosome filter fails."""
    if pyarrow:
        pytest.importorskip("pyarrow")
    code = f"""
        import sys
        if not {pyarrow}:
            sys.modules["pyarrow"] = None
        import numpy as np, pandas as pd, scipy.sparse as sp
        from dtcflow.cnv.windows import smooth_windows
        n = 60
        var = pd.DataFrame({{"chromosome": ["chr1"] * 30 + ["chr2"] * 30, "start": range(n), "end": range(n),
                            "arm": ["1p"] * 30 + ["2p"] * 30}}, index=pd.Index([f"G{{i}}" for i in range(n)]))
        x = sp.csr_matrix(np.random.default_rng(0).random((12, n)).astype("float32"))
        values = smooth_windows(x, var, np.arange(8), np.array(["a"] * 8, dtype=object), window_size=10, step=5).values
        print(values.shape)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(12, 10)"


@pytest.mark.slow
def test_more_than_ten_thousand_cells() -> None:
    patient = make_patient(n_normal=20, n_primary_tumour=5)
    lognorm = log_normalise(sp.csr_matrix(patient.adata.layers["counts"][:, :200]))
    var = patient.adata.var.iloc[:200]
    small = smooth_windows(lognorm, var, np.arange(60), patient.cells["cell_type"].to_numpy(object)[:60], **WINDOWS)
    n = lognorm.shape[0]
    many = sp.csr_matrix(sp.vstack([lognorm] * (10_100 // n + 1)))
    big = smooth_windows(many, var, np.arange(60), patient.cells["cell_type"].to_numpy(object)[:60], **WINDOWS)
    assert len(big.values) > 10_000
    np.testing.assert_allclose(big.values[:n], small.values, atol=1e-6)
    np.testing.assert_allclose(big.values[-n:], small.values, atol=1e-6)
