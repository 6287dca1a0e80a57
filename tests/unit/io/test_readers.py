import gzip
import pickle
import zipfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import InputError, check_counts
from dtcflow.io.files import sha256
from dtcflow.io.readers import inspect_matrix, read_matrix

GENES = ["ACTB", "GAPDH", "KRT8", "KRT18", "EPCAM", "MT-CO1", "CD3E", "PTPRC"]
IDS = [f"ENSG{number:011d}" for number in range(1, 9)]


def same(adata: ad.AnnData, counts: np.ndarray) -> None:
    check_counts(adata.layers["counts"], "test")
    assert adata.X is None
    assert adata.layers["counts"].dtype == np.float32
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), counts)


def refused(path: Path, *words: str, **options: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_matrix(path, **options)
    text = str(caught.value)
    assert caught.value.problems, text
    assert str(path) in text
    for word in words:
        assert word in text, text
    return caught.value


# --- every format gives the same counts ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16])
def test_h5ad(write_h5ad, counts, barcodes, make, dtype):
    adata = read_matrix(write_h5ad(make(counts.astype(dtype))))
    same(adata, counts)
    assert list(adata.obs_names) == barcodes
    assert list(adata.var_names) == GENES
    assert adata.uns["read"]["format"] == "h5ad"


@pytest.mark.parametrize("generation", [2, 3])
def test_10x_h5(write_10x_h5, counts, barcodes, generation):
    adata = read_matrix(write_10x_h5(counts, generation=generation))
    same(adata, counts)
    assert list(adata.obs_names) == barcodes
    assert list(adata.var["gene_ids"]) == IDS


@pytest.mark.parametrize("generation", [2, 3])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("prefix", ["", "GSM123_P1_"])
def test_10x_folder(write_10x_folder, counts, barcodes, generation, packed, prefix):
    folder = write_10x_folder(counts, generation=generation, packed=packed, prefix=prefix)
    adata = read_matrix(folder)
    same(adata, counts)
    assert list(adata.obs_names) == barcodes
    assert list(adata.var["gene_ids"]) == IDS
    matrix = next(folder.glob("*matrix.mtx*"))
    same(read_matrix(matrix), counts)
    same(read_matrix(str(folder) + "/"), counts)


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("genes_in_rows", [True, False])
@pytest.mark.parametrize("corner", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables(tmp_path, counts, barcodes, separator, genes_in_rows, corner, end):
    frame = pd.DataFrame(counts.astype(int), index=barcodes, columns=GENES)
    frame = frame.T if genes_in_rows else frame
    text = frame.to_csv(sep=separator, lineterminator=end, index_label="x" if corner else False)
    path = tmp_path / "table.txt"
    path.write_bytes(b"\xef\xbb\xbf# made by hand\n" + text.encode())
    adata = read_matrix(path)
    same(adata, counts)
    assert list(adata.obs_names) == barcodes
    assert list(adata.var_names) == GENES
    packed = tmp_path / "table.csv.gz"
    packed.write_bytes(gzip.compress(text.encode(), mtime=0))
    same(read_matrix(packed), counts)


def test_a_table_larger_than_a_block(tmp_path, counts, monkeypatch):
    monkeypatch.setattr("dtcflow.io.text._BLOCK", 16)
    frame = pd.DataFrame(counts.astype(int), index=[f"c{i}" for i in range(6)], columns=GENES)
    frame.to_csv(tmp_path / "t.csv")
    same(read_matrix(tmp_path / "t.csv"), counts)


def test_a_dense_h5ad_larger_than_a_block(write_h5ad, counts, monkeypatch):
    monkeypatch.setattr("dtcflow.io.stored.BLOCK", 16)
    same(read_matrix(write_h5ad(counts)), counts)


def test_ensembl_ids_are_recognised_as_genes(tmp_path, counts):
    pd.DataFrame(counts.astype(int), index=[f"c{i}" for i in range(6)], columns=IDS).T.to_csv(tmp_path / "t.csv")
    same(read_matrix(tmp_path / "t.csv"), counts)


def test_a_symbolic_link_is_followed(tmp_path, write_h5ad, counts):
    link = tmp_path / "link.h5ad"
    link.symlink_to(write_h5ad(counts))
    same(read_matrix(link), counts)


@pytest.mark.parametrize("n_cells", [1, 2, 5, 20])
def test_few_cells(write_h5ad, n_cells):
    values = np.random.default_rng(n_cells).poisson(2, (n_cells, 8)).astype(np.float32) + 1
    same(read_matrix(write_h5ad(values)), values)


def test_headers_tell_the_size(write_h5ad, write_10x_h5, write_10x_folder, counts):
    for path in (write_h5ad(sp.csr_matrix(counts)), write_10x_h5(counts), write_10x_folder(counts)):
        header = inspect_matrix(path)
        assert (header.n_cells, header.n_genes) == (6, 8)


# --- where the counts of an .h5ad are --------------------------------------------------------------------------------


@pytest.fixture
def lognorm(counts):
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)


def test_the_counts_layer_comes_first(write_h5ad, counts, lognorm):
    adata = read_matrix(write_h5ad(lognorm, layers={"counts": sp.csc_matrix(counts)}))
    same(adata, counts)
    assert adata.uns["read"]["source"] == "layers['counts']"


def test_raw_is_used_and_said_when_x_is_normalised(write_h5ad, counts, lognorm):
    adata = read_matrix(write_h5ad(lognorm, raw=sp.csr_matrix(counts)))
    same(adata, counts)
    assert adata.uns["read"]["source"] == "raw.X"
    assert any("X holds log-normalised" in text for text in adata.uns["read"]["warnings"])


def test_a_named_layer(write_h5ad, counts, lognorm):
    path = write_h5ad(lognorm, layers={"umi": counts})
    same(read_matrix(path, layer="umi"), counts)
    refused(path, "set intake.layer: umi", "log1p of counts scaled to 10,000")
    refused(path, "no layer 'umis'", "layers['umi']", layer="umis")


def test_a_named_layer_without_counts_is_refused(write_h5ad, counts, lognorm):
    refused(write_h5ad(counts, layers={"norm": lognorm}), "not raw counts", "layers['norm']", layer="norm")


def test_no_matrix_at_all(write_h5ad):
    refused(write_h5ad(None, shape=(6, 8)), "no matrix in the file")


def test_own_columns_of_cells_are_kept_storable(write_h5ad, counts, tmp_path):
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["T", "B", "T", None, "B", "T"]),
            "score": [0.5, np.nan, 1, 2, 3, 4],
            "n": pd.array([1, 2, None, 4, 5, 6], dtype="Int64"),
            "flag": pd.array([True, None, False, True, True, True], dtype="boolean"),
            "text": ["a", "b", "c", "d", "e", "f"],
            "sample_id": ["wrong"] * 6,
        }
    )
    path = write_h5ad(counts, obs=obs)
    with h5py.File(path, "a") as file:  # as old versions of anndata could write it
        file["obs"].move("text", "te")
        file["obs"].attrs["column-order"] = [
            "te" if name == "text" else name for name in file["obs"].attrs["column-order"]
        ]
    adata = read_matrix(path)
    assert list(adata.obs["input_cell_type"]) == ["T", "B", "T", "", "B", "T"]
    assert adata.obs["input_score"].dtype == np.float64
    assert np.isnan(adata.obs["input_n"].iloc[2])
    assert list(adata.obs["input_flag"]) == ["True", "", "False", "True", "True", "True"]
    assert list(adata.obs["input_te"]) == list("abcdef")
    assert "sample_id" not in adata.obs
    adata.write_h5ad(tmp_path / "again.h5ad")
    assert list(ad.read_h5ad(tmp_path / "again.h5ad").obs.columns) == list(adata.obs.columns)


