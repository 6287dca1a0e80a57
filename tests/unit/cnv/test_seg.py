"""Segments for IGV: the partition, the file, and the way back."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from dtcflow.cnv.given import read_given
from dtcflow.cnv.seg import (
    BREAKPOINT_PENALTY,
    clone_track,
    fitted_segments,
    partition,
    patient_segments,
    stack_segments,
)
from dtcflow.contracts import TABLES, write_table
from dtcflow.io.copy_number import read_copy_number

from .conftest import ARMS
from .test_compare import compared, packed_segments  # noqa: F401
from .test_given import AUTOSOMAL


def cost(values, weights, cuts, penalty) -> float:
    total = penalty * (len(cuts) - 2)
    for first, last in itertools.pairwise(cuts):
        w, x = weights[first:last], values[first:last]
        total += float((w * (x - np.average(x, weights=w)) ** 2).sum())
    return total


@pytest.mark.parametrize("seed", range(8))
def test_the_partition_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 9
    values, weights = rng.normal(0, 1, n) + np.repeat([0, 2, -1], 3), rng.uniform(0.5, 2.0, n)
    every = [(0, *inner, n) for k in range(n) for inner in itertools.combinations(range(1, n), k)]
    best = min(every, key=lambda cuts: cost(values, weights, cuts, 3.0))
    assert [(p.start, p.stop) for p in partition(values, weights, 3.0)] == list(itertools.pairwise(best))


def test_a_flat_sequence_is_one_piece() -> None:
    assert partition(np.zeros(5), np.ones(5), 1.0) == [slice(0, 5)]
    assert partition(np.zeros(1), np.ones(1), 1.0) == [slice(0, 1)]
    assert partition(np.zeros(0), np.ones(0), 1.0) == []


def test_the_penalty_keeps_flat_genomes_whole_and_finds_single_copies() -> None:
    """Size and power at the default penalty: 260 segments of 40 arms, a standard error of .1 each."""
    rng = np.random.default_rng(0)
    penalty = BREAKPOINT_PENALTY * np.log(260)
    weights = np.full(7, 100.0)
    false = sum(len(partition(rng.normal(0, 0.1, 7), weights, penalty)) - 1 for _ in range(40 * 200))
    # less than one false breakpoint in 20 genomes of 40 arms
    assert false <= 10
    found = 0
    for _ in range(200):
        values = rng.normal(0, 0.1, 7) + np.where(np.arange(7) < 4, 0.0, -0.51)
        found += partition(values, weights, penalty) == [slice(0, 4), slice(4, 7)]
    assert found >= 180


def test_segments_of_an_arm_are_joined_at_their_weighted_mean() -> None:
    info = np.full((2, 6), 400.0)
    info[:, 0] = 200.0
    u = info * np.array([0.0, 0.0, 0.0, -0.8, -0.8, -0.8])
    packed = packed_segments(u, info)
    packed.uns["segments"]["inflation"] = 1.0
    packed.uns["segments"]["tau"] = 0.05
    track = clone_track(packed, np.array([True, True]))
    pieces = fitted_segments(track)
    assert pieces[["start", "end", "n_genes"]].to_numpy().tolist() == [[1, 3000, 120], [3001, 6000, 120]]
    assert pieces["log_ratio"].diff().iloc[1] == pytest.approx(-0.8, abs=1e-6)


def test_the_file_is_as_igv_expects_and_reads_back(compared, tmp_path) -> None:  # noqa: F811
    patient, _, result, calls, _ = compared
    table = patient_segments(result.windows, calls, effect=0.15)
    path = tmp_path / "segments.seg"
    write_table(stack_segments([table]), path, "segments")
    lines = path.read_text().splitlines()
    assert lines[0] == "ID\tchrom\tloc.start\tloc.end\tnum.mark\tseg.mean"
    first = lines[1].split("\t")
    assert first[:2] == ["P1_marrow:P1_c1", "chr1"]
    assert [int(part) for part in first[2:5]] == [int(part) for part in table.iloc[0, 2:5]]
    known = read_copy_number(path, patient_id="P1_primary:P1_c1")
    assert (known.format, known.kind, known.profile_id) == ("seg", "log2", "P1_primary:P1_c1")
    own = table[table["ID"] == "P1_primary:P1_c1"].reset_index(drop=True)
    assert known.segments["chromosome"].tolist() == own["chrom"].tolist()
    np.testing.assert_array_equal(known.segments[["start", "end"]], own[["loc.start", "loc.end"]])
    np.testing.assert_allclose(known.segments["value"], own["seg.mean"], atol=1e-6)
    # and the gains and losses of the tumour are those of the file
    var = patient.adata.var
    region = np.array([ARMS.index(arm) for arm in var["arm"]])
    arms = read_given(path, patient_id="P1_primary:P1_c1").over_genes(var, region, ARMS)
    ratio = dict(zip(arms.names, arms.copy_ratio, strict=True))
    assert all(ratio[a] > 1.2 for a in ("1q", "3q", "8q"))
    assert all(ratio[a] < 0.8 for a in ("2q", "6q", "9p"))


def test_arms_that_cannot_be_assessed_have_no_segment(compared) -> None:  # noqa: F811
    _, _, result, calls, _ = compared
    packed = result.windows.copy()
    there = patient_segments(packed, calls, effect=0.15)
    columns = (packed.uns["segments"]["arm"] == "5q").to_numpy()
    for key in ("segment_u_half0", "segment_u_half1", "segment_info_half0", "segment_info_half1"):
        packed.obsm[key] = np.where(columns, packed.obsm[key] * 1e-4, packed.obsm[key])
    table = patient_segments(packed, calls, effect=0.15)
    q5 = AUTOSOMAL.loc["5q"]
    assert (table["chrom"] == "chr5").sum() >= 2
    assert ((there["chrom"] == "chr5") & (there["loc.start"] >= q5["start"])).any()
    assert not ((table["chrom"] == "chr5") & (table["loc.start"] >= q5["start"])).any()


def test_no_clone_no_segment(compared) -> None:  # noqa: F811
    _, _, result, calls, _ = compared
    table = patient_segments(result.windows, calls.assign(clone_id=""), effect=0.15)
    assert list(table.columns) == list(TABLES["segments"])
    assert table.empty
    assert isinstance(stack_segments([]), pd.DataFrame)
