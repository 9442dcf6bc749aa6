"""Why there is nothing more to wait for from a silo, in the words that the Prefect page shows."""

from datetime import datetime

from aggregator.attempt import SiloRecords
from aggregator.decisions.stage import Stage
from aggregator.evidence.reader import read_silo
from aggregator.feed.reading import abort_of, is_fed
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, Decision, MaskRoster, RoundPlan, RoundRecord
from flows.round.recent_feed import RecentFeed

MOVED_ON: dict[Stage, tuple[type[RoundRecord], str]] = {
    Stage.RELAYING: (MaskRoster, "left out of the mask keys"),
    Stage.CLOSING: (Close, "the round was closed without it"),
    Stage.DECIDING: (Decision, "the round was decided without it"),
}
"""By what is waited for, the coordinator's record after which nobody waits, as `round go-on` signs
it, and what is said then."""


def silo_outcome(
    recent: RecentFeed, plan: Verified[RoundPlan], silo: str, goal: Stage
) -> str | None:
    """Why there is nothing more to wait for from this silo, or None."""
    c, feed = recent.c, recent.read()
    if not is_fed(c, feed, plan):
        return "the plan is void"
    if abort_of(c, feed, plan) is not None or feed.coordinator_trust(plan).only is not None:
        return "attempt aborted"
    records = read_silo(c, feed, plan, silo)
    if records.is_revoked:
        return "its key was revoked"
    if records.equivocated:
        return "two different records in one slot"
    if records.refusal is not None:
        return f"refused by {records.refusal.record.rule}"
    if records.verdict is not None and not records.verdict.record.passed:
        return "its data contract failed"
    said = _said(plan.record, records, goal, c.clock.now())
    signed, moved_on = MOVED_ON[goal]
    if said is None and recent.signed(plan).found(signed) is not None:
        return moved_on
    return said


def _said(plan: RoundPlan, records: SiloRecords, goal: Stage, now: datetime) -> str | None:
    if goal is Stage.RELAYING:
        # Its keys are the first word, after the check of the data; what follows comes at once.
        if records.mask_keys is not None:
            return "gave its mask keys"
        late = plan.masking is None or now >= plan.masking.keys_by
        return "no mask keys by the deadline" if late else None
    if goal is Stage.CLOSING:
        if records.submission is not None:
            return "submitted"
        return "no submission by the deadline" if now >= plan.submit_by else None
    if records.verdict is None:
        return "did not take part"
    if records.evaluation is not None:
        return "evaluated"
    return "no evaluation by the deadline" if now >= plan.evaluate_by else None
