"""How wide the images of the rule `sketch` have to be, so that a plan keeps what the rule promises.

A sum of changes has at most the rank of all silos and that of the start together; images so wide
give it exactly. Of many silos less is enough: at 12 times the run's rank the merged adapter is
within a tenth of the best of its rank, measured by `make bench-privacy` (docs/merge.md).
"""

from collections.abc import Sequence

ENOUGH_RANKS = 12


def exact_sketch_width(rank: int, silo_ranks: Sequence[int]) -> int:
    """Columns from which any sum of changes is rebuilt exactly, where the run has `rank`."""
    return sum(silo_ranks) + rank


def least_sketch_width(rank: int, silo_ranks: Sequence[int]) -> int:
    """Fewest columns, where the run has `rank` and each silo of the cohort its own."""
    return min(exact_sketch_width(rank, silo_ranks), ENOUGH_RANKS * rank)


def sketch_fault(width: int | None, rank: int, silo_ranks: Sequence[int]) -> tuple[str, str] | None:
    """What is expected and what is found where images are too narrow; None, or none asked for."""
    least = least_sketch_width(rank, silo_ranks)
    if width is None or width >= least:
        return None
    exact = exact_sketch_width(rank, silo_ranks)
    return (
        f"a sketch_width of at least {least}, with which a merge is "
        f"{'exact' if least == exact else 'within a tenth of the best one'} (all ranks of silos "
        f"and start together are {exact}, the run's rank is {rank})",
        f"{width}",
    )
