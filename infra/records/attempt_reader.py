"""What the coordinator has signed about one attempt, read by silo and coordinator alike."""

from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.membership_chain import CoordinatorTrust
from data_contracts.protocol.records import (
    Acceptance,
    Candidate,
    Close,
    ContributionRequest,
    Countersignature,
    CountersignedClose,
    Decision,
    Evaluation,
    MaskKeys,
    MaskRoster,
    Refusal,
    RevealedShares,
    RoundPlan,
    RoundRecord,
    SealedShares,
    ShareBook,
    SiloRecord,
    Submission,
    Verdict,
)
from infra.records.record_store import AttemptReading, read_records
from infra.records.seen import SeenEnvelopes
from infra.storage.object_store import Bucket

SILO_TYPES: tuple[type[SiloRecord], ...] = (
    Acceptance,
    Refusal,
    Verdict,
    MaskKeys,
    SealedShares,
    Submission,
    Countersignature,
    RevealedShares,
    Evaluation,
)
COORDINATOR_TYPES: tuple[type[RoundRecord], ...] = (
    MaskRoster,
    ShareBook,
    Close,
    CountersignedClose,
    Candidate,
    Decision,
    ContributionRequest,
)


def read_coordinator_records(
    plans: Bucket, plan: Verified[RoundPlan], trust: CoordinatorTrust, seen: SeenEnvelopes
) -> AttemptReading:
    """Close, candidate, decision and contribution request on a plan, as far as they count.

    After a revocation those that the membership names count, and the candidate that its decision
    names: beside them there may be others that the thief signed.
    """
    round_id, only = attempt_of(plan), trust.only
    if only:
        named = read_records(
            plans,
            round_id,
            {Decision: trust.keys},
            lambda v: v.digest in (trust.only or ()),
            seen,
            only,
        ).found(Decision)
        only = only | ({named.record.candidate_digest} if named else set())
    return read_records(
        plans,
        round_id,
        dict.fromkeys(COORDINATOR_TYPES, trust.keys),
        lambda verified: only is None or verified.digest in only,
        seen,
        only or (),
    )
