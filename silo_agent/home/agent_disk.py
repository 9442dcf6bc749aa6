"""What the agent knows of its own disk, and the pruning that it does between two steps."""

import logging
from functools import lru_cache

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.disk.own_files import Removed
from silo_agent.home.disk_pruning import SiloDisk, prune_home
from silo_agent.home.disk_rule import SeenRounds, newest_plans
from silo_agent.silo import Silo

log = logging.getLogger("silo-agent")


def silo_disk(silo: Silo, feed: TrustedFeed) -> SiloDisk:
    """The agent's disk as the feed and its outbox show it."""
    return SiloDisk(silo.config.home, _seen(silo, feed), silo.config.disk, silo.clock.now())


def prune_between_steps(silo: Silo, feed: TrustedFeed) -> Removed:
    """Prune; what the system refuses is said once, and ends no agent."""
    removed = prune_home(silo_disk(silo, feed))
    for refusal in removed.refused:
        _say_once(refusal)
    if removed.usage.size:
        log.info("removed %s bytes that no round needs", f"{removed.usage.size:,}")
    return removed


def _seen(silo: Silo, feed: TrustedFeed) -> SeenRounds:
    attempt = feed.attempt
    if attempt is None:
        return SeenRounds(newest_plans(feed), None)
    try:
        done = silo.release.outbox.released(attempt_of(attempt.plan))
    except UntrustedInputError:
        # Of a key that was replaced since: nothing that the attempt may need goes.
        return SeenRounds(newest_plans(feed), attempt.plan.record, has_submitted=True)
    return SeenRounds(
        newest_plans(feed),
        attempt.plan.record,
        has_submitted=done.submission is not None,
        has_evaluated=done.evaluation is not None,
        may_be_asked=done.may_be_asked,
    )


@lru_cache(maxsize=64)
def _say_once(refusal: str) -> None:
    log.warning("cannot be removed, although no round needs it: %s", refusal)
