"""Counts as they may leave the silo: a count of 1 to 9 records is never shown or derivable.

A suppressed count can be found again by subtraction when the total and all other counts are
known; so a count whose complement is small is suppressed too, and where licences are counted the
suppressed ones together always cover at least `SMALL_CELL` records (complementary suppression,
Hundepool et al., Statistical Disclosure Control, 2012, chapter 4).
"""

from collections.abc import Mapping

from data_contracts.protocol.records.verdict import LicenceCount

SMALL_CELL = 10


def reported_total(total: int) -> int:
    """Number of records; fewer than SMALL_CELL are reported as 0."""
    return total if total >= SMALL_CELL else 0


def reported_unexpected(unexpected: int, total: int) -> int | None:
    """Count of breaking values, or None when it or its complement is a small cell."""
    if _is_small(unexpected) or _is_small(total - unexpected) or _is_small(total):
        return None
    return unexpected


def reported_licences(counts: Mapping[str, int]) -> tuple[LicenceCount, ...]:
    """Records per licence id, sorted by id."""
    hidden = {licence for licence, count in counts.items() if _is_small(count)}
    shown = sorted(set(counts) - hidden, key=lambda licence: (counts[licence], licence))
    while hidden and shown and sum(counts[licence] for licence in hidden) < SMALL_CELL:
        hidden.add(shown.pop(0))
    return tuple(
        LicenceCount(licence=licence, records=None if licence in hidden else count)
        for licence, count in sorted(counts.items())
    )


def _is_small(count: int) -> bool:
    return 0 < count < SMALL_CELL
