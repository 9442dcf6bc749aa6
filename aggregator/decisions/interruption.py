"""What ends an attempt from outside: a membership that revokes a key which it rests on."""

from dataclasses import dataclass

from aggregator.attempt import Attempt
from aggregator.decisions.admission_rules import REVOKED_SILO
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER
from data_contracts.protocol.trusted_feed import TrustedFeed

REVOKED_COORDINATOR = "coordinator.revoked"
ERASED = "evidence.erased"
"""What the close holds was removed from storage."""


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
    erased = _erased(attempt)
    if erased:
        reason = f"What {', '.join(erased)} had signed, and was judged by, was erased from storage."
        return Interruption(ERASED, reason)
    gone = sorted(a.silo for a in admitted if feed.silo_key(attempt.plan, a.silo) is None)
    if gone:
        reason = f"Membership {newest} revokes the key of {', '.join(gone)}, admitted before."
        return Interruption(REVOKED_SILO, reason)
    return None


def _erased(attempt: Attempt) -> list[str]:
    """Silos of which a record that the close holds is not there any more."""
    held = attempt.close.record.held if attempt.close else ()
    there = {v.digest for own in attempt.silos.values() for v in own.judged()}
    records = (ref for ref in held if ref.kind != LOCAL_ADAPTER)
    return sorted({ref.silo for ref in records if ref.digest not in there and ref.silo})
