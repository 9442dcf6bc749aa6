"""The round report: a pure function of the evidence, so that an auditor can compute it again.

Records that arrived after the coordinator had closed or decided are no part of the attempt and are
left out: a silo must not be able to change a closed round's report by writing to its inbox.
An aborted attempt gets a report too; without a close record its silos are judged as of the abort.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from aggregator.admission import REVOKED_SILO, WITHDREW, SiloEvidence, binding_fault, judge
from data_contracts.artifact import ArtifactRef
from data_contracts.envelope import Verified
from data_contracts.errors import FederationOperatorError
from data_contracts.licences.adapter_licence import inherited_licence
from data_contracts.licences.registry import LicenceRegistry
from data_contracts.licences.terms import LICENSE_REF, LicenceTerms
from data_contracts.records import (
    Abort,
    Acceptance,
    Candidate,
    Close,
    Decision,
    Evaluation,
    Membership,
    Refusal,
    RoundPlan,
    RoundReport,
    Submission,
    Verdict,
)
from data_contracts.records.candidate import SiloInfluence
from data_contracts.records.evidence_ref import EvidenceRef
from data_contracts.records.round_report import (
    InheritedLicence,
    SiloLosses,
    SiloSummary,
)

SHARE_PLACES = 6
ABORTED_RULE = "attempt.aborted"

SiloOutcome = Literal["admitted", "rejected", "refused", "missing"]
MISSING: tuple[SiloOutcome, str | None] = ("missing", None)


@dataclass(frozen=True)
class Evidence:
    """All verified records of one attempt; the mappings are by silo.

    `versions`: of the silos' records in their inboxes, by digest.
    """

    membership: Verified[Membership]
    plan: Verified[RoundPlan]
    acceptances: Mapping[str, Verified[Acceptance]]
    refusals: Mapping[str, Verified[Refusal]]
    verdicts: Mapping[str, Verified[Verdict]]
    submissions: Mapping[str, Verified[Submission]]
    evaluations: Mapping[str, Verified[Evaluation]]
    close: Verified[Close] | None = None
    candidate: Verified[Candidate] | None = None
    decision: Verified[Decision] | None = None
    abort: Verified[Abort] | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)


def build_report(evidence: Evidence, issued_at: datetime) -> RoundReport:
    """The report of an attempt that was decided or aborted.

    Raises FederationOperatorError when the attempt is still open.
    """
    evidence = settled(evidence)
    plan = evidence.plan.record
    outcome, rule = _outcome(evidence)
    candidate = evidence.candidate.record if evidence.candidate else None
    return RoundReport.on(
        evidence.plan,
        issued_at,
        outcome=outcome,
        rule=rule,
        purpose=plan.purpose,
        use=plan.use,
        trust_mode=plan.trust_mode,
        base_model=plan.base_model,
        starting_adapter=plan.starting_adapter,
        candidate_adapter=candidate.adapter if candidate else None,
        adapter_licence=_adapter_licence(evidence),
        published_adapter=_published_adapter(evidence),
        merge=plan.merge,
        retention=plan.retention,
        discarded_energy=candidate.discarded_energy if candidate else None,
        error=candidate.error if candidate else None,
        silos=_summaries(evidence),
        evidence=tuple(ref for ref, _ in evidence_list(evidence)),
    )


def settled(evidence: Evidence) -> Evidence:
    """Without the records that arrived too late to be part of the attempt."""
    if evidence.close is not None:
        evidence = _as_closed(evidence, evidence.close.record)
    if evidence.decision is None:
        return evidence
    counted = {item.evaluation_digest for item in evidence.decision.record.evaluations}
    used = {s: e for s, e in evidence.evaluations.items() if e.digest in counted}
    return replace(evidence, evaluations=used)


def _as_closed(evidence: Evidence, close: Close) -> Evidence:
    """Only records that the close holds: it names all that it was judged on."""
    held = {(ref.silo, ref.digest) for ref in close.held}

    def judged(records: Mapping[str, Verified[Any]]) -> dict[str, Verified[Any]]:
        return {silo: v for silo, v in records.items() if (silo, v.digest) in held}

    return replace(
        evidence,
        acceptances=judged(evidence.acceptances),
        refusals=judged(evidence.refusals),
        verdicts=judged(evidence.verdicts),
        submissions=judged(evidence.submissions),
    )


def evidence_list(evidence: Evidence) -> list[tuple[EvidenceRef, bytes]]:
    """Reference and envelope of every record, the coordinator's first, then by kind and silo."""
    own = (
        evidence.membership,
        evidence.plan,
        evidence.close,
        evidence.candidate,
        evidence.decision,
        evidence.abort,
    )
    entries = [_entry(None, verified) for verified in own if verified is not None]
    for records in _by_kind(evidence):
        entries += [
            _entry(silo, verified, evidence.versions.get(verified.digest))
            for silo, verified in sorted(records.items())
        ]
    return entries


