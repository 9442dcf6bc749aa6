"""Between which bases a core is trained, and how the change of a core acts as a pair again (Fed-SB,
Singhal et al. 2025, arXiv:2502.15436; LoRA-SB, Ponkshe et al. 2024, arXiv:2411.19557).

The bases of a round are the factors of the adapter that it starts from, every row of A and every
column of B brought to about one length; the core C (rank x rank) is diagonal then, and the product
s B C A is the adapter's own. What is trained is C alone, and what is sent is its change.

Lengths are changed by powers of two, by which no float32 is rounded. So bases and core are the same
bits wherever they are made, and the model that training begins with is the starting adapter to the
bit. A column of B that is zero, as all are of an adapter that nobody trained, has signs drawn from
the layout's seed for its base, and no part in the core.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.adapter_format import MAX_ABSOLUTE_VALUE
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.adapters.tensor_layout import rejected
from data_contracts.adapters.whole_tensors import generator_of, identity, whole_name
from data_contracts.protocol.records.adapter_layout import (
    CORE_SUFFIX,
    AdapterLayout,
    AdapterTarget,
)

IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating[Any]]

SQUARED_ROW_LENGTH = 1 / 3
"""About that of a row of PEFT's initial A."""
GRID_BITS = 20
"""Of the largest number of a row or column, on whose grid its length is summed."""


@dataclass(frozen=True)
class Bases:
    """`a` (rank x in) and `b` (out x rank), which stay as they are, and the `core` (rank x rank)
    with which b core a is B A of the adapter that they were made of.

    `row_powers`: a is A with each row times 2 to that power.
    """

    a: Float32Array
    b: Float32Array
    core: Float32Array
    row_powers: IntArray

    def pair_of(self, change: Float32Array) -> Float32Array:
        """B (out x rank) that with the adapter's own A is the product of a core that changed.

        Float32, of products and sums in float64; the adapter's own B where nothing changed.
        """
        return np.asarray(self.moved(self.core.astype(np.float64) + change), dtype=np.float32)

    def moved(self, change: FloatArray) -> Float64Array:
        """What B (out x rank) moves by, beside the adapter's own A, where the core does by that."""
        moved = self.b.astype(np.float64) @ (change * np.ldexp(1.0, self.row_powers))
        return np.asarray(moved, dtype=np.float64)


def core_name(target: AdapterTarget) -> str:
    """The name that the change of a module's core has in a file."""
    return whole_name(f"{target.module}{CORE_SUFFIX}")


def bases_of(source: AdapterSource, target: AdapterTarget) -> Bases:
    """Those of one module that carries a pair, of the adapter that a round starts from.

    A column of b has about the length sqrt(out / rank). Then a step of Adam moves the product
    through the core as far as through B of a fresh pair, where the gradient lies between the bases.
    """
    a, b = source.module(target)
    rank = source.layout.rank
    rows = _powers(a, 1, SQUARED_ROW_LENGTH)
    columns = _powers(b, 0, target.out_features / rank)
    base = (b * np.ldexp(1.0, columns)).astype(np.float32)
    diagonal = np.ldexp(1.0, -(rows + columns))
    unused = ~b.any(axis=0)
    if unused.any():
        base[:, unused] = _signs(source.layout, target)[:, unused]
        diagonal[unused] = 0
    return Bases(
        a=(a * np.ldexp(1.0, rows)[:, None]).astype(np.float32),
        b=base,
        core=np.diag(diagonal).astype(np.float32),
        row_powers=rows,
    )


@dataclass(frozen=True)
class UnmovedCores:
    """What `starting` is in the layout of what silos send: no core has changed, and what is trained
    whole is as it was."""

    starting: AdapterSource

    @property
    def layout(self) -> AdapterLayout:
        """That of cores."""
        return self.starting.layout.cores

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """The identity, as a view, and zeros; of a tensor that is trained whole that itself."""
        if not target.is_core:
            return self.starting.module(target)
        return identity(target.in_features), np.zeros((target.out_features,) * 2, np.float32)


@dataclass(frozen=True)
class WithBases:
    """Changes of cores between the bases of `starting`, as an adapter with pairs.

    Its A are those of `starting`, to the bit.
    """

    starting: AdapterSource
    cores: AdapterSource

    @property
    def layout(self) -> AdapterLayout:
        """That of the pairs."""
        return self.starting.layout

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank); of a tensor that is trained whole that itself.

        Raises UntrustedInputError for a B that no adapter may have, as the gate of adapters does.
        """
        if target.whole is not None:
            return self.cores.module(target)
        change = self.cores.module(target.core(self.layout.rank))[1]
        with np.errstate(over="ignore", invalid="ignore"):
            b = bases_of(self.starting, target).pair_of(change)
        largest = max(float(b.max()), -float(b.min()))
        if not largest <= MAX_ABSOLUTE_VALUE:
            limit = f"a product whose B has values of at most {MAX_ABSOLUTE_VALUE:g}"
            raise rejected(core_name(target), limit, f"{largest:g}", "value_too_large")
        return self.starting.module(target)[0], b


def _powers(factor: Float32Array, axis: int, squared_length: float) -> IntArray:
    """Powers of two that bring each row or column to about a length; 0 of zeros.

    By whole numbers and by what IEEE 754 rounds the same everywhere: where two machines took
    another power, a change would be read as another one.
    """
    _, exponents = np.frexp(np.abs(factor).max(axis=axis, keepdims=True))
    grid = np.rint(factor * np.ldexp(1.0, GRID_BITS - exponents)).astype(np.int64)
    squares = np.square(grid).sum(axis=axis).astype(np.float64)
    shifts = 2 * (np.squeeze(exponents, axis) - GRID_BITS)
    _, found = np.frexp(np.ldexp(squares / squared_length, shifts))
    return np.where(squares > 0, -(found // 2), 0)


def _signs(layout: AdapterLayout, target: AdapterTarget) -> Float32Array:
    """+-1/sqrt(rank), (out x rank), from the layout's seed."""
    size = target.out_features * layout.rank
    drawn = generator_of(layout, f"{target.module}{CORE_SUFFIX}").bytes((size + 7) // 8)
    bits = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8), count=size)
    signs = bits.reshape(target.out_features, layout.rank).astype(np.float32) * 2 - 1
    return signs * np.float32(layout.rank**-0.5)
