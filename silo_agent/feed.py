"""The silo's view of the plan feed: verified, gap-free, and never older than what it has seen."""

from dataclasses import dataclass, replace
from pathlib import Path

from data_contracts.envelope import Verified, narrowed, verify
from data_contracts.errors import UntrustedInputError
from data_contracts.records import Abort, Membership, RoundPlan
from infra.clock import Clock
from infra.object_store import Bucket
from infra.record_store import read_feed, read_membership_chain
from silo_agent.marks import Marks, fell_behind, load_marks, save_marks, with_clock


@dataclass(frozen=True)
class FeedView:
    """Newest membership, newest plan of the feed and whether that plan was aborted."""

    membership: Verified[Membership]
    plan: Verified[RoundPlan] | None
    aborted: bool


def refresh_feed(home: Path, plans: Bucket, pinned: Verified[Membership], clock: Clock) -> FeedView:
    """Read membership and feed, check them against the marks, raise the marks."""
    marks = with_clock(load_marks(home), clock.now())
    chain = read_membership_chain(plans, pinned)
    newest = chain[-1]
    _require_not_older(marks, newest)
    if newest.record.expires_at < clock.now():
        raise UntrustedInputError(
            "membership",
            expected="a membership that has not expired",
            found=f"number {newest.record.number}, expired {newest.record.expires_at}",
            action="ask the federation operator for a renewed membership",
            reason="membership.expired",
        )
    entries = _entries_since_mark(plans, marks, chain)
    plan, aborted = _newest_plan(entries, newest.record.coordinator_key)
    if entries:
        marks = replace(
            marks,
            feed_number=entries[-1].record.feed_number,
            feed_digest=entries[-1].digest,
        )
    marks = replace(marks, membership_number=newest.record.number, membership_digest=newest.digest)
    save_marks(home, marks)
    return FeedView(newest, plan, aborted)


def _require_not_older(marks: Marks, newest: Verified[Membership]) -> None:
    number = newest.record.number
    if number < marks.membership_number:
        raise fell_behind("membership", marks.membership_number, number)
    if number == marks.membership_number and newest.digest != marks.membership_digest:
        raise fell_behind("membership (another version of it)", marks.membership_number, number)


def _entries_since_mark(
    plans: Bucket, marks: Marks, chain: list[Verified[Membership]]
) -> list[Verified[RoundPlan | Abort]]:
    """Feed entries from the plan that is in force at the mark; the mark itself must be there."""
    keys = {membership.record.coordinator_key for membership in chain}
    first = max(1, marks.feed_number - 1)
    entries = read_feed(plans, first, keys)
    if marks.feed_number:
        seen = {entry.record.feed_number: entry.digest for entry in entries}
        if seen.get(marks.feed_number) != marks.feed_digest:
            raise fell_behind("plan feed", marks.feed_number, max(seen, default=0))
    return entries


def _newest_plan(
    entries: list[Verified[RoundPlan | Abort]], coordinator_key: str
) -> tuple[Verified[RoundPlan] | None, bool]:
    """Newest plan, verified again under today's coordinator key, and whether an abort follows."""
    for position in range(len(entries) - 1, -1, -1):
        entry = entries[position]
        if narrowed(entry, RoundPlan) is not None:
            plan = verify(entry.envelope, RoundPlan, {coordinator_key})
            return plan, any(_aborts(later, plan) for later in entries[position + 1 :])
    return None, False


def _aborts(entry: Verified[RoundPlan | Abort], plan: Verified[RoundPlan]) -> bool:
    abort = narrowed(entry, Abort)
    return abort is not None and abort.record.plan_digest == plan.digest
