"""What the next round of a run starts from: what its last published round left.

The newest plan of a run says what its round started from, and with its decision what the next one
starts from, so this costs the same however long the feed is.
"""

from dataclasses import dataclass

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import newest_attempt, own_records, plan_before
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import Candidate, Decision, RoundPlan
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.records.record_store import AttemptReading, RoundRecordT


@dataclass(frozen=True)
class StartingPoint:
    """What a round starts from: what the last published round left; all None at first.

    `earlier` is the adapter which that round itself started from, `merge` how it was merged.
    """

    adapter: ArtifactRef | None = None
    residual: ArtifactRef | None = None
    server_state: ArtifactRef | None = None
    earlier: ArtifactRef | None = None
    merge: MergeSpec | None = None


def starting_point(c: Coordinator, feed: TrustedFeed) -> StartingPoint:
    """What the run's newest attempt left to start from.

    One that was held or aborted changes nothing: what it started from is what the next starts from.
    A run that repeats rounds of another one starts from what the first of them started from.
    """
    newest = newest_attempt(c, feed)
    before = plan_before(c, feed)
    if before is None:
        return StartingPoint()
    plan = before.record
    if newest is not None and newest.abort is None:
        records = own_records(c, feed, newest.plan)
        if _finished(plan, records, Decision).outcome == "published":
            candidate = _finished(plan, records, Candidate)
            return StartingPoint(
                adapter=candidate.adapter,
                residual=candidate.residual,
                server_state=candidate.server_state,
                earlier=plan.starting_adapter,
                merge=plan.merge,
            )
    return StartingPoint(
        adapter=plan.starting_adapter,
        residual=plan.starting_residual,
        server_state=plan.server_state,
        earlier=plan.earlier_adapter,
        merge=plan.merge if plan.starting_adapter is not None else None,
    )


def _finished(
    plan: RoundPlan, records: AttemptReading, record_type: type[RoundRecordT]
) -> RoundRecordT:
    """The record of a round that is over; skipping it would start from an older adapter."""
    if (found := records.found(record_type)) is not None:
        return found.record
    raise FederationOperatorError(
        f"{record_type.kind} of round {plan.round}",
        expected="the signed record of a round that is over",
        found="none",
        action="finish that round first, or find out why storage withholds its records",
    )
