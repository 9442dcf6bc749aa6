"""The coordinator's view of its own feed: which plan comes next and where a run stands."""

from dataclasses import dataclass, replace
from typing import TypeVar

from aggregator.coordinator import Coordinator
from aggregator.planning import FeedEntry, StartingPoint, abort_of, latest_plan, plans_of_run
from data_contracts.bucket_layout import RoundId, feed_slot, round_slot
from data_contracts.envelope import Verified
from data_contracts.errors import FederationOperatorError
from data_contracts.records import (
    Abort,
    Candidate,
    Decision,
    Membership,
    RoundPlan,
    RoundRecord,
    RoundReport,
)
from infra.record_store import Found, SlotReading, read_feed, read_membership_chain, read_slot
from infra.single_writer import finish_claim

RoundRecordT = TypeVar("RoundRecordT", bound=RoundRecord)


@dataclass(frozen=True)
class FederationState:
    """Memberships from the pinned one to the newest, and the whole feed."""

    memberships: tuple[Verified[Membership], ...]
    feed: tuple[FeedEntry, ...]

    @property
    def membership(self) -> Verified[Membership]:
        """The newest membership."""
        return self.memberships[-1]

    def membership_of(self, plan: Verified[RoundPlan]) -> Verified[Membership]:
        """The membership that a plan names: its round is judged under that one to the end, so
        that adding a silo or replacing a key meanwhile changes nothing about it."""
        for membership in self.memberships:
            if membership.digest == plan.record.membership_digest:
                return membership
        raise FederationOperatorError(
            f"membership of round {plan.record.round}",
            expected=f"number {plan.record.membership_number}, which its plan names",
            found=f"numbers {self.memberships[0].record.number} to {self.membership.record.number}",
            action="put a membership that is not newer than the run into membership.json",
        )

    @property
    def coordinator_keys(self) -> frozenset[str]:
        """Coordinator keys of every membership so far: feed entries may be older than a change."""
        return frozenset(m.record.coordinator_key for m in self.memberships)


def read_federation(c: Coordinator) -> FederationState:
    """Membership chain and feed, after finishing a claim that a killed coordinator left."""
    with c.seen.lock:
        known = c.seen.memberships or [c.pinned]
        c.seen.memberships = known[:-1] + read_membership_chain(c.plans, known[-1])
        _require_own_key(c, c.seen.memberships[-1])
        state = FederationState(tuple(c.seen.memberships), ())
        _read_on(c, state.coordinator_keys)
        next_slot = feed_slot(len(c.seen.entries) + 1)
        if finish_claim(c.plans, next_slot, (RoundPlan, Abort), state.coordinator_keys):
            _read_on(c, state.coordinator_keys)
        return replace(state, feed=tuple(c.seen.entries))


def _read_on(c: Coordinator, keys: frozenset[str]) -> None:
    """Append what the feed holds beyond the entries this process has seen."""
    entries = c.seen.entries
    last = entries[-1].digest if entries else None
    entries += read_feed(c.plans, len(entries) + 1, keys, last)


def next_round(c: Coordinator, state: FederationState) -> int:
    """The unfinished round of the run, else the one after the last; an aborted one comes again."""
    plan = latest_plan(state.feed, c.settings.run)
    if plan is None:
        return 1
    aborted = abort_of(state.feed, plan) is not None
    finished = read_report(c, plan) is not None
    return plan.record.round + (1 if finished and not aborted else 0)


def decided_rounds(c: Coordinator, state: FederationState) -> tuple[Verified[Decision], ...]:
    """Every decision of the run, in the order of the feed."""
    decisions = []
    for plan in plans_of_run(state.feed, c.settings.run):
        reading = _read_of(c, state, plan, Decision)
        if isinstance(reading, Found):
            decisions.append(reading.verified)
    return tuple(decisions)


def starting_point(c: Coordinator, state: FederationState, round_number: int) -> StartingPoint:
    """What the last round published in this run before `round_number` left to start from.

    A held round changes nothing: what it started from is what the next one starts from.
    """
    published: Verified[RoundPlan] | None = None
    for plan in plans_of_run(state.feed, c.settings.run):
        if plan.record.round < round_number and abort_of(state.feed, plan) is None:
            decision = _finished(plan, _read_of(c, state, plan, Decision), Decision.kind)
            published = plan if decision.outcome == "published" else published
    if published is None:
        return StartingPoint()
    candidate = _finished(published, _read_of(c, state, published, Candidate), Candidate.kind)
    return StartingPoint(
        adapter=candidate.adapter,
        residual=candidate.residual,
        server_state=candidate.server_state,
        earlier=published.record.starting_adapter,
        merge=published.record.merge,
    )


def read_report(c: Coordinator, plan: Verified[RoundPlan]) -> Verified[RoundReport] | None:
    """The signed report of a plan's attempt, if there is one."""
    slot = round_slot(id_of(plan.record), RoundReport.kind)
    reading = read_slot(c.plans, slot, RoundReport, own_keys(c))
    return reading.verified if isinstance(reading, Found) else None


def own_keys(c: Coordinator) -> frozenset[str]:
    """Every coordinator key so far: records of earlier rounds may be older than a change of key."""
    past = {membership.record.coordinator_key for membership in c.seen.memberships}
    return frozenset(past | {c.key.public_key_hex})


def id_of(plan: RoundPlan) -> RoundId:
    """The attempt that a plan opens."""
    return RoundId(plan.run, plan.round, plan.attempt)


def _read_of(
    c: Coordinator,
    state: FederationState,
    plan: Verified[RoundPlan],
    record_type: type[RoundRecordT],
) -> SlotReading[RoundRecordT]:
    """The coordinator's record of one kind on a plan."""
    slot = round_slot(id_of(plan.record), record_type.kind)
    return read_slot(
        c.plans,
        slot,
        record_type,
        state.coordinator_keys,
        belongs=lambda record: record.plan_digest == plan.digest,
    )


def _finished(
    plan: Verified[RoundPlan], reading: SlotReading[RoundRecordT], kind: str
) -> RoundRecordT:
    """The record of a round that is over; skipping it would start from an older adapter."""
    if isinstance(reading, Found):
        return reading.verified.record
    raise FederationOperatorError(
        f"{kind} of round {plan.record.round}",
        expected="the signed record of a round that is over",
        found=type(reading).__name__.lower(),
        action="finish that round first, or find out why storage withholds its records",
    )


def _require_own_key(c: Coordinator, newest: Verified[Membership]) -> None:
    if newest.record.coordinator_key != c.key.public_key_hex:
        raise FederationOperatorError(
            "coordinator key",
            expected=f"the key that membership {newest.record.number} names",
            found="another key",
            action="use the current coordinator key; an older one has been replaced",
        )
