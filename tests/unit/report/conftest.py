"""A synthetic but realistic set of results, written through the contract's own writers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from dtcflow import contracts
from dtcflow.cnv.run import EMPTY_TABLES
from dtcflow.report.inputs import ReportInputs

TYPES = ("T_NK", "B", "plasma", "monocyte", "erythroid", "megakaryocyte", "HSPC", "neutrophil")
SPECIFICATIONS = ("claim_id", "signature", "purge", "depth", "aggregation", "call", "votes", "n_patients", "estimate")
GAINS, LOSSES = ("1q", "8q", "16p"), ("16q", "17p", "8p")
ARMS = tuple(f"{c}{a}" for c in range(1, 23) for a in "pq" if not (a == "p" and c in (13, 14, 15, 21, 22)))


@dataclass
class Study:
    """Tables of a study; change them, then :meth:`write`."""

    cells: pd.DataFrame
    cnv_cells: pd.DataFrame
    umap: pd.DataFrame
    claims: pd.DataFrame
    patients: pd.DataFrame
    verdict: dict[str, Any]
    sensitivity: pd.DataFrame
    controls: pd.DataFrame
    arms: pd.DataFrame
    clones: pd.DataFrame
    loss_audit: pd.DataFrame
    identity: pd.DataFrame
    coverage: pd.DataFrame
    stability: pd.DataFrame
    pathways: pd.DataFrame
    provenance: dict[str, Any]
    config: dict[str, Any]
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    qc: dict[str, dict[str, Any]] = field(default_factory=dict)
    intake: dict[str, dict[str, Any]] = field(default_factory=dict)
    windows: dict[str, ad.AnnData] = field(default_factory=dict)

    def write(self, folder: Path) -> ReportInputs:
        """Write everything below ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = {
            "cells": (self.cells, "cells.tsv.gz"),
            "claims": (self.claims, "claims.tsv"),
            "patients": (self.patients, "patients.tsv"),
            "arms": (self.arms, "arms.tsv"),
            "clones": (self.clones, "clones.tsv"),
            "loss_audit": (self.loss_audit, "loss_audit.tsv"),
            "identity": (self.identity, "identity.tsv"),
            "signature_coverage": (self.coverage, "signatures.tsv"),
        }
        for name, (frame, file) in tables.items():
            contracts.write_table(frame, folder / file, name)
        for frame, file in (
            (self.sensitivity, "sensitivity.tsv"),
            (self.controls, "controls.tsv"),
            (self.stability, "stability.tsv"),
            (self.pathways, "pathways.tsv"),
        ):
            contracts.write_table(frame, folder / file)
        contracts.write_json(folder / "verdict.json", self.verdict)
        contracts.write_json(folder / "provenance.json", self.provenance)

        def jsons(kind: str, objects: dict[str, dict[str, Any]]) -> list[Path]:
            paths = [folder / kind / f"{i}.json" for i in range(len(objects))]
            for path, content in zip(paths, objects.values(), strict=True):
                contracts.write_json(path, content)
            return paths

        embedding = ad.AnnData(obs=pd.DataFrame(index=self.umap.index.astype(object)))
        embedding.obsm["X_umap"] = self.umap.to_numpy(dtype=np.float32)
        embedding.write_h5ad(folder / "embedding.h5ad")
        windows, cnv_cells = [], []
        for patient, packed in self.windows.items():
            windows.append(folder / f"{patient}.h5ad")
            contracts.write_stage(packed, windows[-1], "cnv")
            own = self.cnv_cells[self.cnv_cells["cell_id"].isin(packed.obs_names)]
            cnv_cells.append(folder / f"{patient}.cells.tsv.gz")
            contracts.write_table(own, cnv_cells[-1], "cnv_cells")
        return ReportInputs(
            config=self.config,
            verdict=folder / "verdict.json",
            provenance=folder / "provenance.json",
            sensitivity=folder / "sensitivity.tsv",
            controls=folder / "controls.tsv",
            stability=folder / "stability.tsv",
            pathways=folder / "pathways.tsv",
            embedding=folder / "embedding.h5ad",
            qc_summaries=jsons("qc", self.qc),
            intake_reports=jsons("intake", self.intake),
            cnv_statuses=jsons("cnv", self.statuses),
            cnv_windows=windows,
            cnv_cells=cnv_cells,
            **{name: folder / file for name, (_, file) in tables.items()},
        )


