"""The pre-specified analysis plan: read, checked as a whole, completed with defaults, hashed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypedDict

from dtcflow.contracts import EPITHELIAL, HAEMATOPOIETIC_TYPES, InputError, Problem
from dtcflow.io.config import read_yaml
from dtcflow.io.schema import fill_defaults, load_schema, violations

SCHEMA: Final = "claims.schema.yaml"
GROUPS: Final = {"DTC": "marrow", "PT": "primary", "CTC": "blood", "MET": "metastasis"}
"""Groups of malignant cells a claim can contrast, by the compartment they come from."""


@dataclass(frozen=True)
class Population:
    """Cells a claim can contrast.

    Attributes
    ----------
    compartments
        Where its samples come from.
    cell_types
        Annotated types of its cells; empty for malignant cells, which are chosen by their call.
    cell
        What one of them is called in messages.
    """

    compartments: tuple[str, ...]
    cell_types: tuple[str, ...] = ()
    cell: str = "malignant cell"

    @property
    def malignant(self) -> bool:
        """Whether its cells are malignant (called and alone in their droplet) or normal (called normal)."""
        return not self.cell_types

    @property
    def place(self) -> str:
        """The compartments in words."""
        return " or ".join(self.compartments)


POPULATIONS: Final = {
    **{name: Population((compartment,)) for name, compartment in GROUPS.items()},
    "NE": Population(("normal_breast", "primary"), (EPITHELIAL,), "normal epithelial cell"),
    "HEM": Population(("marrow",), HAEMATOPOIETIC_TYPES, "normal haematopoietic cell"),
}
"""Groups a claim can contrast: malignant cells of four compartments, normal epithelium, blood cells of the marrow."""
CONTRAST_WORDS: Final = {
    "identity_share": "{a} / putative {a}",
    "existence": "halves within {a}",
    "duality": "cells within {a}",
    "dissimilarity": "pairs of {a}",
    "rarity": "{a} / nucleated marrow cells",
}
"""What a claim compares, as it is written in tables; a difference of two groups where nothing is said."""
CELL_COVARIATES: Final = ("log_genes", "log_counts", "pct_mt")
"""Covariates that are not signatures; the first two are taken at the harmonised depth."""


class CoverageGates(TypedDict, total=False):
    """What a signature must reach to be scored: keywords of :func:`dtcflow.scores.calibrated.draw_matched_sets`."""

    min_coverage: float
    min_genes: int
    min_effective: float


@dataclass(frozen=True)
class Rules:
    """Minimum data and thresholds shared by all claims; see the schema for the meaning of each."""

    alpha: float
    confirmatory_patients: int
    estimate_patients: int
    value_cells: int
    cells_a: int
    cells_b: int
    cells_fraction: int
    coverage: float
    detected_genes: int
    effective_genes: float
    genes_per_cell_droplet: int
    genes_per_cell_plate: int
    agreement: float
    strict_q: float
    random_sets: int
    trim: float

    @property
    def coverage_gates(self) -> CoverageGates:
        """What a signature must reach to be scored."""
        return CoverageGates(
            min_coverage=self.coverage, min_genes=self.detected_genes, min_effective=self.effective_genes
        )


@dataclass(frozen=True)
class Claim:
    """One claim of the plan; see the schema for the meaning of each field."""

    id: str
    title: str
    role: str
    evaluated: bool
    test: str
    a: str
    b: str
    direction: str
    sesoi: float
    family: str
    primary_signature: str
    confirmatory_signature: str
    sensitivity_signatures: tuple[str, ...]
    purges: tuple[str, ...]
    reported_signatures: tuple[str, ...]
    negative_controls: tuple[str, ...]
    covariates: tuple[str, ...]
    epithelial_z: float
    epithelial_markers: int
    called_cells: int
    design: str
    timepoint: str
    of: str
    purged_signatures: tuple[str, ...]
    exceeded_signatures: tuple[str, ...]
    cycling_sesoi: float
    dormancy_signature: str
    subset_cells: int
    borrowed: tuple[str, ...] = ()
    """Signatures that another claim (``of``) reads off this one's contrast."""
    rivals: tuple[str, ...] = ()
    """Signatures that this claim's effect is compared with by another one, each without the genes of this claim's."""

    @property
    def sign(self) -> int:
        """+1 when a is predicted above b, else -1."""
        return 1 if self.direction == "greater" else -1

    @property
    def contrast(self) -> str:
        """The contrast as it is written in tables."""
        return CONTRAST_WORDS.get(self.test, "{a} - {b}").format(a=self.a, b=self.b)

    def multiverse_signatures(self) -> list[tuple[str, str, str]]:
        """Signature, purge and the panel's name for the two, for every voting specification.

        A claim without ``sensitivity_signatures`` is repeated on its primary signature as it is.
        """
        if not self.sensitivity_signatures:
            return [(self.primary_signature, "none", self.primary_signature)] if self.primary_signature else []
        return [
            (name, purge, name if purge == "none" else f"{name}_{purge}")
            for name in self.sensitivity_signatures
            for purge in self.purges
        ]

    def signature_covariates(self) -> tuple[str, ...]:
        """Covariates that are signatures."""
        return tuple(name for name in self.covariates if name not in CELL_COVARIATES)

    def required_signatures(self) -> tuple[str, ...]:
        """Every signature this claim scores, each once, in a fixed order."""
        names: list[str] = [self.primary_signature, self.confirmatory_signature, self.dormancy_signature]
        names += [name for _, _, name in self.multiverse_signatures()]
        names += [*self.reported_signatures, *self.purged_signatures]
        names += [*self.negative_controls, *self.exceeded_signatures, *self.signature_covariates()]
        names += [*self.borrowed, *self.rivals]
        return tuple(dict.fromkeys(name for name in names if name))

    def tested_signatures(self) -> tuple[str, ...]:
        """Signatures whose effect the claim is about: these must not have chosen the cells."""
        names: list[str] = [self.primary_signature, self.confirmatory_signature, self.dormancy_signature]
        names += self.reported_signatures
        names += [name for _, _, name in self.multiverse_signatures()]
        return tuple(dict.fromkeys(name for name in [*names, *self.purged_signatures] if name))


