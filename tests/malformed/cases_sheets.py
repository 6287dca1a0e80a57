"""Sample sheets, configurations and plans that are broken, or mean harm."""

from __future__ import annotations

import io
import itertools
import zipfile

import yaml
from cases import Register, Study

CASES = Register()
case = CASES.case

SHEET = "sample_id\tpatient_id\tcompartment\tpath\n"
ROW = "P1_marrow\tP1\tmarrow\tgood.csv\n"

# ---------------------------------------------------------------------------------------------------------------------
# The sheet as a file
# ---------------------------------------------------------------------------------------------------------------------


def sheet(study: Study, content: str | bytes) -> None:
    study.write()
    study.sheet(content)


@case("samples.tsv", "header", raw=True)
def sheet_is_empty(study: Study) -> None:
    sheet(study, "")


@case("samples.tsv", "comment", raw=True)
def sheet_of_comments(study: Study) -> None:
    sheet(study, "# sample_id\tpatient_id\n# P1\tP1\n")


@case("samples.tsv", "row", raw=True)
def sheet_without_samples(study: Study) -> None:
    sheet(study, SHEET)


@case("samples.tsv", "sample_id", "no such column", n=4, raw=True)
def sheet_without_a_header(study: Study) -> None:
    sheet(study, ROW)


@case("compartment", raw=True)
def sheet_without_a_required_column(study: Study) -> None:
    sheet(study, "sample_id\tpatient_id\tpath\nP1_marrow\tP1\tgood.csv\n")


@case("path", raw=True)
def sheet_with_a_column_twice(study: Study) -> None:
    sheet(study, SHEET.strip() + "\tpath\n" + ROW.strip() + "\tgood.csv\n")


@case("binary", raw=True)
def sheet_is_a_workbook(study: Study) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>" * 50)
    sheet(study, buffer.getvalue())


@case("UTF-8", "row 2", raw=True)
def sheet_in_latin_1(study: Study) -> None:
    sheet(study, (SHEET + "M\xfcller\tP1\tmarrow\tgood.csv\n").encode("latin-1"))


@case("UTF-8", raw=True)
def sheet_with_zero_bytes(study: Study) -> None:
    sheet(study, (SHEET + ROW).encode() + b"\0\0\0")


@case("UTF-8", raw=True)
def sheet_in_utf16(study: Study) -> None:
    sheet(study, (SHEET + ROW).encode("utf-16"))


@case("fields", "row 2", raw=True)
def sheet_with_a_long_row(study: Study) -> None:
    sheet(study, SHEET + ROW.strip() + "\tmore\n")


@case("row 2", "compartment", "path", n=2, raw=True)
def sheet_with_a_short_row(study: Study) -> None:
    sheet(study, SHEET + "P1_marrow\tP1\n")


@case("quote", "row 2", raw=True)
def sheet_with_a_quote_that_never_ends(study: Study) -> None:
    sheet(study, SHEET + '"P1_marrow\tP1\tmarrow\tgood.csv\n')


@case("samples.tsv", raw=True)
def sheet_is_a_folder(study: Study) -> None:
    study.write()
    (study.folder / "config" / "samples.tsv").unlink()
    (study.folder / "config" / "samples.tsv").mkdir()


@case("samples.tsv", raw=True)
def sheet_is_a_loop_of_links(study: Study) -> None:
    study.write()
    path = study.folder / "config" / "samples.tsv"
    path.unlink()
    path.symlink_to("samples.tsv")


# ---------------------------------------------------------------------------------------------------------------------
# Ids: they become file names, table keys and text on a page
# ---------------------------------------------------------------------------------------------------------------------

for label, bad in {
    "climbs_out": "../../etc/P1",
    "is_hidden": ".P1",
    "is_absolute": "/tmp/P1",
    "holds_a_space": "P1 marrow",
    "holds_a_slash": "P1/marrow",
    "holds_a_backslash": "P1\\marrow",
    "is_a_formula": "=1+1",
    "is_a_command": "P1;touch x",
    "is_an_option": "-rf",
    "is_a_wildcard": "P1{sample}",
    "is_a_script": "<script>alert(1)</script>",
    "is_empty": "",
    "looks_latin_and_is_not": "\u0420 1".replace(" ", ""),
    "holds_a_colon": "P1:marrow",
    "is_longer_than_a_file_name": "P" * 300,
}.items():

    def _bad_sample(study: Study, bad: str = bad) -> None:
        study.rows[0][0] = bad

    def _bad_patient(study: Study, bad: str = bad) -> None:
        study.rows[0][1] = bad

    _bad_sample.__name__ = f"sample_id_{label}"
    _bad_patient.__name__ = f"patient_id_{label}"
    case("samples.tsv", "sample_id")(_bad_sample)
    case("samples.tsv", "patient_id")(_bad_patient)


