"""`snakemake qc`: quality control alone, with a result that can be read alone."""

from __future__ import annotations

import pytest

from dtcflow.contracts import read_table


@pytest.fixture(scope="module")
def done(copy_of, snakemake, house):
    folder = copy_of("qc_only")
    ran = snakemake(folder, "qc", cores=2, house=house)
    assert ran.code == 0, ran.text
    return folder / "results"


def test_nothing_else_is_made(done):
    made = {str(p.relative_to(done)) for p in done.rglob("*") if p.is_file()}
    assert not [name for name in made if name.split("/")[0] not in ("intake", "qc", "logs", "benchmarks")]
    assert {"qc/summary.tsv", "qc/waterfall.tsv", "qc/waterfall.svg"} <= made


def test_the_tables_tell_the_same_as_the_cells(done):
    summary = read_table(done / "qc" / "summary.tsv", "qc_summary").set_index("sample_id")
    steps = read_table(done / "qc" / "waterfall.tsv", "qc_waterfall")
    assert list(summary.index) == ["P01_marrow", "P01_primary", "P02_marrow", "P02_primary"]
    for sample, row in summary.iterrows():
        cells = read_table(done / "qc" / "samples" / f"{sample}.tsv.gz", "qc_cells")
        assert row["n_cells"] == len(cells) == row[["n_good", "n_ambiguous", "n_poor"]].sum()
        assert row["n_pass"] == cells["pass_qc"].sum() == row["n_good"] + row["n_ambiguous"]
        own = steps[steps["sample_id"] == sample].set_index(["lineage", "reason"])["n_left"]
        assert own["all", "start"] == len(cells)
        assert own.xs("all").iloc[-1] == cells["pass_qc"].sum()
        for lineage, group in cells.groupby("lineage"):
            assert own[lineage, "start"] == len(group)
            assert own.xs(lineage).iloc[-1] == group["pass_qc"].sum()


def test_the_figure_names_every_sample(done):
    svg = (done / "qc" / "waterfall.svg").read_text()
    assert all(name in svg for name in ("P01_marrow", "P02_primary", "kept"))
