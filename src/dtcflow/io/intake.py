"""Intake of one sample: counts in one form, cells under a cohort-wide id, genes placed on the genome."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from dtcflow.contracts import COUNTS
from dtcflow.genes import check_placement, gene_mask, place_genes, placement_report
from dtcflow.io.droplets import EMPTY_MEDIAN, Droplets, call_sample, learn_soup, looks_unfiltered
from dtcflow.io.files import sha256
from dtcflow.io.names import OTHER_BUILD, check_species, chosen_genes, find_mangled, is_grch37, is_number
from dtcflow.io.readers import READ_KEY, input_files, read_matrix
from dtcflow.io.sex import call_sex
from dtcflow.scores.signatures import GeneSet

log = logging.getLogger(__name__)

_READ_FIELDS: Final = (
    "format",
    "source",
    "values",
    "rounded",
    "removed_features",
    "n_repeated_names",
    "selected",
)


def _text(row: Mapping[str, Any], key: str, default: str = "") -> str:
    value = row.get(key, default)
    return default if value is None or value != value else str(value)


def _warnings(counts: sp.csr_matrix, var: pd.DataFrame, barcodes: list[str]) -> list[str]:
    """What a user should know about a sample that is nevertheless usable."""
    found = []
    if not gene_mask(var["symbol"], "mito").any():
        found.append("no mitochondrial genes: pct_mt stays empty and no cell is judged by it")
    mangled = [name for name in barcodes if is_number(name)]
    if mangled:
        found.append(
            f"{len(mangled):,} barcodes were turned into numbers by a spreadsheet, for example {mangled[0]}; they stay "
            "as they are"
        )
    totals = np.asarray(counts.sum(axis=1)).ravel()
    if chosen := chosen_genes(list(var["symbol"])):
        found.append(chosen)
    if n_zero := int((totals == 0).sum()):
        found.append(f"{n_zero:,} cells without any count")
    return found


def _droplets(
    adata: ad.AnnData,
    symbols: pd.Series,
    row: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    markers: Mapping[str, GeneSet] | None,
    base_dir: Path,
) -> Droplets:
    """What the unfiltered matrix of this sample says, where there is one."""
    intake, raw = config["intake"], _text(row, "raw_path")
    if _text(row, "platform", "droplet") != "droplet":
        return Droplets(warnings=[f"raw_path {raw} is not used: plate data have no empty droplets"] if raw else [])
    options: dict[str, Any] = {
        "fdr": intake["cell_calling_fdr"],
        "seed": int(config.get("seed", 0)),
        "markers": markers,
    }
    unfiltered = looks_unfiltered(adata.layers[COUNTS])
    if unfiltered and intake["cell_calling"] == "auto":
        found = call_sample(adata.layers[COUNTS], symbols, **options)
        if raw:
            found.warnings.append(f"raw_path {raw} is not used: path is an unfiltered matrix itself")
        return found
    found = learn_soup(adata, symbols, base_dir / raw, **options) if raw else Droplets()
    if unfiltered:
        found.warnings.append(
            f"half of the {adata.n_obs:,} barcodes have fewer than {EMPTY_MEDIAN} counts: this is an unfiltered "
            "matrix, and intake.cell_calling is off"
        )
    return found


def read_sample(
    row: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    positions: pd.DataFrame,
    aliases: pd.DataFrame,
    base_dir: str | Path = ".",
    markers: Mapping[str, GeneSet] | None = None,
) -> tuple[ad.AnnData, dict[str, Any]]:
    """Read the matrix of one row of the sample sheet.

    Parameters
    ----------
    row
        ``sample_id patient_id compartment path`` and, where the sheet has them, ``format raw_path platform batch
        sample_column sample_value`` (the last defaults to the sample's id).
    config
        With the block ``intake`` and, for the calling of cells, ``seed`` (:func:`dtcflow.io.config.load_config`).
    positions, aliases
        From :func:`dtcflow.genes.load_positions` and :func:`dtcflow.genes.load_aliases`.
    base_dir
        Folder that a relative ``path`` starts from.
    markers
        Marker panels by cell type (the epithelial one names droplets worth keeping); the shipped ones without it.

    Returns
    -------
    adata
        Stage ``intake``: cells x genes, ``layers["counts"]`` CSR float32 of whole numbers, no ``X``; ``obs`` indexed by
        ``{sample_id}:{barcode}`` with ``sample_id patient_id compartment batch platform barcode`` and the input's own
        columns as ``input_<name>``; ``var`` as :func:`dtcflow.genes.place_genes` writes it. Of an unfiltered matrix
        (``intake.cell_calling: auto``) only called cells stay, and uncalled droplets with epithelial evidence: ``obs``
        then has ``droplet_class`` (``cell`` or ``uncalled``) and ``droplet_q``. With any unfiltered matrix ``var`` has
        ``ambient_count``, the counts of its empty droplets.
    report
        ``sample_id input format source values rounded selected sha256`` (per file) ``n_cells n_genes n_expressed
        fraction_placed n_renamed n_mangled_names n_recovered_names n_repeated_names removed_features sex placement
        warnings`` and, with an unfiltered matrix, ``droplets`` (how many droplets are cells, and how that was found).
        ``n_renamed`` counts genes whose superseded symbol was mapped to the current one; ``sex`` is that of
        :func:`dtcflow.io.sex.call_sex`.

    Raises
    ------
    InputError
        As :func:`dtcflow.io.readers.read_matrix`; also for genes of another species or a mixture, and when fewer
        expressed genes than ``intake.min_placed_fraction`` have a position or the positions are of another genome
        build than was said.
    """
    intake = config["intake"]
    given = _text(row, "path")
    sample_id, platform = _text(row, "sample_id"), _text(row, "platform", "droplet")
    path = Path(base_dir) / given
    column = _text(row, "sample_column")
    adata = read_matrix(
        path,
        format=_text(row, "format", "auto"),
        layer=intake["layer"],
        platform=platform,
        sample_column=column,
        sample_value=_text(row, "sample_value") or (sample_id if column else ""),
    )
    done = adata.uns.pop(READ_KEY)
    originals = [str(name) for name in adata.var["original_name"]]
    check_species(originals, where=str(path))
    # an Ensembl id beside a mangled name says which gene it is
    ids = adata.var["gene_ids"] if "gene_ids" in adata.var else [""] * adata.n_vars
    has_id = [str(value).startswith("ENSG") for value in ids]
    mangled = find_mangled([name for name, known in zip(originals, has_id, strict=True) if not known], aliases)
    # places are looked up by the names as they were in the file, not by the suffixed ones
    names = [mangled.recovered.get(name, name) for name in originals]
    named = adata.var.drop(columns="original_name").set_axis(pd.Index(names, dtype=object), axis=0)
    var = place_genes(named, positions, aliases)
    var["renamed"] |= np.array([name in mangled.recovered for name in originals], dtype=np.bool_)
    var["original_name"] = originals
    droplets = _droplets(adata, var["symbol"], row, config=config, markers=markers, base_dir=Path(base_dir))
    # without a cell the genes are still placed: an empty sample is a result
    everything = adata.layers[COUNTS]
    if droplets.keep is not None:
        adata = adata[droplets.keep].copy()
    var = var.assign(**droplets.var)
    counts = sp.csr_matrix(adata.layers[COUNTS])
    placement = placement_report(var, counts if counts.nnz else everything, build=intake["genome_build"])
    check_placement(placement, minimum=intake["min_placed_fraction"], where=str(path))

    barcodes = adata.obs_names.astype(object)
    cell_ids = pd.Index([f"{sample_id}:{barcode}" for barcode in barcodes], dtype=object)
    identity = {
        "sample_id": sample_id,
        "patient_id": _text(row, "patient_id"),
        "compartment": _text(row, "compartment"),
        "batch": _text(row, "batch", "1"),
        "platform": platform,
    }
    obs = pd.DataFrame(
        {key: pd.Series([value] * len(cell_ids), index=cell_ids, dtype=object) for key, value in identity.items()}
    )
    obs["barcode"] = pd.Series(list(barcodes), index=cell_ids, dtype=object)
    for key, values in droplets.obs.items():
        obs[key] = pd.Series(values, index=cell_ids)
    obs = pd.concat([obs, adata.obs.set_axis(cell_ids, axis=0)], axis=1)
    result = ad.AnnData(obs=obs, var=var, layers={COUNTS: counts})
    warnings = [*done["warnings"], *mangled.warnings(), *droplets.warnings, *_warnings(counts, var, list(barcodes))]
    warnings += [f"annotated on {genome}: {OTHER_BUILD}" for genome in done.get("genomes", ()) if is_grch37(genome)]
    for warning in warnings:
        log.warning("%s (%s): %s", sample_id, given, warning)
    report = {
        "sample_id": sample_id,
        "input": given,
        **{key: done[key] for key in _READ_FIELDS},
        "sha256": {file.name: sha256(file) for file in input_files(path)},
        "n_cells": result.n_obs,
        "n_genes": result.n_vars,
        "n_expressed": placement["n_expressed"],
        "fraction_placed": placement["fraction_placed"],
        "n_renamed": int(var["renamed"].sum()),
        "n_mangled_names": mangled.total,
        "n_recovered_names": len(mangled.recovered),
        "sex": call_sex(counts, list(var["symbol"])),
        "placement": placement,
        "droplets": droplets.report,
        "warnings": warnings,
    }
    return result, report
