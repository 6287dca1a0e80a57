"""Genes and pathways between compartments, on sums of counts per patient and compartment. Screening, not evidence.

One pseudobulk per patient and compartment keeps the patient as the unit (Squair 2021, doi
10.1038/s41467-021-25960-2). Genes are tested by pydeseq2 with patients as blocks; pathways are ranked by gseapy's
``prerank``, whose p value permutes genes and therefore ignores that genes vary together: it is labelled screening.
The p value reported for a pathway is a sign-flip test over patients.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from dtcflow.cells import single_malignant
from dtcflow.contracts import COUNTS
from dtcflow.evidence.contrasts import tumour_patients
from dtcflow.evidence.inference import adjust, sign_flip_p
from dtcflow.evidence.plan import GROUPS
from dtcflow.scores.signatures import GeneSet

_LOG = logging.getLogger(__name__)

MIN_PAIRS: Final = 3
MIN_CELLS: Final = 3
THINNING_DRAWS = 20
MIN_COUNTS: Final = 5
MIN_SET: Final = 10
MIN_SIZE_FACTOR_GENES: Final = 50
MAX_SET: Final = 2000
OK: Final = "ok"
GENE_COLUMNS: Final = (
    *("gene", "base_mean", "log2_fold_change", "standard_error", "stat", "p_value", "p_adjusted", "n_pairs"),
    "status",
)
PATHWAY_COLUMNS: Final = (
    *("signature", "n_genes", "difference", "patient_p", "patient_p_adjusted", "nes", "screening_p", "screening_q"),
    *("leading_edge", "n_pairs", "status"),
)


@dataclass(frozen=True)
class Pseudobulk:
    """Sums of counts of the malignant cells of paired patients.

    Attributes
    ----------
    counts
        Pseudobulks x genes, whole numbers; rows 2i and 2i+1 are groups a and b of patient i.
    patients
        Patients with both groups, sorted.
    cells
        Patients x 2: cells summed.
    genes
        Symbols.
    """

    counts: NDArray[np.int64]
    patients: tuple[str, ...]
    cells: NDArray[np.int64]
    genes: pd.Index[str]


@dataclass(frozen=True)
class Comparison:
    """Tables ``pseudobulk.tsv`` and ``pathways.tsv``; without enough pairs one row that says so."""

    genes: pd.DataFrame
    pathways: pd.DataFrame


def pseudobulk(
    adata: ad.AnnData, cells: pd.DataFrame, *, a: str = "DTC", b: str = "PT", leave_out: Collection[str] = ()
) -> Pseudobulk:
    """Sum the counts of malignant cells per patient and compartment.

    Parameters
    ----------
    adata
        Stage ``embedding``.
    cells
        One row per cell of ``adata`` at least: ``cell_id patient_id sample_id compartment malignant_call``.
    a, b
        Groups, keys of :data:`dtcflow.evidence.plan.GROUPS`.
    leave_out
        Samples that take no part: those of another time point than that of the claims.

    Notes
    -----
    Genes that were not measured in all samples are left out; patients with fewer than three cells on a side, too.
    """
    table = cells.set_index("cell_id").loc[adata.obs_names.astype(str)]
    measured = np.ones(adata.n_vars, dtype=bool)
    if "in_all_samples" in adata.var:
        measured = adata.var["in_all_samples"].to_numpy(dtype=bool)
    matrix = sp.csr_matrix(adata.layers[COUNTS])
    malignant = single_malignant(table)
    if leave_out:
        malignant = malignant & ~table["sample_id"].astype(str).isin(leave_out).to_numpy(dtype=bool)
    patient, compartment = table["patient_id"].astype(str).to_numpy(), table["compartment"].astype(str).to_numpy()
    sums, names, sizes = [], [], []
    for name in tumour_patients(table):
        rows = [np.flatnonzero(malignant & (patient == name) & (compartment == GROUPS[group])) for group in (a, b)]
        if min(row.size for row in rows) < MIN_CELLS:
            continue
        names.append(name)
        sizes.append([row.size for row in rows])
        sums += [np.asarray(matrix[row].sum(axis=0, dtype=np.float64)).ravel()[measured] for row in rows]
    counts = np.rint(np.array(sums)).astype(np.int64) if sums else np.zeros((0, int(measured.sum())), dtype=np.int64)
    return Pseudobulk(
        counts,
        tuple(names),
        np.asarray(sizes, dtype=np.int64).reshape(-1, 2),
        pd.Index(adata.var_names.astype(str))[measured],
    )


def tested_genes(bulk: Pseudobulk) -> NDArray[np.bool_]:
    """Genes with five counts in as many pseudobulks as there are patients: half of all, so one compartment suffices."""
    return np.asarray((bulk.counts >= MIN_COUNTS).sum(axis=0) >= max(len(bulk.patients), 1))


def _nothing(columns: Iterable[str], status: str, n_pairs: int) -> pd.DataFrame:
    frame = pd.DataFrame([{"n_pairs": n_pairs, "status": status}], columns=list(columns))
    for name in frame.columns.difference(["gene", "signature", "leading_edge", "status", "n_pairs"]):
        frame[name] = frame[name].astype(float)
    return frame


def _size_factor_method(counts: NDArray[np.int64]) -> str:
    """Median of ratios over genes seen in every pseudobulk, while there are enough of them.

    The alternative for sparse data takes the median over the genes a pseudobulk has: that makes a pseudobulk of few
    cells look larger than it is (by a half, for 20 cells against 150) and every gene look lower in it.
    """
    return "ratio" if int((counts > 0).all(axis=0).sum()) >= MIN_SIZE_FACTOR_GENES else "poscounts"


def compare_genes(bulk: Pseudobulk) -> pd.DataFrame:
    """Test every gene with pydeseq2, design ``~ patient + compartment`` (Love 2014, PMID 25516281).

    Returns
    -------
    pandas.DataFrame
        :data:`GENE_COLUMNS`, sorted by p then gene; positive fold changes are higher in group a. With fewer than three
        pairs, or when the model cannot be fitted, one row without a gene whose ``status`` says why.
    """
    n = len(bulk.patients)
    if n < MIN_PAIRS:
        return _nothing(GENE_COLUMNS, f"needs {MIN_PAIRS} paired patients, found {n}", n)
    kept = tested_genes(bulk)
    if not kept.any():
        return _nothing(GENE_COLUMNS, f"no gene with {MIN_COUNTS} counts in {n} pseudobulks", n)
    # imported here: pydeseq2 takes seconds to load, and the rest of the stage does not need it
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    index = [f"p{i:04d}_{side}" for i in range(n) for side in ("a", "b")]
    metadata = pd.DataFrame(
        {"patient": [f"p{i:04d}" for i in range(n) for _ in range(2)], "compartment": ["a", "b"] * n}, index=index
    )
    counts = pd.DataFrame(bulk.counts[:, kept], index=index, columns=bulk.genes[kept])
    inference = DefaultInference(n_cpus=1)
    try:
        # one BLAS thread: the matrices are 14 x 8, and starting threads for them took two thirds of the time
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore")
            data = DeseqDataSet(
                counts=counts,
                metadata=metadata,
                design="~ patient + compartment",
                inference=inference,
                quiet=True,
                size_factors_fit_type=_size_factor_method(bulk.counts[:, kept]),
            )
            data.deseq2()
            found = DeseqStats(data, contrast=["compartment", "a", "b"], inference=inference, quiet=True)
            found.summary()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        _LOG.warning("pydeseq2 could not fit the pseudobulks: %s", error)
        return _nothing(GENE_COLUMNS, f"not fitted: {str(error).splitlines()[0][:120]}", n)
    table = found.results_df
    out = pd.DataFrame(
        {
            "gene": table.index.astype(str),
            "base_mean": table["baseMean"].to_numpy(dtype=float),
            "log2_fold_change": table["log2FoldChange"].to_numpy(dtype=float),
            "standard_error": table["lfcSE"].to_numpy(dtype=float),
            "stat": table["stat"].to_numpy(dtype=float),
            "p_value": table["pvalue"].to_numpy(dtype=float),
            "p_adjusted": table["padj"].to_numpy(dtype=float),
            "n_pairs": n,
            "status": OK,
        }
    )
    return out.sort_values(["p_value", "gene"], kind="stable", na_position="last").reset_index(drop=True)


def thinned_draws(
    bulk: Pseudobulk, kept: NDArray[np.bool_], *, seed: int, draws: int = THINNING_DRAWS
) -> Iterator[NDArray[np.float64]]:
    """Seeded draws of the counts (pseudobulks x kept genes), the deeper of a patient at the total of the other."""
    counts = bulk.counts[:, kept].astype(float)
    rng = np.random.default_rng(seed)
    totals = counts.sum(axis=1)
    smaller = np.repeat(np.minimum(totals[0::2], totals[1::2]), 2)
    keep = np.divide(smaller, totals, out=np.zeros_like(totals), where=totals > 0)[:, None]
    for _ in range(draws):
        yield rng.binomial(counts.astype(np.int64), keep).astype(float)


def log2_cpm(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log2 counts per million with half a count added."""
    return np.asarray(np.log2((counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 1.0) * 1e6), dtype=np.float64)


