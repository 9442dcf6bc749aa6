"""Which groups of silos have to be merged and measured to say what each silo contributed.

A coalition is a set of silos; the empty one is the starting adapter. Leave-one-out needs the grand
coalition and each one without a silo; exact Shapley values need every subset.
"""

from collections.abc import Sequence
from itertools import combinations

from data_contracts.errors import FederationOperatorError

MOST_SILOS = 10
"""Exact Shapley values need 2^n coalitions: 1,024 merges and evaluations for ten silos."""

Coalition = frozenset[str]


def leave_one_out_coalitions(silos: Sequence[str]) -> list[Coalition]:
    """The grand coalition, then each one without a silo, in the order of the silos."""
    everyone = frozenset(silos)
    return [everyone, *(everyone - {silo} for silo in sorted(everyone))]


def all_coalitions(silos: Sequence[str]) -> list[Coalition]:
    """Every subset, those of leave-one-out first, so that they are known first.

    Raises FederationOperatorError for more than `MOST_SILOS` silos.
    """
    everyone = sorted(set(silos))
    if len(everyone) > MOST_SILOS:
        raise FederationOperatorError(
            "contribution",
            expected=f"at most {MOST_SILOS} silos for exact Shapley values",
            found=f"{len(everyone)}, which are {2 ** len(everyone):,} coalitions",
            action="ask for leave-one-out, which needs one merge a silo",
        )
    first = leave_one_out_coalitions(everyone)
    rest = [
        frozenset(members)
        for size in range(len(everyone) + 1)
        for members in combinations(everyone, size)
    ]
    return first + [coalition for coalition in rest if coalition not in set(first)]
