"""The newest records that one party has signed in a bucket, whatever else was put beside them.

For whoever has lost what it remembered: what it signed itself says how far it had come.
"""

from collections.abc import Collection, Iterable
from itertools import groupby

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import (
    ROUNDS_PREFIX,
    attempt_of_record,
    round_slot,
)
from data_contracts.protocol.envelope import Verified, max_document_bytes, verify
from data_contracts.protocol.records import RoundRecord
from infra.records.documents import stored_document
from infra.storage.object_store import Bucket, ObjectInfo

ROUNDS = 2
"""The round in hand, and the one before, whose submission a compressed one goes on from."""


def newest_records(
    bucket: Bucket,
    types: Iterable[type[RoundRecord]],
    keys: Collection[str],
    silo: str | None = None,
) -> list[Verified[RoundRecord]]:
    """Every valid record of `types` in the newest rounds of each run in which there are any.

    In the order of their keys; of one slot there may be two. Whatever does not verify with `keys`,
    lies in another slot than its own, or is another silo's, is passed over. Raises StorageError.
    """
    by_kind = {record_type.kind: record_type for record_type in types}
    listed = bucket.list_keys(ROUNDS_PREFIX)
    found: list[Verified[RoundRecord]] = []
    for _, of_run in groupby(sorted(listed, key=lambda i: i.key, reverse=True), key=_run):
        rounds = 0
        for _, infos in groupby(of_run, key=_round):
            read = [_valid(bucket, info, by_kind, keys, silo) for info in infos]
            valid = [verified for verified in read if verified is not None]
            found += valid
            rounds += bool(valid)
            if rounds == ROUNDS:
                break
    return sorted(found, key=lambda v: (v.record.run, v.record.round, v.record.attempt, v.digest))


def _run(info: ObjectInfo) -> str:
    return info.key.split("/")[1]


def _round(info: ObjectInfo) -> str:
    return "/".join(info.key.split("/")[1:3])


def _valid(
    bucket: Bucket,
    info: ObjectInfo,
    by_kind: dict[str, type[RoundRecord]],
    keys: Collection[str],
    silo: str | None,
) -> Verified[RoundRecord] | None:
    slot = info.key.rpartition("/")[0]
    record_type = by_kind.get(slot.rpartition("/")[2])
    if record_type is None:
        return None
    try:
        stored = stored_document(bucket, info, max_document_bytes(record_type))
        verified = verify(stored.data, record_type, keys)
    except UntrustedInputError:
        return None
    own = round_slot(attempt_of_record(verified.record), record_type.kind)
    is_theirs = getattr(verified.record, "silo", None) == silo
    return verified if own == f"{slot}/" and is_theirs else None
