"""After a restore: what this silo has signed since the backup, read where it lies for good.

In order: the feed as storage shows it, this silo's own records in its inbox, whether the feed
reaches as far as they do, charges that they name and the privacy ledger does not, and the latest
instant that they name. The records go into the outbox, so that no slot gets a second one. Only then
is the home no longer one that was restored; until then nothing is signed, and a storage that does
not answer is waited for.
"""

import logging

from data_contracts.protocol.records import Verdict
from infra.backup.home_restore import caught_up, is_restored
from infra.records.feed_reach import require_feed_reaches
from silo_agent.federation.feed import newest_entry
from silo_agent.federation.marks import raise_clock
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.privacy.taking_back import take_back
from silo_agent.silo import Silo

log = logging.getLogger("silo-agent")


def catch_up(silo: Silo) -> None:
    """Do nothing unless the home was restored; raises ConsortiaError until marks and outbox are as
    high as what this silo has signed."""
    home = silo.config.home
    if not is_restored(home):
        return
    feed = silo.feed.refresh()
    own = silo.release.outbox.public_key
    keys = feed.silo_keys(silo.name) | feed.unrevoked([own])
    signed = silo.release.read_back(silo.name, keys)
    require_feed_reaches(feed, signed)
    verdicts = [record for record in signed if isinstance(record, Verdict)]
    take_back(PrivacyLedger(home), verdicts, silo.clock.now())
    latest = max((record.issued_at for record in signed), default=None)
    if latest is not None:
        raise_clock(home, latest, newest_entry(feed))
    caught_up(home)
    log.info("restored: %d records of this silo were found in storage; it goes on", len(signed))
