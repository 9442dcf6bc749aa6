"""A coordinator whose disk was lost, restored from a backup of any phase: it goes on from what is
signed in storage, never signs a slot twice, and does not believe storage that was taken back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.federated_round import advance, finish_latest_report
from aggregator.feed.reading import read_federation
from aggregator.upkeep.backup import back_up_coordinator, restore_coordinator
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, attempt_of_record, round_slot
from data_contracts.protocol.envelope import seal
from infra.backup.home_restore import is_restored
from infra.records.record_store import write_record
from tests.silo_agent.test_restored_silo import play_until, report_of
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour
from tests.simulator.slots import require_one_record_for_each_slot

PHASES = ("nothing", "plan", "submission", "close", "candidate", "decision", "round-report")
PAIRS = [(b, lost) for i, b in enumerate(PHASES) for lost in PHASES[i:]]
ALWAYS = {("nothing", "close"), ("plan", "candidate"), ("nothing", "round-report")}


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)


def reaches(federation: SimulatedFederation, phase: str) -> Callable[[], bool]:
    def reached() -> bool:
        if phase in ("nothing", "plan"):
            return phase == "nothing" or bool(federation.plans.list_keys("feed/"))
        if phase == "submission":
            return "submission" in federation.silos["silo-a"].kinds()
        return any(f"/{phase}/" in i.key for i in federation.plans.list_keys("rounds/"))

    return reached


@pytest.mark.parametrize(
    ("backed_up", "lost"),
    [pytest.param(*p, marks=[] if p in ALWAYS else pytest.mark.campaign) for p in PAIRS],
)
def test_a_disk_that_was_lost_in_any_phase(
    federation: SimulatedFederation, tmp_path: Path, backed_up: str, lost: str
) -> None:
    home, out = federation.settings.home, tmp_path / "backup"
    play_until(federation, reaches(federation, backed_up))
    back_up_coordinator(federation.settings, out, federation.clock.now())
    play_until(federation, reaches(federation, lost))
    before = federation.snapshot()
    shutil.rmtree(home)
    restore_coordinator(out, home, federation.clock.now())
    play_until(federation, lambda: report_of(federation) is not None)
    finish_latest_report(federation.coordinator())
    assert not is_restored(home)
    assert before.items() <= federation.snapshot().items()
    require_one_record_for_each_slot(federation)
    report = report_of(federation)
    assert report is not None and report.outcome == "published"
    assert (home / "published" / "adapter_model.safetensors").exists()
    federation.play(federation.open(2))
    require_one_record_for_each_slot(federation)


@pytest.mark.parametrize("shows", ["no plan", "an older round"])
def test_storage_that_was_taken_back_gets_no_second_plan(
    federation: SimulatedFederation, tmp_path: Path, shows: str
) -> None:
    home, out = federation.settings.home, tmp_path / "backup"
    back_up_coordinator(federation.settings, out, federation.clock.now())
    old = dict(federation.plans.objects)
    if shows == "an older round":
        federation.play(federation.open())
        old = dict(federation.plans.objects)
    plan = federation.open(1 if shows == "no plan" else 2)
    federation.silos_act()
    new = dict(federation.plans.objects)
    shutil.rmtree(home)
    restore_coordinator(out, home, federation.clock.now())
    for key in new.keys() - old.keys():
        federation.plans.objects.pop(key)
    with pytest.raises(UntrustedInputError, match="a feed that ends before it"):
        federation.open(plan.record.round)
    assert is_restored(home) and federation.plans.objects == old
    federation.plans.objects.update(new)
    assert federation.open(plan.record.round).digest == plan.digest
    assert not is_restored(home)


def test_what_a_revoked_key_signed_holds_up_nobody(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    home, out = federation.settings.home, tmp_path / "backup"
    back_up_coordinator(federation.settings, out, federation.clock.now())
    plan = federation.open()
    federation.silos_act(2)
    federation.replace_key("silo-a")
    shutil.rmtree(home)
    restore_coordinator(out, home, federation.clock.now())
    assert read_federation(federation.coordinator()).head.number == plan.record.feed_number
    assert not is_restored(home)
    advance(federation.coordinator(), plan)


def signs_on_a_plan_that_never_was(federation: SimulatedFederation, silo: str) -> None:
    """As `silo` could, of its own accord."""
    release = federation.silos[silo].agent(FEDERATION, federation.pinned).release
    plan = federation.open()
    found = release.outbox.released(attempt_of(plan)).acceptance
    assert found is not None
    forged = found.record.model_copy(update={"round": 900, "issued_at": federation.clock.now()})
    slot = round_slot(attempt_of_record(forged), forged.kind)
    write_record(federation.inbox(silo), slot, seal(forged, federation.silos[silo].key))


@pytest.mark.parametrize("lying", [1, 2])
def test_one_silo_alone_does_not_hold_up_a_restored_coordinator(
    federation: SimulatedFederation,
    tmp_path: Path,
    lying: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    home, out = federation.settings.home, tmp_path / "backup"
    plan = federation.open()
    federation.silos_act(2)
    back_up_coordinator(federation.settings, out, federation.clock.now())
    for silo in ("silo-b", "silo-c")[:lying]:
        signs_on_a_plan_that_never_was(federation, silo)
    shutil.rmtree(home)
    restore_coordinator(out, home, federation.clock.now())
    if lying == 1:
        assert federation.open().digest == plan.digest
        assert "silo silo-b has signed on round 900" in caplog.text
        assert not is_restored(home)
    else:
        with pytest.raises(UntrustedInputError, match="on which silo silo-b signed: acceptance"):
            federation.open()


def test_contracts_come_back_and_what_storage_has_does_not(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    home, out = federation.settings.home, tmp_path / "backup"
    federation.play(federation.open())
    (home / "keys").mkdir(exist_ok=True)
    (home / "keys" / "root-key.pem").write_text("a root key")
    backup = back_up_coordinator(federation.settings, out, federation.clock.now())
    paths = [kept.path for kept in backup.manifest.files]
    assert {path.split("/")[0] for path in paths} == {"feed", "contracts", "reports"}
    assert "contracts/silo-a.yaml" in paths and "contracts/silo-a.agreement.json" in paths
    assert "keep root keys apart" in " ".join(backup.left_out)
    assert b"a root key" not in out.read_bytes()
