import pytest

from dtcflow.io.design_checks import warn_of_design
from dtcflow.io.sheet import read_samples

ROWS = [("A", "P1", "marrow", "a.h5ad"), ("B", "P1", "primary", "b.h5ad")]
PROCESSED, ENRICHED = "prepared and sequenced together", "whether the marrow was enriched"


def sheet(path, rows=ROWS, **columns):
    header = ["sample_id", "patient_id", "compartment", "path", *columns]
    lines = [[*row, *(values[i] for values in columns.values())] for i, row in enumerate(rows)]
    path.write_text("\n".join("\t".join(line) for line in [header, *lines]) + "\n")
    return warn_of_design(read_samples(path))


def test_what_the_sheet_does_not_say_is_told_once(tmp_path):
    processed, enriched = sheet(tmp_path / "s.tsv")
    assert PROCESSED in processed
    assert "CONFOUNDED" in processed
    assert ENRICHED in enriched
    assert "C1" in enriched
    assert "2 samples (A, B)" in processed
    assert "1 sample (A)" in enriched


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ({"batch": ["x", "x"]}, [ENRICHED]),
        ({"study": ["x", "y"]}, [ENRICHED]),
        ({"study": ["x", ""]}, [PROCESSED, ENRICHED]),
        ({"batch": ["", ""]}, [PROCESSED, ENRICHED]),
        ({"enrichment": ["none", ""]}, [PROCESSED]),
        ({"enrichment": ["", "none"]}, [PROCESSED, ENRICHED]),
        ({"nucleated_cells_screened": ["20000", ""]}, [PROCESSED]),
        ({"batch": ["x", "y"], "enrichment": ["selection", "none"]}, []),
    ],
)
def test_a_column_that_says_it_ends_the_warning(tmp_path, columns, left):
    found = sheet(tmp_path / "s.tsv", **columns)
    assert len(found) == len(left)
    assert all(words in text for words, text in zip(left, found, strict=True))


def test_one_compartment_alone_needs_neither(tmp_path):
    rows = [("B", "P1", "primary", "b.h5ad"), ("C", "P2", "primary", "c.h5ad")]
    assert sheet(tmp_path / "s.tsv", rows) == []


@pytest.mark.parametrize(("event", "told"), [("0", True), ("1", False), ("", False)])
def test_an_outcome_without_events_is_told(tmp_path, event, told):
    own = {"dfs_months": ["12" if event else ""] * 2, "dfs_event": [event] * 2}
    found = sheet(tmp_path / "s.tsv", batch=["x", "x"], enrichment=["none", ""], **own)
    assert ["dfs_event is 0 for all 1 patients" in text for text in found] == [True] * told
