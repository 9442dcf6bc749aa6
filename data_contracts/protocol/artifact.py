"""Reference to bytes by what they are: their digest and size, never by where they lie.

Whoever puts, reads, locks or counts a blob in storage asks the reference what is `stored`; whoever
has a file asks what is `plain`.
"""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_contracts.protocol.wire_types import Digest, Part

AGE_CHUNK_BYTES, AGE_TAG_BYTES = 64 * 1024, 16
MAX_SEALING_BYTES = 8 * 1024
"""What the header of an age file for one recipient may take; it is a few hundred bytes."""
CHUNK_BYTES = 256 * 1024
"""Read into one buffer, small enough to stay in the cache."""


class StoredBytes(Part):
    """SHA-256 and size of what lies in storage."""

    digest: Digest
    size: Annotated[int, Field(ge=0, le=2**53 - 1)]


class ArtifactRef(Part):
    """SHA-256 (lower-case hex) and size in bytes of a blob in object storage.

    Of the plain bytes: those are signed and judged. `ciphertext` says what lies in storage where
    the blob is encrypted there; None: the plain bytes themselves.
    """

    digest: Digest
    size: Annotated[int, Field(ge=0, le=2**53 - 1)]
    ciphertext: StoredBytes | None = None

    @property
    def stored(self) -> "ArtifactRef":
        """The bytes as they lie in storage: their key, what is locked, copied and pruned there."""
        found = self.ciphertext
        return self if found is None else ArtifactRef(digest=found.digest, size=found.size)

    @property
    def plain(self) -> "ArtifactRef":
        """The bytes as they are on a disk of who may read them, wherever else they lie."""
        return self if self.ciphertext is None else self.model_copy(update={"ciphertext": None})


def ciphertext_limit(plain_bytes: int) -> int:
    """Bytes that an age file for one recipient may have around so many plain ones."""
    chunks = plain_bytes // AGE_CHUNK_BYTES + 2
    return plain_bytes + chunks * AGE_TAG_BYTES + MAX_SEALING_BYTES


def digest_of_bytes(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def artifact_of_bytes(data: bytes) -> ArtifactRef:
    """The reference that `data` answers to."""
    return ArtifactRef(digest=digest_of_bytes(data), size=len(data))


def artifact_of_file(path: Path) -> ArtifactRef:
    """The reference of a file's bytes, read in chunks so that size does not matter."""
    digest, size = hashlib.sha256(), 0
    chunk = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(chunk):
            digest.update(chunk[:read])
            size += read
    return ArtifactRef(digest=digest.hexdigest(), size=size)
