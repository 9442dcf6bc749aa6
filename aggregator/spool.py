"""Blobs on the coordinator's disk, under their digest: downloaded once, verified whenever used."""

from pathlib import Path

from aggregator.coordinator import Coordinator
from data_contracts.artifact import ArtifactRef, artifact_of_file
from infra.durable_files import keep_durably
from infra.object_store import Bucket


def spool(c: Coordinator, bucket: Bucket, ref: ArtifactRef, version: str | None = None) -> Path:
    """A blob on local disk, verified; of a version where one is given."""
    path, _ = spool_with_version(c, bucket, ref, version)
    return path


def spool_with_version(
    c: Coordinator, bucket: Bucket, ref: ArtifactRef, version: str | None = None
) -> tuple[Path, str | None]:
    """As `spool`, with the version that was read now; None where the file was there already."""
    path = spool_path(c, ref)
    if path.exists() and artifact_of_file(path) == ref:
        return path, version
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, bucket.download_blob(ref, path, version)


def spool_own(c: Coordinator, file: Path, ref: ArtifactRef) -> None:
    """Take a file that the coordinator made, and that is `ref`, for what `spool` would fetch."""
    keep_durably(file, spool_path(c, ref))


def spool_path(c: Coordinator, ref: ArtifactRef) -> Path:
    """Where `spool` keeps a blob."""
    return c.workspace / "spool" / f"{ref.digest}.safetensors"
