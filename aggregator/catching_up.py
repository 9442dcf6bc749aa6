"""After a restore: how far the federation had come since the backup, read where it lies for good.

What the coordinator has signed is in storage, and claims there keep any slot from a second record.
But storage that was itself taken back in time would show free slots. So before anything is signed,
the feed has to reach as far as the coordinator's own records and those of every silo prove.
"""

import logging
from collections.abc import Iterator

from aggregator.coordinator import Coordinator
from data_contracts.records import RoundRecord, RoundReport
from data_contracts.trusted_feed import TrustedFeed
from infra.attempt_reader import COORDINATOR_TYPES, SILO_TYPES
from infra.feed_marks import keys_that_count, require_feed_reaches
from infra.home_restore import caught_up, is_restored
from infra.newest_records import newest_records

log = logging.getLogger(__name__)


def catch_up(c: Coordinator) -> None:
    """Do nothing unless the home was restored; raises ConsortiaError until the feed in storage is
    no shorter than what was signed on it."""
    home = c.settings.home
    if not is_restored(home):
        return
    feed = c.feed.refresh()
    require_feed_reaches(feed, _signed(c, feed))
    caught_up(home)
    log.info("restored: the feed goes on after entry %d", feed.head.number)


def _signed(c: Coordinator, feed: TrustedFeed) -> Iterator[RoundRecord]:
    types: list[type[RoundRecord]] = [*COORDINATOR_TYPES, RoundReport]
    for verified in newest_records(c.plans, types, keys_that_count(feed, feed.coordinator_keys())):
        yield verified.record
    for member in feed.membership.record.silos:
        ever = (m.record.key_of(member.silo) for m in feed.memberships)
        keys = keys_that_count(feed, ever)
        for signed in newest_records(c.inbox(member.silo), SILO_TYPES, keys, member.silo):
            yield signed.record