def admission_evidence(evidence: Evidence, close: Close | None) -> list[SiloEvidence]:
    """What `judge` needs, with the facts that only the coordinator saw taken from `close`."""
    reasons = {item.silo: item.rule for item in close.rejected} if close else {}
    silos = set(evidence.plan.record.cohort) | {s for r in _by_kind(evidence)[:4] for s in r}
    versions: dict[str | None, dict[str, str | None]] = {}
    for ref in close.held if close else ():
        versions.setdefault(ref.silo, {})[ref.digest] = ref.version
    return [
        SiloEvidence(
            silo=silo,
            acceptance=evidence.acceptances.get(silo),
            refusal=evidence.refusals.get(silo),
            verdict=evidence.verdicts.get(silo),
            submission=evidence.submissions.get(silo),
            equivocated=reasons.get(silo) == "silo.equivocation",
            is_revoked=reasons.get(silo) == REVOKED_SILO,
            withdrew=reasons.get(silo) == WITHDREW,
            versions=versions.get(silo, {}),
            adapter_fault=_adapter_fault(reasons.get(silo)),
        )
        for silo in sorted(silos)
    ]


def _adapter_fault(reason: str | None) -> str | None:
    return reason if reason is not None and reason.startswith(("adapter.", "blob.")) else None


def _by_kind(evidence: Evidence) -> tuple[Mapping[str, Verified[Any]], ...]:
    return (
        evidence.acceptances,
        evidence.refusals,
        evidence.verdicts,
        evidence.submissions,
        evidence.evaluations,
    )


def _entry(
    silo: str | None, verified: Verified[Any], version: str | None = None
) -> tuple[EvidenceRef, bytes]:
    kind, digest = verified.record.kind, verified.digest
    return EvidenceRef(kind=kind, silo=silo, digest=digest, version=version), verified.envelope


def _outcome(evidence: Evidence) -> tuple[Literal["published", "held", "aborted"], str]:
    if evidence.abort is not None:
        return "aborted", evidence.abort.record.rule
    if evidence.decision is not None:
        return evidence.decision.record.outcome, evidence.decision.record.rule
    raise FederationOperatorError(
        f"report of round {evidence.plan.record.round}",
        expected="an attempt that was decided or aborted",
        found="an attempt that is still open",
        action="let the round go on until it is decided, or abort it",
    )


def _published_adapter(evidence: Evidence) -> ArtifactRef | None:
    """What later rounds start from: an aborted attempt changes nothing."""
    if evidence.decision is None or evidence.abort is not None:
        return evidence.plan.record.starting_adapter
    return evidence.decision.record.published_adapter


def _adapter_licence(evidence: Evidence) -> InheritedLicence | None:
    """From the base model's licence and those of every silo that counted; None without a merge."""
    if evidence.close is None or evidence.candidate is None:
        return None
    admitted = {item.silo for item in evidence.close.record.admitted}
    verdicts = [v.record for silo, v in evidence.verdicts.items() if silo in admitted]
    inherited = inherited_licence(
        evidence.plan.record.base_model.licence,
        {count.licence for verdict in verdicts for count in verdict.licences},
        _agreed_terms(verdicts),
    )
    return InheritedLicence(
        expression=inherited.expression,
        attribution=inherited.attribution,
        reasons=inherited.reasons,
    )


