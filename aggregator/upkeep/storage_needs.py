"""What the federation's records need of its storage, and until when; read from feed and records.

- Members, feed and the coordinator's own records are needed for ever: by silos that join late or
  come back, and to find what every round did.
- An attempt's evidence in the inboxes, and what its merge started from, are needed until its
  retention has ended, counted from the latest moment at which anything of it can have been locked:
  until then contributions can be measured and the merge made again.
- The newest attempt of every run, and what the next round starts from, are needed while they are.
- A coalition's adapter is needed until nobody may answer any more.

Reports on disk have their evidence in them and need nothing of this.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import own_records, read_report
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified, narrowed
from data_contracts.protocol.records import Candidate, Close, ContributionRequest, RoundPlan
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.records.record_store import AttemptReading

NO_END = datetime.max.replace(tzinfo=UTC)
"""Until when something is needed whose need has no end yet."""
GRACE = timedelta(days=7)
"""So long nothing goes that no record names: its record may be on the way."""
CLOCK_SLACK = timedelta(days=1)


@dataclass
class StorageNeeds:
    """Until when what is needed: by attempt (`RoundId.path`), and by digest of a blob.

    `plan_blobs` are the coordinator's, `held_blobs` those that silos submitted, each by the bytes
    that lie there. What no record
    names may go only if it was last written before `unnamed_before`, and not while a round
    `is_under_way`.
    """

    unnamed_before: datetime
    is_under_way: bool
    attempts: dict[str, datetime] = field(default_factory=dict)
    plan_blobs: dict[str, datetime] = field(default_factory=dict)
    held_blobs: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class FedPlan:
    """A plan of the feed; `succeeded_at` is when the next plan of its run was made, if one was."""

    plan: Verified[RoundPlan]
    succeeded_at: datetime | None

    @property
    def needed_until(self) -> datetime:
        """When its retention has ended for sure; no end yet for the newest of a run.

        Nothing of it was locked later than its deadlines or, if it took longer, the next plan.
        """
        if self.succeeded_at is None:
            return NO_END
        plan = self.plan.record
        start = max(plan.evaluate_by, self.succeeded_at) + CLOCK_SLACK
        return start + timedelta(days=plan.retention.days)


def read_needs(c: Coordinator, feed: TrustedFeed) -> StorageNeeds:
    """Goes through the whole feed, and reads the records of attempts that are still needed."""
    plans, now = list(_plans(c, feed)), c.clock.now()
    under_way = bool(plans) and read_report(c, feed, plans[0].plan) is None
    needs = StorageNeeds(_unnamed_before(plans, now), under_way)
    for fed in plans:
        needs.attempts[attempt_of(fed.plan).path] = fed.needed_until
        if fed.needed_until > now:
            _add_blobs(needs, fed, own_records(c, feed, fed.plan))
    return needs


def _plans(c: Coordinator, feed: TrustedFeed) -> Iterator[FedPlan]:
    """Every plan of the feed, newest first."""
    next_of_run: dict[str, datetime] = {}
    for entry in c.feed.entries_back(feed):
        plan = narrowed(entry, RoundPlan)
        if plan is not None:
            yield FedPlan(plan, next_of_run.get(plan.record.run))
            next_of_run[plan.record.run] = plan.record.issued_at


def _unnamed_before(plans: list[FedPlan], now: datetime) -> datetime:
    """What came since the first attempt at a run's newest round may be named in another one."""
    newest = {f.plan.record.run: f.plan.record.round for f in plans if f.succeeded_at is None}
    records = (fed.plan.record for fed in plans)
    begun = (plan.issued_at for plan in records if newest[plan.run] == plan.round)
    return min([now - GRACE, *begun])


def _add_blobs(needs: StorageNeeds, fed: FedPlan, records: AttemptReading) -> None:
    until = fed.needed_until
    used = merged_from_and_into(fed.plan.record, records)
    _need(needs.plan_blobs, (ref.stored.digest for ref in used), until)
    if (request := records.found(ContributionRequest)) is not None:
        parts = request.record.coalitions
        refs = [ref for part in parts for ref in (part.adapter, part.residual)]
        _need(
            needs.plan_blobs, (ref.stored.digest for ref in refs if ref), request.record.answer_by
        )
    if (close := records.found(Close)) is not None:
        held = (ref.digest for ref in close.record.held if ref.kind == LOCAL_ADAPTER)
        _need(needs.held_blobs, held, until)


def merged_from_and_into(plan: RoundPlan, records: AttemptReading) -> list[ArtifactRef]:
    """The coordinator's blobs that a merge used, and those that it made."""
    refs: list[ArtifactRef | None] = [*plan.starts]
    if (candidate := records.found(Candidate)) is not None:
        made = candidate.record
        refs += [made.adapter, made.residual, made.server_state]
    return [ref for ref in refs if ref is not None]


def _need(blobs: dict[str, datetime], digests: Iterable[str], until: datetime) -> None:
    for digest in digests:
        blobs[digest] = max(until, blobs.get(digest, until))
