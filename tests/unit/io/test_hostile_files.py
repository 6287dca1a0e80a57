"""Files made to fill the memory, to run code or to reach other files: each ends in one message, and soon."""

import gzip
import importlib.util
import json
import os
import random
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.contracts import InputError
from dtcflow.io import files
from dtcflow.io.readers import inspect_matrix, read_matrix
from dtcflow.io.stored import to_float32

spec = importlib.util.spec_from_file_location("writers", Path(__file__).with_name("writers.py"))
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)


def refused(path, *words, calls=(inspect_matrix, read_matrix), most=200e6, **options):
    for call in calls:
        tracemalloc.start()
        with pytest.raises(InputError) as caught:
            call(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        text = str(caught.value)
        assert len(caught.value.problems) == 1, text
        assert len(text.splitlines()) == 2, text
        for word in words:
            assert word in text, text
        assert peak < most, f"{peak / 1e6:,.0f} MB"


def bomb(path, start, middle, times):
    """A gzip file of ``start`` and 1 MiB of ``middle`` many times over, which packs a thousand to one."""
    block = (middle * (2**20 // len(middle) + 1))[: 2**20 // len(middle) * len(middle)]
    with gzip.open(path, "wb", compresslevel=9) as handle:
        handle.write(start)
        for _ in range(times):
            handle.write(block)
    return path


@pytest.fixture
def low_floor(monkeypatch):
    """A floor that a test can reach in a second."""
    monkeypatch.setattr(files, "FLOOR", 8 * 2**20)


# --- gzip that unpacks a thousandfold --------------------------------------------------------------------------------


def test_the_limit_as_it_ships(tmp_path):
    write.tenx_folder(tmp_path, write.counts_of())
    path = bomb(tmp_path / "barcodes.tsv.gz", b"", b"AAAC-1\n", 300)
    assert 300 * 2**20 > files.FLOOR > files.RATIO * path.stat().st_size
    refused(tmp_path, "unpacks to far more than it can hold", "256.0 MiB", "500 times", most=700e6)


@pytest.mark.usefixtures("low_floor")
@pytest.mark.parametrize(
    ("name", "start", "middle", "calls"),
    [
        ("rows.tsv.gz", b"x\tACTB\tEPCAM\n", b"c\t0\t0\n", [read_matrix]),
        ("header.csv.gz", b"x,ACTB", b",ACTB", [inspect_matrix, read_matrix]),
    ],
)
def test_tables_that_unpack_a_thousandfold(tmp_path, name, start, middle, calls):
    path = bomb(tmp_path / name, start, middle, 16)
    refused(path, "unpacks to far more than it can hold", "8.0 MiB", calls=calls)


@pytest.mark.usefixtures("low_floor")
@pytest.mark.parametrize("which", ["matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"])
def test_10x_folders_that_unpack_a_thousandfold(tmp_path, which):
    write.tenx_folder(tmp_path, write.counts_of())
    start = b"%%MatrixMarket matrix coordinate integer general\n8 6 48\n"
    bomb(tmp_path / which, start if which.startswith("matrix") else b"", b"1 1 1\n", 16)
    calls = [read_matrix] if which.startswith("matrix") else [inspect_matrix, read_matrix]
    refused(tmp_path, "unpacks to far more than it can hold", which, calls=calls)


def test_a_header_of_comments(tmp_path):
    write.tenx_folder(tmp_path, write.counts_of())
    bomb(tmp_path / "matrix.mtx.gz", b"%%MatrixMarket matrix coordinate integer general\n", b"%\n", 3)
    refused(tmp_path, "no sizes in the header")


def test_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 3 * 2**20)
    path = write.text(tmp_path / "t.csv", "x,ACTB" + ",0" * 2**21 + "\n")
    refused(path, "a line too long for a table", "3.0 MiB")


def test_what_packs_well_but_not_absurdly_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FLOOR", 1000)
    values = np.zeros((3000, 8), dtype=np.float32)
    values[:, 0] = np.random.default_rng(0).poisson(40, 3000)
    path = tmp_path / "t.csv.gz"
    write._table(values).to_csv(path)
    assert read_matrix(path).shape == (3000, 8)


# --- sizes that are announced but not there --------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [10**9, 10**15, 10**18])
@pytest.mark.parametrize("packed", [True, False])
def test_matrix_market_headers(tmp_path, entries, packed):
    write.tenx_folder(tmp_path, write.counts_of(), packed=packed)
    text = write.mtx(write.counts_of()).splitlines()
    head = [*text[:2], f"8 6 {entries}", *text[3:]]
    write.text(tmp_path / f"matrix.mtx{'.gz' if packed else ''}", write.lines(head), packed=packed)
    refused(tmp_path, "entries announced" if entries < 10**15 else "no sizes in the header")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("matrix coordinate integer general\n99999999999 6 3", "a matrix too large to be read"),
        ("matrix array integer general\n99999 99999", "a dense Matrix Market file too large"),
        ("matrix coordinate integer symmetric\n8 6 3", "a symmetric matrix"),
        ("matrix coordinate complex general\n8 6 3", "complex numbers"),
        ("matrix coordinate integer general\n8 -6 3", "no sizes in the header"),
        ("vector\n8 6 3", "not a Matrix Market file"),
    ],
)
def test_odd_matrix_market_headers(tmp_path, head, words):
    write.tenx_folder(tmp_path, write.counts_of(), packed=False)
    write.text(tmp_path / "matrix.mtx", f"%%MatrixMarket {head}\n1 1 1\n1 2 1\n1 3 1\n")
    refused(tmp_path, words)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["9 1 1"], "a row outside of 1 to 8"),
        (["0 1 1"], "a row outside of 1 to 8"),
        (["1 7 1"], "a column outside of 1 to 6"),
        (["1 1 x"], "an entry that cannot be read"),
        (["1 x 1"], "an entry that cannot be read"),
        (["1 1"], "an entry that cannot be read"),
        (["1 1 1", "1 2 1 4"], "an entry that cannot be read"),
        (["99999999999999999999 1 1"], "an entry that cannot be read"),
        ([], "0 of 1 entries"),
        (["1 1 1", "1 2 1"], "more than the 1 entries"),
    ],
)
def test_odd_matrix_market_entries(tmp_path, lines, words):
    write.tenx_folder(tmp_path, write.counts_of(), packed=False)
    head = ["%%MatrixMarket matrix coordinate real general", f"8 6 {2 if '4' in ''.join(lines) else 1}"]
    write.text(tmp_path / "matrix.mtx", write.lines([*head, *lines, *["%"] * 9]))
    refused(tmp_path, words, calls=[read_matrix])


