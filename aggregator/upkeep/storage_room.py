"""A federation's buckets, counted and pruned: plans, every inbox that there was, and copies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import read_federation
from aggregator.upkeep.storage_needs import read_needs
from aggregator.upkeep.storage_pruning import (
    BucketKind,
    BucketNeeds,
    BucketTally,
    prune_bucket,
    tally_bucket,
)
from data_contracts.protocol.bucket_layout import inbox_bucket, ledger_bucket, plans_bucket
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.storage.bucket_contents import BucketContents, NoBucketError

Opener = Callable[[str], BucketContents]
"""A bucket of that name, with whoever's credential."""


@dataclass(frozen=True)
class StorageTally:
    """What the buckets hold, and the names of those that do not exist."""

    buckets: tuple[BucketTally, ...]
    absent: tuple[str, ...]


def storage_usage(c: Coordinator, opened: Opener) -> StorageTally:
    """What lies in every bucket, its newest versions; the right to list is enough."""
    return _each_bucket(c, opened, lambda of, by: tally_bucket(of, of.newest(), by))


def prune_storage(c: Coordinator, opened: Opener, *, is_trial: bool) -> StorageTally:
    """Remove from every bucket what no record needs, all versions; with `is_trial` only count.

    `opened` has a credential that may delete; `c` reads what is needed with its own.
    """
    return _each_bucket(c, opened, lambda of, by: prune_bucket(of, by, is_trial=is_trial))


def _each_bucket(
    c: Coordinator, opened: Opener, work: Callable[[BucketContents, BucketNeeds], BucketTally]
) -> StorageTally:
    feed = read_federation(c)
    needs = read_needs(c, feed)
    tallies, absent = list[BucketTally](), list[str]()
    for name, kind in _buckets(c.settings.federation, feed):
        try:
            tallies.append(work(opened(name), BucketNeeds(kind, needs, c.clock.now())))
        except NoBucketError:
            absent.append(name)
    return StorageTally(tuple(tallies), tuple(absent))


def _buckets(federation: str, feed: TrustedFeed) -> Iterator[tuple[str, BucketKind]]:
    """Of every silo that was ever a member: what it left stays until its retention has ended."""
    yield plans_bucket(federation), BucketKind.PLANS
    silos = {member.silo for m in feed.memberships for member in m.record.silos}
    for silo in sorted(silos):
        yield inbox_bucket(federation, silo), BucketKind.EVIDENCE
    yield ledger_bucket(federation), BucketKind.EVIDENCE
