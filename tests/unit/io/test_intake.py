import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import InputError, check_stage, read_stage, write_json, write_stage
from dtcflow.genes import load_aliases, load_positions
from dtcflow.io.config import load_config
from dtcflow.io.files import sha256
from dtcflow.io.intake import check_species, read_sample

CONFIG = load_config({})
GENES = ["ACTB", "GAPDH", "KRT8", "KRT18", "EPCAM", "MT-CO1", "CD3E", "PTPRC"]


@pytest.fixture(scope="module")
def positions():
    return load_positions()


@pytest.fixture(scope="module")
def aliases():
    return load_aliases()


@pytest.fixture
def take(tmp_path, positions, aliases):
    def call(path, *, config=CONFIG, **row):
        row = {"sample_id": "S1", "patient_id": "P1", "compartment": "marrow", "path": Path(path).name} | row
        return read_sample(row, config=config, positions=positions, aliases=aliases, base_dir=tmp_path)

    return call


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_a_sample_meets_its_contract(take, write_h5ad, counts, barcodes, tmp_path, make):
    obs = pd.DataFrame({"cell_type": list("abcdef"), "platform": ["lies"] * 6})
    path = write_h5ad(make(counts), obs=obs)
    adata, report = take(path, batch="b7", format="auto", age=float("nan"))
    check_stage(adata, "intake", "test")
    assert list(adata.obs_names) == [f"S1:{barcode}" for barcode in barcodes]
    assert list(adata.obs["barcode"]) == barcodes
    assert set(adata.obs["batch"]) == {"b7"}
    assert set(adata.obs["platform"]) == {"droplet"}
    assert list(adata.obs["input_cell_type"]) == list("abcdef")
    assert adata.var.loc["EPCAM", "chromosome"] == "chr2"
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), counts)
    assert report["sha256"] == {path.name: sha256(path)}
    assert report["input"] == path.name
    assert (report["n_cells"], report["n_genes"], report["n_expressed"]) == (6, 8, 8)
    assert report["fraction_placed"] == 1.0
    write_stage(adata, tmp_path / "out.h5ad", "intake")
    again = read_stage(tmp_path / "out.h5ad", "intake")
    assert list(again.obs_names) == list(adata.obs_names)
    assert list(again.obs["input_cell_type"].astype(str)) == list("abcdef")
    write_json(tmp_path / "out.json", report)
    assert json.loads((tmp_path / "out.json").read_text())["n_cells"] == 6


@pytest.mark.parametrize("n_cells", [1, 2, 5, 20])
def test_few_cells(take, write_h5ad, n_cells):
    values = np.random.default_rng(1).poisson(2, (n_cells, 8)).astype(np.float32) + 1
    adata, report = take(write_h5ad(values))
    assert adata.n_obs == report["n_cells"] == n_cells


def test_a_10x_folder_hashes_its_three_files(take, write_10x_folder, counts):
    folder = write_10x_folder(counts)
    _, report = take(folder)
    assert report["sha256"] == {file.name: sha256(file) for file in folder.iterdir()}
    assert report["format"] == "10x_mtx"


def test_superseded_symbols_are_renamed_and_counted(take, write_h5ad, counts, aliases, positions):
    previous = aliases[(aliases["kind"] == "previous") & aliases["symbol"].isin(positions["symbol"])].iloc[0]
    adata, report = take(write_h5ad(counts, genes=[*GENES[:7], previous["alias"]]))
    assert adata.var_names[7] == previous["symbol"]
    assert report["n_renamed"] == 1