@case("P1_marrow", "row 2")
def sample_id_twice(study: Study) -> None:
    study.rows[1][0] = "P1_marrow"


@case("p1_MARROW")
def sample_ids_that_differ_in_case_only(study: Study) -> None:
    study.rows[1][0] = "p1_MARROW"


# ---------------------------------------------------------------------------------------------------------------------
# Fields
# ---------------------------------------------------------------------------------------------------------------------


@case("compartment", "'bone'", "marrow")
def unknown_compartment(study: Study) -> None:
    study.rows[0][2] = "bone"


@case("compartment", "'Marrow'", "marrow")
def compartment_in_capitals(study: Study) -> None:
    study.rows[0][2] = "Marrow"


@case("path")
def path_left_empty(study: Study) -> None:
    study.rows[0][3] = ""


for column, bad in {
    "platform": "nanopore",
    "timepoint": "before",
    "enrichment": "yes",
    "format": "xlsx",
    "age": "-4",
    "sex": "f/m",
    "dfs_months": "many",
    "dfs_event": "2",
    "os_event": "dead",
    "nucleated_cells_screened": "1e6 cells",
}.items():

    def _bad_field(study: Study, column: str = column, bad: str = bad) -> None:
        study.column(column, bad)
        if column.endswith(("_months", "_event")):  # an outcome needs both
            study.column(
                *(
                    (column.replace("months", "event"), "1")
                    if column.endswith("months")
                    else (column.replace("event", "months"), "9")
                )
            )

    _bad_field.__name__ = f"{column}_is_{bad.replace('/', '').replace(' ', '_').replace('-', 'minus_')}"
    case("samples.tsv", "row 2", column, bad)(_bad_field)


@case("sex", "P1")
def patient_of_two_sexes(study: Study) -> None:
    study.rows[1][1] = "P1"
    study.column("sex", "female", "male")


@case("raw_path", "raw.h5")
def raw_path_leads_nowhere(study: Study) -> None:
    study.column("raw_path", "raw.h5")


@case("cnv_profile", "profile.seg")
def copy_number_profile_leads_nowhere(study: Study) -> None:
    study.column("cnv_profile", "profile.seg")


@case("cnv_profile", "row 2", "tumour.seg, row 3", "start 900, end 100")
def copy_number_profile_with_a_row_upside_down(study: Study) -> None:
    (study.folder / "tumour.seg").write_text(
        "ID\tchrom\tloc.start\tloc.end\tseg.mean\na\t1\t1\t9\t0\na\t1\t900\t100\t0\n"
    )
    study.column("cnv_profile", "tumour.seg")


@case("cnv_profile", "row 3", "one value per patient", "'a.seg' in row 2")
def two_copy_number_profiles_of_one_patient(study: Study) -> None:
    for name in ("a.seg", "b.seg"):
        (study.folder / name).write_text("arm\tstate\n1p\tgain\n1q\tloss\n8q\tneutral\n")
    study.rows[1][1] = study.rows[0][1]
    study.column("cnv_profile", "a.seg", "b.seg")


# ---------------------------------------------------------------------------------------------------------------------
# Configuration
# ---------------------------------------------------------------------------------------------------------------------


def config(study: Study, content: str | bytes) -> None:
    study.write()
    study.config(content)


@case("config.yaml", raw=True)
def config_with_a_tab(study: Study) -> None:
    config(study, "seed: 1\nqc:\n\tn_mads: 3\n")


@case("config.yaml", raw=True)
def config_that_ends_in_a_bracket(study: Study) -> None:
    config(study, "seed: 1\nqc: [\n")


@case("config.yaml", raw=True)
def config_is_a_list(study: Study) -> None:
    config(study, "- seed\n- 1\n")


@case("config.yaml", raw=True)
def config_is_a_sentence(study: Study) -> None:
    config(study, "please run everything\n")


@case("config.yaml", raw=True)
def config_is_binary(study: Study) -> None:
    config(study, bytes(range(256)))


