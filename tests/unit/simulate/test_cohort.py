import dataclasses
import hashlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from dtcflow.contracts import InputError, read_json, read_table
from dtcflow.io.config import load_config
from dtcflow.io.sheet import read_samples
from dtcflow.simulate import SCENARIOS, cohort_truth, simulate_cohort, write_cohort, write_study
from dtcflow.simulate.cohort import write_matrix
from dtcflow.simulate.counts import BLOCK, parse_events
from dtcflow.simulate.expression import build_universe

SMALL = {"n_patients": 2, "marrow_cells": 60, "primary_cells": 40}
# Many disseminated cells, so that pseudobulks of few samples are precise
DENSE = {"dtc_fractions": (0.4,), "n_genes": 6_000, "weak_patients": ()}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def healthy(sample):
    return (~sample.truth["is_doublet"] & ~sample.truth["is_dying"]).to_numpy()


def pseudobulk(sample, mask):
    counts = np.asarray(sample.adata.X[mask].sum(axis=0)).ravel().astype(float)
    return counts / counts.sum()


@pytest.fixture(scope="module")
def dense():
    made = {}
    for name in ("progenitor", "null"):
        scenario = dataclasses.replace(SCENARIOS[name], **DENSE)
        samples = simulate_cohort(scenario, seed=2, n_patients=3, marrow_cells=300, primary_cells=250)
        made[name] = (scenario, {sample.sample_id: sample for sample in samples})
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, "progenitor", seed=4, **SMALL)
    return folder


def test_a_cohort_is_written_with_its_truth(written):
    assert set(digests(written)) == {
        *(f"matrices/P0{p}_{where}.h5ad" for p in (1, 2) for where in ("marrow", "primary")),
        *("truth/cells.tsv.gz", "truth/karyotypes.tsv", "truth/patients.tsv", "truth/parameters.json"),
    }
    truth = read_table(written / "truth" / "cells.tsv.gz")
    for sample_id, cells in truth.groupby("sample_id"):
        adata = ad.read_h5ad(written / "matrices" / f"{sample_id}.h5ad")
        assert list(cells["cell_id"]) == [f"{sample_id}:{barcode}" for barcode in adata.obs_names]
    parameters = read_json(written / "truth" / "parameters.json")
    assert parameters["seed"] == 4
    assert parameters["scenario"]["programme_log2fc"] == SCENARIOS["progenitor"].programme_log2fc


def test_the_same_seed_gives_the_same_bytes_and_a_subset_equals_the_whole(written, tmp_path):
    write_cohort(tmp_path, "progenitor", seed=4, samples=["P02_primary"], **SMALL)
    whole, part = digests(written), digests(tmp_path)
    assert "matrices/P02_primary.h5ad" in part
    assert "matrices/P01_marrow.h5ad" not in part
    assert part == {name: whole[name] for name in part}


def test_more_patients_do_not_change_the_first_one(written):
    size = SMALL | {"n_patients": 1}
    (sample,) = simulate_cohort("progenitor", seed=4, samples=["P01_marrow"], **size)
    stored = ad.read_h5ad(written / "matrices" / "P01_marrow.h5ad")
    assert (stored.X != sample.adata.X).nnz == 0


def test_another_seed_gives_other_counts():
    one, other = (
        next(simulate_cohort("null", seed=seed, n_patients=1, marrow_cells=20, primary_cells=0)) for seed in (0, 1)
    )
    assert one.adata.X.nnz != other.adata.X.nnz


def test_the_matrix_is_an_export_and_leaks_no_truth(written):
    for path in (written / "matrices").iterdir():
        adata = ad.read_h5ad(path)
        assert adata.X.format == "csr"
        assert adata.X.dtype == np.int32
        assert adata.X.has_sorted_indices
        assert adata.X.data.min() >= 1
        assert list(adata.obs.columns) == []
        assert list(adata.var.columns) == ["gene_ids", "feature_types", "genome"]
        assert set(adata.var["feature_types"]) == {"Gene Expression"}
        assert set(adata.var["genome"]) == {"GRCh38"}
        assert not adata.uns
        assert not adata.obsm
        assert not adata.varm
        assert not adata.obsp
        assert not adata.layers
        assert adata.raw is None
        assert adata.obs_names.str.fullmatch("[ACGT]{16}-1").all()


@pytest.mark.parametrize(("marrow", "primary"), [(0, 0), (1, 0), (0, 1), (1, 1), (2, 5), (5, 2)])
def test_tiny_samples(marrow, primary, tmp_path):
    write_cohort(tmp_path, "null", seed=1, n_patients=1, marrow_cells=marrow, primary_cells=primary)
    assert ad.read_h5ad(tmp_path / "matrices" / "P01_marrow.h5ad").n_obs == marrow
    assert ad.read_h5ad(tmp_path / "matrices" / "P01_primary.h5ad").n_obs == primary