def test_old_h5ad_with_record_arrays(tmp_path, counts, barcodes):
    matrix = sp.csr_matrix(counts)
    path = tmp_path / "old.h5ad"
    obs = np.array(list(zip(barcodes, "abcdef", strict=True)), dtype=[("index", "S10"), ("kind/of", "S2")])
    with h5py.File(path, "w") as file:
        file["obs"], file["var"] = obs, np.array([(g,) for g in GENES], dtype=[("index", "S10")])
        group = file.create_group("X")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
    adata = read_matrix(path)
    same(adata, counts)
    assert list(adata.obs_names) == barcodes
    assert list(adata.obs["input_kind_of"]) == list("abcdef")


# --- features and names ----------------------------------------------------------------------------------------------


def test_antibodies_and_guides_are_split_off(write_10x_folder, write_10x_h5, counts):
    types = ["Gene Expression"] * 5 + ["Antibody Capture", "CRISPR Guide Capture", "Antibody Capture"]
    for path in (write_10x_folder(counts, types=types), write_10x_h5(counts, types=types)):
        adata = read_matrix(path)
        same(adata, counts[:, :5])
        assert adata.uns["read"]["removed_features"] == {"Antibody Capture": 2, "CRISPR Guide Capture": 1}
        assert any("2 Antibody Capture" in text for text in adata.uns["read"]["warnings"])


