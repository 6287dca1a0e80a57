import pandas as pd
import pytest

from dtcflow.evidence.design import find_aliasing, mixes_protocols


def samples(rows, names=("batch",)):
    return pd.DataFrame(rows, columns=["patient_id", "side", *names])


def test_batch_that_is_the_compartment_is_found():
    found = find_aliasing(samples([(p, k, f"run{k}") for p in "ABCDEF" for k in (0, 1)]))
    assert found.factors == ("batch",)
    assert found.confounded
    assert found.n_unmixed == {"batch": 6}


def test_two_runs_per_compartment_are_still_aliased():
    rows = [(p, k, f"run{k}{p in 'ABC'}") for p in "ABCDEF" for k in (0, 1)]
    assert find_aliasing(samples(rows)).factors == ("batch",)


def test_patients_processed_whole_are_fine():
    rows = [(p, k, "one" if p in "ABC" else "two") for p in "ABCDEF" for k in (0, 1)]
    found = find_aliasing(samples(rows))
    assert not found.confounded
    assert found.n_unmixed == {"batch": 0}


def test_one_patient_in_mixed_runs_does_not_make_up_for_five():
    """The compartment is estimable in a model with the run, but the claims average all patients."""
    rows = [(p, k, f"run{k}") for p in "ABCDE" for k in (0, 1)] + [("F", 0, "run0"), ("F", 1, "run0")]
    found = find_aliasing(samples(rows))
    assert found.factors == ("batch",)
    assert found.n_unmixed == {"batch": 5}


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_one_patient_in_one_run_does_not_make_up_for_several_runs_a_side(runs):
    """However many runs the marrows of the others are spread over: none of them held a primary."""
    rows = [("G", k, "primaries") for k in (0, 1)]
    rows += [(p, k, "primaries" if k else f"marrow{i % runs}") for i, p in enumerate("ABCDEF") for k in (0, 1)]
    found = find_aliasing(samples(rows))
    assert found.factors == ("batch",)
    assert found.n_unmixed == {"batch": 6}


def test_runs_that_cross_the_compartments_cancel():
    rows = [(p, k, f"run{k if p in 'ABC' else 1 - k}") for p in "ABCDEF" for k in (0, 1)]
    assert not find_aliasing(samples(rows)).confounded


def test_few_patients_in_split_runs_are_fine():
    rows = [(p, k, f"run{k}") for p in "AB" for k in (0, 1)] + [(p, k, "run0") for p in "CDEF" for k in (0, 1)]
    assert not find_aliasing(samples(rows)).confounded


def test_a_batch_per_sample_is_no_shared_artefact():
    assert not find_aliasing(samples([(p, k, f"{p}{k}") for p in "ABCDEF" for k in (0, 1)])).confounded


def test_one_common_run_for_marrow_against_single_runs_is_aliased():
    rows = [(p, 0, "marrow_run") for p in "ABCD"] + [(p, 1, f"single_{p}") for p in "ABCD"]
    assert find_aliasing(samples(rows)).factors == ("batch",)


def test_two_factors_can_alias_together():
    # neither alone: but batch and study together add up to the compartment
    rows = [
        ("A", 0, "x", "s"), ("A", 1, "y", "s"), ("B", 0, "x", "s"), ("B", 1, "y", "s"),
        ("C", 0, "z", "s"), ("C", 1, "z", "t"), ("D", 0, "z", "s"), ("D", 1, "z", "t"),
    ]  # fmt: skip
    found = find_aliasing(samples(rows, ("batch", "study")))
    assert found.factors == ("study + batch",)


@pytest.mark.parametrize("rows", [[], [("A", 0, "x")], [("A", 0, "x"), ("B", 0, "x")]])
def test_nothing_to_compare(rows):
    assert not find_aliasing(samples(rows)).confounded


def test_absent_factors_and_several_samples():
    rows = pd.DataFrame({"patient_id": list("AAABB"), "side": [0, 0, 1, 0, 1]})
    assert not find_aliasing(rows).confounded


def test_platforms_are_never_mixed_within_a_patient():
    """Half of the patients have plates on one side and droplets on the other: estimable by rank, not comparable."""
    rows = [(f"P{p}", side, "plate" if side == 0 and p < 4 else "droplet") for p in range(8) for side in (0, 1)]
    table = pd.DataFrame(rows, columns=["patient_id", "side", "platform"])
    assert "platform" in find_aliasing(table).factors
    assert not find_aliasing(table.assign(platform="droplet")).confounded
    by_patient = table.assign(platform=["plate" if name in ("P0", "P1") else "droplet" for name in table["patient_id"]])
    assert not find_aliasing(by_patient).confounded


@pytest.mark.parametrize(
    ("marrow", "primary", "expected"),
    [
        (["droplet"] * 4, ["droplet"] * 4, False),
        (["plate"] * 4, ["droplet"] * 4, True),  # sorted cells
        (["plate", "droplet"] * 2, ["plate", "droplet"] * 2, False),  # each patient with one platform
        (["plate", "droplet"] * 2, ["droplet", "plate"] * 2, True),  # the same platforms, but not of one patient
        (["plate", "droplet"], [None, "droplet"], True),  # a plate without a primary: no plate sets the unit
        (["droplet", "droplet"], [None, None], False),
    ],
)
def test_the_unit_comes_from_the_platform_of_the_cells(marrow, primary, expected):
    both = enumerate(zip(marrow, primary, strict=True))
    rows = [(f"P{p}", side, one) for p, pair in both for side, one in enumerate(pair) if one is not None]
    table = samples(rows, ["platform"])
    assert mixes_protocols(table) is expected
    assert not mixes_protocols(table.drop(columns="platform"))
