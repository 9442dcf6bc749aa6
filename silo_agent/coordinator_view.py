"""What the coordinator has signed about one attempt, as a silo sees it in the plans bucket."""

from dataclasses import dataclass
from typing import TypeVar

from data_contracts.bucket_layout import RoundId, round_slot
from data_contracts.envelope import Verified
from data_contracts.errors import UntrustedInputError
from data_contracts.records import (
    Candidate,
    Close,
    ContributionRequest,
    Decision,
    RoundPlan,
    RoundRecord,
)
from infra.object_store import Bucket
from infra.record_store import Absent, Equivocation, read_slot

CoordinatorRecordT = TypeVar("CoordinatorRecordT", bound=RoundRecord)


@dataclass(frozen=True)
class CoordinatorView:
    """Close, candidate and decision, each bound to the plan and to the one before it."""

    close: Verified[Close] | None
    candidate: Verified[Candidate] | None
    decision: Verified[Decision] | None


def read_coordinator(
    plans: Bucket, plan: Verified[RoundPlan], coordinator_key: str
) -> CoordinatorView:
    """Read and verify the coordinator's records; two valid ones in a slot halt this silo."""
    close = _read(plans, plan, Close, coordinator_key)
    candidate = _read(plans, plan, Candidate, coordinator_key)
    decision = _read(plans, plan, Decision, coordinator_key)
    if candidate and (close is None or candidate.record.close_digest != close.digest):
        raise _unbound("candidate", "the close record")
    if decision and (candidate is None or decision.record.candidate_digest != candidate.digest):
        raise _unbound("decision", "the candidate")
    return CoordinatorView(close, candidate, decision)


def read_request(
    plans: Bucket, plan: Verified[RoundPlan], coordinator_key: str
) -> Verified[ContributionRequest] | None:
    """A request to measure coalitions of exactly the silos that the close record admits."""
    request = _read(plans, plan, ContributionRequest, coordinator_key)
    if request is None:
        return None
    close = _read(plans, plan, Close, coordinator_key)
    if close is None or request.record.close_digest != close.digest:
        raise _unbound("contribution request", "the close record")
    if set(request.record.silos) != {admitted.silo for admitted in close.record.admitted}:
        raise _unbound("contribution request", "the admitted silos")
    return request


def _read(
    plans: Bucket,
    plan: Verified[RoundPlan],
    record_type: type[CoordinatorRecordT],
    coordinator_key: str,
) -> Verified[CoordinatorRecordT] | None:
    record = plan.record
    slot = round_slot(RoundId(record.run, record.round, record.attempt), record_type.kind)
    reading = read_slot(
        plans,
        slot,
        record_type,
        {coordinator_key},
        belongs=lambda record: record.plan_digest == plan.digest,
    )
    if isinstance(reading, Absent):
        return None
    if isinstance(reading, Equivocation):
        raise UntrustedInputError(
            f"{record_type.kind} of round {record.round}",
            expected="one record signed by the coordinator",
            found=f"{len(reading.digests)} different ones",
            action="stop taking part and ask the federation operator; the coordinator's key may "
            "be in use by someone else",
            reason="coordinator.equivocation",
        )
    return reading.verified


def _unbound(kind: str, to: str) -> UntrustedInputError:
    return UntrustedInputError(
        kind,
        expected=f"a record bound to {to} of this attempt",
        found="a record bound to another",
        action="ask the federation operator whether storage was tampered with",
        reason="coordinator.unbound",
    )
