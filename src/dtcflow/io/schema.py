"""The two JSON schemas (configuration, sample sheet) and how a violation of them is told to the user.

A schema is the single source of keys, types, limits and defaults; nothing in the package repeats them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from dtcflow import resources
from dtcflow.contracts import InputError, Problem

CONFIG = "config.schema.yaml"
SAMPLES = "samples.schema.yaml"

_TYPE_NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a block of keys",
    "null": "null",
}


@cache
def _read(name: str) -> dict[str, Any]:
    path = resources.folder().parent / "schemas" / name
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the schema {name} of dtcflow is not there",
            [Problem(str(path), "no readable file", "the schema that ships with dtcflow", "install dtcflow again")],
        ) from error
    schema: dict[str, Any] = yaml.safe_load(text)
    Draft202012Validator.check_schema(schema)
    return schema


def load_schema(name: str) -> dict[str, Any]:
    """Return the shipped schema ``name`` (:data:`CONFIG` or :data:`SAMPLES`) as a fresh dictionary."""
    return deepcopy(_read(name))


def leaves(schema: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return every leaf of an object schema by its dotted key, in the order of the schema."""
    found: dict[str, dict[str, Any]] = {}
    for key, part in schema["properties"].items():
        if part.get("type") == "object":
            found |= leaves(part, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = part
    return found


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Return the entry of ``known`` that ``word`` was most likely meant to be, or None."""
    candidates = {entry.casefold(): entry for entry in known}
    close = difflib.get_close_matches(word.casefold(), list(candidates), n=1, cutoff=0.6)
    return candidates[close[0]] if close else None


def _limits(leaf: Mapping[str, Any]) -> str:
    parts = [
        f"{sign} {leaf[word]:g}" if isinstance(leaf[word], float) else f"{sign} {leaf[word]}"
        for word, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if word in leaf
    ]
    return " and ".join(parts)


_PATTERNS: Final = {
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits, '.', '_' and '-', starting with a letter or digit",
    "^[A-Za-z][A-Za-z0-9_]{0,15}$": "letters, digits and '_', starting with a letter, at most 16",
}
"""The patterns of the schemas in words."""


def describe(leaf: Mapping[str, Any]) -> str:
    """Say in words what a leaf of a schema allows, for example ``a whole number >= 2 and <= 200, or null``."""
    if "enum" in leaf:
        return "one of " + ", ".join("(empty)" if value in ("", None) else str(value) for value in leaf["enum"])
    types = leaf.get("type", "string")
    types = [types] if isinstance(types, str) else list(types)
    words = []
    for kind in types:
        word = _TYPE_NAMES[kind]
        if kind in ("integer", "number") and (limits := _limits(leaf)):
            word += f" {limits}"
        if kind == "string" and "pattern" in leaf:
            word = f"{_PATTERNS[leaf['pattern']]} ({leaf['pattern']})"
        elif kind == "string" and "maxLength" in leaf:
            word += f" of at most {leaf['maxLength']} characters"
        if kind == "string" and leaf.get("minLength"):
            word = f"non-empty {word}"
        if kind == "array":
            word = f"a list, each entry {describe(leaf['items'])}"
        words.append(word)
    return ", or ".join(words)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _fix(error: ValidationError, leaf: Mapping[str, Any], key: str) -> str:
    value = error.instance
    if error.validator == "enum":
        near = suggest(str(value), [str(entry) for entry in leaf["enum"] if entry not in ("", None)])
        return f"did you mean {near!r}?" if near else "write one of the allowed values"
    if error.validator == "type" and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            pass
        else:
            return "write it as a number without quotes (0.001 or 1.0e-3, not 1e-3)"
    if error.validator == "type" and leaf.get("type") == "string" and isinstance(value, int | float):
        return f'write it in quotes: "{value}"'
    if error.validator == "uniqueItems":
        return "write each entry once"
    if error.validator == "type" and leaf.get("type") == "array" and not isinstance(value, list | dict):
        return f"write a list: [{value}]"
    if error.validator == "pattern":
        return "use only the allowed characters, no spaces"
    if "default" in leaf:
        return f"write an allowed value, or leave {key} out for its default {_show(leaf['default'])}"
    return "write an allowed value"


def violations(schema: Mapping[str, Any], instance: Any, *, where: str, row: int | None = None) -> list[Problem]:
    """Return every violation of ``schema`` as a problem with a dotted key, in the order of the instance.

    Parameters
    ----------
    schema
        A JSON schema (draft 2020-12).
    instance
        What to check: plain dictionaries, lists, strings, numbers, booleans and None.
    where
        File the instance came from.
    row
        Line of the file, for one row of a table.
    """
    known = leaves(schema)
    problems = []
    for error in sorted(Draft202012Validator(schema).iter_errors(instance), key=lambda e: [str(p) for p in e.path]):
        key = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties":
            siblings = list(error.schema["properties"])
            for name in sorted(str(n) for n in set(error.instance) - set(siblings)):
                problems.append(_unknown(f"{key}.{name}" if key else name, name, siblings, known, where, row))
            continue
        if error.validator == "required":
            for name in error.validator_value:
                if name not in error.instance:
                    leaf = error.schema["properties"][name]
                    missing = f"{key}.{name}" if key else name
                    problems.append(Problem(where, "nothing", describe(leaf), "fill it in", row=row, key=missing))
            continue
        leaf = _leaf_of(schema, list(error.absolute_path)) or error.schema
        problems.append(Problem(where, _show(error.instance), describe(leaf), _fix(error, leaf, key), row=row, key=key))
    problems += [
        Problem(
            where, str(value), describe(known.get(key, {"type": "number"})), "write a finite number", row=row, key=key
        )
        for key, value in _walk(instance)
        if isinstance(value, float) and not math.isfinite(value)
    ]
    # one leaf can break several keywords (a wrong type breaks its enumeration, too): tell it once
    return list({(p.key, p.found): p for p in reversed(problems)}.values())[::-1]


def _unknown(
    key: str, name: str, siblings: list[str], known: Mapping[str, Any], where: str, row: int | None
) -> Problem:
    near = suggest(name, siblings)
    if near is None:
        elsewhere = {dotted.rsplit(".", 1)[-1]: dotted for dotted in known}
        hit = suggest(name, elsewhere)
        near = elsewhere[hit] if hit else None
    elif "." in key:
        near = f"{key.rsplit('.', 1)[0]}.{near}"
    fix = f"did you mean {near!r}?" if near else "remove it; config/README.md lists every key"
    return Problem(where, "an unknown key", "one of " + ", ".join(siblings), fix, row=row, key=key)


def _leaf_of(schema: Mapping[str, Any], path: list[Any]) -> Mapping[str, Any] | None:
    part: Mapping[str, Any] = schema
    for step in path:
        if isinstance(step, int):
            part = part.get("items", {})
        elif step in part.get("properties", {}):
            part = part["properties"][step]
        else:
            return None
    return part


def _walk(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _walk(part, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _walk(part, f"{prefix}.{number}")
    else:
        yield prefix, value


def fill_defaults(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` in the schema's order with every missing default filled in, nested blocks included.

    A block without ``default`` and a leaf without ``default`` stay absent. Whole numbers written as ``5.0`` become
    ``int`` where the schema asks for an integer, and integers become ``float`` where it asks for a number.
    """
    filled: dict[str, Any] = {}
    for key, part in schema["properties"].items():
        if key in values:
            value = values[key]
        elif "default" in part:
            value = deepcopy(part["default"])
        else:
            continue
        filled[key] = fill_defaults(part, value) if part.get("type") == "object" else _cast(value, part)
    filled |= {key: value for key, value in values.items() if key not in schema["properties"]}
    return filled


def _cast(value: Any, leaf: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_cast(entry, leaf.get("items", {})) for entry in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return deepcopy(value)
    types = leaf.get("type", ())
    types = [types] if isinstance(types, str) else types
    return int(value) if "integer" in types else float(value) if "number" in types else value
