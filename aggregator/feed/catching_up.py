"""After a restore: how far the federation had come since the backup, read where it lies for good.

What the coordinator has signed is in storage, and claims there keep any slot from a second record.
But storage that was itself taken back in time would show free slots. So before anything is signed,
the feed has to reach as far as the coordinator's own records and those of several silos prove.
"""

import logging
from collections.abc import Iterator

from aggregator.coordinator import Coordinator
from data_contracts.protocol.records import RoundRecord, RoundReport
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.backup.home_restore import caught_up, is_restored
from infra.records.attempt_reader import COORDINATOR_TYPES, SILO_TYPES
from infra.records.feed_reach import records_beyond, require_feed_reaches
from infra.records.newest_records import newest_records

SILOS_BELIEVED = 2
"""One silo by itself could hold up a restored coordinator for good, by a word on a plan that never
was. Storage that lost a plan leaves the words of all that had answered it."""

log = logging.getLogger(__name__)


def catch_up(c: Coordinator) -> None:
    """Do nothing unless the home was restored; raises ConsortiaError until the feed in storage is
    no shorter than what was signed on it."""
    home = c.settings.home
    if not is_restored(home):
        return
    feed = c.feed.refresh()
    require_feed_reaches(feed, _own(c, feed))
    require_feed_reaches(feed, _believed(c, feed))
    caught_up(home)
    log.info("restored: the feed goes on after entry %d", feed.head.number)


def _own(c: Coordinator, feed: TrustedFeed) -> Iterator[RoundRecord]:
    types: list[type[RoundRecord]] = [*COORDINATOR_TYPES, RoundReport]
    for verified in newest_records(c.plans, types, feed.unrevoked(feed.coordinator_keys())):
        yield verified.record


def _believed(c: Coordinator, feed: TrustedFeed) -> list[RoundRecord]:
    """What silos have signed on plans that the feed does not show, where enough of them have."""
    ahead = {member.silo: _ahead(c, feed, member.silo) for member in feed.membership.record.silos}
    saying = sorted(silo for silo, records in ahead.items() if records)
    if len(saying) >= SILOS_BELIEVED:
        return [record for records in ahead.values() for record in records]
    for silo in saying:
        first = ahead[silo][0]
        log.warning(
            "silo %s has signed on round %d attempt %d of %s, which the feed does not show and no "
            "other silo knows: ask it, and whoever runs the storage",
            *(silo, first.round, first.attempt, first.run),
        )
    return []


def _ahead(c: Coordinator, feed: TrustedFeed, silo: str) -> list[RoundRecord]:
    signed = newest_records(c.inbox(silo), SILO_TYPES, feed.silo_keys(silo), silo)
    return list(records_beyond(feed, (verified.record for verified in signed)))