def test_nan_in_a_matrix_market_file(tmp_path):
    write.tenx_folder(tmp_path, write.counts_of(), packed=False)
    write.text(tmp_path / "matrix.mtx", "%%MatrixMarket matrix coordinate real general\n8 6 2\n1 1 1\n1 2 nan\n")
    refused(tmp_path, "an entry that cannot be read", "column 2", calls=[read_matrix])


@pytest.fixture
def changed(tmp_path):
    """Write a sparse .h5ad, 10x .h5 or dense .h5ad and change it as a damaged or hostile file would be."""

    def change(kind, **entries):
        values = write.counts_of()
        path = write.tenx_h5(tmp_path, values) if kind == "10x" else write.h5ad(tmp_path, values)
        with h5py.File(path, "a") as file:
            group = file["matrix" if kind == "10x" else "X"]
            for name, make in entries.items():
                attributes = dict(group[name].attrs) if name in group else {}
                if name in group:
                    del group[name]
                make(group, name)
                if name in group:
                    group[name].attrs.update(attributes)
        return path

    return change


def unwritten(size, dtype="i4"):
    """An array of which only the header exists."""
    return lambda group, name: group.create_dataset(name, shape=(size,), dtype=dtype, chunks=(2**20,))


def holding(values):
    return lambda group, name: group.create_dataset(name, data=values)


