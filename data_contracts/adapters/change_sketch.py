"""What a silo changed, reduced to a few numbers for each module, so that any two can be compared.

The change of a module is D = s (B A - B_start A_start). Its sketch is H^T D G with signs drawn for
H (out x PROBES) and G (in x PROBES): inner products of sketches are, on average, PROBES^2 times
those of the changes (Achlioptas 2003, "Database-friendly random projections"), and depend on the
product alone, not on how it is written as B A. D is never formed: H^T D G is (H^T B)(A G) less
that of the start, which is read once for all silos; of a compressed adapter the file holds dA and
dB, and nothing else of it is decoded.

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
    """`change` and `start`, flat, of the silo's change and of the product that it started from."""

    change: Float32Array
    start: Float32Array

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
        own = set(layout.targets)
        shape = (len(self.starting.layout.targets), PROBES, PROBES)
        changes, starts = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        for number, target in enumerate(self.starting.layout.targets):
            if target not in own:
                continue
            signs = self._signs(target)
            b_start, a_start = self._start(start, target, signs)
            starts[number] = b_start @ a_start
            if target.whole is not None:
                changes[number] = signs[0].T @ _whole_change(source, start, target) @ signs[1]
            elif isinstance(source, QuantisedFile):
                b_change, a_change = _images(source.difference(target), signs)
                changes[number] = b_change @ (a_start + a_change) + b_start @ a_change
            else:
                b, a = _images(source.module(target), signs)
                changes[number] = b @ a - starts[number]
        targets = self.starting.layout.targets
        scalings = np.array([layout.scaling_of(target) for target in targets], dtype=np.float32)
        of_target = scalings[:, None, None]
        return Sketch((changes * of_target).ravel(), (starts * of_target).ravel())

    def _start(self, start: AdapterSource, target: AdapterTarget, signs: Images) -> Images:
        """H^T B and A G of the starting adapter, (PROBES x rank) and (rank x PROBES)."""
        key = (start.layout, target.module)
        if key not in self._images:
            self._images[key] = _start_images(start, target, signs)
        return self._images[key]

    def _signs(self, target: AdapterTarget) -> Images:
        """H (out x PROBES) and G (in x PROBES), of this module alone."""
        name = hashlib.sha256(target.module.encode()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(name[:8], "little")])
        size = target.out_features + target.in_features
        bits = np.unpackbits(np.frombuffer(rng.bytes(size), dtype=np.uint8))
        signs = (bits.reshape(size, PROBES).astype(np.float32) * 2) - 1
        return signs[: target.out_features], signs[target.out_features :]


def _start_images(start: AdapterSource, target: AdapterTarget, signs: Images) -> Images:
    a, b = start.module(target)
    # The identity leaves G as it is.
    return (signs[0].T @ b, signs[1]) if target.whole is not None else _images((a, b), signs)


def _whole_change(
    source: AdapterSource, start: AdapterSource, target: AdapterTarget
) -> Float32Array:
    """What became of a tensor that is trained whole (out x in): it has one way to be written."""
    if isinstance(source, QuantisedFile):
        return source.difference(target)[1]
    return source.module(target)[1] - start.module(target)[1]


def _images(factors: tuple[Float32Array, Float32Array], signs: Images) -> Images:
    """H^T B and A G of A (rank x in) and B (out x rank)."""
    a, b = factors
    return signs[0].T @ b, a @ signs[1]
