"""What goes from the buckets and what stays, and who still works afterwards."""

from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest

from aggregator.audit.report_audit import audit
from aggregator.contribution.closed_round import closed_round
from aggregator.decisions.stage import Stage
from aggregator.federated_round import abort_round, advance, finish_latest_report, report_round
from aggregator.feed.reading import attempts_back, read_federation
from aggregator.report.files import read_bundle
from aggregator.settings.federation import LedgerSection
from aggregator.steps.merging import merge_inputs
from aggregator.upkeep.storage_needs import GRACE, NO_END, StorageNeeds, read_needs
from aggregator.upkeep.storage_pruning import BucketKind, BucketNeeds, Need
from aggregator.upkeep.storage_room import StorageTally, prune_storage, storage_usage
from data_contracts.protocol.bucket_layout import blob_key
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.trust_anchor import load_trust_anchor
from infra.records.feed_reader import FeedReader
from infra.storage.bucket_contents import NoBucketError, StoredVersion
from infra.storage.object_store import Lock
from tests.simulator.disk import play_rounds
from tests.simulator.fake_clock import START
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryContents
from tests.simulator.silo import Behaviour

HONEST = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}
SHORT = LedgerSection(days=30)
AFTER_RETENTION = 40 * 86_400


def prune(federation: SimulatedFederation, *, is_trial: bool = False) -> StorageTally:
    def opened(name: str) -> InMemoryContents:
        if name not in federation.storage:
            raise NoBucketError(name, expected="a bucket", found="none", action="none")
        return InMemoryContents(federation.bucket(name))

    return prune_storage(federation.coordinator(), opened, is_trial=is_trial)


def gone(tally: StorageTally) -> int:
    return sum(bucket.unneeded().objects for bucket in tally.buckets)


def blobs(federation: SimulatedFederation) -> int:
    return sum(key.startswith("blobs/") for b in federation.storage.values() for key in b.objects)


def test_nothing_goes_while_retention_runs(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 3)
    federation.clock.sleep(20 * 86_400)
    before = federation.snapshot()
    tally = prune(federation)
    assert federation.snapshot() == before
    needs = {need for bucket in tally.buckets for _, need in bucket.rows}
    assert needs == {Need.ALWAYS, Need.NEWEST, Need.RETENTION, Need.NONE}
    # Only what was shown for the day is gone.
    assert not any(
        key.startswith("status/") for b in federation.storage.values() for key in b.objects
    )


def test_a_trial_removes_nothing_and_says_what_would_go(make_federation: MakeFederation) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 3)
    federation.clock.sleep(AFTER_RETENTION)
    before = {name: dict(bucket.objects) for name, bucket in federation.storage.items()}
    trial = prune(federation, is_trial=True)
    assert {name: dict(bucket.objects) for name, bucket in federation.storage.items()} == before
    assert gone(trial) == gone(prune(federation)) > 0
    assert gone(prune(federation)) == 0


def test_after_retention_the_newest_round_is_left(make_federation: MakeFederation) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 4)
    federation.clock.sleep(AFTER_RETENTION)
    prune(federation)
    inbox = federation.inbox("silo-a").objects
    rounds = {key.split("/")[2] for key in inbox if key.startswith("rounds/")}
    assert rounds == {"0004"} and sum(key.startswith("blobs/") for key in inbox) == 1
    # What round 4 started from, the adapter before that, and its candidate.
    assert sum(key.startswith("blobs/") for key in federation.plans.objects) == 3
    for prefix, number in (("members/", 1), ("feed/", 4)):
        slots = {key.split("/")[1] for key in federation.plans.objects if key.startswith(prefix)}
        assert len(slots) == number
    reports = [key for key in federation.plans.objects if "/round-report/" in key]
    assert {key.split("/")[2] for key in reports} == {"0001", "0002", "0003", "0004"}


