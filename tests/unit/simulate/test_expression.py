import dataclasses

import numpy as np
import pandas as pd
import pytest

from dtcflow.contracts import InputError
from dtcflow.genes import gene_mask
from dtcflow.scores.signatures import load_markers, load_panel
from dtcflow.simulate import design, expression

SCENARIO = design.SCENARIOS["progenitor"]


@pytest.fixture(scope="module")
def universe():
    return expression.build_universe(SCENARIO, 7)


@pytest.fixture(scope="module")
def panel():
    return {gene_set.name: gene_set for gene_set in load_panel(variants=False)}


def test_streams_are_reproducible_and_differ_by_key():
    first, again, other = (expression.stream(5, *key).random(4) for key in ((1, 2), (1, 2), (2, 1)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_profile_gives_fixed_shares_first_and_splits_the_rest():
    level = np.array([1.0, 3.0, 2.0, 2.0, 6.0])
    fixed = np.array([np.nan, np.nan, 0.1, np.nan, np.nan])
    mito = np.array([True, False, False, False, False])
    ribo = np.array([False, True, False, False, False])
    scenario = dataclasses.replace(SCENARIO, mitochondrial_share=0.06)
    profile = expression._profile(level, fixed, mito, ribo, scenario, 0.24)
    # 0.06 + 0.24 + 0.1 are taken; 0.6 is split 2 : 6
    np.testing.assert_allclose(profile, [0.06, 0.24, 0.1, 0.15, 0.45])


def test_genes_have_real_symbols_and_positions_in_genomic_order(universe):
    genes = universe.genes
    assert len(genes) == SCENARIO.n_genes
    assert genes.index.is_unique
    assert genes["gene_id"].str.match(r"ENSG\d{11}$").all()
    assert genes["chromosome"].nunique() >= 24
    per_arm = genes["arm"].value_counts()
    assert per_arm[list(design.ARM_WEIGHTS)].min() >= 60


def test_all_genes_that_the_analysis_reads_are_there(universe, panel):
    have = set(universe.genes.index)
    assert {"XIST", "HBA1", "HBB", "IGKC", "KRT8", "KRT18", "MALAT1", "B2M"} <= have
    assert universe.mitochondrial.sum() == 13
    assert gene_mask(universe.genes.index, "ribo").sum() > 70
    markers = {gene for gene_set in load_markers().values() for gene in gene_set.up}
    assert len(markers - have) <= 0.02 * len(markers)
    for gene_set in panel.values():
        # old symbols count through their current names; the few that are lost have no gene any more
        assert sum(gene in have for gene in gene_set.genes) >= 0.75 * len(gene_set.genes), gene_set.name


def test_profiles_are_shares_with_mitochondrial_and_ribosomal_parts(universe):
    ribo = gene_mask(universe.genes.index, "ribo")
    for state, profile in universe.profiles.items():
        assert profile.min() >= 0
        assert profile.sum() == pytest.approx(1.0)
        assert profile[universe.mitochondrial].sum() == pytest.approx(SCENARIO.mitochondrial_share, rel=0.01)
        assert profile[ribo].sum() == pytest.approx(design.STATES[state].ribosomal, rel=0.02)


def test_markers_and_abundant_genes_belong_to_their_state(universe):
    def share(state, gene):
        return universe.profiles[state][universe.genes.index.get_loc(gene)]

    assert share("erythroid", "HBB") > 0.1
    assert share("T_NK", "HBB") < 1e-4 * 0.5
    assert share("T_NK", "CD3D") > 10 * share("monocyte", "CD3D")
    assert share("carcinoma", "EPCAM") > 10 * share("HSPC", "EPCAM")
    assert share("macrophage", "C1QA") > 10 * share("monocyte", "C1QA")
    assert share("luminal", "KRT5") > 10 * share("carcinoma", "KRT5")


def test_related_states_are_more_alike_than_distant_ones(universe):
    def distance(one, other):
        difference = np.log(universe.profiles[one]) - np.log(universe.profiles[other])
        return 1.4826 * np.median(np.abs(difference - np.median(difference)))  # robust SD: markers left out

    assert distance("T_NK", "B") < 0.8 * distance("T_NK", "fibroblast")
    assert distance("luminal", "carcinoma") < 0.8 * distance("luminal", "T_NK")
    # the ovarian cohort's compartments differ by a robust SD of .5-.7
    assert 0.3 < distance("carcinoma", "T_NK") < 1.0


def test_the_programme_has_no_proliferation_gene(universe, panel):
    programme = set(universe.genes.index[universe.programme != 0])
    proliferation = {g for s in panel.values() if s.family == "proliferation" for g in s.up}
    assert not programme & proliferation
    assert len(programme) > 500
    assert universe.programme[universe.programme != 0].mean() == pytest.approx(SCENARIO.programme_log2fc, abs=0.05)
    assert ((universe.s_phase > 0) & (universe.g2m_phase > 0)).sum() == 0


def test_quiescence_follows_the_direction_of_its_signature(universe, panel):
    up, down = (set(genes) for genes in (panel["WIECEK_G0_ARREST"].up, panel["WIECEK_G0_ARREST"].down))
    symbols = universe.genes.index
    assert (universe.quiescence[symbols.isin(list(up))] > 0).all()
    assert (universe.quiescence[symbols.isin(list(down))] < 0).all()
    assert not expression.build_universe(design.SCENARIOS["null"], 7).quiescence.any()


def test_marrow_stem_cells_are_the_trap(universe, panel):
    """HSPC against the mean of the other blood cells: stemness sets up, negative controls clearly up."""
    others = np.mean([universe.profiles[state] for state in ("T_NK", "B", "monocyte", "erythroid")], axis=0)
    difference = np.log2(universe.profiles["HSPC"]) - np.log2(others)
    background = np.median(difference)

    def lift(mask):
        return np.median(difference[mask]) - background

    control = panel["JAATINEN_HEMATOPOIETIC_STEM_CELL_UP"].up
    assert lift(universe.programme != 0) > 0.25
    assert lift(universe.genes.index.isin(control)) > 0.8


def test_dosage_of_hand_made_events(universe):
    factor = expression.dosage_factor(universe, {"1q": 1, "16q": -1})
    arms = universe.genes["arm"].to_numpy(object)
    np.testing.assert_allclose(factor[arms == "1q"], 1.5 ** universe.dosage[arms == "1q"])
    np.testing.assert_allclose(factor[arms == "16q"], 0.5 ** universe.dosage[arms == "16q"])
    assert (factor[~pd.Series(arms).isin(["1q", "16q"])] == 1).all()
    assert (expression.dosage_factor(universe, {}) == 1).all()


def test_a_patient_does_not_depend_on_the_number_of_genes():
    few, many = (expression.draw_patient(SCENARIO, 3, 2, n) for n in (0, 50))
    assert few.karyotype == many.karyotype
    assert (few.dtc_clone, few.programme_scale, few.shift) == (many.dtc_clone, many.programme_scale, many.shift)
    assert few.own.shape == (0,)
    assert many.own.shape == (50,)


def test_the_weak_patient_is_weak():
    scales = [expression.draw_patient(SCENARIO, 1, patient, 0).programme_scale for patient in range(7)]
    assert scales[4] < 0.5 < min(scales[:4] + scales[5:])


def test_an_unknown_signature_is_named():
    scenario = dataclasses.replace(SCENARIO, programme_sets=("NO_SUCH_SET",))
    with pytest.raises(InputError, match="NO_SUCH_SET"):
        expression.build_universe(scenario, 1)
