"""What has arrived is fetched and gated before the close, which then has only to judge."""

import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aggregator.arrivals import Arrivals
from aggregator.coordinator import Coordinator
from aggregator.evidence.reader import read_status, receive
from aggregator.evidence.spool import spool, spool_path
from aggregator.federated_round import close_round
from aggregator.feed.reading import read_federation
from aggregator.settings.merge import MergeSection
from data_contracts.adapters.change_sketch import Sketcher
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Close, RoundPlan, Submission
from data_contracts.protocol.records.membership import Member, Revocation
from infra.records.record_store import write_record
from infra.storage.object_store import AccessDeniedError
from tests.aggregator.ledger_samples import submitted
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

TRANSFERS = {"download_blob", "verify_blob"}


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation({"quorum": 2}, **dict.fromkeys("abc", Behaviour.HONEST))


def blob_of(federation: SimulatedFederation, silo: str) -> str:
    """The key of the silo's one blob."""
    (key,) = [key for key in federation.inbox(silo).objects if key.startswith("blobs/")]
    return key


def damage(federation: SimulatedFederation, silo: str) -> None:
    """Other bytes under the digest, as many."""
    inbox, key = federation.inbox(silo), blob_of(federation, silo)
    inbox.put(key, bytes(len(inbox.objects[key])))


def received(c: Coordinator, plan: Verified[RoundPlan]) -> dict[str, str | None]:
    return {silo: receive(c, read_federation(c), plan, silo) for silo in plan.record.cohort}


def transfers(federation: SimulatedFederation) -> Counter[str]:
    """Blobs of each inbox that are read to their end from now on."""
    found: Counter[str] = Counter()
    for silo in federation.silos:

        def count(operation: str, _key: str, silo: str = silo) -> None:
            found[silo] += operation in TRANSFERS

        federation.inbox(silo).before = count
    return found


def rejected(close: Close) -> dict[str, str]:
    return {item.silo: item.rule for item in close.rejected}


def closed(federation: SimulatedFederation, c: Coordinator, plan: Verified[RoundPlan]) -> Close:
    close = close_round(c, federation.look(plan)).record
    assert isinstance(close, Close)
    return close


def test_a_close_reads_no_adapter_again_that_passed_when_it_arrived(
    federation: SimulatedFederation,
) -> None:
    plan, c = submitted(federation), federation.coordinator()
    damage(federation, "silo-b")
    assert received(c, plan) == {"silo-a": None, "silo-b": "blob.digest", "silo-c": None}
    found = transfers(federation)
    close = closed(federation, c, plan)
    assert [item.silo for item in close.admitted] == ["silo-a", "silo-c"]
    assert rejected(close) == {"silo-b": "blob.digest"}
    assert +found == {"silo-b": 1}, "what was at fault is looked at once more"


def test_a_coordinator_that_was_killed_since_then_comes_to_the_same_close(
    federation: SimulatedFederation,
) -> None:
    plan = submitted(federation)
    received(federation.coordinator(), plan)
    found = transfers(federation)
    close = closed(federation, federation.coordinator(), plan)
    assert [item.silo for item in close.admitted] == sorted(federation.silos)
    assert set(+found) == set(federation.silos)


def test_what_its_silo_put_right_before_the_close_counts(federation: SimulatedFederation) -> None:
    plan, c = submitted(federation), federation.coordinator()
    inbox, key = federation.inbox("silo-a"), blob_of(federation, "silo-a")
    whole = inbox.objects.pop(key)
    assert received(c, plan)["silo-a"] == "blob.missing"
    inbox.put(key, whole)
    assert "silo-a" in {item.silo for item in closed(federation, c, plan).admitted}


def test_an_adapter_that_is_taken_away_after_it_passed_is_not_admitted(
    federation: SimulatedFederation,
) -> None:
    plan, c = submitted(federation), federation.coordinator()
    received(c, plan)
    inbox, key = federation.inbox("silo-c"), blob_of(federation, "silo-c")
    stored = inbox.stat(key)
    assert stored is not None and stored.version is not None
    inbox.delete_version(key, stored.version)
    close = closed(federation, c, plan)
    assert [item.silo for item in close.admitted] == ["silo-a", "silo-b"]
    assert rejected(close) == {"silo-c": "silo.withdrew"}


def test_nothing_is_received_of_a_silo_that_has_not_submitted(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    found = transfers(federation)
    assert received(federation.coordinator(), plan) == {"silo-a": None, "silo-b": None}
    assert +found == {}


def test_the_start_of_a_plan_is_read_once_and_that_of_an_earlier_one_let_go(
    federation: SimulatedFederation,
) -> None:
    arrivals, read = Arrivals(), list[str]()
    start = InitialAdapter(federation.open().record.layout)

    def reading(plan: str) -> Callable[[], AdapterSource]:
        def now() -> AdapterSource:
            read.append(plan)
            return start

        return now

    for plan in ("first", "first", "second", "second", "first"):
        assert arrivals.start(plan, reading(plan)).starting is start
    assert read == ["first", "second", "first"]


def test_sketches_are_kept_by_several_threads_at_once(
    federation: SimulatedFederation,
) -> None:
    arrivals, several = Arrivals(), range(4)
    start = InitialAdapter(federation.open().record.layout)
    sketch = Sketcher(start, seed=1).sketch(start)

    def keep(thread: int) -> None:
        for number in range(600):
            arrivals.keep_sketch((f"plan {number // 200}", f"{number}", f"{thread}"), sketch)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(several)) as pool:
            list(pool.map(keep, several))
    finally:
        sys.setswitchinterval(interval)
    # One of them was the last.
    assert any(arrivals.sketch(("plan 2", "599", f"{thread}")) for thread in several)
    assert not any(arrivals.sketch(("plan 1", "399", f"{thread}")) for thread in several)


