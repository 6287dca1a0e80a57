"""The report's words: verdicts, reason codes, what would change them, and the methods paragraph with its citations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dtcflow.contracts import CODES
from dtcflow.report.page import listed, plural, short

HYPOTHESIS: Final = "Some disseminated tumour cells (DTCs) are self-renewing progenitors."
LIMIT: Final = "Expression can be consistent with a progenitor state; it cannot show self-renewal"
CEILING: Final = f"{LIMIT}. That takes a functional assay."

VERDICT_WORDS: Final = {"SUPPORTED": "Supported", "NOT_SUPPORTED": "Not supported", "INCONCLUSIVE": "Inconclusive"}
VERDICT_MARKS: Final = {"SUPPORTED": "✓", "NOT_SUPPORTED": "✕", "INCONCLUSIVE": "?"}

VERDICT_SENTENCES: Final = {
    "SUPPORTED": (
        "Yes, as far as expression can tell: in these patients the disseminated tumour cells show a state consistent "
        "with self-renewing progenitors, and every pre-specified check was passed."
    ),
    "NOT_SUPPORTED": (
        "No: with its checks passed, at least one thing the hypothesis needs was contradicted in these patients."
    ),
    "INCONCLUSIVE": "These data do not decide the question, in either direction.",
}

OVERTURNED_BY: Final = {
    "SUPPORTED": "An independent cohort under the same analysis plan, and a functional assay of self-renewal.",
    "NOT_SUPPORTED": "An independent cohort under the same plan in which the claims named here come out in favour.",
    "INCONCLUSIVE": "More patients, or the claims that were not tested.",
}

CODE_REMEDIES: Final[dict[str, str]] = {
    "LOW_N": "more patients with tumour cells in both compartments",
    "LOW_CELLS": "more tumour cells per patient: more marrow screened, or enrichment before sequencing",
    "LOW_COVERAGE": "an assay or annotation that measures more genes of the signature",
    "LOW_QUALITY": "deeper sequencing or less damaged cells",
    "CONTAMINATION": "removing ambient RNA and marrow doublets until the haematopoietic control is flat",
    "CONFOUNDED": "marrow and primary of the same patient processed on the same platform and in shared batches",
    "IMPRECISE": "more patients or more cells per patient, until the confidence interval is narrower",
    "FRAGILE": "more patients, so that no single patient or analysis choice carries the result",
    "NO_DATA": "the missing field in the sample sheet",
    "NOT_EVALUATED": "a version of the analysis that tests the claims named here",
    "GATE_FAILED": "cells whose tumour identity is proven by copy number in enough patients",
    "NO_EFFECT_SHOWN": "more patients: the interval reaches neither support nor refutation",
    "GENE_SET_NULL": "nothing but other data: random gene sets of the same kind show as much",
    "NOT_ROBUST_TO_COVARIATES": "data in which cell cycle, depth and stress do not differ between compartments",
    "NO_TUMOUR_CELLS": "samples in which malignant cells are found; see the smallest detectable change in the "
    "copy-number section",
    "DOUBTFUL_IDENTITY": "samples whose owner is settled: the findings are in intake/identity.tsv",
}

ROLE_WORDS: Final = {
    "gate": "gate (comes first)",
    "necessary": "necessary",
    "supporting": "supporting (never votes)",
    "context": "context (never votes)",
}

WORDS: Final[dict[str, str]] = {
    "DTC, PT": "disseminated tumour cell: a malignant cell found in the marrow; malignant cell of the primary tumour",
    "Supported, not supported, inconclusive": "the three verdicts. Not supported means that an effect large enough to "
    "matter was ruled out; inconclusive means that the data decide neither way, with a reason code",
    "Gate, necessary, context": "a gate must be passed before anything else counts; every necessary claim must be "
    "supported for the hypothesis to be; context claims are shown and never vote",
    "Score": "how far a cell's signature lies above random gene sets of the same expression (a z value), brought to "
    "the same sequencing depth in both groups",
    "SD between reference cells": "unit of most effects: one is the typical distance between two primary tumour cells "
    "of one patient on that score",
    "95 % CI, 90 % CI": "confidence intervals over patients, not cells. The 95 % interval decides on support, the 90 % "
    "interval on its opposite",
    "A new patient": "prediction interval: where the effect of one more patient is expected",
    "Smallest effect of interest (SESOI)": "fixed beforehand; anything smaller would not matter even if it were real",
    "p": "share of sign patterns over patients that show as much (sign-flip test); adjusted for the number of "
    "confirmatory claims by Holm's method",
    "Random gene sets": "sets of the same size, expression and detection: what any genes would show in these cells",
    "MDE 80 %": "minimum detectable effect: the smallest one that so many patients show in four of five studies",
}
"""The report's own words, explained; order as shown."""

