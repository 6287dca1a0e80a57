"""C3 from the files of copy number to the verdict, by the registry."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from dtcflow.contracts import ContractError
from dtcflow.evidence.dissimilarity import OWN_EXPRESSION
from dtcflow.evidence.genome_claims import read_genomes
from dtcflow.evidence.paired import Cohort
from dtcflow.evidence.plan import load_plan
from dtcflow.evidence.registry import KINDS, Bench, Context

ARMS = [f"{1 + j // 2}{'pq'[j % 2]}" for j in range(38)]


@pytest.fixture
def plan(lab):
    return load_plan(lab.plan_path)


def cells_and_files(folder, *, keep, error, n_patients=8, n_dtc=15, n_primary=30):
    """Calls of a cohort, and one file of arm statistics per patient as stage ``cnv`` writes it."""
    rng, rows = np.random.default_rng(4), []
    for p in range(n_patients):
        events = rng.choice(len(ARMS), 10, replace=False)
        own = rng.normal(0, error, len(ARMS))
        truth = []
        for where, n in (("marrow", n_dtc), ("primary", n_primary)):
            for i in range(n):
                kept = rng.random(10) < (keep if where == "marrow" else 1)
                profile = np.zeros(len(ARMS))
                profile[events[kept]] = 0.4
                profile[rng.choice(np.setdiff1d(np.arange(len(ARMS)), events), (~kept).sum(), replace=False)] = 0.4
                truth.append(profile + own)
                rows.append((f"P{p}_{where}:{i:03d}", f"P{p}_{where}", f"P{p}", where, "malignant", f"P{p}_c1"))
        info = np.full((len(truth), len(ARMS)), 80.0)
        u = (np.array(truth) + rng.normal(size=info.shape) / np.sqrt(info)) * info
        names = [row[0] for row in rows if row[2] == f"P{p}"]
        one = ad.AnnData(
            sp.csr_matrix((len(names), 0)), obs=pd.DataFrame(index=names), obsm={"arm_u": u, "arm_info": info}
        )
        one.uns["arm_noise"] = pd.DataFrame({"arm": ARMS, "inflation": 1.0})
        one.write_h5ad(folder / f"P{p}.h5ad")
    columns = ["cell_id", "sample_id", "patient_id", "compartment", "malignant_call", "clone_id"]
    return pd.DataFrame(rows, columns=columns).assign(timepoint="pre"), sorted(folder.glob("*.h5ad"))


def judged(plan, cells, paths, **bench):
    claim = plan.claim("C3")
    cohort = Cohort(cells, sp.csr_matrix((len(cells), 0)), pd.Index([]), {}, None)
    settings = {"depth_repeats": 5}
    context = Context(cohort, plan.rules, settings, 1, genomes=read_genomes(paths))
    kind = KINDS[claim.test]
    found = kind.evaluate(context, claim)
    return found, kind.judge(found, Bench(plan.rules, found.p_value, {"C0": "SUPPORTED"}, found.smallest_p))


@pytest.mark.parametrize(
    ("keep", "error", "verdict", "codes"),
    [
        (1.0, 0.0, "NOT_SUPPORTED", ()),
        (0.3, 0.0, "SUPPORTED", ()),
        # two cells share half of their events, and errors that all cells of a patient share make them look alike
        (0.72, 0.14, "INCONCLUSIVE", ("NO_EFFECT_SHOWN",)),
    ],
)
def test_files_become_a_verdict(plan, tmp_path, keep, error, verdict, codes):
    cells, paths = cells_and_files(tmp_path, keep=keep, error=error)
    found, one = judged(plan, cells, paths)
    assert (one.decision.verdict, one.decision.codes) == (verdict, codes)
    shown = found.patients.set_index(["analysis", "patient_id"])
    assert set(shown.index.get_level_values("analysis")) == {"primary", OWN_EXPRESSION}
    first, low = shown.loc["primary"], shown.loc[OWN_EXPRESSION]
    assert (low["value_a"] <= first["value_a"]).all()
    assert (low["difference"] + plan.claim("C3").sesoi).to_numpy() == pytest.approx(low["value_a"].to_numpy())
    limits = one.detail["meta_analysis_low"]
    assert (limits["ci90_low"] > 0.5) == (verdict == "NOT_SUPPORTED")
    if error:
        assert one.detail["meta_analysis"]["ci90_low"] > 0.5  # what would have refuted the claim


def test_genomes_of_two_platforms_are_not_compared(plan, tmp_path):
    cells, paths = cells_and_files(tmp_path, keep=1.0, error=0.0)
    cells["platform"] = np.where(cells["compartment"] == "marrow", "plate", "droplet")
    one = judged(plan, cells, paths)[1]
    assert (one.decision.verdict, one.decision.codes) == ("INCONCLUSIVE", ("CONFOUNDED",))


def test_a_patient_who_does_not_count_confounds_nobody(plan, tmp_path):
    cells, paths = cells_and_files(tmp_path, keep=1.0, error=0.0)
    few = (cells["patient_id"] == "P0") & (cells["compartment"] == "marrow")
    cells = cells.assign(platform=np.where(few, "plate", "droplet"))
    kept = cells[~few | ~few.duplicated()].reset_index(drop=True)
    assert judged(plan, kept, paths)[1].decision.verdict == "NOT_SUPPORTED"


def test_without_a_primary_genomes_have_no_ceiling(plan, tmp_path):
    cells, paths = cells_and_files(tmp_path, keep=1.0, error=0.0)
    one = judged(plan, cells[cells["compartment"] == "marrow"].reset_index(drop=True), paths)[1]
    assert one.decision.codes[0] == "NO_DATA"


def test_a_file_without_arm_statistics_is_named(tmp_path):
    ad.AnnData(np.zeros((2, 1))).write_h5ad(tmp_path / "P9.h5ad")
    with pytest.raises(ContractError, match=r"P9\.h5ad lacks the arm statistics"):
        read_genomes([tmp_path / "P9.h5ad"])
