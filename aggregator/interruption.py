"""What ends an attempt from outside: a membership that revokes a key which it rests on."""

from dataclasses import dataclass

from aggregator.admission import REVOKED_SILO
from aggregator.attempt import Attempt
from data_contracts.trusted_feed import TrustedFeed

REVOKED_COORDINATOR = "coordinator.revoked"


@dataclass(frozen=True)
class Interruption:
    """The rule and the sentence of the abort that is due."""

    rule: str
    reason: str


def interruption_of(feed: TrustedFeed, attempt: Attempt) -> Interruption | None:
    """Why an attempt that is not decided has to end and be tried again, or None.

    A silo that was revoked before the close is only left out; after it, its adapter is part of what
    would be published.
    """
    if attempt.decision is not None or attempt.abort is not None:
        return None
    newest = feed.membership.record.number
    if feed.coordinator_trust(attempt.plan).only is not None:
        reason = f"Membership {newest} revokes the key that this attempt was planned with."
        return Interruption(REVOKED_COORDINATOR, reason)
    admitted = attempt.close.record.admitted if attempt.close else ()
    gone = sorted(a.silo for a in admitted if feed.silo_key(attempt.plan, a.silo) is None)
    if gone:
        reason = f"Membership {newest} revokes the key of {', '.join(gone)}, admitted before."
        return Interruption(REVOKED_SILO, reason)
    return None
