"""Windows are infercnvpy's; the ways in which it misleads are regression tests."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import textwrap

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.cnv.windows import (
    balanced_profile,
    chromosome_starts,
    running_sums,
    running_windows,
    smooth_windows,
    standard_deviation,
    window_layout,
    window_score,
)
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


def infercnvpy_windows(lognorm, chromosome, reference, *, window_size, step, **options):
    """infercnvpy without its noise filter; genes of ``lognorm`` in genome order. Windows and ``chr_pos``."""
    from infercnvpy.tl import infercnv

    n = lognorm.shape[1]
    # object columns: its chromosome filter fails on arrow strings
    var = pd.DataFrame({"chromosome": pd.Series(chromosome, dtype=object), "start": np.arange(n), "end": np.arange(n)})
    var.index = pd.Index([f"g{i}" for i in range(n)], dtype=object)
    cells = ad.AnnData(X=lognorm, var=var)
    cells.var["chromosome"] = cells.var["chromosome"].astype(object)
    with contextlib.redirect_stderr(io.StringIO()):
        starts, values, _ = infercnv(
            cells,
            reference=np.atleast_2d(reference),
            dynamic_threshold=None,
            window_size=window_size,
            step=step,
            n_jobs=1,
            inplace=False,
            **options,
        )
    return values.toarray(), starts


def random_cells(sizes, *, n_cells=7, density=0.3, seed=0):
    """Log-normalised values and the chromosome of each gene, ``sizes`` genes per chromosome."""
    rng = np.random.default_rng(seed)
    chromosome = np.repeat([f"chr{i + 1}" for i in range(len(sizes))], sizes).astype(object)
    dense = np.where(rng.random((n_cells, sum(sizes))) < density, rng.gamma(2.0, 1.5, (n_cells, sum(sizes))), 0.0)
    return sp.csr_matrix(dense.astype(np.float32)), chromosome


SHAPES = {
    "default": ((260, 130, 101), 100, 10),
    "odd window": ((90, 60), 21, 5),
    "step does not divide the window": ((90, 61, 44), 20, 7),
    "every window": ((40, 33), 8, 1),
    "step beyond the window": ((70, 25), 6, 11),
    "chromosome as long as the window": ((30, 20), 20, 5),
    "fewer genes than the window": ((15, 3, 1), 50, 10),
    "one chromosome": ((130,), 30, 10),
    "more than nine chromosomes": ((25,) * 22, 10, 4),
    "window of one gene": ((12, 5), 1, 3),
    "window of two genes": ((12, 5), 2, 1),
}


@pytest.mark.parametrize("n_profiles", [1, 3])
@pytest.mark.parametrize(("sizes", "window_size", "step"), SHAPES.values(), ids=SHAPES.keys())
def test_windows_are_those_of_infercnvpy(sizes, window_size, step, n_profiles) -> None:
    lognorm, chromosome = random_cells(sizes)
    reference = random_cells(sizes, n_cells=n_profiles, density=0.7, seed=1)[0].toarray().astype(float) / 2
    expected, starts = infercnvpy_windows(lognorm, chromosome, reference, window_size=window_size, step=step)
    sums = running_sums(np.arange(sum(sizes)), chromosome, sum(sizes), window_size=window_size, step=step)
    values = running_windows(lognorm, reference, sums)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)
    places = pd.DataFrame({"chromosome": chromosome, "start": 0, "end": 1, "arm": "1p"})
    layout = window_layout(places, window_size=window_size, step=step)
    assert len(layout) == values.shape[1]
    assert chromosome_starts(layout) == {str(name): int(first) for name, first in starts.items()}


@pytest.mark.parametrize("clip", [0.5, 3.0])
@pytest.mark.parametrize("chunksize", [2, 5000])
def test_the_clip_is_infercnvpys(clip: float, chunksize: int) -> None:
    lognorm, chromosome = random_cells((60, 40))
    profile = np.full(100, 0.4)
    expected, _ = infercnvpy_windows(
        lognorm, chromosome, profile, window_size=15, step=5, lfc_clip=clip, chunksize=chunksize
    )
    sums = running_sums(np.arange(100), chromosome, 100, window_size=15, step=5)
    np.testing.assert_allclose(running_windows(lognorm, profile, sums, lfc_clip=clip), expected, rtol=0, atol=1e-5)


def test_simulated_patient_agrees_with_infercnvpy_up_to_the_noise_filter(inputs) -> None:
    patient, lognorm, rows, types = inputs
    chromosome = patient.adata.var["chromosome"].astype(str).to_numpy(dtype=object)
    profile = balanced_profile(lognorm[rows], types)
    means = [lognorm[rows[types == t]].toarray().astype(float).mean(axis=0) for t in sorted(set(types))]
    np.testing.assert_allclose(profile, np.mean(means, axis=0), rtol=0, atol=1e-9)
    expected, _ = infercnvpy_windows(lognorm, chromosome, profile, **WINDOWS)
    windows = smooth_windows(lognorm, patient.adata.var, rows, types, **WINDOWS)
    noise = 1.5 * expected[rows].std()
    sure = np.abs(np.abs(expected) - noise) > 1e-5
    assert sure.mean() > 0.999
    kept = np.where(np.abs(expected) < noise, 0.0, expected)
    np.testing.assert_allclose(windows.values[sure], kept[sure], rtol=0, atol=1e-5)


def test_by_hand() -> None:
    """Five genes, window 3, weights 1 2 1 over 4; gene 5 is off the autosomes; the reference is 0."""
    x = sp.csr_matrix(np.array([[4.0, 0.0, 2.0, 0.0, 1.0, 9.0]]))
    chromosome = np.array(["chr1"] * 5, dtype=object)
    sums = running_sums(np.arange(5), chromosome, 6, window_size=3, step=1)
    # clipped at 3: 3 0 2 0 1 -> (3+0+2)/4, (0+4+0)/4, (2+0+1)/4, median 1
    assert running_windows(x, np.zeros(6), sums).tolist() == [[0.25, 0.0, -0.25]]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_cells_and_no_genes(n: int) -> None:
    lognorm, chromosome = random_cells((30, 20), n_cells=n)
    sums = running_sums(np.arange(50), chromosome, 50, window_size=10, step=5)
    assert running_windows(lognorm, np.zeros(50), sums).shape == (n, 8)
    nothing = running_sums(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=object), 50, window_size=10, step=5)
    assert running_windows(lognorm, np.zeros(50), nothing).shape == (n, 0)
    assert len(window_layout(pd.DataFrame({"chromosome": ["chrX"]}), window_size=10, step=5)) == 0
    with pytest.raises(DtcflowError, match="at least 1"):
        running_sums(np.arange(50), chromosome, 50, window_size=10, step=0)


def test_a_cells_windows_are_the_same_bits_in_any_order_chunk_and_company(inputs, monkeypatch) -> None:
    patient, lognorm, rows, types = inputs
    var = patient.adata.var
    whole = smooth_windows(lognorm, var, rows, types, **WINDOWS)
    rng = np.random.default_rng(0)
    cells, genes = rng.permutation(lognorm.shape[0]), rng.permutation(lognorm.shape[1])
    back = np.argsort(cells)
    shuffled = smooth_windows(sp.csr_matrix(lognorm[cells]), var, back[rows], types, **WINDOWS)
    np.testing.assert_array_equal(shuffled.values[back], whole.values)
    other = rng.permutation(len(rows))
    np.testing.assert_array_equal(
        smooth_windows(lognorm, var, rows[other], types[other], **WINDOWS).values, whole.values
    )
    moved = smooth_windows(sp.csr_matrix(lognorm[:, genes]), var.iloc[genes], rows, types, **WINDOWS)
    np.testing.assert_array_equal(moved.values, whole.values)
    pd.testing.assert_frame_equal(moved.layout, whole.layout)
    keep = np.concatenate([rows, np.flatnonzero(patient.tumour)[:3]])
    fewer = smooth_windows(sp.csr_matrix(lognorm[keep]), var, np.arange(len(rows)), types, **WINDOWS)
    np.testing.assert_array_equal(fewer.values, whole.values[keep])
    for chunk in (1, 7, 512, lognorm.shape[0]):
        monkeypatch.setattr("dtcflow.cnv.windows.CHUNK_CELLS", chunk)
        chunked = smooth_windows(lognorm, var, rows, types, **WINDOWS)
        np.testing.assert_array_equal(chunked.values, whole.values)
        np.testing.assert_array_equal(window_score(chunked), window_score(whole))


def test_equal_gene_starts_do_not_leave_the_order_to_chance(inputs) -> None:
    patient, lognorm, rows, types = inputs
    var = patient.adata.var.copy()
    var["start"] = (var["start"] // 1_000_000) * 1_000_000
    genes = np.random.default_rng(3).permutation(lognorm.shape[1])
    first = smooth_windows(lognorm, var, rows, types, **WINDOWS).values
    second = smooth_windows(sp.csr_matrix(lognorm[:, genes]), var.iloc[genes], rows, types, **WINDOWS).values
    np.testing.assert_array_equal(second, first)


def test_genes_that_may_not_be_used_are_as_if_absent(inputs) -> None:
    patient, lognorm, rows, types = inputs
    keep = np.random.default_rng(4).random(lognorm.shape[1]) < 0.8
    masked = smooth_windows(lognorm, patient.adata.var, rows, types, genes=keep, **WINDOWS)
    cut = smooth_windows(sp.csr_matrix(lognorm[:, keep]), patient.adata.var[keep], rows, types, **WINDOWS)
    np.testing.assert_array_equal(masked.values, cut.values)
    pd.testing.assert_frame_equal(masked.layout, cut.layout)


def test_the_standard_deviation_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(0.3, 0.1, (150, 11)).astype(np.float32)
    assert standard_deviation(values) == pytest.approx(values.astype(float).std(), rel=1e-12)
    assert standard_deviation(values[::-1]) == standard_deviation(values)


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
    np.testing.assert_array_equal(big.values[:n], small.values)
    np.testing.assert_array_equal(big.values[-n:], small.values)
