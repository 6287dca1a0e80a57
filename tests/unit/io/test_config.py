import re
from pathlib import Path

import pytest
import yaml

from dtcflow.contracts import InputError
from dtcflow.io.config import load_config, read_yaml, without_simulation
from dtcflow.io.schema import CONFIG, leaves, load_schema


def problems(source, **options):
    with pytest.raises(InputError) as caught:
        load_config(source, **options)
    return {problem.key: problem for problem in caught.value.problems}


def test_an_empty_configuration_takes_every_default():
    config = load_config({})
    for key, leaf in leaves(load_schema(CONFIG)).items():
        if key.startswith("simulate."):
            continue
        value = config
        for part in key.split("."):
            value = value[part]
        assert value == leaf["default"], key
    assert config["simulate"] is None


def test_given_values_stay_and_the_rest_is_filled():
    config = load_config({"qc": {"n_mads": 3}, "simulate": {}, "intake": None})
    assert config["qc"]["n_mads"] == 3.0
    assert config["qc"]["max_pct_mt_cap"] == 50
    assert config["simulate"] == {"scenario": "progenitor", "seed": 1}
    assert config["intake"]["genome_build"] == "GRCh38"


def test_loading_twice_changes_nothing():
    once = load_config({"simulate": {"scenario": None}})
    assert once["simulate"]["scenario"] == "null"
    assert load_config(once) == once
    assert load_config(load_config({})) == load_config({})


def test_the_given_mapping_is_not_changed():
    given = {"simulate": {"scenario": None}, "qc": None}
    load_config(given)
    assert given == {"simulate": {"scenario": None}, "qc": None}


def test_defaults_are_not_shared_between_calls():
    load_config({})["embedding"]["resolutions"].append(7)
    assert load_config({})["embedding"]["resolutions"] == [0.5, 1.0, 2.0]


def test_all_problems_are_told_at_once():
    found = problems(
        {
            "sead": 1,
            "n_pcs": 3,
            "seed": True,
            "embedding": {"n_pc": 3, "harmony": "yes", "resolutions": 0.5},
            "qc": {"n_mads": "1e-3", "max_pct_mt": float("nan"), "min_counts": -1},
            "copy_number": {"reference_labels": [3], "tumour_lineage": "epithelal", "fdr": 0},
            "scores": {"gmt": ["a", "a"]},
            "annotation": 3,
        },
        where="config/config.yaml",
    )
    assert set(found) == {
        *("sead", "n_pcs", "seed", "embedding.n_pc", "embedding.harmony", "embedding.resolutions", "qc.n_mads"),
        *("qc.max_pct_mt", "qc.min_counts", "copy_number.reference_labels.0", "copy_number.tumour_lineage"),
        *("copy_number.fdr", "scores.gmt", "annotation"),
    }
    assert "did you mean 'seed'?" in found["sead"].fix
    assert "did you mean 'embedding.n_pcs'?" in found["n_pcs"].fix
    assert "did you mean 'embedding.n_pcs'?" in found["embedding.n_pc"].fix
    assert "did you mean 'epithelial'?" in found["copy_number.tumour_lineage"].fix
    assert "1.0e-3" in found["qc.n_mads"].fix
    assert "[0.5]" in found["embedding.resolutions"].fix
    assert '"3"' in found["copy_number.reference_labels.0"].fix
    assert found["qc.min_counts"].allowed == "a whole number >= 0, or null"
    assert found["seed"].found == "true"
    assert {problem.where for problem in found.values()} == {"config/config.yaml"}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ({"intake": {"genome_build": "GRCh37"}}, "intake.genome_build"),
        ({"copy_number": {"reference_key": "cell_type"}}, "copy_number.reference_labels"),
        ({"copy_number": {"reference_labels": ["T"]}}, "copy_number.reference_key"),
        ({"copy_number": {"step": 50, "window_size": 40}}, "copy_number.step"),
    ],
)
def test_keys_that_need_each_other(source, key):
    assert set(problems(source)) == {key}


def test_keys_that_fit_each_other_pass():
    load_config({"intake": {"genome_build": "GRCh37", "gene_positions": "hg19.gtf"}})
    load_config({"copy_number": {"reference_key": "type", "reference_labels": ["T", "B"]}})


@pytest.mark.parametrize(
    ("text", "words", "row"),
    [
        ("seed: 1\nqc:\n  n_mads: 3\n  n_mads: 4\n", "'n_mads' is written twice (first in line 3)", 4),
        ("seed: [1\n", "expected", 2),
        ("1: 2\n", "the key '1' is not text", 1),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor", 1),
    ],
)
def test_broken_yaml_names_the_line(tmp_path, text, words, row):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    problem = caught.value.problems[0]
    assert words in problem.found
    assert problem.row == row
    assert problem.where == str(path)


def test_files_that_are_no_configuration(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "latin.yaml").write_bytes(b"study: {title: caf\xe9}")
    for name, words in (("list.yaml", "a list"), ("latin.yaml", "not UTF-8"), ("none.yaml", "cannot be read")):
        with pytest.raises(InputError, match=words):
            load_config(tmp_path / name)


def test_an_empty_file_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("")
    assert load_config(path) == load_config({})
    path.write_bytes("\ufeffseed: 7\r\n".encode())
    assert load_config(path)["seed"] == 7
    assert read_yaml(path) == {"seed": 7}


def test_the_simulation_is_cut_out_of_the_text():
    text = "a: 1\n\n# about it\n# more\nsimulate:\n  x: 1 # c\n\n  y: 2\n\n# next\nb: 2\n"
    assert without_simulation(text) == "a: 1\n\n# next\nb: 2\n"
    assert without_simulation("a: 1\n") == "a: 1\n"
    shipped = (Path(__file__).parents[3] / "config" / "config.yaml").read_text()
    assert set(yaml.safe_load(shipped)) - set(yaml.safe_load(without_simulation(shipped))) == {"simulate"}
    assert not re.search("simulat", without_simulation(shipped).split("study:")[0].split("samples:")[1])


def test_the_key_of_snakemake_itself_is_not_ours():
    assert load_config({"pathvars": {"results": "out"}}) == load_config({})
