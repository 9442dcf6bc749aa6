"""The chain of references: every record names the one that it rests on."""

from collections.abc import Iterator

from aggregator.audit.claim import Finding
from aggregator.audit.signed_evidence import SignedEvidence
from aggregator.decisions.binding import binding_fault


def references(signed: SignedEvidence) -> Finding:
    """plan -> acceptance, verdict, submission -> close -> candidate -> evaluation -> decision."""
    broken = next(_broken_references(signed), None)
    if broken is not None:
        return "fail", broken
    return "pass", "every record names the one that it rests on"


def _broken_references(signed: SignedEvidence) -> Iterator[str]:
    report, attempt, plan = signed.report, signed.attempt, signed.attempt.plan
    if plan.record.membership_digest != attempt.membership.digest:
        yield "the plan names another membership than the pinned one"
    if plan.record.membership_number != attempt.membership.record.number:
        yield "the plan names another membership number than the pinned one"
    if plan.record.federation != attempt.membership.record.federation:
        yield "the plan is of another federation than the pinned membership"
    governs_to = signed.newest.end_of(attempt.membership.digest)
    if plan.record.feed_number <= attempt.membership.record.after_feed_number or (
        governs_to is not None and plan.record.feed_number > governs_to
    ):
        yield "the plan lies outside of what its membership governs of the feed"
    bound = [report, attempt.close, attempt.candidate, attempt.decision, attempt.abort]
    for verified in bound:
        fault = binding_fault(verified.record, plan) if verified is not None else None
        if verified is not None and fault is not None:
            yield f"the {verified.record.kind} belongs to another plan ({fault})"
    candidate, close, decision = attempt.candidate, attempt.close, attempt.decision
    if candidate and (close is None or candidate.record.close_digest != close.digest):
        yield "the candidate names another close record"
    if decision and (candidate is None or decision.record.candidate_digest != candidate.digest):
        yield "the decision names another candidate"
    for silo, own in attempt.silos.items():
        named = own.evaluation.record.candidate_digest if own.evaluation else None
        if named is not None and (candidate is None or named != candidate.digest):
            yield f"the evaluation of {silo} is of another candidate"
