"""A put that is tried again puts the bytes of before: no second ciphertext lies anywhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from aggregator.coordinator import CANDIDATES
from aggregator.decisions.stage import Stage
from aggregator.evidence.storing import store
from aggregator.federated_round import advance
from data_contracts.errors import StorageError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, RoundPlan, Submission
from infra.encryption.identities import new_identity
from tests.aggregator.test_encrypted_rounds import HONEST, encrypted
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryBucket


@dataclass
class FailsOnce:
    """Stands before a bucket: the first operation that `is_due` says of fails, and is counted."""

    is_due: Callable[[str, str], bool]
    failed: list[str] = field(default_factory=list)
    put: list[str] = field(default_factory=list)

    def __call__(self, operation: str, key: str) -> None:
        if operation == "put_blob":
            self.put.append(key)
        if not self.failed and self.is_due(operation, key):
            self.failed.append(key)
            raise StorageError("storage", expected="an answer", found="503", action="try again")


def is_blob(operation: str, _: str) -> bool:
    return operation == "put_blob"


def names(kind: str) -> Callable[[str, str], bool]:
    return lambda operation, key: operation == "put_once" and f"/{kind}/" in key


def blobs(bucket: InMemoryBucket) -> set[str]:
    return {key for key in bucket.objects if key.startswith("blobs/")}


@pytest.mark.parametrize(
    "is_due", [is_blob, names(Submission.kind)], ids=["the adapter", "the record that names it"]
)
def test_a_silo_sends_one_ciphertext(
    make_federation: MakeFederation, is_due: Callable[[str, str], bool]
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    federation.open(1)
    hook = FailsOnce(is_due)
    inbox, silo = federation.inbox("silo-a"), federation.silos["silo-a"]
    inbox.before = hook
    for _ in range(8):
        silo.act(FEDERATION, federation.pinned)
    assert Submission.kind in silo.kinds()
    assert len(hook.failed) == 1
    assert len(hook.put) >= 2
    assert set(hook.put) == blobs(inbox)
    assert len(set(hook.put)) == 1


def steps(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Iterator[Stage]:
    """As `play`, where whoever drives the round tries a step again that storage has failed."""
    for _ in range(80):
        federation.silos_act()
        try:
            yield advance(federation.coordinator(), plan)
        except StorageError:
            continue
        federation.clock.sleep(20)


@pytest.mark.parametrize(
    "is_due", [is_blob, names(Candidate.kind)], ids=["the adapter", "the record that names it"]
)
def test_a_merge_that_is_stored_again_is_stored_as_it_was(
    make_federation: MakeFederation, is_due: Callable[[str, str], bool]
) -> None:
    federation = encrypted(make_federation, a=HONEST, b=HONEST)
    plan = federation.open(1)
    hook = FailsOnce(is_due)
    federation.plans.before = hook
    assert Stage.REPORTED in steps(federation, plan)
    assert len(hook.failed) == 1
    assert len(hook.put) == 2
    candidate = federation.look(plan).attempt.candidate
    assert candidate is not None
    named = candidate.record.adapter.stored.digest
    assert hook.put == [f"blobs/{named}"] * 2
    assert blobs(federation.plans) == {f"blobs/{named}"}


def test_a_ciphertext_is_of_its_readers_and_whole(make_federation: MakeFederation) -> None:
    c = encrypted(make_federation, a=HONEST, b=HONEST).coordinator()
    directory = c.workspace / CANDIDATES
    directory.mkdir(parents=True)
    path = directory / "plain"
    path.write_bytes(b"an adapter" * 100)
    ref, (one, two) = artifact_of_file(path), ({new_identity().recipient} for _ in range(2))
    first = store(c, path, ref, frozenset(one))
    assert store(c, path, ref, frozenset(one)) == first
    assert store(c, path, ref, frozenset(one | two)).ciphertext != first.ciphertext
    (kept,) = directory.glob(f"*.{first.stored.digest}.age")
    kept.write_bytes(kept.read_bytes()[:-1])
    again = store(c, path, ref, frozenset(one))
    assert again.plain == ref
    assert again.ciphertext != first.ciphertext
    assert not list(directory.glob("*.new"))
