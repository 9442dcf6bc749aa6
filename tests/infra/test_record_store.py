"""Slots and statuses as a dishonest or dying writer could leave them."""

from decimal import Decimal

import pytest

from data_contracts.errors import StorageError
from data_contracts.protocol.bucket_layout import (
    RoundId,
    record_key,
    round_slot,
    status_key,
    status_prefix,
)
from data_contracts.protocol.envelope import Verified, max_document_bytes, seal
from data_contracts.protocol.records import Acceptance, RoundRecord, Status
from infra.records.record_store import (
    MAX_SLOT_OBJECTS,
    Absent,
    Equivocation,
    Found,
    read_record,
    read_records,
    read_slot,
    write_record,
)
from infra.records.seen import SeenEnvelopes, SeenStatuses
from infra.signing_keys import SigningKey
from tests.infra.record_samples import NOW, ROUND, SILO, SILO_KEYS, STRANGER, abort, acceptance
from tests.simulator.memory_bucket import InMemoryBucket

SLOT = round_slot(ROUND, "acceptance")


class TestSlot:
    def test_one_valid_record_is_found_among_rubbish(self) -> None:
        bucket, valid = InMemoryBucket("inbox"), acceptance()
        write_record(bucket, SLOT, valid)
        write_record(bucket, SLOT, valid)
        write_record(bucket, SLOT, acceptance(key=STRANGER))
        bucket.put_once(f"{SLOT}claim", valid.envelope)
        bucket.put_once(f"{SLOT}readme.txt", b"hello")
        bucket.put_once(record_key(f"{SLOT}below/", valid.digest), valid.envelope)
        assert read_slot(bucket, SLOT, Acceptance, SILO_KEYS) == Found(valid)

    def test_an_empty_slot_is_absent(self) -> None:
        assert read_slot(InMemoryBucket("inbox"), SLOT, Acceptance, SILO_KEYS) == Absent()

    def test_each_invalid_object_has_its_rule(self) -> None:
        bucket = InMemoryBucket("inbox")
        bucket.put_once(record_key(SLOT, "1" * 64), acceptance().envelope)
        bucket.put_once(record_key(SLOT, "2" * 64), b"x" * (max_document_bytes(Acceptance) + 1))
        for record in (acceptance(key=STRANGER), abort(1, "f" * 64)):
            bucket.put_once(record_key(SLOT, record.digest), record.envelope)
        reading = read_slot(bucket, SLOT, Acceptance, SILO_KEYS)
        assert isinstance(reading, Absent)
        assert sorted(reading.rejected) == [
            "envelope.kind",
            "envelope.signature",
            "slot.digest",
            "slot.size",
        ]

    def test_two_valid_records_are_equivocation(self) -> None:
        bucket, records = InMemoryBucket("inbox"), [acceptance("1" * 64), acceptance("2" * 64)]
        for record in records:
            write_record(bucket, SLOT, record)
        digests = tuple(sorted(record.digest for record in records))
        assert read_slot(bucket, SLOT, Acceptance, SILO_KEYS) == Equivocation(digests)

    def test_a_flooded_slot_costs_a_bounded_number_of_reads(self) -> None:
        reads: list[str] = []
        bucket = InMemoryBucket("inbox", before=lambda operation, _: reads.append(operation))
        for number in range(MAX_SLOT_OBJECTS + 20):
            bucket.put(record_key(SLOT, f"{number:064x}"), b"{}")
        reading = read_slot(bucket, SLOT, Acceptance, SILO_KEYS)
        assert reading == Absent(("slot.digest",) * MAX_SLOT_OBJECTS)
        assert reads.count("get") == MAX_SLOT_OBJECTS

    def test_an_object_that_changes_after_the_listing_is_rejected(self) -> None:
        valid = acceptance()
        bucket = InMemoryBucket("inbox")
        write_record(bucket, SLOT, valid)
        objects = bucket.objects
        key = record_key(SLOT, valid.digest)

        def grow(operation: str, _: str) -> None:
            if operation == "get":
                objects[key] = b"x" * (max_document_bytes(Acceptance) + 1)

        def vanish(operation: str, _: str) -> None:
            if operation == "get":
                objects.clear()

        bucket.before = grow
        assert read_slot(bucket, SLOT, Acceptance, SILO_KEYS) == Absent(("slot.size",))
        objects[key] = valid.envelope
        bucket.before = vanish
        assert read_slot(bucket, SLOT, Acceptance, SILO_KEYS) == Absent(("slot.gone",))

    def test_a_storage_fault_is_not_absence(self) -> None:
        def unreachable(operation: str, key: str) -> None:
            raise StorageError("storage", expected="an answer", found="none", action="wait")

        bucket = InMemoryBucket("inbox", before=unreachable)
        with pytest.raises(StorageError):
            read_slot(bucket, SLOT, Acceptance, SILO_KEYS)


