"""What a party signed last is found beside whatever else lies in its bucket."""

import pytest

from data_contracts.protocol.bucket_layout import attempt_of_record, record_key, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Acceptance, Refusal, RoundRecord
from infra.records.newest_records import newest_records
from infra.records.seen import SeenEnvelopes
from infra.storage.object_store import Bucket
from tests.aggregator.federation_samples import federation, key
from tests.simulator.memory_bucket import InMemoryBucket

FED = federation()
SILO, OTHER = FED.plan.record.cohort[:2]
ACCEPTANCE = FED.acceptance(SILO)
LIMIT = 1 << 20


def place(verified: Verified[RoundRecord], record: RoundRecord | None = None) -> str:
    """The key of a record, or that which it would have as another one."""
    named = record or verified.record
    slot = round_slot(attempt_of_record(named), named.kind)
    return record_key(slot, verified.digest)


def put(bucket: InMemoryBucket, verified: Verified[RoundRecord], at: str | None = None) -> str:
    """Where it was put: in its own place, or `at` another."""
    where = at or place(verified)
    bucket.put(where, verified.envelope)
    return where


@pytest.fixture
def bucket() -> InMemoryBucket:
    """With the one record that is to be found, whatever a test puts beside it."""
    bucket = InMemoryBucket("inbox")
    put(bucket, ACCEPTANCE)
    return bucket


def found(bucket: Bucket, silo: str = SILO) -> list[str]:
    keys = {key(silo).public_key_hex}
    return [v.digest for v in newest_records(bucket, (Acceptance, Refusal), keys, silo)]


def test_what_is_no_record_by_its_key_is_not_read(bucket: InMemoryBucket) -> None:
    slot = place(ACCEPTANCE).rpartition("/")[0]
    for name in ("notes.txt", f"{ACCEPTANCE.digest}.txt", "readme"):
        bucket.put(f"{slot}/{name}", ACCEPTANCE.envelope)
    assert found(bucket) == [ACCEPTANCE.digest]


def test_a_kind_that_was_not_asked_for_is_passed_over(bucket: InMemoryBucket) -> None:
    put(bucket, FED.verdict(SILO))
    assert found(bucket) == [ACCEPTANCE.digest]


def test_what_another_key_signed_is_passed_over(bucket: InMemoryBucket) -> None:
    others, own = InMemoryBucket("others"), FED.acceptance(OTHER)
    put(others, own)
    assert found(others, OTHER) == [own.digest], "a key that counts elsewhere"
    put(bucket, seal(ACCEPTANCE.record, key(OTHER)))
    assert found(bucket) == [ACCEPTANCE.digest]


def test_what_lies_in_another_slot_than_its_own_is_passed_over(bucket: InMemoryBucket) -> None:
    later = ACCEPTANCE.record.model_copy(update={"round": ACCEPTANCE.record.round + 1})
    put(bucket, ACCEPTANCE, at=place(ACCEPTANCE, later))
    assert found(bucket) == [ACCEPTANCE.digest]


def test_what_names_another_silo_is_passed_over(bucket: InMemoryBucket) -> None:
    put(bucket, seal(ACCEPTANCE.record.model_copy(update={"silo": OTHER}), key(SILO)))
    assert found(bucket) == [ACCEPTANCE.digest]


def test_a_version_with_other_bytes_than_its_key_says_is_none() -> None:
    bucket, seen = InMemoryBucket("inbox"), SeenEnvelopes()
    where = place(ACCEPTANCE)
    bucket.put(where, FED.acceptance(OTHER).envelope)
    assert seen.read_version(bucket, where, None, LIMIT) is None
    put(bucket, ACCEPTANCE)
    assert seen.read_version(bucket, where, None, LIMIT) == ACCEPTANCE.envelope