NOTICE_RASTER: Final = "Points are drawn as an image; axes and text are vectors."

CITATIONS: Final[dict[str, str]] = {
    "gseapy": "Fang et al., Bioinformatics 2023;39:btac757, PMID 36426870",
    "harmony": "Korsunsky et al., Nat Methods 2019;16:1289, PMID 31740819",
    "hksj": "IntHout et al., BMC Med Res Methodol 2014;14:25, PMID 24548571",
    "infercnv": "Tirosh et al., Nature 2016;539:309, PMID 27806376",
    "leiden": "Traag et al., Sci Rep 2019;9:5233, PMID 30914743",
    "pydeseq2": "Muzellec et al., Bioinformatics 2023;39:btad547, PMID 37669147",
    "scanpy": "Wolf et al., Genome Biol 2018;19:15, PMID 29409532",
    "scrublet": "Wolock et al., Cell Syst 2019;8:281",
    "snakemake": "Mölder et al., F1000Research 2021;10:33, PMID 34035898",
    "specification": "Simonsohn et al., Nat Hum Behav 2020",
    "squair": "Squair et al., Nat Commun 2021;12:5692, doi 10.1038/s41467-021-25960-2",
    "venet": "Venet et al., PLoS Comput Biol 2011;7:e1002240, PMID 22028643",
}


def split_codes(value: Any) -> list[str]:
    """Reason codes from a list or from text (``A;B``, ``A,B``, ``INCONCLUSIVE:A``), each once, in order."""
    parts: Iterable[Any] = value if isinstance(value, list | tuple) else str(value or "").replace(",", ";").split(";")
    codes = (str(part).strip().split(":")[-1] for part in parts if part is not None)
    return list(dict.fromkeys(code for code in codes if code and code != "nan"))


def code_meaning(code: str) -> str:
    """Return what a reason code means."""
    return CODES.get(code, "a reason this version has no words for")


def code_sentence(code: str, claims: Sequence[str] = ()) -> str:
    """Return a reason code with its meaning and the claims it belongs to."""
    meaning = code_meaning(code)
    where = f" ({listed(claims)})" if claims else ""
    return f"{code}{where}: {meaning}."


def remedies(
    codes: Sequence[str], *, patients_needed: float | None = None, n_patients: float | None = None
) -> list[str]:
    """What would change the verdict, one sentence per reason code that has a remedy.

    Parameters
    ----------
    codes
        Reason codes of the verdict and of the claims that keep it from being decided.
    patients_needed
        Patients for 80 % power at the smallest effect of interest, when computed.
    n_patients
        Patients in the analysis.
    """
    found = []
    for code in dict.fromkeys(codes):
        remedy = CODE_REMEDIES.get(code)
        if remedy is None:
            continue
        sentence = f"{remedy[:1].upper()}{remedy[1:]}"
        if code in {"LOW_N", "IMPRECISE", "NO_EFFECT_SHOWN"} and patients_needed and patients_needed == patients_needed:
            sentence += (
                f" (about {plural(round(patients_needed), 'patient')} for 80 % power at the smallest effect of interest"
            )
            sentence += (
                f"; there are {round(n_patients):,})" if n_patients is not None and n_patients == n_patients else ")"
            )
        found.append(sentence + ".")
    return found


def methods(config: Mapping[str, Any], versions: Mapping[str, str] | None = None) -> list[str]:
    """Methods text, one paragraph per step, with the values of this run and citations.

    Parameters
    ----------
    config
        Validated configuration with defaults.
    versions
        Package name to version; versions that are not known are left out.
    """
    known = {name.lower(): found for name, found in (versions or {}).items() if found != "not installed"}

    def tool(name: str, cite: str | None = None) -> str:
        version = f" {known[name.lower()]}" if name.lower() in known else ""
        citation = CITATIONS.get(cite or name.lower())
        return f"{name}{version}" + (f" ({citation})" if citation else "")

    def get(section: str, key: str) -> Any:
        return (config.get(section) or {}).get(key)

    return [
        _intake_and_qc(get, tool),
        _embedding(get, tool),
        _copy_number(get, tool),
        _evidence(get, tool),
        f"All steps ran under {tool('Snakemake', 'snakemake')} with explicit seeds (base seed "
        f"{short_or(config.get('seed'), 'not recorded')}); parameters, input hashes and package versions are listed "
        "below.",
    ]


def methods_text(config: Mapping[str, Any], versions: Mapping[str, str] | None = None) -> str:
    """Methods text as one string, paragraphs apart by an empty line; see :func:`methods`."""
    return "\n\n".join(methods(config, versions))


