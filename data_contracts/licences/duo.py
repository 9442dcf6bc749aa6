"""Data use conditions of the GA4GH Data Use Ontology (DUO), and what we do about each.

The codes that make up a consent are one permission and any number of modifiers (Lawson et al.,
Cell Genomics 1(2), 2021). What software can decide it decides; what only a person can know, such
as an ethics approval, needs that person's attestation of the very code. A code that is not in the
table is refused: an unknown condition cannot be kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from data_contracts.protocol.records.licence_terms import Use

UNKNOWN_CODE = "duo.unknown_code"
NO_PERMISSION = "duo.no_permission"
SEVERAL_PERMISSIONS = "duo.several_permissions"
FORBIDDEN = "duo.forbidden"
NOT_ATTESTED = "duo.not_attested"

_BOTH: frozenset[Use] = frozenset({"research", "commercial"})
_COMMERCIAL: frozenset[Use] = frozenset({"commercial"})
_NONE: frozenset[Use] = frozenset()


@dataclass(frozen=True)
class DuoTerm:
    """One term of the ontology; `needs_attestation` when software cannot check that it is kept."""

    code: str
    shorthand: str
    label: str
    kind: Literal["permission", "modifier"]
    needs_attestation: bool
    forbidden_uses: frozenset[Use] = _NONE

    @property
    def is_modifier(self) -> bool:
        """Whether the term is a condition besides the permission."""
        return self.kind == "modifier"

    def forbids(self, use: Use) -> bool:
        """Whether the term excludes `use`, whoever attests to what."""
        return use in self.forbidden_uses


def _permission(number: int, shorthand: str, label: str, attest: bool) -> DuoTerm:
    return DuoTerm(f"DUO:{number:07}", shorthand, label, "permission", attest)


def _modifier(
    number: int, shorthand: str, label: str, forbidden: frozenset[Use] = _NONE, attest: bool = True
) -> DuoTerm:
    return DuoTerm(f"DUO:{number:07}", shorthand, label, "modifier", attest, forbidden)


# Numbers, shorthands and labels: https://github.com/EBISPOT/DUO, duo.csv.
_TERMS = (
    _permission(4, "NRES", "no restriction", False),
    _permission(6, "HMB", "health or medical or biomedical research", True),
    _permission(7, "DS", "disease specific research", True),
    _permission(11, "POA", "population origins or ancestry research only", True),
    _permission(42, "GRU", "general research use", False),
    _modifier(12, "RS", "research specific restrictions"),
    # Training a model is read as developing a method, so there is nothing to attest to.
    _modifier(15, "NMDS", "no general methods research", _BOTH, attest=False),
    _modifier(16, "GSO", "genetic studies only"),
    _modifier(18, "NPUNCU", "not for profit, non commercial use only", _COMMERCIAL),
    _modifier(19, "PUB", "publication required"),
    _modifier(20, "COL", "collaboration required"),
    _modifier(21, "IRB", "ethics approval required"),
    _modifier(22, "GS", "geographical restriction"),
    _modifier(24, "MOR", "publication moratorium"),
    _modifier(25, "TS", "time limit on use"),
    _modifier(26, "US", "user specific restriction"),
    _modifier(27, "PS", "project specific restriction"),
    _modifier(28, "IS", "institution specific restriction"),
    _modifier(29, "RTN", "return to database or resource"),
    # Clinical care is a use in addition to the permission: it takes nothing away.
    _modifier(43, "CC", "clinical care use", attest=False),
    _modifier(44, "NPOA", "population origins or ancestry research prohibited"),
    _modifier(45, "NPU", "not for profit organisation use only"),
    _modifier(46, "NCU", "non-commercial use only", _COMMERCIAL, attest=False),
)
DUO_CODES: dict[str, DuoTerm] = {term.code: term for term in _TERMS}


def judge_duo(codes: Iterable[str], use: Use, attested: frozenset[str] = frozenset()) -> str | None:
    """None when every code permits `use`, else the id of the first reason against it.

    `attested` are codes that a named person attests to. No codes at all state nothing and give no
    reason against a use; modifiers need the one permission that they modify. A reason about one
    code ends in its shorthand, as in `duo.not_attested.irb`, and is a RuleId.
    """
    terms = [DUO_CODES.get(code) for code in sorted(set(codes))]
    known = [term for term in terms if term is not None]
    if len(known) != len(terms):
        return UNKNOWN_CODE
    permissions = sum(not term.is_modifier for term in known)
    if known and permissions != 1:
        return SEVERAL_PERMISSIONS if permissions else NO_PERMISSION
    for term in known:
        if term.forbids(use):
            return f"{FORBIDDEN}.{term.shorthand.lower()}"
    for term in known:
        if term.needs_attestation and term.code not in attested:
            return f"{NOT_ATTESTED}.{term.shorthand.lower()}"
    return None
