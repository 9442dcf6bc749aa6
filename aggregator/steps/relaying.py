"""What the coordinator passes on in confidential mode: silos' words, as they signed them."""

from datetime import datetime

from aggregator.attempt import Attempt
from aggregator.decisions.exchange import Exchange
from data_contracts.protocol.records import (
    CountersignedClose,
    MaskRoster,
    RoundRecord,
    ShareBook,
)
from data_contracts.protocol.relayed import relay


def list_of(attempt: Attempt, due: Exchange, now: datetime) -> RoundRecord:
    """The record that `due` asks for, of all that was said."""
    plan, words = attempt.plan, relay(due.said)
    if due.record is MaskRoster:
        return MaskRoster.on(plan, now, keys=words)
    if due.record is ShareBook and attempt.roster is not None:
        return ShareBook.on(plan, now, roster_digest=attempt.roster.digest, shares=words)
    if due.record is CountersignedClose and attempt.close is not None and attempt.book is not None:
        return CountersignedClose.on(
            plan,
            now,
            close_digest=attempt.close.digest,
            book_digest=attempt.book.digest,
            countersignatures=words,
        )
    raise ValueError(f"expected an exchange that the coordinator lists, found {due.what}")
