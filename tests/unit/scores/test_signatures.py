from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dtcflow import resources
from dtcflow.contracts import CELL_TYPES, InputError
from dtcflow.scores.overlaps import OVERLAP_COLUMNS, overlap_table
from dtcflow.scores.signatures import (
    ROLES,
    GeneSet,
    Synonyms,
    derive_variants,
    load_gmt,
    load_markers,
    load_panel,
    overlap_matrix,
    resolve,
)

# ------------------------------------------------------------------------------------------------ shipped tables


@pytest.fixture(scope="module")
def panel() -> dict[str, GeneSet]:
    return {one.name: one for one in load_panel()}


def test_the_shipped_panel_has_one_primary_set_free_of_cell_cycle_genes(panel):
    primary = [one.name for one in panel.values() if one.role == "primary"]
    assert primary == ["LIM_MAMMARY_STEM_CELL_UP_NOPROLIF"]
    proliferation = {gene for one in panel.values() if one.family == "proliferation" for gene in one.genes}
    assert not proliferation & set(panel[primary[0]].genes)
    assert len(panel["LIM_MAMMARY_STEM_CELL_UP"].genes) - len(panel[primary[0]].genes) == 3


def test_no_emt_variant_has_no_emt_gene_and_every_role_is_filled(panel):
    emt = set(panel["HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION"].genes)
    assert not emt & set(panel["LIM_MAMMARY_STEM_CELL_UP_NOPROLIF_NOEMT"].genes)
    assert {one.role for one in panel.values()} == set(ROLES)


def test_the_positive_control_shares_no_gene_with_the_marker_panels(panel):
    markers = {gene for one in load_markers().values() for gene in one.genes}
    control = [one for one in panel.values() if one.role == "positive_control"]
    assert [one.name for one in control] == ["CHARAFE_BREAST_CANCER_LUMINAL_VS_MESENCHYMAL_UP_NOMARKER"]
    assert not markers & set(control[0].genes)


def test_panel_rows_agree_with_the_gene_table_and_carry_licence_and_citation():
    facts = pd.read_csv(resources.path("signature_panel.tsv"), sep="\t", keep_default_na=False, dtype=str)
    genes = pd.read_csv(resources.path("signatures.tsv"), sep="\t", keep_default_na=False, dtype=str)
    assert (
        facts["n_genes"].astype(int).tolist()
        == genes.groupby("signature", sort=False).size()[facts["signature"]].tolist()
    )
    assert (facts["licence"] != "").all()
    assert (facts["citation"] != "").all()
    # an identifier that was not checked is left out, so that none is ever shown
    assert ((facts["pmid"] != "") == (facts["pmid_checked"] == "true")).all()
    assert facts["pmid_checked"].isin(["true", "false"]).all()
    unverified = (facts["pmid"] == "") & (facts["doi"] == "")
    assert facts.loc[unverified, "note"].str.contains("unverified").all()
    assert not facts["signature"].str.contains("KEGG|BIOCARTA").any()


def test_markers_cover_every_cell_type_with_current_symbols():
    markers = load_markers()
    assert set(markers) == set(CELL_TYPES) - {"unknown"}
    assert all(8 <= len(one.up) <= 20 for one in markers.values())
    current = set(pd.read_csv(resources.path("gene_positions.tsv.gz"), sep="\t")["symbol"])
    assert {gene for one in markers.values() for gene in one.up} <= current
    epithelial = set(markers["epithelial"].up)
    others = {gene for name, one in markers.items() if name != "epithelial" for gene in one.up}
    assert not epithelial & others
    assert {"KRT8", "KRT19"} <= epithelial  # luminal
    assert {"KRT5", "KRT14", "KRT17"} <= epithelial  # basal


# ------------------------------------------------------------------------------------------------ own tables


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_own_table_reads_direction_weight_and_symbols_that_look_missing(tmp_path):
    table = (
        "signature\tgene\tdirection\tweight\trole\nA\tNA\tup\t2\tprimary\nA\tNAN\tdown\t\t\n\t\t\t\t\nB\tTP53\t\t\t\n"
    )
    sets = load_panel(write(tmp_path / "own.tsv", table))
    assert [one.name for one in sets] == ["A", "B"]
    assert (sets[0].up, sets[0].down, sets[0].weights) == (("NA",), ("NAN",), (2.0, 1.0))
    assert (sets[0].role, sets[1].role, sets[1].weights) == ("primary", "sensitivity", None)


