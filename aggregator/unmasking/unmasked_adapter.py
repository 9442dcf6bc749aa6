"""From a masked sum to an ordinary adapter file: what the round started from, plus the mean change.

The file is what a silo would have submitted that trained to that mean, in the exchanged layout of
the plan. So a merge takes it as its one local adapter with weight 1, and rules whose merge is
linear in what silos send give what they would have given from the silos' own adapters, to the
rounding of the fixed point. Start and mean are added in float64 and rounded once; the bytes are the
same on every machine and for any number of threads.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aggregator.unmasking.masked_sum import MaskedSum
from data_contracts.adapters.adapter_format import (
    MAX_ABSOLUTE_VALUE,
    Float32Array,
    adapter_entries,
)
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.tensor_layout import payload_bytes, safetensors_header
from data_contracts.adapters.whole_tensors import stored
from data_contracts.errors import UnusableMergeError
from data_contracts.masking.fixed_point import Float64Array
from data_contracts.masking.payload import extra_values
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from infra.disk.durable_files import PRIVATE_MODE, aside


@dataclass(frozen=True)
class UnmaskedAdapter:
    """The file that was written, and the weighted means of the payload's extra numbers by name."""

    adapter: ArtifactRef
    extras: dict[str, float]


def write_unmasked(
    path: Path, total: MaskedSum, starting: AdapterSource, workers: int
) -> UnmaskedAdapter:
    """Write the adapter that `total` makes of `starting`, which has the payload's layout.

    The file is absent or complete; one module is in memory at a time. Raises UnusableMergeError for
    a value that no adapter may have or a pad that is left, UntrustedInputError for a masked file
    that became shorter, and ConsortiaError where the disk refuses.
    """
    entries = adapter_entries(total.payload.layout)
    header = safetensors_header(entries)
    means = _Means(total.means(workers))
    with aside(path, len(header) + payload_bytes(entries)) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            out = _HashedFile(file)
            out.write(header)
            for target in total.payload.layout.targets:
                for tensor in _module(total, starting, target, means):
                    out.write(tensor.data)
            rest = list(means.parts(total.payload.entries - total.payload.tensor_entries))
            file.flush()
            os.fsync(file.fileno())
    extras = extra_values(total.payload, total.fixed_point, np.concatenate(rest))
    return UnmaskedAdapter(out.artifact, extras)


class _Means:
    """Means one after the other, in any lengths, out of pieces."""

    def __init__(self, pieces: Iterator[Float64Array]) -> None:
        self._pieces = pieces
        self._left: Float64Array = np.empty(0)

    def parts(self, count: int) -> Iterator[Float64Array]:
        """The next `count`, in parts as they come."""
        while count:
            if not len(self._left):
                self._left = next(self._pieces)
            part, self._left = self._left[:count], self._left[count:]
            count -= len(part)
            yield part


class _HashedFile:
    """A file whose digest and size are known when it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        self._file.write(data)
        self._digest.update(data)
        self._size += memoryview(data).nbytes

    @property
    def artifact(self) -> ArtifactRef:
        """Of all that was written."""
        return ArtifactRef(digest=self._digest.hexdigest(), size=self._size)


def _module(
    total: MaskedSum, starting: AdapterSource, target: AdapterTarget, means: _Means
) -> Iterator[Float32Array]:
    tensors = stored(target, *starting.module(target))
    for start, is_in in zip(tensors, total.payload.masked(target), strict=True):
        yield _moved(start, target, means) if is_in else np.ascontiguousarray(start, dtype="<f4")


def _moved(start: Float32Array, target: AdapterTarget, means: _Means) -> Float32Array:
    out: Float32Array = np.empty(start.shape, dtype="<f4")
    flat, from_, at = out.reshape(-1), start.reshape(-1), 0
    for part in means.parts(start.size):
        flat[at : at + len(part)] = from_[at : at + len(part)] + part
        at += len(part)
    largest = max(float(out.max()), -float(out.min()))
    if not (math.isfinite(largest) and largest <= MAX_ABSOLUTE_VALUE):
        raise UnusableMergeError(
            f"sum of masked adapters at {target.module}",
            expected=f"values of at most {MAX_ABSOLUTE_VALUE:g}",
            found=f"{largest:g}",
            action="plan the round again with a smaller largest change or a lower learning rate",
        )
    return out
