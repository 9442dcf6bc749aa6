"""Reference to bytes by what they are: their digest and size, never by where they lie."""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_contracts.protocol.wire_types import Digest, Part

CHUNK_BYTES = 256 * 1024
"""Read into one buffer, small enough to stay in the cache."""


class ArtifactRef(Part):
    """SHA-256 (lower-case hex) and size in bytes of a blob in object storage.

    `ciphertext` is the digest of the bytes as they lie there, where they are encrypted. Nothing
    writes it yet, and a blob that has one is refused: its place in the records is kept.
    """

    digest: Digest
    size: Annotated[int, Field(ge=0, le=2**53 - 1)]
    ciphertext: Digest | None = None


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