def _agreed_terms(verdicts: Sequence[Verdict]) -> list[LicenceTerms]:
    """Terms that silos registered; an id to which two of them give other terms has none.

    What a silo says of an id that everybody knows counts for nothing.
    """
    known = LicenceRegistry()
    stated: dict[str, set[LicenceTerms]] = {}
    for verdict in verdicts:
        for terms in verdict.registered_licences:
            if terms.licence.startswith(LICENSE_REF) and known.terms(terms.licence) is None:
                stated.setdefault(terms.licence, set()).add(terms)
    return [next(iter(rows)) for rows in stated.values() if len(rows) == 1]


def _summaries(evidence: Evidence) -> tuple[SiloSummary, ...]:
    outcomes = _silo_outcomes(evidence)
    weights = _weight_shares(evidence)
    return tuple(
        _summary(evidence, silo, *outcomes.get(silo, MISSING), weights.get(silo, Decimal(0)))
        for silo in sorted(evidence.plan.record.cohort)
    )


def _silo_outcomes(evidence: Evidence) -> dict[str, tuple[SiloOutcome, str | None]]:
    """Outcome and rule of every silo, from the close record or, without one, as of the abort."""
    close = evidence.close.record if evidence.close else None
    if close is None and evidence.abort is not None:
        at = evidence.abort.record.issued_at
        close = judge(evidence.plan, admission_evidence(evidence, None), at)
    if close is None:
        return dict.fromkeys(evidence.plan.record.cohort, MISSING)
    outcomes = dict.fromkeys(close.missing, MISSING)
    outcomes |= {item.silo: ("refused", item.rule) for item in close.refused}
    outcomes |= {item.silo: ("rejected", item.rule) for item in close.rejected}
    counted: tuple[SiloOutcome, str | None] = (
        ("admitted", None) if evidence.close else ("rejected", ABORTED_RULE)
    )
    return outcomes | {item.silo: counted for item in close.admitted}


def _weight_shares(evidence: Evidence) -> dict[str, Decimal]:
    """Share of the merge per admitted silo; nothing has a share where nothing was merged."""
    if evidence.close is None or evidence.candidate is None:
        return {}
    admitted = evidence.close.record.admitted
    total = Decimal(sum(item.weight for item in admitted))
    places = Decimal(1).scaleb(-SHARE_PLACES)
    return {item.silo: (item.weight / total).quantize(places) for item in admitted}


def _summary(
    evidence: Evidence, silo: str, outcome: SiloOutcome, rule: str | None, share: Decimal
) -> SiloSummary:
    contract_digest = _pinned_contract(evidence.plan.record, silo)
    verdict = _verdict_on(evidence, silo, contract_digest)
    submission = evidence.submissions.get(silo)
    return SiloSummary(
        silo=silo,
        outcome=outcome,
        rule=rule,
        contract_digest=contract_digest,
        contract_passed=verdict.passed if verdict else None,
        tokens=submission.record.tokens if submission else 0,
        weight_share=share,
        influence=_influence(evidence.candidate, silo),
        losses=_losses(evidence.evaluations.get(silo)),
    )


def _influence(candidate: Verified[Candidate] | None, silo: str) -> SiloInfluence | None:
    influences = candidate.record.influences if candidate else ()
    return next((entry for entry in influences if entry.silo == silo), None)


def _pinned_contract(plan: RoundPlan, silo: str) -> str:
    return next(pin.contract_digest for pin in plan.contracts if pin.silo == silo)


def _verdict_on(evidence: Evidence, silo: str, contract_digest: str) -> Verdict | None:
    """The silo's verdict, if it is about this plan and the contract that the plan pins."""
    verified = evidence.verdicts.get(silo)
    if verified is None or binding_fault(verified.record, evidence.plan) is not None:
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
