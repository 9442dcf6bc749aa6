"""Which silos submitted the same change, whatever they did to make it look like one of their own.

Compared is the product B A less that of the start, by the cosine between two of them: neither other
factors (B Q, Q^-1 A), nor ranks of zeros, another scale, or other bytes around it make a copy
anything else, and a little noise hardly does. Where silos share A alone, it is A less its start.
Sketches find who might be alike; for them the cosine is computed in full, in float64. Other tensors
that are trained whole are a change, and are not compared: honest silos move a head alike.

`COPY_COSINE`: measured in docs/decisions/0030-copies.md.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.change_sketch import Sketch
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, narrowed
from data_contracts.adapters.tensor_layout import rejected
from data_contracts.adapters.whole_tensors import as_vector
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.close import Likeness
from data_contracts.protocol.wire_types import decimal_from_float

COPY_COSINE = 0.9
"""Two changes that are alike as far as this are one and a copy of it."""

SUSPECT_COSINE = (1 - 4 * (1 - COPY_COSINE**2)) ** 0.5
"""As far as sketches of them may lie apart: they tell the sine of the angle to a factor of two."""

SMALLEST_CHANGE = 1e-5
"""Of the start's norm: what is smaller comes from rounding other factors of the same product."""

Float64Array = npt.NDArray[np.float64]


def likenesses(
    sketches: Mapping[str, Sketch], source_of: Callable[[str], AdapterSource], start: AdapterSource
) -> dict[str, Likeness]:
    """By silo, whose change its own is most alike, where that is a copy.

    `like` None stands for the starting adapter, a multiple of which is no change either.
    """
    silos = sorted(sketches)
    names: list[str | None] = [*silos, None]
    found: dict[str, Likeness] = {}
    if not silos:
        return found
    cosines = _cosines(sketches, silos)
    np.fill_diagonal(cosines, 0)
    for number, silo in enumerate(silos):
        nearest = int(np.argmax(cosines[number]))
        if cosines[number, nearest] < SUSPECT_COSINE:
            continue
        like = names[nearest]
        exact = exact_cosine(source_of(silo), source_of(like) if like else None, start)
        exact = abs(exact) if like is None else exact
        if exact >= COPY_COSINE:
            cosine = decimal_from_float(exact)
            found[silo] = Likeness(silo=silo, like=like, cosine=cosine)
            if like is not None:
                found.setdefault(like, Likeness(silo=like, like=silo, cosine=cosine))
    return found


def require_change(sketch: Sketch) -> None:
    """Raises UntrustedInputError for a product that is the start's, whatever its factors are, where
    no whole tensor moved either."""
    if sketch.relative_size <= SMALLEST_CHANGE and not sketch.moves_whole:
        raise rejected(
            "its product", "a change of the starting product", "the starting product", "unchanged"
        )


def _cosines(sketches: Mapping[str, Sketch], silos: list[str]) -> Float64Array:
    """Of every silo with every other, (n x n + 1); in the last column with the start, which a
    multiple below one leads back from."""
    changes = np.stack([_unit(sketches[silo].change) for silo in silos])
    starts = np.stack([_unit(sketches[silo].start) for silo in silos])
    with_start = np.abs((changes * starts).sum(axis=1, keepdims=True))
    return np.concatenate([changes @ changes.T, with_start], axis=1).astype(np.float64)


def _unit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norm = np.linalg.norm(values)
    return values / norm if norm else values


def exact_cosine(one: AdapterSource, other: AdapterSource | None, starting: AdapterSource) -> float:
    """Between the changes of two adapters, or of one and the starting product, in float64.

    Of products, or of factors A without their B, alone. A module that a layout leaves out did not
    change. 0 where one of the two is no change at all.
    """
    products = np.zeros(3)
    for target in starting.layout.compared:
        left = _change(one, starting, target)
        right = _start(starting, target) if other is None else _change(other, starting, target)
        if left is not None:
            products[0] += _inner(left, left)
        if right is not None:
            products[1] += _inner(right, right)
        if left is not None and right is not None:
            products[2] += _inner(left, right)
    sizes = float(np.sqrt(max(products[0], 0.0) * max(products[1], 0.0)))
    return float(products[2]) / sizes if sizes else 0.0


Factors = tuple[Float64Array, Float64Array]


def _change(
    source: AdapterSource, starting: AdapterSource, target: AdapterTarget
) -> Factors | None:
    """s [B, -B_start] and [A; A_start]: the change as one product, never formed."""
    if target not in source.layout.targets:
        return None
    a, b = _factors(source, target)
    a_start, b_start = _factors(narrowed(starting, source.layout), target)
    joined = np.concatenate([a, a_start]).astype(np.float64)
    sides = np.concatenate([b, -b_start], axis=1).astype(np.float64)
    return joined, sides * source.layout.scaling_of(target)


def _start(starting: AdapterSource, target: AdapterTarget) -> Factors:
    a, b = _factors(starting, target)
    return a.astype(np.float64), b.astype(np.float64) * starting.layout.scaling_of(target)


def _factors(source: AdapterSource, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
    """A factor A without its B is one long vector: no identity is multiplied."""
    a, b = source.module(target)
    return (a, b) if target.whole is None else as_vector(target, b)


def _inner(one: Factors, other: Factors) -> float:
    """<B A, B' A'> = sum of B^T B' * A A'^T, entry by entry."""
    return float(((one[1].T @ other[1]) * (one[0] @ other[0].T)).sum())
