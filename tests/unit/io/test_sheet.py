import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtcflow.contracts import COMPARTMENTS, InputError
from dtcflow.io.schema import SAMPLES, load_schema
from dtcflow.io.sheet import known_copy_number, read_samples, sample_row

HEAD = "sample_id\tpatient_id\tcompartment\tpath"
ROWS = "P1_marrow\tP1\tmarrow\tm.h5ad\nP1_primary\tP1\tprimary\tp.h5ad\n"


@pytest.fixture
def sheet(tmp_path):
    def write(content, **options):
        path = tmp_path / "samples.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_samples(path, base_dir=tmp_path, **options)

    return write


@pytest.fixture
def refused(sheet):
    def check(content):
        with pytest.raises(InputError) as caught:
            sheet(content)
        return [(problem.row, problem.key, str(problem)) for problem in caught.value.problems]

    return check


def test_a_plain_sheet(sheet):
    frame = sheet(f"{HEAD}\n{ROWS}")
    assert list(frame.index) == ["P1_marrow", "P1_primary"]
    assert frame.index.name == "sample_id"
    assert list(frame.columns) == [name for name in load_schema(SAMPLES)["properties"] if name != "sample_id"]
    row = frame.loc["P1_marrow"]
    assert (row["platform"], row["format"], row["batch"], row["timepoint"]) == ("droplet", "auto", "1", "")
    assert math.isnan(row["age"])
    assert frame.attrs["lines"] == {"P1_marrow": 2, "P1_primary": 3}


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# a comment, with; all\tseparators\n\n"])
def test_separators_line_ends_and_comments(sheet, separator, end, start):
    text = f"{HEAD}\tage\tmine\n# P0\tP0\tmarrow\tx\nP1_marrow\tP1\tmarrow\tm 1.h5ad\t 54 \t0042\nP2\tP2\tblood\tb\n"
    frame = sheet((start + text.replace("\t", separator)).replace("\n", end))
    assert list(frame["path"]) == ["m 1.h5ad", "b"]
    assert frame["age"].iloc[0] == 54.0
    assert list(frame["mine"]) == ["0042", ""]


def test_quoted_fields(sheet):
    frame = sheet(HEAD.replace("\t", ",") + ',treatment\nA,P,marrow,"a,b.h5ad","say ""x"""\n')
    assert frame.loc["A", "path"] == "a,b.h5ad"
    assert frame.loc["A", "treatment"] == 'say "x"'


def test_missing_spellings(sheet):
    frame = sheet(f"{HEAD}\tage\tsex\tenrichment\ttreatment\nA\tP\tmarrow\ta\tNA\tn/a\tnone\tnone\n")
    assert math.isnan(frame.loc["A", "age"])
    assert tuple(frame.loc["A", ["sex", "enrichment", "treatment"]]) == ("", "none", "none")


def test_known_copy_number_is_the_patients(sheet, refused):
    head = f"{HEAD}\tcnv_profile\n"
    frame = sheet(f"{head}A\tP1\tmarrow\ta\t\nB\tP1\tprimary\tb\tone.seg\nC\tP2\tmarrow\tc\t\n")
    assert known_copy_number(frame, "P1") == "one.seg"
    assert known_copy_number(frame, "P2") == ""
    ((row, key, text),) = refused(f"{head}A\tP1\tmarrow\ta\ttwo.seg\nB\tP1\tprimary\tb\tone.seg\n")
    assert (row, key) == (3, "cnv_profile")
    assert "'one.seg' for patient 'P1', but 'two.seg' in row 2" in text
    ((row, key, text),) = refused(f"{head}A\tD1\tnormal_marrow\ta\tone.seg\n")
    assert (row, key) == (2, "cnv_profile")
    assert "a donor without a tumour" in text


