"""The inbox is the ledger: what decides is locked there first, whatever its silo does meanwhile."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from aggregator.decisions.stage import Stage
from aggregator.evidence.ledger import held_records, spool_admitted
from aggregator.evidence.look import look
from aggregator.federated_round import (
    abort_round,
    advance,
    close_round,
    decide_round,
    finish_latest_report,
    merge_round,
)
from aggregator.settings.federation import LedgerSection
from data_contracts.errors import FederationOperatorError, StorageError, UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, ledger_bucket, record_key, round_slot
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Abort, Close, RoundPlan
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from infra.storage.object_store import AccessDeniedError, Lock, RefusedRequestError
from tests.aggregator.ledger_samples import SILOS, key_of, place_of, reported, submitted
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour

JUDGED = ("acceptance", "verdict", "submission", LOCAL_ADAPTER)


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(
        {"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST
    )


def closed(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Close:
    close = close_round(federation.coordinator(), federation.look(plan))
    assert isinstance(close.record, Close)
    return close.record


def between(inbox: InMemoryBucket, operation: str, act: Callable[[str], object]) -> None:
    """Let the silo act once, right before the coordinator's next `operation` on its inbox."""

    def hook(name: str, key: str) -> None:
        if name == operation:
            inbox.before = None
            act(key)

    inbox.before = hook


def in_slot(inbox: InMemoryBucket, kind: str) -> str:
    """The key of the silo's one record or blob of a kind."""
    (key,) = [key for key in inbox.objects if place_of(kind) in f"/{key}"]
    return key


def newest(inbox: InMemoryBucket, key: str) -> str:
    found = inbox.stat(key)
    assert found is not None and found.version is not None
    return found.version


def _delete(inbox: InMemoryBucket, key: str, version: str, _operation: str) -> None:
    inbox.delete_version(key, version)


def outcomes(close: Close) -> dict[str, str]:
    found = {item.silo: item.rule for item in close.rejected}
    found |= {item.silo: item.rule for item in close.refused}
    found |= dict.fromkeys(close.missing, "missing")
    return found | {item.silo: "admitted" for item in close.admitted}


