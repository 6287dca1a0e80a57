# What every stage needs: checked configuration and sample sheet, and the sizes of jobs.
import re
from pathlib import Path

from dtcflow import resources as shipped
from dtcflow.contracts import DtcflowError
from dtcflow.io.checks import check_study
from dtcflow.io.config import load_config
from dtcflow.io.sheet import known_copy_number, read_samples
from dtcflow.provenance import code_fingerprint
from dtcflow.runs import failure_text
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ENVIRONMENT = "../../envs/dtcflow.yaml"


def _checked_study():
    """Configuration with defaults and sample sheet; every problem of the study in one message before any job."""
    where = ", ".join(map(str, workflow.configfiles)) or "config"
    try:
        settings = load_config(config, where=where)
        if workflow.is_main_process:
            if problems := check_study(settings, base_dir=".", where=where):
                raise DtcflowError("the study cannot run:", problems)
        return settings, read_samples(settings["samples"])
    except DtcflowError as error:
        raise WorkflowError(str(error)) from None


SETTINGS, SAMPLES = _checked_study()
config.update(SETTINGS)
PATIENTS = sorted(SAMPLES["patient_id"].unique())
# patient -> known copy number, for the patients that have one
PROFILES = {patient: path for patient in PATIENTS if (path := known_copy_number(SAMPLES, patient))}
# samples after treatment: screening, like the shipped claims, is about those before it
POST_SAMPLES = list(SAMPLES.index[SAMPLES["timepoint"].eq("post")]) if "timepoint" in SAMPLES else []
PANEL = config["scores"]["signatures"] or str(shipped.path("signatures.tsv"))
PANEL_FACTS = [str(beside)] if (beside := shipped.panel_facts(PANEL)) else []
MARKERS = config["annotation"]["panels"] or str(shipped.path("markers.tsv"))
GENE_POSITIONS = config["intake"]["gene_positions"] or str(shipped.path("gene_positions.tsv.gz"))


wildcard_constraints:
    sample="|".join(map(re.escape, SAMPLES.index)),
    patient="|".join(map(re.escape, PATIENTS)),


def samples_of(patient):
    """Sample ids of a patient, in the order of the sheet."""
    return list(SAMPLES.index[SAMPLES["patient_id"] == patient])


def of_patient(pattern):
    """Input function: ``pattern`` for every sample of the job's patient."""
    return lambda wildcards: expand(pattern, sample=samples_of(wildcards.patient))


def of_cohort(pattern):
    """``pattern`` for every sample (or patient) of the cohort."""
    return expand(pattern, sample=SAMPLES.index) if "{sample}" in pattern else expand(pattern, patient=PATIENTS)


def unfiltered_beside(wildcards):
    """Unfiltered matrix that lies beside the sample's filtered one, if any."""
    path = SAMPLES.loc[wildcards.sample].get("raw_path", "")
    return [path] if isinstance(path, str) and path else []


def known_profile(wildcards):
    """Known copy number of the job's patient, if the sheet names one."""
    return [PROFILES[wildcards.patient]] if wildcards.patient in PROFILES else []


def memory(base, factor=10):
    """Memory in MB: a base for the libraries plus ``factor`` times the compressed input, more with each attempt."""
    return lambda wildcards, input, attempt: int(attempt * (base + factor * input.size_mb))


def minutes(base, per_100mb=5):
    """Run time in minutes from the size of the input, more with each attempt."""
    return lambda wildcards, input, attempt: int(attempt * (base + per_100mb * input.size_mb / 100))
