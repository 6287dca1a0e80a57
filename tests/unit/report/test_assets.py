"""Reading: what is absent or broken is named, all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import ContractError, write_json
from dtcflow.report.assets import load, read_umap, read_windows


def test_all_absent_files_are_named_at_once(make: Any, tmp_path: Path) -> None:
    inputs = make(n_patients=2, n_cells=20, per_arm=1).write(tmp_path)
    broken = replace(inputs, claims=tmp_path / "no_claims.tsv", cnv_statuses=[tmp_path / "no_status.json"])
    with pytest.raises(ContractError, match="results are missing") as error:
        load(broken)
    assert {Path(problem.where).name for problem in error.value.problems} == {"no_claims.tsv", "no_status.json"}


def test_a_table_of_another_kind_is_refused(make: Any, tmp_path: Path) -> None:
    inputs = make(n_patients=2, n_cells=20, per_arm=1).write(tmp_path)
    with pytest.raises(ContractError, match="not a 'claims' table"):
        load(replace(inputs, claims=inputs.arms))


def test_a_cell_named_twice_is_refused(make: Any, tmp_path: Path) -> None:
    study = make(n_patients=2, n_cells=20, per_arm=1)
    inputs = study.write(tmp_path)
    study.cells = pd.concat([study.cells, study.cells.iloc[[0]]])
    with pytest.raises(ContractError, match="twice"):
        load(replace(inputs, cells=study.write(tmp_path / "twice").cells))


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_broken_json_is_named(make: Any, tmp_path: Path, content: str) -> None:
    inputs = make(n_patients=2, n_cells=20, per_arm=1).write(tmp_path)
    Path(inputs.verdict).write_text(content)
    with pytest.raises(ContractError, match="JSON") as error:
        load(inputs)
    assert "verdict.json" in str(error.value)


def test_objects_are_named_by_the_id_they_carry(make: Any, tmp_path: Path) -> None:
    inputs = make(n_patients=2, n_cells=20, per_arm=1).write(tmp_path)
    without = tmp_path / "P9.json"
    write_json(without, {"status": "ok"})
    assets = load(replace(inputs, cnv_statuses=[*inputs.cnv_statuses, without]))
    assert list(assets.cnv_statuses) == ["P9", "PAT01", "PAT02"]


def embedding(path: Path, umap: np.ndarray[Any, Any] | None, status: str | None = None) -> Path:
    adata = ad.AnnData(obs=pd.DataFrame(index=pd.Index([f"S:{i}" for i in range(4)], dtype=object)))
    if umap is not None:
        adata.obsm["X_umap"] = umap
    if status is not None:
        adata.uns["embedding_status"] = status
    adata.write_h5ad(path)
    return path


def test_umap_is_read_without_the_rest(tmp_path: Path) -> None:
    umap = np.arange(8, dtype=np.float32).reshape(4, 2)
    umap[2] = np.nan
    found = read_umap(embedding(tmp_path / "e.h5ad", umap))
    assert found.cell_ids.tolist() == ["S:0", "S:1", "S:3"]
    np.testing.assert_array_equal(found.coordinates, umap[[0, 1, 3]])


def test_an_embedding_that_was_not_computed_says_why(tmp_path: Path) -> None:
    nothing = np.full((4, 2), np.nan, dtype=np.float32)
    assert (
        read_umap(embedding(tmp_path / "a.h5ad", nothing, "4 cells, 10 are needed")).status == "4 cells, 10 are needed"
    )
    assert read_umap(embedding(tmp_path / "b.h5ad", nothing)).status == "no cell has coordinates"
    assert read_umap(embedding(tmp_path / "c.h5ad", None)).status == "the file has no UMAP"


def test_windows_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cnv_windows"):
        read_windows(embedding(tmp_path / "e.h5ad", None))
