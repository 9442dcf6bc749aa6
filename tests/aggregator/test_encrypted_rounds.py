"""Whole rounds with real age: what storage holds is read by those whom the plan names alone."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aggregator.audit.report_audit import audit, holds
from aggregator.contribution.by_silos import Question, Waiting, contributions_by_silos
from aggregator.coordinator import ATTEMPT_KEYS, COORDINATOR_IDENTITY
from aggregator.decisions.stage import Stage
from aggregator.evidence.attempt_keys import round_keys
from aggregator.evidence.opening import open_sealed_key
from aggregator.evidence.reader import receive
from aggregator.federated_round import abort_round
from aggregator.feed.claims import sign_entry
from aggregator.feed.reading import read_federation
from aggregator.report.files import read_bundle
from aggregator.settings.federation import LedgerSection
from aggregator.steps.drafting import drafted
from aggregator.steps.merging import merge_inputs
from data_contracts.errors import FederationOperatorError, SiloOperatorError, UntrustedInputError
from data_contracts.protocol.artifact import (
    ArtifactRef,
    StoredBytes,
    artifact_of_bytes,
    artifact_of_file,
)
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, round_slot
from data_contracts.protocol.dsse import to_base64
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Close, Decision, RoundPlan, Submission
from data_contracts.protocol.records.sealed_key import SealedKey
from infra.disk.durable_files import write_durably
from infra.encryption.encrypted_files import opener, sealed
from infra.encryption.identities import (
    load_identities,
    load_identity,
    new_identity,
    rotate_identity,
)
from infra.records.record_store import write_record
from infra.storage.object_store import StorageUnavailableError
from silo_agent.release.outbox import Outbox
from silo_agent.release.sealing import Sealing
from tests.simulator.federation import RUN, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

HONEST = Behaviour.HONEST
CANARY_BYTES = 64


def encrypted(make: MakeFederation, **behaviours: Behaviour) -> SimulatedFederation:
    """A federation that encrypts, whose silos do not trust its storage."""
    federation = make({"encryption": "age"}, **behaviours)
    for silo in federation.silos.values():
        distrust(silo.home)
    return federation


def distrust(home: Path) -> None:
    path = home / "policy.toml"
    trusting, distrusting = (f"trust_storage_with_deltas = {it}" for it in ("true", "false"))
    assert trusting in path.read_text()
    path.write_text(path.read_text().replace(trusting, distrusting))


def round_of(
    federation: SimulatedFederation, number: int = 1
) -> tuple[Verified[RoundPlan], Decision]:
    plan = federation.open(number)
    assert federation.play(plan)[-1] is Stage.REPORTED
    attempt = federation.look(plan).attempt
    assert attempt.decision is not None, federation.silos
    return plan, attempt.decision.record


def close_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Close:
    close = federation.look(plan).attempt.close
    assert close is not None
    return close.record


def canaries(federation: SimulatedFederation) -> list[bytes]:
    """A slice out of the middle of every adapter file that anybody in the federation has."""
    homes = [silo.home for silo in federation.silos.values()] + [federation.settings.home]
    files = [path for home in homes for path in home.rglob("*.safetensors")]
    assert files
    wholes = [path.read_bytes() for path in files]
    return [data[len(data) // 2 :][:CANARY_BYTES] for data in wholes]


def assert_nowhere_in_storage(federation: SimulatedFederation, slices: list[bytes]) -> None:
    stored = [data for bucket in federation.storage.values() for data in bucket.objects.values()]
    assert any(len(data) > 1000 for data in stored)
    for canary in slices:
        assert len(canary) == CANARY_BYTES and not any(canary in data for data in stored)


def test_storage_reads_nothing_and_the_adapters_stay_what_they_were(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    slices: list[bytes] = []
    for number in (1, 2):
        plan, decision = round_of(federation, number)
        assert decision.outcome == "published"
        assert all(silo.faults == [] for silo in federation.silos.values())
        slices += canaries(federation)
        begun = plan.record.starting_adapter
        assert (begun is not None) is (number > 1)
        assert begun is None or begun.ciphertext is not None
    assert_nowhere_in_storage(federation, slices)
    c = federation.coordinator()
    for bundle in c.reports.glob("*.json"):
        published = c.published / "adapter_model.safetensors"
        newest = published if "0002" in bundle.name else None
        claims = {
            claim.name: claim for claim in audit(read_bundle(bundle), federation.pinned, newest)
        }
        assert holds(tuple(claims.values()))
        assert newest is None or claims["published adapter"].outcome == "pass"
    # The same files are found where nobody encrypts: the search does find them.
    readable = SimulatedFederation(tmp_path / "readable", federation.model_dir)
    for name in ("silo-a", "silo-b"):
        readable.add_silo(name)
    readable.found()
    for number in (1, 2):
        _, plain = round_of(readable, number)
    assert plain.published_adapter is not None and decision.published_adapter is not None
    assert plain.published_adapter == decision.published_adapter.plain
    found = canaries(readable)
    stored = b"".join(d for b in readable.storage.values() for d in b.objects.values())
    assert any(canary in stored for canary in found)


def test_a_starting_adapter_is_put_again_only_for_other_readers(
    make_federation: MakeFederation,
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    _, first = round_of(federation, 1)
    plan, _ = round_of(federation, 2)
    assert plan.record.starting_adapter == first.published_adapter
    # A silo joins, another has a new identity, and the coordinator too, all between two rounds.
    federation.add_silo("silo-c")
    distrust(federation.silos["silo-c"].home)
    rotate_identity(federation.silos["silo-b"].identity)
    rotate_identity(federation.settings.path(COORDINATOR_IDENTITY))
    recipient = federation.recipient(federation.settings.path(COORDINATOR_IDENTITY))
    members = tuple(federation.member(silo) for silo in federation.silos)
    federation.change(silos=members, coordinator_recipient=recipient)
    before = federation.look(plan).attempt.decision
    assert before is not None and before.record.published_adapter is not None
    third, decision = round_of(federation, 3)
    start = third.record.starting_adapter
    assert start is not None and start.plain == before.record.published_adapter.plain
    assert start.ciphertext != before.record.published_adapter.ciphertext
    assert third.record.encryption is not None
    assert third.record.encryption.coordinator_recipient == recipient
    close = close_of(federation, third)
    assert [a.silo for a in close.admitted] == ["silo-a", "silo-b", "silo-c"]
    # A silo that leaves reads no more.
    gone = load_identities(federation.silos.pop("silo-c").identity)
    federation.change(silos=tuple(federation.member(silo) for silo in federation.silos))
    fourth, _ = round_of(federation, 4)
    start = fourth.record.starting_adapter
    assert start is not None and decision.published_adapter is not None
    assert start.plain == decision.published_adapter.plain
    path = federation.directory / "seen"
    federation.plans.download_blob(decision.published_adapter, path, opened=opener(gone))
    assert artifact_of_file(path) == start.plain
    with pytest.raises(Exception, match="No matching keys"):
        federation.plans.download_blob(start, path, opened=opener(gone))


def test_what_silos_sent_is_opened_in_a_private_folder_that_goes_with_the_report(
    make_federation: MakeFederation,
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    opened = federation.coordinator().workspace / "opened"
    seen: list[tuple[int, str]] = []

    def note(operation: str, key: str) -> None:
        seen.extend(
            (f.parent.stat().st_mode & 0o777, f.name) for f in opened.rglob("*.safetensors")
        )

    federation.plans.before = note
    plan, _ = round_of(federation)
    assert {mode for mode, _ in seen} == {0o700}
    assert {name.split(".")[0] for _, name in seen} == {"silo-a", "silo-b"}
    assert not list(opened.rglob("*"))
    spooled = {f.stem for f in (federation.coordinator().workspace / "spool").glob("*")}
    sent = {a.adapter.digest for a in close_of(federation, plan).admitted}
    assert not spooled & sent
    # What is locked, and named as evidence, is what lies there.
    close = close_of(federation, plan)
    for admitted in close.admitted:
        (held,) = [r for r in close.held if r.kind == "adapter" and r.silo == admitted.silo]
        assert held.digest == admitted.adapter.stored.digest
        key = (blob_key(held.digest), held.version or "")
        assert key in federation.inbox(admitted.silo).locks
        assert blob_key(admitted.adapter.digest) not in federation.inbox(admitted.silo).objects


def test_a_silo_that_was_killed_between_ciphertext_and_record_sends_those_bytes(
    make_federation: MakeFederation,
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    plan, inbox = federation.open(), federation.inbox("silo-a")
    away = StorageUnavailableError("inbox", expected="an answer", found="none", action="wait")

    def no_blobs(operation: str, key: str) -> None:
        if operation == "put_blob":
            raise away

    inbox.before = no_blobs
    federation.silos_act(4)
    outbox = Outbox(federation.silos["silo-a"].home / "outbox", federation.silos["silo-a"].key)
    kept = outbox.read(attempt_of(plan), Submission)
    assert kept is not None and not any(key.startswith("blobs/") for key in inbox.objects)
    ciphertext = outbox.adapter(kept.record.adapter.stored)
    before = ciphertext.read_bytes()
    # As if it had been killed before the record: note and ciphertext are there, the record is not.
    (record,) = outbox.directory.glob("rounds/*/*/*/submission.json")
    record.unlink()
    inbox.before = None
    federation.silos_act(2)
    again = outbox.read(attempt_of(plan), Submission)
    assert again is not None and again.record.adapter == kept.record.adapter
    assert again.record.sealed_key == kept.record.sealed_key
    key = blob_key(again.record.adapter.stored.digest)
    assert [info.key for info in inbox.list_keys("blobs/")] == [key]
    assert inbox.objects[key] == before
    # A ciphertext that is not whole is made anew, under another identity.
    ciphertext.write_bytes(before[:-1])
    plain = kept.record.model_copy(
        update={"adapter": kept.record.adapter.plain, "sealed_key": None}
    )
    membership = federation.pinned.record
    new = Sealing(plan, "silo-a", membership.coordinator_recipient).told(plain, outbox)
    assert new["adapter"].plain == plain.adapter
    assert new["adapter"].ciphertext != kept.record.adapter.ciphertext
    with pytest.raises(SiloOperatorError, match="nothing was sent; tell the federation operator"):
        Sealing(plan, "silo-a", new_identity().recipient).told(plain, outbox)


def test_held_aborted_and_retried_rounds_start_from_the_same_ciphertext(
    make_federation: MakeFederation,
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    _, first = round_of(federation, 1)
    for silo in federation.silos.values():
        silo.behaviour = Behaviour.UNHAPPY
    _, held = round_of(federation, 2)
    assert held.outcome == "held"
    for silo in federation.silos.values():
        silo.behaviour = HONEST
    third = federation.open(3)
    federation.silos_act(4)
    abort_round(federation.coordinator(), third, "quorum.not_reached", "for the test")
    federation.play(third)
    retried, decision = round_of(federation, 3)
    assert retried.record.attempt == 2 and decision.outcome == "published"
    for plan in (third, retried):
        assert plan.record.starting_adapter == first.published_adapter
    both = [plan.record.encryption for plan in (third, retried)]
    recipients = {each.round_recipient for each in both if each is not None}
    assert len(recipients) == 2
    keys = round_keys(federation.coordinator(), RUN, 3)
    assert {path.stem for path in keys.iterdir()} == recipients
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600}


def test_turned_on_and_off_between_rounds(make_federation: MakeFederation) -> None:
    federation = make_federation(a=HONEST, b=HONEST)
    _, first = round_of(federation, 1)
    assert first.published_adapter is not None and first.published_adapter.ciphertext is None
    federation.encryption = "age"
    storage = federation.settings.storage.model_copy(update={"encryption": "age"})
    federation.settings = federation.settings.model_copy(update={"storage": storage})
    with pytest.raises(FederationOperatorError, match=r"recipient of every silo.*silo-a, silo-b"):
        federation.open(2)
    silos = tuple(federation.member(silo) for silo in federation.silos)
    federation.change(silos=silos)
    with pytest.raises(FederationOperatorError, match=r"rotate-key --coordinator-recipient"):
        federation.open(2)
    named = federation.recipient(federation.settings.path(COORDINATOR_IDENTITY))
    federation.change(silos=silos, coordinator_recipient=named)
    second, decision = round_of(federation, 2)
    start = second.record.starting_adapter
    assert start is not None and start.plain == first.published_adapter
    assert start.ciphertext is not None and decision.outcome == "published"
    off = federation.settings.storage.model_copy(update={"encryption": None})
    federation.settings = federation.settings.model_copy(update={"storage": off})
    third, _ = round_of(federation, 3)
    assert third.record.encryption is None and decision.published_adapter is not None
    assert third.record.starting_adapter == decision.published_adapter.plain


def test_silos_measure_coalitions_that_storage_cannot_read(make_federation: MakeFederation) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST, c=HONEST)
    for silo in federation.silos:
        federation.share(silo)
    federation.play(federation.open())
    slices = canaries(federation)
    question = Question(1, exact=False, answer_within=timedelta(hours=1))
    assert isinstance(contributions_by_silos(federation.coordinator(), question), Waiting)
    assert not list((federation.coordinator().workspace / "opened").rglob("*"))
    federation.silos_act(2)
    found = contributions_by_silos(federation.coordinator(), question)
    assert not isinstance(found, Waiting) and found.measured_by == ("silo-a", "silo-b", "silo-c")
    assert_nowhere_in_storage(federation, slices)


def test_storage_without_locks_keeps_copies_of_the_ciphertext(
    make_federation: MakeFederation,
) -> None:
    fields = {"encryption": "age", "ledger": LedgerSection(place="copy")}
    federation = make_federation(fields, a=HONEST, b=HONEST)
    plan, decision = round_of(federation)
    assert decision.outcome == "published"
    ledger = federation.bucket("simulated-ledger")
    close = close_of(federation, plan)
    stored = {blob_key(a.adapter.stored.digest) for a in close.admitted}
    assert {info.key for info in ledger.list_keys("blobs/")} == stored
    again = merge_inputs(federation.coordinator(), plan.record, close)
    assert {local.digest for local in again.locals} == {a.adapter.digest for a in close.admitted}


class TestGate:
    """What a silo sends otherwise: its rule, and the round goes on with the others."""

    @pytest.fixture
    def federation(self, make_federation: MakeFederation) -> SimulatedFederation:
        """All three have submitted, and nothing is closed."""
        made = encrypted(make_federation, a=HONEST, b=HONEST, c=HONEST)
        made.open()
        made.silos_act(4)
        return made

    def resubmit(self, federation: SimulatedFederation, silo: str, **fields: Any) -> str | None:
        """The rule that the gate finds when the silo had signed this instead."""
        plan = federation.open()
        signed = self.submission(federation, silo)
        inbox, slot = federation.inbox(silo), round_slot(attempt_of(plan), Submission.kind)
        for info in inbox.list_keys(slot):
            inbox.erase(info.key)
        record = seal(signed.model_copy(update=fields), federation.silos[silo].key)
        write_record(inbox, slot, record)
        c = federation.coordinator()
        return receive(c, read_federation(c), plan, silo)

    def submission(self, federation: SimulatedFederation, silo: str) -> Submission:
        found = federation.look(federation.open()).attempt.of(silo).submission
        assert found is not None
        return found.record

    def put(self, federation: SimulatedFederation, silo: str, data: bytes) -> ArtifactRef:
        ref = artifact_of_bytes(data)
        federation.inbox(silo).put_once(blob_key(ref.digest), data)
        return ref

    def test_what_another_silo_sent(self, federation: SimulatedFederation) -> None:
        own, other = (self.submission(federation, f"silo-{it}") for it in "ba")
        assert self.resubmit(federation, "silo-b") is None
        theirs = federation.inbox("silo-a").objects[blob_key(other.adapter.stored.digest)]
        self.put(federation, "silo-b", theirs)
        claimed = own.adapter.model_copy(update={"digest": other.adapter.digest})
        for adapter, key, rule in (
            (other.adapter, other.sealed_key, "blob.sealed_for_another"),
            (own.adapter, other.sealed_key, "blob.sealed_for_another"),
            (other.adapter, own.sealed_key, "blob.unopened"),
            (claimed, own.sealed_key, "blob.digest"),
        ):
            fields = {"adapter": adapter, "sealed_key": key}
            assert self.resubmit(federation, "silo-b", **fields) == rule

    def test_bytes_that_are_not_a_whole_ciphertext(self, federation: SimulatedFederation) -> None:
        own = self.submission(federation, "silo-b").adapter
        mine = federation.inbox("silo-b").objects[blob_key(own.stored.digest)]
        flipped = mine[:5000] + bytes([mine[5000] ^ 1]) + mine[5001:]
        for data in (b"nothing of the kind", mine[:-3], flipped):
            ref = self.put(federation, "silo-b", data)
            stored = StoredBytes(digest=ref.digest, size=ref.size)
            bad = own.model_copy(update={"ciphertext": stored})
            assert self.resubmit(federation, "silo-b", adapter=bad) == "blob.unopened"

    def test_what_is_not_encrypted_or_too_large(self, federation: SimulatedFederation) -> None:
        plan, own = federation.open(), self.submission(federation, "silo-b")
        huge = StoredBytes(digest="0" * 64, size=2 * plan.record.max_adapter_bytes)
        large = own.adapter.model_copy(update={"ciphertext": huge})
        for adapter, key, rule in (
            (own.adapter.plain, None, "adapter.not_encrypted"),
            (own.adapter, None, "adapter.not_encrypted"),
            (own.adapter.plain, own.sealed_key, "adapter.not_encrypted"),
            (large, own.sealed_key, "adapter.too_large"),
        ):
            fields = {"adapter": adapter, "sealed_key": key}
            assert self.resubmit(federation, "silo-b", **fields) == rule

    def test_sealed_keys_that_are_none(self, federation: SimulatedFederation) -> None:
        plan = federation.open()
        encryption = plan.record.encryption
        assert encryption is not None
        of_round, of_coordinator = encryption.round_recipient, encryption.coordinator_recipient
        unusable = SealedKey(
            silo="silo-b", plan_digest=plan.digest, identity="AGE-SECRET-KEY-1" + "Q" * 58
        )
        elsewhere = SealedKey(silo="silo-b", plan_digest="0" * 64, identity=new_identity().secret)
        for inner, rule in (
            (b"{}", "blob.sealed_key"),
            (b"not json", "blob.sealed_key"),
            (unusable.model_dump_json().encode(), "blob.sealed_key"),
            (elsewhere.model_dump_json().encode(), "blob.sealed_for_another"),
        ):
            text = to_base64(sealed(sealed(inner, of_round), of_coordinator))
            assert self.resubmit(federation, "silo-b", sealed_key=text) == rule
        once = to_base64(sealed(b"x", of_coordinator))
        assert self.resubmit(federation, "silo-b", sealed_key=once) == "blob.sealed_key"
        # The round goes on without it, and says by which rule.
        federation.silos["silo-b"].behaviour = Behaviour.ABSENT
        federation.play(plan)
        close = close_of(federation, plan)
        assert [(r.silo, r.rule) for r in close.rejected] == [("silo-b", "blob.sealed_key")]
        assert [a.silo for a in close.admitted] == ["silo-a", "silo-c"]

    def test_a_coordinator_without_its_keys_blames_no_silo(
        self, federation: SimulatedFederation
    ) -> None:
        plan, c = federation.open(), federation.coordinator()
        feed = read_federation(c)
        with pytest.raises(FederationOperatorError, match=r"coordinator's identity.*backup"):
            receive(replace(c, identities=()), feed, plan, "silo-a")
        (key,) = round_keys(c, RUN, 1).iterdir()
        kept = key.read_bytes()
        key.unlink()
        with pytest.raises(FederationOperatorError, match=r"identity of the attempt.*destroyed"):
            receive(federation.coordinator(), feed, plan, "silo-a")
        write_durably(key, kept)
        assert receive(federation.coordinator(), feed, plan, "silo-a") is None

    def test_one_of_the_two_identities_opens_nothing(self, federation: SimulatedFederation) -> None:
        submission, c = self.submission(federation, "silo-a"), federation.coordinator()
        (path,) = round_keys(c, RUN, 1).iterdir()
        of_attempt = load_identity(path)
        assert open_sealed_key(submission, c.identities, [of_attempt])
        thief = [new_identity()]
        for of_coordinator, of_round in ((thief, [of_attempt]), (c.identities, thief)):
            with pytest.raises(UntrustedInputError, match="No matching keys"):
                open_sealed_key(submission, of_coordinator, of_round)


class TestAcceptance:
    """A silo takes part only where it can read, and only the coordinator can."""

    def refused(self, federation: SimulatedFederation) -> str | None:
        plan = federation.open()
        federation.silos_act(1)
        refusal = federation.look(plan).attempt.of("silo-a").refusal
        return None if refusal is None else refusal.record.rule

    def test_a_recipient_of_somebody_else(self, make_federation: MakeFederation) -> None:
        federation = encrypted(make_federation, a=HONEST, b=HONEST)
        silos = [federation.member(silo) for silo in federation.silos]
        silos[0] = silos[0].model_copy(update={"recipient": new_identity().recipient})
        federation.change(silos=tuple(silos))
        assert self.refused(federation) == "policy.recipients"

    def test_an_earlier_identity_is_as_good(self, make_federation: MakeFederation) -> None:
        federation = encrypted(make_federation, a=HONEST, b=HONEST)
        rotate_identity(federation.silos["silo-a"].identity)
        assert self.refused(federation) is None

    def test_a_plan_that_encrypts_to_another_coordinator(
        self, make_federation: MakeFederation
    ) -> None:
        federation = encrypted(make_federation, a=HONEST, b=HONEST)
        c = federation.coordinator()
        feed = read_federation(c)
        plan = drafted(c, feed, 1, 1)
        assert plan.encryption is not None
        other = plan.encryption.model_copy(
            update={"coordinator_recipient": new_identity().recipient}
        )
        sign_entry(c, feed, plan.model_copy(update={"encryption": other}))
        assert self.refused(federation) == "policy.recipients"

    def test_readable_storage_still_has_to_be_trusted(
        self, make_federation: MakeFederation
    ) -> None:
        federation = make_federation(a=HONEST, b=HONEST)
        distrust(federation.silos["silo-a"].home)
        assert self.refused(federation) == "policy.storage_trust"

    def test_a_coordinator_without_its_identity_plans_nothing(
        self, make_federation: MakeFederation
    ) -> None:
        federation = encrypted(make_federation, a=HONEST, b=HONEST)
        federation.settings.path(COORDINATOR_IDENTITY).unlink()
        with pytest.raises(FederationOperatorError, match=r"age identity.*bring .* back"):
            federation.open()
        assert not (federation.settings.home / ATTEMPT_KEYS).exists()
