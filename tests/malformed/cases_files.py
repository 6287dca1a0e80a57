"""Files, folders and HDF5 containers that are not what they should be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import sqlite3
import tarfile
import zipfile

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from cases import GENES, Register, Study, h5ad_bytes, sound, table

CASES = Register()
case = CASES.case


# ---------------------------------------------------------------------------------------------------------------------
# A path, and what lies there
# ---------------------------------------------------------------------------------------------------------------------


@case("bad_one.h5ad", "no such file")
def path_leads_nowhere(study: Study) -> None:
    study.rows[0][3] = "bad_one.h5ad"


@case("../../nowhere/bad.h5ad", "no such file")
def path_climbs_out_to_nowhere(study: Study) -> None:
    study.rows[0][3] = "../../nowhere/bad.h5ad"


@case("loop", "symbolic links")
def path_is_a_loop_of_links(study: Study) -> None:
    (study.folder / "loop").symlink_to("pool")
    (study.folder / "pool").symlink_to("loop")
    study.rows[0][3] = "loop"


@case("tenx", "symbolic links")
def folder_whose_matrix_is_a_loop_of_links(study: Study) -> None:
    tenx(study)
    (study.folder / "tenx" / "matrix.mtx").unlink()
    (study.folder / "tenx" / "matrix.mtx").symlink_to("matrix.mtx")


@case("gone", "no such file")
def path_is_a_dangling_link(study: Study) -> None:
    (study.folder / "gone.h5ad").symlink_to("nothing.h5ad")
    study.rows[0][3] = "gone.h5ad"


@case("pipe", "not a regular file")
def path_is_a_named_pipe(study: Study) -> None:
    os.mkfifo(study.folder / "pipe")
    study.rows[0][3] = "pipe"


@case("/dev/zero", "not a regular file")
def path_is_an_endless_device(study: Study) -> None:
    study.rows[0][3] = "/dev/zero"


@case("empty folder")
def folder_is_empty(study: Study) -> None:
    (study.folder / "empty").mkdir()
    study.rows[0][3] = "empty"


@case("notes.txt")
def folder_holds_no_matrix(study: Study) -> None:
    study.put("run/notes.txt", "see the other disk")
    study.rows[0][3] = "run"


@case("0 bytes")
def file_is_empty(study: Study) -> None:
    study.put("bad.h5ad", b"")


@case("0 bytes after unpacking")
def packed_file_is_empty(study: Study) -> None:
    study.put("bad.csv.gz", b"", packed=True)


# ---------------------------------------------------------------------------------------------------------------------
# Something else under the name of a matrix
# ---------------------------------------------------------------------------------------------------------------------

PAGE = "<!DOCTYPE html><html><body>404 Not Found</body></html>"


@case("not such a file", "text starting with")
def web_page_named_h5ad(study: Study) -> None:
    study.put("bad.h5ad", PAGE)


@case("HTML or XML")
def web_page_named_csv(study: Study) -> None:
    study.put("bad.csv", PAGE)


@case("without rows")
def sentence_named_csv(study: Study) -> None:
    study.put("bad.csv", "the matrix was moved to the archive\n")


@case("not")
def json_named_csv(study: Study) -> None:
    study.put("bad.csv", '{"counts": [[1, 2], [3, 4]], "genes": ["ACTB", "GAPDH"]}\n')


@case("binary data")
def picture_named_h5(study: Study) -> None:
    study.put("bad.h5", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100))


@case("binary data")
def database_named_tsv(study: Study) -> None:
    path = study.folder / "bad.tsv"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE counts (gene TEXT, n INTEGER)")
    study.rows[0][3] = "bad.tsv"


@case("zip archive")
def spreadsheet_named_csv(study: Study) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    study.put("bad.csv", buffer.getvalue())


@case("zip archive")
def npz_with_objects(study: Study) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, counts=np.array([Bomb(study)], dtype=object))
    study.put("bad.npz", buffer.getvalue())


@case("numpy array")
def npy_with_objects(study: Study) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(study)], dtype=object), allow_pickle=True)
    study.put("bad.npy", buffer.getvalue())


class Bomb:
    """Leaves a mark in the study's folder when it is unpickled."""

    def __init__(self, study: Study) -> None:
        self.mark = str(study.folder / "unpickled")

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@case("pickle", "never opened")
def pickle_named_h5ad(study: Study) -> None:
    study.put("bad.h5ad", pickle.dumps(Bomb(study), protocol=4))