def test_a_cohort_without_patients(tmp_path):
    assert list(simulate_cohort("null", seed=1, n_patients=0)) == []
    write_cohort(tmp_path, "null", seed=1, n_patients=0)
    assert read_table(tmp_path / "truth" / "cells.tsv.gz").empty


def test_samples_come_one_at_a_time():
    stream = simulate_cohort("null", seed=1, n_patients=5_000, marrow_cells=2, primary_cells=2)
    assert next(stream).sample_id == "P01_marrow"
    assert next(stream).sample_id == "P01_primary"


def test_truth_without_counts_is_the_truth_of_the_samples():
    truth = cohort_truth("progenitor", seed=4, **SMALL)
    samples = list(simulate_cohort("progenitor", seed=4, **SMALL))
    pd.testing.assert_frame_equal(truth.cells, pd.concat([s.truth for s in samples], ignore_index=True))
    marrow = [s.karyotype for s in samples if s.compartment == "marrow"]
    pd.testing.assert_frame_equal(truth.karyotypes, pd.concat(marrow, ignore_index=True))
    assert list(truth.patients["patient_id"]) == ["P01", "P02"]


def test_unknown_samples_and_a_negative_seed_are_refused():
    with pytest.raises(InputError, match="P09_marrow") as error:
        next(simulate_cohort("null", seed=1, samples=["P09_marrow", "x"], **SMALL))
    assert len(error.value.problems) == 2
    with pytest.raises(InputError, match="seed"):
        next(simulate_cohort("null", seed=-1, **SMALL))
    with pytest.raises(InputError, match="seed"):
        cohort_truth("null", seed=-1, **SMALL)


def test_writing_a_matrix_is_byte_stable(tmp_path):
    counts = sp.csr_matrix(np.array([[0, 2], [1, 0]], dtype=np.int32))
    adata = ad.AnnData(counts, obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["x", "y"]))
    for name in ("1.h5ad", "2.h5ad"):
        write_matrix(adata, tmp_path / name)
    assert (tmp_path / "1.h5ad").read_bytes() == (tmp_path / "2.h5ad").read_bytes()
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "1.h5ad").X.toarray(), [[0, 2], [1, 0]])
    assert not list(tmp_path.glob(".*"))


def test_library_sizes_are_those_of_the_truth(dense):
    _, samples = dense["progenitor"]
    sample = samples["P01_marrow"]
    assert sample.adata.n_obs > BLOCK
    counts = np.asarray(sample.adata.X.sum(axis=1)).ravel()
    ratio = counts / sample.truth["library_size"].to_numpy()
    # Poisson and gamma noise of a few abundant genes; the mean over 300 cells has an SD of about .005
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)


def test_depth_ratio_of_disseminated_and_primary_tumour_cells(dense):
    for name, expected in (("progenitor", 3_500 / 6_000), ("null", 2_400 / 6_000)):
        _, samples = dense[name]
        medians = {}
        for where in ("marrow", "primary"):
            chosen = [s for s in samples.values() if s.compartment == where]
            counts = [
                np.asarray(s.adata.X[healthy(s) & s.truth["is_tumour"].to_numpy()].sum(axis=1)).ravel() for s in chosen
            ]
            medians[where] = np.median(np.concatenate(counts))
        # about 350 cells each with log SD .45: relative SD of the ratio .04
        assert medians["marrow"] / medians["primary"] == pytest.approx(expected, rel=0.15)


def test_dying_cells_are_mitochondrial_and_shallow(dense):
    scenario, samples = dense["progenitor"]
    universe = build_universe(scenario, 2)
    sample = samples["P01_primary"]
    share = (
        np.asarray(sample.adata.X[:, universe.mitochondrial].sum(axis=1)).ravel()
        / np.asarray(sample.adata.X.sum(axis=1)).ravel()
    )
    dying = sample.truth["is_dying"].to_numpy()
    assert dying.any()
    assert share[dying].min() > 0.22  # range .3-.7, less the soup's part and counting noise
    assert np.median(share[~dying]) == pytest.approx(0.06, abs=0.02)


def test_blood_cells_with_stray_keratins_exist_and_are_few():
    base = dataclasses.replace(SCENARIOS["null"], dtc_fractions=(0.0,), ambient_mean=1e-6)
    strayed, plain = (
        next(
            simulate_cohort(
                dataclasses.replace(base, stray_keratin_rate=rate),
                seed=3,
                n_patients=1,
                marrow_cells=200,
                primary_cells=0,
            )
        )
        for rate in (1.0, 0.0)
    )
    totals = [np.asarray(s.adata[:, ["KRT8", "KRT18"]].X.sum(axis=1)).ravel() for s in (strayed, plain)]
    assert (totals[0] > 0).mean() > 0.5  # about 2,800 x 6e-4 = 1.7 expected
    assert (totals[1] > 0).mean() < 0.25


