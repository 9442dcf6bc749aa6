"""Trimmed mean and median, entry by entry, for a factor that is the same space in every silo.

Only where one LoRA factor is shared: entries of freely trained factors mean nothing on their own.
The same bytes whatever the order of the silos (values are sorted before they are added). Entries do
not depend on each other, so a large stack can be done in slices along any axis but the first.
Trimmed mean and median: Yin et al., ICML 2018.
"""

import numpy as np
import numpy.typing as npt

from aggregator.robust.kernel import Float64Array
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.merge_spec import RobustSpec

Stack = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def combined(stack: Stack, defence: RobustSpec) -> Float64Array:
    """One value for each entry of (n, ...), by the plan's median or trimmed mean."""
    if defence.rule == "median":
        return median(stack)
    return trimmed_mean(stack, defence.tolerated_silos)


def trimmed_mean(stack: Stack, tolerated: int) -> Float64Array:
    """The mean of (n, ...) without the `tolerated` smallest and largest values of each entry.

    Raises FederationOperatorError unless n > 2 x `tolerated`.
    """
    kept = _kept(stack, tolerated)
    return np.asarray(np.sort(stack, axis=0)[kept].mean(axis=0, dtype=np.float64))


def median(stack: Stack) -> Float64Array:
    """The median of (n, ...) in each entry; the mean of the two in the middle where n is even."""
    return trimmed_mean(stack, most_trimmed(len(stack)))


def most_trimmed(silos: int) -> int:
    """How many values a median leaves out on each side."""
    return (silos - 1) // 2


def entries_kept(stack: Stack, tolerated: int) -> npt.NDArray[np.int64]:
    """In how many entries each silo's value is within what the trimmed mean keeps, (n,).

    Counts of slices add up to those of the whole; over the number of entries they are the silo's
    influence. Equal values count for every silo that has them.
    """
    middle = np.sort(stack, axis=0)[_kept(stack, tolerated)]
    within = (stack >= middle[0]) & (stack <= middle[-1])
    return np.asarray(within.reshape(len(stack), -1).sum(axis=1, dtype=np.int64))


def _kept(stack: Stack, tolerated: int) -> slice:
    if len(stack) <= 2 * tolerated:
        raise FederationOperatorError(
            "trimmed mean",
            expected=f"more than {2 * tolerated} silos to tolerate {tolerated}",
            found=f"{len(stack)}",
            action="tolerate fewer silos in the plan, or wait for more to be admitted",
        )
    return slice(tolerated, len(stack) - tolerated)