def _cells(rng: np.random.Generator, patient: str, compartment: str, n: int, n_tumour: int) -> pd.DataFrame:
    sample = f"{patient}-{'BM' if compartment == 'marrow' else 'PT'}"
    tumour = np.arange(n) < n_tumour
    kinds = np.array(TYPES if compartment == "marrow" else ("T_NK", "B", "monocyte", "fibroblast", "endothelial"))
    cell_type = np.where(tumour, "epithelial", rng.choice(kinds, size=n))
    passed = rng.random(n) > 0.08
    passed[: max(n_tumour - 1, 0)] = True
    reasons = rng.choice(
        ["low_counts(212<348)", "low_genes(90<200)", "high_mt(61.00>20.00)", "low_counts(9<3);high_mt(7.0>2.0)"], n
    )
    call = np.where(tumour, "malignant", "normal").astype(object)
    call[(rng.random(n) < 0.01) & ~tumour] = "indeterminate"
    call = np.where(passed, call, "")
    malignant = call == "malignant"
    return pd.DataFrame(
        {
            "cell_id": [f"{sample}:C{i:05d}-1" for i in range(n)],
            "sample_id": sample,
            "patient_id": patient,
            "compartment": compartment,
            "pass_qc": passed,
            "qc_reasons": np.where(
                passed, np.where(rng.random(n) < 0.02, "note:low_complexity(0.700<0.750)", ""), reasons
            ),
            "n_counts": np.round(rng.lognormal(8, 0.5, n)),
            "n_genes": np.round(rng.lognormal(7, 0.4, n)),
            "pct_mt": rng.gamma(2, 2, n),
            "doublet_score": rng.beta(1, 12, n),
            "ambient_fraction": rng.beta(1, 20, n),
            "cell_type": np.where(passed, cell_type, ""),
            "epithelial_z": np.where(tumour, rng.normal(8, 2, n), rng.normal(0, 1, n)),
            "cnv_burden_q": np.where(malignant, rng.uniform(0, 0.01, n), rng.uniform(0.1, 1, n)),
            "clone_llr": np.where(malignant, rng.normal(20, 4, n), rng.normal(-5, 2, n)),
            "malignancy_q": np.where(malignant, rng.uniform(0, 0.01, n), rng.uniform(0.1, 1, n)),
            "malignant_call": call,
            "clone_id": np.where(malignant, np.where(np.arange(n) % 3 == 0, "B", "A"), ""),
            "call_reasons": np.where(malignant, "clone_llr", ""),
            "is_dtc": malignant & (compartment == "marrow"),
            "LIM_MAMMARY_STEM_CELL_UP": rng.normal(0, 1, n),
        }
    )


def _windows(rng: np.random.Generator, cells: pd.DataFrame, per_arm: int) -> ad.AnnData:
    layout = pd.DataFrame(
        [(f"chr{arm[:-1]}", 1_000_000 * i + (arm[-1] == "q") * 10**8, arm) for arm in ARMS for i in range(per_arm)],
        columns=["chromosome", "start", "arm"],
    )
    layout["end"] = layout["start"] + 900_000
    values = rng.normal(0, 0.05, (len(cells), len(layout)))
    values[np.abs(values) < 0.075] = 0
    malignant = (cells["malignant_call"] == "malignant").to_numpy()
    for arm in (*GAINS, *LOSSES):
        columns = (layout["arm"] == arm).to_numpy()
        values[np.ix_(malignant, columns)] += 0.18 if arm in GAINS else -0.16
    packed = ad.AnnData(obs=pd.DataFrame(index=pd.Index(cells["cell_id"].astype(object))))
    packed.obsm["X_cnv"] = values.astype(np.float32)
    packed.uns["cnv_windows"] = layout[["chromosome", "start", "end", "arm"]]
    for name, columns in EMPTY_TABLES.items():
        if name != "cnv_windows":
            packed.uns[name] = pd.DataFrame({column: pd.Series([], dtype=dtype) for column, dtype in columns.items()})
    return packed