@dataclass(frozen=True)
class Plan:
    """A checked analysis plan.

    Attributes
    ----------
    statement, gates, necessary
        The hypothesis and the claims it rests on.
    rules
        Thresholds all claims share.
    claims
        In the order of the file.
    sha256
        Of the completed plan as canonical JSON (sorted keys, no spaces): comments and layout do not change it, any
        value does.
    values
        The completed plan as plain values: what was hashed.
    """

    statement: str
    gates: tuple[str, ...]
    necessary: tuple[str, ...]
    rules: Rules
    claims: tuple[Claim, ...]
    sha256: str
    values: dict[str, Any]

    def claim(self, claim_id: str) -> Claim:
        """Return the claim with this id."""
        return next(claim for claim in self.claims if claim.id == claim_id)


def canonical_sha256(values: Mapping[str, Any]) -> str:
    """Sha256 of plain values as canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_plan(source: Mapping[str, Any] | str | Path, *, where: str | None = None) -> Plan:
    """Read an analysis plan, check it and fill in every default.

    Parameters
    ----------
    source
        A YAML file, or the mapping read from one.
    where
        Name for messages; the path when ``source`` is one, else ``claims``.

    Raises
    ------
    InputError
        With one problem per unknown key, wrong value, repeated id, or reference to a claim that is not there.
    """
    where = where or (str(source) if isinstance(source, str | Path) else "claims")
    plan, problems = examine_plan(source, where=where)
    if problems or plan is None:
        raise plan_error(where, problems)
    return plan


def examine_plan(source: Mapping[str, Any] | str | Path, *, where: str) -> tuple[Plan | None, list[Problem]]:
    """Read a plan as far as it is sound, and say everything that is wrong with the rest.

    Parameters
    ----------
    source, where
        As for :func:`load_plan`.

    Returns
    -------
    tuple
        The plan without the claims that have a problem (None when nothing sensible is left), and one problem per
        unknown key, wrong value, repeated id, or reference to a claim that is not there.

    Raises
    ------
    InputError
        The source is no mapping.
    """
    from dtcflow.evidence.plan_checks import cross_checks

    raw = read_yaml(source) if isinstance(source, str | Path) else source
    if not isinstance(raw, Mapping):
        found = "an empty file" if raw is None else f"a {type(raw).__name__}"
        raise InputError(
            f"{where} is not an analysis plan",
            [Problem(where, found, "the blocks hypothesis and claims", "start from the shipped file")],
        )
    schema = load_schema(SCHEMA)
    plain = json.loads(json.dumps(raw, default=str))
    refused = violations(schema, plain, where=where)
    claims = plain.get("claims")
    touched = {number for number in map(_number_of, refused) if number is not None}
    if not isinstance(claims, list) or any(number >= len(claims) for number in touched):
        return None, _by_id(refused, plain)
    readable = plain | {"claims": [_stand_in(plain, i) if i in touched else one for i, one in enumerate(claims)]}
    if refused and violations(schema, readable, where=where):
        return None, _by_id(refused, plain)
    values = fill_defaults(schema, readable)
    item = schema["properties"]["claims"]["items"]
    values["claims"] = [fill_defaults(item, claim) for claim in readable["claims"]]
    unknown = {values["claims"][number]["id"] for number in touched}
    about = touched | {number for number, claim in enumerate(values["claims"]) if claim["of"] in unknown}
    problems = refused + [one for one in cross_checks(values, where) if _number_of(one) not in about]
    broken = {number for number in map(_number_of, problems) if number is not None}
    return _sound(values, broken), _by_id(problems, plain)


def _number_of(problem: Problem) -> int | None:
    """Place in the list of the claim that a problem is about."""
    found = re.match(r"claims\.(\d+)(\.|$)", problem.key or "")
    return int(found[1]) if found else None


def _stand_in(plain: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What stands in the place of a claim that the schema refuses while the others are looked at: nothing to test."""
    given, hypothesis = plain["claims"][number], plain.get("hypothesis")
    name = given.get("id") if isinstance(given, dict) else None
    named = name if isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,15}", name) else f"claim{number}"
    lists = hypothesis if isinstance(hypothesis, dict) else {}
    roles = {"gates": "gate", "necessary": "necessary"}
    role = next((role for block, role in roles.items() if named in (lists.get(block) or ())), "context")
    # a gate has one kind of test
    return {"id": named, "title": "-", "role": role, "evaluated": False, "family": "none"} | (
        {"test": "identity_share"} if role == "gate" else {}
    )


