"""The silo's view of memberships and plan feed: verified, gap-free, and never older than seen."""

import logging
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

from data_contracts.dataset.contract.agreement import Parties
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.membership_chain import CoordinatorTrust
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.trusted_feed import FeedEntry, TrustedFeed
from silo_agent.federation.marks import Seen, remember_clock
from silo_agent.silo import Silo

log = logging.getLogger("silo-agent")


@dataclass(frozen=True)
class FeedView:
    """The feed as of one poll, and the newest plan in it, if there is one.

    `goes_back`: its run had come as far before.
    """

    feed: TrustedFeed
    plan: Verified[RoundPlan] | None
    aborted: bool
    goes_back: bool = False

    @property
    def newest(self) -> Membership:
        """The newest membership."""
        return self.feed.membership.record

    def membership_of(self, plan: Verified[RoundPlan]) -> Membership:
        """The membership that the plan's attempt is judged by."""
        return self.feed.membership_of(plan).record

    def coordinator(self, plan: Verified[RoundPlan]) -> CoordinatorTrust:
        """What of the coordinator counts on a plan."""
        return self.feed.coordinator_trust(plan)

    def parties(self, silo: str) -> Parties:
        """Who signs the silo's data contract."""
        federation = self.newest.federation
        return Parties(federation, silo, self.feed.silo_keys(silo), self.feed.contract_keys())

    def ever(self, silo: str) -> Parties:
        """As `parties`, with keys that were revoked since: for what is past."""
        keys = (m.record.key_of(silo) for m in self.feed.memberships)
        own = frozenset(key for key in keys if key is not None)
        return Parties(self.newest.federation, silo, own, self.feed.coordinator_keys())


def refresh_feed(silo: Silo) -> FeedView:
    """Read memberships and feed; raises when the clock went back or the newest has expired."""
    now = silo.clock.now()
    feed = silo.feed.refresh()
    remember_clock(silo.config.home, now, newest_entry(feed))
    feed.require_current(now)
    _tell_before_expiry(feed.membership.record, now)
    attempt = feed.attempt
    if attempt is None:
        return FeedView(feed, None, aborted=False)
    aborted = attempt.abort is not None
    return FeedView(feed, attempt.plan, aborted=aborted, goes_back=attempt.goes_back)


def newest_entry(feed: TrustedFeed) -> Seen:
    """The newest entry of the feed, as a mark of the clock names it."""
    attempt = feed.attempt
    entries: list[Verified[FeedEntry]] = [*feed.erasures.all]
    if attempt is not None:
        entries.append(attempt.abort or attempt.plan)
    signed = {entry.record.feed_number: entry.record.issued_at for entry in entries}
    return Seen(feed.head.number, signed[max(signed)] if signed else None)


def _tell_before_expiry(newest: Membership, now: datetime) -> None:
    """Once a day in the last weeks: the operator needs a root key for it, which is offline."""
    if newest.expires_soon(now):
        _say_once(now.date(), newest.number, newest.expires_at)


@lru_cache(maxsize=4)
def _say_once(today: date, number: int, expires_at: datetime) -> None:  # noqa: ARG001
    log.warning(
        "membership %d expires on %s: ask the federation operator to renew it with "
        "`consortia federation renew`; after that no plan is followed",
        number,
        expires_at.date(),
    )