def test_several_genomes_are_refused_with_their_list(write_10x_h5, write_10x_folder, counts):
    refused(write_10x_h5(counts, generation=2, genomes=["GRCh38", "mm10"]), "several genomes", "GRCh38, mm10")
    refused(write_10x_h5(counts, genomes=["GRCh38"] * 5 + ["mm10"] * 3), "GRCh38 (5 genes), mm10 (3 genes)")
    genes = [f"{'hg19' if i < 4 else 'mm10'}_{gene}" for i, gene in enumerate(GENES)]
    refused(write_10x_folder(counts, genes=genes), "several genomes", "hg19 (4 genes)")


def test_the_prefix_of_a_single_genome_is_taken_off(write_10x_folder, counts):
    adata = read_matrix(write_10x_folder(counts, genes=[f"GRCh38_{gene}" for gene in GENES]))
    assert list(adata.var_names) == GENES
    assert any("GRCh38_" in text for text in adata.uns["read"]["warnings"])


def test_a_folder_with_genome_folders_names_them(tmp_path, write_10x_folder, counts):
    write_10x_folder(counts, name="GRCh38")
    refused(tmp_path, "no matrix in this folder", "GRCh38")
    write_10x_folder(counts, name="mm10")
    refused(tmp_path, "several genomes", "GRCh38, mm10")


def test_repeated_gene_names_are_kept_apart(write_10x_folder, counts):
    genes = [*GENES[:6], "ACTB", "ACTB-1"]
    adata = read_matrix(write_10x_folder(counts, genes=genes))
    same(adata, counts)
    assert list(adata.var_names) == [*GENES[:6], "ACTB-2", "ACTB-1"]
    assert list(adata.var["original_name"]) == genes
    assert adata.uns["read"]["n_repeated_names"] == 1


def test_repeated_or_odd_barcodes_are_refused(write_10x_folder, counts):
    refused(write_10x_folder(counts, barcodes=["a", "b", "c", "a", "d", "e"]), "repeated barcodes", "'a'")
    odd = write_10x_folder(counts, name="odd", barcodes=["a", "b\x07", "c", "d", "e", "f"])
    refused(odd, "unusable barcodes", "visible text")


def test_genes_without_a_name(write_10x_folder, counts):
    folder = write_10x_folder(counts, genes=[*GENES[:7], ""])
    (folder / "features.tsv.gz").write_bytes(gzip.compress("\n".join([*GENES[:7], " "]).encode() + b"\n", mtime=0))
    refused(folder, "genes without a name", "gene 8")


# --- values ----------------------------------------------------------------------------------------------------------


def test_estimated_counts_only_on_plates(write_h5ad):
    values = np.random.default_rng(0).gamma(0.3, 300, (12, 40))
    path = write_h5ad(values)
    refused(path, "fractional counts on platform droplet", "set platform to plate")
    adata = read_matrix(path, platform="plate")
    same(adata, np.rint(values))
    assert adata.uns["read"]["rounded"] is True
    assert "rounded to the nearest" in adata.uns["read"]["warnings"][0]