@case("written twice", raw=True)
def config_with_a_key_twice(study: Study) -> None:
    config(study, "seed: 1\nseed: 2\n")


@case("config.yaml", raw=True)
def config_that_wants_to_run_code(study: Study) -> None:
    config(study, f"seed: !!python/object/apply:os.mkdir ['{study.folder / 'ran'}']\n")


@case("config.yaml", "aliases", raw=True)
def config_that_contains_itself(study: Study) -> None:
    config(study, "qc: &a\n  n_mads: *a\n")


@case("config.yaml", "aliases", raw=True)
def config_that_explodes(study: Study) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    names = "abcdefghij"
    lines += [f"{new}: &{new} [{', '.join(['*' + old] * 10)}]" for old, new in itertools.pairwise(names)]
    config(study, "\n".join(lines) + "\n")


for label, settings, words in (
    ("unknown_key", {"qc": {"n_mad": 3}}, ("qc.n_mad", "did you mean 'qc.n_mads'")),
    ("unknown_block", {"quality": {"n_mads": 3}}, ("quality",)),
    ("a_word_for_a_number", {"qc": {"n_mads": "five"}}, ("qc.n_mads", "'five'")),
    ("a_number_out_of_range", {"qc": {"max_pct_mt": 140}}, ("qc.max_pct_mt", "140")),
    ("a_negative_seed", {"seed": -1}, ("seed", "-1")),
    ("a_seed_that_is_no_number", {"seed": float("nan")}, ("seed",)),
    ("a_fraction_above_one", {"intake": {"min_placed_fraction": 1.5}}, ("intake.min_placed_fraction", "1.5")),
    ("an_unknown_genome", {"intake": {"genome_build": "hg17"}}, ("intake.genome_build", "hg17")),
    ("a_word_for_a_block", {"qc": "strict"}, ("qc", "strict")),
    ("a_list_for_a_number", {"qc": {"n_mads": [3, 5]}}, ("qc.n_mads",)),
    (
        "positions_that_are_not_there",
        {"intake": {"gene_positions": "genes.gtf"}},
        ("intake.gene_positions", "genes.gtf"),
    ),
    ("panels_that_are_not_there", {"annotation": {"panels": "markers.tsv"}}, ("annotation.panels", "markers.tsv")),
    ("signatures_that_are_not_there", {"scores": {"signatures": "sets.tsv"}}, ("scores.signatures", "sets.tsv")),
    ("gene_sets_that_are_not_there", {"scores": {"gmt": ["sets.gmt"]}}, ("scores.gmt", "sets.gmt")),
    ("a_sheet_that_is_not_there", {"samples": "config/sheet.tsv"}, ("config/sheet.tsv",)),
    ("a_plan_that_is_not_there", {"claims": "config/plan.yaml"}, ("claims", "config/plan.yaml")),
):

    def _bad_config(study: Study, settings: dict[str, object] = settings) -> None:
        study.settings |= settings

    _bad_config.__name__ = f"config_names_{label}"
    case(*words)(_bad_config)


# ---------------------------------------------------------------------------------------------------------------------
# The analysis plan
# ---------------------------------------------------------------------------------------------------------------------


def plan(study: Study, change) -> None:
    path = study.folder / "config" / "claims.yaml"
    loaded = yaml.safe_load(path.read_text())
    change(loaded)
    path.write_text(yaml.safe_dump(loaded))


@case("claims.yaml")
def plan_that_is_no_yaml(study: Study) -> None:
    (study.folder / "config" / "claims.yaml").write_text("claims: [\n")


@case("claims.yaml")
def plan_that_wants_to_run_code(study: Study) -> None:
    text = f"claims: !!python/object/apply:os.mkdir ['{study.folder / 'ran'}']\n"
    (study.folder / "config" / "claims.yaml").write_text(text)


@case("claims.yaml")
def plan_without_claims(study: Study) -> None:
    plan(study, lambda loaded: loaded.pop("claims"))


@case("claims.yaml", "sesoi")
def plan_with_a_word_for_a_number(study: Study) -> None:
    def change(loaded):
        next(claim for claim in loaded["claims"] if claim["id"] == "P2")["sesoi"] = "large"

    plan(study, change)


@case("claims.yaml", "P2")
def plan_with_a_claim_twice(study: Study) -> None:
    def change(loaded):
        loaded["claims"].append(next(claim for claim in loaded["claims"] if claim["id"] == "P2"))

    plan(study, change)
