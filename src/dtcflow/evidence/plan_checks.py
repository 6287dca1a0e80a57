"""Rules over several keys of the analysis plan, and over the plan and its signatures: seen before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from dtcflow.contracts import EPITHELIAL, HAEMATOPOIETIC_TYPES, Problem
from dtcflow.evidence.plan import CELL_COVARIATES, POPULATIONS, Claim, Plan, plan_error
from dtcflow.io.schema import suggest
from dtcflow.scores.signatures import NOPROLIF, GeneSet

MAX_SHARED: Final = 0.10
"""From this share of a signature's genes on, genes that also chose the cells make a claim circular; fewer are taken out
of the signature."""
ONLY: Final = "_ONLY"
"""Suffix of a signature without the genes of the one it is compared with."""


def cross_checks(values: Mapping[str, Any], where: str) -> Iterable[Problem]:
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
    yield from _reference_checks(claims, where)


def _claim_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    if claim["role"] == "gate" and claim["test"] != "identity_share":
        fix = "give the claim another role: a gate is judged before there are p values"
        yield Problem(where, f"role gate and test {claim['test']}", "identity_share", fix, key=f"{key}.test")
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
    yield from KIND_CHECKS[claim["test"]](claim, where, key)


def _identity_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    if not 0 < claim["sesoi"] < 1:
        yield Problem(where, str(claim["sesoi"]), "a share between 0 and 1", "write 0.5", key=f"{key}.sesoi")
    if not POPULATIONS[claim["contrast"]["a"]].malignant:
        yield Problem(where, claim["contrast"]["a"], "a group of malignant cells", "write DTC", key=f"{key}.contrast.a")


def _contrast_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    a, b = claim["contrast"]["a"], claim["contrast"]["b"]
    if a == b:
        yield Problem(where, f"{a} - {b}", "two different groups", "change one of them", key=f"{key}.contrast")
    if not claim["primary_signature"]:
        fix = "name the signature that decides"
        yield Problem(where, "nothing", "the name of a signature", fix, key=f"{key}.primary_signature")
    for name in claim["negative_controls"]:
        if name in (claim["primary_signature"], claim["confirmatory_signature"]):
            yield Problem(
                where, name, "a signature that the claim does not test", "take it out", key=f"{key}.negative_controls"
            )


def _composite_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    yield from _contrast_checks(claim, where, key)
    if claim["design"] != "paired":
        yield Problem(where, claim["design"], "paired", "this test compares within patients", key=f"{key}.design")
    if not claim["purged_signatures"]:
        yield Problem(
            where,
            "nothing",
            "the signature without cell-cycle genes",
            "name its _NOPROLIF variant: a decision on cycling cells needs it",
            key=f"{key}.purged_signatures",
        )


def _specificity_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    for name, what in (
        ("of", "the id of the claim whose contrast must be specific"),
        ("purged_signatures", "the signature without proliferation genes, and without EMT genes"),
        ("exceeded_signatures", "signatures whose difference the contrast must exceed"),
    ):
        if not claim[name]:
            yield Problem(where, "nothing", what, "name them", key=f"{key}.{name}")


def _fixed(claim: Mapping[str, Any], where: str, key: str, **values: str) -> Iterable[Problem]:
    """Keys whose value a kind of test has built in: another one would change the plan's words and not the analysis."""
    for name, allowed in values.items():
        if claim[name] != allowed:
            fix = f"write {allowed}"
            yield Problem(where, str(claim[name]), f"{allowed}, for the test {claim['test']}", fix, key=f"{key}.{name}")


def _existence_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    yield from _within_checks(claim, where, key)
    yield from _fixed(claim, where, key, direction="greater")


def _within_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    """Tests over the cells of one group; the other group only teaches what covariates do."""
    yield from _fixed(claim, where, key, design="paired")
    if not claim["primary_signature"]:
        fix = "name the signature that decides"
        yield Problem(where, "nothing", "the name of a signature", fix, key=f"{key}.primary_signature")
    for side in ("a", "b"):
        if not POPULATIONS[claim["contrast"][side]].malignant:
            allowed = "a group of malignant cells"
            yield Problem(where, claim["contrast"][side], allowed, "correct it", key=f"{key}.contrast.{side}")


