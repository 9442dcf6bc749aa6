"""Why there is nothing more to wait for from a silo, in the words that the Prefect page shows."""

from aggregator.attempt import SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.decisions.stage import Stage
from aggregator.evidence.reader import read_silo
from aggregator.feed.reading import abort_of, is_fed
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed


def silo_outcome(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], silo: str, goal: Stage
) -> str | None:
    """Why there is nothing more to wait for from this silo, or None."""
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
    if goal is Stage.RELAYING:
        return _masks_outcome(c, plan.record, records)
    if goal is Stage.CLOSING:
        late = c.clock.now() >= plan.record.submit_by
        answered = records.submission is not None
        return "submitted" if answered else "no submission by the deadline" if late else None
    late = c.clock.now() >= plan.record.evaluate_by
    if records.verdict is None:
        return "did not take part"
    answered = records.evaluation is not None
    return "evaluated" if answered else "no evaluation by the deadline" if late else None


def _masks_outcome(c: Coordinator, plan: RoundPlan, records: SiloRecords) -> str | None:
    """Its keys are the first word, after the check of the data; those that follow come at once."""
    if records.mask_keys is not None:
        return "gave its mask keys"
    late = plan.masking is None or c.clock.now() >= plan.masking.keys_by
    return "no mask keys by the deadline" if late else None
