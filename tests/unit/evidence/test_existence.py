from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.evidence import existence as ex
from dtcflow.evidence.numeric import Case
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.subset_claims import judge_existence
from dtcflow.evidence.within import Prepared, Within

SIGNATURE = "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"
CONTROLS = ("EPPERT_HSC_R", "JAATINEN_HEMATOPOIETIC_STEM_CELL_UP")
COVARIATES = ("TIROSH_S_PHASE", "TIROSH_G2M_PHASE", "log_genes", "log_counts", "pct_mt")
HOW = Within(covariates=COVARIATES, random_sets=60)
OPTIONS = {"negative_controls": CONTROLS, "splits": 2}
QUICK = Within(random_sets=20)


def raise_genes(cohort, cells, names, factor, seed=0):
    """More transcripts of these genes in these cells."""
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(cohort.counts).toarray()
    columns = np.flatnonzero(cohort.genes.isin(list(names)))
    block = counts[np.ix_(cells, columns)]
    counts[np.ix_(cells, columns)] = block + rng.poisson(block * (factor - 1))
    return replace(cohort, counts=sp.csr_matrix(counts.astype(np.float32)))


def dtcs(cohort, share=1.0, seed=0):
    own = np.flatnonzero((cohort.cells["compartment"] == "marrow") & (cohort.cells["malignant_call"] == "malignant"))
    return own[np.random.default_rng(seed).random(own.size) < share]


@pytest.fixture(scope="module")
def plain(lab):
    adata, cells = lab.simulate(lab.scenario(n_pt=20, n_dtc=12, false_epithelial=8, seed=5))
    return cohort_of(adata, cells, lab.panel, synonyms=lab.no_synonyms)


@pytest.fixture(scope="module")
def found(plain):
    subset = raise_genes(plain, dtcs(plain, 0.4), plain.panel[SIGNATURE].up, 3.0)
    return ex.evaluate_existence(subset, HOW, signature=SIGNATURE, **OPTIONS)


def test_subset_is_found(found):
    assert found.fit.n == 8
    assert found.fit.ci_low > 0
    assert found.fit.estimate > ex.SESOI
    assert found.test.p_value < 0.05
    assert found.tail_fit.ci_low > 0
    assert found.p_gene_set < 0.05
    assert found.adjusted.estimate > ex.SESOI / 2
    assert found.controls["ok"].all()
    assert found.covariates_used == (*COVARIATES, "marrow_axis")
    assert found.leave_one_out["ci_low"].min() > 0


def test_patient_table_adds_up(found):
    table = found.patients
    assert tuple(table.columns) == ex.EXISTENCE_COLUMNS
    assert table["usable"].all()
    assert (table["n_cells_a"] == 12).all()
    assert (table["value_a"] - table["value_b"]).to_numpy() == pytest.approx(table["difference"].to_numpy())
    assert (table["tail_a"] - table["tail_b"]).to_numpy() == pytest.approx(table["tail"].to_numpy())
    assert found.null.mean() == pytest.approx(0, abs=1e-9)
    assert found.n_called == 96
    assert found.n_well == 0


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_nothing_is_found_where_no_cell_or_every_cell_runs_the_programme(plain, factor):
    cohort = raise_genes(plain, dtcs(plain), plain.panel[SIGNATURE].up, factor)
    found = ex.evaluate_existence(cohort, HOW, signature=SIGNATURE, **OPTIONS)
    # estimates of single null cohorts have a standard deviation of .09
    assert abs(found.fit.estimate) < 0.25
    assert found.fit.ci_low < 0.1


def test_another_programme_is_not_taken_for_this_one(plain):
    cohort = raise_genes(plain, dtcs(plain, 0.4), plain.panel[CONTROLS[1]].up, 6.0)
    found = ex.evaluate_existence(cohort, HOW, signature=SIGNATURE, **OPTIONS)
    assert found.fit.ci_low < 0.1
    by = found.controls.set_index("signature")
    assert by.loc[CONTROLS[1], "estimate"] > ex.SESOI
    assert not by.loc[CONTROLS[1], "ok"]
    assert by.loc[CONTROLS[0], "ok"]


def test_result_does_not_depend_on_the_order_of_cells_and_genes(plain, found):
    subset = raise_genes(plain, dtcs(plain, 0.4), plain.panel[SIGNATURE].up, 3.0)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(subset.cells)), rng.permutation(len(subset.genes))
    moved = replace(
        subset,
        cells=subset.cells.iloc[rows].reset_index(drop=True),
        counts=sp.csr_matrix(subset.counts[rows][:, columns]),
        genes=subset.genes[columns],
    )
    again = ex.evaluate_existence(moved, HOW, signature=SIGNATURE, **OPTIONS)
    assert again.fit.estimate == pytest.approx(found.fit.estimate, rel=1e-6)


