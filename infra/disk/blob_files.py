"""Blobs between local disk and storage: what is read or kept always matches its reference.

Guaranteed: a download appears under its final name only when complete and equal in size and SHA-256
to its reference; on any failure, a full disk included, nothing partial is left. A download is a
copy of what storage keeps, so it is not synced to disk: who finds one after a power cut compares it
with its reference and fetches it again if it differs.

What is encrypted in storage is opened as it arrives, in the same pass: the digest of the
ciphertext, then that of what comes out of it, and only where both are right is there a file.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from data_contracts.errors import StorageError, UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef
from infra.disk.durable_files import aside


class UnopenedError(Exception):
    """A ciphertext that the identities at hand do not open, or that is not whole; says which."""


class PlainWriter:
    """Takes the bytes of `ref` as they come out of a ciphertext; `fault` is what it has raised."""

    def __init__(self, file: BinaryIO, ref: ArtifactRef) -> None:
        self._file, self._ref = file, ref
        self._digest, self._size = hashlib.sha256(), 0
        self.fault: Exception | None = None

    def write(self, data: bytes) -> int:
        """Raises UntrustedInputError for more bytes than there may be, and OSError."""
        self._size += len(data)
        try:
            if self._size > self._ref.size:
                raise refused_blob(self._ref, f"more than {self._ref.size} bytes inside", "size")
            self._digest.update(data)
            self._file.write(data)
        except Exception as error:
            self.fault = error
            raise
        return len(data)

    def flush(self) -> None:
        """Whoever has the file closes it."""

    def finish(self) -> None:
        """Raise UntrustedInputError unless just the bytes of `ref` have come."""
        if self._size != self._ref.size:
            raise refused_blob(self._ref, f"{self._size} bytes inside", "size")
        if self._digest.hexdigest() != self._ref.digest:
            raise refused_blob(self._ref, f"SHA-256 {self._digest.hexdigest()} inside", "digest")


Opener = Callable[[Iterator[bytes], PlainWriter], None]
"""Writes what a ciphertext's chunks hold; raises UnopenedError, and what either side raises."""


def receive_blob(
    chunks: Iterable[bytes], ref: ArtifactRef, path: Path, opened: Opener | None = None
) -> None:
    """Write to `path` the bytes of `ref`, if `chunks` are what lies in storage of them.

    `opened` opens them where they are encrypted. Raises UntrustedInputError when they are not
    (`blob.size`, `blob.digest`: of what lies there, or of what is inside; `blob.unopened`), and
    ConsortiaError when the disk refuses.
    """
    if opened is None:
        _require_plain(ref)
    with aside(path, ref.size, is_synced=False) as temporary, temporary.open("wb") as file:
        if ref.ciphertext is None or opened is None:
            for chunk in checked_chunks(chunks, ref):
                file.write(chunk)
        else:
            _open_into(file, checked_chunks(chunks, ref.stored), ref, opened)


def _open_into(file: BinaryIO, stored: Iterator[bytes], ref: ArtifactRef, opened: Opener) -> None:
    """To the end of what lies there in any case: what is not what was signed is said to be that."""
    writer = PlainWriter(file, ref.plain)
    try:
        opened(stored, writer)
    except UnopenedError as error:
        for _ in stored:
            continue
        raise refused_blob(ref.stored, f"what cannot be opened: {error}", "unopened") from None
    for _ in stored:
        continue
    writer.finish()


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
                raise changed_file(path, ref, f"{left} bytes")
            if not left and digest.hexdigest() != ref.digest:
                raise changed_file(path, ref, "an empty file")
            while left:
                part = file.read(min(part_bytes, left))
                digest.update(part)
                left -= len(part)
                if not part or (not left and digest.hexdigest() != ref.digest):
                    raise changed_file(path, ref, f"digest {digest.hexdigest()}")
                yield part
    except OSError as error:
        raise changed_file(path, ref, error.strerror or str(error)) from error


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
        raise changed_file(path, ref, error.strerror or str(error)) from error
    if len(data) != ref.size:
        raise changed_file(path, ref, f"{left} bytes")
    return data


def _require_plain(ref: ArtifactRef) -> None:
    if ref.ciphertext is not None:
        raise UntrustedInputError(
            f"blob {ref.digest[:16]}",
            expected="a reference to bytes that are what it names",
            found=f"one to encrypted ones, SHA-256 {ref.ciphertext.digest}",
            action="ask the operator, who has to see that it can be opened here",
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


def changed_file(path: Path, ref: ArtifactRef, found: str) -> StorageError:
    """The error for a file on this disk that is not what is to be sent of it."""
    return StorageError(
        f"upload of {path}",
        expected=f"a file of {ref.size} bytes with SHA-256 {ref.digest}",
        found=found,
        action="nothing was published; create the file again and let the step run again",
    )
