r"""Negative-binomial score statistics per cell, genome segment and chromosome arm.

For cell :math:`i` and gene :math:`g` the count is :math:`x_{ig} \sim \mathrm{NB}(\mu_{ig}, \phi_g)` with
:math:`\mu_{ig}` the library size times a mixture of reference type means. A relative change :math:`e^{\theta}` of
every gene of a segment has the score and information (at :math:`\theta = 0`)

.. math:: U_{is} = \sum_{g \in s} \frac{x_{ig} - \mu_{ig}}{1 + \phi_g \mu_{ig}}, \qquad
          I_{is} = \sum_{g \in s} \frac{\mu_{ig}}{1 + \phi_g \mu_{ig}},

so :math:`U/I` is the one-step estimate of the log ratio and :math:`U/\sqrt I` its score test. Both add over genes and
over cells: one table of cells x segments x half of the genes serves the arms, the clones, the samples and the
replication on disjoint genes. The dispersion :math:`\phi_g` is the sum of a within-type and a between-type
part, which down-weights genes whose level depends on the cell type.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from dtcflow.cnv.moments import TypeMeans, reference_moments
from dtcflow.cnv.residuals import BLOCK, grouped_scores
from dtcflow.genes import gene_mask
from dtcflow.sparse import pieces

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIN_GENES_PER_ARM = 15
GENES_PER_SEGMENT = 40
"""Consecutive informative genes of one arm that make a segment."""
MIN_MEAN_COUNT = 0.005
"""Genes with a smaller expected count in a reference cell carry noise only."""
MIN_DISPERSION, MAX_DISPERSION = 0.05, 5.0
BETWEEN_TYPES = 1.0
"""Share of a gene's squared relative difference between types that counts as dispersion: what types differ by is what a
cell of an unseen type is off by. A share of 0.2 gains nothing in matched cells (AUC of planted cells within .002) and
lets a few strongly expressed genes speak for an arm of a tumour."""
RESIDUAL_CLIP = 4.0
"""Pearson residuals are clipped here: one induced gene must not look like an arm ..."""
UNCLIPPED_COUNT = 5.0
"""... but no count up to this one is clipped. At a mean of 0.02 a single molecule has a residual of 7; clipping it
discards the signal of weakly expressed genes and shifts the scores of shallow cells (a planted 1q+ 16q- at 1,000
counts: AUC .81 with the first rule alone, .90 with both; chosen on random halves of the ovarian normals)."""
EM_ITERATIONS = 15
CELLS_IN_DOUBLE = 256
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
    """Score ``u`` and information ``info`` (both cells x arms, or cells x segments), additive over cells and genes."""

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
class SplitStatistics:
    """Statistics of the same cells from all genes and from two disjoint halves of the genes."""

    full: ArmStatistics
    halves: tuple[ArmStatistics, ArmStatistics]
    segments: ArmStatistics | None = None
    """The segments that ``full`` sums up, where they are known."""
    segment_arm: Ints | None = None
    """Column of ``full`` per segment."""

    def __getitem__(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> SplitStatistics:
        segments = None if self.segments is None else self.segments[rows]
        return SplitStatistics(
            self.full[rows], (self.halves[0][rows], self.halves[1][rows]), segments, self.segment_arm
        )


@dataclass(frozen=True)
class Layout:
    """Which segment and half of the genes every column of a count matrix adds to; the same for all models of a patient.

    Segments are consecutive genes of one arm, in genome order; odd and even genes make the halves.
    """

    column_bin: Ints
    """Per column of the count matrix: ``2 * segment + half``; -1 off the arms."""
    segments: tuple[str, ...]
    """Names such as ``1q:03``."""
    segment_arm: Ints
    """Index into ``arms`` per segment, ascending."""
    arms: tuple[str, ...]
    n_genes: Ints
    """Informative genes per segment."""

    @property
    def n_bins(self) -> int:
        """Columns of the base table."""
        return 2 * len(self.segments)


@dataclass(frozen=True)
class BinStatistics:
    """The base table: ``u`` and ``info``, cells x (segment, half)."""

    u: npt.NDArray[np.float32]
    info: npt.NDArray[np.float32]
    layout: Layout

    def __getitem__(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> BinStatistics:
        return BinStatistics(self.u[rows], self.info[rows], self.layout)

    def segments(self) -> SplitStatistics:
        """Per segment."""
        u, info = self._by_half(self.u), self._by_half(self.info)
        return _split(u, info, self.layout.segments)

    def arms(self) -> SplitStatistics:
        """Per arm: sums of segments; the segments go with them."""
        starts = np.searchsorted(self.layout.segment_arm, np.arange(len(self.layout.arms)))
        sums = []
        for part in (self.u, self.info):
            by_arm = np.zeros((len(part), len(starts), 2))
            # in pieces, so that the double-precision copy of the base table is small
            for piece in pieces(len(part) if len(starts) else 0, size=CELLS_IN_DOUBLE):
                np.add.reduceat(self._by_half(part[piece]), starts, axis=1, out=by_arm[piece])
            sums.append(by_arm)
        arms = _split(sums[0], sums[1], self.layout.arms)
        u, info = (np.add(part[:, 0::2], part[:, 1::2], dtype=np.float64) for part in (self.u, self.info))
        segments = ArmStatistics(u, info, self.layout.segments)
        return replace(arms, segments=segments, segment_arm=self.layout.segment_arm)

    def _by_half(self, part: npt.NDArray[np.float32]) -> Floats:
        return part.astype(np.float64).reshape(len(part), len(self.layout.segments), 2)


def _split(u: Floats, info: Floats, names: tuple[str, ...]) -> SplitStatistics:
    first, second = (ArmStatistics(u[:, :, h], info[:, :, h], names) for h in (0, 1))
    return SplitStatistics(ArmStatistics(first.u + second.u, first.info + second.info, names), (first, second))


@dataclass(frozen=True)
class ArmModel:
    """Reference type means and dispersions, fitted once, that score any cell on its own."""

    types: tuple[str, ...]
    means: Floats
    """types x genes, fractions of a cell's counts."""
    dispersion: Floats
    genes: Ints
    """Columns of the count matrix in use, ordered by bin."""
    layout: Layout

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms that can be assessed."""
        return self.layout.arms


def make_layout(arms: npt.NDArray[np.object_], informative: npt.NDArray[np.bool_]) -> Layout:
    """Cut the arms into segments of about :data:`GENES_PER_SEGMENT` informative genes.

    Parameters
    ----------
    arms
        Arm per column of the count matrix (``""`` where it has none); columns in genome order.
    informative
        Columns that count; arms with fewer than :data:`MIN_GENES_PER_ARM` of them are left out.
    """
    per_arm = pd.Series(arms[informative]).value_counts()
    kept = tuple(sorted((str(a) for a, n in per_arm.items() if n >= MIN_GENES_PER_ARM), key=arm_sort_key))
    column_bin = np.full(len(arms), -1, dtype=np.int64)
    names: list[str] = []
    segment_arm: list[int] = []
    sizes: list[int] = []
    for index, arm in enumerate(kept):
        columns = np.flatnonzero(arms == arm)
        inside = informative[columns]
        rank = np.maximum(np.cumsum(inside) - 1, 0)
        total = int(inside.sum())
        n_segments = max(1, round(total / GENES_PER_SEGMENT))
        part = np.minimum(rank * n_segments // total, n_segments - 1)
        # a gene that only another model of this patient uses joins the segment around it
        half = np.where(inside, rank % 2, np.arange(len(columns)) % 2)
        column_bin[columns] = 2 * (len(names) + part) + half
        names += [f"{arm}:{k:02d}" for k in range(n_segments)]
        segment_arm += [index] * n_segments
        sizes += np.bincount(part[inside], minlength=n_segments).tolist()
    return Layout(
        column_bin, tuple(names), np.array(segment_arm, dtype=np.int64), kept, np.array(sizes, dtype=np.int64)
    )


def fit_arm_model(
    counts: sp.csr_matrix,
    types: npt.NDArray[np.object_],
    arms: npt.NDArray[np.object_],
    usable: npt.NDArray[np.bool_],
    *,
    layout: Layout | None = None,
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
    layout
        Segments of an earlier model, so that the statistics of both can be compared; made here otherwise.

    Returns
    -------
    ArmModel
        Arms with fewer than 15 informative genes are left out.
    """
    return fit_to_moments(reference_moments(counts, types).without(), arms, usable, layout=layout)