def test_patients_with_few_cells_have_no_value_but_a_reason(plain):
    cells = plain.cells.copy()
    first = cells.index[(cells["patient_id"] == "P0") & cells.index.isin(dtcs(plain))]
    cells.loc[first[4:], "malignant_call"] = "indeterminate"
    second = cells.index[(cells["patient_id"] == "P1") & cells.index.isin(dtcs(plain))]
    cells.loc[second, "malignant_call"] = "indeterminate"
    found = ex.evaluate_existence(replace(plain, cells=cells), QUICK, signature=SIGNATURE, splits=1)
    reasons = found.patients.set_index("patient_id")["reason"]
    assert reasons["P0"] == "4 malignant cells in marrow, 5 needed"
    assert reasons["P1"] == "no malignant cell in marrow"
    assert found.fit.n == 6
    assert found.patients.loc[~found.patients["usable"], ["value_a", "difference", "variance", "tail"]].isna().all(None)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_no_estimate_from_fewer_than_three_patients(plain, keep):
    names = sorted(set(plain.cells["patient_id"]))[:keep]
    cells = plain.cells.copy()
    out = cells["patient_id"].isin(names) | (cells["compartment"] != "marrow")
    cells.loc[~out, "malignant_call"] = "indeterminate"
    found = ex.evaluate_existence(replace(plain, cells=cells), QUICK, signature=SIGNATURE, splits=1)
    assert found.patients["usable"].sum() == keep
    assert np.isnan([found.fit.estimate, found.test.p_value, found.p_gene_set]).all()
    assert (found.patients.loc[~found.patients["usable"], "reason"] != "").all()


def test_without_reference_or_coverage_there_is_a_reason(plain):
    no_primary = replace(
        plain,
        cells=plain.cells.assign(
            malignant_call=plain.cells["malignant_call"].where(plain.cells["compartment"] == "marrow", "normal")
        ),
    )
    found = ex.evaluate_existence(no_primary, QUICK, signature=SIGNATURE, splits=1)
    assert set(found.patients["reason"]) == {"fewer than 30 malignant cells of the reference group PT in the cohort"}
    few = replace(plain, panel={**plain.panel, SIGNATURE: replace(plain.panel[SIGNATURE], up=("G0001", "NOWHERE"))})
    found = ex.evaluate_existence(few, QUICK, signature=SIGNATURE, splits=1)
    assert set(found.patients["reason"]) == {f"{SIGNATURE} cannot be scored"}
    assert np.isnan(found.fit.estimate)


# ---------------------------------------------------------------------------------------------------------------------
# The statistic
# ---------------------------------------------------------------------------------------------------------------------


