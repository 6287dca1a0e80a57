import gzip

import h5py
import numpy as np
import pandas as pd
import pytest

from dtcflow.io.headers import read_gene_names

GENES = ["ACTB", "GAPDH", "KRT8", "KRT18", "EPCAM", "MT-CO1", "CD3E", "PTPRC"]
IDS = ["ENSG00000075624", "ENSG00000111640", "ENSG00000170421", "ENSG00000111057"]


def test_names_of_an_h5ad(write_h5ad, counts):
    assert list(read_gene_names(write_h5ad(counts), "h5ad").names) == GENES


def test_the_column_of_which_more_is_known_is_taken(write_h5ad, counts, tmp_path):
    import anndata as ad

    var = pd.DataFrame({"gene_ids": IDS, "genome": pd.Categorical(["hg19"] * 4)}, index=["a", "b", "c", "d"])
    ad.AnnData(counts[:, :4], var=var).write_h5ad(tmp_path / "x.h5ad")
    found = read_gene_names(tmp_path / "x.h5ad", "h5ad")
    assert (list(found.names), list(found.genomes)) == (IDS, ["hg19"])


def test_names_of_raw_are_taken_when_those_of_the_matrix_are_unknown(write_h5ad, counts):
    path = write_h5ad(counts, genes=[f"{i}" for i in range(8)], raw=counts)
    with h5py.File(path, "a") as file:
        key = file["raw/var"].attrs["_index"]
        del file[f"raw/var/{key}"]
        file[f"raw/var/{key}"] = GENES
    assert list(read_gene_names(path, "h5ad").names) == GENES


def test_records_of_an_old_h5ad(tmp_path):
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        file["var"] = np.array([(b"ACTB", 1), (b"EPCAM", 2)], dtype=[("index", "S10"), ("n", "i4")])
    assert list(read_gene_names(tmp_path / "old.h5ad", "h5ad").names) == ["ACTB", "EPCAM"]


@pytest.mark.parametrize("generation", [2, 3])
def test_names_of_a_10x_h5(write_10x_h5, counts, generation):
    found = read_gene_names(write_10x_h5(counts, generation=generation), "10x_h5")
    assert list(found.names) == GENES
    assert list(found.genomes) == ["GRCh38"]


@pytest.mark.parametrize("generation", [2, 3])
@pytest.mark.parametrize("packed", [True, False])
def test_names_of_a_10x_folder(write_10x_folder, counts, generation, packed):
    assert (
        list(read_gene_names(write_10x_folder(counts, generation=generation, packed=packed), "10x_mtx").names) == GENES
    )


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("corner", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_names_of_a_table_in_either_orientation(tmp_path, counts, turned, corner, packed):
    table = pd.DataFrame(counts.astype(int), index=[f"cell {i}" for i in range(6)], columns=GENES)
    table = table.T if turned else table
    text = table.to_csv(sep="\t", index_label="gene" if corner else False)
    path = tmp_path / "t.tsv"
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if packed else text.encode())
    assert list(read_gene_names(path, "tsv").names) == GENES


def test_a_long_table_is_not_read_to_its_end(tmp_path):
    lines = ["gene,c1", *(f"{name},1" for name in GENES * 100)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    found = read_gene_names(tmp_path / "t.csv", "csv")
    assert (len(found.names), found.complete) == (200, False)


def test_what_is_not_read_is_none(tmp_path):
    assert read_gene_names(tmp_path, "a format to come") is None
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["obs"] = 1
    assert read_gene_names(tmp_path / "x.h5ad", "h5ad") is None
