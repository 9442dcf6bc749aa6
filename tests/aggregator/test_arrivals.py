"""What has arrived is fetched and gated before the close, which then has only to judge."""

import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from aggregator.arrivals import Arrivals
from aggregator.coordinator import Coordinator
from aggregator.evidence.reader import receive
from aggregator.federated_round import close_round
from aggregator.feed.reading import read_federation
from data_contracts.adapters.change_sketch import Sketcher
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan
from tests.aggregator.ledger_samples import submitted
from tests.simulator.federation import SimulatedFederation
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
