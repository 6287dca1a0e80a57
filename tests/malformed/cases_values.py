"""Matrices whose container is sound and whose content is not: values, names, tables."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from cases import GENES, Register, Study, h5ad_bytes, sound, table

CASES = Register()
case = CASES.case


def values(study: Study, change, *, dtype: type = np.float64) -> None:
    """Write the sound matrix as .h5ad with its dense values changed."""
    adata = sound()
    dense = np.asarray(adata.X.toarray(), dtype=dtype)
    study.put("bad.h5ad", h5ad_bytes(ad.AnnData(sp.csr_matrix(change(dense)), obs=adata.obs, var=adata.var)))


def _with(value: float):
    def change(dense: np.ndarray) -> np.ndarray:
        dense[3, 0] = value
        return dense

    return change


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------


@case("NaN or infinite", "cell 4", read=True)
def a_missing_value(study: Study) -> None:
    values(study, _with(np.nan))


@case("NaN or infinite", "cell 4", read=True)
def an_infinite_value(study: Study) -> None:
    values(study, _with(np.inf))


@case("negative", "-7", read=True)
def a_negative_value(study: Study) -> None:
    values(study, _with(-7))


@case("negative", "-7", read=True)
def a_negative_integer(study: Study) -> None:
    values(study, _with(-7), dtype=np.int64)


@case("more than a cell's RNA", read=True)
def a_value_beyond_counting(study: Study) -> None:
    values(study, _with(2.0**40))


@case("more than a cell's RNA", read=True)
def an_overflown_integer(study: Study) -> None:
    values(study, _with(2**32 - 3), dtype=np.uint32)


@case("only zeros", read=True)
def nothing_but_zeros(study: Study) -> None:
    values(study, lambda dense: dense * 0)


@case("log-normalised", "10,000", read=True)
def log_normalised(study: Study) -> None:
    values(study, lambda dense: np.log1p(dense / dense.sum(1, keepdims=True) * 1e4))


@case("log-normalised", "log2", read=True)
def log2_cpm(study: Study) -> None:
    values(study, lambda dense: np.log2(dense / dense.sum(1, keepdims=True) * 1e6 + 1))


@case("CPM or TPM", read=True)
def counts_per_million(study: Study) -> None:
    values(study, lambda dense: dense / dense.sum(1, keepdims=True) * 1e6)


@case("every cell sums to about 10,000", read=True)
def counts_per_ten_thousand(study: Study) -> None:
    values(study, lambda dense: dense / dense.sum(1, keepdims=True) * 1e4)


@case("negative", "scaled", read=True)
def scaled_to_unit_variance(study: Study) -> None:
    values(study, lambda dense: (dense - dense.mean(0)) / (dense.std(0) + 1))


@case("size factor", read=True)
def divided_by_size_factors(study: Study) -> None:
    factors = np.random.default_rng(5).uniform(0.3, 0.9, (24, 1))
    values(study, lambda dense: dense * 60 / factors)


@case("fractional", "plate", read=True)
def estimated_counts_called_droplets(study: Study) -> None:
    noise = np.random.default_rng(5).uniform(0.51, 1.49, (24, 60))
    values(study, lambda dense: dense * 90 * noise)


@case("0 cells")
def no_cell(study: Study) -> None:
    study.put("bad.h5ad", h5ad_bytes(sound()[:0].copy()))


@case("0 genes")
def no_gene(study: Study) -> None:
    study.put("bad.h5ad", h5ad_bytes(sound()[:, :0].copy()))


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def genes(study: Study, names: list[str]) -> None:
    adata = sound()
    adata.var_names = pd.Index(names)
    study.put("bad.h5ad", h5ad_bytes(adata))


def cells(study: Study, names: list[str]) -> None:
    adata = sound()
    adata.obs_names = pd.Index(names)
    study.put("bad.h5ad", h5ad_bytes(adata))


@case("mouse", "Actb", read=True)
def genes_of_a_mouse(study: Study) -> None:
    genes(study, [name if name.startswith("MT-") else name.capitalize() for name in GENES])


@case("mouse", "ENSMUSG", read=True)
def ensembl_genes_of_a_mouse(study: Study) -> None:
    genes(study, [f"ENSMUSG{i:011d}" for i in range(60)])


@case("position", read=True)
def genes_with_numbers_for_names(study: Study) -> None:
    genes(study, [str(i) for i in range(60)])


@case("position", read=True)
def genes_of_no_known_kind(study: Study) -> None:
    genes(study, [f"probe_{i}_at" for i in range(60)])


@case("without a name", read=True)
def gene_without_a_name(study: Study) -> None:
    genes(study, ["ACTB", "", *GENES[2:]])


@case("without a name", read=True)
def gene_with_a_control_character(study: Study) -> None:
    genes(study, ["ACTB", "GAP\x07DH", *GENES[2:]])


@case("unusable barcodes", read=True)
def barcode_with_a_line_break(study: Study) -> None:
    cells(study, ["AC\nGT", *(f"c{i}" for i in range(23))])


@case("unusable barcodes", read=True)
def barcode_with_an_escape_sequence(study: Study) -> None:
    cells(study, ["\x1b[2J", *(f"c{i}" for i in range(23))])


@case("unusable barcodes", read=True)
def barcode_with_spaces_around_it(study: Study) -> None:
    cells(study, [" ACGT ", *(f"c{i}" for i in range(23))])


@case("unusable barcodes", read=True)
def barcode_with_nothing_in_it(study: Study) -> None:
    cells(study, ["", *(f"c{i}" for i in range(23))])


@case("unusable barcodes", read=True)
def barcode_that_writes_backwards(study: Study) -> None:
    cells(study, ["AC\u202eGT", *(f"c{i}" for i in range(23))])


@case("more than once", read=True)
def barcodes_shortened_by_a_spreadsheet(study: Study) -> None:
    cells(study, ["1.00E+11"] * 24)


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def changed(study: Study, old: str, new: str, *, name: str = "bad.csv", count: int = 1) -> None:
    """Write the sound table with some text replaced."""
    text = table()
    assert old in text
    study.put(name, text.replace(old, new, count))


def field(study: Study, new: str, *, row: int = 2, column: int = 3, name: str = "bad.csv") -> None:
    """Write the sound table with one field replaced."""
    lines = [line.split(",") for line in table().splitlines()]
    lines[row][column] = new
    study.put(name, "\n".join(",".join(line) for line in lines) + "\n")


@case("'many'", "line 3", read=True)
def word_in_a_field(study: Study) -> None:
    field(study, "many")


@case("empty field", "line 3", read=True)
def empty_field(study: Study) -> None:
    field(study, "")


@case("'#N/A'", read=True)
def spreadsheet_error_in_a_field(study: Study) -> None:
    field(study, "#N/A")


@case("line 3", read=True)
def spreadsheet_formula_in_a_field(study: Study) -> None:
    field(study, '=HYPERLINK("http://x")')


@case("'nan'", "line 3", read=True)
def nan_in_a_field(study: Study) -> None:
    field(study, "nan")


@case("infinite", read=True)
def infinity_in_a_field(study: Study) -> None:
    field(study, "inf")


@case("'1e400'", "line 3", read=True)
def exponent_that_overflows(study: Study) -> None:
    field(study, "1e400")


@case("negative", read=True)
def negative_field(study: Study) -> None:
    field(study, "-2")


@case("bad.csv", read=True)
def hexadecimal_field(study: Study) -> None:
    field(study, "0x1F")


@case("line 3", read=True)
def thousands_separator(study: Study) -> None:
    field(study, '"1,024"')


@case("whole numbers", read=True)
def fractions_in_a_table(study: Study) -> None:
    field(study, "1.5")


@case("bad.csv", read=True)
def decimal_commas(study: Study) -> None:
    text = table(separator=";")
    lines = text.splitlines()
    lines[2] = lines[2].replace(";", ";0,5;", 1).rsplit(";", 1)[0]
    study.put("bad.csv", "\n".join(lines) + "\n")


@case("fields", read=True)
def row_with_a_field_too_many(study: Study) -> None:
    lines = table().splitlines()
    study.put("bad.csv", "\n".join([*lines[:5], lines[5] + ",1", *lines[6:]]) + "\n")


@case("bad.csv", read=True)
def row_with_a_field_too_few(study: Study) -> None:
    lines = table().splitlines()
    study.put("bad.csv", "\n".join([*lines[:5], lines[5].rsplit(",", 1)[0], *lines[6:]]) + "\n")


@case("header and rows do not fit", "fields in the first row")
def header_that_is_too_short(study: Study) -> None:
    lines = table().splitlines()
    study.put("bad.csv", "\n".join([lines[0].rsplit(",", 3)[0], *lines[1:]]) + "\n")


@case("rows")
def header_alone(study: Study) -> None:
    study.put("bad.csv", table().splitlines()[0] + "\n")


@case("bad.csv")
def comments_alone(study: Study) -> None:
    study.put("bad.csv", "# made by hand\n# on a Tuesday\n")


@case("gene names are known")
def table_without_genes(study: Study) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.poisson(3, (20, 30)), index=[f"r{i}" for i in range(20)])
    study.put("bad.csv", frame.add_prefix("v").to_csv())


@case("more than once", read=True)
def cell_twice_in_a_table(study: Study) -> None:
    lines = table().splitlines()
    study.put("bad.csv", "\n".join([*lines, lines[1]]) + "\n")


@case("not UTF-8", read=True)
def table_in_latin_1(study: Study) -> None:
    lines = table().splitlines()
    study.put("bad.csv", ("\n".join(lines[:9]) + "\nM\xfcller" + lines[9][18:] + "\n").encode("latin-1"))


@case("binary data")
def table_with_zero_bytes(study: Study) -> None:
    study.put("bad.csv", table().encode().replace(b",", b"\0,", 5))


@case("bad.csv", read=True)
def table_with_a_quote_that_never_ends(study: Study) -> None:
    lines = table().splitlines()
    study.put("bad.csv", "\n".join([*lines[:5], '"' + lines[5], *lines[6:]]) + "\n")


@case("a line without tab, comma")
def table_of_one_column(study: Study) -> None:
    study.put("bad.csv", "ACTB\n1\n2\n3\n")
