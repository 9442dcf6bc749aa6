"""What is locked is the version that was judged: asked of the ledger itself, exhibit by exhibit."""

import pytest

from aggregator.coordinator import Coordinator
from aggregator.evidence.ledger import Exhibit, held_records, keep
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from tests.aggregator.ledger_samples import key_of, submitted
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour

SILO = "silo-a"
BOTH = pytest.mark.parametrize("kind", ["submission", LOCAL_ADAPTER])


class Kept:
    """A federation whose silos have submitted, and the exhibits of one."""

    def __init__(self, federation: SimulatedFederation) -> None:
        self.federation, self.plan = federation, submitted(federation)
        submission = federation.look(self.plan).attempt.of(SILO).submission
        assert submission is not None
        adapter = submission.record.adapter
        self.contents: dict[str, tuple[str, bytes | ArtifactRef]] = {
            "submission": (submission.digest, submission.envelope),
            LOCAL_ADAPTER: (adapter.digest, adapter),
        }

    @property
    def inbox(self) -> InMemoryBucket:
        return self.federation.inbox(SILO)

    @property
    def coordinator(self) -> Coordinator:
        return self.federation.coordinator()

    def exhibit(self, kind: str, version: str | None = None) -> Exhibit:
        digest, content = self.contents[kind]
        return Exhibit(EvidenceRef(kind=kind, silo=SILO, digest=digest, version=version), content)

    def key(self, kind: str) -> str:
        return key_of(self.plan, self.exhibit(kind).ref)

    def version(self, kind: str) -> str:
        found = self.inbox.stat(self.key(kind))
        assert found is not None and found.version is not None
        return found.version

    def keep(self, exhibit: Exhibit) -> list[str | None]:
        return [ref.version for ref in keep(self.coordinator, self.plan, [exhibit])]


@pytest.fixture
def kept(make_federation: MakeFederation) -> Kept:
    return Kept(make_federation({"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.HONEST))


@BOTH
def test_a_reference_without_a_version_is_to_what_lies_there_if_it_is_that(
    kept: Kept, kind: str
) -> None:
    version = kept.version(kind)
    assert kept.keep(kept.exhibit(kind)) == [version]
    found = kept.inbox.stat(kept.key(kind), version)
    assert found is not None and found.lock is not None


@BOTH
def test_what_is_gone_is_left_out(kept: Kept, kind: str) -> None:
    kept.inbox.objects.pop(kept.key(kind))
    assert kept.keep(kept.exhibit(kind)) == []


@BOTH
def test_other_bytes_in_its_place_are_left_out_and_not_locked(kept: Kept, kind: str) -> None:
    kept.inbox.put(kept.key(kind), b"something else")
    assert kept.keep(kept.exhibit(kind)) == []
    found = kept.inbox.stat(kept.key(kind))
    assert found is not None and found.lock is None


def test_a_version_with_other_bytes_than_were_judged_is_left_out(kept: Kept) -> None:
    kept.inbox.put(kept.key("submission"), b"something else")
    assert kept.keep(kept.exhibit("submission", kept.version("submission"))) == []


@BOTH
def test_a_version_that_goes_after_its_lock_is_left_out(kept: Kept, kind: str) -> None:
    exhibit = kept.exhibit(kind, kept.version(kind))

    def erase(operation: str, key: str) -> None:
        if operation == "stat":
            kept.inbox.before = None
            kept.inbox.delete_version(key, exhibit.ref.version or "", bypass=True)

    kept.inbox.before = erase
    assert kept.keep(exhibit) == []


def test_what_is_the_coordinator_s_is_not_kept_here(kept: Kept) -> None:
    ref = kept.exhibit("submission").ref.model_copy(update={"silo": None})
    with pytest.raises(ValueError, match="expected a silo's submission, found the coordinator's"):
        assert Exhibit(ref, b"").silo


@pytest.mark.parametrize("silo", [None, "silo-z"])
def test_of_the_records_that_are_held_only_those_of_known_silos_are_read(
    kept: Kept, silo: str | None
) -> None:
    ref = kept.exhibit("submission", kept.version("submission")).ref
    keys = {SILO: _key(kept.plan, kept.federation)}
    held = held_records(kept.coordinator, kept.plan, [ref], keys)
    assert list(held) == [SILO]
    of_another = ref.model_copy(update={"silo": silo})
    assert held_records(kept.coordinator, kept.plan, [of_another], keys) == {}


def _key(plan: Verified[RoundPlan], federation: SimulatedFederation) -> str:
    key = federation.look(plan).attempt.membership.record.key_of(SILO)
    assert key is not None
    return key