class TestWhatACloseHolds:
    def test_all_that_was_judged_is_locked_where_it_lies(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        close = closed(federation, plan)
        assert {(ref.silo, ref.kind) for ref in close.held} == {
            (silo, kind) for silo in SILOS for kind in JUDGED
        }
        until = plan.record.evaluate_by + timedelta(days=365)
        for ref in close.held:
            inbox = federation.inbox(ref.silo or "")
            assert ref.version is not None
            assert inbox.locks[key_of(plan, ref), ref.version] == Lock("governance", until)

    def test_nothing_is_stored_twice(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        federation.play(plan)
        sizes: dict[str, list[int]] = {}
        for bucket in federation.storage.values():
            for key, data in bucket.objects.items():
                if key.startswith("blobs/"):
                    sizes.setdefault(key, []).append(len(data))
        assert len(sizes) == 4, "three local adapters and the merged one"
        assert [size for size in sizes.values() if len(size) > 1] == []
        assert federation.bucket(ledger_bucket(FEDERATION)).objects == {}

    def test_a_report_names_only_what_is_locked(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        report = reported(federation, plan)
        theirs = [ref for ref in report.evidence if ref.silo is not None]
        assert sorted({ref.kind for ref in theirs}) == [
            "acceptance",
            "evaluation",
            "submission",
            "verdict",
        ]
        for ref in theirs:
            assert (key_of(plan, ref), ref.version) in federation.inbox(ref.silo or "").locks

    def test_of_a_refusal_and_an_aborted_attempt_too(self, make_federation: MakeFederation) -> None:
        federation = make_federation(
            {"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.FAILING_CONTRACT, c=Behaviour.ABSENT
        )
        plan = submitted(federation)
        report = reported(federation, plan)
        assert report.outcome == "aborted"
        theirs = [ref for ref in report.evidence if ref.silo is not None]
        assert {(ref.silo, ref.kind) for ref in theirs} >= {
            ("silo-a", "submission"),
            ("silo-b", "verdict"),
        }
        for ref in theirs:
            assert (key_of(plan, ref), ref.version) in federation.inbox(ref.silo or "").locks
        adapter = in_slot(federation.inbox("silo-a"), LOCAL_ADAPTER)
        assert adapter not in {key for key, _ in federation.inbox("silo-a").locks}

    def test_mode_and_days_are_the_plan_s(self, make_federation: MakeFederation) -> None:
        federation = make_federation(
            {"ledger": LedgerSection(mode="compliance", days=30)},
            a=Behaviour.HONEST,
            b=Behaviour.HONEST,
        )
        plan = submitted(federation)
        closed(federation, plan)
        wanted = Lock("compliance", plan.record.evaluate_by + timedelta(days=30))
        assert set(federation.inbox("silo-a").locks.values()) == {wanted}


class TestBetweenJudgementAndLock:
    @pytest.mark.parametrize("kind", JUDGED)
    def test_another_version_changes_nothing(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, kind)
        judged = newest(inbox, key)
        between(inbox, "retain", lambda _: inbox.put(key, b"another"))
        close = closed(federation, plan)
        assert outcomes(close) == dict.fromkeys(SILOS, "admitted")
        held = {(ref.silo, ref.kind): ref.version for ref in close.held}
        assert held["silo-b", kind] == judged != newest(inbox, key)
        assert reported(federation, plan).outcome == "published"

    @pytest.mark.parametrize("kind", JUDGED)
    def test_a_delete_marker_changes_nothing(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, kind)
        assert newest(inbox, key), "a marker hides a version that is there"
        between(inbox, "retain", lambda _: inbox.objects.pop(key))
        assert outcomes(closed(federation, plan)) == dict.fromkeys(SILOS, "admitted")
        shutil.rmtree(federation.coordinator().workspace)
        assert reported(federation, plan).outcome == "published"

    @pytest.mark.parametrize("kind", JUDGED)
    def test_a_silo_that_deletes_the_version_is_left_out(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, kind)
        # Whatever else of it was locked by then is named no more.
        between(inbox, "retain", lambda _: inbox.delete_version(key, newest(inbox, key)))
        close = closed(federation, plan)
        assert outcomes(close) == {
            "silo-a": "admitted",
            "silo-b": "silo.withdrew",
            "silo-c": "admitted",
        }
        assert {ref.silo for ref in close.held} == {"silo-a", "silo-c"}
        report = reported(federation, plan)
        assert report.outcome == "published"
        assert {s.silo: s.rule for s in report.silos}["silo-b"] == "silo.withdrew"

    def test_below_quorum_the_attempt_is_aborted(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        for silo in ("silo-b", "silo-c"):
            inbox = federation.inbox(silo)
            key = in_slot(inbox, "submission")
            between(inbox, "retain", partial(_delete, inbox, key, newest(inbox, key)))
        assert isinstance(
            close_round(federation.coordinator(), federation.look(plan)).record, Abort
        )
        assert reported(federation, plan).rule == "quorum.not_reached"

    def test_whoever_copied_what_is_gone_is_judged_again(
        self, make_federation: MakeFederation
    ) -> None:
        """With the one that it copied it is no free rider any more; both cannot be held as one."""
        federation = make_federation(
            {"quorum": 2},
            a=Behaviour.HONEST,
            b=Behaviour.COPYING,
            c=Behaviour.HONEST,
            d=Behaviour.HONEST,
        )
        plan, inbox = submitted(federation), federation.inbox("silo-a")
        key = in_slot(inbox, "verdict")
        between(inbox, "retain", lambda _: inbox.delete_version(key, newest(inbox, key)))
        close = closed(federation, plan)
        assert outcomes(close) == {
            "silo-a": "silo.withdrew",
            "silo-b": "admitted",
            "silo-c": "admitted",
            "silo-d": "admitted",
        }
        held = {(ref.silo, ref.kind): ref for ref in close.held}
        ref = held["silo-b", LOCAL_ADAPTER]
        assert (key_of(plan, ref), ref.version) in federation.inbox("silo-b").locks

    def test_an_evaluation_that_is_taken_away_is_missing(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        closed(federation, plan)
        merge_round(federation.coordinator(), federation.look(plan))
        federation.silos_act(2)
        inbox = federation.inbox("silo-b")
        key = in_slot(inbox, "evaluation")
        between(inbox, "retain", lambda _: inbox.delete_version(key, newest(inbox, key)))
        decision = decide_round(federation.coordinator(), federation.look(plan)).record
        assert decision.missing == ("silo-b",)
        assert [used.silo for used in decision.evaluations] == ["silo-a", "silo-c"]
        assert all(used.version for used in decision.evaluations)
        assert reported(federation, plan).outcome == "published"


class TestLocks:
    def test_a_longer_lock_of_somebody_else_is_as_good(
        self, federation: SimulatedFederation
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, "verdict")
        longer = Lock("compliance", federation.clock.now() + timedelta(days=5000))
        inbox.retain(key, newest(inbox, key), longer)
        close = closed(federation, plan)
        assert outcomes(close) == dict.fromkeys(SILOS, "admitted")
        (held,) = [r for r in close.held if (r.silo, r.kind) == ("silo-b", "verdict")]
        assert inbox.locks[key, held.version or ""] == longer

    @pytest.mark.parametrize(("days", "outcome"), [(1, "silo.withdrew"), (9, "admitted")])
    def test_a_lock_that_cannot_be_replaced_has_to_outlive_the_attempt(
        self, federation: SimulatedFederation, days: int, outcome: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, "verdict")
        end = plan.record.evaluate_by + timedelta(days=days - 2)
        inbox.retain(key, newest(inbox, key), Lock("compliance", end))
        assert outcomes(closed(federation, plan))["silo-b"] == outcome

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (LedgerSection(mode="compliance", days=30), LedgerSection()),
            (LedgerSection(), LedgerSection(mode="compliance", days=30)),
            (LedgerSection(days=365), LedgerSection(days=30)),
        ],
    )
    def test_another_retention_between_two_attempts_leaves_nobody_out(
        self, make_federation: MakeFederation, before: LedgerSection, after: LedgerSection
    ) -> None:
        """Both attempts have the same adapters, so the same versions, locked already."""
        firm = LedgerSection(mode="compliance")
        federation = make_federation({"ledger": firm}, a=Behaviour.HONEST, b=Behaviour.HONEST)
        for ledger in (before, after):
            settings = federation.settings
            federation.settings = settings.model_copy(update={"ledger": ledger})
            plan = submitted(federation)
            assert plan.record.retention.days == ledger.days
            found = outcomes(closed(federation, plan))
            assert found == {"silo-a": "admitted", "silo-b": "admitted"}
            abort_round(federation.coordinator(), plan, "operator.abort", "Tried again.")

    def test_storage_that_keeps_no_lock_is_named_and_nothing_is_signed(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        federation.inbox("silo-b").keeps_locks = False
        with pytest.raises(StorageError, match=r"locked in governance mode.*found no lock.*copy"):
            close_round(federation.coordinator(), federation.look(plan))
        assert not any("/close/" in key for key in federation.plans.objects)

    def test_a_coordinator_that_may_not_lock_is_told(self, federation: SimulatedFederation) -> None:
        def denied(operation: str, key: str) -> None:
            if operation == "retain":
                raise AccessDeniedError(key, expected="the right", found="403", action="grant it")

        plan = submitted(federation)
        federation.inbox("silo-b").before = denied
        with pytest.raises(AccessDeniedError, match="grant it"):
            close_round(federation.coordinator(), federation.look(plan))

    def test_an_inbox_without_versions_is_named(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        federation.inbox("silo-b").versioned = False
        with pytest.raises(FederationOperatorError, match=r"bucket with versions.*place to copy"):
            close_round(federation.coordinator(), federation.look(plan))


class TestAgain:
    def test_a_coordinator_that_died_after_locking_names_the_same_versions(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)

        class KilledError(Exception):
            pass

        def die(operation: str, key: str) -> None:
            if operation == "put_once" and "/close/" in key:
                raise KilledError

        federation.plans.before = die
        with pytest.raises(KilledError):
            close_round(federation.coordinator(), federation.look(plan))
        federation.plans.before = None
        locks = {silo: dict(federation.inbox(silo).locks) for silo in SILOS}
        federation.clock.sleep(60)
        close = closed(federation, plan)
        assert {silo: federation.inbox(silo).locks for silo in SILOS} == locks
        assert len(close.held) == sum(len(of_silo) for of_silo in locks.values())

    def test_after_the_deadline_a_lock_is_made_longer_and_never_shorter(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        federation.clock.sleep(3 * 3600)
        closed(federation, plan)
        until = {lock.until for lock in federation.inbox("silo-a").locks.values()}
        assert until == {federation.clock.now().replace(microsecond=0) + timedelta(days=365)}

    def test_what_was_erased_later_does_not_change_a_report(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        reported(federation, plan)
        c = federation.coordinator()
        before = {path: path.read_bytes() for path in c.reports.iterdir()}
        inbox = federation.inbox("silo-b")
        key = in_slot(inbox, "submission")
        version = newest(inbox, key)
        del inbox.locks[key, version]  # as a person with that right
        inbox.delete_version(key, version)
        finish_latest_report(federation.coordinator())
        assert {path: path.read_bytes() for path in c.reports.iterdir()} == before


class TestCopies:
    @pytest.fixture
    def federation(self, make_federation: MakeFederation) -> SimulatedFederation:
        return make_federation(
            {"quorum": 2, "ledger": LedgerSection(place="copy")},
            a=Behaviour.HONEST,
            b=Behaviour.HONEST,
            c=Behaviour.HONEST,
        )

    def test_what_was_judged_is_copied(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        close = closed(federation, plan)
        ledger = federation.bucket(ledger_bucket(FEDERATION)).objects
        assert all(any(ref.digest in key for key in ledger) for ref in close.held)
        assert {ref.version for ref in close.held} == {None}
        assert len([key for key in ledger if key.startswith("blobs/")]) == 3

    @pytest.mark.parametrize("kind", JUDGED)
    def test_what_a_silo_does_after_the_judgement_changes_nothing(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, kind)
        ledger = federation.bucket(ledger_bucket(FEDERATION))
        between(ledger, "put_once", lambda _: inbox.put(key, b"another"))
        assert outcomes(closed(federation, plan)) == dict.fromkeys(SILOS, "admitted")
        shutil.rmtree(federation.coordinator().workspace)
        assert reported(federation, plan).outcome == "published"

    def test_a_whole_round_rests_on_copies_only(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        closed(federation, plan)
        for silo in SILOS:
            federation.inbox(silo).objects.clear()
        merge_round(federation.coordinator(), federation.look(plan))
        federation.silos_act(2)
        assert advance(federation.coordinator(), plan) is Stage.DECIDING
        report = reported(federation, plan)
        ledger = federation.bucket(ledger_bucket(FEDERATION)).objects
        theirs = [ref for ref in report.evidence if ref.silo is not None]
        assert len(theirs) == 12
        assert all(any(ref.digest in key for key in ledger) for ref in theirs)


def test_a_run_goes_on_when_the_ledger_s_place_is_changed(
    federation: SimulatedFederation,
) -> None:
    """What a close names says where it lies; the setting is only for what comes."""
    plan = submitted(federation)
    closed(federation, plan)
    settings = federation.settings
    federation.settings = settings.model_copy(update={"ledger": LedgerSection(place="copy")})
    merge_round(federation.coordinator(), federation.look(plan))
    report = reported(federation, plan)
    by_kind = {ref.kind: ref.version is None for ref in report.evidence if ref.silo is not None}
    assert by_kind == {
        "acceptance": False,
        "verdict": False,
        "submission": False,
        "evaluation": True,
    }


class TestWhoHasTheBytes:
    """Digests can be read in the plans bucket; whoever names one has to show what it is of."""

    @pytest.fixture(params=["inbox", "copy"])
    def federation(
        self, make_federation: MakeFederation, request: pytest.FixtureRequest
    ) -> SimulatedFederation:
        return make_federation(
            {"quorum": 2, "ledger": LedgerSection(place=request.param)},
            a=Behaviour.HONEST,
            b=Behaviour.COPYING,
            c=Behaviour.HONEST,
            d=Behaviour.HONEST,
        )

    @pytest.mark.parametrize("junk", [False, True])
    def test_a_silo_that_names_another_s_digest_harms_nobody(
        self, federation: SimulatedFederation, junk: bool
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, LOCAL_ADAPTER)
        size = len(inbox.objects.pop(key))
        if junk:
            inbox.objects[key] = bytes(size)
        # As after an earlier attempt: the coordinator has the file itself.
        digest = key.removeprefix("blobs/")
        spooled = federation.coordinator().workspace / "spool" / f"{digest}.safetensors"
        spooled.parent.mkdir(parents=True, exist_ok=True)
        spooled.write_bytes(federation.inbox("silo-a").objects[key])
        found = outcomes(closed(federation, plan))
        assert found.pop("silo-b") == ("blob.digest" if junk else "blob.missing")
        assert set(found.values()) == {"admitted"}


class TestUnreadable:
    """What its writer encrypted with a key of its own, or put into an archive."""

    @pytest.mark.parametrize("kind", [*JUDGED, "evaluation"])
    def test_an_object_that_only_its_writer_can_read_stops_nobody(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        slot = round_slot(attempt_of(plan), kind)
        key = in_slot(inbox, kind) if kind in JUDGED else record_key(slot, "0" * 64)
        inbox.objects.setdefault(key, b"sealed")

        def refused(operation: str, asked: str) -> None:
            if asked == key and operation in ("get", "download_blob", "verify_blob"):
                raise RefusedRequestError(key, expected="GET", found="400", action="none")

        inbox.before = refused
        left_out = outcomes(closed(federation, plan))["silo-b"]
        assert (
            left_out
            == {
                "acceptance": "acceptance.missing",
                "verdict": "verdict.missing",
                "submission": "missing",
                LOCAL_ADAPTER: "blob.unreadable",
                "evaluation": "admitted",
            }[kind]
        )
        assert reported(federation, plan).outcome == "published"

    def test_a_credential_that_may_not_read_is_the_operator_s(
        self, federation: SimulatedFederation
    ) -> None:
        def denied(operation: str, key: str) -> None:
            if operation in ("get", "stat", "download_blob"):
                raise AccessDeniedError(key, expected="the right", found="403", action="grant it")

        plan = submitted(federation)
        federation.inbox("silo-b").before = denied
        with pytest.raises(AccessDeniedError, match="grant it"):
            close_round(federation.coordinator(), federation.look(plan))


class TestErasedBeforeItWasOver:
    def erase(self, federation: SimulatedFederation, silo: str, kind: str) -> None:
        inbox = federation.inbox(silo)
        key = in_slot(inbox, kind)
        version = newest(inbox, key)
        del inbox.locks[key, version]
        inbox.delete_version(key, version)

    @pytest.mark.parametrize("kind", JUDGED)
    def test_the_attempt_ends_with_a_rule_and_the_round_is_tried_again(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan = submitted(federation)
        closed(federation, plan)
        self.erase(federation, "silo-b", kind)
        shutil.rmtree(federation.coordinator().workspace)
        report = reported(federation, plan)
        assert (report.outcome, report.rule) == ("aborted", "evidence.erased")
        retry = submitted(federation)
        assert retry.record.attempt == 2

    def test_files_that_lack_one_are_made_again_from_the_bundle(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        reported(federation, plan)
        c = federation.coordinator()
        before = {path: path.read_bytes() for path in c.reports.iterdir()}
        self.erase(federation, "silo-b", "submission")
        (c.reports / "run-1-round-0001.html").unlink()
        finish_latest_report(federation.coordinator())
        assert {path: path.read_bytes() for path in c.reports.iterdir()} == before

    def test_files_of_names_without_the_run_stay_and_what_they_keep_is_not_lost(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        reported(federation, plan)
        c = federation.coordinator()
        named = {path.name: path.read_bytes() for path in c.reports.iterdir()}
        for path in list(c.reports.iterdir()):
            path.rename(path.with_name(path.name.removeprefix("run-1-")))
        self.erase(federation, "silo-b", "submission")
        finish_latest_report(federation.coordinator())
        former = {name.removeprefix("run-1-"): data for name, data in named.items()}
        assert {path.name: path.read_bytes() for path in c.reports.iterdir()} == named | former

    def test_a_report_whose_files_are_there_asks_no_inbox(
        self, federation: SimulatedFederation
    ) -> None:
        """The bucket of a silo that left may be gone."""

        def gone(_operation: str, key: str) -> None:
            raise StorageError(key, expected="a bucket", found="no such bucket", action="none")

        plan = submitted(federation)
        reported(federation, plan)
        for silo in SILOS:
            federation.inbox(silo).before = gone
        finish_latest_report(federation.coordinator())


def test_versions_that_were_turned_on_meanwhile_lock_only_what_was_judged(
    federation: SimulatedFederation,
) -> None:
    plan, inbox = submitted(federation), federation.inbox("silo-b")
    inbox.versioned = False
    c = federation.coordinator()
    look(c, plan)
    inbox.versioned = True
    key = in_slot(inbox, "verdict")
    inbox.put(key, bytes(3_000_000))
    close = close_round(c, look(c, plan)).record
    assert isinstance(close, Close)
    assert outcomes(close)["silo-b"] == "silo.withdrew"
    assert not [locked for locked, _ in inbox.locks if locked == key]


class TestWhatIsReadBack:
    def test_of_the_silos_of_the_plan_alone(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        close = closed(federation, plan)
        keys = {name: silo.key.public_key_hex for name, silo in federation.silos.items()}
        coordinator_s = EvidenceRef(kind="close", silo=None, digest="0" * 64, version=None)
        refs, c = (*close.held, coordinator_s), federation.coordinator()
        assert set(held_records(c, plan, refs, keys)) == set(SILOS)
        del keys["silo-b"]
        assert set(held_records(c, plan, refs, keys)) == {"silo-a", "silo-c"}

    def test_under_the_key_of_its_own_silo(self, federation: SimulatedFederation) -> None:
        plan = submitted(federation)
        close = closed(federation, plan)
        keys = {name: silo.key.public_key_hex for name, silo in federation.silos.items()}
        keys["silo-a"], keys["silo-b"] = keys["silo-b"], keys["silo-a"]
        with pytest.raises(UntrustedInputError, match="signature"):
            held_records(federation.coordinator(), plan, close.held, keys)

    def test_an_adapter_by_its_own_version_wherever_the_close_lists_it(
        self, federation: SimulatedFederation
    ) -> None:
        plan = submitted(federation)
        close, c = closed(federation, plan), federation.coordinator()
        for order in (close.held, close.held[::-1]):
            shutil.rmtree(c.workspace)
            paths = spool_admitted(c, plan.record, close.model_copy(update={"held": order}))
            assert [path.stem for path in paths] == [a.adapter.digest for a in close.admitted]

    @pytest.mark.parametrize("kind", ["acceptance", "verdict", "submission"])
    def test_a_record_that_goes_between_its_lock_and_the_reading_leaves_its_silo_out(
        self, federation: SimulatedFederation, kind: str
    ) -> None:
        plan, inbox = submitted(federation), federation.inbox("silo-b")
        key = in_slot(inbox, kind)
        version = newest(inbox, key)

        def erase(operation: str, asked: str) -> None:
            # As a person with that right would.
            if operation == "get" and asked == key and (key, version) in inbox.locks:
                del inbox.locks[key, version]
                inbox.delete_version(key, version)

        look_at = federation.look(plan)
        inbox.before = erase
        close = close_round(federation.coordinator(), look_at).record
        assert isinstance(close, Close)
        assert outcomes(close)["silo-b"] == "silo.withdrew"