@pytest.mark.parametrize("kind", ["h5ad", "10x"])
@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"data": unwritten(10**12), "indices": unwritten(10**12)}, "the announced size is not in the file"),
        ({"indptr": unwritten(10**11, "i8")}, "the announced size is not in the file"),
        ({"indptr": holding(np.zeros(3, dtype=int))}, "indptr of 3 entries for 6 rows or columns"),
        ({"data": holding(np.ones(5))}, "5 values"),
        ({"data": holding(np.ones((48, 1)))}, "not one-dimensional"),
        ({"data": holding(np.array([b"1"] * 48))}, "does not hold numbers"),
        ({"data": holding(np.ones(48, dtype=complex))}, "does not hold numbers"),
        ({"indices": holding(np.ones(48))}, "does not hold numbers"),
    ],
)
def test_sparse_headers_that_lie(changed, kind, entries, words):
    refused(changed(kind, **entries), words)


@pytest.mark.parametrize("kind", ["h5ad", "10x"])
def test_values_of_any_length_are_never_read(changed, kind):
    def ragged(group, name):
        group.create_dataset(name, shape=(48,), dtype=h5py.vlen_dtype(np.int32))

    def texts(group, name):
        group.create_dataset(name, data=["1"] * 48, dtype=h5py.string_dtype())

    def references(group, name):
        group.create_dataset(name, data=[group.ref] * 48, dtype=h5py.ref_dtype)

    for make in (ragged, texts, references):
        refused(changed(kind, data=make), "does not hold numbers")


@pytest.mark.parametrize("kind", ["h5ad", "10x"])
@pytest.mark.parametrize("pointers", [[1, 2, 3, 4, 5, 6, 48], [0, 9, 3, 9, 9, 9, 48], [0, 1, 2, 3, 4, 5, 47]])
def test_pointers_that_do_not_rise(changed, kind, pointers):
    size = sp.csr_matrix(write.counts_of()).nnz
    pointers = [*pointers[:-1], pointers[-1] + size - 48]
    refused(changed(kind, indptr=holding(np.array(pointers))), "does not rise from 0", calls=[read_matrix])


def test_a_shape_of_a_sparse_matrix_that_is_not_its_own(changed):
    for shape in ([10**12, 8], [-6, 8], [6, 9], [2**62, 2**62]):
        path = changed("h5ad")
        with h5py.File(path, "a") as file:
            file["X"].attrs["shape"] = shape
        refused(path, "a shape of" if shape != [6, 9] else "6 x 9, 6 cells, 8 genes", calls=[inspect_matrix])
        refused(path, "matrix and names do not fit", calls=[read_matrix])


def test_a_dense_matrix_that_is_not_there(tmp_path):
    path = write.h5ad(tmp_path, write.counts_of())
    with h5py.File(path, "a") as file:
        for key in ("X", "obs/_index"):
            del file[key]
        file.create_dataset("X", shape=(10**9, 8), dtype="f4", chunks=(2**20, 8))
        file.create_dataset("obs/_index", shape=(10**9,), dtype="S9", chunks=(2**20,))
        file["obs/_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    refused(
        path, "the announced size is not in the file", "X: 29.8 GiB announced, 0 bytes stored", calls=[inspect_matrix]
    )
    refused(path, "the announced size is not in the file", calls=[read_matrix])


def test_a_column_of_cells_that_is_not_there(tmp_path):
    path = write.h5ad(tmp_path, write.counts_of())
    with h5py.File(path, "a") as file:
        file.create_dataset("obs/big", shape=(10**12,), dtype="f8", chunks=(2**20,))
    refused(path, "the announced size is not in the file", "obs/big", calls=[read_matrix])


def test_a_loom_file_that_announces_more_than_it_holds(tmp_path):
    path = write.loom(tmp_path, write.counts_of())
    with h5py.File(path, "a") as file:
        del file["matrix"]
        file.create_dataset("matrix", shape=(8, 10**9), dtype="f4", chunks=(8, 2**20))
    refused(path, "the announced size is not in the file", calls=[inspect_matrix])
    refused(path, "no names of cells", calls=[read_matrix])


def test_a_zarr_store_that_announces_more_than_it_holds(tmp_path):
    path = write.zarr_3(tmp_path, write.counts_of())
    for name in ("data", "indices"):
        metadata = path / "X" / name / "zarr.json"
        text = json.loads(metadata.read_text())
        text["shape"] = [10**13]
        metadata.write_text(json.dumps(text))
    refused(path, "the announced size is not in the file")


