"""Placing genes on the genome, and gene families."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from dtcflow import genes, resources
from dtcflow.contracts import InputError

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def positions() -> pd.DataFrame:
    return genes.load_positions()


@pytest.fixture(scope="module")
def aliases() -> pd.DataFrame:
    return genes.load_aliases()


@pytest.fixture
def little() -> pd.DataFrame:
    rows = [
        ("ENSG00000000001", "AAA1", "chr1", 100, 200, "1p", ""),
        ("ENSG00000000002", "BBB1", "chr2", 300, 400, "2p", ""),
        ("ENSG00000000003", "C1orf63", "chr3", 500, 600, "3p", ""),
        ("ENSG00000000004", "ENSG00000000004", "chr4", 700, 800, "4p", ""),
        ("ENSG00000000005", "HLA-A", "chr6", 900, 950, "6p", ""),
    ]
    columns = ["gene_id", "symbol", "chromosome", "start", "end", "arm", "band"]
    text = dict.fromkeys((name for name in columns if name not in ("start", "end")), object)
    return pd.DataFrame(rows, columns=columns).astype(text)


@pytest.fixture
def names() -> pd.DataFrame:
    rows = [("OLD1", "AAA1", "previous"), ("OLDER1", "AAA1", "previous"), ("NICK", "BBB1", "alias")]
    return pd.DataFrame(rows, columns=["alias", "symbol", "kind"]).astype(object)


def var_of(*symbols: str, **columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(list(symbols), dtype=object), dtype=object if columns else None)


# ---------------------------------------------------------------------------------------------------------------------
# Placing
# ---------------------------------------------------------------------------------------------------------------------


def test_place_by_id_symbol_previous_and_alias(little: pd.DataFrame, names: pd.DataFrame) -> None:
    var = var_of("WHATEVER", "OLD1", "NICK", "HLA.A", "C1ORF63", "ERCC-1", gene_ids=["ENSG00000000004.2", *[""] * 5])
    placed = genes.place_genes(var, little, names)
    assert list(placed.columns) == [
        *("symbol", "gene_id", "chromosome", "start", "end", "arm", "original_name", "renamed", "placement"),
        "gene_ids",
    ]
    got = [tuple(row) for row in placed[["symbol", "start", "arm", "renamed", "placement"]].itertuples(index=False)]
    assert got == [
        ("WHATEVER", 700, "4p", False, "gene_id"),  # the table has no symbol for it: the name stays
        ("AAA1", 100, "1p", True, "previous"),
        ("BBB1", 300, "2p", True, "alias"),
        ("HLA-A", 900, "6p", True, "symbol"),
        ("C1orf63", 500, "3p", True, "symbol"),
        ("ERCC-1", -1, "", False, "not_found"),
    ]
    assert list(placed.index) == list(placed["symbol"])
    assert placed.loc["ERCC-1", "chromosome"] == ""


def test_an_alias_never_takes_a_place_that_is_taken(little: pd.DataFrame, names: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("OLD1", "AAA1"), little, names)
    assert list(placed["placement"]) == ["taken", "symbol"]
    assert list(placed["symbol"]) == ["OLD1", "AAA1"]
    assert list(placed["chromosome"]) == ["", "chr1"]
    # by id as well, whatever that gene is called
    placed = genes.place_genes(var_of("OLD1", "X", gene_ids=["", "ENSG00000000001"]), little, names)
    assert list(placed["placement"]) == ["taken", "gene_id"]


def test_two_old_names_of_one_gene_are_both_left(little: pd.DataFrame, names: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("OLD1", "OLDER1"), little, names)
    assert list(placed["placement"]) == ["ambiguous", "ambiguous"]
    assert not placed["renamed"].any()


def test_repeated_names_are_placed_once(little: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("AAA1", "AAA1", "AAA1"), little)
    assert list(placed["placement"]) == ["symbol", "taken", "taken"]
    assert list(placed.index) == ["AAA1", "AAA1-1", "AAA1-2"]
    assert list(placed["symbol"]) == ["AAA1"] * 3


def test_ensembl_index(little: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("ENSG00000000002.9", "ENSG00000000099"), little)
    assert list(placed["symbol"]) == ["BBB1", "ENSG00000000099"]
    assert list(placed["original_name"]) == ["ENSG00000000002.9", "ENSG00000000099"]
    assert not placed["renamed"].any(), "an id that is given its symbol is not a superseded name"
    placed = genes.place_genes(var_of("ENSG00000000002", feature_name=["OLDB"]), little)
    assert list(placed["renamed"]) == [True]


def test_symbol_with_two_places_in_the_table_is_not_placed(little: pd.DataFrame) -> None:
    twice = pd.concat([little, little.head(1).assign(gene_id="ENSG00000000077", chromosome="chr9")], ignore_index=True)
    assert list(genes.place_genes(var_of("AAA1"), twice)["placement"]) == ["not_found"]
    by_id = genes.place_genes(var_of("AAA1", gene_ids=["ENSG00000000077"]), twice)
    assert list(by_id["chromosome"]) == ["chr9"]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_small_and_typed(little: pd.DataFrame, names: pd.DataFrame, n: int) -> None:
    placed = genes.place_genes(var_of(*["AAA1", "NONE"][:n], note=["x", "y"][:n]), little, names)
    assert len(placed) == n
    dtypes = {name: str(dtype) for name, dtype in placed.dtypes.items()}
    assert {dtypes.pop(name) for name in ("start", "end")} == {"int64"}
    assert dtypes.pop("renamed") == "bool"
    assert set(dtypes.values()) == {"object"}
    assert str(placed.index.dtype) == "object"


def test_missing_ids_are_no_ids(little: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("AAA1", "BBB1", gene_ids=[None, float("nan")]), little)
    assert list(placed["placement"]) == ["symbol", "symbol"]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_place_is_given_twice(data: st.DataObject, positions: pd.DataFrame, aliases: pd.DataFrame) -> None:
    pool = [*positions["symbol"].iloc[:40], *aliases["alias"].iloc[:200], *positions["gene_id"].iloc[:40], "NOT-A-GENE"]
    symbols = data.draw(st.lists(st.sampled_from(pool), max_size=60))
    placed = genes.place_genes(var_of(*symbols), positions, aliases)
    there = placed[placed["chromosome"] != ""]
    assert there["gene_id"].is_unique
    assert placed.index.is_unique
    assert list(placed["original_name"]) == symbols
    # a gene in the table under its current symbol always has its place, once
    current = set(symbols) & set(positions["symbol"])
    assert current <= set(there["symbol"])


def test_written_and_read_as_h5ad(tmp_path: Path, positions: pd.DataFrame, aliases: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("EPCAM", "H2AFZ", "NOT-A-GENE"), positions, aliases)
    adata = ad.AnnData(sp.csr_matrix((2, 3), dtype=np.float32), var=placed)
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad").var
    assert list(back["symbol"]) == ["EPCAM", "H2AZ1", "NOT-A-GENE"]
    assert back["start"].to_list()[2] == -1


def test_placing_35k_genes_takes_under_a_second(positions: pd.DataFrame, aliases: pd.DataFrame) -> None:
    symbols = [*positions["symbol"].iloc[:30_000], *aliases["alias"].iloc[:5_000]]
    started = time.perf_counter()
    genes.place_genes(var_of(*symbols), positions, aliases)
    assert time.perf_counter() - started < 1


# ---------------------------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------------------------

LAYOUTS: list[Callable[[Any], Any]] = [np.asarray, sp.csr_matrix, sp.csc_matrix]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_report_counts_expressed_genes(little: pd.DataFrame, names: pd.DataFrame, layout: Callable[[Any], Any]) -> None:
    counts = np.zeros((400, 4), dtype=np.float32)
    counts[:3, 0] = 1  # 3 cells: expressed, placed
    counts[:2, 1] = 5  # 2 cells of 400: not expressed
    counts[:9, 2] = 1  # expressed, renamed and placed
    counts[:7, 3] = 1  # expressed, not placed
    placed = genes.place_genes(var_of("AAA1", "NOPE1", "NICK", "NOPE2"), little, names)
    report = genes.placement_report(placed, layout(counts))
    assert (report["n_genes"], report["n_expressed"], report["n_expressed_placed"]) == (4, 3, 2)
    assert report["fraction_placed"] == pytest.approx(2 / 3)
    assert report["n_renamed"] == 1
    assert report["unplaced_examples"] == ["NOPE2"]
    assert report["placements"] == {"alias": 1, "not_found": 2, "symbol": 1}
    assert not report["looks_like_other_build"]


@pytest.mark.parametrize(("n_cells", "needed"), [(1, 1), (2, 1), (100, 1), (101, 2), (200, 2), (201, 3), (5000, 3)])
def test_what_expressed_means(little: pd.DataFrame, n_cells: int, needed: int) -> None:
    counts = np.zeros((n_cells, 2), dtype=np.float32)
    counts[:needed, 0] = 1
    counts[: needed - 1, 1] = 1
    report = genes.placement_report(genes.place_genes(var_of("AAA1", "BBB1"), little), counts)
    assert report["n_expressed"] == 1


def test_stored_zeros_are_zeros(little: pd.DataFrame) -> None:
    counts = sp.csr_matrix((np.array([0.0, 1.0]), (np.array([0, 0]), np.array([0, 1]))), shape=(1, 2))
    report = genes.placement_report(genes.place_genes(var_of("AAA1", "BBB1"), little), counts)
    assert report["n_expressed"] == 1


def test_check_placement(little: pd.DataFrame) -> None:
    placed = genes.place_genes(var_of("AAA1", "NOPE"), little)
    report = genes.placement_report(placed, np.ones((4, 2)))
    genes.check_placement(report, minimum=0.5)
    with pytest.raises(InputError, match=r"(?s)sheet\.h5ad.*1 of 2 expressed genes.*50\.0%.*NOPE.*at least 60%"):
        genes.check_placement(report, minimum=0.6, where="sheet.h5ad")
    empty = genes.placement_report(placed, np.zeros((4, 2)))
    assert empty["fraction_placed"] is None
    with pytest.raises(InputError, match="no expressed gene"):
        genes.check_placement(empty)
    with pytest.raises(ValueError, match="3 genes in the counts, 2 in the placement"):
        genes.placement_report(placed, np.ones((4, 3)))


def test_positions_of_the_wrong_build_are_refused(positions: pd.DataFrame) -> None:
    moved = positions.iloc[1000:1100].assign(start=lambda f: f["start"] + 200_000, end=lambda f: f["end"] + 200_000)
    placed = genes.place_genes(var_of(*moved["symbol"]), moved)
    counts = np.ones((3, 100))
    report = genes.placement_report(placed, counts)
    assert report["looks_like_other_build"]
    with pytest.raises(InputError, match="100% of 100 genes start more than 50 kb"):
        genes.check_placement(report)
    genes.check_placement(genes.placement_report(placed, counts, build="GRCh37"))
    right = genes.place_genes(var_of(*moved["symbol"]), positions)
    with pytest.raises(InputError, match="said to be of GRCh37"):
        genes.check_placement(genes.placement_report(right, counts, build="GRCh37"))


# ---------------------------------------------------------------------------------------------------------------------
# Families and classes
# ---------------------------------------------------------------------------------------------------------------------

MEMBERS = {
    "mito": ["MT-CO1", "MT-ND4L", "MT-RNR2", "MT-TL1", "MTND1", "MT.CYB"],
    "ribo": ["RPL3", "RPL3L", "RPLP0", "RPSA", "RPS4X", "RPS4Y1", "RPS27A", "RPL13A", "RPL36AL", "RPL22L1", "RPL10L"],
    "haemoglobin": ["HBA1", "HBA2", "HBB", "HBD", "HBE1", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ"],
    "immunoglobulin": [
        *("IGHV3-23", "IGHD", "IGHD1-26", "IGHJ4", "IGHA1", "IGHG4", "IGHGP", "IGHM", "IGHE", "IGKC", "IGKV3-20"),
        *("IGKJ1", "IGLC2", "IGLV2-14", "IGLJ3", "IGKV1OR2-108", "IGHVII-15-1", "IGHV(II)-1-1", "IGLL5"),
    ],
    "tcr": [
        *("TRAC", "TRAV1-1", "TRAJ33", "TRAV14DV4", "TRBC1", "TRBV20-1", "TRBD1", "TRBJ2-7", "TRBVA", "TRDC"),
        *("TRDV2", "TRDD3", "TRDJ1", "TRGC2", "TRGV9", "TRGJP1", "TRGVB"),
    ],
    "hla": ["HLA-A", "HLA-DRA", "HLA-DRB1", "HLA-DPA3", "HLA.B"],
    "sex": ["XIST", "TSIX", "DDX3Y", "KDM5D", "RPS4Y1", "UTY", "SRY"],
}
STRANGERS = {
    "mito": ["MT1X", "MT2A", "MTOR", "MTCO1P12", "MTND2P28", "MTRNR2L1", "MTATP6P1", "AMT-1"],
    "ribo": ["RPS6KA1", "RPS6KB1", "RPS6KL1", "RPS19BP1", "MRPL3", "MRPS2", "RPL3P4", "RPL36A-HNRNPH2", "RPS10-NUDT3"],
    "haemoglobin": ["HBEGF", "HBS1L", "HBP1", "HBBP1", "HBA1P"],
    "immunoglobulin": ["IGHMBP2", "IGLON5", "IGLL1", "IGF1R", "IGSF8", "IGFBP7", "IGHEL"],
    "tcr": ["TRAF1", "TRADD", "TRAP1", "TRBP", "TRABD", "TRDMT1", "TRDN", "TRAK1", "TRAPPC1", "TRIB1", "TRGAP"],
    "hla": ["HLA-F-AS1", "HLA-DQB1-AS1", "HLALA", "HLAX"],
    "sex": ["XISTP", "RPS4X", "ZFX", "DDX3X", "KDM5C", "USP9X", "UTYR"],
}


@pytest.mark.parametrize("kind", list(genes.FAMILIES))
def test_family_members_and_strangers(kind: str) -> None:
    assert genes.gene_mask(MEMBERS[kind], kind).all(), [
        name for name, ok in zip(MEMBERS[kind], genes.gene_mask(MEMBERS[kind], kind), strict=True) if not ok
    ]
    assert not genes.gene_mask(pd.Index(STRANGERS[kind]), kind).any()


def test_families_lie_where_they_belong(positions: pd.DataFrame) -> None:
    where = {kind: positions[genes.gene_mask(positions["symbol"], kind)] for kind in genes.FAMILIES}
    assert set(where["mito"]["chromosome"]) == {"chrM"}
    assert len(where["mito"]) == (positions["chromosome"] == "chrM").sum() == 37
    assert set(where["haemoglobin"]["band"]) == {"11p15.4", "16p13.3"}
    assert len(where["haemoglobin"]) == 10
    assert set(where["hla"]["arm"]) == {"6p"}
    assert set(where["sex"]["chromosome"]) == {"chrX", "chrY"}
    assert list(where["sex"].loc[where["sex"]["chromosome"] == "chrX", "symbol"]) == ["TSIX", "XIST"]
    assert 80 <= len(where["ribo"]) <= 95
    # loci: IGH 14q32, IGK 2p11, IGL 22q11; TRA/TRD 14q11, TRB 7q34, TRG 7p14; the rest are named orphons
    for kind, arms in (("immunoglobulin", {"14q", "2p", "22q"}), ("tcr", {"14q", "7q", "7p"})):
        strays = where[kind][~where[kind]["arm"].isin(arms)]
        assert strays["symbol"].str.contains("OR|IGHEP2").all()
        assert len(where[kind]) > 200


def test_mask_of_nothing_and_of_unknown_kind() -> None:
    empty = genes.gene_mask([], "mito")
    assert empty.shape == (0,)
    assert empty.dtype == np.bool_
    with pytest.raises(ValueError, match="unknown gene family 'mitochondrial'; allowed: mito, ribo"):
        genes.gene_mask(["A"], "mitochondrial")


def test_gene_classes(positions: pd.DataFrame) -> None:
    table = pd.read_csv(resources.path("gene_classes.tsv"), sep="\t")
    assert table["citation"].str.contains(r"PMID \d{8}$").all()
    assert not table.duplicated(["class", "gene"]).any()
    assert table["gene"].isin(positions["symbol"]).all(), "every gene under its current symbol"
    sizes = {name: len(genes.gene_class(name)) for name in ("S_phase", "G2M_phase", "stress")}
    assert sizes == {"S_phase": 43, "G2M_phase": 54, "stress": 38}
    assert not set(genes.gene_class("S_phase")) & set(genes.gene_class("G2M_phase"))
    assert {"FOS", "JUN", "HSPA1A", "CCN1"} <= set(genes.gene_class("stress"))
    assert {"PCNA", "CENPU"} <= set(genes.gene_class("S_phase"))
    assert {"MKI67", "JPT1", "PIMREG"} <= set(genes.gene_class("G2M_phase"))
    with pytest.raises(ValueError, match="unknown gene class 'G1'; allowed: G2M_phase, S_phase, stress"):
        genes.gene_class("G1")


# ---------------------------------------------------------------------------------------------------------------------
# Real data
# ---------------------------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real data set {name} is not beside the project ({path})")
    return path


# The lower bound is what the shipped tables reach today, less about one per cent. What has no place: read-throughs,
# spike-ins, short RNAs, processed pseudogenes (plates aligned to the full annotation), clone names of old annotations.
@pytest.mark.validation
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("ovarian_qian2020_swiftcnv", 0.99),
        ("tnbc_copykat", 0.895),
        ("lung_lines_sc_mixology/sc_celseq2_5cl_p1.h5ad", 0.865),
        ("lung_lines_sc_mixology/sc_celseq2_5cl_p2.h5ad", 0.885),
        ("ctc_breast_jordan_GSE75367_normalised", 0.925),
        ("normal_immune_celltypist_sample", 0.96),
        ("normal_bone_marrow_triana_scuba", 0.97),
    ],
)
def test_expressed_genes_of_real_data_are_placed(
    name: str, least: float, positions: pd.DataFrame, aliases: pd.DataFrame
) -> None:
    path = real(name) if name.endswith(".h5ad") else real(f"{name}/{name}.h5ad")
    adata = ad.read_h5ad(path)
    placed = genes.place_genes(adata.var, positions, aliases)
    report = genes.placement_report(placed, adata.X)
    assert report["fraction_placed"] >= least, report["unplaced_examples"]
    assert not report["looks_like_other_build"]
    assert placed.loc[placed["chromosome"] != "", "gene_id"].is_unique
    genes.check_placement(report)


@pytest.mark.validation
@pytest.mark.parametrize("sample", ["sample1", "sample2"])
def test_expressed_genes_of_a_10x_folder_are_placed(
    sample: str, positions: pd.DataFrame, aliases: pd.DataFrame
) -> None:
    folder = real(f"breast_normal_10x_scdeconr/{sample}")
    features = pd.read_csv(folder / "features.tsv.gz", sep="\t", header=None, dtype=str)
    counts = scipy.io.mmread(folder / "matrix.mtx.gz").T
    var = pd.DataFrame({"gene_ids": features[0].to_numpy()}, index=pd.Index(features[1], dtype=object))
    report = genes.placement_report(genes.place_genes(var, positions, aliases), counts)
    assert report["fraction_placed"] >= 0.955, report["unplaced_examples"]
