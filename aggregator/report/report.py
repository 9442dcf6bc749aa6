"""The round report: a pure function of an attempt's records, so an auditor can compute it again.

Records that arrived after the coordinator had closed or decided are no part of the attempt and are
left out: a silo must not be able to change a closed round's report by writing to its inbox.
An aborted attempt gets a report too; without a close record its silos are judged as of the abort.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, get_args

from pydantic import ValidationError

from aggregator.decisions.admission import (
    EQUIVOCATION,
    REVOKED_SILO,
    WITHDREW,
    binding_fault,
    judge,
)
from aggregator.evidence.attempt import RECORD_FIELDS, Attempt, SiloRecords
from data_contracts.errors import FederationOperatorError
from data_contracts.licences.adapter_licence import NO_LICENCE, inherited_licence
from data_contracts.licences.table import LicenceTable
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Candidate,
    Close,
    Evaluation,
    RoundPlan,
    RoundReport,
    Verdict,
)
from data_contracts.protocol.records.candidate import SiloInfluence
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.licence_terms import LICENSE_REF, LicenceTerms
from data_contracts.protocol.records.round_report import (
    InheritedLicence,
    SiloLosses,
    SiloSummary,
)

SHARE_PLACES = 6
TOO_MANY_TERMS = "the institutions registered more licence terms than one licence can combine"
ABORTED_RULE = "attempt.aborted"

SiloOutcome = Literal["admitted", "rejected", "refused", "missing"]
MISSING: tuple[SiloOutcome, str | None] = ("missing", None)


def build_report(attempt: Attempt, issued_at: datetime) -> RoundReport:
    """The report of an attempt that was decided or aborted.

    Raises FederationOperatorError when the attempt is still open.
    """
    attempt = settled(attempt)
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
        silos=_summaries(attempt),
        evidence=tuple(ref for ref, _ in evidence_list(attempt)),
    )


def outcome_counts(report: RoundReport) -> dict[SiloOutcome, int]:
    """How many silos of the cohort ended how; every outcome is named."""
    found = [silo.outcome for silo in report.silos]
    return {outcome: found.count(outcome) for outcome in get_args(SiloOutcome)}


def settled(attempt: Attempt) -> Attempt:
    """Without the records that arrived too late to be part of the attempt.

    A close holds all that it was judged on, and a decision names its evaluations.
    """
    if attempt.close is not None:
        held = {(ref.silo, ref.digest) for ref in attempt.close.record.held}
        attempt = attempt.only(
            lambda silo, v: (silo, v.digest) in held or v.record.kind == Evaluation.kind
        )
    if attempt.decision is not None:
        used = {ref.digest for ref in attempt.decision.record.evaluations}
        attempt = attempt.only(lambda _, v: v.digest in used or v.record.kind != Evaluation.kind)
    return attempt


def evidence_list(attempt: Attempt) -> list[tuple[EvidenceRef, bytes]]:
    """Reference and envelope of every record, the coordinator's first, then by kind and silo."""
    own = (
        attempt.membership,
        attempt.plan,
        attempt.close,
        attempt.candidate,
        attempt.decision,
        attempt.abort,
    )
    entries = [_entry(None, verified, None) for verified in own if verified is not None]
    for name in RECORD_FIELDS:
        for silo, records in sorted(attempt.silos.items()):
            verified = getattr(records, name)
            if verified is not None:
                version = records.versions.get(verified.digest)
                entries.append(_entry(silo, verified, version))
    return entries


def as_judged(attempt: Attempt, close: Close | None) -> list[SiloRecords]:
    """What `judge` needs, with the facts that only the coordinator saw taken from `close`."""
    rules = {item.silo: item.rule for item in close.rejected} if close else {}
    versions: dict[str | None, dict[str, str | None]] = {}
    for ref in close.held if close else ():
        versions.setdefault(ref.silo, {})[ref.digest] = ref.version
    silos = set(attempt.plan.record.cohort) | {s for s, r in attempt.silos.items() if r.judged()}
    return [
        replace(
            attempt.of(silo),
            equivocated=rules.get(silo) == EQUIVOCATION,
            is_revoked=rules.get(silo) == REVOKED_SILO,
            withdrew=rules.get(silo) == WITHDREW,
            adapter_fault=_adapter_fault(rules.get(silo)),
            versions=versions.get(silo, {}),
        )
        for silo in sorted(silos)
    ]


