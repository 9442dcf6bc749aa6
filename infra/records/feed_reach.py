"""Whether the feed in storage goes as far as what was signed on it: the proof after a restore."""

from collections.abc import Iterable, Iterator

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records import RoundRecord
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.clock import ALLOWED_SKEW


def require_feed_reaches(feed: TrustedFeed, signed: Iterable[RoundRecord]) -> None:
    """Raise UntrustedInputError where what was `signed` proves more of the feed than it shows.

    A plan that a later membership made void is none of it any more: a record that is older than the
    newest membership, unless that is the first, proves nothing.
    """
    for record in records_beyond(feed, signed):
        raise UntrustedInputError(
            "plan feed in storage",
            expected=f"the plan of round {record.round} attempt {record.attempt} of {record.run}, "
            f"on which {_signer(record)} signed: {record.kind}",
            found="a feed that ends before it",
            action="ask whoever runs the storage whether it was rolled back; nothing is signed "
            "until it shows that plan again",
            rule="feed.behind",
        )


def records_beyond(feed: TrustedFeed, signed: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
    """Those of what was `signed` whose plan is later than any that the feed shows."""
    newest_membership = feed.membership.record
    is_first = newest_membership.number == 1
    settled = None if is_first else newest_membership.issued_at + ALLOWED_SKEW
    for record in signed:
        known = feed.attempt_of_run(record.run)
        plan = known.plan.record if known is not None else None
        newest = (plan.round, plan.attempt) if plan is not None else (0, 0)
        is_later = (record.round, record.attempt) > newest
        if is_later and (settled is None or record.issued_at > settled):
            yield record


def _signer(record: RoundRecord) -> str:
    silo = getattr(record, "silo", None)
    return f"silo {silo}" if silo else "this coordinator"
