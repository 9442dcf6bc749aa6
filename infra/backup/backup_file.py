"""One file that holds files of a home directory, and a manifest with the digest of each.

It is a tar archive of one form only: the manifest first, then its files in its order, every header
the one that follows from name and size. A reader knows each byte but the files' own before it reads
it, so that links, devices, paths that lead elsewhere and anything added are never interpreted. The
same files and manifest give the same bytes; with a passphrase they are encrypted as a whole.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Literal

from pydantic import Field, ValidationError

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.program_version import is_later, program_version
from data_contracts.protocol.wire_types import Count, Digest, FederationId, Instant, Part, SiloId
from data_contracts.shown_text import is_visible
from infra.backup.sealed_file import (
    MAGIC,
    ByteSink,
    ByteSource,
    PlainSink,
    SealingSink,
    UnsealingSource,
)
from infra.disk.durable_files import PRIVATE_MODE, new_file

FORMAT = 1
MANIFEST_NAME = re.compile(r"manifest-[0-9a-f]{64}\.json")
"""With the digest of its own bytes."""
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
END = bytes(2 * tarfile.BLOCKSIZE)
FOLDER_MODE = 0o700

Role = Literal["coordinator", "silo"]


class KeptFile(Part):
    """A file by its path in the home directory."""

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    size: Count
    digest: Digest


class Manifest(Part):
    """Whose home it is, when and by which version it was written, and its files."""

    format: int
    program: Annotated[str, Field(max_length=80)]
    role: Role
    federation: FederationId
    silo: SiloId | None
    made_at: Instant
    files: tuple[KeptFile, ...]


@dataclass(frozen=True)
class Owner:
    """Whose home directory a backup is of; `silo` None is the coordinator's."""

    federation: str
    silo: str | None = None

    @property
    def role(self) -> Role:
        """Which of the two programs it belongs to."""
        return "silo" if self.silo else "coordinator"

    def __str__(self) -> str:
        return f"{self.silo or 'the coordinator'} in {self.federation}"


def owner_of(manifest: Manifest) -> Owner:
    """Whose home directory the manifest says that it is of."""
    return Owner(manifest.federation, manifest.silo)


def manifest_of(
    owner: Owner, made_at: Instant, files: Sequence[tuple[str, BufferedReader]]
) -> Manifest:
    """The manifest of open files by their path; a file is read from its beginning."""
    return Manifest(
        format=FORMAT,
        program=program_version(),
        role=owner.role,
        federation=owner.federation,
        silo=owner.silo,
        made_at=made_at,
        files=tuple(_kept(path, file) for path, file in files),
    )


def write_backup(
    out: Path, manifest: Manifest, files: Sequence[BufferedReader], passphrase: str | None
) -> None:
    """Write `files`, those of the manifest in its order, to the new file `out`, mode 0600.

    Either it is there and whole, or it is not there. Raises ConsortiaError where `out` exists.
    """
    with new_file(out) as target:
        sink = SealingSink(target, passphrase) if passphrase else PlainSink(target)
        text = manifest.model_dump_json(indent=1).encode()
        sink.write(_header(_manifest_name(text), len(text)) + text + _padding(len(text)))
        for kept, file in zip(manifest.files, files, strict=True):
            _copy_in(sink, kept, file)
        sink.write(END)
        sink.finish()


def unpack_backup(file: Path, role: Role, into: Path, passphrase: str | None) -> Manifest:
    """Write a backup's files below `into`, an empty folder; returns its manifest.

    Raises ConsortiaError for anything but an undamaged backup of this role, written by this
    version or an earlier one; what was written until then is the caller's to remove.
    """
    with file.open("rb") as opened:
        source = _source(file, opened, passphrase)
        manifest = _manifest(file, source)
        _require_ours(file, manifest, role)
        for kept in manifest.files:
            _copy_out(file, source, kept, into)
        if source.read(len(END) + 1) != END:
            raise _damaged(file, "more or less behind the last file")
    return manifest


def _kept(path: str, file: BufferedReader) -> KeptFile:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return KeptFile(path=path, size=file.tell(), digest=digest)


