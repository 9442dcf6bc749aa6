"""Guards that can be deleted alone, because another does the same: which, and why both stay.

A row counts only where deleting it together with the others is noticed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Redundant:
    """What does the same, by name, and the reason for having both."""

    others: tuple[str, ...]
    reason: str


REDUNDANT: dict[str, Redundant] = {}
