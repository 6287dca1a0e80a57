import pytest

from dtcflow.contracts import InputError
from dtcflow.genes import load_aliases, load_positions
from dtcflow.io.names import (
    HOUSEKEEPING,
    check_known,
    check_species,
    chosen_genes,
    current_symbols,
    find_mangled,
    is_grch37,
    share_known,
)

SYMBOLS = [str(symbol) for symbol in load_positions()["symbol"].iloc[5000:9000]]
IDS = [str(gene_id) for gene_id in load_positions()["gene_id"].iloc[5000:5100]]
MICE = [name.capitalize() for name in SYMBOLS if name.isalnum() and name.isupper() and len(name) > 3][:100]


@pytest.fixture(scope="module")
def aliases():
    return load_aliases()


# ----------------------------------------------------------------------------------------------------------- species


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (MICE, "100 of 100 genes are named as in the mouse"),
        ([f"ENSMUSG{i:011d}.3" for i in range(30)], "30 of 30 genes are named as in the mouse"),
        ([f"ENSRNOG{i:011d}" for i in range(30)], "named as in the rat"),
        ([f"ENSXYZG{i:011d}" for i in range(30)], "another species (ENSXYZG)"),
        ([*SYMBOLS[:100], *MICE], "100 human genes and 100 mouse genes"),
        ([*IDS, *(f"ENSMUSG{i:011d}" for i in range(40))], "100 human genes and 40 mouse genes"),
        ([f"hg19_{name}" for name in SYMBOLS[:50]] + [f"mm10_{name}" for name in MICE[:50]], "50 human genes and 50"),
        ([f"GRCh38______{name}" for name in SYMBOLS[:50]] + [f"mm10______{name}" for name in MICE[:50]], "50 human"),
        ([f"mm10_{name}" for name in MICE], "100 of 100 genes are named as in the mouse"),
    ],
)
def test_other_species_and_mixtures_are_refused_with_their_numbers(names, words):
    with pytest.raises(InputError, match="genes") as caught:
        check_species(names, where="m.h5ad")
    (problem,) = caught.value.problems
    assert words in problem.found
    assert problem.where == "m.h5ad"
    assert ("xenograft" in problem.found) == ("human genes and" in problem.found)


@pytest.mark.parametrize(
    "names",
    [
        SYMBOLS,
        IDS,
        [f"{name}.7" for name in IDS],
        [*SYMBOLS, "Y_RNA", "Vault", "Metazoa_SRP", "Cre", "Luc2", "tdTomato", *MICE[:15]],
        [f"GRCh38_{name}" for name in SYMBOLS],
        ["ACTB", "Actb", "KRT8"],
        [],
    ],
)
def test_human_genes_with_a_few_foreign_ones_pass(names):
    check_species(names, where="x")


def test_names_that_are_no_genes_are_refused():
    with pytest.raises(InputError, match="hardly any gene") as caught:
        check_known([f"ENST{i:011d}.2" for i in range(20)], where="x")
    assert "sum them up to genes" in caught.value.problems[0].fix
    with pytest.raises(InputError, match=r"0\.0% of 20 gene names are known; the first are 0, 1, 2"):
        check_known([str(i) for i in range(20)], where="x")
    own = [f"probe{i}" for i in range(20)]
    check_known(own, where="x", more=own)
    check_known(SYMBOLS, where="x")
    check_known([], where="x")


def test_superseded_versioned_and_prefixed_names_are_known():
    assert share_known(["SEPT2", "MARCH1", "ENSG00000075624.14", "GRCh38_EPCAM", "HLA.A", "nothing"]) == pytest.approx(
        5 / 6
    )
    assert current_symbols(["SEPT2", "ENSG00000075624.14", "EPCAM", "nothing"]) == [
        "SEPTIN2",
        "ACTB",
        "EPCAM",
        "nothing",
    ]


