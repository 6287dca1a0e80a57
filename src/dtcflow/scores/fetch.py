"""Fetch gene-set collections of MSigDB through gseapy and keep them as GMT files with their origin.

MSigDB's own collections may be redistributed (CC BY 4.0). Those of KEGG and BioCarta carry licences of their own: such
collections are refused, and such sets inside other collections dropped.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final

from dtcflow.contracts import DtcflowError, InputError, Problem, write_bytes

_LOG = logging.getLogger(__name__)

DEFAULT_VERSION: Final = "2024.1.Hs"
PROVENANCE: Final = "PROVENANCE.tsv"
PROVENANCE_COLUMNS: Final = ("file", "collection", "version", "n_sets", "n_dropped", "sha256", "source", "gseapy")
RESTRICTED: Final = ("KEGG", "BIOCARTA")
"""First part of the names of sets whose licence forbids passing them on."""
TIMEOUT_SECONDS: Final = (10.0, 60.0)

_COLLECTION: Final = re.compile(r"[a-z0-9]+(\.[a-z0-9_]+)*")
_VERSION: Final = re.compile(r"[0-9]{4}\.[0-9]+\.(Hs|Mm)")


@dataclass(frozen=True)
class Fetched:
    """A collection as it was written: its file, sets kept and dropped, and the sha256 of the file."""

    path: Path
    collection: str
    version: str
    n_sets: int
    n_dropped: int
    sha256: str


def _offline(url: str, error: Exception | str) -> DtcflowError:
    why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return DtcflowError(
        f"{url} cannot be reached ({why}); without a network, download the GMT elsewhere and name its path in "
        "scores.gmt of config/config.yaml"
    )


def _check(collections: Sequence[str], version: str) -> None:
    problems = []
    if not _VERSION.fullmatch(version):
        problems.append(Problem("--release", repr(version), "a release such as 2024.1.Hs", "correct it"))
    for name in collections:
        if any(part.upper().startswith(RESTRICTED) for part in name.split(".")):
            fix = "leave it out, or download it under its own licence and name the file in scores.gmt"
            problems.append(Problem("COLLECTION", name, "collections that may be redistributed", fix))
        elif not _COLLECTION.fullmatch(name):
            problems.append(Problem("COLLECTION", repr(name), "a name such as h.all, c2.cgp or c5.go.bp", "correct it"))
    if not collections:
        problems.append(Problem("COLLECTION", "nothing", "at least one name such as h.all", "name a collection"))
    if problems:
        raise InputError("these collections cannot be fetched", problems)


def _download(collection: str, version: str, url: str) -> Mapping[str, Sequence[str]]:
    """Sets of a collection. gseapy waits for ever for a silent server, so a first request asks with a time limit."""
    import requests
    from gseapy.msigdb import Msigdb

    source: Any = type("Source", (Msigdb,), {"url": url})
    address = f"{url}/{version}/{collection}.v{version}.symbols.gmt"
    try:
        with requests.get(address, timeout=TIMEOUT_SECONDS, stream=True) as answer:
            status = answer.status_code
        found = source.get_gmt(category=collection, dbver=version) if status == 200 else None
    except (requests.exceptions.RequestException, OSError) as error:
        reason = getattr(error, "args", [error])
        raise _offline(url, type(getattr(reason[0], "reason", error)).__name__ if reason else error) from error
    if status >= 500:
        raise _offline(url, f"it answered {status}")
    if found is None:
        raise InputError(
            f"there is no collection {collection} in release {version}",
            [Problem(address, f"status {status}", "a collection of that release", "check the name and --release")],
        )
    return dict(found)


def _gmt(sets: Mapping[str, Sequence[str]], collection: str, version: str) -> tuple[bytes, int, int]:
    """Content of the GMT file, and how many sets are in it and were dropped."""
    lines, dropped = [], 0
    for name, genes in sets.items():
        if name.strip().upper().startswith(RESTRICTED):
            dropped += 1
            continue
        kept = dict.fromkeys(gene.strip() for gene in genes if gene.strip())
        if not name.strip() or not kept:
            raise DtcflowError(f"the answer for {collection} is not a GMT file: set {name[:40]!r} has no gene")
        lines.append("\t".join([name.strip(), f"MSigDB {collection} v{version}", *kept]))
    return ("\n".join(lines) + "\n").encode(), len(lines), dropped


def fetch_signatures(
    collections: Sequence[str], folder: str | Path, *, version: str = DEFAULT_VERSION, url: str | None = None
) -> list[Fetched]:
    """Fetch collections and write one GMT file each, with a row of their origin in ``PROVENANCE.tsv`` beside them.

    Parameters
    ----------
    collections
        Names as MSigDB's files have them: ``h.all``, ``c2.cgp``, ``c5.go.bp``.
    folder
        Where to write; made when it is not there. Files appear whole or not at all, and a second run replaces them.
    version
        Release of MSigDB, for example ``2024.1.Hs``.
    url
        Folder of the releases; ``None`` takes gseapy's.

    Raises
    ------
    InputError
        A name or release is wrong, unknown, or of KEGG or BioCarta; all of them are named before anything is fetched.
    DtcflowError
        The server cannot be reached, or answers with something else than gene sets.
    """
    _check(collections, version)
    if url is None:
        from gseapy.msigdb import Msigdb

        url = str(Msigdb.url)
    url = url.rstrip("/")
    folder = Path(folder)
    done = []
    for collection in dict.fromkeys(collections):
        content, n_sets, dropped = _gmt(_download(collection, version, url), collection, version)
        if not n_sets:
            raise DtcflowError(f"nothing is left of {collection}: all {dropped} sets are of KEGG or BioCarta")
        path = folder / f"{collection}.v{version}.symbols.gmt"
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
        one = Fetched(path, collection, version, n_sets, dropped, hashlib.sha256(content).hexdigest())
        _record(one, url)
        _LOG.info("%s: %d sets, %d dropped, sha256 %s", path, n_sets, dropped, one.sha256)
        done.append(one)
    return done


def _record(one: Fetched, url: str) -> None:
    """Write the row of a file into the provenance table, in place of an earlier one."""
    table = one.path.with_name(PROVENANCE)
    row = (one.path.name, one.collection, one.version, str(one.n_sets), str(one.n_dropped), one.sha256, url)
    lines = table.read_text(encoding="utf-8").splitlines()[1:] if table.is_file() else []
    kept = [line for line in lines if line and line.split("\t")[0] != one.path.name]
    kept.append("\t".join([*row, installed_version("gseapy")]))
    text = "\n".join(["\t".join(PROVENANCE_COLUMNS), *sorted(kept)]) + "\n"
    write_bytes(table, text.encode())
