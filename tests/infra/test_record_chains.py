"""Feed and membership chain as a dishonest coordinator or storage could leave them."""

import json

import pytest
import rfc8785

from data_contracts.artifact import digest_of_bytes
from data_contracts.bucket_layout import feed_slot, membership_slot, record_key
from data_contracts.envelope import Verified, key_id, seal
from data_contracts.errors import UntrustedInputError
from data_contracts.records import Abort, Membership, RoundPlan
from infra.record_store import read_feed, read_membership_chain, write_record
from infra.signing_keys import SigningKey
from tests.infra.record_samples import (
    COORDINATOR,
    HOUR,
    KEYS,
    NOW,
    STRANGER,
    abort,
    new_key,
    plan,
)
from tests.simulator.memory_bucket import InMemoryBucket


class TestFeed:
    def feed_of(self, *entries: Verified[RoundPlan] | Verified[Abort]) -> InMemoryBucket:
        bucket = InMemoryBucket("plans")
        for entry in entries:
            write_record(bucket, feed_slot(entry.record.feed_number), entry)
        return bucket

    def test_plans_and_aborts_in_order(self) -> None:
        first = plan(1, None)
        second = abort(2, first.digest)
        third = plan(3, second.digest)
        bucket = self.feed_of(first, second, third, plan(5, third.digest))
        assert read_feed(bucket, 1, KEYS) == [first, second, third]
        assert read_feed(bucket, 2, KEYS) == [second, third]
        assert read_feed(bucket, 3, KEYS, previous_digest=second.digest) == [third]
        assert read_feed(bucket, 4, KEYS) == []

    def test_a_strangers_plan_is_not_an_entry(self) -> None:
        assert read_feed(self.feed_of(plan(1, None, STRANGER)), 1, KEYS) == []

    def test_two_entries_for_one_number_halt(self) -> None:
        first = plan(1, None)
        bucket = self.feed_of(first, plan(2, first.digest), abort(2, first.digest))
        self.assert_refused(bucket, "feed.equivocation")

    def test_a_broken_chain_halts(self) -> None:
        first = plan(1, None)
        self.assert_refused(self.feed_of(first, plan(2, "9" * 64)), "feed.chain")
        self.assert_refused(self.feed_of(plan(1, "9" * 64)), "feed.chain")
        self.assert_refused(self.feed_of(abort(1, "9" * 64)), "feed.chain")
        with pytest.raises(UntrustedInputError, match="previous_digest 888"):
            read_feed(self.feed_of(plan(2, "9" * 64)), 2, KEYS, previous_digest="8" * 64)

    def test_an_entry_under_another_number_halts(self) -> None:
        bucket = InMemoryBucket("plans")
        write_record(bucket, feed_slot(1), plan(2, None))
        self.assert_refused(bucket, "feed.number")

    def assert_refused(self, bucket: InMemoryBucket, reason: str) -> None:
        with pytest.raises(UntrustedInputError) as caught:
            read_feed(bucket, 1, KEYS)
        assert caught.value.reason == reason


