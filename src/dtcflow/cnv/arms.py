r"""Negative-binomial score statistics per cell and chromosome arm.

For cell :math:`i` and gene :math:`g` the count is :math:`x_{ig} \sim \mathrm{NB}(\mu_{ig}, \phi_g)` with
:math:`\mu_{ig}` the library size times a mixture of reference type means. A relative change :math:`e^{\theta}` of
every gene of an arm has the score and information (at :math:`\theta = 0`)

.. math:: U_{ia} = \sum_{g \in a} \frac{x_{ig} - \mu_{ig}}{1 + \phi_g \mu_{ig}}, \qquad
          I_{ia} = \sum_{g \in a} \frac{\mu_{ig}}{1 + \phi_g \mu_{ig}},

so :math:`U/I` is the one-step estimate of the log ratio and :math:`U/\sqrt I` its score test. Both add over cells:
the statistics of a cell, a clone and a sample come from the same table. The dispersion :math:`\phi_g` is the sum of
a within-type part and a between-type part, which down-weights genes whose level depends on the cell type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.genes import gene_mask

Floats = npt.NDArray[np.float64]

MIN_GENES_PER_ARM = 15
MIN_MEAN_COUNT = 0.02
"""Genes with a smaller expected count in a reference cell carry noise only."""
MIN_DISPERSION, MAX_DISPERSION = 0.05, 5.0
RESIDUAL_CLIP = 4.0
"""Pearson residuals are clipped here: one induced gene must not look like an arm."""
EM_ITERATIONS = 15
EXCLUDED_KINDS = ("mito", "ribo", "haemoglobin", "immunoglobulin", "tcr", "hla")
AUTOSOMES = tuple(f"chr{i}" for i in range(1, 23))


def usable_genes(var: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Mask of genes that may carry copy-number evidence: autosomal, on an arm, of no family that marks a cell type."""
    usable = var["chromosome"].isin(AUTOSOMES).to_numpy() & (var["arm"].astype(str).to_numpy() != "")
    symbols = var["symbol"].astype(str).tolist()
    for kind in EXCLUDED_KINDS:
        usable &= ~np.asarray(gene_mask(symbols, kind), dtype=bool)
    return np.asarray(usable, dtype=bool)