def test_a_zarr_store_that_lacks_chunks(tmp_path):
    path = write.zarr_2(tmp_path, write.counts_of(20))
    (path / "X" / "data" / "0").unlink()
    refused(path, "the zarr store is not complete", "1 of 1 chunks of X/data")
    path = write.zarr_3(tmp_path / "second", write.counts_of(20))
    shutil.rmtree(path / "X" / "indices" / "c")
    refused(path, "the zarr store is not complete", "X/indices")


def test_damaged_zarr_stores(tmp_path):
    path = write.zarr_2(tmp_path, write.counts_of())
    chunk = path / "X" / "data" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    refused(path, "truncated or damaged zarr store", "X/data/0")
    (path / "X" / "data" / ".zarray").write_text("{")
    refused(path, "cannot be read")
    (path / ".zgroup").write_text("no json")
    refused(path, "the zarr store cannot be read")


# --- code and other files --------------------------------------------------------------------------------------------


def test_objects_in_a_zarr_store_are_never_unpickled(tmp_path):
    store = write.pickled_zarr(tmp_path)
    refused(store, "cannot be read", "pickle", calls=[read_matrix])
    refused(store, "cannot be read", "pickle", sample_column="note", sample_value="x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pickle", "numcodecs.pickle", "my_codec"])
def test_unknown_codecs_of_zarr(tmp_path, name):
    path = write.zarr_3(tmp_path, write.counts_of())
    metadata = path / "X" / "data" / "zarr.json"
    text = json.loads(metadata.read_text())
    text["codecs"] = [*text["codecs"], {"name": name, "configuration": {}}]
    metadata.write_text(json.dumps(text))
    refused(path, "cannot be read", name)


def test_the_guard_names_a_pickle_codec():
    from dtcflow.io.stored import guard

    class Metadata:
        def to_dict(self):
            return {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}], "compressor": None}

    class Array:
        metadata, path = Metadata(), "obs/note"

    with pytest.raises(InputError, match="never opened"):
        guard(Array(), Path("s.zarr"))


def test_a_pandas_store_is_never_opened(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file.create_group("df").attrs["pandas_type"] = "frame"
    refused(tmp_path / "p.h5", "can hold Python pickles")


def test_values_in_another_file(tmp_path):
    other = write.h5ad(tmp_path, write.counts_of())
    other = other.rename(tmp_path / "other.h5ad")
    path = write.h5ad(tmp_path, write.counts_of())
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(other), "X")
    refused(path, "values that lie in another file")
    raw = tmp_path / "secret.bin"
    raw.write_bytes(np.ones(48, dtype="f4").tobytes())
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", shape=(6, 8), dtype="f4", external=[(str(raw), 0, 192)])
    refused(path, "values that lie in another file")
    layout = h5py.VirtualLayout(shape=(6, 8), dtype="f4")
    layout[:] = h5py.VirtualSource(str(other), "X/data", shape=(6, 8))
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_virtual_dataset("X", layout)
    refused(path, "values that lie in another file")


def test_a_cell_table_that_holds_itself(tmp_path):
    path = write.h5ad(tmp_path, write.counts_of())
    with h5py.File(path, "a") as file:
        file["obs/again"] = file["obs"]
    refused(path, "nested too deep", calls=[read_matrix])


# --- paths -----------------------------------------------------------------------------------------------------------


