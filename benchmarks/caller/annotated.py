"""Quality control and cell types by the package itself, on one sample: what decides reference and candidates."""

from __future__ import annotations

import numpy as np

from caller.data import Integers, Sample
from caller.ours import shipped
from dtcflow.annotate import annotate_cells
from dtcflow.embed import embed_cohort
from dtcflow.qc.run import qc_sample
from dtcflow.scores.signatures import load_markers


def annotated(sample: Sample, *, seed: int = 0) -> tuple[Sample, Integers]:
    """The cells that pass quality control, typed by the shipped panels, and their rows in ``sample``.

    One clustering instead of the workflow's choice among three; everything else is the workflow's default path.
    """
    config = shipped()
    adata = sample.adata.copy()
    for column in ("sample_id", "patient_id", "compartment"):
        adata.obs[column] = sample.cells[column].to_numpy(dtype=object)
    epithelial_z = config["annotation"]["epithelial_z"]
    qc, _ = qc_sample(adata, settings=config["qc"], epithelial_z_threshold=epithelial_z, seed=seed)
    keep = np.flatnonzero(qc["pass_qc"].to_numpy(dtype=bool))
    kept = adata[keep].copy()
    embedded = embed_cohort(kept, settings={**config["embedding"], "resolutions": [1.0]}, seed=seed, n_stability_runs=1)
    types = annotate_cells(embedded, load_markers(), settings=config["annotation"], seed=seed)
    cells = qc.iloc[keep].merge(types, on="cell_id", validate="one_to_one")
    labelled = [c for c in sample.cells.columns if c not in cells.columns]
    cells = cells.merge(sample.cells[["cell_id", *labelled]], on="cell_id", validate="one_to_one")
    return Sample(sample.adata[keep].copy(), cells.reset_index(drop=True), sample.tumour[keep]), keep
