"""A reader asks for what is new, remembers what it has seen, and notices storage that forgets."""

import json
from pathlib import Path

import pytest

from data_contracts.errors import FederationOperatorError, SiloOperatorError, UntrustedInputError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.bucket_layout import feed_slot, membership_slot, record_key
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Abort, Membership, RoundPlan
from data_contracts.protocol.trusted_feed import FedAttempt, FeedEntry, FeedPosition
from infra.records.feed_reader import FeedReader
from infra.records.record_store import write_record
from infra.storage.single_writer import claim_key, claim_record
from tests.infra.record_samples import (
    COORDINATOR,
    FIRST,
    STRANGER,
    abort,
    membership,
    new_key,
    plan,
)
from tests.simulator.memory_bucket import InMemoryBucket

Entry = Verified[RoundPlan] | Verified[Abort]


class Storage:
    """A plans bucket that counts what is asked of it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.bucket = InMemoryBucket(
            "plans", before=lambda operation, key: self.requests.append((operation, key))
        )
        self.members(FIRST)

    def members(self, *versions: Verified[Membership]) -> None:
        for version in versions:
            write_record(self.bucket, membership_slot(version.record.number), version)

    def feed(self, *entries: Entry) -> None:
        for entry in entries:
            write_record(self.bucket, feed_slot(entry.record.feed_number), entry)

    def asked(self, reader: FeedReader) -> int:
        """Requests of one refresh."""
        self.requests.clear()
        reader.refresh()
        return len(self.requests)


@pytest.fixture
def storage() -> Storage:
    return Storage()


def reader_of(
    storage: Storage,
    home: Path,
    pinned: Verified[Membership] = FIRST,
    *,
    finishes_claims: bool = False,
) -> FeedReader:
    return FeedReader(home, storage.bucket, pinned, finishes_claims=finishes_claims)


def chain(length: int, after: Entry | None = None) -> list[Verified[Membership]]:
    versions = [FIRST]
    for number in range(2, length + 1):
        versions.append(membership(number, versions[-1], after))
    return versions


def entries(length: int, under: Verified[Membership] = FIRST) -> list[Verified[RoundPlan]]:
    made: list[Verified[RoundPlan]] = []
    for number in range(1, length + 1):
        previous = made[-1].digest if made else under.record.after_feed_digest
        made.append(plan(number, previous, under=under))
    return made


def test_it_reads_on_from_where_it_was(storage: Storage, tmp_path: Path) -> None:
    reader = reader_of(storage, tmp_path)
    assert reader.refresh().attempt is None
    one, two = entries(2)
    storage.feed(one)
    assert reader.refresh().attempt == FedAttempt(one)
    ended = abort(2, one.digest)
    storage.feed(ended)
    assert reader.refresh().attempt == FedAttempt(one, ended)
    assert reader_of(storage, tmp_path).refresh().attempt == FedAttempt(one, ended)
    assert two.digest != ended.digest


def test_how_far_a_run_had_come_is_kept_over_a_restart(storage: Storage, tmp_path: Path) -> None:
    first = plan(1, None, round=2)
    back = plan(2, first.digest, round=1)
    storage.feed(first)
    reader_of(storage, tmp_path).refresh()
    storage.feed(back)
    for _ in range(2):
        attempt = reader_of(storage, tmp_path).refresh().attempt
        assert attempt is not None and attempt.plan == back and attempt.goes_back


def test_what_an_earlier_release_kept_of_a_feed_is_read(storage: Storage, tmp_path: Path) -> None:
    storage.feed(first := plan(1, None))
    reader_of(storage, tmp_path).refresh()
    kept = json.loads((tmp_path / "feed.json").read_text())
    del kept["reached"]
    (tmp_path / "feed.json").write_text(json.dumps(kept))
    assert reader_of(storage, tmp_path).refresh().attempt == FedAttempt(first)


@pytest.mark.parametrize(("age", "rounds"), [(1, 1), (50, 100)])
def test_a_poll_costs_the_same_however_old_the_federation_is(
    storage: Storage, tmp_path: Path, age: int, rounds: int
) -> None:
    versions = chain(age)
    storage.members(*versions)
    storage.feed(*entries(rounds, versions[-1]))
    reader = reader_of(storage, tmp_path)
    reader.refresh()
    assert storage.asked(reader) == 2
    assert storage.asked(reader_of(storage, tmp_path)) == 2, "and after a restart"


def test_who_comes_late_reads_no_feed_from_before_the_newest_membership(
    storage: Storage, tmp_path: Path
) -> None:
    before = entries(60)
    newest = membership(2, FIRST, before[-1])
    storage.members(newest)
    storage.feed(*before)
    assert storage.asked(reader_of(storage, tmp_path)) == 2 + 1 + 1
    feed = reader_of(storage, tmp_path).refresh()
    assert feed.attempt is not None and feed.attempt.plan == before[-1]


def test_older_memberships_are_read_by_number_and_kept(storage: Storage, tmp_path: Path) -> None:
    versions = chain(5)
    storage.members(*versions)
    reader = reader_of(storage, tmp_path, versions[3])
    assert reader.refresh().memberships == tuple(versions)
    for number in range(1, 4):
        del storage.bucket.objects[record_key(membership_slot(number), versions[number - 1].digest)]
    assert reader_of(storage, tmp_path, versions[3]).refresh().memberships == tuple(versions)


def test_storage_that_forgets_what_was_seen_is_named(storage: Storage, tmp_path: Path) -> None:
    (one, two), newer = entries(2), membership(2, FIRST)
    storage.feed(one)
    before = dict(storage.bucket.objects)
    reader = reader_of(storage, tmp_path)
    reader.refresh()
    storage.feed(two)
    reader.refresh()
    whole = dict(storage.bucket.objects)
    for again in (reader, reader_of(storage, tmp_path)):
        storage.bucket.objects.clear()
        storage.bucket.objects.update(before)
        with pytest.raises(UntrustedInputError, match=r"plan feed in storage.*rolled back"):
            again.refresh()
    storage.bucket.objects.update(whole)
    storage.members(newer)
    reader.refresh()
    del storage.bucket.objects[record_key(membership_slot(2), newer.digest)]
    with pytest.raises(UntrustedInputError, match=r"memberships in storage.*rolled back"):
        reader.refresh()


def test_a_second_plan_at_the_newest_number_is_not_read_over(
    storage: Storage, tmp_path: Path
) -> None:
    one, two = entries(2)
    storage.feed(one)
    reader = reader_of(storage, tmp_path)
    reader.refresh()
    storage.feed(two, plan(2, one.digest, round=9))
    with pytest.raises(UntrustedInputError, match="feed entry 2"):
        reader.refresh()


def test_junk_beside_an_entry_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    (one,) = entries(1)
    stranger = plan(1, None, STRANGER)
    storage.bucket.put_once(record_key(feed_slot(1), "0" * 64), b"junk")
    storage.bucket.put_once(f"{feed_slot(1)}notes.txt", b"junk")
    storage.bucket.put_once("feed/none", b"junk")
    storage.feed(stranger, one)
    feed = reader_of(storage, tmp_path).refresh()
    assert feed.head == FeedPosition(1, one.digest)


class TestMemberships:
    def test_two_successors_halt(self, storage: Storage, tmp_path: Path) -> None:
        storage.members(membership(2, FIRST), membership(2, FIRST, silos=()))
        with pytest.raises(UntrustedInputError, match="2 valid versions"):
            reader_of(storage, tmp_path).refresh()

    def test_what_the_root_keys_have_not_signed_is_nothing(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        """Whoever can write to storage could otherwise stop everybody with one object."""
        stranger = new_key()
        fields = {"root_keys": (stranger.public_key_hex,), "retired_root_keys": ()}
        storage.members(membership(2, FIRST, None, stranger, **fields))
        storage.bucket.put_once(record_key(membership_slot(2), digest_of_bytes(b"{}")), b"{}")
        genuine = membership(2, FIRST)
        assert reader_of(storage, tmp_path).refresh().membership == FIRST
        storage.members(genuine)
        assert reader_of(storage, tmp_path).refresh().membership == genuine

    def test_a_claim_alone_is_no_membership(self, storage: Storage, tmp_path: Path) -> None:
        storage.bucket.put_once(claim_key(membership_slot(2), 1), membership(2, FIRST).envelope)
        assert reader_of(storage, tmp_path).refresh().membership == FIRST


class TestWhatIsKept:
    @pytest.mark.parametrize("owner", [FederationOperatorError, SiloOperatorError])
    @pytest.mark.parametrize("damage", ["{", "[]", '{"membership_number": 1}'])
    def test_a_damaged_state_is_not_reset(
        self, storage: Storage, tmp_path: Path, damage: str, owner: type[Exception]
    ) -> None:
        storage.feed(*entries(1))
        reader_of(storage, tmp_path).refresh()
        (tmp_path / "feed.json").write_text(damage)
        again = FeedReader(tmp_path, storage.bucket, FIRST, owner_error=owner)  # type: ignore[arg-type]
        with pytest.raises(owner, match="replay old plans"):
            again.refresh()

    def test_a_state_that_somebody_edited_is_not_believed(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        storage.feed(*entries(1))
        reader_of(storage, tmp_path).refresh()
        state = json.loads((tmp_path / "feed.json").read_text())
        state["attempts"][0]["plan"] = plan(1, None, STRANGER).envelope.decode()
        (tmp_path / "feed.json").write_text(json.dumps(state))
        with pytest.raises(FederationOperatorError, match="what was seen of the feed"):
            reader_of(storage, tmp_path).refresh()

    def test_a_membership_that_was_handed_over_anew_goes_on(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        """Last month's federation, this month's file."""
        one, two = entries(2)
        storage.feed(one, two)
        reader_of(storage, tmp_path).refresh()
        versions = chain(4, two)
        storage.members(*versions)
        feed = reader_of(storage, tmp_path, versions[3]).refresh()
        assert feed.memberships == tuple(versions)
        assert feed.attempt is not None and feed.attempt.plan == two

    def test_a_membership_of_another_federation_is_named(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        storage.members(*chain(2))
        reader_of(storage, tmp_path).refresh()
        other = membership(federation="other")
        storage.members(other)
        with pytest.raises(FederationOperatorError, match="what was seen of the feed"):
            reader_of(storage, tmp_path, other).refresh()


class TestClaims:
    def test_a_claim_that_a_killed_coordinator_left_is_finished(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        (one,) = entries(1)
        storage.bucket.put_once(claim_key(feed_slot(1), 1, FIRST.digest), one.envelope)
        assert reader_of(storage, tmp_path / "silo").refresh().attempt is None
        reader = reader_of(storage, tmp_path / "coordinator", finishes_claims=True)
        assert reader.refresh().attempt == FedAttempt(one)
        assert reader_of(storage, tmp_path / "silo").refresh().attempt == FedAttempt(one)

    def test_a_claim_that_does_not_count_is_passed_over(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        (one,) = entries(1)
        slot = feed_slot(1)
        for number, junk in enumerate([b"junk", plan(1, None, STRANGER).envelope], start=1):
            storage.bucket.put_once(claim_key(slot, number, FIRST.digest), junk)
        feed = reader_of(storage, tmp_path, finishes_claims=True).refresh()

        def claimed(proposed: Verified[RoundPlan]) -> Verified[FeedEntry]:
            entry = Verified[FeedEntry](proposed.record, proposed.digest, proposed.envelope)
            return claim_record(storage.bucket, slot, entry, feed.next_entry, FIRST.digest)

        assert claimed(one) == one
        assert storage.bucket.objects[claim_key(slot, 3, FIRST.digest)] == one.envelope
        assert claimed(plan(1, None, COORDINATOR, round=5)) == one


def test_entries_are_walked_back_to_the_first(storage: Storage, tmp_path: Path) -> None:
    made = entries(5)
    storage.feed(*made)
    reader = reader_of(storage, tmp_path)
    feed = reader.refresh()
    assert list(reader.entries_back(feed)) == made[::-1]


def test_a_version_of_the_wire_from_before_is_named_at_start(
    storage: Storage, tmp_path: Path
) -> None:
    old = json.loads(seal(FIRST.record, new_key()).envelope)
    old["payloadType"] = old["payloadType"].replace(".v2+", ".v1+")
    from data_contracts.protocol.trust_anchor import load_trust_anchor

    (tmp_path / "membership.json").write_text(json.dumps(old, separators=(",", ":")))
    with pytest.raises(UntrustedInputError, match=r"expected version 2 .*found version 1"):
        load_trust_anchor(tmp_path / "membership.json")


def test_no_more_of_a_slot_is_read_than_counts(storage: Storage, tmp_path: Path) -> None:
    """Whoever can write to the bucket could keep everybody reading otherwise."""
    for number in range(70):
        junk = f"junk {number}".encode()
        for slot in (feed_slot(1), membership_slot(2)):
            storage.bucket.put(record_key(slot, digest_of_bytes(junk)), junk)
    assert storage.asked(reader_of(storage, tmp_path)) == 2 + 64 + 64


def test_storage_without_the_entry_that_a_membership_names_has_fallen_behind(
    storage: Storage, tmp_path: Path
) -> None:
    (only,) = entries(1)
    storage.members(membership(2, FIRST, only))
    with pytest.raises(UntrustedInputError, match="storage without it") as caught:
        reader_of(storage, tmp_path).refresh()
    assert caught.value.rule == "feed.behind"


def test_only_what_nobody_can_have_meddled_with_is_read_past_a_contradiction(
    storage: Storage, tmp_path: Path
) -> None:
    one, two = entries(2)
    storage.feed(one, two, abort(2, one.digest))
    assert reader_of(storage, tmp_path).refresh_as_far_as_it_is_clear().head.number == 1
    for key in list(storage.bucket.objects):
        if key.startswith("feed/"):
            del storage.bucket.objects[key]
    with pytest.raises(UntrustedInputError) as caught:
        reader_of(storage, tmp_path).refresh_as_far_as_it_is_clear()
    assert caught.value.rule == "feed.behind"


def test_what_is_kept_was_signed_by_a_coordinator_of_this_federation(
    storage: Storage, tmp_path: Path
) -> None:
    elsewhere = membership(coordinator_key=STRANGER.public_key_hex)
    foreign = plan(1, None, STRANGER, elsewhere)
    other = Storage.__new__(Storage)
    other.requests, other.bucket = [], InMemoryBucket("plans")
    other.members(elsewhere)
    other.feed(foreign)
    reader_of(other, tmp_path / "elsewhere", elsewhere).refresh()
    storage.feed(plan(1, None))
    reader_of(storage, tmp_path / "here").refresh()
    kept = tmp_path / "here" / "feed.json"
    own = kept.read_text()
    of_the_other = (tmp_path / "elsewhere" / "feed.json").read_text()
    # They are of this federation, and signed by who coordinates the other.
    opened, ended = json.loads(own), json.loads(own)
    opened["attempts"][0]["plan"] = plan(1, None, STRANGER).envelope.decode()
    digest = plan(1, None).digest
    ended["attempts"][0]["abort"] = abort(2, digest, key=STRANGER).envelope.decode()
    for state in (of_the_other, json.dumps(opened), json.dumps(ended)):
        kept.write_text(state)
        with pytest.raises(FederationOperatorError, match="what was seen of the feed"):
            reader_of(storage, tmp_path / "here").refresh()
    kept.write_text(own)
    reader_of(storage, tmp_path / "here").refresh()


def test_a_membership_that_was_seen_and_is_not_kept_any_more(
    storage: Storage, tmp_path: Path
) -> None:
    storage.members(membership(2, FIRST))
    reader_of(storage, tmp_path).refresh()
    (tmp_path / "members" / "000002.json").unlink()
    with pytest.raises(FederationOperatorError, match="membership 2 is missing beside it"):
        reader_of(storage, tmp_path).refresh()
