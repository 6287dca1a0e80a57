"""Both entry points schedule the same jobs, for every kind of study."""

from __future__ import annotations

from collections import Counter

import pytest

PER_COHORT = (
    *("embed_cohort", "annotate_cells", "call_cells", "score_signatures", "test_claims", "compare_pseudobulk"),
    "score_pseudobulk",
    *("compare_profiles", "export_segments"),
    *("audit_losses", "summarise_qc", "assemble_cohort", "record_provenance", "write_report", "check_identities"),
)
# study: samples, patients and donors
STUDIES = {
    "one_sample": (1, 1),
    "marrow_only": (3, 3),
    "compartments": (9, 4),
    "harmony": (2, 1),
    "own_resources": (2, 1),
}


def planned(samples, patients, *, simulated=0):
    wanted = Counter(dict.fromkeys(PER_COHORT, 1))
    wanted.update({"read_sample": samples, "qc_sample": samples, "correct_ambient": samples})
    wanted.update({"infer_copy_number": patients})
    return wanted + Counter({"simulate_cohort": simulated})


def test_the_demo_is_planned_from_both_entry_points(dry_run, demo):
    root = dry_run(demo)
    assert Counter(root.rules) == planned(20, 10, simulated=1)
    inner = dry_run(demo, snakefile="workflow/Snakefile")
    assert sorted(inner.jobs, key=repr) == sorted(root.jobs, key=repr)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_planned(name, dry_run, small_study):
    folder = small_study(name)
    root = dry_run(folder)
    assert Counter(root.rules) == planned(*STUDIES[name])
    assert sorted(dry_run(folder, snakefile="workflow/Snakefile").jobs, key=repr) == sorted(root.jobs, key=repr)


def test_the_users_own_tables_are_inputs(dry_run, small_study):
    jobs = {job.rule: set(job.input) for job in dry_run(small_study("own_resources")).jobs}
    assert {"config/positions.tsv", "config/panels.tsv"} <= jobs["read_sample"]
    assert "config/panels.tsv" in jobs["annotate_cells"]
    assert "config/panels.tsv" in jobs["qc_sample"]
    assert {"config/signatures.tsv", "config/hallmarks.gmt", "config/own.gmt"} <= jobs["score_signatures"]
    recorded = {"config/positions.tsv", "config/panels.tsv", "config/signatures.tsv", "config/hallmarks.gmt"}
    assert recorded <= jobs["record_provenance"]
    for rule in ("infer_copy_number", "compare_profiles", "record_provenance"):
        assert "config/known_arms.tsv" in jobs[rule]


def test_the_unfiltered_matrix_is_an_input_and_the_corrected_layer_a_choice(dry_run, small_study):
    folder = small_study("one_sample")
    sheet = folder / "config" / "samples.tsv"
    header, *lines = [line for line in sheet.read_text().splitlines() if not line.startswith("#")]
    (folder / "droplets.csv").write_text("barcode,EPCAM,KRT8,PTPRC\nA,4,2,0\nB,0,0,3\nC,0,1,0\n")
    sheet.write_text("\n".join([f"{header}\traw_path", *(f"{line}\tdroplets.csv" for line in lines)]) + "\n")
    with (folder / "config" / "config.yaml").open("a") as config:
        config.write("\nqc:\n  ambient_layer: false\n")
    jobs = {job.rule: set(job.input) for job in dry_run(folder).jobs}
    assert "droplets.csv" in jobs["read_sample"]
    assert "correct_ambient" not in jobs
    assert not [path for path in jobs["assemble_cohort"] if "ambient" in path]


def test_patients_are_worked_on_one_by_one(dry_run, small_study):
    jobs = [job for job in dry_run(small_study("compartments")).jobs if job.rule == "infer_copy_number"]
    matrices = {job.output[0]: sorted(path for path in job.input if "intake" in path) for job in jobs}
    assert matrices["results/cnv/patients/D2.cells.tsv.gz"] == [
        "results/intake/D2_blood.h5ad",
        "results/intake/D2_marrow.h5ad",
    ]
    assert len(matrices["results/cnv/patients/P1.cells.tsv.gz"]) == 5


def test_only_quality_control(dry_run, small_study):
    done = dry_run(small_study("marrow_only"), "qc")
    assert Counter(done.rules) == {"read_sample": 3, "qc_sample": 3, "summarise_qc": 1, "check_identities": 1}


def test_another_sheet_from_the_command_line(dry_run, small_study):
    folder = small_study("marrow_only")
    lines = (folder / "config" / "samples.tsv").read_text().splitlines()
    (folder / "other.tsv").write_text("\n".join(lines[:2]) + "\n")
    done = dry_run(folder, "--config", "samples=other.tsv")
    assert Counter(done.rules) == planned(1, 1)


def test_results_elsewhere_by_pathvars(dry_run, small_study):
    folder = small_study("one_sample")
    with (folder / "config" / "config.yaml").open("a") as file:
        file.write("pathvars:\n  results: out/run1\n")
    for job in dry_run(folder).jobs:
        assert all(path.startswith("out/run1/") for path in (*job.output, *job.log)), job


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_lint_is_clean(snakefile, snakemake, demo):
    done = snakemake(demo, "--lint", snakefile=snakefile)
    assert done.code == 0, done.text
    assert "good condition" in done.text


def test_memory_and_time_grow_with_the_attempt_and_the_input(dry_run, small_study):
    folder = small_study("one_sample")

    def asked(*arguments):
        text = dry_run(folder, *arguments).text
        at = text.index("rule read_sample:")
        line = next(line for line in text[at:].splitlines() if line.strip().startswith("resources:"))
        return {part.split("=")[0].strip(): part.split("=")[1] for part in line.split(":", 1)[1].split(",")}

    small = asked()
    matrix = folder / "data" / "M1.csv"
    with matrix.open("a") as file:
        file.writelines(f"C{number},{'1' * 900},0,0\n" for number in range(20_000))
    large = asked()
    assert int(large["mem_mb"]) > int(small["mem_mb"]) + 300
    assert int(small["mem_mb"]) >= 1500
    assert int(small["runtime"]) >= 10
