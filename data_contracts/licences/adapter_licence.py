"""Which licence a merged adapter inherits from its base model and from the data.

In this order: every licence must have terms that permit training; the base model's terms always
bind; of the data bind those that bind what is made from them (share-alike, non-commercial, or with
conditions on use); what binds must be possible to keep together. If not, nobody can be given a
licence and the result is `LicenseRef-No-Licence`. A careful reading and no legal advice: only
compatibilities that a licence itself states are assumed.

Pure, and independent of the order of its input; reasons are fixed sentences that name ids only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from data_contracts.licences.expression import LicenceFinding, judge_expression, refused
from data_contracts.licences.table import LicenceTable
from data_contracts.licences.uses import permits
from data_contracts.protocol.records.licence_terms import LicenceTerms

NO_LICENCE = "LicenseRef-No-Licence"

# Each pair can be kept together because one of the two says so: an "or later", the relicensing
# clauses of the LGPL (2.1 section 3; 3.0 section 0), section 13 of GPL and AGPL 3.0.
_GPL_2 = ("GPL-2.0-only", "GPL-2.0-or-later")
_GPL_3 = ("GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later")
_AGPL = ("AGPL-3.0-only", "AGPL-3.0-or-later")
_OLD_LGPL = ("LGPL-2.0-only", "LGPL-2.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later")
_NEW_LGPL = ("LGPL-2.0-or-later", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later")
_KEPT_TOGETHER = (
    frozenset((*_GPL_2, *_OLD_LGPL)),
    frozenset((*_GPL_3, *_OLD_LGPL)),
    frozenset((*_GPL_3, *_NEW_LGPL)),
    frozenset((*_GPL_3, *_AGPL)),
    frozenset((*_NEW_LGPL, *_AGPL)),
)
# Creative Commons' share-alike licences admit a later version of themselves, from 2.0 on.
_CC_FAMILIES = ("CC-BY-SA-", "CC-BY-NC-SA-")
# https://www.apache.org/licenses/GPL-compatibility.html
_KNOWN_CONFLICTS = frozenset({frozenset({"Apache-2.0", "GPL-2.0-only"})})


@dataclass(frozen=True)
class AdapterLicence:
    """What the adapter may be passed on under.

    `expression` is an SPDX expression; `licence` is the same when it is a single id, else None.
    `attribution` are the licences whose authors must be named. `reasons` are sorted sentences.
    """

    permitted: bool
    licence: str | None
    expression: str
    attribution: tuple[str, ...]
    reasons: tuple[str, ...]


def inherited_licence(
    base_licence: str, data_licences: Iterable[str], registered: Iterable[LicenceTerms] = ()
) -> AdapterLicence:
    """The licence of an adapter of a model under `base_licence`, trained under `data_licences`.

    Both are SPDX expressions; of an OR the first side that permits training is taken.
    """
    table = LicenceTable(registered)
    base = judge_expression(base_licence, _TrainingRule(table))
    data = [judge_expression(text, _TrainingRule(table)) for text in set(data_licences)]
    refusals = {sentence for finding in (base, *data) for sentence in _refusals(finding)}
    if refusals:
        return _no_licence(refusals)
    base_terms = _terms(table, [base])
    data_terms = _terms(table, data)
    binding = {**base_terms, **{key: row for key, row in data_terms.items() if _binds(row)}}
    conflicts = set(_conflicts(list(binding.values())))
    if conflicts:
        return _no_licence(conflicts)
    return _inherited(binding, base_terms, data_terms)


def _inherited(
    binding: dict[str, LicenceTerms],
    base: dict[str, LicenceTerms],
    data: dict[str, LicenceTerms],
) -> AdapterLicence:
    credited = sorted(key for key, row in {**base, **data}.items() if row.attribution)
    reasons = {f"{key} binds what is made from the base model" for key in base}
    reasons |= {sentence for row in data.values() for sentence in _sentences(row)}
    reasons |= {f"{key} asks to name its authors and notices" for key in credited}
    return AdapterLicence(
        permitted=True,
        licence=next(iter(binding)) if len(binding) == 1 else None,
        expression=" AND ".join(sorted(binding)),
        attribution=tuple(credited),
        reasons=tuple(sorted(reasons)),
    )


@dataclass(frozen=True)
class _TrainingRule:
    """Whether training is permitted at all: acceptance and commercial use are asked elsewhere."""

    table: LicenceTable

    def __call__(self, licence: str) -> LicenceFinding:
        terms = self.table.terms(licence)
        rule = permits(terms, "research", accepted=True)
        if rule is None:
            return LicenceFinding(True, (licence,))
        return refused(rule, licence) if terms is not None else refused(rule)


def _refusals(finding: LicenceFinding) -> list[str]:
    if finding.allowed:
        return []
    return [f"{' and '.join(finding.ids)} does not permit training: {finding.rule}"]


def _terms(table: LicenceTable, findings: Iterable[LicenceFinding]) -> dict[str, LicenceTerms]:
    ids = sorted({licence for finding in findings for licence in finding.ids})
    return {licence: row for licence in ids if (row := table.terms(licence)) is not None}


def _binds(row: LicenceTerms) -> bool:
    return row.share_alike or not row.commercial or row.conditional


def _sentences(row: LicenceTerms) -> list[str]:
    told = (
        (row.share_alike, f"{row.licence} asks for the same terms on what is made from the data"),
        (not row.commercial, f"{row.licence} keeps what is made from the data non-commercial"),
        (
            row.conditional,
            f"{row.licence} puts conditions on the use of what is made from the data",
        ),
    )
    return [sentence for applies, sentence in told if applies]


def _conflicts(binding: list[LicenceTerms]) -> list[str]:
    clashing = (pair for pair in combinations(binding, 2) if _clash(*pair) or _clash(*pair[::-1]))
    named = (sorted((one.licence, other.licence)) for one, other in clashing)
    return [f"{one} and {other} cannot both be kept" for one, other in named]


def _clash(one: LicenceTerms, other: LicenceTerms) -> bool:
    """Share-alike admits no terms but its own, so none that forbid or condition a use."""
    pair = frozenset({one.licence, other.licence})
    if pair in _KNOWN_CONFLICTS:
        return True
    if not one.share_alike:
        return False
    if other.share_alike:
        return not _kept_together(pair)
    return other.conditional or (one.commercial and not other.commercial)


def _kept_together(pair: frozenset[str]) -> bool:
    if any(pair <= family for family in _KEPT_TOGETHER):
        return True
    return any(all(licence.startswith(family) for licence in pair) for family in _CC_FAMILIES)


def _no_licence(reasons: set[str]) -> AdapterLicence:
    return AdapterLicence(False, NO_LICENCE, NO_LICENCE, (), tuple(sorted(reasons)))
