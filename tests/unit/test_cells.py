import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.cells import passed_cells, patient_cells, shown_scores
from dtcflow.contracts import OBS_IDENTITY, TABLES, VAR_GENES, ContractError, write_stage, write_table
from dtcflow.scores.signatures import GeneSet


def qc(folder, sample, passed):
    """``qc_cells`` table of a sample: cell name to whether it passed."""
    table = pd.DataFrame({column: [""] * len(passed) for column in TABLES["qc_cells"]})
    table["cell_id"] = [f"{sample}:{name}" for name in passed]
    table["sample_id"] = sample
    table["pass_qc"] = list(passed.values())
    path = folder / f"{sample}.tsv.gz"
    write_table(table, path, "qc_cells")
    return path


def annotation(folder, *ids):
    table = pd.DataFrame({column: ["x"] * len(ids) for column in TABLES["annotation"]})
    table["cell_id"] = list(ids)
    table["cell_type"] = [f"type of {name}" for name in ids]
    write_table(table, folder / "annotation.tsv.gz", "annotation")
    return folder / "annotation.tsv.gz"


def matrix(folder, sample, names, **obs):
    adata = ad.AnnData(np.zeros((len(names), 3), dtype=np.float32))
    adata.obs_names = [f"{sample}:{name}" for name in names]
    for key in OBS_IDENTITY:
        adata.obs[key] = sample
    for key, values in obs.items():
        adata.obs[key] = values
    adata.var_names = ["A", "B", "C"]
    for key in VAR_GENES:
        adata.var[key] = ["A", "B", "C"]
    adata.var["start"] = [1, 2, 3]
    adata.var["end"] = [2, 3, 4]
    adata.layers["counts"] = sp.csr_matrix(np.arange(len(names) * 3).reshape(-1, 3).astype(np.float32))
    write_stage(adata, folder / f"{sample}.h5ad", "intake")
    return folder / f"{sample}.h5ad"


def genes(folder, **shared):
    path = folder / "genes.tsv.gz"
    write_table(pd.DataFrame({"symbol": list(shared), "in_all_samples": list(shared.values())}), path)
    return path


def test_passed_cells_in_the_order_of_the_samples(tmp_path):
    tables = [qc(tmp_path, "T", {"b": True, "a": False}), qc(tmp_path, "S", {"c": True, "a": True})]
    notes = annotation(tmp_path, "S:a", "S:c", "T:b")
    cells = passed_cells(tables, {"annotation": notes})
    assert list(cells["cell_id"]) == ["T:b", "S:c", "S:a"]
    assert list(cells["cell_type"]) == ["type of T:b", "type of S:c", "type of S:a"]
    assert list(cells.index) == [0, 1, 2]


def test_other_samples_of_a_side_car_are_left_out(tmp_path):
    """Ids are told apart by the whole sample name: S1 is no cell of sample S."""
    notes = annotation(tmp_path, "S:a", "S1:a", "Q:z")
    cells = passed_cells([qc(tmp_path, "S", {"a": True})], {"annotation": notes})
    assert list(cells["cell_id"]) == ["S:a"]


def test_a_cell_without_entry_is_refused(tmp_path):
    notes = annotation(tmp_path, "S:a")
    with pytest.raises(ContractError, match="1 cells have no entry, for example 'S:b'"):
        passed_cells([qc(tmp_path, "S", {"a": True, "b": True})], {"annotation": notes})


def test_an_entry_for_a_cell_that_did_not_pass_is_refused(tmp_path):
    notes = annotation(tmp_path, "S:a", "S:b")
    with pytest.raises(ContractError, match="in no input, for example 'S:b'"):
        passed_cells([qc(tmp_path, "S", {"a": True, "b": False})], {"annotation": notes})


def test_no_cell_at_all(tmp_path):
    assert len(passed_cells([qc(tmp_path, "S", {"a": False})], {"annotation": annotation(tmp_path)})) == 0


@pytest.fixture
def patient(tmp_path):
    """Two samples of a patient; cell b of the first did not pass."""
    matrices = [
        matrix(tmp_path, "M", ["a", "b", "c"], input_kind=["normal", "normal", "tumour"]),
        matrix(tmp_path, "P", ["d"]),
    ]
    tables = [qc(tmp_path, "M", {"a": True, "b": False, "c": True}), qc(tmp_path, "P", {"d": True})]
    notes = annotation(tmp_path, "M:a", "M:c", "P:d")
    return matrices, tables, notes, genes(tmp_path, A=True, B=False, C=True, D=True)


def test_counts_and_cells_of_a_patient_have_the_same_rows(patient):
    adata, cells = patient_cells(*patient)
    assert list(adata.obs_names) == list(cells["cell_id"]) == ["M:a", "M:c", "P:d"]
    assert adata.layers["counts"].toarray().tolist() == [[0, 1, 2], [6, 7, 8], [0, 1, 2]]
    assert dict(zip(adata.var_names, adata.var["in_all_samples"], strict=True)) == {"A": True, "B": False, "C": True}


@pytest.mark.parametrize("key", ["kind", "input_kind"])
def test_the_users_own_labels_are_found_under_both_names(patient, key):
    _, cells = patient_cells(*patient, reference_key=key)
    assert list(cells[key]) == ["normal", "tumour", ""], "a sample without the column has empty labels"


def test_labels_that_no_sample_has_are_empty(patient):
    _, cells = patient_cells(*patient, reference_key="nothing")
    assert list(cells["nothing"]) == ["", "", ""]


def test_a_gene_that_the_cohort_does_not_know_is_refused(patient, tmp_path):
    *others, _ = patient
    with pytest.raises(ContractError, match="lacks 1 genes of this patient; rerun rule embed_cohort"):
        patient_cells(*others, genes(tmp_path, A=True, B=True))


def test_scores_that_vote_or_confirm_are_shown_in_the_panels_order():
    roles = {"S1": "progenitor", "S2": "context", "S3": "primary", "S4": "confirmatory", "S5": "dormancy"}
    panel = [GeneSet(name=name, up=("A",), down=(), role=role) for name, role in roles.items()]
    scores = pd.DataFrame(columns=["cell_id", "S5", "S4", "S2", "S1"])
    assert shown_scores(panel, scores) == ["S1", "S4", "S5"]