def _sound(values: dict[str, Any], broken: Collection[int]) -> Plan | None:
    """The plan of the claims that have no problem; a claim about one that has goes with it."""
    kept = [claim for number, claim in enumerate(values["claims"]) if number not in broken]
    lost = {values["claims"][number]["id"] for number in broken}
    while about := [claim for claim in kept if claim["of"] in lost]:
        kept = [claim for claim in kept if claim["of"] not in lost]
        lost |= {claim["id"] for claim in about}
    if not kept:
        return None
    values = values | {"claims": kept}
    hypothesis = values["hypothesis"]
    return Plan(
        statement=hypothesis["statement"],
        gates=tuple(hypothesis["gates"]),
        necessary=tuple(hypothesis["necessary"]),
        rules=Rules(**values["rules"]),
        claims=_claims(kept),
        sha256=canonical_sha256(values),
        values=values,
    )


def plan_error(where: str, problems: list[Problem]) -> InputError:
    """Return the error that lists the problems of a plan."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InputError(f"{where}: {count} in the analysis plan", problems)


def _by_id(problems: Iterable[Problem], values: Mapping[str, Any]) -> list[Problem]:
    """The problems with claims called by their id instead of their place in the list, where they have one."""
    claims = values.get("claims")

    def named(key: str | None) -> str | None:
        found = re.match(r"claims\.(\d+)\.(.*)", key or "")
        known = claims if isinstance(claims, list) else []
        entry = known[int(found[1])] if found and int(found[1]) < len(known) else None
        name = entry.get("id") if isinstance(entry, dict) else None
        return f"claim {name}, {found[2]}" if found and isinstance(name, str) and found[2] != "id" else key

    return [replace(problem, key=named(problem.key)) for problem in problems]


OF_ANOTHER: Final = ("a", "b", "direction", "sesoi", "primary_signature", "covariates", "design", "timepoint")
"""What a claim about another claim (``of``) takes from it, so that the two cannot drift apart."""


def _claims(values: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """Claims as they are evaluated: a claim about another one speaks of the same contrast."""
    known = {fields_of.name for fields_of in fields(Claim)}
    plain = []
    for claim in values:
        one = {key: tuple(v) if isinstance(v, list) else v for key, v in claim.items() if key in known}
        plain.append(one | {"a": claim["contrast"]["a"], "b": claim["contrast"]["b"]})
    by_id = {claim["id"]: claim for claim in plain}
    out = []
    for claim in plain:
        readers = [other for other in plain if other["evaluated"] and other["of"] == claim["id"]]
        borrowed = dict.fromkeys(name for other in readers for name in other["purged_signatures"])
        rivals = dict.fromkeys(name for other in readers for name in other["exceeded_signatures"])
        if claim["evaluated"] and claim["of"]:
            claim = claim | {key: by_id[claim["of"]][key] for key in OF_ANOTHER}
        out.append(Claim(**claim, borrowed=tuple(borrowed), rivals=tuple(rivals)))
    return tuple(out)
