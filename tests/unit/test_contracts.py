import gzip
import json
import math
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from dtcflow import contracts
from dtcflow.contracts import (
    ContractError,
    InputError,
    Problem,
    check_counts,
    check_stage,
    join_side_car,
    read_json,
    read_stage,
    read_table,
    write_bytes,
    write_json,
    write_stage,
    write_table,
    write_text,
)


def annotation(*ids, **columns):
    table = {column: ["x"] * len(ids) for column in contracts.TABLES["annotation"]}
    return pd.DataFrame(table | {"cell_id": list(ids), "cell_type_margin": [1.0] * len(ids)} | columns)


def object_of(stage, n=3):
    """The least object that meets the contract of a stage."""
    contract = contracts.STAGES[stage]
    adata = ad.AnnData(np.zeros((n, 2), dtype=np.float32))
    adata.obs_names = [f"S:{i}" for i in range(n)]
    for key in contract.layers:
        adata.layers[key] = sp.csr_matrix(np.ones((n, 2), dtype=np.float32))
    for key in contract.obs:
        adata.obs[key] = [str(i) for i in range(n)]
    for key in contract.var:
        adata.var[key] = ["a", "b"]
    for key in contract.obsm:
        adata.obsm[key] = np.zeros((n, 2))
    for key in contract.uns:
        adata.uns[key] = {"key": "value"}
    return adata


# --------------------------------------------------------------------------------------------------------------- errors


def test_a_problem_reads_as_a_sentence():
    assert str(Problem("f.tsv", "x", "y", "do z")) == "f.tsv: found x; allowed: y; fix: do z"
    full = Problem("f.tsv", "x", "y", "do z", row=3, key="age")
    assert str(full) == "f.tsv, row 3, age: found x; allowed: y; fix: do z"


def test_an_error_lists_its_problems_and_survives_a_process_boundary():
    error = InputError("two things", [Problem("a", "1", "2", "3"), Problem("b", "1", "2", "3")])
    assert str(error).splitlines()[1:] == ["  - a: found 1; allowed: 2; fix: 3", "  - b: found 1; allowed: 2; fix: 3"]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError
    assert str(again) == str(error)


# --------------------------------------------------------------------------------------------------------------- tables


def test_every_table_and_stage_names_its_maker():
    assert set(contracts.TABLE_MAKERS) == set(contracts.TABLES)
    for columns in contracts.TABLES.values():
        assert len(set(columns)) == len(columns)
    assert contracts.TABLES["cells"] == contracts.CELLS_COLUMNS


def test_the_columns_of_the_contract_come_first_and_none_is_lost(tmp_path):
    table = annotation("S:a", "S:b")
    table.insert(0, "own", [1, 2])
    path = tmp_path / "new" / "t.tsv"
    write_table(table, path, "annotation")
    assert path.read_text().splitlines()[0].split("\t") == [*contracts.TABLES["annotation"], "own"]
    again = read_table(path, "annotation")
    assert list(again["own"]) == [1, 2]
    assert list(again["cell_id"]) == ["S:a", "S:b"]


def test_missing_columns_are_refused_both_ways_and_all_named(tmp_path):
    table = annotation("S:a").drop(columns=["cell_type", "runner_up"])
    with pytest.raises(ContractError) as caught:
        write_table(table, tmp_path / "t.tsv", "annotation")
    assert [problem.key for problem in caught.value.problems] == ["cell_type", "runner_up"]
    assert "rerun rule annotate_cells" in str(caught.value)
    assert not (tmp_path / "t.tsv").exists()
    write_table(table, tmp_path / "t.tsv")
    with pytest.raises(ContractError, match=r"is not a 'annotation' table"):
        read_table(tmp_path / "t.tsv", "annotation")


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_values_come_back(tmp_path, name, n):
    table = pd.DataFrame(
        {
            "cell_id": [f"S:{i}" for i in range(n)],
            "clone_id": [""] * n,
            "pass_qc": [i % 2 == 0 for i in range(n)],
            "n_counts": np.arange(n, dtype=float),
            "score": np.full(n, np.nan),
        }
    )
    table["pass_qc"] = table["pass_qc"].astype(bool)
    write_table(table, tmp_path / name)
    again = read_table(tmp_path / name)
    assert list(again.columns) == list(table.columns)
    assert len(again) == n
    assert again["pass_qc"].dtype == bool
    assert list(again["pass_qc"]) == list(table["pass_qc"])
    assert list(again["clone_id"]) == [""] * n, "missing text is the empty string"
    assert again["score"].isna().all(), "missing is not zero"


