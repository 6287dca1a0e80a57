import logging

import numpy as np
import pytest

from dtcflow.contracts import TABLES, read_table, write_table
from dtcflow.io.fingerprints import cell_fingerprints
from dtcflow.io.identities import check_identities

GENES = [f"G{i}" for i in range(300)]
SEX = {"call": "not_assessable", "mixed": False, "reason": "few"}


def barcodes(n, seed):
    letters = np.random.default_rng(seed).choice(list("ACGT"), (n, 16))
    return ["".join(row) + "-1" for row in letters]


def counts(n, seed, depth=3.0):
    rng = np.random.default_rng(seed)
    return rng.poisson(depth * rng.lognormal(0, 0.6, (n, 1)) * rng.gamma(0.5, 2, 300)).astype(np.float32)


def cohort(cells, sexes=None, said=None, patients=None):
    """Run the check on ``{sample: (counts, barcodes)}``."""
    names = list(cells)
    reports = {n: {"n_cells": len(cells[n][1]), "sex": SEX | (sexes or {}).get(n, {})} for n in names}
    prints = {n: cell_fingerprints(values, GENES, codes) for n, (values, codes) in cells.items()}
    sheet = {n: {"patient_id": (patients or {}).get(n, f"P_{n}"), "sex": (said or {}).get(n, "")} for n in names}
    return check_identities(reports, prints, sheet)


def base(n=60):
    return {
        "A": (counts(n, 1), barcodes(n, 1)),
        "B": (counts(n, 2), barcodes(n, 2)),
        "C": (counts(n, 3), barcodes(n, 3)),
    }


def kinds(frame):
    return list(zip(frame["finding"], frame["sample_id"], frame["other_sample_id"], strict=True))


def test_a_clean_cohort_has_no_finding(tmp_path):
    found = cohort(base())
    assert len(found) == 0
    assert list(found.columns) == list(TABLES["identity"])
    write_table(found, tmp_path / "i.tsv", "identity")
    assert len(read_table(tmp_path / "i.tsv", "identity")) == 0


@pytest.mark.parametrize("n_shared", [1, 2, 5, 20, 60])
def test_cells_of_two_samples_are_found_under_other_barcodes_and_in_another_order(n_shared, caplog):
    cells = base()
    values, codes = cells["B"][0].copy(), cells["B"][1]
    values[:n_shared] = cells["A"][0][::-1][:n_shared]
    with caplog.at_level(logging.WARNING):
        found = cohort(cells | {"B": (values, codes)})
    assert kinds(found) == [("same_cells", "A", "B")]
    assert found.loc[0, "n_shared"] == n_shared
    assert "exactly the same counts in two samples of two patients" in found.loc[0, "detail"]
    assert "A and B" in caplog.text
    assert "swap of tubes, files or rows" in caplog.text


def test_a_sample_joined_with_itself_is_found():
    values, codes = base()["A"]
    found = cohort({"A": (np.vstack([values, values[:7]]), [*codes, *barcodes(7, 9)])})
    assert kinds(found) == [("cells_twice", "A", "")]
    assert found.loc[0, "n_shared"] == 7


def test_a_library_that_was_counted_twice_is_found_by_its_barcodes():
    cells = base()
    # another annotation: some genes lose their counts, others gain a few
    again = np.random.default_rng(5).binomial(cells["A"][0].astype(int), 0.93).astype(np.float32)
    found = cohort(cells | {"B": (again, [f"lib2_{code}" for code in cells["A"][1]])})
    assert kinds(found) == [("same_library", "A", "B")]
    assert found.loc[0, "n_shared"] == 60
    assert found.loc[0, "correlation"] > 0.9
    assert "expected by chance" in found.loc[0, "detail"]


def test_barcodes_shared_by_chance_or_by_a_plate_are_no_finding():
    cells = base()
    # the same wells in every plate, other cells in them
    found = cohort({name: (values, cells["A"][1]) for name, (values, _) in cells.items()})
    assert len(found) == 0


def test_names_that_are_no_sequences_are_compared_by_content_only():
    cells = base()
    wells = [f"well{i}" for i in range(60)]
    ordered = {n: (v[np.argsort(-v.sum(axis=1))], wells) for n, (v, _) in cells.items()}
    assert len(cohort(ordered)) == 0


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_small_samples(n):
    cells = {"A": (counts(n, 1), barcodes(n, 1)), "B": (counts(n, 2), barcodes(n, 2))}
    assert len(cohort(cells)) == 0
    same = cohort({"A": cells["A"], "B": cells["A"]})
    assert kinds(same) == ([("same_cells", "A", "B")] if n else [])


def test_all_zero_and_shallow_cells_are_never_the_same():
    zeros = np.zeros((30, 300), dtype=np.float32)
    assert len(cohort({"A": (zeros, barcodes(30, 1)), "B": (zeros, barcodes(30, 2))})) == 0


FEMALE, MALE = ({"call": call, "reason": f"signs of {call}"} for call in ("female", "male"))


def test_sex_against_the_sheet():
    found = cohort(base(), {"A": FEMALE, "B": MALE}, {"A": "male", "B": "male", "C": "female"})
    assert kinds(found) == [("sex_sheet", "A", "")]
    assert "the cells are female (signs of female), the sheet says male" in found.loc[0, "detail"]
    assert "transplant" in found.loc[0, "advice"]


def test_sex_within_a_patient():
    found = cohort(base(), {"A": FEMALE, "B": FEMALE, "C": MALE}, patients=dict.fromkeys("ABC", "P1"))
    assert kinds(found) == [("sex_patient", "A", "C")]
    assert found.loc[0, "severity"] == "warning"


def test_two_donors_in_a_sample_are_a_note_after_the_warnings():
    mixed = {"call": "ambiguous", "mixed": True, "reason": "both"}
    found = cohort(base(), {"A": mixed, "B": MALE}, {"A": "female", "B": "female"})
    assert [(row.finding, row.severity) for row in found.itertuples()] == [
        ("sex_sheet", "warning"),
        ("mixed_sex", "note"),
    ]


def test_an_unclear_sex_contradicts_nothing():
    unclear = {"call": "ambiguous", "reason": "neither"}
    assert len(cohort(base(), {"A": unclear}, {"A": "male"}, patients=dict.fromkeys("ABC", "P1"))) == 0


def test_the_order_of_samples_does_not_matter():
    cells = base() | {"D": (base()["A"][0], barcodes(60, 8))}
    one, other = cohort(cells), cohort(dict(reversed(list(cells.items()))))
    assert one.equals(other)
