"""An adapter that is written from the means of a masked sum, as they come."""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_contracts.adapters.adapter_format import (
    MAX_ABSOLUTE_VALUE,
    Float32Array,
    adapter_entries,
)
from data_contracts.adapters.tensor_layout import payload_bytes, safetensors_header
from data_contracts.errors import UnusableMergeError
from data_contracts.masking.fixed_point import Float64Array
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from infra.disk.durable_files import PRIVATE_MODE, aside


class Means:
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


class HashedFile:
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


@contextmanager
def streamed_adapter(path: Path, layout: AdapterLayout) -> Iterator[HashedFile]:
    """A file for the tensors of `layout`, its header written; absent or, in the end, complete.

    Raises ConsortiaError where the disk refuses.
    """
    entries = adapter_entries(layout)
    header = safetensors_header(entries)
    with aside(path, len(header) + payload_bytes(entries)) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            out = HashedFile(file)
            out.write(header)
            yield out
            file.flush()
            os.fsync(file.fileno())


def moved_by(start: Float32Array, target: AdapterTarget, means: Means) -> Float32Array:
    """`start` and the next means, one for each of its values; raises as `require_possible`."""
    out: Float32Array = np.empty(start.shape, dtype="<f4")
    flat, from_, at = out.reshape(-1), start.reshape(-1), 0
    for part in means.parts(start.size):
        flat[at : at + len(part)] = from_[at : at + len(part)] + part
        at += len(part)
    require_possible(out, target)
    return out


def require_possible(values: Float32Array, target: AdapterTarget) -> None:
    """Raise UnusableMergeError for a value that no adapter may have."""
    largest = max(float(values.max()), -float(values.min()))
    if not (math.isfinite(largest) and largest <= MAX_ABSOLUTE_VALUE):
        raise UnusableMergeError(
            f"sum of masked adapters at {target.module}",
            expected=f"values of at most {MAX_ABSOLUTE_VALUE:g}",
            found=f"{largest:g}",
            action="plan the round again with a smaller largest change or a lower learning rate",
        )