def _copy_in(sink: ByteSink, kept: KeptFile, file: BufferedReader) -> None:
    file.seek(0)
    sink.write(_header(kept.path, kept.size))
    left = kept.size
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        sink.write(chunk)
        left -= len(chunk)
    if left:
        raise ConsortiaError(
            kept.path,
            expected=f"{kept.size} bytes, as when it was looked at",
            found="fewer",
            action="let nobody edit the home directory meanwhile, and make the backup again",
        )
    sink.write(_padding(kept.size))


def _copy_out(file: Path, source: ByteSource, kept: KeptFile, into: Path) -> None:
    header = _header(kept.path, kept.size)
    if source.read(len(header)) != header:
        raise _damaged(file, f"something else in place of {kept.path}")
    path = into / kept.path
    path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as target:
        digest, left = hashlib.sha256(), kept.size
        while left and (chunk := source.read(min(left, CHUNK_BYTES))):
            digest.update(chunk)
            target.write(chunk)
            left -= len(chunk)
        os.fsync(target.fileno())
    padding = _padding(kept.size)
    if digest.hexdigest() != kept.digest or source.read(len(padding)) != padding:
        raise _damaged(file, f"other bytes in {kept.path}")


def _source(file: Path, opened: BinaryIO, passphrase: str | None) -> ByteSource:
    is_sealed = opened.read(len(MAGIC)) == MAGIC
    if is_sealed and passphrase:
        return UnsealingSource(opened, passphrase)
    if is_sealed or passphrase:
        raise ConsortiaError(
            f"backup {file}",
            expected="a passphrase for one that is encrypted, and none for another",
            found="an encrypted one and none" if is_sealed else "a passphrase, and a plain file",
            action="give --passphrase-file"
            if is_sealed
            else "find out why it is not encrypted; if that is right, leave --passphrase-file out",
        )
    opened.seek(0)
    return opened


def _manifest(file: Path, source: ByteSource) -> Manifest:
    header = source.read(tarfile.BLOCKSIZE)
    try:
        claimed = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        raise _damaged(file, "no manifest at its beginning") from None
    name, size = claimed.name, claimed.size
    if not MANIFEST_NAME.fullmatch(name) or not 0 < size <= MAX_MANIFEST_BYTES:
        raise _damaged(file, "no manifest at its beginning")
    text, padding = source.read(size), _padding(size)
    is_whole = name == _manifest_name(text) and header == _header(name, size)
    if not is_whole or source.read(len(padding)) != padding:
        raise _damaged(file, "another manifest than was written")
    _require_known_format(file, text)
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(file, f"a manifest with {error.error_count()} faults") from None
    _require_paths(file, manifest)
    return manifest


def _manifest_name(text: bytes) -> str:
    return f"manifest-{digest_of_bytes(text)}.json"


class _Written(Part, extra="ignore"):
    """What every version's manifest says, whatever else is in it."""

    format: int
    program: str


def _require_known_format(file: Path, text: bytes) -> None:
    """First, because a later manifest may have fields that this version does not know."""
    try:
        written = _Written.model_validate_json(text)
    except ValidationError:
        raise _damaged(file, "a manifest without its version") from None
    if written.format > FORMAT or is_later(written.program, program_version()):
        raise ConsortiaError(
            f"backup {file}",
            expected=f"one written by version {program_version()} or an earlier one",
            found=f"one written by version {written.program[:80]!a}",
            action="upgrade Consortia on this machine to that version or a later one, then "
            "restore again",
        )


def _require_ours(file: Path, manifest: Manifest, role: Role) -> None:
    if manifest.role != role or (manifest.silo is None) != (role == "coordinator"):
        command = "silo-agent restore" if manifest.role == "silo" else "consortia restore"
        raise ConsortiaError(
            f"backup {file}",
            expected=f"one of a {role}",
            found=f"one of {owner_of(manifest)}",
            action=f"restore it with `{command}`, or take the backup of this side",
        )


def _require_paths(file: Path, manifest: Manifest) -> None:
    paths = [kept.path for kept in manifest.files]
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if len({*paths, *folders}) != len(paths) + len(folders) or not all(map(_is_inside, paths)):
        raise _damaged(file, "a path that is there twice or leads out of the home directory")


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return is_visible(path) and ".." not in parts and path == "/".join(parts) and path[0] != "/"


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, PRIVATE_MODE
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _damaged(file: Path, found: str) -> ConsortiaError:
    return ConsortiaError(
        f"backup {file}",
        expected="the file as it was written",
        found=found,
        action="take another copy of it, or an earlier backup; nothing was restored",
    )
