"""Whether a base model may be fine-tuned for a use, by the terms of its licence.

Same rules as for data: the unknown is refused, a non-commercial model is refused for commercial
use, and a model under terms that restrict what it may be used for is refused until a named person
has accepted those very terms. Rule and reason are fixed sentences with licence ids, fit to leave.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from data_contracts.licences import uses
from data_contracts.licences.expression import LicenceFinding, judge_expression, refused
from data_contracts.licences.table import LicenceTable
from data_contracts.licences.uses import permits
from data_contracts.protocol.records.licence_terms import LicenceTerms, Use

_ACCEPTANCE = re.compile(r"(LicenseRef-[A-Za-z0-9.-]{1,69}) accepted by \S.{0,199}")

_SENTENCES = {
    "permitted": "the terms of {ids} permit {use} use",
    "non_commercial": "the terms of {ids} exclude commercial use",
    "no_derivatives": "the terms of {ids} exclude derivatives, such as a fine-tuned model",
    "no_ai": "the terms of {ids} exclude training",
    "conditional": "the terms of {ids} bind only after a named person has accepted them",
    "unknown": "no terms are known for {ids}, so nothing is permitted",
}
_RULES = {
    None: "permitted",
    uses.NON_COMMERCIAL: "non_commercial",
    uses.NO_DERIVATIVES: "no_derivatives",
    uses.NO_AI: "no_ai",
    uses.CONDITIONAL: "conditional",
}


@dataclass(frozen=True)
class ModelLicenceFinding:
    """`rule` is one of `model_licence.*`; `reason` says it in a sentence that names ids only."""

    allowed: bool
    rule: str
    reason: str


def judge_model(
    licence: str, use: Use, acceptance: str | None, registered: Iterable[LicenceTerms] = ()
) -> ModelLicenceFinding:
    """Finding for a model under `licence` (an SPDX expression or a `LicenseRef-` id).

    `acceptance` is who accepted which terms, `LicenseRef-X accepted by NAME`; an acceptance of
    other terms, or by nobody, counts for nothing. Several are separated by semicolons.
    """
    table, accepted = LicenceTable(registered), accepted_terms(acceptance)

    def of_id(licence_id: str) -> LicenceFinding:
        terms = table.terms(licence_id)
        rule = permits(terms, use, accepted=licence_id in accepted)
        if rule is None:
            return LicenceFinding(True, (licence_id,))
        return refused(rule, licence_id) if terms is not None else refused(rule)

    finding = judge_expression(licence, of_id)
    name = _RULES.get(finding.rule, "unknown")
    reason = _SENTENCES[name].format(ids=" and ".join(finding.ids), use=use)
    return ModelLicenceFinding(finding.allowed, f"model_licence.{name}", reason)


def accepted_terms(acceptance: str | None) -> frozenset[str]:
    """Ids of the terms that a named person has accepted, of `LicenseRef-X accepted by NAME`."""
    statements = (statement.strip() for statement in (acceptance or "").split(";"))
    found = (_ACCEPTANCE.fullmatch(statement) for statement in statements)
    return frozenset(match.group(1) for match in found if match is not None)
