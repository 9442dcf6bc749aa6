"""The round report: a pure function of an attempt's records, so an auditor can compute it again.

Records that arrived after the coordinator had closed or decided are no part of the attempt and are
left out: a silo must not be able to change a closed round's report by writing to its inbox.
An aborted attempt gets a report too; without a close record its silos are judged as of the abort.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

from pydantic import ValidationError

from aggregator.attempt import Attempt
from aggregator.report.silo_summaries import SiloOutcome, silo_summaries
from data_contracts.errors import FederationOperatorError
from data_contracts.licences.adapter_licence import NO_LICENCE, inherited_licence
from data_contracts.licences.table import LicenceTable
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import RoundReport, Verdict
from data_contracts.protocol.records.licence_terms import LICENSE_REF, LicenceTerms
from data_contracts.protocol.records.round_report import InheritedLicence

TOO_MANY_TERMS = "the institutions registered more licence terms than one licence can combine"


def build_report(attempt: Attempt, issued_at: datetime) -> RoundReport:
    """The report of an attempt that was decided or aborted.

    Raises FederationOperatorError when the attempt is still open.
    """
    attempt = attempt.settled()
    plan = attempt.plan.record
    outcome, rule = _outcome(attempt)
    candidate = attempt.candidate.record if attempt.candidate else None
    return RoundReport.on(
        attempt.plan,
        issued_at,
        outcome=outcome,
        rule=rule,
        purpose=plan.purpose,
        use=plan.use,
        trust_mode=plan.trust_mode,
        base_model=plan.base_model,
        starting_adapter=plan.starting_adapter,
        candidate_adapter=candidate.adapter if candidate else None,
        adapter_licence=_adapter_licence(attempt),
        published_adapter=_published_adapter(attempt),
        merge=plan.merge,
        retention=plan.retention,
        discarded_energy=candidate.discarded_energy if candidate else None,
        error=candidate.error if candidate else None,
        error_interval=candidate.error_interval if candidate else None,
        step=candidate.step if candidate else None,
        adapter_encryption=plan.encryption.method if plan.encryption else None,
        silos=silo_summaries(attempt),
        evidence=tuple(ref for ref, _ in attempt.evidence()),
    )


def outcome_counts(report: RoundReport) -> dict[SiloOutcome, int]:
    """How many silos of the cohort ended how; every outcome is named."""
    found = [silo.outcome for silo in report.silos]
    return {outcome: found.count(outcome) for outcome in get_args(SiloOutcome)}


def _outcome(attempt: Attempt) -> tuple[Literal["published", "held", "aborted"], str]:
    if attempt.abort is not None:
        return "aborted", attempt.abort.record.rule
    if attempt.decision is not None:
        return attempt.decision.record.outcome, attempt.decision.record.rule
    raise FederationOperatorError(
        f"report of round {attempt.plan.record.round}",
        expected="an attempt that was decided or aborted",
        found="an attempt that is still open",
        action="let the round go on until it is decided, or abort it",
    )


def _published_adapter(attempt: Attempt) -> ArtifactRef | None:
    """What later rounds start from: an aborted attempt changes nothing."""
    if attempt.decision is None or attempt.abort is not None:
        return attempt.plan.record.starting_adapter
    return attempt.decision.record.published_adapter


def _adapter_licence(attempt: Attempt) -> InheritedLicence | None:
    """From the base model's licence and those of every silo that counted; None without a merge."""
    if attempt.close is None or attempt.candidate is None:
        return None
    admitted = {item.silo for item in attempt.close.record.admitted}
    verdicts = [r.verdict.record for s, r in attempt.silos.items() if s in admitted and r.verdict]
    inherited = inherited_licence(
        attempt.plan.record.base_model.licence,
        {count.licence for verdict in verdicts for count in verdict.licences},
        _agreed_terms(verdicts),
    )
    try:
        return InheritedLicence(
            expression=inherited.expression,
            attribution=inherited.attribution,
            reasons=inherited.reasons,
        )
    except ValidationError:
        # One institution must not be able to stop the report of all with the length of its terms.
        return InheritedLicence(expression=NO_LICENCE, attribution=(), reasons=(TOO_MANY_TERMS,))


def _agreed_terms(verdicts: Sequence[Verdict]) -> list[LicenceTerms]:
    """Terms that silos registered; an id to which two of them give other terms has none.

    What a silo says of an id that everybody knows counts for nothing.
    """
    known = LicenceTable()
    stated: dict[str, set[LicenceTerms]] = {}
    for verdict in verdicts:
        for terms in verdict.registered_licences:
            if terms.licence.startswith(LICENSE_REF) and known.terms(terms.licence) is None:
                stated.setdefault(terms.licence, set()).add(terms)
    return [next(iter(rows)) for rows in stated.values() if len(rows) == 1]
