"""Whether the terms of a licence permit a use.

Training is read as making a derivative of what it is trained on, and a merged adapter as sharing
it. Whether the law sees it so is open, and differs by country; this is the careful reading and no
legal advice. Research is a use that is not directed at a commercial advantage: whoever states it
for a round answers for it.
"""

from data_contracts.protocol.records.licence_terms import LicenceTerms, Use

NO_TERMS = "licence.no_terms"
NO_AI = "licence.no_ai"
NO_DERIVATIVES = "licence.no_derivatives"
NON_COMMERCIAL = "licence.non_commercial"
CONDITIONAL = "licence.conditional"


def permits(
    terms: LicenceTerms | None,
    use: Use,
    needs_derivatives: bool = True,
    *,
    accepted: bool = False,
) -> str | None:
    """None when `terms` permit `use`, else the id of the first reason against it.

    `accepted` says that a named person has accepted terms that are conditional on it. No terms,
    no permission.
    """
    if terms is None:
        return NO_TERMS
    if terms.no_ai:
        return NO_AI
    if needs_derivatives and not terms.derivatives:
        return NO_DERIVATIVES
    if use == "commercial" and not terms.commercial:
        return NON_COMMERCIAL
    if terms.conditional and not accepted:
        return CONDITIONAL
    return None