def test_whole_counts_are_preferred_over_estimated_ones(write_h5ad):
    rng = np.random.default_rng(0)
    values = rng.gamma(0.3, 300, (12, 40))
    whole = rng.poisson(5, values.shape)
    same(read_matrix(write_h5ad(values, raw=sp.csr_matrix(whole * 1.0)), platform="plate"), whole)


@pytest.mark.parametrize("platform", ["droplet", "plate"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: np.log1p(x), "log"),
        (lambda x: x / x.sum(axis=1, keepdims=True) * 1e6, "CPM or TPM"),
        (lambda x: x - x.mean(axis=0), "negative values"),
        (lambda x: np.where(x == x.max(), np.nan, x), "NaN"),
        (lambda x: x * 1e7, "more than a cell's RNA"),
        (lambda x: x * 0, "only zeros"),
    ],
)
def test_values_that_are_no_counts_are_refused(write_h5ad, tmp_path, counts, platform, change, words):
    values = change(counts.astype(float))
    refused(write_h5ad(values), words, "raw counts: whole numbers >= 0", platform=platform)
    path = tmp_path / "t.tsv"
    pd.DataFrame(values, index=[f"c{i}" for i in range(6)], columns=GENES).to_csv(path, sep="\t", na_rep="nan")
    refused(path, "'nan' in line" if words == "NaN" else words, platform=platform)


# --- broken and foreign files ----------------------------------------------------------------------------------------


def test_nothing_there(tmp_path):
    (tmp_path / "P1.h5ad").touch()
    refused(tmp_path / "P11.h5ad", "no readable input", "did you mean 'P1.h5ad'?")
    refused(tmp_path / "no" / "x.h5ad", "does not exist", str(tmp_path))
    refused(tmp_path / "P1.h5ad", "the file is empty", "0 bytes")


