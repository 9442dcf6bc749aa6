"""Files encrypted with age (https://age-encryption.org/v1), in chunks, each authenticated.

Guaranteed: what is encrypted are the bytes that the reference names, whatever happens to the file
meanwhile, and a ciphertext is on disk, synced, before anybody learns its reference. Opening is one
pass over chunks that come from storage; `infra.disk.blob_files` holds what comes out against the
reference.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyrage
from pyrage import x25519

from data_contracts.protocol.artifact import ArtifactRef, StoredBytes
from infra.disk.blob_files import Opener, PlainWriter, UnopenedError, changed_file
from infra.disk.durable_files import aside
from infra.encryption.identities import Identities, Identity


def encrypt_file(
    source: Path, ref: ArtifactRef, into: Path, recipients: Iterable[str]
) -> ArtifactRef:
    """Encrypt the file of `ref` to all `recipients`, so that each of them can open `into`.

    Returns the reference with what now lies in `into`. Raises StorageError where the file is not
    what `ref` says, and ConsortiaError when the disk refuses.
    """
    keys = [x25519.Recipient.from_str(recipient) for recipient in sorted(set(recipients))]
    with aside(into, ref.size) as temporary:
        with source.open("rb", buffering=0) as plain, temporary.open("wb") as file:
            reader, writer = _Hashed(plain), _Hashed(file)
            pyrage.encrypt_io(reader, writer, keys)
            file.flush()
            os.fsync(file.fileno())
        found = reader.ref
        if found != ref.plain:
            raise changed_file(source, ref.plain, f"{found.size} bytes, SHA-256 {found.digest}")
    stored = StoredBytes(digest=writer.ref.digest, size=writer.ref.size)
    return ref.model_copy(update={"ciphertext": stored})


def opener(identities: Identities) -> Opener:
    """What opens a ciphertext for whoever has one of the `identities`."""
    keys = [identity.key for identity in identities]

    def opened(chunks: Iterator[bytes], into: PlainWriter) -> None:
        if not keys:
            raise UnopenedError("there is no identity here")
        reader = _Chunks(chunks)
        try:
            pyrage.decrypt_io(reader, into, keys)
        except (pyrage.DecryptError, OSError) as error:
            # Faults of storage and disk pass through age as its own.
            raise reader.fault or into.fault or UnopenedError(str(error)) from None

    return opened


def sealed(text: bytes, recipient: str) -> bytes:
    """A short text, encrypted to one recipient."""
    return bytes(pyrage.encrypt(text, [x25519.Recipient.from_str(recipient)]))


def unsealed(data: bytes, identities: Iterable[Identity]) -> bytes:
    """The text that one of the `identities` opens; raises UnopenedError."""
    keys = [identity.key for identity in identities]
    if not keys:
        raise UnopenedError("there is no identity here")
    try:
        return bytes(pyrage.decrypt(data, keys))
    except (pyrage.DecryptError, OSError) as error:
        raise UnopenedError(str(error)) from None


class _Hashed:
    """A file that is read or written once, from its beginning to its end."""

    def __init__(self, file: BinaryIO | io.RawIOBase) -> None:
        self._file: Any = file
        self._digest, self._size = hashlib.sha256(), 0

    @property
    def ref(self) -> ArtifactRef:
        """Of what went through."""
        return ArtifactRef(digest=self._digest.hexdigest(), size=self._size)

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        data: bytes = self._file.read(size)
        self._count(data)
        return data

    def write(self, data: bytes) -> int:
        """As of a file."""
        self._count(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """What is written is synced by whoever opened the file."""

    def _count(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)


class _Chunks:
    """Chunks as a file to read; `fault` is what the one who gives them has raised."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, memoryview(b"")
        self.fault: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            while not self._left:
                self._left = memoryview(next(self._chunks))
        except StopIteration:
            return b""
        except Exception as error:
            self.fault = error
            raise
        found, self._left = self._left[:size], self._left[size:]
        return bytes(found)
