"""The bytes under a listed key, as far as whoever wrote them has kept to the layout."""

from data_contracts.errors import UntrustedInputError, contradiction
from data_contracts.protocol.bucket_layout import digest_in_key
from data_contracts.protocol.envelope import document_digest
from infra.storage.object_store import (
    UNREADABLE,
    BoundExceededError,
    Bucket,
    ObjectInfo,
    StoredObject,
    is_unreadable_alone,
)


def stored_document(bucket: Bucket, info: ObjectInfo, max_bytes: int) -> StoredObject:
    """Object of a listed record key; raises UntrustedInputError unless its digest is its bytes'."""
    found = stored_object(bucket, info, max_bytes)
    if not is_named(found.data, info.key):
        raise contradiction(
            info.key, "bytes with the digest in the key", "other bytes", "slot.digest"
        )
    return found


def is_named(document: bytes, key: str) -> bool:
    """Whether a document is the one whose digest its key ends in."""
    try:
        return document_digest(document) == digest_in_key(key)
    except UntrustedInputError:
        return False


def stored_object(bucket: Bucket, info: ObjectInfo, max_bytes: int) -> StoredObject:
    """The object; one that has grown or gone since the listing is its writer's doing."""
    bound = f"an object of at most {max_bytes} bytes"
    if info.size > max_bytes:
        raise contradiction(info.key, bound, f"{info.size} bytes", "slot.size")
    try:
        found = bucket.read(info.key, max_bytes)
    except BoundExceededError as error:
        raise contradiction(info.key, bound, error.found, "slot.size") from None
    except UNREADABLE as error:
        if not is_unreadable_alone(bucket, info.key):
            raise
        raise contradiction(
            info.key, "one that can be read", error.found, "slot.unreadable"
        ) from None
    if found is None:
        raise contradiction(info.key, bound, "none", "slot.gone")
    return found