def short_or(value: Any, otherwise: str) -> str:
    """Return the value as text, or ``otherwise`` when there is none."""
    if value is None or value == "":
        return otherwise
    return str(value) if isinstance(value, int | str) else short(value)


def _intake_and_qc(get: Any, tool: Any) -> str:
    fixed = [
        words
        for key, words in (
            ("min_counts", "at least {} counts"),
            ("min_genes", "at least {} genes"),
            ("max_pct_mt", "at most {} % mitochondrial counts"),
        )
        if get("qc", key) is not None
        for words in [words.format(get("qc", key))]
    ]
    rule = (
        f"Cells were removed by fixed limits ({listed(fixed)}) and, where no fixed limit was set, by"
        if fixed
        else "Cells were removed by"
    )
    return (
        f"Gene positions: {short_or(get('intake', 'genome_build'), 'GRCh38')}. {rule} limits per sample and lineage: "
        f"counts and genes not below the median minus {short_or(get('qc', 'n_mads'), '5')} scaled median absolute "
        "deviations (log scale), mitochondrial percentage not above the same distance over the median and never above "
        f"{short_or(get('qc', 'max_pct_mt_cap'), '50')} %; small lineages take the more lenient of their own and the "
        "sample's limit. No cell was removed for having many counts. Doublets were scored with "
        f"{tool('Scrublet', 'scrublet')} as implemented in {tool('scanpy')} and annotated, not removed. Every cell "
        "with tumour evidence that was removed or left undecided is listed in the loss audit."
    )


def _embedding(get: Any, tool: Any) -> str:
    receptor = (
        " without immunoglobulin, T-cell receptor and haemoglobin genes"
        if get("embedding", "exclude_receptor_genes")
        else ""
    )
    harmony = (
        f" Harmony ({CITATIONS['harmony']}) corrected the picture only."
        if get("embedding", "harmony")
        else " No batch correction was applied."
    )
    return (
        f"The embedding used {short_or(get('embedding', 'n_top_genes'), '2000')} variable genes chosen within "
        f"batches{receptor}, {short_or(get('embedding', 'n_pcs'), '30')} principal components, "
        f"{short_or(get('embedding', 'n_neighbors'), '15')} neighbours, UMAP and Leiden clustering "
        f"({CITATIONS['leiden']}).{harmony} Calls, scores and tests used uncorrected counts. Cell types are those of "
        f"the best marker panel with a calibrated z of at least {short_or(get('annotation', 'min_z'), '2')} and a "
        f"lead of {short_or(get('annotation', 'min_margin'), '1')} over the second; other cells are 'unknown'."
    )


def _copy_number(get: Any, tool: Any) -> str:
    return (
        "Copy number was called per chromosome arm from count-model residuals against the patient's own normal cells "
        f"(at least {short_or(get('copy_number', 'min_reference_cells'), '50')} reference cells and "
        f"{short_or(get('copy_number', 'min_genes'), '2000')} placed genes, else not assessable); reference cells "
        f"were scored by {short_or(get('copy_number', 'folds'), '5')}-fold cross-fitting, so that no cell is judged "
        f"by a model it shaped. False discovery rate {short_or(get('copy_number', 'fdr'), '0.05')}; an arm needs "
        f"an absolute log ratio of at least {short_or(get('copy_number', 'min_abs_log_ratio'), '0.15')}. Windows of "
        f"the heatmap ({short_or(get('copy_number', 'window_size'), '100')} genes, step "
        f"{short_or(get('copy_number', 'step'), '10')}) are those of the algorithm of {tool('infercnvpy')}, after the "
        f"idea of {CITATIONS['infercnv']}, with noise removed by the spread of the reference cells only; they are a "
        "picture and a second opinion, not the caller."
    )


def _evidence(get: Any, tool: Any) -> str:
    return (
        f"The unit of inference is the patient (cells as replicates give false positives: {CITATIONS['squair']}). A "
        "cell's signature score is a z against random gene sets matched on expression and detection "
        f"({short_or(get('scores', 'n_null'), '1000')} per signature in the table of cells; the analysis plan sets "
        "their number for the tests); a patient's value is a trimmed mean over cells at harmonised depth. "
        "Within-patient differences were tested with a sign-flip test (exact for few patients) and combined by "
        f"random-effects meta-analysis with the Hartung-Knapp-Sidik-Jonkman interval ({CITATIONS['hksj']}). Random "
        "gene sets are shown beside the signature because many of them mimic one in breast cancer "
        f"({CITATIONS['venet']}). Alternative analyses are shown as a specification curve "
        f"({CITATIONS['specification']}). Pathways (screening only): pseudobulk contrast with "
        f"{tool('PyDESeq2', 'pydeseq2')} and pre-ranked enrichment with {tool('GSEApy', 'gseapy')}."
    )
