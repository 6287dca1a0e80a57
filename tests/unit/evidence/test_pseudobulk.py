import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import write_table
from dtcflow.evidence import pseudobulk as pb
from dtcflow.scores.signatures import GeneSet


def tiny():
    """Two patients with both compartments, one without primary cells; three genes."""
    rows = [
        ("A", "marrow", 3),
        ("A", "primary", 4),
        ("B", "marrow", 3),
        ("B", "primary", 3),
        ("C", "marrow", 9),
        ("C", "primary", 2),
    ]
    cells = pd.DataFrame(
        [
            {"cell_id": f"{p}{c}{i}", "patient_id": p, "compartment": c, "malignant_call": "malignant"}
            for p, c, n in rows
            for i in range(n)
        ]
    )
    counts = np.tile([1, 0, 2], (len(cells), 1)).astype(np.float32)
    adata = ad.AnnData(obs=pd.DataFrame(index=cells["cell_id"].to_numpy()), var=pd.DataFrame(index=list("xyz")))
    adata.layers["counts"] = sp.csr_matrix(counts)
    return adata, cells


def test_sums_of_paired_patients():
    adata, cells = tiny()
    bulk = pb.pseudobulk(adata, cells.sample(frac=1, random_state=0))
    assert bulk.patients == ("A", "B")
    assert bulk.cells.tolist() == [[3, 4], [3, 3]]
    assert bulk.counts.tolist() == [[3, 0, 6], [4, 0, 8], [3, 0, 6], [3, 0, 6]]


def test_normal_cells_and_genes_not_measured_everywhere_are_left_out():
    adata, cells = tiny()
    cells.loc[cells["cell_id"] == "Amarrow0", "malignant_call"] = "normal"
    adata.var["in_all_samples"] = [True, True, False]
    bulk = pb.pseudobulk(adata, cells)
    assert bulk.patients == ("B",)
    assert list(bulk.genes) == ["x", "y"]


def test_samples_after_treatment_are_left_out():
    adata, cells = tiny()
    sample = cells["patient_id"] + "_" + cells["compartment"]
    assert pb.pseudobulk(adata, cells.assign(sample_id=sample), leave_out=["B_marrow"]).patients == ("A",)
    assert pb.pseudobulk(adata, cells.assign(sample_id=sample)).patients == ("A", "B")


@pytest.mark.parametrize("empty", [True, False])
def test_too_few_pairs_end_with_a_status_not_a_crash(tmp_path, empty):
    adata, cells = tiny()
    if empty:
        cells["malignant_call"] = "normal"
    result = pb.compare_pseudobulk(pb.pseudobulk(adata, cells), [GeneSet("S", ("x", "y"))])
    n = 0 if empty else 2
    assert result.genes["status"].tolist() == [f"needs 3 paired patients, found {n}"]
    assert list(result.genes.columns) == list(pb.GENE_COLUMNS)
    assert list(result.pathways.columns) == list(pb.PATHWAY_COLUMNS)
    assert result.pathways["n_pairs"].tolist() == [n]
    write_table(result.genes, tmp_path / "pseudobulk.tsv")
    write_table(result.pathways, tmp_path / "pathways.tsv")


def test_sets_get_one_direction_each():
    sets = pb.directed_sets([GeneSet("A", ("x",), ("y",)), GeneSet("B", ("z",)), GeneSet("M", ("x",), role="mask")])
    assert sets == {"A_UP": ("x",), "A_DN": ("y",), "B": ("z",)}


def made_bulk(n=4, genes=200, shift=1.0, depth=1.0):
    rng = np.random.default_rng(0)
    base = rng.uniform(50, 500, genes)
    rows = []
    for _ in range(n):
        own = base * rng.lognormal(0, 0.2, genes)
        raised = own * np.where(np.arange(genes) < 20, 2.0**shift, 1.0)
        rows += [rng.poisson(raised * depth), rng.poisson(own)]
    names = pd.Index([f"g{i:03d}" for i in range(genes)])
    return pb.Pseudobulk(np.array(rows), tuple(f"P{i}" for i in range(n)), np.full((n, 2), 9), names)


def test_set_difference_is_the_fold_change_and_ignores_depth():
    sets = {
        "up": tuple(f"g{i:03d}" for i in range(20)),
        "flat": tuple(f"g{i:03d}" for i in range(100, 140)),
        "few": ("g001",),
    }
    for depth in (1.0, 0.2):
        names, d = pb.set_differences(made_bulk(depth=depth), sets)
        assert names == ["up", "flat"]
        # two-fold in 20 of 200 genes: 1 - 0.1 against the mean of all, -0.1 for the others
        assert d.mean(axis=0) == pytest.approx([0.9, -0.1], abs=0.05)


def test_genes_and_pathways_find_what_was_planted_and_repeat_exactly():
    bulk = made_bulk()
    panel = [
        GeneSet("PLANTED", tuple(f"g{i:03d}" for i in range(20))),
        GeneSet("FLAT", tuple(f"g{i:03d}" for i in range(100, 130))),
        GeneSet("TINY", ("g001", "g002")),
    ]
    genes = pb.compare_genes(bulk)
    found = genes.loc[genes["p_adjusted"] < 0.01, "gene"]
    assert set(found) >= {f"g{i:03d}" for i in range(20)}
    assert len(found) <= 22
    assert genes.set_index("gene").loc["g003", "log2_fold_change"] == pytest.approx(1.0, abs=0.3)
    assert (genes["status"] == "ok").all()
    assert genes["p_value"].is_monotonic_increasing
    paths = pb.rank_pathways(bulk, genes, panel, seed=3, permutations=100)
    assert list(paths["signature"]) == ["PLANTED", "FLAT"]
    row = paths.iloc[0]
    assert row["patient_p"] == pytest.approx(
        2 / 16
    )  # four patients: the smallest possible, whatever the screening p says
    assert row["nes"] > 1.5
    assert row["screening_q"] < 0.05
    assert paths.equals(pb.rank_pathways(bulk, genes, panel[::-1], seed=3, permutations=100))


def test_all_zero_counts_end_with_a_status():
    bulk = pb.Pseudobulk(np.zeros((6, 5), dtype=np.int64), ("A", "B", "C"), np.full((3, 2), 3), pd.Index(list("abcde")))
    assert pb.compare_genes(bulk)["status"].tolist() == ["no gene with 5 counts in 3 pseudobulks"]