@dataclass(frozen=True)
class ArmStatistics:
    """Score ``u`` and information ``info`` (both cells x arms), additive over cells and over genes."""

    u: Floats
    info: Floats
    arms: tuple[str, ...]

    def centred(self) -> tuple[Floats, Floats]:
        """Log ratios and z per cell and arm, both centred on the cell's median log ratio (its own ploidy level)."""
        log_ratio = self.u / np.maximum(self.info, 1e-9)
        centre = np.median(log_ratio, axis=1, keepdims=True)
        return log_ratio - centre, (self.u - centre * self.info) / np.sqrt(np.maximum(self.info, 1e-9))

    def __getitem__(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> ArmStatistics:
        return ArmStatistics(self.u[rows], self.info[rows], self.arms)


@dataclass(frozen=True)
class ArmModel:
    """Reference type means and dispersions, fitted once, that score any cell on its own."""

    types: tuple[str, ...]
    means: Floats
    """types x genes, fractions of a cell's counts."""
    dispersion: Floats
    genes: npt.NDArray[np.int64]
    """Columns of the count matrix in use."""
    gene_arm: npt.NDArray[np.int64]
    """Index into ``arms`` per gene in use."""
    arms: tuple[str, ...]


def fit_arm_model(
    counts: sp.csr_matrix, types: npt.NDArray[np.object_], arms: npt.NDArray[np.object_], usable: npt.NDArray[np.bool_]
) -> ArmModel:
    """Fit type means and dispersions on reference cells.

    Parameters
    ----------
    counts
        Reference cells x genes, raw counts; columns in genome order.
    types
        Cell type per reference cell.
    arms
        Arm per gene (``""`` where it has none).
    usable
        Genes that may be used (:func:`usable_genes`).

    Returns
    -------
    ArmModel
        Arms with fewer than 15 informative genes are left out.
    """
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    scale = float(np.median(totals))
    names = tuple(sorted(set(types.tolist())))
    size_factor = np.maximum(totals, 1.0) / scale
    scaled = sp.csr_matrix(sp.diags(1.0 / size_factor) @ counts)
    means = np.empty((len(names), counts.shape[1]))
    excess = np.zeros(counts.shape[1])
    square = np.zeros(counts.shape[1])
    for k, name in enumerate(names):
        members = np.flatnonzero(types == name)
        means[k] = np.asarray(counts[members].sum(axis=0)).ravel() / max(totals[members].sum(), 1.0)
        block = scaled[members]
        first = np.asarray(block.mean(axis=0)).ravel()
        second = np.asarray(block.multiply(block).mean(axis=0)).ravel()
        # method of moments: Var(x / s) = m E[1/s] + phi m^2
        excess += len(members) * (second - first**2 - first * np.mean(1.0 / size_factor[members]))
        square += len(members) * first**2
    within = np.clip(excess / np.maximum(square, 1e-9), MIN_DISPERSION, 50.0)
    overall = means.mean(axis=0)
    pseudo = 0.05
    ratio = (means * scale + pseudo) / (overall * scale + pseudo) - 1.0
    between = (ratio**2).mean(axis=0)
    dispersion = within + between
    good = usable & (overall * scale > MIN_MEAN_COUNT) & (dispersion <= MAX_DISPERSION)
    per_arm = pd.Series(arms[good]).value_counts()
    kept = tuple(sorted((str(a) for a, n in per_arm.items() if n >= MIN_GENES_PER_ARM), key=arm_sort_key))
    index = {arm: i for i, arm in enumerate(kept)}
    genes = np.array([g for g in np.flatnonzero(good) if arms[g] in index], dtype=np.int64)
    gene_arm = np.array([index[arms[g]] for g in genes], dtype=np.int64)
    return ArmModel(names, means[:, genes], dispersion[genes], genes, gene_arm, kept)


def arm_sort_key(arm: str) -> tuple[int, str]:
    """Sort key that puts arms in genome order (``1p 1q 2p ... 22q Xp``)."""
    number = arm[:-1]
    return (int(number) if number.isdigit() else {"X": 23, "Y": 24}.get(number, 99), arm[-1:])


def mixture_weights(model: ArmModel, counts: sp.csr_matrix) -> Floats:
    """Weights of the reference types in every cell (cells x types), by EM of a multinomial mixture of their profiles.

    Only non-zero counts enter an iteration, so the cost is non-zeros x types x iterations. ``counts`` holds the
    model's genes only. A cell without counts keeps equal weights.
    """
    profiles = model.means + 1e-7
    profiles = (profiles / profiles.sum(axis=1, keepdims=True)).astype(np.float32)
    n_cells, n_types = counts.shape[0], len(model.types)
    weights = np.full((n_cells, n_types), 1.0 / n_types, dtype=np.float32)
    filled = np.diff(counts.indptr) > 0
    if n_types == 1 or not filled.any():
        return weights.astype(np.float64)
    starts = counts.indptr[:-1][filled]
    rows = np.repeat(np.arange(n_cells), np.diff(counts.indptr))
    columns, data = counts.indices, counts.data.astype(np.float32)
    profile_of = np.ascontiguousarray(profiles.T)[columns]
    for _ in range(EM_ITERATIONS):
        joint = profile_of * weights[rows]
        joint *= (data / joint.sum(axis=1))[:, None]
        updated = np.add.reduceat(joint, starts, axis=0)
        weights[filled] = updated / updated.sum(axis=1, keepdims=True)
    return weights.astype(np.float64)


def arm_statistics(
    model: ArmModel,
    counts: sp.csr_matrix,
    *,
    gene_mask_in_use: npt.NDArray[np.bool_] | None = None,
    chunk: int = 512,
) -> ArmStatistics:
    """Score cells against the reference model.

    Every cell is scored on its own: the result does not depend on the other cells, their order or ``chunk``.

    Parameters
    ----------
    model
        From :func:`fit_arm_model`.
    counts
        Cells x all genes (the columns the model was fitted on).
    gene_mask_in_use
        Restrict the sums to these of the model's genes (used for split-gene replication); the expected profile is
        still estimated on all of them.
    chunk
        Cells that are dense in memory at a time.
    """
    n_arms = len(model.arms)
    member = sp.csr_matrix(
        (np.ones(len(model.genes)), (np.arange(len(model.genes)), model.gene_arm)), shape=(len(model.genes), n_arms)
    )
    if gene_mask_in_use is not None:
        member = sp.csr_matrix(sp.diags(gene_mask_in_use.astype(float)) @ member)
    u = np.zeros((counts.shape[0], n_arms))
    info = np.zeros((counts.shape[0], n_arms))
    for first in range(0, counts.shape[0], chunk):
        block = sp.csr_matrix(counts[first : first + chunk][:, model.genes])
        weights = mixture_weights(model, block)
        mu = weights @ model.means
        mu *= np.asarray(block.sum(axis=1), dtype=np.float64).reshape(-1, 1) / np.maximum(
            mu.sum(axis=1, keepdims=True), 1e-12
        )
        damping = 1.0 + model.dispersion * mu
        spread = np.sqrt(mu * damping)
        residual = (block.toarray() - mu) / np.maximum(spread, 1e-9)
        np.clip(residual, -RESIDUAL_CLIP, RESIDUAL_CLIP, out=residual)
        u[first : first + chunk] = np.asarray((residual * spread / damping) @ member)
        info[first : first + chunk] = np.asarray((mu / damping) @ member)
    return ArmStatistics(u, info, model.arms)
