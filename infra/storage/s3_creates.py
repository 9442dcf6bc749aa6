"""Creates on S3: of several for one key one wins, and an object in parts is there whole or not."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from data_contracts.protocol.artifact import ArtifactRef
from infra.disk.blob_files import read_parts
from infra.storage.s3_client import S3Settings, error_code, status_of, translated

PART_BYTES = 32 * 1024 * 1024
MAX_PARTS = 10_000
CREATE_ATTEMPTS = 5
BACKOFF_SECONDS = 0.2

_LOG = logging.getLogger(__name__)


def create_bucket(client: Any, settings: S3Settings, name: str, **options: bool) -> None:
    """Create a bucket unless it is there; raises StorageError."""
    with translated(settings, name):
        try:
            client.create_bucket(Bucket=name, **options)
        except ClientError as error:
            if error_code(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


def create_once(request: Callable[[], object]) -> bool:
    """Whether `request` created its object; False when the key was taken before."""
    for attempt in range(1, CREATE_ATTEMPTS + 1):
        try:
            request()
            return True
        except ClientError as error:
            if status_of(error) == 412:
                return False
            # 409 ConditionalRequestConflict: S3 asks for the whole create to be repeated.
            if status_of(error) != 409 or attempt == CREATE_ATTEMPTS:
                raise
            time.sleep(BACKOFF_SECONDS * attempt)
    return False


def upload_parts(client: Any, place: dict[str, str], path: Path, ref: ArtifactRef) -> None:
    """Create the object at `place` (Bucket, Key) from a file whose bytes must match `ref`.

    One part of it is in memory.
    """
    upload = {**place, "UploadId": client.create_multipart_upload(**place)["UploadId"]}
    part_bytes = max(PART_BYTES, math.ceil(ref.size / MAX_PARTS))
    try:
        parts = []
        for number, body in enumerate(read_parts(path, ref, part_bytes), start=1):
            answer = client.upload_part(**upload, PartNumber=number, Body=body)
            parts.append({"ETag": answer["ETag"], "PartNumber": number})
        whole = {"MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
        client.complete_multipart_upload(**upload, **whole)
    except BaseException:
        _abandon(client, upload)
        raise


def _abandon(client: Any, upload: dict[str, str]) -> None:
    try:
        client.abort_multipart_upload(**upload)
    except (BotoCoreError, ClientError) as error:
        # The upload has failed already, and that is the error to raise; what stays behind
        # takes space but is no object.
        bucket = upload["Bucket"]
        _LOG.warning("unfinished upload left in %s: %s", bucket, type(error).__name__)
