"""Comparison with copy number from DNA: by hand, and on planted genomes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from dtcflow.call import call_cohort
from dtcflow.cnv.compare import (
    area_under_curve,
    compare_patient,
    compare_results,
    comparison_metrics,
    f1_score,
    known_states,
    megabase_bins,
    over_bins,
    stack_comparisons,
)
from dtcflow.cnv.given import DOSAGE_SLOPE, read_given
from dtcflow.cnv.seg import clone_groups, clone_track
from dtcflow.contracts import TABLES, InputError, write_stage, write_table

from .conftest import make_patient
from .test_given import AUTOSOMAL, copies_of, on_real_arms, run, tsv_text


def test_states_of_known_copies() -> None:
    ratio = np.array([1.0, 1.5, 0.5, 1.1, 1.15, 0.85, 0.84, 0.0])
    assert known_states(ratio).tolist() == [0, 1, -1, 0, 1, 0, -1, -1]


def test_area_and_f1_by_hand() -> None:
    positive = np.array([True, True, False, False])
    assert area_under_curve(np.array([3.0, 2.0, 1.0, 0.0]), positive) == 1.0
    assert area_under_curve(np.array([3.0, 1.0, 2.0, 0.0]), positive) == 0.75
    assert area_under_curve(np.ones(4), positive) == 0.5
    assert np.isnan(area_under_curve(np.ones(2), np.array([True, True])))
    assert f1_score(np.array([True, False]), np.array([True, True])) == pytest.approx(2 / 3)
    assert np.isnan(f1_score(np.array([False]), np.array([False])))


def test_metrics_by_hand() -> None:
    known = np.array([1.0, 1.0, 1.0, 1.5, 0.5, np.nan, 1.0])
    measured = DOSAGE_SLOPE * (known - 1.0) + 0.1
    measured[6] = np.nan
    found = comparison_metrics(measured, known, effect=0.15)
    assert (found["n_regions"], found["n_gain"], found["n_loss"], found["n_neutral"]) == (5, 1, 1, 3)
    assert found["offset"] == pytest.approx(0.1)
    assert found["rmse_neutral"] == pytest.approx(0.0, abs=1e-12)
    assert found["dosage_slope"] == pytest.approx(DOSAGE_SLOPE)
    assert found["auc_gain"] == found["auc_loss"] == found["f1"] == found["f1_gain"] == found["f1_loss"] == 1.0
    assert found["spearman"] == pytest.approx(1.0)
    assert found["pearson"] == pytest.approx(1.0)
    # the caller's own calls go before size: the loss was not called, and a neutral region was
    called = np.array([0, 0, -1, 1, 0, 0, 0])
    found = comparison_metrics(measured, known, effect=0.15, called=called)
    assert found["f1_gain"] == 1.0
    assert found["f1_loss"] == 0.0
    assert found["f1"] == 0.5


def test_a_gain_called_a_loss_is_wrong_twice() -> None:
    found = comparison_metrics(
        np.array([-0.5, 0.0, 0.0]), np.array([1.5, 1.0, 1.0]), effect=0.15, called=np.array([-1, 0, 0])
    )
    assert found["f1"] == 0.0
    assert found["auc_gain"] == 0.0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_regions_have_no_correlation(n: int) -> None:
    found = comparison_metrics(np.linspace(0, 1, n), np.linspace(1, 2, n), effect=0.15)
    assert found["n_regions"] == n
    for name in ("pearson", "spearman", "dosage_slope"):
        assert np.isnan(found[name])


def test_bins_cover_the_autosomes_once_and_no_centromere() -> None:
    bins = megabase_bins()
    width = bins["end"] - bins["start"] + 1
    assert width.sum() == (AUTOSOMAL["end"] - AUTOSOMAL["start"] + 1).sum()
    assert width.max() == 1_000_000
    for arm, part in bins.groupby("arm"):
        assert part["start"].min() == AUTOSOMAL.loc[arm, "start"]
        assert part["end"].max() == AUTOSOMAL.loc[arm, "end"]
        assert (part["start"].to_numpy()[1:] == part["end"].to_numpy()[:-1] + 1).all()


def test_bins_take_the_overlapping_mean_of_a_track() -> None:
    bins = pd.DataFrame(
        {"chromosome": "chr1", "start": [1, 101, 201], "end": [100, 200, 300], "arm": ["1p", "1p", "1q"]}
    )
    track = pd.DataFrame(
        {
            "chromosome": "chr1",
            "start": [1, 51, 151, 190],
            "end": [50, 150, 160, 250],
            "arm": ["1p", "1p", "1p", "1p"],
            "log_ratio": [1.0, 3.0, np.nan, 5.0],
        }
    )
    np.testing.assert_allclose(over_bins(track, bins), [2.0, (50 * 3 + 11 * 5) / 61, np.nan])


def packed_segments(u: np.ndarray, info: np.ndarray) -> ad.AnnData:
    n, k = u.shape
    packed = ad.AnnData(obs=pd.DataFrame(index=pd.Index([f"S:{i}" for i in range(n)], dtype=object)))
    for half in (0, 1):
        packed.obsm[f"segment_u_half{half}"] = (u / 2).astype(np.float32)
        packed.obsm[f"segment_info_half{half}"] = (info / 2).astype(np.float32)
    packed.uns["segments"] = pd.DataFrame(
        {
            "segment": [f"1p:{i:02d}" for i in range(k)],
            "arm": "1p",
            "chromosome": "chr1",
            "start": 1 + 1000 * np.arange(k),
            "end": 1000 + 1000 * np.arange(k),
            "n_genes": 40,
            "inflation": 2.0,
            "tau": 0.1,
        }
    )
    return packed


def test_a_track_comes_from_segments_where_there_are_any() -> None:
    info = np.array([[10.0, 20.0, 0.0, 10.0], [30.0, 20.0, 0.0, 10.0], [9.0, 9.0, 9.0, 9.0]])
    u = np.array([[10.0, 0.0, 0.0, 0.0], [10.0, 0.0, 0.0, 0.0], [99.0, 99.0, 99.0, 99.0]])
    track = clone_track(packed_segments(u, info), np.array([True, True, False]))
    np.testing.assert_allclose(track["log_ratio"], [0.5, 0.0, np.nan, 0.0])
    np.testing.assert_allclose(track["se"], [np.sqrt(2 / 40 + 0.01), np.sqrt(2 / 40 + 0.01), np.nan, np.sqrt(0.11)])


def test_clones_of_a_sample_are_compared_apart_and_together() -> None:
    calls = pd.DataFrame(
        {
            "cell_id": ["A:1", "A:2", "A:3", "A:4", "B:1", "C:1"],
            "clone_id": ["P1_c1", "P1_c2", "P1_c1", "", "P1_c1", ""],
        }
    )
    groups = [(sample, clone, members.sum()) for sample, clone, members in clone_groups(calls)]
    assert groups == [("A", "P1_c1", 2), ("A", "P1_c2", 1), ("A", "all", 3), ("B", "P1_c1", 1)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A planted genome, called with its own profile as known."""
    from .conftest import SETTINGS

    patient = on_real_arms(make_patient())
    path = tmp_path_factory.mktemp("known") / "tumour.tsv"
    path.write_text(tsv_text(lambda a: copies_of(a, patient)))
    given = read_given(path)
    result = run(patient, dict(SETTINGS), given)
    cells = patient.cells.merge(result.cells, on="cell_id", validate="one_to_one")
    calls = call_cohort({"P1": (cells, result.windows, result.status)}, settings=SETTINGS).cells
    return patient, given, result, calls, path


