"""A tumour's known copy number: every format, every mistake, and what it does to the calls."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given as sampled
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dtcflow.call import call_cohort
from dtcflow.cnv.arms import ArmStatistics, SplitStatistics
from dtcflow.cnv.given import (
    DOSAGE_SLOPE,
    MIN_AGREEMENT,
    PlacedProfile,
    RegionProfile,
    agreement,
    covered_only,
    read_given,
    score_given,
)
from dtcflow.cnv.run import infer_copy_number
from dtcflow.contracts import InputError
from dtcflow.genes import load_arms, load_positions
from dtcflow.io.copy_number import read_copy_number

from .conftest import ARMS, Planted, make_patient

AUTOSOMAL = load_arms()[lambda t: ~t["chromosome"].isin(["chrX", "chrY"])].set_index("arm")


def copies_of(arm: str, patient: Planted) -> int:
    return 3 if arm in patient.gains else 1 if arm in patient.losses else 2


def on_real_arms(patient: Planted) -> Planted:
    """Put the tiny genome's genes within the arms of GRCh38."""
    var = patient.adata.var
    var["start"] = (
        AUTOSOMAL.loc[var["arm"], "start"].to_numpy() + 1_000_000 + var.groupby("arm").cumcount().to_numpy() * 100_000
    )
    var["end"] = var["start"] + 5000
    return patient


SEG_HEAD = "ID\tchrom\tloc.start\tloc.end\tnum.mark\tseg.mean\n"


def seg_text(copies, *, name: str = "P1") -> str:
    rows = ["ID\tchrom\tloc.start\tloc.end\tnum.mark\tseg.mean"]
    for arm, place in AUTOSOMAL.iterrows():
        log2 = math.log2(copies(arm) / 2)
        rows.append(f"{name}\t{place['chromosome'][3:]}\t{place['start']}\t{place['end']}\t10\t{log2:.10g}")
    return "\n".join(rows) + "\n"


def bed_text(copies) -> str:
    return "".join(f"{p['chromosome']}\t{p['start'] - 1}\t{p['end']}\t{copies(a)}\n" for a, p in AUTOSOMAL.iterrows())


def tsv_text(copies) -> str:
    rows = [f"{p['chromosome']}\t{p['start']}\t{p['end']}\t{copies(a)}" for a, p in AUTOSOMAL.iterrows()]
    return "\n".join(["chromosome\tstart\tend\ttotal_cn", *rows]) + "\n"


def arm_text(copies) -> str:
    words = {1: "loss", 2: "neutral", 3: "gain"}
    return "arm\tstate\n" + "".join(f"{arm}\t{words[copies(arm)]}\n" for arm in AUTOSOMAL.index)


FORMATS = {"tumour.seg": seg_text, "tumour.bed": bed_text, "tumour.tsv": tsv_text, "arms.tsv": arm_text}


def placed(arms: RegionProfile) -> PlacedProfile:
    return PlacedProfile(arms, arms)