def test_text_that_looks_like_something_else_stays_text(tmp_path):
    words = ["001", "NA", "nan", "1e5", "true", "None"]
    write_table(pd.DataFrame({"sample_id": words, "patient_id": words}), tmp_path / "t.tsv")
    again = read_table(tmp_path / "t.tsv")
    assert list(again["sample_id"]) == words
    assert list(again["patient_id"]) == words


def test_missing_booleans_are_false_and_said_ones_kept(tmp_path):
    (tmp_path / "t.tsv").write_text("cell_id\tis_dtc\na\ttrue\nb\t\nc\tfalse\n")
    again = read_table(tmp_path / "t.tsv")
    assert list(again["is_dtc"]) == [True, False, False]
    assert again["is_dtc"].dtype == bool


def test_nullable_booleans_are_written_as_words(tmp_path):
    write_table(pd.DataFrame({"usable": pd.array([True, False, None], dtype="boolean")}), tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_text() == 'usable\ntrue\nfalse\n""\n'


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_six_digits(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("n") / "t.tsv"
    write_table(pd.DataFrame({"cell_id": ["a"], "score": [value]}), path)
    assert math.isclose(read_table(path)["score"].iloc[0], value, rel_tol=5e-6, abs_tol=0)


def test_the_same_table_is_the_same_bytes(tmp_path):
    for name in ("a.tsv.gz", "b.tsv.gz"):
        write_table(annotation("S:a"), tmp_path / name, "annotation")
    first, second = ((tmp_path / name).read_bytes() for name in ("a.tsv.gz", "b.tsv.gz"))
    assert first == second, "neither name nor time is in the file"
    assert gzip.decompress(first).decode().startswith("cell_id\t")


def test_writing_does_not_change_the_callers_table(tmp_path):
    table = pd.DataFrame({"pass_qc": [True], "x": [1.23456789]})
    before = table.copy()
    write_table(table, tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(table, before)


# ------------------------------------------------------------------------------------------------------- all or nothing


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "t.txt"
    write_text(path, "old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_object_that_cannot_be_written_leaves_nothing(tmp_path):
    adata = object_of("intake")
    adata.uns["bad"] = object()
    with pytest.raises(Exception, match="object"):
        write_stage(adata, tmp_path / "a.h5ad", "intake")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------------- JSON


def test_json_is_plain_sorted_and_without_nan(tmp_path):
    content = {
        "z": np.float32(0.5),
        "a": [np.int64(3), float("nan"), np.inf, pd.NA, pd.NaT],
        "b": np.array([True, False]),
        "s": {"y", "x"},
        "p": tmp_path,
        1: pd.Series([1.5]),
    }
    write_json(tmp_path / "t.json", content)
    assert read_json(tmp_path / "t.json") == {
        "1": [1.5],
        "a": [3, None, None, None, None],
        "b": [True, False],
        "p": str(tmp_path),
        "s": ["x", "y"],
        "z": 0.5,
    }
    text = (tmp_path / "t.json").read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text.endswith("}\n")


# ------------------------------------------------------------------------------------------------------------ side-cars


def cells(*ids, **columns):
    return pd.DataFrame({"cell_id": list(ids), "n": range(len(ids)), **columns})


def test_a_side_car_is_joined_by_id_whatever_its_order():
    joined = join_side_car(cells("a", "b"), pd.DataFrame({"cell_id": ["b", "a"], "x": [2, 1], "n": [9, 9]}), name="t")
    assert list(joined["cell_id"]) == ["a", "b"]
    assert list(joined["x"]) == [1, 2]
    assert list(joined["n"]) == [0, 1], "a column that is there already is kept"


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        (("a", "a"), ("a",), "cells: cell_id 'a' occurs more than once"),
        (("a",), ("a", "a"), "t: cell_id 'a' occurs more than once"),
        (("a",), ("a", "z", "y"), "2 cells are in no input, for example 'y'"),
        (("a", "b"), ("a",), "1 cells have no entry, for example 'b'"),
    ],
)
def test_ids_that_do_not_fit_are_refused(left, right, words):
    with pytest.raises(ContractError, match=words):
        join_side_car(cells(*left), pd.DataFrame({"cell_id": list(right), "x": 1}), name="t")


def test_a_subset_leaves_the_rest_empty_but_strangers_are_still_refused():
    joined = join_side_car(cells("a", "b"), pd.DataFrame({"cell_id": ["b"], "x": [2.0]}), name="t", how="subset")
    assert joined["x"].isna().tolist() == [True, False]
    with pytest.raises(ContractError, match="in no input"):
        join_side_car(cells("a"), pd.DataFrame({"cell_id": ["b"], "x": [2.0]}), name="t", how="subset")


def test_nothing_joined_to_nothing():
    assert len(join_side_car(cells(), pd.DataFrame({"cell_id": [], "x": []}), name="t")) == 0


# ---------------------------------------------------------------------------------------------------- counts and stages


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_whole_numbers_in_csr_are_counts(kind):
    check_counts(kind(np.array([[0, 3], [2, 0]], dtype=np.float32)), "here")
    check_counts(kind((0, 5), dtype=np.float32), "here")


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.ones((2, 2)), "must be a CSR matrix, found ndarray"),
        (sp.csc_matrix(np.ones((2, 2))), "must be a CSR matrix, found csc_matrix"),
        (sp.csr_matrix([[0.5]]), "non-negative whole numbers"),
        (sp.csr_matrix([[-1.0]]), "non-negative whole numbers"),
        (sp.csr_matrix([[np.nan]]), "non-negative whole numbers"),
        (sp.csr_matrix([[np.inf]]), "non-negative whole numbers"),
    ],
)
def test_anything_else_is_no_counts(matrix, words):
    with pytest.raises(ContractError, match=words):
        check_counts(matrix, "here")