def _umap(rng: np.random.Generator, cells: pd.DataFrame) -> pd.DataFrame:
    groups = np.where(cells["malignant_call"] == "malignant", cells["patient_id"], cells["cell_type"])
    codes, _ = pd.factorize(groups, sort=True)
    angle = 2 * np.pi * codes / max(codes.max(initial=0) + 1, 1)
    xy = np.c_[np.cos(angle), np.sin(angle)] * 9 + rng.normal(0, 1, (len(cells), 2))
    return pd.DataFrame(xy, index=pd.Index(cells["cell_id"]))


def _evidence(rng: np.random.Generator, patients: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    effect = np.round(rng.normal(1.0, 0.35, len(patients)), 3)
    rows = []
    for analysis, signature, shift in (("primary", "LIM_NOPROLIF", 0.0), ("negative_control", "EPPERT_HSC_R", -1.0)):
        for i, patient in enumerate(patients):
            usable = i != len(patients) - 1
            value = effect[i] + shift
            rows.append(
                ("P2", analysis, patient, "DTC - PT", signature, 12 if usable else 0, 140, 1.1 + value, 1.1,
                 value if usable else np.nan, 0.04 if usable else np.nan, usable, "" if usable else "0 DTC, 3 needed")
            )  # fmt: skip
    columns = list(contracts.TABLES["patients"])
    nan = np.nan
    claims = [
        ("C0", "Putative DTCs carry the tumour's copy-number alterations", "gate", "SUPPORTED", "", "share", 7, 0.93,
         0.85, 0.97, 0.0156, nan, nan, 0.5, nan, nan, nan, nan, "DTC / putative DTC", ""),
        ("P1", "A distinct progenitor-like subset exists among DTCs", "necessary", "INCONCLUSIVE", "NOT_EVALUATED", "",
         nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, "", ""),
        ("P2", "DTCs score higher than primary tumour cells on mammary stemness", "necessary", "SUPPORTED", "",
         "SD between primary tumour cells", 7, 1.02, 0.71, 1.33, 0.0156, 0.0156, 0.002, 0.5, 0.55, 6, 0.97, 0.04,
         "DTC - PT", "LIM_NOPROLIF"),
        ("P3", "The enrichment is specific", "necessary", "INCONCLUSIVE", "NOT_EVALUATED", "", nan, nan, nan, nan, nan,
         nan, nan, nan, nan, nan, nan, nan, "", ""),
    ]  # fmt: skip
    return pd.DataFrame(claims, columns=list(contracts.TABLES["claims"])), pd.DataFrame(rows, columns=columns)


def _sensitivity(rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        ("P2", signature, purge, depth, aggregation, call, signature != "LUMINAL_PROGENITOR", 7, rng.normal(0.85, 0.2))
        for signature in ("LIM_MASC", "PECE", "LUMINAL_PROGENITOR")
        for purge in ("none", "NOPROLIF", "NOPROLIF_NOEMT")
        for depth in ("matched", "full")
        for aggregation in ("trimmed_mean", "median")
        for call in ("loose", "strict")
    ]
    frame = pd.DataFrame(rows, columns=list(SPECIFICATIONS))
    return frame.assign(ci_low=frame["estimate"] - 0.4, ci_high=frame["estimate"] + 0.4)


def make_study(
    *, n_patients: int = 8, n_cells: int = 120, per_arm: int = 6, seed: int = 1, sixth_without_dtc: bool = True
) -> Study:
    """A study of ``n_patients`` with a marrow and a primary sample of ``n_cells`` each."""
    rng = np.random.default_rng(seed)
    patients = [f"PAT{i + 1:02d}" for i in range(n_patients)]
    parts = []
    for i, patient in enumerate(patients):
        n_dtc = 0 if sixth_without_dtc and i == n_patients - 1 else 4 + 2 * i
        parts.append(_cells(rng, patient, "marrow", n_cells, min(n_dtc, n_cells // 2)))
        parts.append(_cells(rng, patient, "primary", n_cells, n_cells // 2))
    cells = pd.concat(parts, ignore_index=True)
    passed = cells[cells["pass_qc"]].reset_index(drop=True)
    claims, values = _evidence(rng, patients)
    reference = passed["cell_type"].isin(TYPES) & (rng.random(len(passed)) < 0.6)
    cnv_cells = pd.DataFrame(
        {
            "cell_id": passed["cell_id"],
            "cnv_status": "ok",
            "is_reference": reference & (passed["malignant_call"] != "malignant"),
            "cnv_burden": np.where(passed["malignant_call"] == "malignant", 5.0, 1.0) + rng.normal(0, 0.3, len(passed)),
            "cnv_burden_p": 0.5,
            "cnv_burden_q": passed["cnv_burden_q"],
            "clone_llr": passed["clone_llr"],
            "clone_llr_p": 0.5,
            "n_arms_altered": 0,
            "cnv_score_infercnvpy": np.where(passed["malignant_call"] == "malignant", 0.05, 0.01)
            + rng.normal(0, 0.004, len(passed)),
            "clone_t": np.nan,
            "clone_decoy_q": np.nan,
        }
    )
    arms = pd.DataFrame(
        [
            (patient, f"{patient}-{sample}", clone, arm, value, value - 0.05, value + 0.05, 0.001 if value else 0.8,
             state, 12, 300, 0.9, 0.12)
            for patient in patients
            for sample in ("BM", "PT")
            for clone in ("A", "B")
            for arm in ARMS
            for value, state in [
                (0.3, "gain") if arm in GAINS else (-0.3, "loss") if arm in LOSSES
                else (0.0, "not_assessable") if arm in ("18p", "9p") else (0.0, "neutral")
            ]
        ],
        columns=list(contracts.TABLES["arms"]),
    )  # fmt: skip
    clones = pd.DataFrame(
        [
            (p, c, 30, 5, "resolved", ";".join(GAINS), ";".join(LOSSES), 0.95, "diploid", "", "", 50)
            for p in patients
            for c in "AB"
        ],
        columns=list(contracts.TABLES["clones"]),
    )
    lost = cells[(cells["malignant_call"] == "indeterminate") | (~cells["pass_qc"] & (cells.index % 9 == 0))]
    audit = lost[["cell_id", "sample_id", "patient_id", "compartment"]].assign(
        stage=np.where(lost["pass_qc"], "call", "qc"),
        status=np.where(lost["pass_qc"], "indeterminate", "removed"),
        reason=np.where(lost["pass_qc"], "left indeterminate", lost["qc_reasons"]),
        evidence="epithelial_z 4.20 >= 3 with 3 markers",
        epithelial_z=4.2,
        n_epithelial_markers=3,
        cnv_burden_q=0.3,
        malignancy_q=0.2,
        n_counts=lost["n_counts"],
        evidence_level=np.array(["strong", "weak", "not_assessable"])[np.arange(len(lost)) % 3],
    )
    coverage = pd.DataFrame(
        [
            ("LIM_NOPROLIF", "primary", 420, 400, 310, 12, 88.0, 0.04, "ok"),
            ("TINY", "sensitivity", 9, 3, 2, 0, 2.0, np.nan, "low_coverage"),
        ],
        columns=list(contracts.TABLES["signature_coverage"]),
    )  # fmt: skip
    controls = pd.DataFrame(
        [
            ("P2", "negative_signature", "negative control EPPERT_HSC_R", "EPPERT_HSC_R", 7, 0.02, -0.25, 0.3, np.nan,
             np.nan, "interval includes 0 or lies below 0.5", True),
            ("P2", "split", "primary cells split in two", "LIM", 7, 0.01, -0.3, 0.31, np.nan, 0.04, "0", True),
            ("P2", "random_sets", "random gene sets", "LIM", 7, 0.05, -0.4, 0.42, 0.002, 0.06, "median near 0", True),
        ],
        columns=["claim_id", "control", "label", "signature", "n_patients", "estimate", "ci_low", "ci_high", "p_value",
                 "rate", "expectation", "ok"],
    )  # fmt: skip
    samples = sorted(cells["sample_id"].unique())
    return Study(
        cells=cells,
        cnv_cells=cnv_cells,
        umap=_umap(rng, passed),
        claims=claims,
        patients=values,
        verdict={
            "verdict": "INCONCLUSIVE",
            "codes": ["NOT_EVALUATED"],
            "statement": "Some disseminated tumour cells are self-renewing progenitors.",
            "sentence": "Undecided over 7 patients: C0 is supported; P2 is supported; P1 and P3 are not evaluated "
            "by this version.",
            "why": ["C0: SUPPORTED, 0.93 [0.85, 0.97] share over 7 patients.", "P1: not evaluated by this version."],
            "what_would_change_it": ["A version of the analysis that tests P1 and P3."],
            "ceiling": "Expression can be consistent with a progenitor state; it cannot show self-renewal.",
            "claims": {
                "P2": {
                    "gene_set_null": {"p_value": 0.002, "estimates": rng.normal(0.05, 0.2, 500).round(4).tolist()},
                    "adjusted": {"estimate": 0.9, "ci_low": 0.5, "ci_high": 1.3},
                    "confirmatory_signature": {"estimate": 0.8, "ci_low": 0.3, "ci_high": 1.3, "signature": "PECE_UP"},
                    "rules": [
                        {
                            "name": "patients",
                            "value": 7,
                            "threshold": 6,
                            "holds": True,
                            "code": "LOW_N",
                            "sentence": "7 usable patients; a verdict needs 6",
                            "blocks": "verdict",
                        },
                        {
                            "name": "precision",
                            "value": 0.6,
                            "threshold": 0.5,
                            "holds": False,
                            "code": "IMPRECISE",
                            "sentence": "90 % half-width 0.60",
                            "blocks": "verdict",
                        },
                    ],
                    "robustness": {
                        "leave_one_out": [{"patient_id": "PAT01", "estimate": 0.9, "ci_low": 0.5, "ci_high": 1.3}]
                    },
                }
            },
        },
        sensitivity=_sensitivity(rng),
        controls=controls,
        arms=arms,
        clones=clones,
        loss_audit=audit,
        identity=pd.DataFrame(columns=list(contracts.TABLES["identity"])),
        coverage=coverage,
        stability=pd.DataFrame(
            {
                "resolution": [0.5, 1.0],
                "n_clusters": [9, 14],
                "ari_mean": [0.95, 0.8],
                "ari_sd": [0.01, 0.05],
                "silhouette": [0.3, 0.2],
            }
        ),
        pathways=pd.DataFrame({"term": ["HALLMARK_HYPOXIA"], "nes": [1.9], "p_value": [0.001], "fdr": [0.02]}),
        provenance={
            "dtcflow": "0.1.0",
            "packages": {"scanpy": "1.11.5", "infercnvpy": "0.6.1"},
            "seeds": {"seed": 7},
            "inputs": {s: {"path": f"data/{s}.h5ad", "sha256": {f"{s}.h5ad": "ab" * 32}} for s in samples},
            "resources": {"markers.tsv": "cd" * 32},
            "analysis_plan_sha256": "ef" * 32,
        },
        config={
            "seed": 7,
            "study": {"title": "Synthetic study", "notice": "SIMULATED DATA. These patients do not exist."},
            "qc": {"n_mads": 5, "max_pct_mt_cap": 50, "min_counts": None},
            "embedding": {"n_top_genes": 2000, "harmony": False, "resolutions": [0.5, 1.0]},
            "copy_number": {"fdr": 0.05, "folds": 5},
            "report": {"max_points": 3000},
        },
        statuses={
            patient: {
                "patient_id": patient,
                "status": "ok",
                "reason": "",
                "reference": {"T_NK": 60, "monocyte": 40},
                "n_genes": 8123,
                "clone_status": "ok",
                "smallest_detectable": {"arms_at_5_cells": 9.0, "arms_at_20_cells": 4.0},
            }
            for patient in patients
        },
        qc={s: {"sample_id": s, "warnings": ["3 cells without any count"] if s == samples[0] else []} for s in samples},
        intake={
            s: {
                "sample_id": s,
                "input": f"data/{s}.h5ad",
                "format": "h5ad",
                "values": "counts",
                "n_cells": n_cells,
                "n_genes": 20000,
                "fraction_placed": 0.97,
                "sha256": {f"{s}.h5ad": "ab" * 32},
                "warnings": [],
            }
            for s in samples
        },
        windows={patient: _windows(rng, passed[passed["patient_id"] == patient], per_arm) for patient in patients},
    )


@pytest.fixture
def make() -> Any:
    """Builder of synthetic studies."""
    return make_study


@pytest.fixture(scope="module")
def make_once() -> Any:
    """Return the same builder for fixtures that live as long as a module."""
    return make_study
