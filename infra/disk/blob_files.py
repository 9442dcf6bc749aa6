"""Blobs between local disk and storage: what is read or kept always matches its reference.

Guaranteed: a download appears under its final name only when complete and equal in size and SHA-256
to its reference; on any failure, a full disk included, nothing partial is left. A download is a
copy of what storage keeps, so it is not synced to disk: who finds one after a power cut compares it
with its reference and fetches it again if it differs.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_contracts.errors import StorageError, UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef
from infra.disk.durable_files import aside


def receive_blob(chunks: Iterable[bytes], ref: ArtifactRef, path: Path) -> None:
    """Write `chunks` to `path` if they are the bytes of `ref`.

    Raises UntrustedInputError when they are not, and ConsortiaError when the disk refuses.
    """
    _require_plain(ref)
    with aside(path, ref.size, is_synced=False) as temporary, temporary.open("wb") as file:
        for chunk in checked_chunks(chunks, ref):
            file.write(chunk)


def read_parts(path: Path, ref: ArtifactRef, part_bytes: int) -> Iterator[bytes]:
    """The file's bytes in parts; raises StorageError before the last one unless they match `ref`.

    The very bytes that are handed out are the ones that are checked, so a file that changes while
    it is read cannot be uploaded under a digest that is not its own.
    """
    _require_plain(ref)
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            left = os.fstat(file.fileno()).st_size
            if left != ref.size:
                raise _changed(path, ref, f"{left} bytes")
            if not left and digest.hexdigest() != ref.digest:
                raise _changed(path, ref, "an empty file")
            while left:
                part = file.read(min(part_bytes, left))
                digest.update(part)
                left -= len(part)
                if not part or (not left and digest.hexdigest() != ref.digest):
                    raise _changed(path, ref, f"digest {digest.hexdigest()}")
                yield part
    except OSError as error:
        raise _changed(path, ref, error.strerror or str(error)) from error


def read_whole(path: Path, ref: ArtifactRef) -> bytes:
    """The file's bytes if they are as many as `ref` says; whoever sends them compares the digest.

    Raises StorageError.
    """
    _require_plain(ref)
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size
            data = file.read() if left == ref.size else b""
    except OSError as error:
        raise _changed(path, ref, error.strerror or str(error)) from error
    if len(data) != ref.size:
        raise _changed(path, ref, f"{left} bytes")
    return data


def _require_plain(ref: ArtifactRef) -> None:
    if ref.ciphertext is not None:
        raise UntrustedInputError(
            f"blob {ref.digest[:16]}",
            expected="bytes that lie in storage as they are",
            found=f"a reference to encrypted ones, SHA-256 {ref.ciphertext}",
            action="use a release that reads encrypted blobs",
            rule="blob.encrypted",
        )


def refused_blob(ref: ArtifactRef, found: str, rule: str) -> UntrustedInputError:
    """The error for a stored blob that is not what its reference says."""
    return UntrustedInputError(
        f"blob {ref.digest[:16]}",
        expected=f"{ref.size} bytes with SHA-256 {ref.digest}",
        found=found,
        action="do not use it; whoever wrote it has to upload the bytes that the reference names",
        rule=f"blob.{rule}",
    )


def checked_chunks(chunks: Iterable[bytes], ref: ArtifactRef) -> Iterator[bytes]:
    """`chunks` as they come; raises UntrustedInputError before the end unless they are `ref`."""
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if size > ref.size:
            raise refused_blob(ref, f"more than {ref.size} bytes", "size")
        yield chunk
    if size != ref.size:
        raise refused_blob(ref, f"{size} bytes", "size")
    if digest.hexdigest() != ref.digest:
        raise refused_blob(ref, f"SHA-256 {digest.hexdigest()}", "digest")


def _changed(path: Path, ref: ArtifactRef, found: str) -> StorageError:
    return StorageError(
        f"upload of {path}",
        expected=f"a file of {ref.size} bytes with SHA-256 {ref.digest}",
        found=found,
        action="nothing was published; create the file again and let the step run again",
    )
