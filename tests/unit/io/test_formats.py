"""Every format is read into the same counts, cells and genes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.contracts import InputError, check_counts
from dtcflow.io.detect import FORMATS, detect_format
from dtcflow.io.files import sha256
from dtcflow.io.readers import input_files, inspect_matrix, read_matrix

spec = importlib.util.spec_from_file_location("writers", Path(__file__).with_name("writers.py"))
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)
SIZES = [1, 2, 5, 20, 100]


def refused(path, *words, **options):
    for call in (inspect_matrix, read_matrix):
        with pytest.raises(InputError) as caught:
            call(path, **options)
        text = str(caught.value)
        assert caught.value.problems, text
        for word in words:
            assert word in text, text


@pytest.mark.parametrize("n_cells", SIZES)
@pytest.mark.parametrize("name", write.WRITERS)
def test_the_same_counts_from_every_format(tmp_path, name, n_cells):
    writer, kind = write.WRITERS[name]
    values = write.counts_of(n_cells)
    path = writer(tmp_path, values)
    assert detect_format(path) == kind
    adata = read_matrix(path, format=kind)
    check_counts(adata.layers["counts"], name)
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), values)
    assert list(adata.obs_names) == write.names_of(values)
    assert list(adata.var_names) in (write.GENES, write.IDS)
    ids = list(adata.var.get("gene_ids", adata.var_names))
    assert [i.split(".")[0] for i in ids] in (write.IDS, write.GENES)
    header = inspect_matrix(path)
    assert header.format == kind
    n_genes = 5 if name == "h5ad, raw" else 8  # a header does not tell that X is normalised
    assert (header.n_cells, header.n_genes) == ((None, None) if kind in ("csv", "tsv") else (n_cells, n_genes))
    digests = [sha256(file) for file in input_files(path)]
    assert all(len(digest) == 64 for digest in digests)


def test_every_format_has_a_writer():
    assert {kind for _, kind in write.WRITERS.values()} == set(FORMATS)


@pytest.mark.parametrize("name", write.WRITERS)
def test_headers_are_enough_for_the_check(tmp_path, name, monkeypatch):
    def never(*_, **__):
        raise AssertionError("values were read")

    path = write.WRITERS[name][0](tmp_path, write.counts_of())
    for place in ("stored.SparseMatrix.load", "stored.DenseMatrix.load", "mtx._load", "text._parser"):
        monkeypatch.setattr(f"dtcflow.io.{place}", never)
    inspect_matrix(path)


@pytest.mark.parametrize(
    "name", ["h5ad", "h5ad, CSC in a layer", "zarr 3, dense", "loom", "10x h5, generation 3", "kb"]
)
def test_blocks_of_any_size_give_the_same(tmp_path, name, monkeypatch):
    values = write.counts_of(20)
    path = write.WRITERS[name][0](tmp_path, values)
    for size in (1, 7, 64):
        monkeypatch.setattr("dtcflow.io.stored.BLOCK", size)
        monkeypatch.setattr("dtcflow.io.mtx._BLOCK", size)
        np.testing.assert_array_equal(read_matrix(path).layers["counts"].toarray(), values)


# --- loom ------------------------------------------------------------------------------------------------------------


def test_the_layers_of_a_loom_file(tmp_path):
    values = write.counts_of()
    path = write.loom(tmp_path, values, spliced=values - 1, unspliced=np.ones_like(values))
    adata = read_matrix(path)
    assert adata.uns["read"]["source"] == "matrix"
    assert list(adata.obs["input_donor"]) == ["P2", "P1"] * 3
    assert "input_embedding" not in adata.obs
    spliced = read_matrix(path, layer="spliced").layers["counts"].toarray()
    np.testing.assert_array_equal(spliced, values - 1)
    refused(path, "no layer 'umi'", "matrix, layers['spliced'], layers['unspliced']", layer="umi")


def test_a_loom_file_with_normalised_values_names_the_layer(tmp_path):
    values = write.counts_of(20)
    path = write.loom(tmp_path, np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4), umi=values)
    with pytest.raises(InputError, match=r"set intake\.layer: umi"):
        read_matrix(path)
    np.testing.assert_array_equal(read_matrix(path, layer="umi").layers["counts"].toarray(), values)


def test_a_loom_file_without_names(tmp_path):
    import h5py

    path = write.loom(tmp_path, write.counts_of())
    with h5py.File(path, "a") as file:
        file["col_attrs"].move("CellID", "mine")
    refused(path, "no names of cells in the loom file", "attributes donor, mine", "CellID")
    with h5py.File(path, "a") as file:
        file["col_attrs"].move("mine", "CellID")
        del file["row_attrs/Gene"], file["row_attrs/Accession"]
    refused(path, "no names of genes in the loom file")


# --- folders of counting programs ------------------------------------------------------------------------------------


def test_a_folder_above_names_the_folder_to_give(tmp_path):
    filtered = write.starsolo(tmp_path, write.counts_of())
    refused(tmp_path / "Solo.out", "several genomes or kinds", f"for example {filtered}")
    refused(tmp_path, f"for example {filtered}")
    refused(tmp_path / "Solo.out" / "Velocyto" / "filtered", "spliced and unspliced counts apart", "Gene/filtered")
    raw = read_matrix(tmp_path / "Solo.out" / "Gene" / "raw")
    np.testing.assert_array_equal(raw.layers["counts"].toarray(), write.counts_of())


def test_alevin_says_what_it_leaves_out(tmp_path):
    values = write.counts_of()
    adata = read_matrix(write.alevin_parts(tmp_path, values))
    share = (values + 5).sum() / (2 * values + 5).sum()
    assert adata.uns["read"]["source"] == "spliced + ambiguous counts"
    assert f"unspliced ones ({share:.0%} of all) were left out" in adata.uns["read"]["warnings"][0]


def test_the_output_folder_of_alevin_fry_names_its_part(tmp_path):
    (tmp_path / "alevin").mkdir()
    write.alevin(tmp_path / "alevin", write.counts_of())
    refused(tmp_path, "no matrix in this folder", f"for example {tmp_path / 'alevin'}")


@pytest.mark.parametrize("writer", ["alevin", "kb"])
def test_fractional_counts_of_alevin_and_kb_say_how_to_count(tmp_path, writer):
    path = getattr(write, writer)(tmp_path, write.counts_of() + 0.25)
    with pytest.raises(InputError, match="count without EM"):
        read_matrix(path)


def test_the_binary_matrix_of_alevin(tmp_path):
    import gzip

    write.text(tmp_path / "quants_mat_cols.txt", "ACTB\n")
    (tmp_path / "quants_mat.gz").write_bytes(gzip.compress(b"\0\1\2\3" * 9, mtime=0))
    refused(tmp_path, "a binary matrix of alevin (EDS)", "--dumpMtx")
    refused(tmp_path / "quants_mat.gz", "a binary matrix of alevin (EDS)")


def test_parts_of_kb_without_a_sum(tmp_path):
    for part in ("nascent", "mature", "ambiguous"):
        write.kb(tmp_path, write.counts_of(), matrix=f"cells_x_genes.{part}")
    refused(tmp_path, "mature, nascent and ambiguous counts apart", "--sum=cell")
    one = read_matrix(tmp_path / "cells_x_genes.mature.mtx")
    np.testing.assert_array_equal(one.layers["counts"].toarray(), write.counts_of())


def test_transcript_classes_of_kb(tmp_path):
    write.text(tmp_path / "cells_x_tcc.mtx", write.mtx(write.counts_of(), cells_in_rows=True))
    refused(tmp_path, "transcript classes", "without --tcc")


def test_names_that_do_not_belong_to_one_matrix(tmp_path):
    values = write.counts_of()
    path = write.text(tmp_path / "x.mtx", write.mtx(values))
    refused(path, "no features file beside x.mtx")
    write.text(tmp_path / "genes.tsv", write.lines(write.GENES))
    refused(path, "no barcodes file beside x.mtx")
    for name in ("a_barcodes.tsv", "b_barcodes.tsv"):
        write.text(tmp_path / name, write.lines(write.names_of(values)))
    refused(path, "several barcodes files beside x.mtx", "a_barcodes.tsv, b_barcodes.tsv")
    (tmp_path / "b_barcodes.tsv").unlink()
    np.testing.assert_array_equal(read_matrix(path).layers["counts"].toarray(), values)


def test_names_of_kb_that_do_not_fit(tmp_path):
    write.kb(tmp_path, write.counts_of())
    write.text(tmp_path / "cells_x_genes.genes.names.txt", "ACTB\n")
    refused(tmp_path, "gene ids and gene names do not fit", "8 ids, 1 names")


def test_a_square_matrix_of_unknown_origin(tmp_path):
    values = write.counts_of(8)
    write.text(tmp_path / "x.mtx", write.mtx(values))
    write.text(tmp_path / "genes.txt", write.lines(write.GENES))
    write.text(tmp_path / "cells.txt", write.lines(write.names_of(values)))
    refused(tmp_path, "rows and columns cannot be told apart", "as many cells as genes (8)")
    for maker in (write.tenx_folder, write.kb):
        (tmp_path / maker.__name__).mkdir()
        path = maker(tmp_path / maker.__name__, values)
        np.testing.assert_array_equal(read_matrix(path).layers["counts"].toarray(), values)


@pytest.mark.parametrize("kind", ["real", "pattern"])
@pytest.mark.parametrize("shuffled", [True, False])
def test_kinds_of_matrix_market(tmp_path, kind, shuffled):
    values = write.counts_of(5)
    text = write.mtx(values, kind=kind, shuffled=shuffled)
    if kind == "pattern":
        head, body = text.splitlines()[:3], text.splitlines()[3:]
        text = write.lines([*head, *(line.rsplit(" ", 1)[0] for line in body)])
        values = (values > 0).astype(np.float32)
    write.tenx_folder(tmp_path, values, packed=False)
    write.text(tmp_path / "matrix.mtx", text.replace("\n", "\r\n") + "\n\n")
    np.testing.assert_array_equal(read_matrix(tmp_path).layers["counts"].toarray(), values)


def test_entries_that_occur_twice_are_added_up(tmp_path):
    write.tenx_folder(tmp_path, np.zeros((1, 8), dtype=np.float32), packed=False)
    text = "%%MatrixMarket matrix coordinate integer general\n8 1 3\n1 1 2\n2 1 7\n1 1 3\n"
    write.text(tmp_path / "matrix.mtx", text)
    np.testing.assert_array_equal(read_matrix(tmp_path).layers["counts"].toarray(), [[5, 7, 0, 0, 0, 0, 0, 0]])


# --- several samples in one file -------------------------------------------------------------------------------------


def several(folder, writer="h5ad", make=sp.csr_matrix):
    """20 cells of two donors and a third without a name; barcodes repeat between the donors."""
    values = write.counts_of(20)
    adata = write.anndata_of(make(values))
    donors = ["P1", "P2"] * 9 + [None, None]
    adata.obs["donor"] = np.array(donors, dtype=object)
    adata.obs["donor"] = adata.obs["donor"].astype("category")
    adata.obs["number"] = [float(n % 2) for n in range(20)]
    adata.obs_names = [f"AAAC{n // 2:02d}-1" for n in range(20)]
    if writer == "h5ad":
        adata.write_h5ad(folder / "s.h5ad")
        return folder / "s.h5ad", values
    adata.write_zarr(folder / "s.zarr")
    return folder / "s.zarr", values


@pytest.mark.parametrize("writer", ["h5ad", "zarr"])
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_one_sample_of_several(tmp_path, writer, make, monkeypatch):
    path, values = several(tmp_path, writer, make)
    for block in (1, 9, 8_000_000):
        monkeypatch.setattr("dtcflow.io.stored.BLOCK", block)
        adata = read_matrix(path, sample_column="donor", sample_value="P2")
        np.testing.assert_array_equal(adata.layers["counts"].toarray(), values[1:18:2])
        assert list(adata.obs["input_donor"]) == ["P2"] * 9
    assert adata.uns["read"]["selected"] == "9 of 20 cells: donor = P2"
    assert inspect_matrix(path, sample_column="donor", sample_value="P2").n_cells == 9
    assert read_matrix(path, sample_column="number", sample_value="0").n_obs == 10
    refused(
        path, "no column 'Donor'", "donor, number", "did you mean 'donor'?", sample_column="Donor", sample_value="P2"
    )
    refused(
        path, "no cell with 'P3' in the column 'donor'", "P1 (9 cells), P2 (9 cells), (empty) (2 cells)",
        sample_column="donor", sample_value="P3",
    )  # fmt: skip
    with pytest.raises(InputError, match="repeated barcodes"):
        read_matrix(path)


def test_repeated_barcodes_within_the_sample_stay_refused(tmp_path):
    import h5py

    path, _ = several(tmp_path)
    with h5py.File(path, "a") as file:
        file["obs/number"][...] = 1
    with pytest.raises(InputError, match="repeated barcodes"):
        read_matrix(path, sample_column="number", sample_value="1")


def test_one_sample_of_a_loom_file(tmp_path):
    values = write.counts_of(7)
    path = write.loom(tmp_path, values)
    adata = read_matrix(path, sample_column="donor", sample_value="P1")
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), values[1::2])
    assert inspect_matrix(path, sample_column="donor", sample_value="P1").n_cells == 3
    refused(path, "no column 'sex'", "CellID, donor", sample_column="sex", sample_value="P1")


def test_a_selection_needs_a_cell_table_and_both_parts(tmp_path):
    path = write.tenx_folder(tmp_path, write.counts_of())
    refused(path, "no cell table", "format 10x_mtx", sample_column="donor", sample_value="P1")
    refused(path, "need each other", sample_column="donor")
    refused(path, "need each other", sample_value="P1")


def test_categories_of_an_old_h5ad(tmp_path):
    import h5py

    values = write.counts_of(4)
    path = tmp_path / "old.h5ad"
    obs = np.array(
        list(zip(write.names_of(values), [0, 1, 0, -1], strict=True)), dtype=[("index", "S10"), ("who", "i1")]
    )
    with h5py.File(path, "w") as file:
        file["X"], file["obs"] = values, obs
        file["var"] = np.array([(g,) for g in write.GENES], dtype=[("index", "S10")])
        file["uns/who_categories"] = np.array(["P1", "P2"], dtype="S")
        file["raw.X"], file["raw.var"] = values, file["var"][:]
    assert read_matrix(path, sample_column="who", sample_value="P1").n_obs == 2
    refused(path, "P1 (2 cells), (empty) (1 cells), P2 (1 cells)", sample_column="who", sample_value="0")


def test_what_zarr_is_not_of_anndata(tmp_path):
    import zarr

    store = zarr.open_group(str(tmp_path / "s.zarr"), mode="w")
    store.create_group("images")
    store.create_group("tables").create_group("rna")
    refused(tmp_path / "s.zarr", "not of one count matrix", "images, tables", f"{tmp_path / 's.zarr' / 'tables/rna'}")