class PastItsOwnGate:
    """silo-c as somebody else's program, which signs whatever it likes."""

    def __init__(self, federation: SimulatedFederation, plan: Verified[RoundPlan]) -> None:
        self.federation, self.plan = federation, plan
        self.silo = federation.silos["silo-c"]
        outbox = self.silo.agent(FEDERATION, federation.pinned).release.outbox
        honest = outbox.released(attempt_of(plan)).submission
        assert honest is not None
        self.honest = honest.record
        self.adapter = outbox.adapter(self.honest.adapter)

    def submits(self, adapter: ArtifactRef) -> None:
        """Instead of what it had submitted."""
        slot = round_slot(attempt_of(self.plan), Submission.kind)
        objects = self.federation.inbox("silo-c").objects
        for key in [key for key in objects if key.startswith(slot)]:
            del objects[key]
        record = self.honest.model_copy(update={"adapter": adapter})
        write_record(self.silo.inbox, slot, seal(record, self.silo.key))

    def submits_file(self, path: Path) -> None:
        ref = artifact_of_file(path)
        self.silo.inbox.put_blob(path, ref)
        self.submits(ref)

    def rule(self) -> str | None:
        c = self.federation.coordinator()
        return receive(c, read_federation(c), self.plan, "silo-c")


Tensors = dict[str, np.ndarray]


def with_nan(tensors: Tensors) -> None:
    next(iter(tensors.values()))[0, 0] = np.nan


def with_moved_a(tensors: Tensors) -> None:
    for name, values in tensors.items():
        values += 1 if "lora_A" in name else 0


def with_empty_b(tensors: Tensors) -> None:
    for name, values in tensors.items():
        values *= 0 if "lora_B" in name else 1


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (with_nan, "adapter.not_finite"),
        (with_moved_a, "adapter.frozen_factor"),
        (with_empty_b, "adapter.zero_delta"),
    ],
)
def test_the_values_of_an_adapter_are_read_before_it_counts(
    make_federation: MakeFederation,
    tmp_path: Path,
    change: Callable[[Tensors], None],
    rule: str,
) -> None:
    merge = MergeSection(rule="frozen_a", compression="none")
    behaviours = dict.fromkeys("abc", Behaviour.HONEST)
    federation = make_federation({"quorum": 2, "merge": merge}, **behaviours)
    silo = PastItsOwnGate(federation, submitted(federation))
    assert silo.rule() is None
    tensors = load_file(silo.adapter)
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    silo.submits_file(tmp_path / "changed.safetensors")
    assert silo.rule() == rule


def test_the_start_in_other_factors_is_no_contribution(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    whole = {"quorum": 2, "merge": MergeSection(compression="none")}
    federation = make_federation(whole, **dict.fromkeys("abc", Behaviour.HONEST))
    federation.play(federation.open(1))
    plan = federation.open(2)
    federation.silos_act(4)
    silo, start = PastItsOwnGate(federation, plan), plan.record.starting_adapter
    assert start is not None
    (tmp_path / "start").write_bytes(federation.plans.objects[blob_key(start.digest)])
    tensors = {
        name: values * np.float32(2 if "lora_A" in name else 0.5)
        for name, values in load_file(tmp_path / "start").items()
    }
    save_file(tensors, tmp_path / "rescaled.safetensors")
    silo.submits_file(tmp_path / "rescaled.safetensors")
    assert silo.rule() == "adapter.unchanged"


def test_what_is_too_large_is_not_fetched(federation: SimulatedFederation) -> None:
    silo = PastItsOwnGate(federation, submitted(federation))
    size = silo.plan.record.max_adapter_bytes + 1
    silo.submits(silo.honest.adapter.model_copy(update={"size": size}))
    found = transfers(federation)
    assert silo.rule() == "adapter.too_large"
    assert +found == {}


def test_a_coordinator_that_may_read_no_blob_blames_no_silo(
    federation: SimulatedFederation,
) -> None:
    def denied(_operation: str, key: str) -> None:
        if key.startswith("blobs/"):
            raise AccessDeniedError(key, expected="the right", found="403", action="grant it")

    silo = PastItsOwnGate(federation, submitted(federation))
    silo.silo.inbox.put_blob(silo.adapter, silo.honest.adapter)
    federation.inbox("silo-c").before = denied
    with pytest.raises(AccessDeniedError, match="grant it"):
        silo.rule()


def test_a_file_that_changed_on_the_coordinator_s_disk_is_fetched_again(
    federation: SimulatedFederation,
) -> None:
    silo, c = PastItsOwnGate(federation, submitted(federation)), federation.coordinator()
    ref, inbox = silo.honest.adapter, federation.inbox("silo-c")
    whole = spool(c, inbox, ref).read_bytes()
    spool_path(c, ref).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert spool(c, inbox, ref).read_bytes() == whole
    spool_path(c, ref).write_bytes(b"damaged")
    inbox.objects.clear()
    with pytest.raises(UntrustedInputError):
        spool(c, inbox, ref)


def test_of_a_silo_whose_key_was_revoked_no_status_is_shown(
    federation: SimulatedFederation,
) -> None:
    plan, c = submitted(federation), federation.coordinator()
    assert read_status(c, read_federation(c), plan, "silo-b") is not None
    lost = federation.silos["silo-b"].key.public_key_hex
    rest = tuple(
        Member(silo=name, public_key=federation.silos[name].key.public_key_hex)
        for name in ("silo-a", "silo-c")
    )
    federation.change(silos=rest, revokes=(Revocation(public_key=lost, last_feed_number=1),))
    c = federation.coordinator()
    assert read_status(c, read_federation(c), plan, "silo-a") is not None
    assert read_status(c, read_federation(c), plan, "silo-b") is None
