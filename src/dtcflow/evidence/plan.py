"""The pre-specified analysis plan: read, checked as a whole, completed with defaults, hashed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dtcflow.contracts import InputError, Problem
from dtcflow.io.config import read_yaml
from dtcflow.io.schema import fill_defaults, load_schema, suggest, violations

SCHEMA: Final = "claims.schema.yaml"
GROUPS: Final = {"DTC": "marrow", "PT": "primary", "CTC": "blood", "MET": "metastasis"}
"""Groups of malignant cells a claim can contrast, by the compartment they come from."""
CELL_COVARIATES: Final = ("log_genes", "log_counts", "pct_mt")
"""Covariates that are not signatures; the first two are taken at the harmonised depth."""


@dataclass(frozen=True)
class Rules:
    """Minimum data and thresholds shared by all claims; see the schema for the meaning of each."""

    alpha: float
    confirmatory_patients: int
    estimate_patients: int
    value_cells: int
    cells_a: int
    cells_b: int
    coverage: float
    detected_genes: int
    effective_genes: float
    genes_per_cell_droplet: int
    genes_per_cell_plate: int
    agreement: float
    strict_q: float
    random_sets: int
    trim: float


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

    @property
    def sign(self) -> int:
        """+1 when a is predicted above b, else -1."""
        return 1 if self.direction == "greater" else -1

    @property
    def contrast(self) -> str:
        """The contrast as it is written in tables."""
        return f"{self.a} - {self.b}" if self.test == "paired_contrast" else f"{self.a} / putative {self.a}"

    def multiverse_signatures(self) -> list[tuple[str, str, str]]:
        """Signature, purge and the panel's name for the two, for every voting specification."""
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
        names: list[str] = [self.primary_signature, self.confirmatory_signature]
        names += [name for _, _, name in self.multiverse_signatures()]
        names += [*self.reported_signatures, *self.negative_controls, *self.signature_covariates()]
        return tuple(dict.fromkeys(name for name in names if name))


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
    if isinstance(source, str | Path):
        where = where or str(source)
        raw = read_yaml(source)
    else:
        where = where or "claims"
        raw = source
    if not isinstance(raw, Mapping):
        raise InputError(
            f"{where} is not an analysis plan",
            [
                Problem(
                    where, f"a {type(raw).__name__}", "the blocks hypothesis and claims", "start from the shipped file"
                )
            ],
        )
    schema = load_schema(SCHEMA)
    plain = json.loads(json.dumps(raw, default=str))
    problems = violations(schema, plain, where=where)
    if problems:
        raise _error(where, problems)
    values = fill_defaults(schema, plain)
    item = schema["properties"]["claims"]["items"]
    values["claims"] = [fill_defaults(item, claim) for claim in plain["claims"]]
    problems = list(_cross_checks(values, where))
    if problems:
        raise _error(where, problems)
    hypothesis = values["hypothesis"]
    return Plan(
        statement=hypothesis["statement"],
        gates=tuple(hypothesis["gates"]),
        necessary=tuple(hypothesis["necessary"]),
        rules=Rules(**values["rules"]),
        claims=tuple(_claim(claim) for claim in values["claims"]),
        sha256=canonical_sha256(values),
        values=values,
    )


def _error(where: str, problems: list[Problem]) -> InputError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InputError(f"{where}: {count} in the analysis plan", problems)


def _claim(values: Mapping[str, Any]) -> Claim:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key != "contrast"
    }
    return Claim(a=values["contrast"]["a"], b=values["contrast"]["b"], **fields)


def _cross_checks(values: Mapping[str, Any], where: str) -> Iterable[Problem]:
    """Rules over several keys."""
    claims, hypothesis, rules = values["claims"], values["hypothesis"], values["rules"]
    ids = [claim["id"] for claim in claims]
    for name, times in Counter(ids).items():
        if times > 1:
            yield Problem(where, f"{name} {times} times", "every id once", "rename one of them", key="claims.id")
    roles = {claim["id"]: claim["role"] for claim in claims}
    for block, role in (("gates", "gate"), ("necessary", "necessary")):
        for name in hypothesis[block]:
            key = f"hypothesis.{block}"
            if name not in roles:
                near = suggest(name, ids)
                fix = f"did you mean {near!r}?" if near else "add the claim, or take it out of this list"
                yield Problem(where, repr(name), f"one of {', '.join(ids)}", fix, key=key)
            elif roles[name] != role:
                yield Problem(
                    where, f"{name} with role {roles[name]}", f"role {role}", "change the role or this list", key=key
                )
        for name in sorted(name for name, found in roles.items() if found == role and name not in hypothesis[block]):
            yield Problem(
                where,
                f"{name} with role {role}, not in this list",
                "all claims of that role",
                f"add {name}, or give it another role",
                key=f"hypothesis.{block}",
            )
    if rules["estimate_patients"] > rules["confirmatory_patients"]:
        yield Problem(
            where,
            str(rules["estimate_patients"]),
            f"at most confirmatory_patients ({rules['confirmatory_patients']})",
            "lower it",
            key="rules.estimate_patients",
        )
    for number, claim in enumerate(claims):
        yield from _claim_checks(claim, where, f"claims.{number}")


def _claim_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    if not claim["evaluated"]:
        if claim["family"] != "none":
            yield Problem(
                where,
                f"{claim['id']}: family {claim['family']} and evaluated: false",
                "family: none",
                "a claim that is not tested cannot count in a family",
                key=f"{key}.family",
            )
        return
    if claim["test"] == "identity_share":
        if not 0 < claim["sesoi"] < 1:
            yield Problem(where, str(claim["sesoi"]), "a share between 0 and 1", "write 0.5", key=f"{key}.sesoi")
        return
    if claim["contrast"]["a"] == claim["contrast"]["b"]:
        yield Problem(
            where,
            f"{claim['contrast']['a']} - {claim['contrast']['b']}",
            "two different groups",
            "change one of them",
            key=f"{key}.contrast",
        )
    if not claim["primary_signature"]:
        fix = "name the signature that decides"
        yield Problem(where, "nothing", "the name of a signature", fix, key=f"{key}.primary_signature")
    for name in claim["negative_controls"]:
        if name in (claim["primary_signature"], claim["confirmatory_signature"]):
            yield Problem(
                where, name, "a signature that the claim does not test", "take it out", key=f"{key}.negative_controls"
            )


def check_signatures(plan: Plan, known: Collection[str], *, where: str = "claims") -> None:
    """Refuse a plan that names a signature the panel does not have; all of them are named at once.

    Raises
    ------
    InputError
        With one problem per unknown name and claim.
    """
    problems = []
    for claim in plan.claims:
        if not claim.evaluated or claim.test != "paired_contrast":
            continue
        for name in claim.required_signatures():
            if name not in known:
                near = suggest(name, known)
                problems.append(
                    Problem(
                        where,
                        f"{name}, which no panel entry or gene set has",
                        "a signature of the panel, one of its _NOPROLIF/_NOPROLIF_NOEMT variants, or of your GMT files",
                        f"did you mean {near!r}?" if near else "correct the name or add the gene set",
                        key=f"claim {claim.id}",
                    )
                )
    if problems:
        raise _error(where, problems)