def test_all_problems_at_once(refused):
    found = refused(
        f"{HEAD}\tage\tsex\tgrade\n"
        "A a\tP1\tmarow\tx\t-3\tfemale\t2\n"
        "B\tP1\tprimary\t./x\tabc\tmale\t2.5\n"
        "b\tp1\tprimary\t\t12\t\t7\n"
        "B\tP2\tMarrow\tz\t\tf\t\textra\n"
        "NA\tP3\tmarrow\tw\tinf\t\t\n"
    )
    keys = {(row, key) for row, key, _ in found}
    assert keys == {
        *((2, "sample_id"), (2, "compartment"), (2, "age"), (3, "path"), (3, "age"), (3, "sex"), (3, "grade")),
        *((4, "sample_id"), (4, "patient_id"), (4, "path"), (4, "grade")),
        *((5, None), (5, "compartment"), (5, "sample_id"), (5, "sex"), (6, "sample_id"), (6, "age")),
    }
    texts = {(row, key): text for row, key, text in found}
    assert "did you mean 'marrow'?" in texts[2, "compartment"]
    assert "did you mean 'marrow'?" in texts[5, "compartment"]
    assert "also in row 2" in texts[3, "path"]
    assert "differs from 'B' in row 3 only by upper and lower case" in texts[4, "sample_id"]
    assert "also in row 3 under patient 'P1'" in texts[5, "sample_id"]
    assert "but 'female' in row 2" in texts[3, "sex"]
    assert "an empty field" in texts[6, "sample_id"]
    assert "8 fields" in texts[5, None]
    assert [row for row, _, _ in found] == sorted(row for row, _, _ in found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no line that is not a comment"),
        ("# only\n\n", "no line that is not a comment"),
        (HEAD + "\n", "a header without rows"),
        ("sample\tpatient_id\tcompartment\nA\tP\tmarrow\n", "rename the column 'sample' to 'sample_id'"),
        ("sample\tpatient_id\tcompartment\nA\tP\tmarrow\n", "path: found no such column"),
        (f"{HEAD}\tpath\nA\tP\tmarrow\ta\tb\n", "the column 2 times"),
        (f"{HEAD}\t\tx\nA\tP\tmarrow\ta\tb\tc\n", "a column without a name"),
        (f'{HEAD}\n"A\tP\tmarrow\ta\n', "remove the stray quote"),
        (f"{HEAD}\nA\tP\tmarrow\ta\n".encode("utf-16"), "not UTF-8"),
        (f"{HEAD}\nA\tP\tmarrow\t\xe9\n".encode("latin-1"), "row 2: found text that is not UTF-8"),
        (b"PK\x03\x04\0\0\0", "a spreadsheet or other binary file"),
        (f"{HEAD}\n../A\tP\tmarrow\ta\n", "use only the allowed characters"),
        (f"{HEAD}\n-A\tP\tmarrow\ta\n", "starting with a letter or digit"),
        (f"{HEAD}\nA\t=P()\tmarrow\ta\n", "starting with a letter or digit"),
        (f"{HEAD}\n{'A' * 81}\tP\tmarrow\ta\n", "sample_id"),
        (f"{HEAD}\tdfs_months\nA\tP\tmarrow\ta\t3\n", "dfs_months without dfs_event"),
        (f"{HEAD}\tos_event\nA\tP\tmarrow\ta\t1\n", "os_event without os_months"),
        (f"{HEAD}\tos_event\tos_months\nA\tP\tmarrow\ta\t2\t3\n", "one of 0, 1"),
        (f"{HEAD}\nA\tP\tmarrow\ta\nB\tP\tnormal_breast\tb\n", "give the donor a patient_id of its own"),
        (f"{HEAD}\tage\nA\tP\tmarrow\ta\t3,5\n", "a number >= 0 and <= 120"),
    ],
)
def test_each_problem_has_its_message(refused, content, words):
    assert any(words in text for _, _, text in refused(content)) or words in str(refused(content))


def test_a_missing_sheet(tmp_path):
    with pytest.raises(InputError, match="check `samples` in the configuration"):
        read_samples(tmp_path / "none.tsv")


def test_unknown_columns_are_kept_and_logged(sheet, caplog):
    with caplog.at_level("INFO"):
        frame = sheet(f"{HEAD}\tward\nA\tP\tmarrow\ta\t007\n")
    assert frame.loc["A", "ward"] == "007"
    assert "ward" in caplog.text


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("enrichmnt", "enrichment"),
        ("time_point", "timepoint"),
        ("Sex", "sex"),
        ("nucleated_cells_scrned", "nucleated_cells_screened"),
    ],
)
def test_a_misspelt_optional_column_is_refused(refused, column, meant):
    """Left out in silence it would change what is computed."""
    [(row, key, text)] = refused(f"{HEAD}\t{column}\nA\tP\tmarrow\ta\tx\n")
    assert (row, key) == (None, column)
    assert f"rename the column to {meant!r}" in text


