"""The configuration: read, checked as a whole, completed with its defaults."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dtcflow.contracts import InputError, Problem
from dtcflow.io.schema import CONFIG, fill_defaults, load_schema, violations

log = logging.getLogger(__name__)


MAX_VALUES = 100_000
"""Values a YAML file may stand for; a configuration has some hundred."""


PATHVARS = "pathvars"
"""Key of Snakemake itself in a configuration: where results go. Not ours to check."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key written twice is an error: the second would silently win."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
    seen: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            if isinstance(key, Hashable):
                key = str(key)
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is written twice (first in line {seen[key]})", key_node.start_mark
            )
        seen[key] = key_node.start_mark.line + 1
    return loader.construct_mapping(node, deep)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of values below a node when every alias (``*name``) is written out, at most :data:`MAX_VALUES` + 1.

    A few lines of aliases of aliases stand for billions of values; an alias of itself has no end.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = MAX_VALUES + 1  # met again before it is finished: it contains itself
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    total = 1
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            total = min(total + _written_out(part, sizes), MAX_VALUES + 1)
    sizes[id(node)] = total
    return total


def _load(text: str) -> Any:
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > MAX_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"aliases (*name) that stand for more than {MAX_VALUES:,} values", node.start_mark
            )
        return loader.construct_document(node)
    finally:
        loader.dispose()


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file with the safe loader; a key that is written twice in one block is refused.

    Raises
    ------
    InputError
        When the file is missing, not UTF-8 or not YAML; the line is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text",
            [Problem(str(path), f"a byte that is not UTF-8 at {error.start}", "UTF-8", "save the file as UTF-8")],
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read",
            [
                Problem(
                    str(path),
                    error.strerror or str(error),
                    "a readable YAML file",
                    "check the path (or run `dtcflow init`)",
                )
            ],
        ) from error
    try:
        return _load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        found = getattr(error, "problem", None) or str(error).splitlines()[0]
        row = mark.line + 1 if mark is not None else None
        raise InputError(
            f"{path} is not a valid YAML file",
            [Problem(str(path), found, "YAML with each key once", "correct this line (indent with spaces)", row=row)],
        ) from error


def legible(path: str) -> str:
    """Return ``path`` itself, after a strict reading when the file is there.

    Snakemake's own reader names neither file nor line of a mistake, and lets the second of two equal keys win.

    Raises
    ------
    InputError
        See :func:`read_yaml`.
    """
    if Path(path).is_file():
        read_yaml(path)
    return path


def _cross_checks(config: Mapping[str, Any], where: str) -> list[Problem]:
    """Rules over two keys that a schema cannot say well."""
    intake, copy_number = config["intake"], config["copy_number"]
    problems = []
    if intake["genome_build"] != "GRCh38" and intake["gene_positions"] is None:
        problems.append(
            Problem(
                where,
                f"{intake['genome_build']} without gene_positions",
                "GRCh38, or another build together with your own positions",
                "give a GTF or TSV of that build in intake.gene_positions",
                key="intake.genome_build",
            )
        )
    if (copy_number["reference_key"] is None) != (not copy_number["reference_labels"]):
        has_key = copy_number["reference_key"] is not None
        problems.append(
            Problem(
                where,
                "reference_key without reference_labels" if has_key else "reference_labels without reference_key",
                "both or none",
                "name the values of that column that mean normal" if has_key else "name the obs column they come from",
                key="copy_number.reference_labels" if has_key else "copy_number.reference_key",
            )
        )
    if copy_number["step"] > copy_number["window_size"]:
        problems.append(
            Problem(
                where,
                f"{copy_number['step']} with window_size {copy_number['window_size']}",
                "a step that is not larger than window_size",
                "use a smaller step: otherwise genes between two windows are in none",
                key="copy_number.step",
            )
        )
    return problems


def load_config(source: Mapping[str, Any] | str | Path, *, where: str | None = None) -> dict[str, Any]:
    """Read a configuration, check it and fill in every default.

    Parameters
    ----------
    source
        A YAML file, or the mapping that was read from one (Snakemake's ``config``).
    where
        Name for messages; the file's path when ``source`` is one, else ``config``.

    Returns
    -------
    A new dictionary with every key of ``workflow/schemas/config.schema.yaml`` in its order. ``simulate`` is
    None when ``source`` does not have it.

    Raises
    ------
    InputError
        With one problem per unknown key, wrong type, value out of range or pair of keys that do not fit.
    """
    if isinstance(source, str | Path):
        where = where or str(source)
        values = read_yaml(source)
        values = {} if values is None else values
    else:
        where = where or "config"
        values = source
    if not isinstance(values, Mapping):
        raise InputError(
            f"{where} is not a configuration",
            [Problem(where, f"a {type(values).__name__}", "keys and values", "write `key: value` lines")],
        )
    plain = _plain_copy(values)
    plain.pop(PATHVARS, None)  # Snakemake's own key
    schema = load_schema(CONFIG)
    schema_order = list(schema["properties"])
    optional = "simulate" not in plain or plain["simulate"] is None
    for name, part in schema["properties"].items():
        # a block whose keys are all commented out reads as null: that means its defaults
        if part.get("type") == "object" and name in plain and plain[name] is None:
            del plain[name]
    if isinstance(plain.get("simulate"), dict) and plain["simulate"].get("scenario", "") is None:
        plain["simulate"]["scenario"] = "null"  # YAML reads the scenario's name, null, as nothing
    if isinstance(plain.get("intake"), dict) and plain["intake"].get("cell_calling") is False:
        plain["intake"]["cell_calling"] = "off"  # YAML reads a bare off as false
    problems = violations(schema, plain, where=where)
    if not problems:
        if optional:
            del schema["properties"]["simulate"]
        config = fill_defaults(schema, plain)
        problems = _cross_checks(config, where)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{where}: {count} in the configuration", problems)
    if optional:
        config = {key: config.get(key) for key in (*schema_order, *config)}
    log.debug("configuration %s: %d of its keys are defaults", where, _count(config) - _count(plain))
    return config


def _plain_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_copy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_copy(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _count(value: Any) -> int:
    return sum(_count(part) for part in value.values()) if isinstance(value, Mapping) else 1


def without_simulation(text: str) -> str:
    """Return the text of a configuration file without its ``simulate`` block and the comment lines above it."""
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(r"simulate\s*:", line)), None)
    if start is None:
        return text
    stop = start + 1
    while stop < len(lines) and (not lines[stop].strip() or lines[stop][0] in " \t"):
        stop += 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "".join(lines[:start] + lines[stop:])
