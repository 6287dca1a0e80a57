"""Single tumours and normal tissues through the real workflow. No tumour, no call; no counts, no result."""

from __future__ import annotations

import html

import pytest
import single_tumours

from dtcflow.contracts import read_table

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def finished(shared_data, tmp_path_factory, snakemake, house):
    """``finished(name)``: the study folder of a data set after its run, and the row of the table."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            single_tumours.prepare(name, shared_data, folder)
            ran = snakemake(folder, house=house)
            assert ran.code == 0, ran.text
            done[name] = folder, single_tumours.summary(name, folder)
        return done[name]

    return run


def test_a_breast_cancer_agrees_with_the_labels_of_another_tool(finished):
    _, row = finished("tnbc")
    assert row["recall"] >= 0.95
    assert row["false_calls"] <= 1
    assert row["auc_clone_llr"] >= 0.99
    # stage 1 alone, against a reference of 56 monocytes: .988 since the dispersion counts all of the difference between
    # types (1.000 before)
    assert row["auc_burden"] >= 0.98


def test_oligodendrogliomas_with_positions_of_grch37_have_lost_1p_and_19q(finished, shared_data):
    folder, row = finished("oligodendroglioma_pooled")
    assert row["auc_clone_llr"] >= 0.99
    assert row["auc_burden"] >= 0.95
    assert row["recall"] >= 0.95
    assert row["false_calls"] <= 2
    arms = single_tumours.arms_by_tumour("oligodendroglioma_pooled", shared_data, folder)
    assert arms["tumour"].tolist() == ["MGH36", "MGH53", "MGH93", "MGH97"]
    assert (arms["1p"] == "loss").all()
    assert (arms["19q"] == "loss").all()


@pytest.mark.parametrize("name", ["breast_normal", "normal_immune", "normal_immune_any"])
def test_normal_tissue_has_no_tumour_cell(finished, name):
    folder, row = finished(name)
    assert row["labelled_tumour"] == 0
    assert row["called"] == 0
    clones = read_table(folder / "results" / "cnv" / "clones.tsv", "clones")
    assert (clones["n_cells"] == 0).all()
    assert clones["status"].str.match("no_tumour_cells|not_assessable").all()


def test_a_small_panel_ends_as_not_assessable(finished):
    folder, row = finished("normal_bone_marrow")
    assert row["cnv_status"] == "too_few_genes"
    assert row["called"] == 0
    cells = read_table(folder / "results" / "cells.tsv.gz", "cells")
    assert cells[["cnv_burden_q", "clone_llr", "malignancy_q"]].isna().all().all()
    clones = read_table(folder / "results" / "cnv" / "clones.tsv", "clones")
    assert clones["status"].tolist() == ["not_assessable:too_few_genes"]
    assert "not assessable" in html.unescape((folder / "results" / "report.html").read_text()).lower()


def test_normalised_values_are_refused(shared_data, tmp_path, snakemake, house):
    single_tumours.prepare("normalised_ctc", shared_data, tmp_path)
    ran = snakemake(tmp_path, house=house)
    assert ran.code != 0
    assert "log-like values" in ran.text
    assert "raw counts" in ran.text
    assert not (tmp_path / "results" / "cells.tsv.gz").exists()
