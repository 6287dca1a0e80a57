"""Unfiltered matrices at intake, alone and beside the filtered one."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.contracts import InputError, check_stage, read_stage, write_stage
from dtcflow.genes import load_aliases, load_positions
from dtcflow.io.config import load_config
from dtcflow.io.droplets import looks_unfiltered
from dtcflow.io.intake import read_sample
from dtcflow.simulate import simulate_raw
from dtcflow.simulate.cohort import write_matrix

SIZE = {"n_patients": 1, "marrow_cells": 80, "primary_cells": 1}
N_EMPTY = 5_500


@pytest.fixture(scope="module")
def raw():
    return simulate_raw("progenitor", seed=5, sample_id="P01_marrow", n_empty=N_EMPTY, **SIZE)


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory):
    where = tmp_path_factory.mktemp("raw")
    write_matrix(raw.raw, where / "raw.h5ad")
    write_matrix(raw.sample.adata, where / "filtered.h5ad")
    return where


def take(folder, *, config=None, **row):
    row = {"sample_id": "S1", "patient_id": "P1", "compartment": "marrow"} | row
    return read_sample(
        row,
        config=load_config({"intake": config or {}}),
        positions=load_positions(),
        aliases=load_aliases(),
        base_dir=folder,
    )


@pytest.fixture(scope="module")
def called(folder):
    return take(folder, path="raw.h5ad")


def test_cells_are_called(raw, called):
    adata, report = called
    check_stage(adata, "intake", "test")
    cells = set(adata.obs["barcode"][adata.obs["droplet_class"] == "cell"])
    planted = set(raw.sample.adata.obs_names)
    assert len(cells & planted) == len(planted)
    assert len(cells - planted) <= 2
    about = report["droplets"]
    assert about["mode"] == "unfiltered"
    assert about["n_droplets"] == N_EMPTY + 80
    assert about["n_cells"] == len(cells)
    assert about["n_above_knee"] + about["n_by_test"] == about["n_cells"]
    assert report["n_cells"] == adata.n_obs == about["n_cells"] + about["n_uncalled_epithelial"]
    assert about["n_dropped"] == about["n_droplets"] - adata.n_obs
    assert adata.obs["droplet_q"].dtype == float


def test_the_soup_is_that_of_the_droplets(raw, called):
    adata, report = called
    assert adata.var["ambient_count"].sum() == report["droplets"]["empty_counts"]
    share = adata.var["ambient_count"].to_numpy() / adata.var["ambient_count"].sum()
    assert np.corrcoef(share, raw.soup)[0, 1] > 0.99


@pytest.mark.parametrize("value", ["off", False])
def test_calling_can_be_switched_off(folder, value):
    adata, report = take(folder, path="raw.h5ad", config={"cell_calling": value})
    assert adata.n_obs == N_EMPTY + 80
    assert report["droplets"] is None
    assert "droplet_class" not in adata.obs
    assert any("unfiltered matrix, and intake.cell_calling is off" in warning for warning in report["warnings"])


def test_beside_a_filtered_matrix_only_the_soup_is_taken(raw, folder, called):
    adata, report = take(folder, path="filtered.h5ad", raw_path="raw.h5ad")
    assert list(adata.obs["barcode"]) == list(raw.sample.adata.obs_names)
    assert (adata.layers["counts"] != raw.sample.adata.X.astype(np.float32)).nnz == 0
    assert "droplet_class" not in adata.obs
    np.testing.assert_array_equal(adata.var["ambient_count"], called[0].var["ambient_count"])
    about = report["droplets"]
    assert about["mode"] == "beside"
    assert about["n_outside_like_cells"] <= 1
    assert list(about["raw_sha256"]) == ["raw.h5ad"]


def test_cells_left_out_of_the_filtered_matrix_are_reported(raw, folder, tmp_path):
    truth = raw.sample.truth
    left_out = truth["is_tumour"].to_numpy(bool)
    write_matrix(raw.sample.adata[~left_out].copy(), tmp_path / "fewer.h5ad")
    write_matrix(raw.raw, tmp_path / "raw.h5ad")
    adata, report = take(tmp_path, path="fewer.h5ad", raw_path="raw.h5ad")
    assert adata.n_obs == (~left_out).sum()
    assert report["droplets"]["n_outside_like_cells"] >= left_out.sum() - 1
    assert report["droplets"]["n_outside_like_cells_epithelial"] >= 0.7 * left_out.sum()
    assert any("outside the filtered matrix" in warning for warning in report["warnings"])


def test_an_unfiltered_matrix_of_another_sample_or_annotation_is_refused(raw, folder, tmp_path):
    other = raw.raw.copy()
    other.obs_names = [name.replace("-1", "-2") for name in other.obs_names]
    write_matrix(other, tmp_path / "other.h5ad")
    write_matrix(raw.raw[:, 10:].copy(), tmp_path / "genes.h5ad")
    write_matrix(raw.sample.adata, tmp_path / "filtered.h5ad")
    with pytest.raises(InputError, match=r"not the unfiltered matrix of this sample(.|\n)*0 of the 80 cells"):
        take(tmp_path, path="filtered.h5ad", raw_path="other.h5ad")
    with pytest.raises(InputError, match=r"raw_path: found 10 of 12,000 genes of the filtered matrix are missing"):
        take(tmp_path, path="filtered.h5ad", raw_path="genes.h5ad")


def test_plate_data_ignore_the_unfiltered_matrix(folder):
    adata, report = take(folder, path="filtered.h5ad", raw_path="raw.h5ad", platform="plate")
    assert "ambient_count" not in adata.var
    assert report["droplets"] is None
    assert any("plate data have no empty droplets" in warning for warning in report["warnings"])


def test_what_is_unfiltered():
    few = sp.csr_matrix(np.ones((4000, 3), dtype=np.float32))
    many = sp.csr_matrix(np.ones((6000, 3), dtype=np.float32))
    assert not looks_unfiltered(few)
    assert looks_unfiltered(many)
    assert not looks_unfiltered(many * 20)
    assert not looks_unfiltered(sp.csr_matrix((0, 3), dtype=np.float32))


def test_droplets_in_another_order_give_the_same_cells(raw, called, tmp_path):
    order = np.random.default_rng(0).permutation(raw.raw.n_obs)
    write_matrix(ad.AnnData(raw.raw.X[order], obs=raw.raw.obs.iloc[order], var=raw.raw.var), tmp_path / "raw.h5ad")
    adata, _ = take(tmp_path, path="raw.h5ad")
    assert set(adata.obs_names) == set(called[0].obs_names)
    np.testing.assert_allclose(adata[called[0].obs_names].obs["droplet_q"], called[0].obs["droplet_q"], rtol=1e-12)


def test_a_blank_control_is_a_sample_without_cells(raw, tmp_path):
    write_matrix(raw.raw[~raw.is_cell].copy(), tmp_path / "raw.h5ad")
    adata, report = take(tmp_path, path="raw.h5ad")
    assert adata.n_obs <= 1
    check_stage(adata, "intake", "test")
    assert adata.n_vars == raw.raw.n_vars
    assert not report["droplets"]["knee_trusted"]
    write_stage(adata, tmp_path / "intake.h5ad", "intake")
    assert read_stage(tmp_path / "intake.h5ad", "intake").shape == adata.shape