@pytest.mark.parametrize("name", ["progenitor", "null"])
def test_arm_ratios_have_the_sign_of_the_planted_events(dense, name):
    """Tumour cells against the same cells of a cohort whose events change no expression; truncal arms."""
    scenario, samples = dense[name]
    universe = build_universe(scenario, 2)
    arms = universe.genes["arm"].to_numpy(object)
    flat = dataclasses.replace(scenario, dosage=0.0, dosage_sd=0.0)
    diploid = {s.sample_id: s for s in simulate_cohort(flat, seed=2, n_patients=3, marrow_cells=300, primary_cells=250)}
    ratios = {-1: [], 0: [], 1: [], 2: []}
    for sample_id, sample in samples.items():
        tumour = healthy(sample) & sample.truth["is_tumour"].to_numpy()
        twin = diploid[sample_id]
        trunk = sample.karyotype[sample.karyotype["clone"].eq("trunk")].set_index("arm")["copy_change"].to_dict()
        anywhere = set(sample.karyotype["arm"])
        one, two = pseudobulk(sample, tumour), pseudobulk(twin, tumour)
        for arm in ("1q", "8q", "16q", "17p", "8p", "11q", "13q", "2q", "3p", "5q", "12q", "19p"):
            genes = arms == arm
            value = np.log(one[genes].sum() / two[genes].sum())
            if arm in trunk:
                ratios[trunk[arm]].append(value)
            elif arm not in anywhere:
                ratios[0].append(value)
    # copies and exponent .8 give -.55, +.32 and +.55, the soup of the null takes a fifth away from disseminated cells
    assert max(ratios[-1]) < -0.2
    assert min(ratios[1] + ratios[2]) > 0.1
    assert np.abs(ratios[0]).max() < 0.15
    assert len(ratios[-1]) >= 4
    assert len(ratios[1] + ratios[2]) >= 4


def test_the_programme_is_up_in_disseminated_cells_of_the_progenitor_scenario_only(dense):
    lifts = {}
    for name, (scenario, samples) in dense.items():
        universe = build_universe(scenario, 2)
        programme = universe.programme != 0
        values = []
        for p in ("P01", "P02", "P03"):
            shares = []
            for where in ("marrow", "primary"):
                sample = samples[f"{p}_{where}"]
                bulk = pseudobulk(sample, healthy(sample) & sample.truth["is_tumour"].to_numpy())
                shares.append(np.log2(bulk + 1e-6))
            difference = shares[0] - shares[1]
            seen = np.minimum(*shares) > np.log2(2e-5)
            values.append(np.median(difference[programme & seen]) - np.median(difference[~programme & seen]))
        lifts[name] = np.array(values)
    # about log2(1 + .7) - log2(1.05) = .7 with the programme; without it only the soup's bias and noise
    assert lifts["progenitor"].min() > 0.35
    assert np.abs(lifts["null"]).max() < 0.2


def test_programme_cells_of_one_sample_differ_from_their_neighbours(dense):
    scenario, samples = dense["progenitor"]
    universe = build_universe(scenario, 2)
    sample = samples["P02_marrow"]
    base = healthy(sample) & sample.truth["is_dtc"].to_numpy()
    runs = sample.truth["programme"].to_numpy(bool)
    on, off = (np.log2(pseudobulk(sample, base & mask) + 1e-6) for mask in (runs, ~runs))
    seen = np.minimum(on, off) > np.log2(2e-5)
    programme = universe.programme != 0
    lift = np.median((on - off)[programme & seen]) - np.median((on - off)[~programme & seen])
    assert lift == pytest.approx(scenario.programme_log2fc, abs=0.25)


def test_events_in_the_truth_are_those_of_the_karyotypes(dense):
    _, samples = dense["progenitor"]
    for sample in samples.values():
        table = sample.karyotype
        for clone, events in sample.truth.loc[sample.truth["is_tumour"], ["clone", "altered_arms"]].itertuples(
            index=False
        ):
            full = table[table["clone"].eq(clone)].set_index("arm")["copy_change"].to_dict()
            assert parse_events(events).items() <= full.items()


def test_a_study_folder_can_be_run(tmp_path):
    write_study(tmp_path, "null", seed=6, n_patients=1, marrow_cells=5, primary_cells=5)
    sheet = read_samples(tmp_path / "config" / "samples.tsv")
    assert all((tmp_path / path).is_file() for path in sheet["path"])
    raw = yaml.safe_load((tmp_path / "config" / "config.yaml").read_text())
    assert "simulate" not in raw
    assert "SIMULATED" in raw["study"]["notice"]
    assert "null" in raw["study"]["title"]
    config = load_config(tmp_path / "config" / "config.yaml")
    assert (tmp_path / config["samples"]).is_file()
    assert (tmp_path / config["claims"]).is_file()


def test_a_study_of_some_samples_lists_only_those(tmp_path):
    write_study(tmp_path, "null", seed=6, n_patients=2, marrow_cells=3, primary_cells=3, samples=["P02_marrow"])
    assert list(read_samples(tmp_path / "config" / "samples.tsv").index) == ["P02_marrow"]