def fit_to_moments(
    reference: TypeMeans,
    arms: npt.NDArray[np.object_],
    usable: npt.NDArray[np.bool_],
    *,
    layout: Layout | None = None,
) -> ArmModel:
    """:func:`fit_arm_model` from sums that are known already."""
    scale, means = reference.scale, reference.means
    # method of moments: Var(x / s) = m E[1/s] + phi m^2
    first, second, cells = reference.scaled_mean, reference.scaled_square, reference.cells
    excess = cells @ (second - first**2 - first * reference.inverse_size[:, None])
    within = np.clip(excess / np.maximum(cells @ first**2, 1e-9), MIN_DISPERSION, 50.0)
    overall = means.mean(axis=0)
    pseudo = 0.05
    ratio = (means * scale + pseudo) / (overall * scale + pseudo) - 1.0
    dispersion = within + BETWEEN_TYPES * (ratio**2).mean(axis=0)
    informative = usable & (overall * scale > MIN_MEAN_COUNT) & (dispersion <= MAX_DISPERSION)
    layout = make_layout(arms, informative) if layout is None else layout
    genes = np.flatnonzero(informative & (layout.column_bin >= 0))
    genes = genes[np.argsort(layout.column_bin[genes], kind="stable")].astype(np.int64)
    return ArmModel(reference.types, means[:, genes], dispersion[genes], genes, layout)


def arm_sort_key(arm: str) -> tuple[int, str]:
    """Sort key that puts arms in genome order (``1p 1q 2p ... 22q Xp``)."""
    number = arm[:-1]
    return (int(number) if number.isdigit() else {"X": 23, "Y": 24}.get(number, 99), arm[-1:])


def bin_statistics(model: ArmModel, counts: sp.csr_matrix, *, chunk: int = BLOCK) -> BinStatistics:
    """Score cells against the reference model.

    Every cell is scored on its own: the result does not depend on the other cells, their order or ``chunk``, to the
    last bit (:mod:`dtcflow.cnv.residuals`).

    Parameters
    ----------
    model
        From :func:`fit_arm_model`.
    counts
        Cells x all genes (the columns the model was fitted on).
    chunk
        Cells that are dense in memory at a time.

    Returns
    -------
    BinStatistics
        Cells x (segment, half); a bin without genes has no information.
    """
    layout = model.layout
    u, info = grouped_scores(
        counts,
        model.genes,
        model.means,
        model.dispersion,
        layout.column_bin[model.genes],
        layout.n_bins,
        iterations=EM_ITERATIONS,
        clip=RESIDUAL_CLIP,
        unclipped=UNCLIPPED_COUNT,
        block=chunk,
        dtype=np.float32,
    )
    return BinStatistics(u, info, layout)


def arm_statistics(model: ArmModel, counts: sp.csr_matrix, *, chunk: int = BLOCK) -> ArmStatistics:
    """:func:`bin_statistics`, summed to arms."""
    return bin_statistics(model, counts, chunk=chunk).arms().full
