from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from dtcflow.evidence import duality as du
from dtcflow.evidence.run import cohort_of
from dtcflow.evidence.within import Within
from dtcflow.scores.signatures import GeneSet

STEMNESS = "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"
REST = "REST"
HOW = Within(cells=10, covariates=("log_genes", "log_counts"), random_sets=60)
OPTIONS = {"stemness": STEMNESS, "dormancy": REST}


def move(cohort, cells, names, factor, seed=0):
    """More (factor > 1) or fewer transcripts of these genes in these cells."""
    rng = np.random.default_rng(seed)
    counts = sp.csr_matrix(cohort.counts).toarray()
    columns = np.flatnonzero(cohort.genes.isin(list(names)))
    block = counts[np.ix_(cells, columns)].astype(int)
    new = rng.binomial(block, factor) if factor < 1 else block + rng.poisson(block * (factor - 1))
    counts[np.ix_(cells, columns)] = new
    return replace(cohort, counts=sp.csr_matrix(counts.astype(np.float32)))


@pytest.fixture(scope="module")
def plain(lab):
    adata, cells = lab.simulate(lab.scenario(n_pt=15, n_dtc=16, false_epithelial=6, seed=6))
    cohort = cohort_of(adata, cells, lab.panel, synonyms=lab.no_synonyms)
    own = cohort.panel[STEMNESS].up
    free = [gene for gene in lab.genes if all(gene not in one.genes for one in lab.panel)]
    rest = GeneSet(REST, (*free[:40], *own[:3]), (*free[40:70], own[3]), role="dormancy", family="dormancy")
    return replace(cohort, panel={**cohort.panel, REST: rest})


def chosen(cohort, share, seed=0):
    own = np.flatnonzero((cohort.cells["compartment"] == "marrow") & (cohort.cells["malignant_call"] == "malignant"))
    return own[np.random.default_rng(seed).random(own.size) < share]


def planted(cohort, stem, rest):
    out = move(cohort, stem, cohort.panel[STEMNESS].up[4:], 3.0)
    out = move(out, rest, cohort.panel[REST].up[:-3], 3.0, seed=1)
    return move(out, rest, cohort.panel[REST].down[:-1], 0.3, seed=2)


def test_one_programme_in_the_same_cells_is_found(plain):
    cells = chosen(plain, 0.5)
    found = du.evaluate_duality(planted(plain, cells, cells), HOW, **OPTIONS)
    assert found.n_shared == 4
    assert found.fit.n == 8
    assert found.ci_low > 0
    assert found.estimate > du.SESOI
    assert max(found.test.p_value, found.p_permutation, found.p_gene_set) < 0.05
    assert found.estimate == pytest.approx(np.tanh(found.fit.estimate))
    table = found.patients
    assert (table["value_a"] - table["value_b"]).to_numpy() == pytest.approx(table["difference"].to_numpy())
    # sixteen cells of one sample, one slope on depth and one on the marrow axis: 13 left
    assert table["variance"].to_numpy() == pytest.approx(np.full(8, 1.06 / 11))


def test_two_programmes_in_unrelated_cells_are_not_linked(plain):
    found = du.evaluate_duality(planted(plain, chosen(plain, 0.5), chosen(plain, 0.5, seed=9)), HOW, **OPTIONS)
    assert found.ci_low < 0.1
    assert abs(found.estimate) < 0.3  # standard error .11


def test_programmes_that_exclude_each_other_have_the_other_sign(plain):
    cells = chosen(plain, 0.5)
    others = np.setdiff1d(chosen(plain, 1.1), cells)
    assert du.evaluate_duality(planted(plain, cells, others), HOW, **OPTIONS).ci_high < 0


def test_patients_with_fewer_than_ten_cells_have_a_reason(plain):
    cells = plain.cells.copy()
    first = chosen(plain, 1.1)[:8]
    cells.loc[first, "malignant_call"] = "indeterminate"
    found = du.evaluate_duality(replace(plain, cells=cells), HOW, **OPTIONS)
    reasons = found.patients.set_index("patient_id")["reason"]
    assert reasons["P0"] == "8 malignant cells in marrow, 10 needed"
    assert (reasons.drop("P0") == "").all()
    assert found.fit.n == 7


def test_nothing_to_compute_is_a_result(plain):
    cells = plain.cells.assign(malignant_call="normal")
    found = du.evaluate_duality(replace(plain, cells=cells), HOW, **OPTIONS)
    assert np.isnan([found.estimate, found.test.p_value, found.p_permutation]).all()
    assert set(found.patients["reason"]) == {"no malignant cell in marrow"}
    few = replace(plain, panel={**plain.panel, REST: GeneSet(REST, ("G0001", "NOWHERE"))})
    found = du.evaluate_duality(few, HOW, **OPTIONS)
    assert set(found.patients["reason"]) == {"REST cannot be scored"}


@pytest.mark.parametrize("n", [4, 10, 50])
def test_rank_correlation_is_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 3)), rng.normal(size=(n, 3))
    b[0] = b[1]  # ties
    found = du._correlate(du._centred_ranks(a), du._centred_ranks(b))
    assert found == pytest.approx([stats.spearmanr(a[:, j], b[:, j]).statistic for j in range(3)])


def test_constant_score_has_no_correlation():
    assert du._correlate(du._centred_ranks(np.ones((5, 1))), du._centred_ranks(np.arange(5.0)[:, None])) == [0.0]


def test_permutation_p_is_uniform_without_a_link():
    values = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ranks = tuple(
            (du._centred_ranks(rng.normal(size=(10, 1))), du._centred_ranks(rng.normal(size=(10, 1)))) for _ in "ab"
        )
        value = np.array([du._fisher(du._correlate(*pair)) for pair in ranks])
        values.append(du._permutation_p(du._Correlations(("a", "b"), ranks, value, np.ones(2)), seed))
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_a_plan_that_asks_for_more_genes_than_there_are_scores_nothing(plain):
    found = du.evaluate_duality(plain, replace(HOW, gates={"min_effective": 10_000.0}), **OPTIONS)
    assert set(found.coverage["status"]) == {"LOW_COVERAGE"}
    assert np.isnan(found.estimate)