def set_differences(
    bulk: Pseudobulk, sets: dict[str, tuple[str, ...]], *, seed: int = 0
) -> tuple[list[str], NDArray[np.float64]]:
    """Within-patient difference of each set: mean log2 fold change of its genes minus that of all tested genes.

    The deeper pseudobulk of a patient is thinned to the total of the other (mean of 20 seeded draws), because a
    pseudocount shifts weakly expressed sets of a shallow pseudobulk; the mean over all genes is then taken away.

    Returns
    -------
    tuple
        Names of the sets with enough tested genes, and differences (patients x sets).
    """
    kept = tested_genes(bulk)
    change = np.zeros((len(bulk.patients), int(kept.sum())))
    for thinned in thinned_draws(bulk, kept, seed=seed):
        log_cpm = log2_cpm(thinned)
        change += (log_cpm[0::2] - log_cpm[1::2]) / THINNING_DRAWS
    change -= change.mean(axis=1, keepdims=True)
    position = {gene: i for i, gene in enumerate(bulk.genes[kept])}
    names, columns = [], []
    for name, genes in sets.items():
        own = [position[gene] for gene in genes if gene in position]
        if MIN_SET <= len(own) <= MAX_SET:
            names.append(name)
            columns.append(change[:, own].mean(axis=1))
    return names, np.column_stack(columns) if columns else np.zeros((len(bulk.patients), 0))


