"""Blobs on the coordinator's disk, under their digest: downloaded once, verified whenever used."""

from pathlib import Path

from aggregator.coordinator import Coordinator
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import blob_key
from infra.disk.durable_files import keep_durably
from infra.storage.object_store import Bucket

SPOOL = "spool"


def spool(c: Coordinator, bucket: Bucket, ref: ArtifactRef, version: str | None = None) -> Path:
    """A blob on local disk, verified; of a version where one is given."""
    path = spool_path(c, ref)
    if not _is_spooled(c, path, ref):
        _download(c, bucket, ref, version)
    return path


def spool_submitted(c: Coordinator, inbox: Bucket, ref: ArtifactRef) -> tuple[Path, str | None]:
    """A blob that lies in this very inbox, and its version there.

    That the coordinator has a file of that digest from elsewhere is no sign that this silo has it:
    digests can be read in the plans bucket, so whoever names one has to show the bytes.
    """
    path = spool_path(c, ref)
    if not _is_spooled(c, path, ref):
        return path, _download(c, inbox, ref, None)
    found = inbox.stat(blob_key(ref.digest))
    inbox.verify_blob(ref, found.version if found else None)
    return path, found.version if found else None


def _download(c: Coordinator, bucket: Bucket, ref: ArtifactRef, version: str | None) -> str | None:
    path = spool_path(c, ref)
    found = bucket.download_blob(ref, path, version)
    c.spooled.learn(path, ref)
    return found


def _is_spooled(c: Coordinator, path: Path, ref: ArtifactRef) -> bool:
    """A file that has not changed since it was hashed is not hashed again."""
    return path.exists() and c.spooled.artifact(path) == ref


def spool_own(c: Coordinator, file: Path, ref: ArtifactRef) -> None:
    """Take a file that the coordinator made, and that is `ref`, for what `spool` would fetch."""
    keep_durably(file, spool_path(c, ref))


def spool_path(c: Coordinator, ref: ArtifactRef) -> Path:
    """Where `spool` keeps a blob."""
    return c.workspace / SPOOL / f"{ref.digest}.safetensors"