def test_repeated_names_do_not_hide_a_place(take, write_10x_folder, counts):
    genes = [*GENES[:7], "ACTB"]
    folder = write_10x_folder(counts, genes=genes)
    lines = "".join(f"{gene}\t{gene}\tGene Expression\n" for gene in genes)
    (folder / "features.tsv.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    adata, report = take(folder)
    assert adata.var["chromosome"].iloc[0] == "chr7"
    assert adata.var["chromosome"].iloc[7] == ""
    assert adata.var_names.is_unique
    assert report["n_repeated_names"] == 1


def test_genes_that_cannot_be_placed_are_refused(take, write_h5ad, counts):
    path = write_h5ad(counts, genes=[*GENES[:3], *(f"transcript{i}" for i in range(5))])
    with pytest.raises(InputError, match="3 of 8 expressed genes have a position"):
        take(path)
    lenient = load_config({"intake": {"min_placed_fraction": 0.1}})
    assert take(path, config=lenient)[1]["fraction_placed"] == pytest.approx(3 / 8)


def test_what_a_user_should_know_is_in_the_report(take, write_h5ad, counts):
    counts[2] = 0
    adata, report = take(write_h5ad(counts, genes=[*GENES[:5], "1-Mar", *GENES[6:]]))
    text = " | ".join(report["warnings"])
    assert adata.n_obs == 6
    for words in ("no mitochondrial genes", "dates by a spreadsheet", "1 cells without any count", "only 8 genes"):
        assert words in text
    assert (report["n_mangled_names"], report["n_recovered_names"], report["n_renamed"]) == (1, 0, 0)
    assert report["sex"]["call"] == "not_assessable"
    assert "no mitochondrial genes" not in " ".join(take(write_h5ad(counts))[1]["warnings"])


@pytest.mark.parametrize(
    "names",
    [
        ["Actb", "Gapdh", "Krt8", "Krt18", "Epcam", "mt-Co1", "Cd3e", "Ptprc"],
        [f"ENSMUSG{number:011d}" for number in range(8)],
    ],
)
def test_mouse_genes_are_refused(take, write_h5ad, counts, names):
    with pytest.raises(InputError, match="mouse genes") as caught:
        take(write_h5ad(counts, genes=names))
    assert names[0] in caught.value.problems[0].found


def test_a_mouse_table_is_refused_as_mouse(take, tmp_path, counts):
    names = ["Actb", "Gapdh", "Krt8", "Krt18", "Epcam", "mt-Co1", "Cd3e", "Ptprc"]
    pd.DataFrame(counts.astype(int), index=[f"x{i}" for i in range(6)], columns=names).to_csv(tmp_path / "m.csv")
    with pytest.raises(InputError, match="mouse genes"):
        take(tmp_path / "m.csv")


@pytest.mark.parametrize("names", [["C1orf112", "C9orf72", "ACTB"], ["ACTB", "Actb", "KRT8"], ["hsa-mir-1", "A1BG"]])
def test_human_names_pass(names):
    check_species(names, where="x")


def test_the_result_does_not_depend_on_the_order_of_cells(take, write_h5ad, counts, barcodes):
    one, _ = take(write_h5ad(counts))
    order = [3, 0, 5, 1, 4, 2]
    path = write_h5ad(counts[order], name="turned.h5ad")
    with h5py.File(path, "a") as file:
        key = file["obs"].attrs["_index"]
        del file[f"obs/{key}"]
        file[f"obs/{key}"] = [barcodes[i] for i in order]
        file[f"obs/{key}"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    two, _ = take(path)
    two = two[one.obs_names].copy()
    np.testing.assert_array_equal(one.layers["counts"].toarray(), two.layers["counts"].toarray())
    pd.testing.assert_frame_equal(one.var, two.var)


def test_one_sample_of_a_file_that_holds_several(take, write_h5ad, counts):
    write_h5ad(counts, obs=pd.DataFrame({"donor": ["S1", "S2", "S1", "S2", "S1", "x"]}))
    adata, report = take("a b.h5ad", sample_column="donor", sample_value="")
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), counts[[0, 2, 4]])
    assert list(adata.obs["input_donor"]) == ["S1"] * 3
    assert report["selected"] == "3 of 6 cells: donor = S1"
    two, _ = take("a b.h5ad", sample_column="donor", sample_value="S2")
    np.testing.assert_array_equal(two.layers["counts"].toarray(), counts[[1, 3]])
    assert take("a b.h5ad")[1]["selected"] == ""