def test_all_problems_of_an_own_table_are_reported_with_their_rows(tmp_path):
    table = (
        "signature\tgene\tdirection\tweight\trole\n"
        "A\tG1\tsideways\t1\tbest\nA\t\tup\t1\t\nA\tG2\tup\t-1\t\nA\tG3\tup\tx\t\nA\tG4\tup\t1\t\nA\tG4\tdown\t1\t\n\tG5\tup\t1\t\n"
    )
    with pytest.raises(InputError) as caught:
        load_panel(write(tmp_path / "own.tsv", table))
    assert [(problem.row, problem.key) for problem in caught.value.problems] == [
        (2, "direction"),
        (3, "gene"),
        (4, "weight"),
        (5, "weight"),
        (7, "gene"),
        (8, "signature"),
        (2, "A, role"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("signature\tsymbol\nA\tG1\n", "column gene"),
        ("signature\tgene\n", "no row"),
        ("signature\tgene\trole\nA\tG1\tprimary\nB\tG2\tprimary\n", "primary sets A, B"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        load_panel(write(tmp_path / "own.tsv", text))


def test_missing_file_is_an_input_error(tmp_path):
    for read in (load_panel, load_gmt, load_markers):
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / "none.tsv")


def test_panel_and_gene_table_must_name_the_same_sets(tmp_path):
    write(tmp_path / "signatures.tsv", "signature\tgene\nA\tG1\n")
    write(tmp_path / "signature_panel.tsv", "signature\trole\nB\tprimary\n")
    with pytest.raises(InputError, match=r"B without genes[\s\S]*no row for A"):
        load_panel(tmp_path / "signatures.tsv")


def test_own_marker_table_reports_unknown_types_and_repeats(tmp_path):
    table = write(tmp_path / "m.tsv", "cell_type\tgene\nB\tCD19\nB\tCD19\nWizard\tWAND1\n")
    with pytest.raises(InputError) as caught:
        load_markers(table)
    assert [problem.row for problem in caught.value.problems] == [3, 4]


# ------------------------------------------------------------------------------------------------ GMT


def test_gmt_tolerates_bom_crlf_blank_lines_trailing_tabs_and_repeated_genes(tmp_path):
    text = "\ufeffX_UP\tsome study\tA\tB\tA\t\t\r\n\r\nX_DN\tna\tC\r\n"
    sets = load_gmt(write(tmp_path / "own.gmt", text))
    assert [(one.name, one.up, one.down, one.role) for one in sets] == [
        ("X_UP", ("A", "B"), (), "user"),
        ("X_DN", ("C",), (), "user"),
    ]
    assert sets[0].citation == "some study"


def test_gmt_problems_name_file_and_line(tmp_path):
    text = "A\tna\tG1\nA\tna\tG2\nB no tabs here\n\tna\tG3\n"
    with pytest.raises(InputError) as caught:
        load_gmt(write(tmp_path / "own.gmt", text))
    assert [problem.row for problem in caught.value.problems] == [2, 3, 4]
    assert all("own.gmt" in problem.where for problem in caught.value.problems)


def test_empty_gmt_is_refused(tmp_path):
    with pytest.raises(InputError, match="no set"):
        load_gmt(write(tmp_path / "own.gmt", "\n\n"))


# ------------------------------------------------------------------------------------------------ variants, overlap


def test_variants_follow_the_rule():
    sets = [
        GeneSet("STEM", ("A", "B", "C"), role="primary", weights=(1.0, 2.0, 3.0)),
        GeneSet("REST", ("A",), ("D", "B"), role="dormancy"),
        GeneSet("LUM", ("E", "M"), role="positive_control"),
        GeneSet("CYC", ("B",), role="covariate", family="proliferation"),
        GeneSet("EMT", ("C",), role="covariate", family="emt"),
    ]
    variants = {one.name: one for one in derive_variants(sets, markers={"B": GeneSet("B", ("M",))})}
    assert list(variants) == [
        *("STEM", "STEM_NOPROLIF", "STEM_NOPROLIF_NOEMT", "REST", "REST_NOPROLIF", "LUM_NOMARKER", "CYC", "EMT"),
    ]
    assert (variants["STEM"].role, variants["STEM_NOPROLIF"].role) == ("sensitivity", "primary")
    assert variants["STEM_NOPROLIF"].up == ("A", "C")
    assert variants["STEM_NOPROLIF"].weights == (1.0, 3.0)
    assert (variants["STEM_NOPROLIF_NOEMT"].up, variants["STEM_NOPROLIF_NOEMT"].role) == (("A",), "sensitivity")
    assert (variants["REST_NOPROLIF"].up, variants["REST_NOPROLIF"].down) == (("A",), ("D",))
    assert variants["LUM_NOMARKER"].up == ("E",)
    again = [one.name for one in derive_variants(list(variants.values()), markers={})]
    assert again == list(variants)  # deriving twice adds nothing


def test_without_proliferation_sets_the_primary_set_stays_primary():
    assert [one.role for one in derive_variants([GeneSet("STEM", ("A",), role="primary")])] == ["primary"]


def test_overlap_counts_shared_genes_of_both_directions():
    table = overlap_matrix([GeneSet("A", ("x", "y"), ("z",)), GeneSet("B", ("z", "w"))])
    assert table.to_numpy().tolist() == [[3, 1], [1, 2]]
    assert overlap_matrix([]).shape == (0, 0)


def test_overlap_table_lists_each_pair_once_and_only_those_that_share():
    sets = [
        GeneSet("B", ("x", "y"), ("z",), role="primary"),
        GeneSet("A", ("z", "w"), role="mask"),
        GeneSet("C", ("q",)),
    ]
    table = overlap_table(sets)
    assert list(table.columns) == list(OVERLAP_COLUMNS)
    assert table.to_numpy().tolist() == [["A", "B", 2, 3, 1, 0.5, "mask", "primary"]]
    pd.testing.assert_frame_equal(overlap_table(sets[::-1]), table)
    assert overlap_table([]).empty


def test_overlaps_of_the_shipped_panel_are_those_the_plan_counts_on():
    table = overlap_table(load_panel()).set_index(["signature", "other"])["n_shared"]
    assert table["HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION", "LIM_MAMMARY_STEM_CELL_UP"] == 65
    purged = "LIM_MAMMARY_STEM_CELL_UP_NOPROLIF_NOEMT"
    assert ("HALLMARK_EPITHELIAL_MESENCHYMAL_TRANSITION", purged) not in table


def test_a_gene_in_both_directions_or_a_missing_weight_is_refused():
    with pytest.raises(ValueError, match="more than once: A"):
        GeneSet("S", ("A",), ("A",))
    with pytest.raises(ValueError, match="2 genes and 1 weights"):
        GeneSet("S", ("A", "B"), weights=(1.0,))


# ------------------------------------------------------------------------------------------------ renaming


ALIASES = pd.DataFrame(
    [
        ("OLD1", "NEW1", "previous"),
        ("NICK", "NEW2", "alias"),
        ("TWO", "NEW1", "alias"),
        ("TWO", "NEW2", "alias"),
        ("OLD3", "NEW3", "previous"),
    ],
    columns=["alias", "symbol", "kind"],
)


@pytest.mark.parametrize(
    ("genes", "present", "expected", "n_renamed"),
    [
        (["OLD1", "NICK"], ["NEW1", "NEW2"], {"OLD1": "NEW1", "NICK": "NEW2"}, 2),
        (["NEW3"], ["OLD3"], {"NEW3": "OLD3"}, 1),  # the data are older than the set
        (["TWO"], ["NEW1", "NEW2"], {}, 0),  # ambiguous
        (["TWO"], ["NEW2"], {"TWO": "NEW2"}, 1),  # only one of the two is in the data
        (["OLD1", "NEW1"], ["NEW1"], {"NEW1": "NEW1"}, 0),  # one symbol of the data never serves two genes
        (["OLD1"], ["OLD1", "NEW1"], {"OLD1": "OLD1"}, 0),  # an exact match wins
        (["X"], [], {}, 0),
    ],
)
def test_resolve(genes, present, expected, n_renamed):
    found = resolve(genes, present, ALIASES)
    assert found.symbols == expected
    assert found.n_renamed == n_renamed
    assert resolve(genes, present, Synonyms.from_table(ALIASES)) == found


def test_resolve_without_a_table_matches_exactly():
    assert resolve(["A", "B"], ["A"], None).symbols == {"A": "A"}
