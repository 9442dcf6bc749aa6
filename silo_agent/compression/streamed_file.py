"""A file that is written piece by piece, hashed on the way, and appears whole or not at all."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.block_quantisation import Blocks, Scheme
from data_contracts.adapters.quantised_format import quantised_entries
from data_contracts.adapters.tensor_layout import safetensors_header
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from infra.disk.durable_files import sync_directory

PRIVATE_MODE = 0o600


class StreamedFile:
    """What has been written so far; made by `streamed_file`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, *pieces: bytes | npt.NDArray[np.generic]) -> None:
        """Append `pieces`, arrays in C order; raises SiloOperatorError when the disk refuses."""
        for piece in pieces:
            data = piece if isinstance(piece, bytes) else np.ascontiguousarray(piece).data
            with _disk_faults(self._path):
                self._file.write(data)
            self._digest.update(data)
            self._size += memoryview(data).nbytes

    @property
    def artifact(self) -> ArtifactRef:
        """Digest and size of what has been written."""
        return ArtifactRef(digest=self._digest.hexdigest(), size=self._size)


@contextmanager
def streamed_file(path: Path) -> Iterator[StreamedFile]:
    """`path` is replaced, synced to disk, when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield StreamedFile(path, file)
            with _disk_faults(path):
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_quantised(
    path: Path, layout: AdapterLayout, scheme: Scheme, modules: Iterable[Sequence[Blocks]]
) -> ArtifactRef:
    """Stream a quantised file: for each module of the layout, in order, the blocks of dA and of dB,
    or of the tensor that is trained whole.

    The header is known before the first module, so one module is in memory at a time.
    """
    with streamed_file(path) as file:
        file.write(safetensors_header(quantised_entries(layout, scheme)))
        for _, factors in zip(layout.targets, modules, strict=True):
            for blocks in factors:
                file.write(blocks.codes, blocks.scales)
    return file.artifact


@contextmanager
def _disk_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SiloOperatorError(
            f"writing {path}",
            expected="a writable disk with space for the round's files",
            found=error.strerror or str(error),
            action="free space or correct the permissions, then start the agent again",
        ) from error