def test_one_row_as_a_dictionary(sheet):
    frame = sheet(f"{HEAD}\n{ROWS}")
    row = sample_row(frame, "P1_marrow")
    assert row["sample_id"] == "P1_marrow"
    assert row["patient_id"] == "P1"
    with pytest.raises(InputError, match="did you mean 'P1_marrow'"):
        sample_row(frame, "P1_marow")


IDENTIFIER = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True).filter(
    lambda name: name.casefold() not in {"na", "nan", "none", "null"}
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(IDENTIFIER, min_size=1, max_size=12, unique_by=str.casefold),
    data=st.data(),
    separator=st.sampled_from("\t,;"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_every_well_formed_sheet_is_read_back(tmp_path, names, data, separator, end):
    tumour = [name for name in COMPARTMENTS if not name.startswith("normal")]
    rows = [
        [name, f"p{number % 3}", data.draw(st.sampled_from(tumour)), f"m{number}.h5ad", str(number)]
        for number, name in enumerate(names)
    ]
    columns = data.draw(st.permutations(range(5)))
    table = [["sample_id", "patient_id", "compartment", "path", "ca15_3"], *rows]
    text = end.join(separator.join(row[i] for i in columns) for row in table)
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode())
    frame = read_samples(path)
    assert list(frame.index) == names
    assert list(frame["path"]) == [row[3] for row in rows]
    assert list(frame["ca15_3"]) == [float(row[4]) for row in rows]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: f"{HEAD}\n{text}".encode())))
def test_any_content_is_read_or_refused_with_reasons(tmp_path, content):
    path = tmp_path / "s.tsv"
    path.write_bytes(content)
    problems = []
    try:
        frame = read_samples(path)
    except InputError as error:
        frame, problems = None, list(error.problems)
    if frame is None:
        assert problems
        assert all(problem.fix and problem.found and problem.where == str(path) for problem in problems)
    else:
        assert frame.index.is_unique
        assert (frame["path"] != "").all()


COLUMN_HEAD = f"{HEAD}\tsample_column\tsample_value"


def test_samples_of_one_file(sheet):
    rows = "A\tP1\tmarrow\tall.h5ad\tdonor\t\nB\tP1\tprimary\t./all.h5ad\tdonor\tD2\nC\tP2\tmarrow\tc.h5ad\t\t\n"
    frame = sheet(f"{COLUMN_HEAD}\n{rows}")
    assert list(frame["sample_column"]) == ["donor", "donor", ""]
    assert list(frame["sample_value"]) == ["", "D2", ""]


@pytest.mark.parametrize(
    ("first", "second", "key", "words"),
    [
        ("\t", "\t", "path", "name the column of its cell table"),
        ("donor\t", "\t", "path", "also in row 2 (sample 'A')"),
        ("\t", "donor\t", "path", "also in row 2 (sample 'A')"),
        ("donor\t", "lane\t", "sample_column", "'lane' for 'all.h5ad', but 'donor' in row 2"),
        ("donor\tD", "donor\tD", "sample_value", "'D', also in row 2 (sample 'A')"),
        ("donor\tB", "donor\t", "sample_value", "'B', also in row 2 (sample 'A')"),
    ],
)
def test_samples_of_one_file_that_are_not_told_apart(refused, first, second, key, words):
    rows = f"A\tP1\tmarrow\tall.h5ad\t{first}\nB\tP1\tprimary\tall.h5ad\t{second}\n"
    problems = refused(f"{COLUMN_HEAD}\n{rows}")
    assert [(row, at) for row, at, _ in problems] == [(3, key)]
    assert words in problems[0][2]


def test_a_value_without_a_column(refused):
    problems = refused(f"{COLUMN_HEAD}\nA\tP1\tmarrow\ta.h5ad\t\tD2\n")
    assert [(row, key) for row, key, _ in problems] == [(2, "sample_value")]
    assert "without sample_column" in problems[0][2]
