"""Whole rounds with real age: what storage holds is read by those whom the plan names alone."""

from pathlib import Path

import pytest

from aggregator.coordinator import COORDINATOR_IDENTITY
from aggregator.decisions.stage import Stage
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.bucket_layout import blob_key
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, Decision, RoundPlan
from infra.encryption.encrypted_files import opener
from infra.encryption.identities import load_identities, rotate_identity
from tests.simulator.federation import SimulatedFederation
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
    for number in (1, 2, 3):
        plan, decision = round_of(federation, number)
        assert decision.outcome == "published"
        assert all(silo.faults == [] for silo in federation.silos.values())
        slices += canaries(federation)
        begun = plan.record.starting_adapter
        assert (begun is not None) is (number > 1)
        assert begun is None or begun.ciphertext is not None
    assert_nowhere_in_storage(federation, slices)
    # The same files are found where nobody encrypts: the search does find them.
    readable = SimulatedFederation(tmp_path / "readable", federation.model_dir)
    for name in ("silo-a", "silo-b"):
        readable.add_silo(name)
    readable.found()
    for number in (1, 2, 3):
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
