"""A contract in words, term by term, for the person who signs it."""

from data_contracts.dataset.contract.canaries import Canaries
from data_contracts.dataset.contract.document import DataContract
from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.dataset.contract.terms import (
    CopyrightPolicy,
    PersonalDataPolicy,
    RegisteredLicence,
)
from data_contracts.dataset.personal_data.safe_harbor import (
    coverage_table,
    rows_needing_attestation,
)
from data_contracts.licences.duo import DUO_CODES, judge_duo


def summary(contract: DataContract) -> list[tuple[str, str]]:
    """(term, what it says), in the order in which a steward would ask."""
    terms, source = contract.terms, contract.source
    return [
        ("contract", f"{contract.id}, version {contract.version}"),
        ("digest", contract.digest),
        ("data", f"{source.format}: {source.table or source.path}"),
        ("records", _form(contract)),
        ("purposes", "; ".join(contract.purposes)),
        ("uses", ", ".join(terms.uses)),
        ("data use conditions", _duo(contract)),
        ("expires", f"{terms.expires:%Y-%m-%d %H:%M} UTC"),
        ("minimum", f"{terms.minimum_records} records of {terms.minimum_cohort} subjects"),
        ("licences", ", ".join(terms.licences)),
        *[(licence.id, _registered(licence)) for licence in terms.licence_terms],
        ("accepted terms", "; ".join(terms.licence_acceptances) or "none"),
        ("package claims", terms.package_licence or "nothing"),
        ("copyright", _copyright(terms.copyright)),
        (
            "duplicates",
            f"at most {terms.duplicates.max_exact_per_mille} exact and "
            f"{terms.duplicates.max_near_per_mille} near of 1000, "
            f"{terms.duplicates.max_leaking_per_mille} of 1000 in both splits",
        ),
        (
            "opt-outs",
            "refused; evidence "
            + (
                f"required, at most {terms.opt_out.max_age_days} days old"
                if terms.opt_out.evidence_required
                else "not required"
            ),
        ),
        ("personal data", _personal_data(terms.personal_data)),
        ("to be attested (HIPAA)", _attestation(contract)),
        (
            "labels",
            f"the largest at most {terms.balance.max_majority_per_mille} of 1000"
            if terms.balance
            else "not looked at",
        ),
        ("images", _images(contract)),
        ("drift", f"population stability index at most {terms.drift.max_psi_thousandths / 1000}"),
        ("retention", f"{terms.retention.days} days"),
        ("may leave the silo", ", ".join(terms.egress.allow)),
        ("differential privacy", _privacy(terms.privacy)),
        ("canaries", _canaries(terms.canaries)),
        *[(rule.rule, f"{rule.severity}: {rule.type} on {rule.column}") for rule in contract.rules],
    ]


def _form(contract: DataContract) -> str:
    form, classes = contract.source.record_form, dict(contract.source.classes)
    words = f"{form.name}: {form.words}"
    if not classes:
        return words
    named = (word if value == word else f"{value} is {word}" for value, word in classes.items())
    return f"{words}; {', '.join(named)}"


def _registered(licence: RegisteredLicence) -> str:
    allows = [name for name in ("commercial", "derivatives") if getattr(licence, name)]
    asks = [name for name in ("share_alike", "attribution", "no_ai") if getattr(licence, name)]
    return f"allows {', '.join(allows) or 'nothing'}; asks {', '.join(asks) or 'nothing'}"


def _images(contract: DataContract) -> str:
    if contract.source.format != "image-text":
        return "none"
    policy = contract.terms.images
    return (
        f"registry {policy.registry or 'none'}, {policy.max_hamming_distance} bits; unsafe at most "
        f"{policy.max_unsafe_per_mille}, watermark {policy.max_watermark_per_mille} of 1000"
    )


def _duo(contract: DataContract) -> str:
    terms = contract.terms
    if not terms.duo_codes:
        return "none stated"
    named = ", ".join(f"{code} {DUO_CODES[code].label}" for code in terms.duo_codes)
    refused = [
        f"{use} use refused by {reason}"
        for use in terms.uses
        if (reason := judge_duo(terms.duo_codes, use, terms.attested())) is not None
    ]
    return "; ".join([named, *refused])


def _copyright(policy: CopyrightPolicy) -> str:
    if not policy.registries:
        return "no registry is probed"
    names = ", ".join(registry.name for registry in policy.registries)
    return (
        f"registries {names}; at most {policy.max_coverage_per_mille} of 1000 words of a record, "
        f"in at most {policy.max_records_per_mille} of 1000 records"
    )


def _personal_data(policy: PersonalDataPolicy) -> str:
    return f"in at most {policy.max_records_per_mille} of 1000 records: {', '.join(policy.kinds)}"


def _privacy(budget: PrivacyBudget | None) -> str:
    if budget is None:
        return "no budget: plans that ask for it are refused"
    unit = "one record" if budget.unit == "record" else "all records of one subject"
    return (
        f"of {unit} in {budget.population}: epsilon {budget.epsilon} at delta "
        f"{budget.delta:f} for all trainings together"
    )


def _canaries(canaries: Canaries | None) -> str:
    if canaries is None:
        return "none: nothing is added to the records"
    copies = "one copy" if canaries.copies == 1 else f"{canaries.copies} copies"
    return (
        f"{canaries.number} records with a random secret of {canaries.form}, in {copies} each, are "
        "trained on among the others"
    )


def _attestation(contract: DataContract) -> str:
    """Safe Harbor identifiers that no detector covers and nobody vouches for."""
    terms = contract.terms
    wanting = rows_needing_attestation(frozenset(terms.personal_data.kinds))
    letters = {row.letter for row in wanting} - terms.attested()
    if not letters:
        return f"nothing of the {len(coverage_table())} identifiers"
    return "not vouched for: " + ", ".join(sorted(letters))