def test_loops_of_links(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refused(tmp_path / "a", "a loop of symbolic links")
    inner = write.tenx_folder(tmp_path, write.counts_of())
    (inner / "barcodes.tsv.gz").unlink()
    (inner / "barcodes.tsv.gz").symlink_to(inner / "barcodes.tsv.gz")
    refused(inner, "no barcodes file")


def test_a_folder_of_links_to_itself_is_walked_once(tmp_path):
    (tmp_path / "here").symlink_to(tmp_path, target_is_directory=True)
    refused(tmp_path, "no matrix in this folder", "here")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_may_not_be_read(tmp_path, kind, monkeypatch):
    path = write.csv(tmp_path, write.counts_of()) if kind == "file" else tmp_path
    owner = "open" if kind == "file" else "iterdir"

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    # the tests may run as root, whom no mode bit stops
    monkeypatch.setattr(Path, owner, denied)
    refused(path, "no readable input", "permission denied")


def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    write.tenx_folder(tmp_path, write.counts_of(), packed=False)
    (tmp_path / "features.tsv").unlink()
    os.mkfifo(tmp_path / "features.tsv")
    refused(tmp_path, "no features file")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.zarr.zip", b"PK\x03\x04....", "a packed zarr store"),
        ("old.xls", b"\xd0\xcf\x11\xe0....", "an old Excel file"),
        ("m.tar", b"m" * 257 + b"ustar\0", "a tar archive"),
        ("m.tar.gz", gzip.compress(b"m" * 257 + b"ustar\0", mtime=0), "a tar archive"),
        ("m.csv.gz", gzip.compress(gzip.compress(b"x,ACTB\n", mtime=0), mtime=0), "the format is not known"),
    ],
)
def test_other_containers(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_an_h5seurat_file(tmp_path):
    with h5py.File(tmp_path / "s.h5seurat", "w") as file:
        file.create_group("assays")
        file["cell.names"] = ["a"]
    refused(tmp_path / "s.h5seurat", "h5Seurat")


# --- damage at random ------------------------------------------------------------------------------------------------


def damaged(content, how, chance):
    """Cut, overwrite, insert or delete bytes at a random place."""
    content = bytearray(content)
    at = chance.randrange(len(content))
    if how == "cut":
        return bytes(content[:at])
    new = bytes(chance.randrange(256) for _ in range(4))
    stop = {"overwrite": at + 4, "insert": at, "delete": at + chance.randrange(1, 20)}[how]
    content[at:stop] = b"" if how == "delete" else new
    return bytes(content)


@pytest.mark.parametrize("name", write.WRITERS)
@pytest.mark.parametrize("how", ["cut", "overwrite", "insert", "delete"])
def test_damage_is_told_or_harmless(tmp_path, name, how):
    path = write.WRITERS[name][0](tmp_path, write.counts_of())
    chance = random.Random(f"{name} {how}")
    parts = sorted(part for part in tmp_path.rglob("*") if part.is_file() and part.stat().st_size)
    for _ in range(4):
        part = chance.choice(parts)
        whole = part.read_bytes()
        part.write_bytes(damaged(whole, how, chance))
        for call in (inspect_matrix, read_matrix):
            try:
                call(path)
            except InputError as error:
                assert len(str(error).splitlines()) == 2, str(error)  # noqa: PT017
        part.write_bytes(whole)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_float32_hides_nothing():
    values = np.array([0, 1, 2**24, 2**24 + 1, 1e300, -1e300, np.inf, -np.inf, np.nan])
    found = to_float32(values)
    assert list(found[:3]) == [0, 1, 2**24]
    assert found[3] > 2**24
    assert np.isfinite(found[3:6]).all()
    assert list(np.isinf(found[6:8])) == [True, True]
    assert np.isnan(found[8])
    assert to_float32(np.array([2**63], dtype=np.uint64))[0] == np.float32(2**63)


@pytest.mark.parametrize("name", ["h5ad", "loom", "10x folder", "csv", "zarr 2, CSR"])
@pytest.mark.parametrize(("value", "words"), [(2**24 + 1, "more than a cell's RNA"), (np.nan, "NaN"), (-1, "negative")])
def test_numbers_that_are_no_counts(tmp_path, name, value, words, monkeypatch):
    values = write.counts_of().astype(np.float64)
    values[4, 2] = value
    monkeypatch.setattr(write, "_table", lambda v: __import__("pandas").DataFrame(
        v.astype(object), index=write.names_of(v), columns=write.GENES))  # fmt: skip
    monkeypatch.setattr(write, "mtx", lambda v, **_: _precise(v))
    path = write.WRITERS[name][0](tmp_path, values)
    with pytest.raises(InputError) as caught:
        read_matrix(path)
    assert words in str(caught.value) or (value != value and "number" in str(caught.value)), str(caught.value)


def _precise(values):
    matrix = sp.coo_matrix(values.T)
    lines = [f"{r + 1} {c + 1} {v:.17g}" for r, c, v in zip(matrix.row, matrix.col, matrix.data, strict=True)]
    return write.lines(["%%MatrixMarket matrix coordinate real general", f"8 6 {matrix.nnz}", *lines])