class TestStatuses:
    prefix = status_prefix(ROUND)

    def status(self, number: int, key: SigningKey = SILO) -> Verified[Status]:
        record = Status(
            federation="fed",
            issued_at=NOW,
            run="run-a",
            round=1,
            attempt=1,
            plan_digest="b" * 64,
            silo="silo-a",
            number=number,
            phase="training",
            step=number,
            steps=10,
            tokens_per_second=Decimal("1.5"),
            eta_seconds=5,
        )
        return seal(record, key)

    def test_the_newest_valid_one(self) -> None:
        bucket = InMemoryBucket("inbox")
        for number in (1, 2, 3):
            bucket.put(status_key(ROUND, number), self.status(number).envelope)
        bucket.put(status_key(ROUND, 4), self.status(4, STRANGER).envelope)
        bucket.put(status_key(ROUND, 5), self.status(2).envelope)
        bucket.put(f"{self.prefix}zzz", b"rubbish")
        newest = SeenStatuses(limit=10).read(bucket, self.prefix, SILO_KEYS)
        assert newest is not None
        assert newest.record.number == 3

    def test_no_more_than_the_limit_is_read(self) -> None:
        bucket = InMemoryBucket("inbox")
        bucket.put(status_key(ROUND, 1), self.status(1).envelope)
        for number in range(2, 6):
            bucket.put(status_key(ROUND, number), b"rubbish")
        assert SeenStatuses(limit=4).read(bucket, self.prefix, SILO_KEYS) is None
        assert SeenStatuses(limit=5).read(bucket, self.prefix, SILO_KEYS) is not None
        assert SeenStatuses().read(InMemoryBucket("empty"), self.prefix, SILO_KEYS) is None

    def test_what_was_seen_is_shown_until_there_is_a_newer_one(self) -> None:
        listed: list[int] = []
        bucket, seen = InMemoryBucket("inbox"), SeenStatuses()
        for number in range(1, 30):
            bucket.put(status_key(ROUND, number), self.status(number).envelope)
        for _ in range(2):
            newest = seen.read(bucket, self.prefix, SILO_KEYS)
            assert newest is not None and newest.record.number == 29
        bucket.before = lambda operation, _key: listed.append(operation == "get")
        seen.read(bucket, self.prefix, SILO_KEYS)
        assert listed == [False], "one listing, and nothing fetched again"
        bucket.put(status_key(ROUND, 30), self.status(30).envelope)
        newest = seen.read(bucket, self.prefix, SILO_KEYS)
        assert newest is not None and newest.record.number == 30


def test_a_genuine_record_of_something_else_is_not_in_the_slot() -> None:
    """Whoever can write to the bucket could copy it here, and frame its signer with it."""
    bucket, found = InMemoryBucket("inbox"), acceptance()
    write_record(bucket, round_slot(ROUND, Acceptance.kind), found)
    here = read_record(bucket, ROUND, Acceptance, SILO_KEYS, "silo-a")
    assert isinstance(here, Found) and here.verified == found
    other_plan = RoundId("run-a", 1, 1, "b" * 16 + "c" * 48)
    assert round_slot(other_plan, Acceptance.kind) == round_slot(ROUND, Acceptance.kind)
    for elsewhere in (
        read_record(bucket, other_plan, Acceptance, SILO_KEYS, "silo-a"),
        read_record(bucket, ROUND, Acceptance, SILO_KEYS, "silo-b"),
        read_record(bucket, ROUND, Acceptance, SILO_KEYS),
        read_record(bucket, ROUND, Acceptance, SILO_KEYS, "silo-a", lambda record: False),
    ):
        assert elsewhere == Absent(("slot.misplaced",))
    wanted: dict[type[RoundRecord], list[str]] = {Acceptance: SILO_KEYS}
    for reading in (
        read_records(bucket, ROUND, wanted, lambda _: False, SeenEnvelopes()),
        read_records(bucket, other_plan, wanted, lambda _: True, SeenEnvelopes()),
    ):
        assert reading.readings[Acceptance] == Absent(("slot.misplaced",))


def test_a_key_that_counts_elsewhere_counts_for_nothing_here() -> None:
    bucket = InMemoryBucket("inbox")
    write_record(bucket, SLOT, theirs := acceptance(key=STRANGER))

    def reading(keys: list[str]) -> object:
        wanted: dict[type[RoundRecord], list[str]] = {Acceptance: keys}
        found = read_records(bucket, ROUND, wanted, lambda _: True, SeenEnvelopes())
        return found.readings[Acceptance]

    assert reading([STRANGER.public_key_hex]) == Found(theirs)
    assert reading(SILO_KEYS) == Absent(("envelope.signature",))
