"""Somebody else's workflow, in another folder, that uses this one as a module."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dtcflow.simulate import write_study

ROOT = Path(__file__).parents[2]

EVERYTHING = f"""\
configfile: "consumer.yaml"


module dtc:
    snakefile:
        "{ROOT}/workflow/Snakefile"
    config:
        config["dtc"]
    pathvars:
        results="results/dtc",


use rule * from dtc as dtc_*


rule all:
    default_target: True
    input:
        rules.dtc_all.input,
"""

TWO_RULES = f"""\
configfile: "consumer.yaml"
module dtc:
    snakefile: "{ROOT}/workflow/Snakefile"
    config: config["dtc"]
    pathvars:
        results="results/dtc",
use rule read_sample, qc_sample from dtc as dtc_*
rule all:
    default_target: True
    input: "results/dtc/qc/samples/P01_marrow.tsv.gz"
"""


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    """A folder with a study's matrices and one entry for it in the consumer's own configuration."""
    folder = tmp_path_factory.mktemp("consumer")
    write_study(folder, "null", seed=3, n_patients=2, marrow_cells=80, primary_cells=60)
    settings = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    (folder / "consumer.yaml").write_text(yaml.safe_dump({"dtc": settings, "mine": {"anything": 1}}))
    (folder / "config" / "config.yaml").unlink()  # the module's own configfile must not be needed
    (folder / "all.smk").write_text(EVERYTHING)
    (folder / "two.smk").write_text(TWO_RULES)
    return folder


def test_everything_can_be_used_under_another_name(dry_run, consumer):
    done = dry_run(consumer, house=consumer, snakefile="all.smk")
    assert {"dtc_read_sample", "dtc_infer_copy_number", "dtc_test_claims", "dtc_write_report"} <= set(done.rules)
    assert len(done.jobs) == 29
    for job in done.jobs:
        for path in (*job.output, *job.log):
            assert path.startswith("results/dtc/"), job


def test_two_rules_in_ten_lines_really_run(snakemake, consumer):
    assert len([line for line in TWO_RULES.splitlines() if line]) <= 11
    done = snakemake(consumer, house=consumer, snakefile="two.smk")
    assert done.code == 0, done.text
    assert done.rules == ["dtc_qc_sample", "dtc_read_sample"]
    made = {str(path.relative_to(consumer)) for path in (consumer / "results").rglob("*") if path.is_file()}
    assert {
        "results/dtc/intake/P01_marrow.h5ad",
        "results/dtc/qc/samples/P01_marrow.tsv.gz",
        "results/dtc/logs/qc_sample/P01_marrow.log",
        "results/dtc/benchmarks/qc_sample/P01_marrow.tsv",
    } <= made
    assert all(name.startswith("results/dtc/") for name in made)


def test_a_mistake_in_the_consumers_configuration_is_told(snakemake, consumer):
    settings = yaml.safe_load((consumer / "consumer.yaml").read_text())
    settings["dtc"]["sead"] = 1
    (consumer / "wrong.yaml").write_text(yaml.safe_dump(settings))
    (consumer / "wrong.smk").write_text(EVERYTHING.replace("consumer.yaml", "wrong.yaml"))
    done = snakemake(consumer, "--dry-run", house=consumer, snakefile="wrong.smk")
    assert done.code != 0
    assert "sead: found an unknown key" in done.text
    assert "Traceback" not in done.text
