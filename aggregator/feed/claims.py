"""What the coordinator signs and puts: once, or what was put there before.

A record on a plan takes the key that planned it, an entry of the feed the key in force.
"""

from collections.abc import Collection
from typing import TypeVar

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import is_fed, on_plan
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.bucket_layout import attempt_of, feed_slot, round_slot
from data_contracts.protocol.envelope import Verified, narrowed, seal
from data_contracts.protocol.records import Abort, Erasure, Membership, RoundPlan, RoundReport
from data_contracts.protocol.trusted_feed import FeedEntry, TrustedFeed
from infra.records.record_store import RoundRecordT
from infra.signing_keys import SigningKey
from infra.storage.single_writer import claim_record

EntryT = TypeVar("EntryT", RoundPlan, Abort, Erasure)


def sign_on_plan(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], record: RoundRecordT
) -> Verified[RoundRecordT]:
    """Sign a record on a plan with the key that planned, and put it or find the earlier one."""
    require_fed(c, feed, plan)
    key = signing_key(c, feed.membership_of(plan).record)
    return _claimed(c, plan, seal(record, key), {key.public_key_hex})


def sign_report(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], report: RoundReport
) -> Verified[RoundReport]:
    """As `sign_on_plan`; where that key was revoked or is lost, with the one in force."""
    keys, planned = feed.report_keys(plan), feed.membership_of(plan).record.coordinator_key
    key = _own_key(c, planned) if planned in keys else None
    key = key or signing_key(c, feed.membership.record)
    return _claimed(c, plan, seal(report, key), keys)


def sign_entry(c: Coordinator, feed: TrustedFeed, record: EntryT) -> Verified[EntryT]:
    """Sign the next entry of the feed, unless another coordinator was first with one like it.

    Raises FederationOperatorError when it was first with one of the other kind.
    """

    def counts(envelope: bytes) -> Verified[FeedEntry]:
        return feed.next_entry(envelope)

    number, record_type = feed.head.number + 1, type(record)
    sealed = seal(record, signing_key(c, feed.membership.record))
    entry = Verified[FeedEntry](sealed.record, sealed.digest, sealed.envelope)
    epoch = feed.governing(number).digest
    winner = narrowed(claim_record(c.plans, feed_slot(number), entry, counts, epoch), record_type)
    if winner is None:
        raise FederationOperatorError(
            f"feed entry {number}",
            expected=f"a {record_type.kind}",
            found="another kind, written by another coordinator at this moment",
            action="run the command again; one coordinator at a time writes the feed",
        )
    return winner


def require_fed(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> None:
    """Raise FederationOperatorError for a plan that a later membership made void."""
    if not is_fed(c, feed, plan):
        raise FederationOperatorError(
            f"plan of round {plan.record.round}",
            expected="a plan that is part of the feed",
            found=f"one that membership {feed.membership.record.number} made void",
            action="start the round again; it is planned under the new membership",
        )


def signing_key(c: Coordinator, membership: Membership) -> SigningKey:
    """The coordinator's key that `membership` names; an earlier one finishes its attempt."""
    public_key = membership.coordinator_key
    if (key := _own_key(c, public_key)) is not None:
        return key
    raise FederationOperatorError(
        "coordinator key",
        expected=f"the key that membership {membership.number} names, {public_key[:16]}",
        found=f"{', '.join(key.public_key_hex[:16] for key in c.keys)} in keys/",
        action="put the current coordinator key there as keys/coordinator-key.pem; if it is lost "
        "or was stolen, revoke it with `consortia federation revoke --coordinator`",
    )


def _own_key(c: Coordinator, public_key: str) -> SigningKey | None:
    return next((key for key in c.keys if key.public_key_hex == public_key), None)


def _claimed(
    c: Coordinator,
    plan: Verified[RoundPlan],
    proposed: Verified[RoundRecordT],
    keys: Collection[str],
) -> Verified[RoundRecordT]:
    """Put the coordinator's record of one kind on a plan, or find the one that was put before."""
    slot = round_slot(attempt_of(plan), proposed.record.kind)
    return claim_record(c.plans, slot, proposed, on_plan(plan, type(proposed.record), keys))