@pytest.mark.long
def test_everybody_works_after_a_prune(make_federation: MakeFederation, tmp_path: Path) -> None:
    """A silo that was off for months, one that joins, the next rounds, an old report's audit."""
    federation = make_federation(
        {"ledger": SHORT}, a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST
    )
    play_rounds(federation, 1, 1)
    federation.silos["silo-c"].behaviour = Behaviour.ABSENT
    play_rounds(federation, 2, 3)
    federation.clock.sleep(AFTER_RETENTION)
    prune(federation)
    federation.silos["silo-c"].behaviour = Behaviour.HONEST
    joining = federation.add_silo("silo-d")
    members = federation.memberships[-1].record.silos
    own = Member(silo="silo-d", public_key=joining.key.public_key_hex)
    federation.change(silos=(*members, own))
    play_rounds(federation, 4, 5)
    prune(federation)
    assert all(not silo.faults for silo in federation.silos.values())
    for name in ("silo-c", "silo-d"):
        assert federation.silos[name].trainings >= 2
    trust = tmp_path / "membership.json"
    trust.write_bytes(federation.pinned.envelope)
    reports = federation.coordinator().reports
    for number in (1, 2, 5):
        bundle = read_bundle(reports / f"run-1-round-{number:04d}.json")
        claims = audit(bundle, load_trust_anchor(trust))
        assert not [claim for claim in claims if claim.outcome == "fail"]


def test_a_coordinator_that_lost_its_disk_goes_on_after_a_prune(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 3)
    federation.clock.sleep(AFTER_RETENTION)
    prune(federation)
    home = federation.settings.home
    for name in ("workspace", "feed", "published", "reports"):
        (home / name).rename(home / f"lost-{name}")
    finish_latest_report(federation.coordinator())
    assert (home / "published" / "adapter_model.safetensors").exists()
    assert (home / "reports" / "run-1-round-0003.json").read_bytes() == (
        home / "lost-reports" / "run-1-round-0003.json"
    ).read_bytes()
    play_rounds(federation, 4, 4)


def test_a_round_under_way_goes_on_after_a_prune_between_any_steps(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 2)
    federation.clock.sleep(AFTER_RETENTION)
    plan = federation.open(3)
    while advance(federation.coordinator(), plan) is not Stage.REPORTED:
        federation.silos_act()
        prune(federation)
        federation.clock.sleep(20)
    assert not any(silo.faults for silo in federation.silos.values())


def test_another_attempt_sends_what_an_aborted_one_had_sent(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 1)
    first = federation.open(2)
    federation.silos_act(3)
    abort_round(federation.coordinator(), first, "operator.abort", "to try again")
    report_round(federation.coordinator(), federation.look(first))
    federation.clock.sleep(GRACE.total_seconds() + 86_400)
    before = blobs(federation)
    prune(federation)
    assert blobs(federation) == before
    federation.play(federation.open(2))


def test_contributions_can_be_measured_while_retention_runs(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 3)
    federation.clock.sleep(100 * 86_400)
    prune(federation)
    c = federation.coordinator()
    closed = closed_round(c, 2)
    assert len(merge_inputs(c, closed.plan.record, closed.close.record).locals) == 2


def test_a_longer_lock_of_the_storage_counts(make_federation: MakeFederation) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 2)
    inbox = federation.inbox("silo-a")
    locked = next(place for place in inbox.locks if "/0001/" in place[0])
    until = federation.clock.now() + timedelta(days=500)
    inbox.locks[locked] = Lock("compliance", until)
    federation.clock.sleep(AFTER_RETENTION)
    tally = prune(federation)
    assert locked[0] in inbox.objects
    rows = {need: row for bucket in tally.buckets for (_, need), row in bucket.rows.items()}
    assert (rows[Need.LOCKED].objects, rows[Need.LOCKED].until) == (1, until)


def test_copies_in_a_ledger_go_like_inboxes(make_federation: MakeFederation) -> None:
    federation = make_federation({"ledger": LedgerSection(place="copy", days=30)}, **HONEST)
    play_rounds(federation, 1, 3)
    federation.clock.sleep(AFTER_RETENTION)
    prune(federation)
    ledger = federation.bucket("simulated-ledger").objects
    rounds = {key.split("/")[2] for key in ledger if key.startswith("rounds/")}
    assert rounds == {"0003"} and sum(key.startswith("blobs/") for key in ledger) == 2
    play_rounds(federation, 4, 4)


def test_foreign_keys_stay_and_are_named(make_federation: MakeFederation) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 2)
    for key in ("README", "blobs/mine", "rounds/notes.txt", "blobs/ABC"):
        federation.plans.put(key, b"mine")
        federation.inbox("silo-a").put(key, b"mine")
    federation.clock.sleep(AFTER_RETENTION)
    tally = prune(federation)
    assert federation.plans.objects["README"] == b"mine"
    foreign = [b.rows["other", Need.FOREIGN].objects for b in tally.buckets[:2]]
    assert foreign == [4, 4]