def _adapter_fault(rule: str | None) -> str | None:
    return rule if rule is not None and rule.startswith(("adapter.", "blob.")) else None


def _entry(
    silo: str | None, verified: Verified[Any], version: str | None
) -> tuple[EvidenceRef, bytes]:
    kind, digest = verified.record.kind, verified.digest
    return EvidenceRef(kind=kind, silo=silo, digest=digest, version=version), verified.envelope


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


def _summaries(attempt: Attempt) -> tuple[SiloSummary, ...]:
    outcomes = _silo_outcomes(attempt)
    weights = _weight_shares(attempt)
    return tuple(
        _summary(attempt, silo, *outcomes.get(silo, MISSING), weights.get(silo, Decimal(0)))
        for silo in sorted(attempt.plan.record.cohort)
    )


def _silo_outcomes(attempt: Attempt) -> dict[str, tuple[SiloOutcome, str | None]]:
    """Outcome and rule of every silo, from the close record or, without one, as of the abort."""
    close = attempt.close.record if attempt.close else None
    if close is None and attempt.abort is not None:
        at = attempt.abort.record.issued_at
        close = judge(attempt.plan, as_judged(attempt, None), at)
    if close is None:
        return dict.fromkeys(attempt.plan.record.cohort, MISSING)
    outcomes = dict.fromkeys(close.missing, MISSING)
    outcomes |= {item.silo: ("refused", item.rule) for item in close.refused}
    outcomes |= {item.silo: ("rejected", item.rule) for item in close.rejected}
    counted: tuple[SiloOutcome, str | None] = (
        ("admitted", None) if attempt.close else ("rejected", ABORTED_RULE)
    )
    return outcomes | {item.silo: counted for item in close.admitted}


def _weight_shares(attempt: Attempt) -> dict[str, Decimal]:
    """Share of the merge per admitted silo; nothing has a share where nothing was merged."""
    if attempt.close is None or attempt.candidate is None:
        return {}
    admitted = attempt.close.record.admitted
    total = Decimal(sum(item.weight for item in admitted))
    places = Decimal(1).scaleb(-SHARE_PLACES)
    return {item.silo: (item.weight / total).quantize(places) for item in admitted}


def _summary(
    attempt: Attempt, silo: str, outcome: SiloOutcome, rule: str | None, share: Decimal
) -> SiloSummary:
    contract_digest = _pinned_contract(attempt.plan.record, silo)
    verdict = _verdict_on(attempt, silo, contract_digest)
    submission = attempt.of(silo).submission
    return SiloSummary(
        silo=silo,
        outcome=outcome,
        rule=rule,
        contract_digest=contract_digest,
        contract_passed=verdict.passed if verdict else None,
        tokens=submission.record.tokens if submission else 0,
        weight_share=share,
        influence=_influence(attempt.candidate, silo),
        losses=_losses(attempt.of(silo).evaluation),
    )


def _influence(candidate: Verified[Candidate] | None, silo: str) -> SiloInfluence | None:
    influences = candidate.record.influences if candidate else ()
    return next((entry for entry in influences if entry.silo == silo), None)


def _pinned_contract(plan: RoundPlan, silo: str) -> str:
    return next(pin.contract_digest for pin in plan.contracts if pin.silo == silo)


def _verdict_on(attempt: Attempt, silo: str, contract_digest: str) -> Verdict | None:
    """The silo's verdict, if it is about this plan and the contract that the plan pins."""
    verified = attempt.of(silo).verdict
    if verified is None or binding_fault(verified.record, attempt.plan) is not None:
        return None
    return verified.record if verified.record.contract_digest == contract_digest else None


def _losses(evaluation: Verified[Evaluation] | None) -> SiloLosses | None:
    if evaluation is None:
        return None
    record = evaluation.record
    return SiloLosses(
        base=record.base_loss,
        starting=record.starting_loss,
        candidate=record.candidate_loss,
        silo_only=record.silo_only_loss,
    )