@case("pickle", "never opened")
def packed_pickle(study: Study) -> None:
    study.put("bad.pkl.gz", pickle.dumps(Bomb(study), protocol=2), packed=True)


@case("not")
def pickle_of_the_first_protocol(study: Study) -> None:
    study.put("bad.csv", pickle.dumps(Bomb(study), protocol=0))


@case("R data file")
def r_object(study: Study) -> None:
    study.put("bad.rds", b"X\n\0\0\0\x03\0\x04\x02\0" + bytes(40), packed=True)


@case("R data file")
def r_workspace(study: Study) -> None:
    study.put("bad.RData", b"RDX3\nX\n\0\0\0\x03" + bytes(40), packed=True)


@case("bzip2")
def bzip2_table(study: Study) -> None:
    study.put("bad.csv", bz2.compress(table().encode()))


@case("xz file")
def xz_table(study: Study) -> None:
    study.put("bad.csv", lzma.compress(table().encode()))


@case("zstd")
def zstd_table(study: Study) -> None:
    study.put("bad.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(60))


@case("tar archive")
def tar_named_csv(study: Study) -> None:
    study.put("bad.csv", _tar())


@case("tar archive")
def packed_tar(study: Study) -> None:
    study.put("GSE1_RAW.tar.gz", _tar(), packed=True)


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("sample/matrix.mtx")
        info.size = 10
        archive.addfile(info, io.BytesIO(b"0123456789"))
    return buffer.getvalue()


@case("Parquet")
def parquet_table(study: Study) -> None:
    study.put("bad.parquet", b"PAR1" + bytes(60) + b"PAR1")


@case("UTF-16")
def table_in_utf16(study: Study) -> None:
    study.put("bad.csv", table().encode("utf-16"))


# ---------------------------------------------------------------------------------------------------------------------
# gzip
# ---------------------------------------------------------------------------------------------------------------------


@case("ends too early")
def gzip_cut_in_its_header(study: Study) -> None:
    study.put("bad.csv.gz", gzip.compress(table().encode(), mtime=0)[:30])


@case("ends too early", read=True)
def gzip_cut_near_its_end(study: Study) -> None:
    rng = np.random.default_rng(1)
    rows = "\n".join(f"cell{i}," + ",".join(map(str, rng.integers(0, 9, 60))) for i in range(3000))
    packed = gzip.compress(f"cell,{','.join(GENES)}\n{rows}\n".encode(), mtime=0)
    study.put("bad.csv.gz", packed[:-2000])


@case("damaged gzip")
def gzip_with_a_flipped_byte(study: Study) -> None:
    packed = bytearray(gzip.compress(table().encode(), mtime=0))
    packed[200] ^= 0xFF
    study.put("bad.csv.gz", bytes(packed))


@case("500 times", read=True)
def gzip_that_inflates_a_thousandfold(study: Study) -> None:
    block = 100 * (b"c," + b",".join([b"0" * 2_000] * 60) + b"\n")
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        packed.write(f"cell,{','.join(GENES)}\n".encode())
        for _ in range(25):
            packed.write(block)
    study.put("bad.csv.gz", buffer.getvalue())


@case("inside gzip")
def packed_h5ad(study: Study) -> None:
    study.put("bad.h5ad.gz", h5ad_bytes(sound()), packed=True)


# ---------------------------------------------------------------------------------------------------------------------
# 10x folders and Matrix Market
# ---------------------------------------------------------------------------------------------------------------------


def tenx(study: Study, **changes: str | None) -> None:
    """Write a 10x folder; ``changes`` replace the text of ``matrix``, ``features`` or ``barcodes`` (None: no file)."""
    adata = sound()
    entries = sp.coo_matrix(adata.X.T)
    lines = [f"{i + 1} {j + 1} {int(v)}" for i, j, v in zip(entries.row, entries.col, entries.data, strict=True)]
    head = "%%MatrixMarket matrix coordinate integer general\n"
    files = {
        "matrix": head + f"{adata.n_vars} {adata.n_obs} {entries.nnz}\n" + "\n".join(lines) + "\n",
        "features": "".join(f"ENSG{i:011d}\t{g}\tGene Expression\n" for i, g in enumerate(GENES, 1)),
        "barcodes": "".join(f"{name}\n" for name in adata.obs_names),
    }
    for key, change in changes.items():
        files[key] = change(files[key]) if callable(change) else change
    for key, name in (("matrix", "matrix.mtx"), ("features", "features.tsv"), ("barcodes", "barcodes.tsv")):
        if files[key] is not None:
            study.put(f"tenx/{name}", files[key])
    study.rows[0][3] = "tenx"


@case("features")
def folder_without_features(study: Study) -> None:
    tenx(study, features=None)


@case("barcodes")
def folder_without_barcodes(study: Study) -> None:
    tenx(study, barcodes=None)


@case("59 features", read=True)
def folder_with_a_feature_too_few(study: Study) -> None:
    tenx(study, features=lambda text: text[: text.rstrip("\n").rindex("\n") + 1])


@case("25 barcodes", read=True)
def folder_with_a_barcode_too_many(study: Study) -> None:
    tenx(study, barcodes=lambda text: text + "TTTT-1\n")


@case("repeated barcodes", "more than once", read=True)
def folder_with_a_barcode_twice(study: Study) -> None:
    tenx(study, barcodes=lambda text: "\n".join([text.split("\n")[1], *text.split("\n")[1:]]))


@case("without a name", "gene 3", read=True)
def folder_with_an_unnamed_gene(study: Study) -> None:
    tenx(study, features=lambda text: text.replace("ENSG00000000003\tB2M", "\t"))


@case("whole numbers", "negative", read=True)
def matrix_market_with_a_negative_value(study: Study) -> None:
    tenx(study, matrix=lambda text: text[:-1].rsplit(" ", 1)[0] + " -3\n")


@case("30 human genes and 30 mouse genes")
def folder_of_two_species(study: Study) -> None:
    mixed = "".join(f"x\t{'GRCh38' if i % 2 else 'mm10'}_{g}\tGene Expression\n" for i, g in enumerate(GENES))
    tenx(study, features=mixed)


@case("Antibody Capture", read=True)
def folder_of_antibodies_alone(study: Study) -> None:
    tenx(study, features=lambda text: text.replace("Gene Expression", "Antibody Capture"))


@case("%%MatrixMarket")
def matrix_market_without_its_first_line(study: Study) -> None:
    tenx(study, matrix=lambda text: text.split("\n", 1)[1])


@case("rows, columns and entries")
def matrix_market_without_sizes(study: Study) -> None:
    tenx(study, matrix="%%MatrixMarket matrix coordinate integer general\n%\nsixty twentyfour many\n")


@case("announced")
def matrix_market_that_announces_the_moon(study: Study) -> None:
    tenx(study, matrix="%%MatrixMarket matrix coordinate integer general\n60 24 99999999999\n1 1 1\n")


@case("truncated", "announced", read=True)
def matrix_market_that_ends_early(study: Study) -> None:
    tenx(study, matrix=lambda text: text[: len(text) // 2])


@case("damaged", read=True)
def matrix_market_with_a_row_that_is_not_there(study: Study) -> None:
    tenx(study, matrix=lambda text: text[:-1].rsplit("\n", 1)[0] + "\n61 1 4\n")


@case("damaged", read=True)
def matrix_market_that_counts_from_zero(study: Study) -> None:
    tenx(study, matrix=lambda text: text[:-1].rsplit("\n", 1)[0] + "\n0 0 4\n")


@case("damaged", read=True)
def matrix_market_with_words_for_numbers(study: Study) -> None:
    tenx(study, matrix=lambda text: text[:-1].rsplit(" ", 1)[0] + " many\n")


@case("complex", read=True)
def matrix_market_of_complex_numbers(study: Study) -> None:
    text = "%%MatrixMarket matrix coordinate complex general\n60 24 2\n1 1 1.0 2.0\n2 2 1.0 0.5\n"
    tenx(study, matrix=text)


@case("several matrices")
def folder_of_many_samples(study: Study) -> None:
    tenx(study)
    for name in ("GSM1_", "GSM2_"):
        for file in ("matrix.mtx", "features.tsv", "barcodes.tsv"):
            study.put(f"many/{name}{file}", (study.folder / "tenx" / file).read_bytes())
    study.rows[0][3] = "many"


# ---------------------------------------------------------------------------------------------------------------------
# HDF5
# ---------------------------------------------------------------------------------------------------------------------


def hdf5(study: Study, name: str = "bad.h5ad") -> h5py.File:
    """An HDF5 file that the caller fills and closes; the first sample's matrix."""
    study.rows[0][3] = name
    return h5py.File(study.folder / name, "w")


def edited(study: Study) -> h5py.File:
    """A sound .h5ad, open for damage."""
    path = study.put("bad.h5ad", h5ad_bytes(sound()))
    return h5py.File(path, "r+")


@case("ends too early")
def h5ad_cut_in_half(study: Study) -> None:
    content = h5ad_bytes(sound())
    study.put("bad.h5ad", content[: len(content) // 2])


@case("damaged")
def h5ad_with_a_torn_superblock(study: Study) -> None:
    content = bytearray(h5ad_bytes(sound()))
    content[8:40] = bytes(32)
    study.put("bad.h5ad", bytes(content))


@case("no count matrix")
def hdf5_of_something_else(study: Study) -> None:
    with hdf5(study, "bad.h5") as file:
        file["weights"] = np.ones(5)


@case("(none)")
def hdf5_without_anything(study: Study) -> None:
    hdf5(study).close()


@case("no matrix in the file")
def h5ad_without_a_matrix(study: Study) -> None:
    with edited(study) as file:
        del file["X"]
        del file["layers"]


@case("no count matrix")
def h5ad_without_cells(study: Study) -> None:
    with edited(study) as file:
        del file["obs"]


@case("MuData", "rna")
def mudata_file(study: Study) -> None:
    with hdf5(study, "bad.h5mu") as file:
        for name in ("rna", "adt"):
            file.create_group(f"mod/{name}")


@case("do not fit", read=True)
def h5ad_with_an_index_out_of_range(study: Study) -> None:
    with edited(study) as file:
        file["X/indices"][0] = 4_000


@case("do not fit", read=True)
def h5ad_with_falling_pointers(study: Study) -> None:
    with edited(study) as file:
        file["X/indptr"][3] = 10_000


@case("do not fit", read=True)
def h5ad_with_missing_values(study: Study) -> None:
    with edited(study) as file:
        values = file["X/data"][:-40]
        del file["X/data"]
        file["X/data"] = values


@case("24 cells", read=True)
def h5ad_whose_matrix_lost_a_cell(study: Study) -> None:
    with edited(study) as file:
        file["X"].attrs["shape"] = np.array([23, 60])
        pointers = file["X/indptr"][:-1]
        end = int(pointers[-1])
        for name, values in (
            ("indptr", pointers),
            ("data", file["X/data"][:end]),
            ("indices", file["X/indices"][:end]),
        ):
            del file["X"][name]
            file["X"][name] = values


@case("bad.h5ad", read=True)
def h5ad_that_announces_the_moon(study: Study) -> None:
    with edited(study) as file:
        file["X"].attrs["shape"] = np.array([10**15, 10**12])


@case("numbers", read=True)
def h5ad_of_words(study: Study) -> None:
    with edited(study) as file:
        del file["X"]
        file["X"] = np.array([["many"] * 60] * 24, dtype="S4")


@case("numbers", read=True)
def h5ad_of_opaque_objects(study: Study) -> None:
    with edited(study) as file:
        del file["X/data"]
        blob = pickle.dumps(Bomb(study), protocol=4)
        file["X/data"] = np.array([np.void(blob)] * int(file["X/indptr"][-1]))


@case("bad.h5ad", read=True)
def h5ad_with_a_pickle_in_its_cell_table(study: Study) -> None:
    with edited(study) as file:
        del file["obs/_index"]
        file["obs/_index"] = np.array([np.void(pickle.dumps(Bomb(study), protocol=4))] * 24)


@case("bad.h5ad", read=True)
def h5ad_that_links_to_another_file(study: Study) -> None:
    with edited(study) as file:
        del file["X"]
        file["X"] = h5py.ExternalLink("/etc/hostname", "/X")


@case("bad.h5ad", read=True)
def h5ad_whose_links_run_in_a_circle(study: Study) -> None:
    with edited(study) as file:
        for name in ("X", "raw"):
            if name in file:
                del file[name]
        file["X"] = h5py.SoftLink("/raw")
        file["raw"] = h5py.SoftLink("/X")


@case("matrix", read=True)
def h5ad_of_three_dimensions(study: Study) -> None:
    with edited(study) as file:
        del file["X"]
        file["X"] = np.ones((24, 60, 2))


@case("no layer 'spliced'", "X")
def h5ad_without_the_layer_asked_for(study: Study) -> None:
    study.put("bad.h5ad", h5ad_bytes(sound()))
    study.put("good.h5ad", h5ad_bytes(_with_layer()))
    study.rows[0][3], study.rows[1][3] = "bad.h5ad", "good.h5ad"
    study.settings["intake"] = {"layer": "spliced"}


def _with_layer() -> ad.AnnData:
    adata = sound()
    adata.layers["spliced"] = adata.X.copy()
    return adata


def tenx_h5(study: Study, **changes: object) -> None:
    """Write a 10x .h5; ``changes`` replace its arrays (None: leave out)."""
    adata = sound()
    matrix = sp.csr_matrix(adata.X)
    arrays: dict[str, object] = {
        "data": matrix.data.astype(np.int32),
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "shape": np.array([60, 24]),
        "barcodes": np.array(list(adata.obs_names), dtype="S"),
        "features/id": np.array([f"ENSG{i:011d}" for i in range(60)], dtype="S"),
        "features/name": np.array(GENES, dtype="S"),
        "features/feature_type": np.array(["Gene Expression"] * 60, dtype="S"),
        "features/genome": np.array(["GRCh38"] * 60, dtype="S"),
    }
    with hdf5(study, "bad.h5") as file:
        for name, values in (arrays | changes).items():
            if values is not None:
                file[f"matrix/{name}"] = values


@case("bad.h5", read=True)
def tenx_h5_without_values(study: Study) -> None:
    tenx_h5(study, data=None)


@case("23 barcodes", read=True)
def tenx_h5_with_a_barcode_too_few(study: Study) -> None:
    tenx_h5(study, barcodes=np.array([f"c{i}" for i in range(23)], dtype="S"))


@case("do not fit", read=True)
def tenx_h5_with_an_index_out_of_range(study: Study) -> None:
    tenx_h5(study, indices=np.full(sp.csr_matrix(sound().X).nnz, 77))


@case("numbers", read=True)
def tenx_h5_of_words(study: Study) -> None:
    tenx_h5(study, data=np.array([b"many"] * sp.csr_matrix(sound().X).nnz))


@case("GRCh38", "mm10", "one human genome", read=True)
def tenx_h5_of_two_species(study: Study) -> None:
    tenx_h5(study, **{"features/genome": np.array(["GRCh38"] * 30 + ["mm10"] * 30, dtype="S")})


@case("GRCh38", "mm10")
def tenx_h5_of_two_genomes_of_the_second_generation(study: Study) -> None:
    with hdf5(study, "bad.h5") as file:
        for genome in ("GRCh38", "mm10"):
            for name in ("data", "indices", "indptr", "genes", "barcodes"):
                file[f"{genome}/{name}"] = np.zeros(1)


@case("more than once", read=True)
def h5ad_with_a_barcode_twice(study: Study) -> None:
    adata = sound()
    adata.obs_names = pd.Index([adata.obs_names[1], *adata.obs_names[1:]])
    study.put("bad.h5ad", h5ad_bytes(adata))
