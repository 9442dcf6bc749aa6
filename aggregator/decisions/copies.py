"""Which of the submissions that would count are copies, and which of those count all the same.

Two inboxes have no order, so nobody can tell from them who copied whom: neither counts, until a
person has looked and named the silo that does (`[copies]` in `federation.toml`, which the plan
carries). What two silos sent with the same digest is alike without being measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from aggregator.attempt import SiloRecords
from data_contracts.protocol.records import Close, RoundPlan
from data_contracts.protocol.records.close import Admitted, Likeness

COPIED = "free_rider.copied"
SAME = Decimal("1.000000")


def likenesses_of(
    admitted: Sequence[Admitted], records: Mapping[str, SiloRecords], plan: RoundPlan
) -> tuple[Likeness, ...]:
    """For each of `admitted` that is like another of them, or like the start: which, sorted."""
    found = (_likeness(own, admitted, records.get(own.silo), plan) for own in admitted)
    return tuple(likeness for likeness in found if likeness is not None)


def copies_of(likenesses: Iterable[Likeness], plan: RoundPlan) -> set[str]:
    """The silos that do not count; what is like the start nobody can let count."""
    counted = {entry.silo for entry in plan.counted_copies or ()}
    return {found.silo for found in likenesses if found.like is None or found.silo not in counted}


def said_of_copies(close: Close) -> str:
    """A sentence about the copies in an attempt that has no close record to say it."""
    silos = [item.silo for item in close.rejected if item.rule == COPIED]
    if not silos:
        return ""
    return f" Left out as copies, until a person names the one that counts: {', '.join(silos)}."


def _likeness(
    own: Admitted, admitted: Sequence[Admitted], records: SiloRecords | None, plan: RoundPlan
) -> Likeness | None:
    digest = own.adapter.digest
    if plan.starting_adapter is not None and digest == plan.starting_adapter.digest:
        return Likeness(silo=own.silo, like=None, cosine=SAME)
    same = (a.silo for a in admitted if a.adapter.digest == digest and a.silo != own.silo)
    like = next(same, None)
    if like is not None:
        return Likeness(silo=own.silo, like=like, cosine=SAME)
    measured = records.alike if records is not None else None
    others = {None, *(a.silo for a in admitted)}
    return measured if measured is not None and measured.like in others else None