@pytest.fixture
def put(tmp_path: Path):
    def write(content: str | bytes, name: str = "tumour.tsv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def run(patient: Planted, settings: dict, given=None):
    return infer_copy_number(
        patient.adata, patient.cells, patient_id="P1", settings=settings, epithelial_z=3.0, seed=1, given=given
    )


def malignant(patient: Planted, result, settings: dict) -> np.ndarray:
    cells = patient.cells.merge(result.cells, on="cell_id", validate="one_to_one")
    calls = call_cohort({"P1": (cells, result.windows, result.status)}, settings=settings).cells
    return (calls["malignant_call"] == "malignant").to_numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Formats and values
# ---------------------------------------------------------------------------------------------------------------------


def test_four_formats_of_one_genome_say_the_same(put) -> None:
    patient = make_patient()
    profiles = [read_given(put(make(lambda a: copies_of(a, patient)), name)) for name, make in FORMATS.items()]
    assert [p.source.format for p in profiles] == ["seg", "bed", "segments", "arms"]
    assert [p.source.kind for p in profiles] == ["log2", "copy_number", "copy_number", "state"]
    assert [p.source.build_known_by for p in profiles] == ["chromosome_ends"] * 3 + ["arms"]
    for profile in profiles:
        arms = profile.over_regions(AUTOSOMAL)
        expected = [math.log(1 + DOSAGE_SLOPE * (copies_of(a, patient) / 2 - 1)) for a in AUTOSOMAL.index]
        np.testing.assert_allclose(arms.expected, expected, atol=1e-9)
        np.testing.assert_allclose(arms.covered, 1.0)
        assert placed(arms).problem == ""


@pytest.mark.parametrize(
    ("text", "name", "form", "kind", "value"),
    [
        ("chr1\t0\t1000\t3\nchr2\t0\t99\t2\n", "a.bed", "bed", "copy_number", 3),
        ("track name=x\nchr1\t0\t1000\t-0.5\n", "a.bed", "bed", "log2", -0.5),
        ("#chrom\tstart\tend\tvalue\nchr1\t0\t1000\t0.3\n", "a.bed", "bed", "log2", 0.3),
        ("chr1\t0\t1000\tgain\nchr1\t2000\t3000\tloss\n", "a.bed", "bed", "state", 1),
        ("chr1\t0\t1000\tseg1\t4\n", "a.bed", "bed", "copy_number", 4),
        ("chrom chromStart chromEnd score\n1 0 1000 2\n", "a.txt", "bed", "copy_number", 2),
        ("S\t1\t1\t1000\t5\t-0.2\n", "a.seg", "seg", "log2", -0.2),
        (SEG_HEAD + "S\t1\t1\t1e+03\t5\t2.9\n", "a.seg", "seg", "copy_number", 2.9),
        ('"Sample","Chromosome","Start","End","Segment_Mean"\n"S",1,1,1000,-1\n', "a.csv", "seg", "log2", -1),
        ("chr\tstartpos\tendpos\tnMajor\tnMinor\n1\t1\t1000\t2\t1\n", "a.txt", "segments", "copy_number", 3),
        ("chromosome\tstart\tend\tgene\tlog2\tcn\n1\t1\t1000\tTP53\t-1\t1\n", "a.cns", "segments", "copy_number", 1),
        ("CONTIG\tSTART\tEND\tMEAN_LOG2_COPY_RATIO\n1\t1\t1000\t-1.5\n", "a.tsv", "segments", "log2", -1.5),
        ("chromosome;start;end;log_ratio\n1;1;1000;0.25\n", "a.csv", "segments", "log_ratio", 0.25),
        ("arm\tcopy_number\n1p\t1\nchr1q\t4\n", "a.tsv", "arms", "copy_number", 1),
        ("arm,call\n1p,-1\n1q,not_assessable\n", "a.csv", "arms", "state", -1),
        ("1p\tgain\n1q\tloss\n", "a.tsv", "arms", "state", 1),
        ("arm\tlog_ratio\tstate\n1p\t-0.4\tloss\n", "a.tsv", "arms", "log_ratio", -0.4),
    ],
)  # fmt: skip
def test_formats_are_told_from_content(put, text: str, name: str, form: str, kind: str, value: float) -> None:
    known = read_copy_number(put(text, name))
    assert (known.format, known.kind) == (form, kind)
    assert known.segments["value"].iloc[0] == value
    assert known.segments["chromosome"].iloc[0] == "chr1"
    assert known.segments["start"].iloc[0] == 1
    assert known.segments["end"].iloc[0] == (1000 if form != "arms" else 123_400_000)


def test_gzip_windows_line_ends_and_chromosome_names_change_nothing(put) -> None:
    plain = tsv_text(lambda a: 3 if a == "1q" else 2)
    first = read_copy_number(put(plain)).segments
    for other in (
        gzip.compress(plain.encode(), mtime=0),
        plain.replace("\n", "\r\n"),
        "\ufeff" + plain,
        plain.replace("\nchr", "\n"),
    ):
        pd.testing.assert_frame_equal(read_copy_number(put(other)).segments, first)
    sex = "chromosome\tstart\tend\tcn\n23\t1\t100\t1\nMT\t1\t100\t9\nGL000192.1\t1\t9\t2\nchrUn_KI270442v1\t1\t9\t2\n"
    known = read_copy_number(put(sex))
    assert known.segments["chromosome"].tolist() == ["chrX"]
    assert known.n_elsewhere == 3


def test_the_level_is_the_commonest_number_of_copies(put) -> None:
    """A tumour that doubled its genome: four copies are its neutral, three a loss."""
    given = read_given(put(tsv_text(lambda a: {"1q": 6, "6q": 3}.get(a, 4))))
    arms = given.over_regions(AUTOSOMAL)
    assert given.level == 4
    assert dict(zip(arms.names, arms.copy_ratio, strict=True)) | {"1q": 1.5, "6q": 0.75} == dict(
        zip(arms.names, arms.copy_ratio, strict=True)
    )
    shifted = read_given(put(seg_text(lambda a: {"1q": 6, "6q": 3}.get(a, 4)), "x.seg"))
    assert shifted.level == pytest.approx(1.0)
    np.testing.assert_allclose(shifted.over_regions(AUTOSOMAL).copy_ratio, arms.copy_ratio, atol=1e-9)


def test_a_list_of_events_is_relative_to_two_copies_and_covers_nothing_else(put) -> None:
    rows = [
        f"{AUTOSOMAL.loc[a, 'chromosome']}\t{AUTOSOMAL.loc[a, 'start'] - 1}\t{AUTOSOMAL.loc[a, 'end']}\t{n}"
        for a, n in (("1q", 3), ("8q", 4), ("6q", 1))
    ]
    given = read_given(put("\n".join(rows), "events.bed"))
    arms = given.over_regions(AUTOSOMAL)
    assert given.level == 2
    assert [n for n, e in zip(arms.names, arms.expected, strict=True) if np.isfinite(e)] == ["1q", "6q", "8q"]
    assert (arms.covered == 0).sum() == 41
    assert placed(arms).problem == ""
    only_gains = read_given(put("\n".join(row[:-1] + "3" for row in rows), "gains.bed"))
    assert "flat" in placed(only_gains.over_regions(AUTOSOMAL)).problem
    one = read_given(put(rows[0], "one.bed"))
    assert "covers 1 of 44 arms" in placed(one.over_regions(AUTOSOMAL)).problem


def test_genes_count_and_not_base_pairs(put) -> None:
    """The outer half of 1p is lost; whether 1p is, depends on where its genes are."""
    half = "chromosome\tstart\tend\ttotal_cn\nchr1\t1\t61700000\t1\nchr1\t61700001\t123400000\t2\n"
    given = read_given(put(half))
    genes = load_positions()
    genes = genes[genes["arm"] == "1p"]
    by_genes = given.over_genes(genes, np.zeros(len(genes), dtype=np.int64), ["1p"])
    share = float(((genes["start"] + genes["end"]) // 2 <= 61_700_000).mean())
    assert share > 0.55
    assert by_genes.copy_ratio[0] == pytest.approx(1 - share / 2, abs=1e-6)
    assert given.over_regions(AUTOSOMAL.loc[["1p"]]).copy_ratio[0] == pytest.approx(0.75)


def test_a_region_that_is_half_covered_is_not_covered(put) -> None:
    given = read_given(put("chromosome\tstart\tend\ttotal_cn\nchr1\t1\t50000000\t1\nchr2\t1\t93900000\t2\n"))
    arms = given.over_regions(AUTOSOMAL.loc[["1p", "1q", "2p"]])
    assert np.isnan(arms.expected[:2]).all()
    assert np.isfinite(arms.expected[2])
    assert given.at(["chr1", "chr1", "chr7"], np.array([50_000_000, 50_000_001, 5])).tolist()[0] == 0.5
    assert np.isnan(given.at(["chr1", "chr1", "chr7"], np.array([50_000_000, 50_000_001, 5]))[1:]).all()


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes
# ---------------------------------------------------------------------------------------------------------------------

HEAD = "chromosome\tstart\tend\ttotal_cn\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("empty copy-number profile",)),
        ("# only a comment\n", ("empty copy-number profile",)),
        (HEAD, ("a header without rows",)),
        (b"\x89PNG\0\0", ("UTF-8",)),
        (b"SQLite\0\0", ("not a text file",)),
        ("gene\tvalue\nTP53\t1\n", ("no known format", "gene, value", "header")),
        ("chromosome\tstart\tend\tploidyish\n1\t1\t9\t2\n", ("no column with values", "total_cn")),
        ("chromosome\tstart\tend\ttotalcnn\n1\t1\t9\t2\n", ("no column with values", "did you mean 'totalcn'")),
        (HEAD + "1\t500\t100\t2\n", ("row 2", "start 500, end 100", "start <= end")),
        (HEAD + "1\t-5\t100\t2\n", ("row 2", "-5")),
        (HEAD + "1\tx\t100\t2\n", ("row 2", "'x'", "whole numbers")),
        (HEAD + "1\t1.5\t100\t2\n", ("row 2", "'1.5'")),
        (HEAD + "chr27\t1\t100\t2\nfoo\t1\t9\t2\n", ("row 2", "'chr27'", "row 3", "'foo'", "1-22, X, Y")),
        (HEAD + "MT\t1\t100\t2\n", ("1 rows, none on chr1-22",)),
        (HEAD + "1\t1\t100\tNA\n1\t200\t300\t\n1\t400\t500\tnan\n", ("row 2", "row 3", "row 4", "not covered")),
        (HEAD + "1\t1\t100\tinf\n", ("row 2", "'inf'", "finite")),
        (HEAD + "1\t1\t100\t-1\n", ("row 2", "-1", "rename the column to log2")),
        (HEAD + "1\t1\t100\n", ("row 2", "3 fields", "at least 4")),
        (HEAD + "1\t1\t100\t2\n1\t50\t200\t3\n", ("row 3", "chr1:50-200 with 3", "row 2 with 2")),
        ("chromosome\tstart\tend\tlog2\n1\t1\t100\t2\n2\t1\t100\t3\n", ("copy numbers", "rename the column")),
        ("chr1\t100\t100\t2\n", ("row 1", "0-based")),
        ("arm\tstate\n1z\tgain\n", ("row 2", "'1z'", "1p to 22q")),
        ("arm\tstate\n1p\tgian\n", ("row 2", "'gian'", "did you mean 'gain'")),
        ("arm\tstate\n1p\tgain\n1p\tloss\n", ("row 3", "overlaps", "row 2")),
        ("arm\tstate\n1p\tNA\n", ("no arm with a value",)),
        ("arm\n1p\n", ("no column with values",)),
    ],
)  # fmt: skip
def test_every_mistake_is_named(put, text, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        read_copy_number(put(text))
    message = str(caught.value)
    assert "tumour.tsv" in message
    for word in words:
        assert word in message
    assert "fix: " in message


def test_a_missing_or_cut_file_is_named(put, tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_copy_number(tmp_path / "gone.seg")
    with pytest.raises(InputError, match="ends too early"):
        read_copy_number(put(gzip.compress(tsv_text(lambda _: 2).encode(), mtime=0)[:100], "cut.tsv.gz"))


def test_all_problems_come_at_once_and_the_list_is_bounded(put) -> None:
    with pytest.raises(InputError, match="the first 20 of 100 problems") as caught:
        read_copy_number(put(HEAD + "1\t9\t1\t2\n" * 100))
    assert len(caught.value.problems) == 20


def test_rows_that_agree_may_overlap_or_touch(put) -> None:
    text = HEAD + "1\t1\t100\t2\n1\t50\t200\t2\n1\t60\t70\t2\n1\t200\t300\t3\n"
    segments = read_copy_number(put(text)).segments
    assert segments[["start", "end", "value"]].to_numpy().tolist() == [[1, 200, 2], [200, 300, 3]]


def test_of_several_ids_the_patients_is_taken_or_all_are_listed(put) -> None:
    text = seg_text(lambda _: 2, name="A") + seg_text(lambda a: 3 if a == "1q" else 2, name="B").split("\n", 1)[1]
    path = put(text, "cohort.seg")
    assert read_copy_number(path, patient_id="B").profile_id == "B"
    assert read_copy_number(path, patient_id="P9", sample_ids=["x", "A"]).segments["value"].eq(0).all()
    with pytest.raises(InputError, match=r"ids A, B; allowed: one profile with the id P9 or P9_marrow"):
        read_copy_number(path, patient_id="P9", sample_ids=["P9_marrow"])
    with pytest.raises(InputError, match="profiles of several samples of this patient: A, B"):
        read_copy_number(path, patient_id="P9", sample_ids=["A", "B"])
    # a single profile needs no known name
    assert read_copy_number(put(seg_text(lambda _: 2, name="TCGA-01")), patient_id="P9").profile_id == "TCGA-01"


def in_grch37(arm: str) -> str:
    arms = load_arms("GRCh37").set_index("arm")
    return f"{arms.loc[arm, 'chromosome']}\t{arms.loc[arm, 'start']}\t{arms.loc[arm, 'end']}\t2\n"


def test_a_profile_of_another_build_is_refused_or_declared(put) -> None:
    old = put(HEAD + "".join(in_grch37(arm) for arm in AUTOSOMAL.index))
    with pytest.raises(InputError, match=r"fit GRCh37 better.*lift the segments over to GRCh38"):
        read_copy_number(old)
    assert read_copy_number(old, build="GRCh37").build_known_by == "chromosome_ends"
    new = put(tsv_text(lambda _: 2), "new.tsv")
    with pytest.raises(InputError, match="fit GRCh38 better"):
        read_copy_number(new, build="GRCh37")
    part = HEAD + "1\t1000\t2000\t2\n"
    assert read_copy_number(put(part)).build_known_by == "assumed"
    with pytest.raises(InputError, match="GRCh37 in a comment"):
        read_copy_number(put("#genome=hg19\n" + part))
    with pytest.raises(InputError, match="GRCh37 in the name of the file"):
        read_copy_number(put(part, "tumour.b37.tsv"))
    assert read_copy_number(put("#hg38\n" + part)).build_known_by == "stated"
    assert read_copy_number(put(part, "from_hg19_to_hg38.tsv")).build_known_by == "stated"
    # arms have no coordinates
    assert read_copy_number(put("arm\tstate\n1p\tgain\n", "a.tsv"), build="GRCh37").build_known_by == "arms"


def test_ends_rounded_up_to_bins_are_no_other_build(put) -> None:
    rounded = AUTOSOMAL.assign(
        end=lambda t: np.where(t.index.str.endswith("q"), -(-t["end"] // 10**6) * 10**6, t["end"])
    )
    rows = "".join(f"{p['chromosome']}\t{p['start']}\t{p['end']}\t2\n" for _, p in rounded.iterrows())
    assert read_copy_number(put(HEAD + rows)).build_known_by == "chromosome_ends"
    with pytest.raises(InputError, match="correct the coordinates"):
        read_copy_number(put(HEAD + "18\t1\t95000000\t2\n"))


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def test_the_same_genome_in_four_formats_gives_the_same_scores(put, settings) -> None:
    patient = on_real_arms(make_patient(n_marrow_tumour=6, n_primary_tumour=0, depth=1500))
    tables = []
    for name, make in FORMATS.items():
        result = run(patient, settings, read_given(put(make(lambda a: copies_of(a, patient)), name), patient_id="P1"))
        assert result.status["profile_source"] == "given"
        assert result.status["clone_status"] == "given"
        assert result.status["profile_warnings"] == []
        assert result.status["profile_agreement"] > 0.9
        assert result.status["profile_scale"] == pytest.approx(1.0, abs=0.2)
        tables.append(result.cells)
    for other in tables[1:]:
        for column in ("clone_llr", "clone_llr_p", "clone_fraction"):
            # a SEG has its log2 ratios in ten digits
            np.testing.assert_allclose(other[column], tables[0][column], rtol=1e-6, atol=1e-9)


def test_a_given_profile_finds_cells_that_are_too_few_to_learn_from(put, settings) -> None:
    """Three arms, two and three cells, 1,000 counts: too few to learn from, the given profile finds them."""
    found = {"given": [], "learned": []}
    for seed in (3, 4):
        for n in (2, 3):
            patient = on_real_arms(
                make_patient(
                    n_marrow_tumour=n, n_primary_tumour=0, depth=1000, gains=("1q", "8q"), losses=("6q",), seed=seed
                )
            )
            given = read_given(put(arm_text(lambda a, p=patient: copies_of(a, p))))
            for source, profile in (("given", given), ("learned", None)):
                called = malignant(patient, run(patient, settings, profile), settings)
                assert not called[~patient.tumour].any()
                found[source] += called[patient.tumour].tolist()
    assert np.mean(found["given"]) >= 0.8
    assert np.mean(found["learned"]) <= 0.4


def test_events_within_an_arm_count(put, settings) -> None:
    """Half of 1q and of 8q are gained: on segments of forty genes the given profile still knows which half."""
    patient = on_real_arms(make_patient(n_marrow_tumour=10, n_primary_tumour=0, depth=3000, gains=(), losses=()))
    var, rng = patient.adata.var, np.random.default_rng(0)
    outer = (var.groupby("arm").cumcount() >= 30).to_numpy() & var["arm"].isin(["1q", "8q", "3q", "5q"]).to_numpy()
    counts = patient.adata.layers["counts"].toarray()
    block = counts[np.ix_(patient.tumour, outer)]
    counts[np.ix_(patient.tumour, outer)] = block + rng.binomial(block.astype(int), 0.5)
    patient.adata.layers["counts"] = sp.csr_matrix(counts)
    cut = {arm: int(var.loc[outer & (var["arm"] == arm), "start"].min()) for arm in ("1q", "8q", "3q", "5q")}
    rows = []
    for arm, place in AUTOSOMAL.iterrows():
        border = cut.get(str(arm), int(place["end"]) + 1)
        rows.append(f"{place['chromosome']}\t{place['start']}\t{border - 1}\t2")
        if border <= place["end"]:
            rows.append(f"{place['chromosome']}\t{border}\t{place['end']}\t3")
    given = read_given(put("\n".join(["chromosome\tstart\tend\ttotal_cn", *rows])))
    found = run(patient, settings, given)
    assert len(found.windows.uns["segments"]) >= 40
    # the other tumour cells are as normal on whole arms as can be: +20 %
    assert malignant(patient, found, settings)[patient.tumour].mean() >= 0.8
    assert not malignant(patient, found, settings)[~patient.tumour].any()


def test_without_a_profile_the_status_says_how_cells_were_scored(settings, inferred) -> None:
    assert inferred.status["profile_source"] == "learned"
    assert "profile_agreement" not in inferred.status
    patient = make_patient(gains=(), losses=())
    assert run(patient, settings).status["profile_source"] == "none"


def test_a_profile_that_the_cells_do_not_show_is_warned_about(put, settings) -> None:
    patient = on_real_arms(make_patient(n_primary_tumour=30))
    wrong = {"1p": 3, "4q": 3, "7p": 3, "5q": 1, "8p": 1, "10q": 1}
    given = read_given(put(tsv_text(lambda a: wrong.get(a, 2))))
    result = run(patient, settings, given)
    assert result.status["profile_source"] == "given"
    assert result.status["profile_agreement"] < MIN_AGREEMENT
    assert "another genome than the given profile" in result.status["profile_warnings"][0]
    assert not malignant(patient, result, settings)[~patient.tumour].any()


def test_a_flat_profile_is_not_used_and_said_so(put, settings) -> None:
    patient = on_real_arms(make_patient())
    result = run(patient, settings, read_given(put(tsv_text(lambda _: 2))))
    assert result.status["profile_source"] == "learned"
    assert "is flat" in result.status["profile_warnings"][0]
    np.testing.assert_array_equal(result.cells["clone_llr"], run(patient, settings).cells["clone_llr"])


def test_no_tumour_and_a_given_profile_call_nothing(put, settings) -> None:
    patient = on_real_arms(make_patient(gains=(), losses=(), n_primary_tumour=20))
    given = read_given(put(tsv_text(lambda a: {"1q": 3, "8q": 3, "6q": 1}.get(a, 2))))
    assert malignant(patient, run(patient, settings, given), settings).sum() <= 1


def random_statistics(seed: int, n: int = 40, k: int = 12) -> SplitStatistics:
    rng = np.random.default_rng(seed)
    names = tuple(ARMS[:k])
    halves = []
    for _ in range(2):
        info = rng.gamma(20, 1.0, (n, k))
        halves.append(ArmStatistics(rng.normal(0, 1, (n, k)) * np.sqrt(info), info, names))
    full = ArmStatistics(halves[0].u + halves[1].u, halves[0].info + halves[1].info, names)
    return SplitStatistics(full, (halves[0], halves[1]))


def region_profile(expected: np.ndarray) -> RegionProfile:
    ratio = 1 + np.expm1(expected) / DOSAGE_SLOPE
    return RegionProfile(tuple(ARMS[: len(expected)]), ratio, expected, np.isfinite(expected).astype(float))


@sampled(seed=st.integers(0, 10_000), shift=st.floats(-0.5, 0.5))
@hypothesis_settings(max_examples=25, deadline=None)
def test_the_score_does_not_depend_on_the_level_of_the_profile(seed: int, shift: float) -> None:
    statistics = random_statistics(seed)
    rng = np.random.default_rng(seed + 1)
    expected = rng.choice([-0.5, 0.0, 0.3], 12)
    expected[:2] = (-0.5, 0.3)
    nobody = np.zeros(40, dtype=bool)

    def t_of(profile: np.ndarray) -> np.ndarray:
        best, *_, scale = score_given(
            region_profile(profile), statistics, statistics.full, statistics.full, np.ones(12), nobody
        )
        assert scale[0] == 1.0
        assert np.isnan(scale[1])
        return best.t

    np.testing.assert_allclose(t_of(expected + shift), t_of(expected), atol=1e-8)


@sampled(seed=st.integers(0, 10_000))
@hypothesis_settings(max_examples=25, deadline=None)
def test_what_is_not_covered_has_no_say(seed: int) -> None:
    """Whatever the cells show on an arm without a value, their scores are the same."""
    statistics = random_statistics(seed)
    expected = np.array([0.3, -0.5, 0, 0, np.nan, 0.3, 0, 0, np.nan, 0, 0, -0.5])
    blank = np.isnan(expected)
    full = statistics.full
    other = SplitStatistics(
        ArmStatistics(full.u + 50.0 * blank, full.info * np.where(blank, 7.0, 1.0), full.arms), statistics.halves
    )
    nobody = np.zeros(40, dtype=bool)
    first, second = (
        score_given(region_profile(expected), s, s.full, s.full, np.ones(12), nobody)[0] for s in (statistics, other)
    )
    for name in ("t", "llr", "fraction"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (covered_only(full, ~blank).info[:, blank] == 0).all()


def test_p_values_do_not_depend_on_the_other_cells(put, settings) -> None:
    """The scale is the patient's, the score a cell's own: without half of the tumour cells T stays as it is."""
    patient = on_real_arms(make_patient(n_marrow_tumour=6, n_primary_tumour=30))
    given = read_given(put(tsv_text(lambda a: copies_of(a, patient))))
    whole = run(patient, settings, given)
    keep = np.flatnonzero(~patient.tumour | (np.arange(len(patient.tumour)) % 3 > 0))
    part = Planted(
        patient.adata[keep].copy(), patient.cells.iloc[keep].reset_index(drop=True), patient.tumour[keep], (), ()
    )
    fewer = run(part, settings, given)
    np.testing.assert_allclose(fewer.cells["clone_t"], whole.cells["clone_t"].to_numpy()[keep], rtol=1e-6)
    assert fewer.status["profile_scale"] != whole.status["profile_scale"]


def test_the_scale_of_the_profile_is_found_without_bias() -> None:
    """Bulk DNA with half of normal cells shows half the change; forty cells tell."""
    truth = np.array([0.4, 0.4, -0.4, 0, 0, 0, 0, -0.4, 0, 0, 0, 0.4])
    found = []
    for seed in range(20):
        statistics = random_statistics(seed, n=400)
        tumour = np.arange(400) < 40
        for part in statistics.halves:
            part.u[tumour] += truth * part.info[tumour]
        first, second = statistics.halves
        moved = SplitStatistics(
            ArmStatistics(first.u + second.u, statistics.full.info, statistics.full.arms), statistics.halves
        )
        null = random_statistics(seed + 1000, n=400).full
        *_, (scale, _, n_cells) = score_given(
            region_profile(np.log1p(truth / 1.8)), moved, null, null, np.ones(12), tumour
        )
        found.append(scale)
        assert n_cells > 20
    # forty cells: a standard error below .05 each
    assert np.mean(found) == pytest.approx(1.8, abs=0.05)


def test_agreement_is_a_correlation_over_covered_arms() -> None:
    profile = region_profile(np.array([0.3, -0.5, 0.0, np.nan, 0.3]))
    assert agreement(profile, np.array([0.2, -0.4, 0.0, 9.0, 0.25])) > 0.99
    assert agreement(profile, np.array([-0.2, 0.4, 0.0, 9.0, -0.25])) < -0.99
    assert np.isnan(agreement(profile, np.zeros(5)))
    assert np.isnan(agreement(region_profile(np.array([0.3, np.nan])), np.array([1.0, 2.0])))
