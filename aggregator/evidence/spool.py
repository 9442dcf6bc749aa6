"""Blobs on the coordinator's disk: downloaded once, opened on the way, verified whenever used.

The coordinator's own lie under their digest. What a silo sent encrypted lies apart, in a folder of
its attempt that nobody else on the machine can look into, under the silo's name: that another silo
sent the same is no sign that this one has it. `aggregator.upkeep.disk_pruning` removes that folder
once the attempt is reported.
"""

from dataclasses import dataclass
from pathlib import Path

from aggregator.coordinator import Coordinator
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import PLAN_DIGITS, blob_key
from infra.disk.blob_files import Opener
from infra.disk.durable_files import keep_durably
from infra.encryption.encrypted_files import opener
from infra.storage.object_store import Bucket

SPOOL, OPENED = "spool", "opened"


@dataclass(frozen=True)
class Blob:
    """A blob, where it lies on this disk once it was read, and what opens it if it is encrypted."""

    ref: ArtifactRef
    path: Path
    opened: Opener | None = None


def spool(c: Coordinator, bucket: Bucket, ref: ArtifactRef, version: str | None = None) -> Path:
    """A blob on local disk, verified; of a version where one is given."""
    return spool_blob(c, bucket, own_blob(c, ref), version)


def spool_blob(c: Coordinator, bucket: Bucket, blob: Blob, version: str | None = None) -> Path:
    """As `spool`."""
    if not _is_spooled(c, blob):
        _download(c, bucket, blob, version)
    return blob.path


def spool_submitted(c: Coordinator, inbox: Bucket, blob: Blob) -> tuple[Path, str | None]:
    """A blob that lies in this very inbox, and its version there.

    That the coordinator has a file of that digest from elsewhere is no sign that this silo has it:
    digests can be read in the plans bucket, so whoever names one has to show the bytes.
    """
    if not _is_spooled(c, blob):
        return blob.path, _download(c, inbox, blob, None)
    found = inbox.stat(blob_key(blob.ref.stored.digest))
    inbox.verify_blob(blob.ref.stored, found.version if found else None)
    return blob.path, found.version if found else None


def own_blob(c: Coordinator, ref: ArtifactRef) -> Blob:
    """One that the coordinator made, or that a silo sent as it is."""
    opened = None if ref.ciphertext is None else opener(c.identities)
    return Blob(ref, spool_path(c, ref), opened)


def opened_directory(c: Coordinator, plan_digest: str) -> Path:
    """Where what silos sent encrypted in an attempt lies opened."""
    return c.workspace / OPENED / plan_digest[:PLAN_DIGITS]


def _download(c: Coordinator, bucket: Bucket, blob: Blob, version: str | None) -> str | None:
    found = bucket.download_blob(blob.ref, blob.path, version, blob.opened)
    c.spooled.learn(blob.path, blob.ref.plain)
    return found


def _is_spooled(c: Coordinator, blob: Blob) -> bool:
    """A file that has not changed since it was hashed is not hashed again."""
    return blob.path.exists() and c.spooled.artifact(blob.path) == blob.ref.plain


def spool_own(c: Coordinator, file: Path, ref: ArtifactRef) -> None:
    """Take a file that the coordinator made, and that is `ref`, for what `spool` would fetch."""
    keep_durably(file, spool_path(c, ref))


def spool_path(c: Coordinator, ref: ArtifactRef) -> Path:
    """Where `spool` keeps a blob."""
    return c.workspace / SPOOL / f"{ref.digest}.safetensors"
