"""Which files make up a Matrix Market input: matrix, genes and cells, as each counting program writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dtcflow.io.files import refuse

_TENX_SIDES: Final = (("features", ("features.tsv", "genes.tsv")), ("barcodes", ("barcodes.tsv",)))
_MATRIX: Final = re.compile(r"\.mtx(\.gz)?$", re.IGNORECASE)
_TABLE: Final = re.compile(r"\.(tsv|txt|csv)(\.gz)?$", re.IGNORECASE)
_CELL_WORDS: Final = ("barcode", "cell", "colname", "col_name", "column")
_GENE_WORDS: Final = ("feature", "gene", "rowname", "row_name")
_LISTED: Final = 10
_LOOKED_AT: Final = 5000
_DEEPEST: Final = 4


@dataclass(frozen=True)
class MatrixFolder:
    """The files of one Matrix Market input; ``features`` and ``barcodes`` name its genes and cells."""

    matrix: Path
    features: Path
    barcodes: Path
    kind: str = "10x_mtx"
    """``10x_mtx``, ``alevin``, ``kb`` or ``mtx`` (any other)."""
    symbols: Path | None = None
    """Gene names in the order of ``features`` (kb writes ids and names into two files)."""

    @property
    def files(self) -> list[Path]:
        """All files of the input."""
        return [path for path in (self.matrix, self.features, self.barcodes, self.symbols) if path is not None]


def folder_files(folder: Path) -> MatrixFolder:
    """Return the files of a folder that holds one matrix; a common prefix of the names (as GEO adds) is allowed.

    Raises
    ------
    InputError
        When there is no matrix, several, or names files are missing; matrices in folders below are named.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    tenx = [name for name in names if name.endswith(("matrix.mtx", "matrix.mtx.gz"))]
    exact = [name for name in ("matrix.mtx.gz", "matrix.mtx") if name in tenx]
    found = exact[:1] or tenx or _pick(folder, [name for name in names if _MATRIX.search(name)])
    if len(found) == 1:
        return matrix_files(folder / found[0])
    if found:
        raise refuse(
            folder,
            "several matrices in one folder",
            ", ".join(found[:_LISTED]),
            "one sample per path",
            "write the path of one matrix file in each row of the sample sheet",
        )
    if "quants_mat.gz" in names:
        raise eds(folder / "quants_mat.gz")
    below = _matrix_folders_below(folder)
    if below:
        raise refuse(
            folder,
            "no matrix in this folder" if len(below) == 1 else "matrices of several genomes or kinds",
            f"folders {', '.join(str(path.relative_to(folder)) for path in below[:_LISTED])}",
            "a folder that holds matrix.mtx(.gz)",
            f"write the path of the folder itself, for example {below[0]}",
        )
    raise refuse(
        folder,
        "no matrix in this folder",
        ", ".join(names[:_LISTED]) or "an empty folder",
        "matrix.mtx, features.tsv or genes.tsv, and barcodes.tsv (.gz or not), a zarr store, or the output folder of "
        "STARsolo, alevin-fry or kb",
        "write the path of the folder of the matrix, or of the matrix file",
    )


def eds(path: Path) -> Exception:
    """Return the error about the binary matrix of the first alevin."""
    return refuse(
        path,
        "a binary matrix of alevin (EDS), which is not read",
        path.name,
        "quants_mat.mtx as alevin-fry writes it, or another format",
        "run alevin again with --dumpMtx, or save the counts from R (tximport) as a 10x folder (Matrix::writeMM)",
    )


def _pick(folder: Path, names: list[str]) -> list[str]:
    """Choose among matrices of which one is the sum of the others."""
    stems = {_MATRIX.sub("", name): name for name in names}
    if {"spliced", "unspliced"} <= set(stems):
        raise refuse(
            folder,
            "spliced and unspliced counts apart",
            ", ".join(names),
            "one matrix of counts per gene",
            "give the folder Gene/filtered of STARsolo, or the matrix that adds them up",
        )
    # kb count --sum: cell = mature + ambiguous, which alevin-fry calls spliced + ambiguous
    for wanted in ("cells_x_genes", "cells_x_genes.cell", "cells_x_genes.total"):
        if wanted in stems:
            return [stems[wanted]]
    parts = [stem for stem in stems if stem.startswith("cells_x_genes.")]
    if len(parts) > 1:
        raise refuse(
            folder,
            "mature, nascent and ambiguous counts apart",
            ", ".join(names),
            "one matrix of counts per gene",
            "run kb count with --sum=cell (nuclei: --sum=total), or write the path of one matrix",
        )
    if "cells_x_tcc" in stems:
        raise refuse(
            folder,
            "counts of transcript classes, not of genes",
            stems["cells_x_tcc"],
            "cells_x_genes.mtx",
            "run kb count without --tcc",
        )
    return names


def _matrix_folders_below(folder: Path) -> list[Path]:
    """Folders below that hold a matrix, the one most likely meant first; links are not followed."""
    found = []
    for number, (at, names) in enumerate(_walk(folder)):
        if number >= _LOOKED_AT:
            break
        if any(_MATRIX.search(name) for name in names):
            found.append(at)
    return sorted(
        found,
        key=lambda path: (
            "filtered" not in path.name,
            "Velocyto" in path.parts,
            "raw" in path.name,
            len(path.parts),
            path,
        ),
    )


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for at, folders, names in os.walk(folder):
        depth = len(Path(at).relative_to(folder).parts)
        folders[:] = sorted(folders) if depth < _DEEPEST else []
        if depth:
            yield Path(at), names


