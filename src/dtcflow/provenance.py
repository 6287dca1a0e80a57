"""What produced a result: code fingerprints for the workflow, and the record of parameters, inputs and versions."""

from __future__ import annotations

import ast
import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dtcflow
from dtcflow import resources
from dtcflow.io.files import sha256

PACKAGE_ROOT = Path(__file__).parent
RECORDED_PACKAGES = (
    "dtcflow",
    "anndata",
    "decoupler",
    "gseapy",
    "h5py",
    "harmonypy",
    "igraph",
    "infercnvpy",
    "leidenalg",
    "matplotlib",
    "numpy",
    "pandas",
    "pydeseq2",
    "pyucell",
    "scanpy",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "snakemake",
    "statsmodels",
    "umap-learn",
)


def _module_file(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != "dtcflow":
        return None
    base = PACKAGE_ROOT.joinpath(*parts[1:])
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports_of(module: str) -> frozenset[str]:
    """Modules of this package that ``module`` imports anywhere in its source, its own packages included."""
    path = _module_file(module)
    if path is None:
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = module.split(".")
    found.update(".".join(parts[:n]) for n in range(1, len(parts)))
    return frozenset(name for name in found if _module_file(name) is not None) - {module}


def import_closure(modules: Iterable[str]) -> tuple[str, ...]:
    """All modules of this package that ``modules`` reach by imports, sorted."""
    todo, seen = list(modules), set()
    while todo:
        module = todo.pop()
        if _module_file(module) is None:
            raise ValueError(f"{module} is not a module of dtcflow")
        if module not in seen:
            seen.add(module)
            todo.extend(_imports_of(module) - seen)
    return tuple(sorted(seen))


@cache
def _tables_of(module: str) -> tuple[str, ...]:
    """Shipped reference tables that ``module`` names in its source, with the hash of each."""
    path = _module_file(module)
    tree = ast.parse(path.read_bytes()) if path is not None else ast.Module([], [])
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    folder = resources.folder()
    return tuple(f"{word} {sha256(folder / word)}" for word in sorted(words & _table_names()))


@cache
def _table_names() -> frozenset[str]:
    return frozenset(file.name for file in resources.folder().iterdir() if file.suffix in {".tsv", ".gz"})


def code_fingerprint(*modules: str) -> str:
    """Hash of the source of ``modules`` and of everything of this package that they import.

    Snakemake does not see edits inside an installed package; a rule that carries this among its parameters is rerun
    exactly when the code of its step has changed. Data files beside a module (templates) and the shipped reference
    tables that a module names (aliases, gene classes, arms, signatures) count as its code.
    """
    digest = hashlib.sha256()
    for module in import_closure(modules):
        path = _module_file(module)
        assert path is not None
        digest.update(module.encode() + b"\0" + path.read_bytes() + b"\0")
        digest.update("\n".join(_tables_of(module)).encode())
        if path.name == "__init__.py":
            for extra in sorted(p for p in path.parent.iterdir() if p.suffix in {".j2", ".css", ".html"}):
                digest.update(extra.name.encode() + b"\0" + extra.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def package_versions(packages: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Installed versions; a package that is not installed is named as such."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _name_of(table: Path) -> str:
    """A shipped table by its name, another one by its path as given: two files may have one name."""
    return table.name if table.parent == resources.folder() else table.as_posix()


def record(
    *,
    config: Mapping[str, Any],
    samples: list[dict[str, Any]],
    inputs: Mapping[str, Mapping[str, Any]],
    tables: Iterable[Path],
    profiles: Mapping[str, Path] | None = None,
    plan_hash: str,
    methods: str,
) -> dict[str, Any]:
    """The content of ``provenance.json``: nothing in it depends on when or where the run took place.

    Parameters
    ----------
    config, samples
        The complete configuration with defaults, and the rows of the sample sheet.
    inputs
        Per sample: what intake reported (``input`` path as given, format, sha256 of each file).
    tables
        Shipped or user-given reference tables, recorded by name (shipped) or by path as given, and hash.
    profiles
        Known copy number of the patients that have one, recorded by patient and hash.
    plan_hash
        Hash of the analysis plan.
    methods
        Methods text in plain words.
    """
    return {
        "dtcflow": dtcflow.__version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": package_versions(),
        "parameters": dict(config),
        "seeds": {"seed": config["seed"]},
        "samples": samples,
        "inputs": {
            name: {key: report[key] for key in ("input", "format", "sha256")} for name, report in inputs.items()
        },
        "resources": {_name_of(path): sha256(path) for path in sorted(tables)},
        "cnv_profiles": {patient: sha256(path) for patient, path in sorted((profiles or {}).items())},
        "analysis_plan_sha256": plan_hash,
        "methods": methods,
    }
