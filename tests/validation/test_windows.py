"""Windows of real cells are those of infercnvpy."""

from __future__ import annotations

import contextlib
import io

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.cnv.windows import autosome_order, balanced_profile, running_sums, running_windows, smooth_windows
from dtcflow.genes import load_aliases, load_positions, place_genes
from dtcflow.scores.calibrated import log_normalise

pytestmark = pytest.mark.validation

CELLS = {
    "ovarian": ("ovarian_qian2020_swiftcnv", ("T_cell", "B_cell", "Macrophage")),
    "oligodendroglioma": (
        "oligodendroglioma_tirosh_infercnv",
        ("Oligodendrocytes (non-malignant)", "Microglia/Macrophage"),
    ),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("window_size", "step"), [(100, 10), (101, 7)])
def test_windows_are_those_of_infercnvpy(shared_data, name, window_size, step) -> None:
    from infercnvpy.tl import infercnv

    folder, normal = CELLS[name]
    cells = ad.read_h5ad(shared_data / folder / f"{folder}.h5ad")[:: 8 if name == "ovarian" else 1]
    lognorm = log_normalise(cells.X)
    var = place_genes(cells.var, load_positions(), load_aliases())
    types = cells.obs["cell_type"].astype(str).to_numpy(dtype=object)
    rows = np.flatnonzero(np.isin(types, normal))
    assert len(rows) > 30
    order = autosome_order(var)
    chromosome = var["chromosome"].astype(str).to_numpy(dtype=object)[order]
    profile = balanced_profile(lognorm[rows], types[rows])
    sums = running_sums(order, chromosome, lognorm.shape[1], window_size=window_size, step=step)
    values = running_windows(lognorm, profile, sums)

    positions = {
        "chromosome": pd.Series(chromosome, dtype=object),
        "start": range(len(order)),
        "end": range(len(order)),
    }
    frame = pd.DataFrame(positions).set_index(pd.Index([f"g{i}" for i in range(len(order))], dtype=object))
    theirs = ad.AnnData(X=sp.csr_matrix(lognorm[:, order]), var=frame)
    theirs.var["chromosome"] = theirs.var["chromosome"].astype(object)
    with contextlib.redirect_stderr(io.StringIO()):
        _, expected, _ = infercnv(
            theirs,
            reference=profile[None, order],
            dynamic_threshold=None,
            window_size=window_size,
            step=step,
            n_jobs=1,
            inplace=False,
        )
    np.testing.assert_allclose(values, expected.toarray(), rtol=0, atol=1e-5)
    assert np.abs(values).max() > 0.1

    # in another order of cells and genes: the same bits
    rng = np.random.default_rng(0)
    whole = smooth_windows(lognorm, var, rows, types[rows], window_size=window_size, step=step).values
    shuffled, genes = rng.permutation(lognorm.shape[0]), rng.permutation(lognorm.shape[1])
    back = np.argsort(shuffled)
    moved = smooth_windows(
        sp.csr_matrix(lognorm[shuffled][:, genes]),
        var.iloc[genes],
        back[rows],
        types[rows],
        window_size=window_size,
        step=step,
    ).values
    np.testing.assert_array_equal(moved[back], whole)
