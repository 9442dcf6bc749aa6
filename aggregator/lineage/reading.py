"""The lineage of an adapter, read from the feed and its records."""

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import read_federation
from aggregator.lineage.lineage import (
    Lineage,
    LineageStep,
    named_adapter,
    revoking,
    rounds_behind,
)
from aggregator.unlearning.history import read_history


def read_lineage(c: Coordinator, digits: str) -> Lineage:
    """Of the published adapter whose digest begins with `digits`; goes through the whole feed.

    Raises FederationOperatorError where no round, or more than one, published such an adapter.
    """
    feed = read_federation(c)
    history = read_history(c, feed)
    digest = named_adapter(history, digits)
    rounds = rounds_behind(history, digest)
    steps = tuple(map(LineageStep, rounds))
    return Lineage(digest, steps, revoking(feed.erasures, rounds))