def test_a_zarr_store_is_hashed_as_a_whole(take, tmp_path, counts):
    import anndata as ad

    path = tmp_path / "s.zarr"
    ad.AnnData(counts, obs=pd.DataFrame(index=list("abcdef")), var=pd.DataFrame(index=GENES)).write_zarr(path)
    _, report = take(path)
    assert report["sha256"] == {"s.zarr": sha256(path)}
    (path / "new").touch()
    assert report["sha256"] != {"s.zarr": sha256(path)}


def test_a_date_that_only_one_gene_gives_is_placed_and_counted(take, write_h5ad, counts):
    adata, report = take(write_h5ad(counts, genes=[*GENES[:5], "2-Sep", "1-Mar", "PTPRC"]))
    assert adata.var_names[5] == "SEPTIN2"
    assert list(adata.var["original_name"])[5:7] == ["2-Sep", "1-Mar"]
    assert (adata.var["chromosome"].iloc[5], adata.var["chromosome"].iloc[6]) == ("chr2", "")
    assert (report["n_mangled_names"], report["n_recovered_names"], report["n_renamed"]) == (2, 1, 1)
    assert any("2-Sep = SEPTIN2" in warning for warning in report["warnings"])
    assert any("MARCHF1 or MTARC1" in warning for warning in report["warnings"])


def test_an_ensembl_id_beside_a_mangled_name_says_which_gene_it_is(take, write_10x_folder, counts, positions):
    ids = dict(zip(positions["symbol"], positions["gene_id"], strict=True))
    folder = write_10x_folder(counts)
    symbols = [*GENES[:6], "MARCHF1", "MTARC1"]
    lines = "".join(
        f"{ids[symbol]}.2\t{'1-Mar' if symbol.startswith('M') and '-' not in symbol else symbol}\tGene Expression\n"
        for symbol in symbols
    )
    (folder / "features.tsv.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    adata, report = take(folder)
    assert list(adata.var_names[6:]) == ["MARCHF1", "MTARC1"]
    assert report["n_mangled_names"] == 0
    assert not any("spreadsheet" in warning for warning in report["warnings"])


def test_ensembl_ids_with_versions_are_placed(take, write_h5ad, counts, positions):
    ids = dict(zip(positions["symbol"], positions["gene_id"], strict=True))
    adata, report = take(write_h5ad(counts, genes=[f"{ids[name]}.{i + 1}" for i, name in enumerate(GENES)]))
    assert list(adata.var_names) == GENES
    assert report["fraction_placed"] == 1.0


def test_barcodes_that_a_spreadsheet_changed_are_told(take, write_h5ad, counts, tmp_path):
    path = write_h5ad(counts)
    with h5py.File(path, "a") as file:
        key = file["obs"].attrs["_index"]
        del file[f"obs/{key}"]
        file[f"obs/{key}"] = ["1.00E+11", "2.00E+11", "c", "d", "e", "f"]
        file[f"obs/{key}"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    assert any("2 barcodes were turned into numbers" in warning for warning in take(path)[1]["warnings"])


def test_a_xenograft_is_refused_with_the_numbers_of_its_genes(take, write_h5ad, positions):
    symbols = [str(name) for name in positions["symbol"] if str(name).isalpha() and len(str(name)) > 3][:60]
    values = np.random.default_rng(1).poisson(2, (6, 120)).astype(np.float32) + 1
    with pytest.raises(InputError, match="60 human genes and 60 mouse genes"):
        take(write_h5ad(values, genes=[*symbols, *(name.capitalize() for name in symbols)]))
    prefixed = [*(f"GRCh38_{name}" for name in symbols), *(f"mm10___{name.capitalize()}" for name in symbols)]
    with pytest.raises(InputError, match=r"GRCh38 \(60 genes\), mm10 \(60 genes\)"):
        take(write_h5ad(values, genes=prefixed))


def test_an_old_annotation_is_named(take, write_10x_h5, counts):
    _, report = take(write_10x_h5(counts, generation=3, genomes=["hg19"] * 8))
    assert any("annotated on hg19: superseded symbols are mapped" in warning for warning in report["warnings"])