def test_a_loop_of_links(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refused(tmp_path / "a", "loop of symbolic links")


def test_truncated_h5ad_and_h5(write_h5ad, write_10x_h5, counts, tmp_path):
    for path in (write_h5ad(counts), write_10x_h5(counts)):
        content = path.read_bytes()
        for share in (0.1, 0.5, 0.95):
            cut = tmp_path / f"cut{share}{path.suffix}"
            cut.write_bytes(content[: int(len(content) * share)])
            refused(cut, "truncated or damaged HDF5 file", "download it again")


def test_truncated_gzip(write_10x_folder, tmp_path, counts):
    folder = write_10x_folder(np.tile(counts, (1, 1)))
    matrix = folder / "matrix.mtx.gz"
    whole = matrix.read_bytes()
    matrix.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_matrix(folder)
    table = tmp_path / "t.tsv.gz"
    text = "\t".join(["x", *GENES]) + "\n" + "".join(f"c{i}\t" + "\t".join("1" * 8) + "\n" for i in range(5000))
    content = gzip.compress(text.encode(), mtime=0)
    for share in (0.3, 0.99):
        table.write_bytes(content[: int(len(content) * share)])
        refused(table, "gzip file")
    table.write_bytes(content[:-8] + b"\0" * 8)
    refused(table, "damaged gzip file")


def test_a_matrix_with_fewer_entries_than_announced(write_10x_folder, counts):
    folder = write_10x_folder(counts, packed=False)
    matrix = folder / "matrix.mtx"
    lines = matrix.read_text().splitlines(keepends=True)
    matrix.write_text("".join(lines[:-3]))
    with pytest.raises(InputError, match="truncated or damaged matrix"):
        read_matrix(folder)
    lines[2] = "8 6 99999999999\n"
    matrix.write_text("".join(lines))
    with pytest.raises(InputError, match="99,999,999,999 entries announced"):
        read_matrix(folder)


def test_matrix_and_names_that_do_not_fit(write_10x_folder, counts, barcodes):
    folder = write_10x_folder(counts, barcodes=barcodes[:5])
    with pytest.raises(InputError, match="5 barcodes"):
        read_matrix(folder)


def test_a_folder_without_its_parts(tmp_path, write_10x_folder, counts):
    refused(tmp_path, "no matrix in this folder", "an empty folder")
    folder = write_10x_folder(counts)
    (folder / "barcodes.tsv.gz").unlink()
    refused(folder, "no barcodes file beside matrix.mtx.gz", "barcodes.tsv.gz or barcodes.tsv")


def test_several_matrices_in_a_folder(tmp_path):
    for name in ("A_matrix.mtx", "B_matrix.mtx"):
        (tmp_path / name).write_text("x")
    refused(tmp_path, "several matrices", "A_matrix.mtx, B_matrix.mtx")


def test_indices_out_of_range_do_not_reach_memory(write_10x_h5, counts):
    indices = sp.csr_matrix(counts).indices.copy()
    indices[0] = 2_000_000_000
    refused(write_10x_h5(counts, indices=indices), "the matrix is damaged")


def test_no_cells_or_genes(write_h5ad):
    refused(write_h5ad(np.zeros((0, 4)), genes=GENES[:4]), "no cells")
    refused(write_h5ad(sp.csr_matrix((4, 0))), "no genes")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.h5ad", b"not a file of this kind\n", "named .h5ad, but it is not such a file"),
        ("x.csv", pickle.dumps({"a": 1}), "never opened"),
        ("x.rds", gzip.compress(b"X\n\0\0\0\3", mtime=0), "an R data file"),
        ("x.csv", b"<!DOCTYPE html><html></html>", "web page"),
        ("x.txt", b"one\ntwo\n", "no table"),
        ("x.tsv", "a\tb".encode("utf-16"), "UTF-16"),
        ("x.bin", b"\x01\x02\0\0", "the format is not known"),
        ("x.csv.gz", gzip.compress(b"", mtime=0), "empty"),
        ("x.tsv", b"x\tACTB\n", "a table without rows"),
        ("x.tsv", b"x\tACTB\tEPCAM\tKRT8\nc1\t1\n", "header and rows do not fit"),
        ("x.tsv", b"x\tACTB\tEPCAM\nc1\t1\t2\nc2\t3\tmany\n", "'many' in line 3 (row 'c2'), column 'EPCAM'"),
        ("x.tsv", b"x\tACTB\tEPCAM\nc1\t1\t2\nc2\t3\t\n", "an empty field in line 3"),
        ("x.tsv", b"x\tACTB\tEPCAM\nc1\t1\t2\nc2\t3\t4\t5\n", "rows of different length"),
        ("x.tsv", b"x\tfoo\tbar\nc1\t1\t2\nc2\t3\t4\n", "neither rows nor columns are recognised as genes"),
        ("x.tsv", b"x\tACTB\xff\tEPCAM\nc1\t1\t2\n", "not UTF-8"),
    ],
)
def test_foreign_and_broken_files(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, words)


def test_other_containers_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as file:
        file.writestr("data.npy", b"x")
    refused(tmp_path / "m.npz", "a zip archive")
    for name, groups, words in (
        ("a.loom", ("matrix", "row_attrs", "col_attrs"), "loom"),
        ("b.h5mu", ("mod/rna",), "MuData"),
        ("c.h5", ("other",), "top-level keys other"),
    ):
        with h5py.File(tmp_path / name, "w") as file:
            for group in groups:
                file.create_group(group)
        refused(tmp_path / name, words)
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / ".zgroup").touch()
    refused(tmp_path / "s.zarr", "zarr")


def test_text_instead_of_numbers_in_an_h5ad(write_h5ad, counts):
    path = write_h5ad(counts)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = np.full((6, 8), b"1")
    refused(path, "does not hold numbers")


def test_damaged_entries_of_an_h5ad(write_h5ad, counts):
    path = write_h5ad(sp.csr_matrix(counts))
    with h5py.File(path, "a") as file:
        del file["X/indptr"]
    refused(path, "cannot be read", "indptr")
    with h5py.File(path, "a") as file:
        file["X/indptr"] = np.array([0, 5, 3, 9, 9, 9, 9])
    refused(path, "the matrix is damaged")


def test_a_format_that_is_not_the_named_one(write_h5ad, counts):
    path = write_h5ad(counts)
    refused(path, "the format is not the one", "set format to auto or h5ad", format="10x_h5")
    refused(path, "unknown format", format="xlsx")
    refused(path, "unknown platform", platform="nanopore")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