@pytest.mark.parametrize(
    ("genome", "old"), [("hg19", True), ("GRCh37", True), ("GRCh38", False), ("GRCh38-2020-A", False)]
)
def test_builds(genome, old):
    assert is_grch37(genome) is old


# -------------------------------------------------------------------------------------------------------- spreadsheets


@pytest.mark.parametrize(
    ("date", "symbol"),
    [
        *(("2-Sep", "SEPTIN2"), ("Sep-02", "SEPTIN2"), ("02-Sep", "SEPTIN2"), ("X2.Sep", "SEPTIN2")),
        *(("2021-09-02", "SEPTIN2"), ("2021/09/02", "SEPTIN2"), ("2021-09-02 00:00:00", "SEPTIN2")),
        *(("15-Sep", "SELENOF"), ("7-Mar", "MARCHF7"), ("7. Mrz", "MARCHF7"), ("11-Mar", "MARCHF11")),
        *(("1-Dec", "DELEC1"), ("1. Dez", "DELEC1"), ("2019-09-01", "SEPTIN1")),
    ],
)
def test_a_date_that_only_one_gene_gives_is_recovered(date, symbol, aliases):
    found = find_mangled(["ACTB", date], aliases)
    assert found.recovered == {date: symbol}
    assert (
        f"could be recovered, because only one gene can be meant, for example {date} = {symbol}" in found.warnings()[0]
    )


@pytest.mark.parametrize(
    ("date", "candidates"),
    [
        *(("1-Mar", ("MARCHF1", "MTARC1")), ("Mar-01", ("MARCHF1", "MTARC1")), ("2001-03-01", ("MARCHF1", "MTARC1"))),
        *(("2-Mar", ("MARCHF2", "MTARC2")), ("2004-09-01", ("SEPTIN1", "SEPTIN4")), ("4-Oct", ()), ("3/1/2001", ())),
    ],
)
def test_a_date_that_can_be_several_genes_is_not_guessed(date, candidates, aliases):
    found = find_mangled(["ACTB", date], aliases)
    assert (found.recovered, found.ambiguous, found.total) == ({}, {date: candidates}, 1)
    assert "it is not certain which gene is meant" in found.warnings()[0]


def test_a_gene_that_is_there_is_not_made_twice(aliases):
    assert find_mangled(["SEPTIN2", "2-Sep"], aliases).recovered == {}
    assert find_mangled(["SEPT2", "2-Sep"], aliases).recovered == {}
    assert find_mangled(["Sep-02", "2-Sep"], aliases).recovered == {}
    assert find_mangled(["2-Sep", "2-Sep"], aliases).recovered == {}


def test_numbers_are_counted_and_stay(aliases):
    found = find_mangled(["1.00E+11", "2.31E+13", "ACTB"], aliases)
    assert found.numbers == ("1.00E+11", "2.31E+13")
    assert "2 gene names turned into numbers" in found.warnings()[0]


@pytest.mark.parametrize(
    "names", [["ACTB", "MAR1", "SEPTIN1", "HLA-A", "1-8U", "E2F1", "7SK", "U1", "C1orf112"], SYMBOLS, []]
)
def test_ordinary_names_are_no_dates(names, aliases):
    assert find_mangled(names, aliases).total == 0


# ----------------------------------------------------------------------------------------------------- choice of genes


def test_a_choice_of_genes_is_named():
    assert chosen_genes([*SYMBOLS, *HOUSEKEEPING, *(f"G{i}" for i in range(2000))]) is None
    rest = [name for name in SYMBOLS if name not in HOUSEKEEPING]
    assert "already cut to variable genes: of 2,000 genes 0 are among the 11" in str(chosen_genes(rest[:2000]))
    assert "give the matrix with all genes" in str(chosen_genes([*rest[:1995], *HOUSEKEEPING[:5]]))
    assert "genes were filtered" in str(chosen_genes([*rest[:1994], *HOUSEKEEPING[:6]]))
    assert "a targeted panel" in str(chosen_genes(rest[:400]))