def matrix_files(matrix: Path) -> MatrixFolder:
    """Return the files that belong to a Matrix Market file, told by their names.

    10x (``matrix.mtx`` with ``features.tsv`` or ``genes.tsv`` and ``barcodes.tsv``), alevin-fry (``quants_mat.mtx``),
    kb (``cells_x_genes.mtx``); of any other matrix, the files beside it whose names speak of genes and of cells and
    start most like its own.
    """
    stem = _MATRIX.sub("", matrix.name)
    if stem == "quants_mat":
        return _alevin(matrix)
    if (kb := _kb(matrix, stem)) is not None:
        return kb
    if stem.endswith("matrix") and (tenx := _tenx(matrix, stem.removesuffix("matrix"))) is not None:
        return tenx
    return _by_words(matrix, stem)


def _first(matrix: Path, names: list[str]) -> Path | None:
    options = [matrix.with_name(name + end) for name in names for end in (".gz", "")]
    return next((option for option in options if option.is_file()), None)


def _kb(matrix: Path, stem: str) -> MatrixFolder | None:
    # x.mtx, x.genes.txt (ids), x.genes.names.txt, x.barcodes.txt; kb --sum writes x.cell.mtx beside the same names
    starts = [stem, stem.rsplit(".", 1)[0]] if stem.startswith("cells_x_genes.") else [stem]
    for start in starts:
        genes, barcodes = _first(matrix, [f"{start}.genes.txt"]), _first(matrix, [f"{start}.barcodes.txt"])
        if genes is not None and barcodes is not None:
            return MatrixFolder(matrix, genes, barcodes, "kb", _first(matrix, [f"{start}.genes.names.txt"]))
    return None


def _alevin(matrix: Path) -> MatrixFolder:
    sides = []
    for name, what in (("quants_mat_cols.txt", "genes"), ("quants_mat_rows.txt", "cells")):
        found = _first(matrix, [name])
        if found is None:
            raise _no_side(matrix, what, name)
        sides.append(found)
    return MatrixFolder(matrix, sides[0], sides[1], "alevin")


def _no_side(matrix: Path, what: str, allowed: str) -> Exception:
    listed = ", ".join(sorted(entry.name for entry in matrix.parent.iterdir())[:_LISTED])
    return refuse(
        matrix.parent,
        f"no {what} file beside {matrix.name}",
        listed,
        allowed,
        "put the matrix and its names files into one folder",
    )


def _tenx(matrix: Path, prefix: str) -> MatrixFolder | None:
    sides = {side: _first(matrix, [f"{prefix}{name}" for name in names]) for side, names in _TENX_SIDES}
    features, barcodes = sides["features"], sides["barcodes"]
    if features is not None and barcodes is not None:
        return MatrixFolder(matrix, features, barcodes)
    if prefix and not features and not barcodes:
        return None  # not a 10x folder: any names will do
    for side, names in _TENX_SIDES:
        if sides[side] is None and _ranked(matrix, side == "features") == []:
            options = [f"{prefix}{name}{end}" for name in names for end in (".gz", "")]
            raise _no_side(matrix, side, " or ".join(options))
    return None


def _word(name: str, stem: str) -> bool | None:
    """Whether the name of a file speaks of genes (True), of cells (False), or of neither; the last word counts."""
    rest = name[len(stem) :] if name.startswith(stem) else name
    rest = _TABLE.sub("", rest).lower()
    genes = max(rest.rfind(word) for word in _GENE_WORDS)
    cells = max(rest.rfind(word) for word in _CELL_WORDS)
    return None if genes == cells else genes > cells


def _ranked(matrix: Path, genes: bool) -> list[tuple[int, str]]:
    """Names files of one kind beside a matrix with the length of the start they share with its name, best first."""
    stem = _MATRIX.sub("", matrix.name)
    names = [entry.name for entry in matrix.parent.iterdir() if _TABLE.search(entry.name) and entry.is_file()]
    found = {}
    for name in sorted(names):
        if _word(name, stem) is genes:
            # a packed copy beside the unpacked file is one candidate
            found[name.removesuffix(".gz")] = (_shared(name, stem), name)
    return sorted(found.values(), key=lambda entry: (-entry[0], entry[1]))


def _shared(one: str, other: str) -> int:
    """Number of characters that two names share from their start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _by_words(matrix: Path, stem: str) -> MatrixFolder:
    sides = []
    for genes, what, example in ((True, "features", "genes"), (False, "barcodes", "barcodes")):
        ranked = _ranked(matrix, genes)
        best = [name for shared, name in ranked if shared == ranked[0][0]]
        if not best:
            raise _no_side(matrix, what, f"{stem}.{example}.tsv, {example}.tsv or the like (.tsv, .txt, .csv)")
        if len(best) > 1:
            raise refuse(
                matrix,
                f"several {what} files beside {matrix.name}",
                ", ".join(best[:_LISTED]),
                f"one, for example {stem}.{example}.tsv",
                "rename the files that belong together so that they start alike",
            )
        sides.append(matrix.with_name(best[0]))
    return MatrixFolder(matrix, sides[0], sides[1], "mtx")