def scored(n_cells=200, share=0.3, shift=2.0, seed=0, common=0.0):
    """Prepared cells of one patient, and half scores with unit noise: a pair with a subset and 40 without."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "cell_id": [f"c{i}" for i in range(n_cells + 100)],
            "row": range(n_cells + 100),
            "patient_id": "A",
            "side": np.repeat([0, 1], [n_cells, 100]),
            "sample": "s",
        }
    )
    overview = pd.DataFrame({"patient_id": ["A"], "n_cells_a": n_cells, "n_cells_b": 100, "usable": True, "reason": ""})
    z = rng.normal(size=(n_cells + 100, 1, 2, 41))
    in_subset = np.arange(n_cells) < share * n_cells
    z[:n_cells, 0, :, 0] += common + shift * in_subset[:, None]
    prepared = Prepared(
        layout=ex.Layout(table, ("A",), overview),
        lognorm=sp.csr_matrix((n_cells + 100, 1)),
        statistics=pd.DataFrame(),
        covariates=np.zeros((n_cells + 100, 0)),
        used=(),
        missing=(),
        nuisance=rng.normal(size=(n_cells + 100, 1)),
        median_genes=500.0,
    )
    return prepared, z


@pytest.mark.parametrize("common", [0.0, 3.0])
def test_coherence_is_the_variance_between_cells_whatever_they_share(common):
    prepared, z = scored(n_cells=4000, common=common)
    found = ex.coherence(prepared, z)
    # f (1 - f) d^2 in units of the reference's variance, which is 1 with 100 cells and 40 sets within 10 %
    scale = ex.reference_scale(prepared, z)[0]
    assert found.value[0, 0] == pytest.approx(0.3 * 0.7 * 4 / scale**2, rel=0.1)
    assert found.expected[0] == pytest.approx(0, abs=0.02)
    assert found.value[0, 1:].std() == pytest.approx(found.freedom[0] ** -0.5, rel=0.5)


def test_variance_of_coherence_is_that_of_repeated_draws():
    values, variances = [], []
    for seed in range(300):
        prepared, z = scored(n_cells=20, seed=seed)
        found = ex.coherence(prepared, z[..., :3])
        values.append(found.value[0, 0])
        variances.append(found.variance[0])
    assert np.mean(variances) == pytest.approx(
        np.var(values), rel=0.3
    )  # the variance of 300 draws has an error of 10 %


def test_coherence_ignores_depth_and_removed_scores():
    prepared, z = scored(n_cells=60, share=0.0)
    own = slice(60)
    z[own, ..., 0] += 2 * prepared.nuisance[own, :1, None]
    assert abs(ex.coherence(prepared, z).excess[0]) < 0.5
    other = np.random.default_rng(3).normal(size=160)
    z[own, ..., 0] += 2 * other[own, None, None]
    assert ex.coherence(prepared, z).excess[0] > 1
    assert abs(ex.coherence(prepared, z, remove=other[:, None]).excess[0]) < 0.5


def test_upper_tail_by_hand():
    pick = np.array([[3.0], [1.0], [2.0], [0.0], [9.0], [5.0]])
    judge = np.array([[10.0], [1.0], [2.0], [3.0], [20.0], [30.0]])
    assert ex._upper_tail(pick, judge, 1 / 3) == pytest.approx([25 - 4])
    assert ex._upper_tail(pick[:2], judge[:2], 1 / 3) == pytest.approx([9])


def test_one_odd_cell_is_cut():
    prepared, z = scored(n_cells=12, share=0.0)
    z[0, :, :, 0] += 50
    once = ex.coherence(prepared, z).value[0, 0]
    # one cell at the limit in both halves, over ten degrees of freedom
    assert once < 1.2 * ex.WINSOR**2 / 10 + 0.6
    z[0, :, :, 0] += 50
    assert ex.coherence(prepared, z).value[0, 0] == pytest.approx(once)


def test_a_plan_that_asks_for_more_genes_than_there_are_scores_nothing(plain):
    found = ex.evaluate_existence(plain, replace(QUICK, gates={"min_genes": 10_000}), signature=SIGNATURE, splits=1)
    assert set(found.coverage.loc[found.coverage["signature"] == SIGNATURE, "status"]) == {"LOW_COVERAGE"}
    assert np.isnan(found.fit.estimate)
    assert not found.patients["usable"].any()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mixed_protocols": True}, "CONFOUNDED"),
        ({"median_genes_reference": 300.0}, "LOW_QUALITY"),
        ({"covariates_missing": ("marrow_axis",)}, "NO_DATA"),
    ],
)
def test_what_the_unit_and_the_adjustment_rest_on_must_be_sound(found, lab, change, code):
    plan = load_plan(lab.plan_path)
    case = Case(absent=(), doubts=(), p_adjusted=0.01, gates={"C0": "SUPPORTED"})
    for claim in (plan.claim("P1"), replace(plan.claim("P1"), covariates=())):
        judged = judge_existence(claim, replace(found, **change), plan.rules, case, plate=False)
        assert judged.decision.codes == (code,)


def test_full_length_cells_must_be_as_deep_as_those_that_set_the_unit(found, lab):
    plan = load_plan(lab.plan_path)
    case = Case(absent=(), doubts=(), p_adjusted=0.01, gates={"C0": "SUPPORTED"})
    for ratio, codes in ((1.1, ()), (1.5, ("LOW_QUALITY",))):
        deep = replace(found, median_genes=4000.0 * ratio, median_genes_reference=4000.0)
        assert judge_existence(plan.claim("P1"), deep, plan.rules, case, plate=True).decision.codes == codes


def test_one_stray_cell_of_another_platform_confounds_nobody(plain):
    own = dtcs(plain)
    first = plain.cells.loc[own, "patient_id"] == plain.cells.loc[own, "patient_id"].iloc[0]
    keep = np.setdiff1d(np.arange(len(plain.cells)), np.asarray(own)[first.to_numpy()][1:])
    cells = plain.cells.assign(platform="droplet")
    cells.loc[np.asarray(own)[first.to_numpy()][0], "platform"] = "plate"
    some = replace(plain, cells=cells.loc[keep])
    got = ex.evaluate_existence(some, replace(HOW, random_sets=20), signature=SIGNATURE, splits=1)
    assert not got.mixed_protocols
    assert got.patients["usable"].sum() == 7


def test_cells_of_another_platform_are_noticed(plain):
    places = np.where(plain.cells["compartment"] == "marrow", "plate", "droplet")
    for platform, expected in (("droplet", False), (places, True)):
        own = replace(plain, cells=plain.cells.assign(platform=platform))
        got = ex.evaluate_existence(own, replace(HOW, random_sets=20), signature=SIGNATURE, splits=1)
        assert got.mixed_protocols is expected


def test_support_that_hangs_on_the_tail_of_one_patient_is_fragile(found, lab):
    rules = load_plan(lab.plan_path).rules
    claim = load_plan(lab.plan_path).claim("P1")
    case = Case(absent=(), doubts=(), p_adjusted=0.01, gates={"C0": "SUPPORTED"})
    assert judge_existence(claim, found, rules, case, plate=False).decision.codes == ()
    without = found.tail_leave_one_out.copy()
    without.loc[0, "ci_low"] = -0.03
    judged = judge_existence(claim, replace(found, tail_leave_one_out=without), rules, case, plate=False)
    assert judged.decision.verdict == "INCONCLUSIVE"
    assert judged.decision.codes == ("FRAGILE",)
