"""Blobs on the coordinator's disk, under their digest: downloaded once, verified whenever used."""

from pathlib import Path

from aggregator.coordinator import Coordinator
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.bucket_layout import blob_key
from infra.disk.durable_files import keep_durably
from infra.storage.object_store import Bucket

SPOOL = "spool"


def spool(c: Coordinator, bucket: Bucket, ref: ArtifactRef, version: str | None = None) -> Path:
    """A blob on local disk, verified; of a version where one is given."""
    path = spool_path(c, ref)
    if not _is_spooled(path, ref):
        bucket.download_blob(ref, path, version)
    return path


def spool_submitted(c: Coordinator, inbox: Bucket, ref: ArtifactRef) -> tuple[Path, str | None]:
    """A blob that lies in this very inbox, and its version there.

    That the coordinator has a file of that digest from elsewhere is no sign that this silo has it:
    digests can be read in the plans bucket, so whoever names one has to show the bytes.
    """
    path = spool_path(c, ref)
    if not _is_spooled(path, ref):
        return path, inbox.download_blob(ref, path)
    found = inbox.stat(blob_key(ref.digest))
    inbox.verify_blob(ref, found.version if found else None)
    return path, found.version if found else None


def _is_spooled(path: Path, ref: ArtifactRef) -> bool:
    return path.exists() and artifact_of_file(path) == ref


def spool_own(c: Coordinator, file: Path, ref: ArtifactRef) -> None:
    """Take a file that the coordinator made, and that is `ref`, for what `spool` would fetch."""
    keep_durably(file, spool_path(c, ref))


def spool_path(c: Coordinator, ref: ArtifactRef) -> Path:
    """Where `spool` keeps a blob."""
    return c.workspace / SPOOL / f"{ref.digest}.safetensors"
