"""Reading gene positions, and telling genome builds apart."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtcflow import genes
from dtcflow.contracts import InputError

HG19 = (
    Path(__file__).resolve().parents[2].parent
    / "shared/data/oligodendroglioma_tirosh_infercnv/gencode_downsampled.EXAMPLE_ONLY.hg19.txt"
)


@pytest.fixture(scope="module")
def positions() -> pd.DataFrame:
    return genes.load_positions()


# ---------------------------------------------------------------------------------------------------------------------
# Reading positions
# ---------------------------------------------------------------------------------------------------------------------

GTF = """\
#!genome-build GRCh38
1\thavana\tgene\t1000\t2000\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_version "5"; gene_name "AAA1";
1\thavana\texon\t1000\t1100\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_name "AAA1";
1\thavana\tgene\t123399000\t123402000\t.\t+\t.\tgene_id "ENSG00000000002"; gene_name "SPAN";
X\thavana\tgene\t2000\t3000\t.\t+\t.\tgene_id "ENSG00000000003.1"; gene_name "PAR1";
Y\thavana\tgene\t2000\t3000\t.\t+\t.\tgene_id "ENSG00000000003.1_PAR_Y"; gene_name "PAR1";
MT\thavana\tgene\t1\t500\t.\t+\t.\tgene_id "ENSG00000000004"; gene_name "MT-X";
KI270728.1\thavana\tgene\t1\t500\t.\t+\t.\tgene_id "ENSG00000000005"; gene_name "AWAY";
2\thavana\tgene\t70\t80\t.\t+\t.\tgene_id "ENSG00000000006";
"""
EXPECTED = [
    ("ENSG00000000001", "AAA1", "chr1", 1000, 2000, "1p"),
    ("ENSG00000000002", "SPAN", "chr1", 123399000, 123402000, "1q"),
    ("ENSG00000000006", "ENSG00000000006", "chr2", 70, 80, "2p"),
    ("ENSG00000000003", "PAR1", "chrX", 2000, 3000, "Xp"),
    ("ENSG00000000004", "MT-X", "chrM", 1, 500, ""),
]


def rows_of(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in frame.drop(columns="band").itertuples(index=False)]


def test_shipped_table_is_the_default(positions: pd.DataFrame) -> None:
    assert len(positions) > 40_000
    assert {str(dtype) for dtype in positions.dtypes} == {"object", "int64"}
    assert set(positions["chromosome"]) == set(genes.CHROMOSOMES)


@pytest.mark.parametrize("zipped", [False, True])
def test_gtf(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "genes.gtf"  # not called .gz: the content tells
    path.write_bytes(gzip.compress(GTF.encode(), mtime=0) if zipped else GTF.encode())
    frame = genes.load_positions(path)
    # SPAN crosses the centromere at 123,400,000; its middle, 123,400,500, is on q
    assert rows_of(frame) == EXPECTED
    assert {str(dtype) for dtype in frame.dtypes} == {"object", "int64"}


@pytest.mark.parametrize(
    "text",
    [
        "symbol\tchromosome\tstart\tend\nAAA1\tchr1\t1000\t2000\nBBB1\tchrX\t5\t9\n",
        "gene,chr,start,end\nAAA1,1,1000,2000\nBBB1,X,5,9\n",
        '"Gene name","Chrom","extra","Gene start","Gene end"\n"AAA1",1,"a,b",1000,2000\n"BBB1",X,,5,9\n',
        "# made by hand\n#Symbol\tChr\tStart\tEnd\nBBB1\tchrx\t5\t9\n\nAAA1\tCHR1\t1000\t2000\n",
        "AAA1\tchr1\t1000\t2000\nBBB1\tchrX\t5\t9\n",
        "\ufeffsymbol,chromosome,start,end\r\nAAA1,chr1,1000,2000\r\nBBB1,chrX,5,9\r\n",
    ],
    ids=["tsv", "csv", "biomart", "commented", "infercnv", "windows"],
)
def test_tables(tmp_path: Path, text: str) -> None:
    path = tmp_path / "positions.txt"
    path.write_text(text, newline="", encoding="utf-8")
    assert rows_of(genes.load_positions(path)) == [
        ("", "AAA1", "chr1", 1000, 2000, "1p"),
        ("", "BBB1", "chrX", 5, 9, "Xp"),
    ]


def test_ensembl_ids_in_the_symbol_column_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "order.txt"
    path.write_text("ENSG00000000001.7\tchr1\t10\t20\n")
    frame = genes.load_positions(path)
    assert frame.loc[0, "gene_id"] == "ENSG00000000001"


def test_arms_follow_the_build(tmp_path: Path) -> None:
    path = tmp_path / "order.txt"
    path.write_text("AAA1\tchr1\t124000000\t124000100\n")  # centromere: 123.4 Mb in GRCh38, 125.0 Mb in GRCh37
    assert genes.load_positions(path).loc[0, "arm"] == "1q"
    assert genes.load_positions(path, build="GRCh37").loc[0, "arm"] == "1p"


def test_all_problems_are_named_with_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text(
        "symbol\tchromosome\tstart\tend\n"
        "A\tchr1\t10\t20\n"
        "B\tchr1\t30\t20\n"
        "C\tchr1\tx\t20\n"
        "D\tchr1\t10\n"
        "E\tchr1\t0\t20\n"
        "\tchr1\t1\t20\n"
        "F\tchr1\t1\t999999999\n"
    )
    with pytest.raises(InputError) as caught:
        genes.load_positions(path)
    problems = caught.value.problems
    assert [problem.row for problem in problems] == [3, 4, 5, 6, 7, 8]
    assert [problem.found for problem in problems] == [
        "start 30, end 20",
        "'x', '20'",
        "3 fields",
        "start 0, end 20",
        "no symbol and no gene id",
        "F ends at chr1:999999999",
    ]
    assert str(path) in str(caught.value)


def test_the_list_of_problems_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text("symbol\tchromosome\tstart\tend\n" + "A\tchr1\t9\t8\n" * 500)
    with pytest.raises(InputError, match="first 20 of 500") as caught:
        genes.load_positions(path)
    assert len(caught.value.problems) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("name\tplace\nA\tchr1\n", r"no symbol or gene_id .* no chromosome .* no start .* no end"),
        ("symbol\tchromosome\tbegin\tend\nA\tchr1\t1\t2\n", "no start"),
        ("A\tscaffold_1\t1\t2\n", "none on a human chromosome"),
        ("1\tx\tgene\t1\t2\t.\t+\t.\tID=gene:A;Name=A\n", "not a GFF3"),
        ('1\tx\texon\t1\t2\t.\t+\t.\tgene_id "A";\n', "no row of feature gene"),
        ('1\tx\tgene\t1\t2\t.\t+\t.\tgene_id "A";\n1\tx\tgene\n', "9 tab-separated fields"),
    ],
)
def test_unusable_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "positions"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        genes.load_positions(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        genes.load_positions(tmp_path / "absent.tsv")
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(GTF.encode(), mtime=0)[:40])
    with pytest.raises(InputError, match="cannot be read"):
        genes.load_positions(broken)
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="cannot be read"):
        genes.load_positions(binary)


def test_builds_without_a_shipped_table() -> None:
    with pytest.raises(InputError, match="no gene positions ship for GRCh37"):
        genes.load_positions(build="GRCh37")
    with pytest.raises(InputError, match="GRCh38 or GRCh37"):
        genes.load_positions(build="hg18")


def test_a_gene_at_two_places_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "order.txt"
    path.write_text(
        "A\tchr1\t10\t20\nA\tchr5\t10\t20\nB\tchr1\t30\t40\nB\tchr1\t30\t40\nP\tchrY\t7\t8\nP\tchrX\t7\t8\n"
    )
    with caplog.at_level("WARNING"):
        frame = genes.load_positions(path)
    assert [row[1:3] for row in rows_of(frame)] == [("B", "chr1"), ("P", "chrX")]
    assert "1 genes have more than one place and are left out, for example A" in caplog.text


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)))
def test_row_order_of_the_file_does_not_matter(order: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = [f"G{i}\tchr{1 + i % 3}\t{100 - i}\t{200 + i}\n" for i in range(6)]
    folder = tmp_path_factory.mktemp("order")
    (folder / "a").write_text("".join(lines))
    (folder / "b").write_text("".join(lines[i] for i in order))
    pd.testing.assert_frame_equal(genes.load_positions(folder / "a"), genes.load_positions(folder / "b"))


# ---------------------------------------------------------------------------------------------------------------------
# Which build?
# ---------------------------------------------------------------------------------------------------------------------


def test_builds_are_told_apart(positions: pd.DataFrame) -> None:
    assert genes.share_shifted(positions, positions) == (0.0, len(positions))
    assert not genes.looks_like_hg19(positions, positions)
    rng = np.random.default_rng(1)
    jitter = positions.assign(start=positions["start"] + rng.integers(-20_000, 20_001, len(positions)))
    assert not genes.looks_like_hg19(jitter, positions)
    shifted = positions.assign(start=positions["start"] + 300_000)
    assert genes.looks_like_hg19(shifted, positions)
    assert not genes.looks_like_hg19(shifted.head(49), positions), "too few genes to judge"
    assert genes.looks_like_hg19(shifted.head(50), positions)


def test_share_shifted_by_hand() -> None:
    little = pd.DataFrame(
        {
            "gene_id": ["E1", "E2", "E3", "E4", "E5"],
            "symbol": ["A", "B", "C", "D", "E"],
            "chromosome": ["chr1", "chr2", "chr3", "chr4", "chr6"],
            "start": [100, 300, 500, 700, 900],
        }
    )
    moved = little.assign(start=[100, 50_300, 50_501, 700, 900], gene_id="")
    moved.loc[3, "chromosome"] = "chr9"  # another chromosome is not a shift
    # compared: A (0), B (50,000: not more than 50 kb), C (50,001), E (0)
    assert genes.share_shifted(moved, little) == (0.25, 4)
    share, n_genes = genes.share_shifted(little.head(0), little)
    assert np.isnan(share)
    assert n_genes == 0


@pytest.mark.validation
def test_hg19_gene_order_is_recognised() -> None:
    if not HG19.exists():
        pytest.skip(f"the hg19 gene order is not beside the project ({HG19})")
    assert genes.looks_like_hg19(genes.load_positions(HG19, build="GRCh37"))
    with pytest.raises(InputError, match=r"at most 248956422; fix: set intake\.genome_build"):
        genes.load_positions(HG19, build="GRCh38")