def directed_sets(panel: Iterable[GeneSet]) -> dict[str, tuple[str, ...]]:
    """Return gene sets with one direction each: a set with down genes becomes ``<name>_UP`` and ``<name>_DN``."""
    out: dict[str, tuple[str, ...]] = {}
    for one in panel:
        if one.role == "mask":
            continue
        if one.down:
            out[f"{one.name}_UP"], out[f"{one.name}_DN"] = one.up, one.down
        else:
            out[one.name] = one.up
    return out


def rank_pathways(
    bulk: Pseudobulk, genes: pd.DataFrame, panel: Iterable[GeneSet], *, seed: int = 0, permutations: int = 1000
) -> pd.DataFrame:
    """Rank gene sets by gseapy ``prerank`` on the gene statistic, beside a sign-flip test over patients.

    Parameters
    ----------
    bulk, genes
        Pseudobulks and their table from :func:`compare_genes`.
    panel
        Gene sets: panel and user GMT.
    seed, permutations
        Of gseapy's gene permutations.

    Returns
    -------
    pandas.DataFrame
        :data:`PATHWAY_COLUMNS`, sorted by ``patient_p``, then size of the difference. ``difference`` is the mean over
        patients in log2 units. ``screening_p`` and ``screening_q`` come from permuted genes and are no evidence.
    """
    n = len(bulk.patients)
    status = str(genes["status"].iloc[0])
    if n < MIN_PAIRS or status != OK:
        return _nothing(PATHWAY_COLUMNS, status if status != OK else f"needs {MIN_PAIRS} paired patients, found {n}", n)
    sets = directed_sets(panel)
    names, d = set_differences(bulk, sets, seed=seed)
    if not names:
        return _nothing(PATHWAY_COLUMNS, f"no gene set with {MIN_SET} tested genes", n)
    p = sign_flip_p(d, seed=seed)
    tested = set(bulk.genes[tested_genes(bulk)])
    out = pd.DataFrame(
        {
            "signature": names,
            "n_genes": [sum(gene in tested for gene in sets[name]) for name in names],
            "difference": d.mean(axis=0),
            "patient_p": p,
            "patient_p_adjusted": adjust(p, "bh"),
        }
    )
    screened = _prerank(genes, {name: list(sets[name]) for name in names}, seed=seed, permutations=permutations)
    out = out.merge(screened, on="signature", how="left", validate="one_to_one")
    out["n_pairs"], out["status"] = n, OK
    # few patients give few different p values: among equals the larger difference first
    out["size"] = -out["difference"].abs()
    out = out.sort_values(["patient_p", "size", "signature"], kind="stable").reset_index(drop=True)
    return out[list(PATHWAY_COLUMNS)]


def _prerank(genes: pd.DataFrame, sets: dict[str, list[str]], *, seed: int, permutations: int) -> pd.DataFrame:
    import gseapy

    ranked = genes.loc[np.isfinite(genes["stat"]), ["gene", "stat"]]
    # equal statistics in alphabetical order: gseapy would keep the order they come in
    ranked = ranked.sort_values(["stat", "gene"], ascending=[False, True], kind="stable").set_index("gene")["stat"]
    columns = ["signature", "nes", "screening_p", "screening_q", "leading_edge"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Any = gseapy.prerank(
                rnk=ranked,
                gene_sets=sets,
                min_size=MIN_SET,
                max_size=MAX_SET,
                permutation_num=permutations,
                seed=seed,
                threads=1,
                outdir=None,
                no_plot=True,
                verbose=False,
            )
    except (LookupError, ValueError) as error:
        _LOG.warning("gseapy prerank gave nothing: %s", error)
        return pd.DataFrame(
            {name: pd.Series(dtype=object if name in ("signature", "leading_edge") else float) for name in columns}
        )
    table = result.res2d
    return pd.DataFrame(
        {
            "signature": table["Term"].astype(str).to_numpy(),
            "nes": pd.to_numeric(table["NES"]).to_numpy(dtype=float),
            "screening_p": pd.to_numeric(table["NOM p-val"]).to_numpy(dtype=float),
            "screening_q": pd.to_numeric(table["FDR q-val"]).to_numpy(dtype=float),
            "leading_edge": table["Lead_genes"].astype(str).to_numpy(),
        }
    )


def compare_pseudobulk(bulk: Pseudobulk, panel: Iterable[GeneSet], *, seed: int = 0) -> Comparison:
    """Compare group a with group b: genes by :func:`compare_genes`, pathways by :func:`rank_pathways`."""
    genes = compare_genes(bulk)
    return Comparison(genes, rank_pathways(bulk, genes, list(panel), seed=seed))
