"""What a silo changed, reduced to a few numbers for each module, so that any two can be compared.

The change of a module is D = s (B A - B_start A_start). Its sketch is H^T D G with signs drawn for
H (out x PROBES) and G (in x PROBES): inner products of sketches are, on average, PROBES^2 times
those of the changes (Achlioptas 2003, "Database-friendly random projections"), and depend on the
product alone, not on how it is written as B A. D is never formed: H^T D G is (H^T B)(A G) less
that of the start, which is read once for all silos; of a compressed adapter the file holds dA and
dB, and nothing else of it is decoded.

Of a factor A that is exchanged by itself D = A - A_start is sketched, by the same signs.

Of other tensors that are trained whole it is only noted whether one moved. Honest silos move a head
alike, because its loss is nearly convex and they all begin at the same place; it would make copies
of them.

The signs are drawn from a seed that no silo knows: whoever did could hide a copy behind a change
that only the probes see.
"""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np

from data_contracts.adapters.quantised_format import QuantisedFile
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, narrowed
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

PROBES = 8

Images = tuple[Float32Array, Float32Array]


@dataclass(frozen=True)
class Sketch:
    """`change` and `start`, flat, of the silo's change and of the product that it started from.

    `moves_whole`: a tensor that is trained whole, and in neither, is another than its start.
    """

    change: Float32Array
    start: Float32Array
    moves_whole: bool = False

    @property
    def relative_size(self) -> float:
        """Norm of the change over that of the start; infinite where only the start is zero."""
        change, start = (float(np.linalg.norm(values)) for values in (self.change, self.start))
        if start == 0:
            return math.inf if change else 0.0
        return change / start


@dataclass(frozen=True)
class Sketcher:
    """Sketches of all that start from `starting`, in the run's layout; safe in several threads."""

    starting: AdapterSource
    seed: int
    _images: dict[tuple[AdapterLayout, str], Images] = field(default_factory=dict)

    def sketch(self, source: AdapterSource) -> Sketch:
        """Of what was submitted; modules that its layout leaves out did not change."""
        start, layout = narrowed(self.starting, source.layout), source.layout
        own, compared = set(layout.targets), self.starting.layout.compared
        shape = (len(compared), PROBES, PROBES)
        changes, starts = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        for number, target in enumerate(compared):
            if target not in own:
                continue
            signs = self._signs(target)
            if target.whole is not None:
                b_start = start.module(target)[1]
                starts[number] = _tensor_image(b_start, signs)
                changes[number] = _tensor_image(_moved(source, b_start, target), signs)
                continue
            b_start, a_start = self._start(start, target, signs)
            starts[number] = b_start @ a_start
            if isinstance(source, QuantisedFile):
                b_change, a_change = _images(source.difference(target), signs)
                changes[number] = b_change @ (a_start + a_change) + b_start @ a_change
            else:
                b, a = _images(source.module(target), signs)
                changes[number] = b @ a - starts[number]
        scaling = np.float32(layout.scaling)
        beside = [target for target in layout.wholes if not target.is_shared_a]
        moves_whole = any(_is_moved(source, start, target) for target in beside)
        return Sketch(changes.ravel() * scaling, starts.ravel() * scaling, moves_whole)

    def _start(self, start: AdapterSource, target: AdapterTarget, signs: Images) -> Images:
        """H^T B and A G of the starting adapter, (PROBES x rank) and (rank x PROBES)."""
        key = (start.layout, target.module)
        if key not in self._images:
            self._images[key] = _images(start.module(target), signs)
        return self._images[key]

    def _signs(self, target: AdapterTarget) -> Images:
        """H (out x PROBES) and G (in x PROBES), of this module alone."""
        name = hashlib.sha256(target.module.encode()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(name[:8], "little")])
        size = target.out_features + target.in_features
        bits = np.unpackbits(np.frombuffer(rng.bytes(size), dtype=np.uint8))
        signs = (bits.reshape(size, PROBES).astype(np.float32) * 2) - 1
        return signs[: target.out_features], signs[target.out_features :]


def _is_moved(source: AdapterSource, start: AdapterSource, target: AdapterTarget) -> bool:
    """Whether a tensor that is trained whole is another: it has one way only to be written."""
    if isinstance(source, QuantisedFile):
        return bool(source.difference(target)[1].any())
    return not np.array_equal(source.module(target)[1], start.module(target)[1])


def _moved(source: AdapterSource, start: Float32Array, target: AdapterTarget) -> Float32Array:
    """What was added to a tensor (out x in); of a compressed one it is all that is decoded."""
    if isinstance(source, QuantisedFile):
        return source.difference(target)[1]
    return source.module(target)[1] - start


def _tensor_image(tensor: Float32Array, signs: Images) -> Float32Array:
    """H^T W G of a tensor W (out x in)."""
    return np.asarray(signs[0].T @ tensor @ signs[1], dtype=np.float32)


def _images(factors: tuple[Float32Array, Float32Array], signs: Images) -> Images:
    """H^T B and A G of A (rank x in) and B (out x rank)."""
    a, b = factors
    return signs[0].T @ b, a @ signs[1]
