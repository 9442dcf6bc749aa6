"""Numbers on their way into a masked file: parts of any length, cut into pieces of one length.

What a payload is made of is for `payload` (differences of factors) and `sketch` (sketched products)
to say; masks and sums see `MaskedNumbers` and `MaskedChange` alone. Under both the last entry is 1
at every silo, and its sum says whether every pad is gone.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from data_contracts.adapters.adapter_format import Float32Array
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.whole_tensors import stored
from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.masking.fixed_point import BLOCK_ENTRIES, FixedPoint, Float64Array
from data_contracts.masking.pads import MOST_ENTRIES, PIECE_ENTRIES
from data_contracts.protocol.records.adapter_layout import AdapterTarget


class MaskedNumbers(Protocol):
    """Which numbers are masked."""

    @property
    def entries(self) -> int:
        """How many, the one at the end included."""
        ...


class MaskedChange(Protocol):
    """What a silo changed, as the numbers that are masked of it."""

    @property
    def payload(self) -> MaskedNumbers:
        """Which numbers they are."""
        ...

    def norm(self) -> float:
        """What the plan's `clip_norm` bounds: the L2 norm of the change."""
        ...

    def pieces(
        self, fixed_point: FixedPoint, kept: float = 1.0
    ) -> Iterator[tuple[int, Float64Array]]:
        """Every number times `kept`, and where each piece begins; 0 in place of the last entry.

        Pieces have `PIECE_ENTRIES` but for the last one, and their memory is the caller's. Raises
        SiloOperatorError for an adapter that cannot be masked.
        """
        ...


def in_pieces(parts: Iterable[Float64Array]) -> Iterator[tuple[int, Float64Array]]:
    """The numbers of `parts`, vectors of any length, in pieces, each with where it begins."""
    piece, filled, first = _empty_piece(), 0, 0
    for part in parts:
        left = part
        while len(left):
            taken = left[: PIECE_ENTRIES - filled]
            piece[filled : filled + len(taken)] = taken
            filled, left = filled + len(taken), left[len(taken) :]
            if filled == PIECE_ENTRIES:
                yield first, piece
                piece, filled, first = _empty_piece(), 0, first + PIECE_ENTRIES
    if filled:
        yield first, piece[:filled]


def whole_change(
    target: AdapterTarget, local: AdapterSource, starting: AdapterSource
) -> Iterator[Float64Array]:
    """Local minus start of a tensor that is trained whole, as `difference`."""
    (own,), (start,) = (stored(target, *source.module(target)) for source in (local, starting))
    yield from difference(target, own, start)


def difference(
    target: AdapterTarget, local: Float32Array, starting: Float32Array
) -> Iterator[Float64Array]:
    """`local` minus `starting` in vectors; raises SiloOperatorError where they are not finite.

    Formed in float64, in which the difference of two float32 numbers of like size is exact.
    """
    own, start = local.reshape(-1), starting.reshape(-1)
    for at in range(0, len(own), BLOCK_ENTRIES):
        until = at + BLOCK_ENTRIES
        part: Float64Array = np.subtract(own[at:until], start[at:until], dtype=np.float64)
        require_finite(part, target.module)
        yield part


def require_finite(values: Float64Array, what: str) -> None:
    """Raise SiloOperatorError unless all of `values` are finite."""
    # NaN wins in min and max.
    if not math.isfinite(float(values.max()) - float(values.min())):
        raise unfit_adapter(what, "finite values", "NaN or infinity")


def unfit_adapter(what: str, expected: str, found: str) -> SiloOperatorError:
    """For a local adapter that cannot be masked."""
    return SiloOperatorError(
        f"{what} in the local adapter",
        expected=expected,
        found=found,
        action="look into the training log; if the loss rose, ask for a lower learning rate",
    )


def require_short(entries: int) -> None:
    """Raise FederationOperatorError for more numbers than a pad has."""
    if entries > MOST_ENTRIES:
        raise unfit_plan(f"at most {MOST_ENTRIES} numbers", f"{entries}")


def unfit_plan(expected: str, found: str) -> FederationOperatorError:
    """For a plan whose numbers cannot be masked."""
    return FederationOperatorError(
        "payload of a confidential round",
        expected=expected,
        found=found,
        action="plan a smaller adapter, or other extra numbers",
    )


def _empty_piece() -> Float64Array:
    return np.empty(PIECE_ENTRIES)