class TestMembership:
    roots = (new_key(), new_key(), new_key())

    def version(
        self,
        number: int,
        previous: str | None,
        signers: tuple[SigningKey, ...],
        roots: tuple[SigningKey, ...] | None = None,
        federation: str = "fed",
        threshold: int = 2,
    ) -> Verified[Membership]:
        record = Membership(
            federation=federation,
            issued_at=NOW,
            number=number,
            previous_digest=previous,
            expires_at=NOW + 24 * HOUR,
            root_keys=tuple(key.public_key_hex for key in roots or self.roots),
            root_threshold=threshold,
            coordinator_key=COORDINATOR.public_key_hex,
            silos=(),
        )
        return seal(record, *signers)

    def read(
        self, pinned: Verified[Membership], *later: tuple[int, Verified[Membership]]
    ) -> list[Verified[Membership]]:
        bucket = InMemoryBucket("plans")
        for number, version in later:
            write_record(bucket, membership_slot(number), version)
        return read_membership_chain(bucket, pinned)

    def assert_refused(
        self, pinned: Verified[Membership], later: tuple[int, Verified[Membership]], reason: str
    ) -> None:
        with pytest.raises(UntrustedInputError) as caught:
            self.read(pinned, later)
        assert caught.value.reason == reason

    def test_root_keys_can_rotate_step_by_step(self) -> None:
        one = self.version(1, None, self.roots[:2])
        new = (*self.roots[1:], new_key())
        two = self.version(2, one.digest, (*self.roots[:2], new[1]), new)
        three = self.version(3, two.digest, new[:2], new)
        assert self.read(one) == [one]
        assert self.read(one, (2, two), (3, three)) == [one, two, three]
        assert self.read(two, (2, two), (3, three)) == [two, three]

    def test_a_rollback_is_refused(self) -> None:
        one = self.version(1, None, self.roots[:2])
        two = self.version(2, one.digest, self.roots[:2])
        self.assert_refused(two, (3, one), "membership.number")
        self.assert_refused(two, (3, two), "membership.number")

    def test_another_federation_is_refused(self) -> None:
        one = self.version(1, None, self.roots[:2])
        other = self.version(2, one.digest, self.roots[:2], federation="other")
        self.assert_refused(one, (2, other), "membership.federation")

    def test_another_history_is_refused(self) -> None:
        one = self.version(1, None, self.roots[:2])
        two = self.version(2, "9" * 64, self.roots[:2])
        self.assert_refused(one, (2, two), "membership.chain")

    def test_too_few_signatures_are_refused(self) -> None:
        one = self.version(1, None, self.roots[:2])
        single = self.version(2, one.digest, self.roots[:1])
        self.assert_refused(one, (2, single), "membership.slot")

    def test_lowering_the_threshold_needs_the_old_threshold(self) -> None:
        one = self.version(1, None, self.roots[:2])
        lower = self.version(2, one.digest, self.roots[:1], threshold=1)
        self.assert_refused(one, (2, lower), "membership.slot")

    def test_the_new_roots_must_sign_too(self) -> None:
        one = self.version(1, None, self.roots[:2])
        unsigned = self.version(2, one.digest, self.roots[:2], (new_key(), new_key()))
        self.assert_refused(one, (2, unsigned), "envelope.signature")

    def test_the_new_roots_alone_are_not_enough(self) -> None:
        one = self.version(1, None, self.roots[:2])
        taken = (new_key(), new_key())
        self.assert_refused(one, (2, self.version(2, one.digest, taken, taken)), "membership.slot")

    def test_one_key_twice_counts_once(self) -> None:
        one = self.version(1, None, self.roots[:2])
        twice = self.version(2, one.digest, (self.roots[0], self.roots[0]))
        self.assert_refused(one, (2, twice), "membership.slot")

    def test_one_key_under_two_ids_counts_once(self) -> None:
        one = self.version(1, None, self.roots[:2])
        twice = json.loads(self.version(2, one.digest, (self.roots[0], self.roots[0])).envelope)
        twice["signatures"][1]["keyid"] = key_id(self.roots[1].public_key_hex)
        renamed = rfc8785.dumps(twice)
        bucket = InMemoryBucket("plans")
        bucket.put_once(record_key(membership_slot(2), digest_of_bytes(renamed)), renamed)
        with pytest.raises(UntrustedInputError, match=r"rejected: envelope\.signature"):
            read_membership_chain(bucket, one)

    def test_two_successors_halt(self) -> None:
        one = self.version(1, None, self.roots[:2])
        left = self.version(2, one.digest, self.roots[:2])
        right = self.version(2, one.digest, self.roots[1:])
        with pytest.raises(UntrustedInputError, match="2 valid versions"):
            self.read(one, (2, left), (2, right))