def _duality_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    yield from _within_checks(claim, where, key)
    if not claim["dormancy_signature"] or claim["dormancy_signature"] == claim["primary_signature"]:
        allowed = "another signature than the primary one"
        yield Problem(
            where, claim["dormancy_signature"] or "nothing", allowed, "name it", key=f"{key}.dormancy_signature"
        )


def _share_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    if not 0 < claim["sesoi"] < 1:
        yield Problem(where, str(claim["sesoi"]), "a number between 0 and 1", "correct it", key=f"{key}.sesoi")
    if claim["contrast"]["a"] != "DTC":
        yield Problem(where, claim["contrast"]["a"], "DTC", "this test is about the marrow", key=f"{key}.contrast.a")
    yield from _fixed(claim, where, key, direction="less", design="paired")


def _genome_checks(claim: Mapping[str, Any], where: str, key: str) -> Iterable[Problem]:
    yield from _share_checks(claim, where, key)
    if claim["contrast"]["b"] != "PT":
        fix = "the ceiling comes from cells of one clone of the primary"
        yield Problem(where, claim["contrast"]["b"], "PT", fix, key=f"{key}.contrast.b")


KIND_CHECKS: Final[dict[str, Callable[[Mapping[str, Any], str, str], Iterable[Problem]]]] = {
    "identity_share": _identity_checks,
    "paired_contrast": _contrast_checks,
    "composite_contrast": _composite_checks,
    "specificity": _specificity_checks,
    "existence": _existence_checks,
    "duality": _duality_checks,
    "dissimilarity": _genome_checks,
    "rarity": _share_checks,
}
"""What each kind of test asks of its claim."""


def _reference_checks(claims: list[dict[str, Any]], where: str) -> Iterable[Problem]:
    """``of`` must name a paired contrast that is evaluated."""
    known = {claim["id"]: claim for claim in claims}
    for number, claim in enumerate(claims):
        if not claim["evaluated"] or not claim["of"]:
            continue
        key, target = f"claims.{number}.of", known.get(claim["of"])
        allowed = "the id of an evaluated paired_contrast with design: paired"
        if target is None:
            near = suggest(claim["of"], known)
            yield Problem(where, claim["of"], allowed, f"did you mean {near!r}?" if near else "correct it", key=key)
        elif not target["evaluated"] or target["test"] != "paired_contrast" or target["design"] != "paired":
            found = f"{claim['of']} ({target['test']}, {target['design']}, evaluated: {target['evaluated']})"
            yield Problem(where, found, allowed, "name another claim", key=key)


# ---------------------------------------------------------------------------------------------------------------------
# Signatures
# ---------------------------------------------------------------------------------------------------------------------


def _unknown_signatures(plan: Plan, known: Collection[str], where: str) -> Iterable[Problem]:
    for claim in plan.claims:
        if not claim.evaluated:
            continue
        unknown = [name for name in claim.required_signatures() if name not in known]
        if unknown:
            yield Problem(
                where,
                f"{', '.join(unknown)}, which no panel entry or gene set has",
                "signatures of the panel, their _NOPROLIF/_NOPROLIF_NOEMT variants, sets of your GMT files, and as "
                f"covariates {', '.join(CELL_COVARIATES)}",
                _what_to_do(unknown, known),
                key=f"claim {claim.id}",
            )


def _what_to_do(unknown: Iterable[str], known: Collection[str]) -> str:
    """Advice on unknown signatures; a purged variant is never replaced by the set that was to be purged."""
    advice, meant = [], []
    for name in unknown:
        base, purge, _ = name.partition(NOPROLIF)
        if purge and base in known:
            advice.append(
                f"{base} has no purged variants: sets of a GMT file never have (write `purges: [none]`), sets of your "
                "own table only when it has sets of the families proliferation and emt"
            )
        elif near := suggest(name, [*known, *CELL_COVARIATES]):
            meant.append(f"{near!r} for {name}")
    if meant:
        advice.append(f"did you mean {', '.join(meant)}?")
    return "; ".join(dict.fromkeys(advice)) or "correct the name, add the gene set, or take the claim out"


