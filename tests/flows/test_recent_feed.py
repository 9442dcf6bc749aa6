"""Whoever follows silos in one flow run shares one reading of the feed."""

from concurrent.futures import ThreadPoolExecutor

from aggregator.federated_round import abort_round
from aggregator.feed.reading import abort_of, read_federation
from data_contracts.protocol.bucket_layout import plans_bucket
from flows.round.recent_feed import RecentFeed
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour


def reads(federation: SimulatedFederation, feed: RecentFeed, followers: int) -> int:
    """Listings and reads of the plans bucket while so many ask at once."""
    asked: list[str] = []
    plans = federation.bucket(plans_bucket(FEDERATION))
    plans.before = lambda operation, _key: asked.append(operation)
    with ThreadPoolExecutor(followers) as pool:
        list(pool.map(lambda _: feed.read(), range(followers)))
    plans.before = None
    return len(asked)


def test_a_poll_of_forty_followers_reads_the_feed_once(make_federation: MakeFederation) -> None:
    federation = make_federation({"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.HONEST)
    federation.open()
    c = federation.coordinator()
    read_federation(c)
    one = reads(federation, RecentFeed(c), 1)
    feed = RecentFeed(c)
    assert reads(federation, feed, 40) == one > 0
    assert reads(federation, feed, 40) == 0
    federation.clock.sleep(c.settings.round.poll_seconds)
    assert reads(federation, feed, 40) == one


def test_what_is_new_is_seen_at_the_next_poll(make_federation: MakeFederation) -> None:
    federation = make_federation({"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan, c = federation.open(), federation.coordinator()
    feed = RecentFeed(c)
    assert abort_of(c, feed.read(), plan) is None
    abort_round(c, plan, "operator.abort", "Tried again.")
    federation.clock.sleep(c.settings.round.poll_seconds)
    assert abort_of(c, feed.read(), plan) is not None
