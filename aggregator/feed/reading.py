"""The coordinator's view of its own feed: its attempts, its records on them, the next round.

What is asked of the newest attempt of a run costs the same however long the feed is.
"""

from collections.abc import Collection, Iterator

from aggregator.coordinator import Coordinator
from aggregator.feed.catching_up import catch_up
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, round_slot
from data_contracts.protocol.envelope import Verified, narrowed, verify
from data_contracts.protocol.records import Abort, CountersignedClose, RoundPlan, RoundReport
from data_contracts.protocol.trusted_feed import FedAttempt, FeedEntry, FeedPosition, TrustedFeed
from infra.records.attempt_reader import read_coordinator_records
from infra.records.record_store import (
    AttemptReading,
    Equivocation,
    Found,
    RoundRecordT,
    read_record,
)
from infra.storage.single_writer import Counts, claimed_record


def read_federation(c: Coordinator) -> TrustedFeed:
    """Membership chain and feed, after finishing a claim that a killed coordinator left.

    In a home that was restored they first have to reach as far as anybody has signed.
    """
    catch_up(c)
    return c.feed.refresh()


def newest_attempt(c: Coordinator, feed: TrustedFeed) -> FedAttempt | None:
    """The newest plan of this run, and its abort."""
    run = c.settings.run
    known = feed.attempt_of_run(run)
    if known is not None or c.feed.has_no(run):
        return known
    # A home directory that was restored, or a run that others have followed.
    found = next(attempts_back(c, feed), None)
    if found is None:
        c.feed.adopt_none(run)
    else:
        c.feed.adopt(found)
    return found


def plan_before(c: Coordinator, feed: TrustedFeed) -> Verified[RoundPlan] | None:
    """What the run's next plan goes on from: its newest plan, or where the run repeats rounds and
    has no plan yet, the first that it repeats; None at the very beginning."""
    newest = newest_attempt(c, feed)
    return newest.plan if newest is not None else repeated_plan(c, feed, next_round(c, feed))


def repeated_plan(
    c: Coordinator, feed: TrustedFeed, round_number: int
) -> Verified[RoundPlan] | None:
    """The plan of another run that a round of this one repeats, where an erasure asks for it."""
    erasure = feed.erasures.replay_of(c.settings.run)
    entry = None if erasure is None else erasure.record.replayed_round(round_number)
    if entry is None:
        return None
    found = c.feed.entry(feed, FeedPosition(entry.feed_number, entry.plan_digest))
    if (plan := narrowed(found, RoundPlan)) is not None:
        return plan
    raise UntrustedInputError(
        f"feed entry {entry.feed_number}",
        expected="a plan, which an erasure names",
        found="another entry",
        action="find out who else holds the coordinator's key",
        rule="feed.erasures",
    )


def attempts_back(c: Coordinator, feed: TrustedFeed) -> Iterator[FedAttempt]:
    """The attempts of this run, newest first, with one read for each entry of the feed."""
    aborts: dict[str, Verified[Abort]] = {}
    for entry in c.feed.entries_back(feed):
        plan, abort = narrowed(entry, RoundPlan), narrowed(entry, Abort)
        if abort is not None:
            aborts[abort.record.plan_digest] = abort
        if plan is not None and plan.record.run == c.settings.run:
            yield FedAttempt(plan, aborts.get(plan.digest))


def fed_attempt(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> FedAttempt | None:
    """A plan of this run with its abort, as the feed has it; None for one that it has no more.

    A membership that crossed with a plan makes it void.
    """
    newest = feed.attempt_of_run(plan.record.run)
    if newest is not None and newest.plan.digest == plan.digest:
        return newest
    for attempt in attempts_back(c, feed):
        if attempt.plan.record.feed_number <= plan.record.feed_number:
            return attempt if attempt.plan.digest == plan.digest else None
    return None


def is_fed(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> bool:
    """Whether a plan is still part of the feed."""
    return fed_attempt(c, feed, plan) is not None


def abort_of(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]
) -> Verified[Abort] | None:
    """The abort that ends this plan's attempt, if the feed has one."""
    attempt = fed_attempt(c, feed, plan)
    return attempt.abort if attempt is not None else None


def entry_at(c: Coordinator, feed: TrustedFeed, number: int) -> Verified[FeedEntry] | None:
    """The entry of that number, found by going back from the newest; None where there is none."""
    for entry in c.feed.entries_back(feed):
        if entry.record.feed_number <= number:
            return entry if entry.record.feed_number == number else None
    return None


def next_round(c: Coordinator, feed: TrustedFeed) -> int:
    """The unfinished round of the run, else the one after the last; an aborted one comes again,
    unless it is one in confidential mode that was aborted after shares may have been revealed.
    A run that repeats rounds of another begins with the first of them."""
    newest = newest_attempt(c, feed)
    erasure = feed.erasures.replay_of(c.settings.run)
    if newest is None:
        return 1 if erasure is None else erasure.record.replayed[0].round
    if newest.abort is None:
        is_over = read_report(c, feed, newest.plan) is not None
    else:
        is_over = is_spent(c, feed, newest)
    number = newest.plan.record.round
    if not is_over:
        return number
    return number + 1 if erasure is None else erasure.record.round_after(number)


def is_spent(c: Coordinator, feed: TrustedFeed, attempt: FedAttempt) -> bool:
    """Whether silos may have revealed shares in an attempt: they open no other sum of its round."""
    if attempt.plan.record.masking is None:
        return False
    return own_records(c, feed, attempt.plan).found(CountersignedClose) is not None


def own_records(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> AttemptReading:
    """The coordinator's own records on a plan; two valid ones of a kind halt the round."""
    reading = read_coordinator_records(c.plans, plan, feed.coordinator_trust(plan), c.seen)
    for record_type, found in reading.equivocations():
        raise UntrustedInputError(
            f"{record_type.kind} of round {plan.record.round}",
            expected="one record",
            found=f"{len(found.digests)} signed by the coordinator",
            action="stop every coordinator and find out who else holds its key",
            rule="coordinator.equivocation",
        )
    return reading


def read_report(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]
) -> Verified[RoundReport] | None:
    """The signed report of a plan's attempt, if there is one."""
    round_id, keys = attempt_of(plan), feed.report_keys(plan)
    reading = read_record(c.plans, round_id, RoundReport, keys)
    if isinstance(reading, Equivocation):
        # A second one changes nothing: the report follows from the evidence, and one was claimed.
        slot = round_slot(round_id, RoundReport.kind)
        return claimed_record(c.plans, slot, on_plan(plan, RoundReport, keys))
    return reading.verified if isinstance(reading, Found) else None


def on_plan(
    plan: Verified[RoundPlan], record_type: type[RoundRecordT], keys: Collection[str]
) -> Counts[RoundRecordT]:
    """Counts on this very plan, signed by one of `keys`: a genuine claim of another attempt that
    somebody copied here does not."""

    def counts(envelope: bytes) -> Verified[RoundRecordT]:
        verified = verify(envelope, record_type, keys)
        if verified.record.plan_digest != plan.digest:
            raise UntrustedInputError(
                f"claim of a {record_type.kind}",
                expected=f"one on plan {plan.digest[:12]}",
                found="one on another",
                action="none: it is passed over",
                rule="claim.plan",
            )
        return verified

    return counts
