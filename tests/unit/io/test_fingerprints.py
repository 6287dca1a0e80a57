import numpy as np
import pytest
import scipy.sparse as sp

from dtcflow.contracts import read_table, write_table
from dtcflow.io import fingerprints
from dtcflow.io.fingerprints import barcode_sequence, cell_fingerprints, content_hashes

GENES = [f"G{i}" for i in range(200)]
COUNTS = np.random.default_rng(4).poisson(1.0, (6, 200)).astype(np.float32)
BARCODES = [f"AAACCTGAGAAACC{x}{y}-1" for x, y in ("AA", "AC", "AG", "AT", "CA", "CC")]


@pytest.mark.parametrize(
    ("barcode", "sequence"),
    [
        ("AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCAT"),
        ("S1_AAACCTGAGAAACCAT-1-2", "AAACCTGAGAAACCAT"),
        ("AAACCTGA_GGTTACGT", "AAACCTGA_GGTTACGT"),
        ("cell12", ""),
        ("A1", ""),
        ("", ""),
    ],
)
def test_the_sequence_of_a_barcode(barcode, sequence):
    assert barcode_sequence(barcode) == sequence


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_content_does_not_depend_on_storage_nor_on_the_order_of_genes(make):
    one = content_hashes(make(COUNTS), GENES)
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(one, content_hashes(make(COUNTS[:, order]), [GENES[i] for i in order]))
    stored_zero = sp.csr_matrix(COUNTS)
    stored_zero.data[0] = 0
    assert content_hashes(stored_zero, GENES)[0] == content_hashes(stored_zero.toarray(), GENES)[0]
    assert len(set(one.tolist())) == 6


def test_one_count_more_or_in_another_gene_is_another_cell():
    changed = COUNTS.copy()
    changed[0, 0] += 1
    moved = COUNTS.copy()
    moved[1, :2] = (5, 2)
    base_of_moved = COUNTS.copy()
    base_of_moved[1, :2] = (2, 5)
    base = content_hashes(COUNTS, GENES)
    assert (content_hashes(changed, GENES) != base).tolist() == [True, *[False] * 5]
    assert content_hashes(moved, GENES)[1] != content_hashes(base_of_moved, GENES)[1]


@pytest.mark.parametrize("n_cells", [0, 1, 2, 5])
def test_a_table_of_cells(tmp_path, n_cells):
    frame = cell_fingerprints(COUNTS[:n_cells], GENES, BARCODES[:n_cells])
    assert list(frame["n_counts"]) == COUNTS[:n_cells].sum(axis=1).astype(int).tolist()
    assert list(frame["n_genes"]) == (COUNTS[:n_cells] > 0).sum(axis=1).tolist()
    write_table(frame, tmp_path / "f.tsv.gz", "fingerprints")
    again = read_table(tmp_path / "f.tsv.gz", "fingerprints")
    assert list(again["content"]) == list(frame["content"])


def test_shallow_cells_have_no_content():
    shallow = COUNTS.copy()
    shallow[0, 49:] = 0
    shallow[0, :49] = 1
    assert cell_fingerprints(shallow, GENES, BARCODES)["content"].eq("").tolist() == [True, *[False] * 5]


def test_of_a_large_sample_the_same_barcodes_stay(monkeypatch):
    monkeypatch.setattr(fingerprints, "MAX_CELLS", 3)
    one = cell_fingerprints(COUNTS, GENES, BARCODES)
    other = cell_fingerprints(COUNTS[::-1], GENES, [f"x_{barcode}" for barcode in BARCODES[::-1]])
    assert len(one) == 3
    assert set(one["barcode"]) == set(other["barcode"])


def test_blocks_do_not_change_the_hash(monkeypatch):
    base = content_hashes(COUNTS, GENES)
    monkeypatch.setattr(fingerprints, "_BLOCK", 2)
    np.testing.assert_array_equal(base, content_hashes(COUNTS, GENES))
