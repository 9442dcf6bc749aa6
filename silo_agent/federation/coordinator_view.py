"""What the coordinator has signed about one attempt, as a silo sees it in the plans bucket."""

from dataclasses import dataclass

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Candidate,
    Close,
    ContributionRequest,
    CountersignedClose,
    Decision,
    MaskRoster,
    RoundPlan,
    ShareBook,
)
from infra.records.attempt_reader import read_coordinator_records
from silo_agent.federation.feed import FeedView
from silo_agent.silo import Silo


@dataclass(frozen=True)
class CoordinatorView:
    """Close, candidate, decision and request, each bound to the plan and to what it rests on; and
    what the coordinator passes on of other silos in confidential mode."""

    close: Verified[Close] | None
    candidate: Verified[Candidate] | None
    decision: Verified[Decision] | None
    request: Verified[ContributionRequest] | None
    roster: Verified[MaskRoster] | None = None
    book: Verified[ShareBook] | None = None
    countersigned: Verified[CountersignedClose] | None = None


def read_coordinator(silo: Silo, plan: Verified[RoundPlan], feed: FeedView) -> CoordinatorView:
    """Read and verify the coordinator's records; two valid ones in a slot halt this silo."""
    reading = read_coordinator_records(silo.plans, plan, feed.coordinator(plan), silo.seen)
    for record_type, found in reading.equivocations():
        raise UntrustedInputError(
            f"{record_type.kind} of round {plan.record.round}",
            expected="one record signed by the coordinator",
            found=f"{len(found.digests)} different ones",
            action="stop taking part and ask the federation operator; the coordinator's key may "
            "be in use by someone else",
            rule="coordinator.equivocation",
        )
    close, candidate = reading.found(Close), reading.found(Candidate)
    decision, request = reading.found(Decision), reading.found(ContributionRequest)
    if candidate and (close is None or candidate.record.close_digest != close.digest):
        raise _unbound("candidate", "the close record")
    if decision and (candidate is None or decision.record.candidate_digest != candidate.digest):
        raise _unbound("decision", "the candidate")
    _require_bound(request, close)
    if request is not None and plan.record.masking is not None:
        raise _unbound("contribution request", "a plan in auditable mode")
    roster, book = reading.found(MaskRoster), reading.found(ShareBook)
    if book and (roster is None or book.record.roster_digest != roster.digest):
        raise _unbound("share book", "the roster of mask keys")
    countersigned = reading.found(CountersignedClose)
    if countersigned and (close is None or countersigned.record.close_digest != close.digest):
        raise _unbound("list of countersignatures", "the close record")
    return CoordinatorView(close, candidate, decision, request, roster, book, countersigned)


def _require_bound(
    request: Verified[ContributionRequest] | None, close: Verified[Close] | None
) -> None:
    """A request is about coalitions of exactly the silos that the close record admits."""
    if request is None:
        return
    if close is None or request.record.close_digest != close.digest:
        raise _unbound("contribution request", "the close record")
    if set(request.record.silos) != {admitted.silo for admitted in close.record.admitted}:
        raise _unbound("contribution request", "the admitted silos")


def _unbound(kind: str, to: str) -> UntrustedInputError:
    return UntrustedInputError(
        kind,
        expected=f"a record bound to {to} of this attempt",
        found="a record bound to another",
        action="ask the federation operator whether storage was tampered with",
        rule="coordinator.unbound",
    )