def selecting_genes(claim: Claim, markers: Mapping[str, GeneSet]) -> frozenset[str]:
    """Genes that take part in choosing the cells of a claim.

    The epithelial panel makes a cell a candidate for the malignant call (and names normal epithelium); the
    haematopoietic panels name the blood cells of a claim that contrasts them.
    """
    panels = {EPITHELIAL}
    for group in (claim.a, claim.b):
        panels |= set(POPULATIONS[group].cell_types) & {*HAEMATOPOIETIC_TYPES, EPITHELIAL}
    return frozenset(gene for name in panels if name in markers for gene in markers[name].genes)


def shared_with_selection(
    claim: Claim, panel: Mapping[str, GeneSet], markers: Mapping[str, GeneSet]
) -> dict[str, tuple[str, ...]]:
    """Genes of each tested signature that also chose the cells, sorted; signatures without any are left out."""
    chosen = selecting_genes(claim, markers)
    names = [name for name in claim.tested_signatures() if name in panel]
    found = {name: tuple(sorted(chosen & set(panel[name].genes))) for name in names}
    return {name: genes for name, genes in found.items() if genes}


def _circular(
    plan: Plan, panel: Mapping[str, GeneSet], markers: Mapping[str, GeneSet], where: str
) -> Iterable[Problem]:
    for claim in plan.claims:
        if not claim.evaluated:
            continue
        for name, genes in shared_with_selection(claim, panel, markers).items():
            size = len(panel[name].genes)
            if len(genes) >= MAX_SHARED * size:
                yield Problem(
                    where,
                    f"{name} shares {len(genes)} of its {size} genes with the markers that chose the cells: "
                    f"{', '.join(genes)}",
                    f"less than {MAX_SHARED:.0%} (these are then taken out)",
                    "test a signature without marker genes: cells chosen for a gene express it",
                    key=f"claim {claim.id}",
                )


def _overlapping(plan: Plan, panel: Mapping[str, GeneSet], where: str) -> Iterable[Problem]:
    """Two signatures whose cells are compared must not be the same genes."""
    for claim in plan.claims:
        names = (claim.primary_signature, claim.dormancy_signature)
        if not claim.evaluated or not claim.dormancy_signature or not all(name in panel for name in names):
            continue
        first, second = (set(panel[name].genes) for name in names)
        both, size = sorted(first & second), min(len(first), len(second))
        if len(both) >= MAX_SHARED * size:
            yield Problem(
                where,
                f"{names[0]} and {names[1]} share {len(both)} genes ({len(both) / max(size, 1):.0%} of the smaller): "
                f"{', '.join(both)}",
                f"less than {MAX_SHARED:.0%} (these are then taken out of both)",
                "compare two signatures with different genes: what they share goes together by definition",
                key=f"claim {claim.id}",
            )


def check_plan(
    plan: Plan, panel: Mapping[str, GeneSet], markers: Mapping[str, GeneSet], *, where: str = "claims"
) -> None:
    """Refuse a plan whose signatures are unknown, or circular: made of the genes that chose the cells.

    Raises
    ------
    InputError
        With one problem per claim and signature.
    """
    problems = [*_unknown_signatures(plan, panel, where), *_circular(plan, panel, markers, where)]
    problems += _overlapping(plan, panel, where)
    if problems:
        raise plan_error(where, problems)


def claim_panel(
    claim: Claim, panel: Mapping[str, GeneSet], markers: Mapping[str, GeneSet]
) -> tuple[dict[str, GeneSet], dict[str, tuple[str, ...]]]:
    """Return the signatures of a claim as they are scored, and the marker genes taken out of each.

    Tested signatures lose the few genes that also chose the cells (a tenth of them or more is refused by
    :func:`check_plan`). Rivals, which the claim's effect is compared with, are scored a second time without the genes
    of its primary signature, under their name with ``_ONLY``: what two signatures share cannot tell them apart.
    """
    shared = shared_with_selection(claim, panel, markers)
    sets = {name: panel[name] for name in claim.required_signatures()}
    sets |= {name: panel[name].without(genes) for name, genes in shared.items()}
    own = sets[claim.primary_signature].genes if claim.primary_signature else ()
    for name in claim.rivals:
        sets[name + ONLY] = panel[name].without(own, name=name + ONLY)
    return sets, shared