def test_usage_counts_what_the_coordinator_can_list(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)

    def opened(name: str) -> InMemoryContents:
        return InMemoryContents(federation.bucket(name))

    tally = storage_usage(federation.coordinator(), opened)
    counted = {b.bucket: sum(row.objects for row in b.rows.values()) for b in tally.buckets}
    assert counted == {
        name: len(federation.bucket(name).objects)
        for name in (
            "simulated-plans",
            "simulated-inbox-silo-a",
            "simulated-inbox-silo-b",
            "simulated-ledger",
        )
    }


def test_a_new_reader_follows_the_whole_feed_after_a_prune(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation({"ledger": SHORT}, **HONEST)
    play_rounds(federation, 1, 3)
    federation.clock.sleep(AFTER_RETENTION)
    prune(federation)
    feed = FeedReader(tmp_path / "new", federation.plans, federation.pinned).refresh()
    assert feed.head.number == 3
    c = federation.coordinator()
    rounds = [a.plan.record.round for a in islice(attempts_back(c, read_federation(c)), 9)]
    assert rounds == [3, 2, 1]


DIGEST, PATH = "a" * 64, f"run-1/0001/01-{'b' * 16}/"
NOW = START


def needs_of(until: object, *, is_under_way: bool = False) -> StorageNeeds:
    needs = StorageNeeds(NOW - GRACE, is_under_way)
    if until is not None:
        for known, key in (
            (needs.attempts, PATH),
            (needs.plan_blobs, DIGEST),
            (needs.held_blobs, DIGEST),
        ):
            known[key] = until  # type: ignore[assignment]
    return needs


@pytest.mark.parametrize(
    ("key", "bucket", "until", "age_days", "need"),
    [
        ("members/000001/x.json", BucketKind.PLANS, None, 900, Need.ALWAYS),
        ("feed/00000001/claim-01", BucketKind.PLANS, None, 900, Need.ALWAYS),
        (f"rounds/{PATH}close/x.json", BucketKind.PLANS, None, 900, Need.ALWAYS),
        (f"rounds/{PATH}submission/x.json", BucketKind.EVIDENCE, NO_END, 900, Need.NEWEST),
        (
            f"rounds/{PATH}submission/x.json",
            BucketKind.EVIDENCE,
            NOW + timedelta(days=1),
            900,
            Need.RETENTION,
        ),
        (f"rounds/{PATH}submission/x.json", BucketKind.EVIDENCE, NOW, 900, Need.NONE),
        (f"rounds/{PATH}submission/x.json", BucketKind.EVIDENCE, None, 3, Need.RECENT),
        (f"rounds/{PATH}submission/x.json", BucketKind.EVIDENCE, None, 9, Need.NONE),
        (blob_key(DIGEST), BucketKind.PLANS, NO_END, 900, Need.NEWEST),
        (blob_key(DIGEST), BucketKind.PLANS, None, 9, Need.NONE),
        (blob_key(DIGEST), BucketKind.EVIDENCE, NOW, 1, Need.NONE),
        ("members/000001/x.json", BucketKind.EVIDENCE, None, 900, Need.FOREIGN),
        ("status/run-1/x.json", BucketKind.EVIDENCE, None, 6, Need.RECENT),
        ("status/run-1/x.json", BucketKind.EVIDENCE, None, 8, Need.NONE),
        ("probe/x", BucketKind.PLANS, None, 8, Need.NONE),
        ("rounds/../x", BucketKind.EVIDENCE, None, 900, Need.FOREIGN),
    ],
)
def test_who_needs_an_object(
    key: str, bucket: BucketKind, until: object, age_days: int, need: Need
) -> None:
    stored = StoredVersion(key, "1", 10, NOW - timedelta(days=age_days))
    assert BucketNeeds(bucket, needs_of(until), NOW).judged(stored).need is need


def test_no_adapter_goes_while_a_round_is_under_way(make_federation: MakeFederation) -> None:
    stored = StoredVersion(blob_key(DIGEST), "1", 10, NOW - timedelta(days=900))
    for until in (None, NOW):
        needs = needs_of(until, is_under_way=True)
        assert BucketNeeds(BucketKind.EVIDENCE, needs, NOW).judged(stored).need is Need.RECENT
    federation = make_federation(**HONEST)
    federation.open(1)
    c = federation.coordinator()
    assert read_needs(c, read_federation(c)).is_under_way
