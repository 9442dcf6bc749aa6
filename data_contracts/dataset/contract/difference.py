"""What changed between two versions of a contract, and which changes loosen it.

A change loosens a contract when data, or uses of data, that the old one refused could pass under
the new one. Whatever is not known to tighten counts as loosening, so a steward reads too much
rather than too little.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from data_contracts.dataset.contract.document import DataContract
from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.licences.duo import DUO_CODES

Effect = Literal["loosens", "tightens", "neither"]

_LOWER_LOOSENS = {"minimumRecords", "minimumCohort"}
_HIGHER_LOOSENS = {
    "expires",
    "copyright.maxCoveragePerMille",
    "copyright.maxRecordsPerMille",
    "duplicates.maxExactPerMille",
    "duplicates.maxNearPerMille",
    "duplicates.maxLeakingPerMille",
    "optOut.maxAgeDays",
    "personalData.maxRecordsPerMille",
    "balance.maxMajorityPerMille",
    "drift.maxPsiThousandths",
    "images.maxUnsafePerMille",
    "images.maxWatermarkPerMille",
    "retention.days",
}
_LOWER_LOOSENS |= {"images.maxHammingDistance"}
_MORE_LOOSENS = {
    "purposes",
    "licences",
    "uses",
    "attestations",
    "licenceTerms",
    "licenceAcceptances",
    "egress.allow",
}
_FEWER_LOOSENS = {"copyright.registries", "personalData.kinds"}
_TRUE_TIGHTENS = {"optOut.evidenceRequired", "personalData.safeHarbor"}
_PRESENCE_TIGHTENS = {"packageLicence", "balance", "balance.maxMajorityPerMille", "images.registry"}
_NUMBER_LOOSENS = {"privacy.epsilon", "privacy.delta"}
"""As `_HIGHER_LOOSENS`, of decimals that are written as text. A budget that comes allows private
plans, and one that goes allows plain ones: either loosens."""
_NEITHER = {"id", "version"}


@dataclass(frozen=True)
class Change:
    """One change; `path` names the term, `before` and `after` are as a person would write them."""

    path: str
    before: str
    after: str
    effect: Effect


def difference(old: DataContract, new: DataContract) -> tuple[Change, ...]:
    """Every change from `old` to `new`, sorted by path; empty when only comments changed."""
    before, after = _flat(old), _flat(new)
    changes = [
        change
        for path in sorted(set(before) | set(after))
        if before.get(path) != after.get(path)
        for change in _changes(path, before.get(path), after.get(path))
    ]
    return (*changes, *_rule_changes(old, new))


def _flat(contract: DataContract) -> dict[str, Any]:
    values: dict[str, Any] = {"purposes": contract.purposes}
    values |= {"id": contract.id, "version": contract.version}
    values |= {
        f"source.{name}": value
        for name, value in contract.source.model_dump(mode="json", exclude={"classes"}).items()
    }
    # Of the form the source has what counts.
    terms = contract.terms.model_dump(mode="json", by_alias=True, exclude={"form"})
    for name, value in terms.items():
        if isinstance(value, dict):
            values |= {f"{name}.{inner}": member for inner, member in value.items()}
        else:
            values[name] = value
    return values


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    """A list changes member by member, anything else as a whole."""
    if not (isinstance(before, list | tuple) and isinstance(after, list | tuple)):
        yield Change(path, _shown(before), _shown(after), _effect(path, before, after))
        return
    for member in [m for m in before if m not in after]:
        yield Change(path, _shown(member), "nothing", _effect_of_member(path, member, added=False))
    for member in [m for m in after if m not in before]:
        yield Change(path, "nothing", _shown(member), _effect_of_member(path, member, added=True))
    if sorted(map(_shown, before)) == sorted(map(_shown, after)):
        yield Change(path, "another order", "this order", "neither")


def _effect(path: str, before: Any, after: Any) -> Effect:
    if path in _NEITHER:
        return "neither"
    if before is None or after is None:
        tightens = before is None and path in _PRESENCE_TIGHTENS
        return "tightens" if tightens else "loosens"
    if path == "privacy.unit":
        return "tightens" if after == "subject" else "loosens"
    if path in _NUMBER_LOOSENS:
        return "loosens" if Decimal(after) > Decimal(before) else "tightens"
    if path in _TRUE_TIGHTENS:
        return "tightens" if after else "loosens"
    if path in _HIGHER_LOOSENS:
        return "loosens" if after > before else "tightens"
    if path in _LOWER_LOOSENS:
        return "loosens" if after < before else "tightens"
    return "loosens"


def _effect_of_member(path: str, member: Any, *, added: bool) -> Effect:
    if path == "duoCodes":
        # A modifier restricts; a permission opens, and taking one away may leave a wider one.
        return "tightens" if added and DUO_CODES[member].is_modifier else "loosens"
    if path in _MORE_LOOSENS:
        return "loosens" if added else "tightens"
    if path in _FEWER_LOOSENS:
        return "tightens" if added else "loosens"
    return "loosens"


def _rule_changes(old: DataContract, new: DataContract) -> Iterator[Change]:
    before = {rule.rule: rule for rule in old.rules}
    after = {rule.rule: rule for rule in new.rules}
    for name in sorted(set(before) | set(after)):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            yield Change(name, "nothing", _shown_rule(now), "tightens")
        elif was is not None and now is None:
            yield Change(name, _shown_rule(was), "nothing", "loosens")
        elif was is not None and now is not None and was != now:
            yield Change(name, _shown_rule(was), _shown_rule(now), _effect_of_rule(was, now))


def _effect_of_rule(was: QualityRule, now: QualityRule) -> Effect:
    """Tightens only when no part of the rule accepts more than before."""
    same_question = (was.type, was.column) == (now.type, now.column)
    milder = was.severity == "critical" and now.severity == "warning"
    wider = (
        (was.min_value is not None and (now.min_value is None or now.min_value < was.min_value))
        or (was.max_value is not None and (now.max_value is None or now.max_value > was.max_value))
        or not set(now.value_set or ()) <= set(was.value_set or ())
        or now.mostly < was.mostly
    )
    return "loosens" if not same_question or milder or wider else "tightens"


def _shown_rule(rule: QualityRule) -> str:
    stated = rule.model_dump(exclude={"rule"}, exclude_none=True)
    return ", ".join(f"{name} {_shown(value)}" for name, value in stated.items())


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(member)}" for name, member in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "nothing"
    return str(value)
