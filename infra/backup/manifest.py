"""What a backup says of itself: whose home it is, who wrote it when, its files by their digests."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.program_version import is_later, program_version
from data_contracts.protocol.wire_types import Count, Digest, FederationId, Instant, Part, SiloId
from data_contracts.shown_text import is_visible

FORMAT = 1

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


def manifest_in(file: Path, text: bytes) -> Manifest:
    """The manifest of the backup `file`; raises ConsortiaError for one that cannot be restored."""
    _require_known_format(file, text)
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise damaged(file, f"a manifest with {error.error_count()} faults") from None
    _require_paths(file, manifest)
    return manifest


def require_ours(file: Path, manifest: Manifest, role: Role) -> None:
    """Raise ConsortiaError for the manifest of another program's home."""
    if manifest.role != role or (manifest.silo is None) != (role == "coordinator"):
        command = "silo-agent restore" if manifest.role == "silo" else "consortia restore"
        raise ConsortiaError(
            f"backup {file}",
            expected=f"one of a {role}",
            found=f"one of {owner_of(manifest)}",
            action=f"restore it with `{command}`, or take the backup of this side",
        )


def damaged(file: Path, found: str) -> ConsortiaError:
    """The error for a backup that is not as it was written."""
    return ConsortiaError(
        f"backup {file}",
        expected="the file as it was written",
        found=found,
        action="take another copy of it, or an earlier backup; nothing was restored",
    )


def _kept(path: str, file: BufferedReader) -> KeptFile:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return KeptFile(path=path, size=file.tell(), digest=digest)


class _Written(Part, extra="ignore"):
    """What every version's manifest says, whatever else is in it."""

    format: int
    program: str


def _require_known_format(file: Path, text: bytes) -> None:
    """First, because a later manifest may have fields that this version does not know."""
    try:
        written = _Written.model_validate_json(text)
    except ValidationError:
        raise damaged(file, "a manifest without its version") from None
    if written.format > FORMAT or is_later(written.program, program_version()):
        raise ConsortiaError(
            f"backup {file}",
            expected=f"one written by version {program_version()} or an earlier one",
            found=f"one written by version {written.program[:80]!a}",
            action="upgrade Consortia on this machine to that version or a later one, then "
            "restore again",
        )


def _require_paths(file: Path, manifest: Manifest) -> None:
    paths = [kept.path for kept in manifest.files]
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if len({*paths, *folders}) != len(paths) + len(folders) or not all(map(_is_inside, paths)):
        raise damaged(file, "a path that is there twice or leads out of the home directory")


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return is_visible(path) and ".." not in parts and path == "/".join(parts) and path[0] != "/"