@pytest.mark.parametrize("stage", contracts.STAGES)
@pytest.mark.parametrize("n", [1, 3])
def test_a_stage_comes_back(stage, n, tmp_path):
    path = tmp_path / "deep" / "a.h5ad"
    write_stage(object_of(stage, n), path, stage)
    again = read_stage(path, stage)
    assert list(again.obs_names) == [f"S:{i}" for i in range(n)]
    assert [file.name for file in path.parent.iterdir()] == ["a.h5ad"]


@pytest.mark.parametrize("stage", contracts.STAGES)
def test_every_key_of_a_stage_is_asked_for(stage, tmp_path):
    contract = contracts.STAGES[stage]
    bare = ad.AnnData(np.zeros((2, 2), dtype=np.float32))
    wanted = [key for slot in ("layers", "obs", "var", "obsm", "uns") for key in getattr(contract, slot)]
    with pytest.raises(ContractError) as caught:
        check_stage(bare, stage, "a.h5ad")
    assert len(caught.value.problems) == len(wanted)
    assert all(problem.fix == f"rerun rule {contract.maker}" for problem in caught.value.problems)
    with pytest.raises(ContractError):
        write_stage(bare, tmp_path / "a.h5ad", stage)
    assert list(tmp_path.iterdir()) == []


def test_repeated_cell_ids_are_refused():
    adata = object_of("cnv")
    adata.obs_names = ["a", "a", "b"]
    with pytest.raises(ContractError, match="repeated cell ids"):
        check_stage(adata, "cnv", "a.h5ad")


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_an_unreadable_object_names_file_and_rule(tmp_path, content):
    path = tmp_path / "a.h5ad"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ContractError, match=r"a\.h5ad cannot be read") as caught:
        read_stage(path, "embedding")
    assert "rerun rule embed_cohort" in str(caught.value)


def test_reasons():
    assert contracts.join_reasons([]) == ""
    assert contracts.join_reasons(["a", "b"]) == "a;b"