def test_a_planted_genome_is_found_again(compared) -> None:
    _, given, result, calls, _ = compared
    table = compare_patient(given, result.windows, calls, patient_id="P1", effect=0.15)
    assert list(table.columns) == list(TABLES["comparison"])
    arms = table[table["resolution"] == "arm"].set_index("sample_id")
    assert list(arms.index) == ["P1_marrow", "P1_primary"]
    assert (arms[["n_regions", "n_gain", "n_loss", "n_neutral"]] == [20, 3, 3, 14]).all(axis=None)
    assert (arms["pearson"] > 0.9).all()
    assert (arms[["auc_gain", "auc_loss"]] == 1.0).all(axis=None)
    assert (arms["f1"] > 0.85).all()
    # planted: 1.45 and .58 for one copy more and less, a slope of .84-.9
    assert arms["dosage_slope"].between(0.7, 1.0).all()
    assert (arms["rmse_neutral"] < 0.1).all()
    bins = table[table["resolution"] == "1mb"].set_index("sample_id")
    assert (bins["n_regions"] > 100).all()
    assert bins.loc["P1_primary", "auc_loss"] > 0.95
    assert bins.loc["P1_primary", "auc_gain"] > 0.95


def test_another_genome_agrees_with_nothing(compared, tmp_path) -> None:
    _, _, result, calls, _ = compared
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text(tsv_text(lambda a: {"4p": 3, "5q": 3, "7p": 3, "5p": 1, "8p": 1, "10q": 1}.get(a, 2)))
    table = compare_patient(read_given(wrong), result.windows, calls, patient_id="P1", effect=0.15)
    arms = table[table["resolution"] == "arm"]
    assert (arms["pearson"].abs() < 0.5).all()
    assert (arms["f1"] < 0.4).all()


def test_without_clones_there_is_a_header_only(compared, tmp_path) -> None:
    _, given, result, calls, _ = compared
    table = compare_patient(given, result.windows, calls.assign(clone_id=""), patient_id="P1", effect=0.15)
    assert table.empty
    write_table(stack_comparisons([table]), tmp_path / "comparison.tsv", "comparison")
    assert (tmp_path / "comparison.tsv").read_text() == "\t".join(TABLES["comparison"]) + "\n"


def test_a_finished_run_is_compared_from_its_files(compared, tmp_path, capsys) -> None:
    from dtcflow.cli import main

    _, given, result, calls, path = compared
    write_stage(result.windows, tmp_path / "cnv" / "patients" / "P1.h5ad", "cnv")
    write_table(calls, tmp_path / "calls" / "cells.tsv.gz", "calls")
    table = compare_results(tmp_path, path, patient_id="P1", effect=0.15)
    direct = compare_patient(given, result.windows, calls, patient_id="P1", effect=0.15)
    pd.testing.assert_frame_equal(table, direct)
    with pytest.raises(InputError, match="one of P1"):
        compare_results(tmp_path, path, patient_id="P2", effect=0.15)
    out = tmp_path / "comparison.tsv"
    command = ["compare-cnv", str(path), "--patient", "P1", "--results", str(tmp_path), "--out", str(out)]
    assert main(command) == 0
    assert "pearson" in capsys.readouterr().out
    assert out.read_text().startswith("\t".join(TABLES["comparison"]) + "\n")
    assert main([*command[:2], "--patient", "P9", "--results", str(tmp_path)]) == 2
