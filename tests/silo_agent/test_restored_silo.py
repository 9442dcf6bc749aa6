"""A silo whose disk was lost, restored from a backup of any phase: it never signs a slot twice,
what it has seen never falls, and the round ends as it would have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregator.federated_round import advance
from aggregator.feed.reading import read_federation, read_report
from data_contracts.errors import ConsortiaError, StorageError
from data_contracts.protocol.records import RoundReport
from infra.backup.home_restore import RESTORED_NAME, is_restored
from silo_agent.agent import poll_once
from silo_agent.config import CONFIG_NAME, SiloConfig
from silo_agent.federation.marks import CLOCK_NAME
from silo_agent.first_day.templates import config_text
from silo_agent.home.backup import back_up_silo, restore_silo
from silo_agent.loop import only_agent
from tests.simulator.federation import FEDERATION, RUN, STEP_SECONDS, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedSilo
from tests.simulator.slots import require_one_record_for_each_slot

PHASES = ("nothing", "plan", "acceptance", "verdict", "submission", "close", "evaluation", "report")
"""What has happened last when a backup is made or a disk is lost."""

UNSENT = {
    f"error-feedback/{RUN}/0001{part}"
    for part in (".json", ".residual.safetensors", ".factors.safetensors")
}
"""What compression left unsent of round 1."""


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)


def config_of(federation: SimulatedFederation, silo: SimulatedSilo) -> SiloConfig:
    return silo.agent(FEDERATION, federation.pinned).config


def report_of(federation: SimulatedFederation) -> RoundReport | None:
    c = federation.coordinator()
    feed = read_federation(c)
    newest = feed.attempt_of_run(RUN)
    found = read_report(c, feed, newest.plan) if newest else None
    return found.record if found else None


def has_reached(federation: SimulatedFederation, silo: SimulatedSilo, phase: str) -> bool:
    if phase in ("nothing", "plan"):
        return phase == "nothing" or bool(federation.plans.list_keys("feed/"))
    if phase == "report":
        return report_of(federation) is not None
    if phase == "close":
        return any("/close/" in info.key for info in federation.plans.list_keys("rounds/"))
    return phase in silo.kinds()


def play_until(
    federation: SimulatedFederation, reached: Callable[[], bool], round_number: int = 1
) -> None:
    """One step of everybody after the other; `silo-a` last, so that nothing outruns it."""
    for _ in range(200):
        if reached():
            return
        plan = federation.open(round_number)
        for silo in reversed(federation.silos.values()):
            if reached():
                return
            silo.act(FEDERATION, federation.pinned)
        if reached():
            return
        advance(federation.coordinator(), plan)
        federation.clock.sleep(STEP_SECONDS)
    raise AssertionError("never reached")


def feed_number(silo: SimulatedSilo) -> int:
    path = silo.home / "feed" / "feed.json"
    return int(json.loads(path.read_bytes())["feed_number"]) if path.exists() else 0


def instant(silo: SimulatedSilo) -> str:
    path = silo.home / CLOCK_NAME
    return str(json.loads(path.read_bytes())["instant"]) if path.exists() else ""


PAIRS = [(b, lost) for i, b in enumerate(PHASES) for lost in PHASES[i:]]
ALWAYS = {("nothing", "submission"), ("acceptance", "evaluation"), ("nothing", "report")}


@pytest.mark.parametrize(
    ("backed_up", "lost"),
    [pytest.param(*p, marks=[] if p in ALWAYS else pytest.mark.campaign) for p in PAIRS],
)
def test_a_disk_that_was_lost_in_any_phase(
    federation: SimulatedFederation, tmp_path: Path, backed_up: str, lost: str
) -> None:
    silo, out = federation.silos["silo-a"], tmp_path / "backup"
    play_until(federation, lambda: has_reached(federation, silo, backed_up))
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    play_until(federation, lambda: has_reached(federation, silo, lost))
    seen, latest = feed_number(silo), instant(silo)
    shutil.rmtree(silo.home)
    restore_silo(out, silo.home, federation.clock.now())
    play_until(federation, lambda: report_of(federation) is not None)
    silo.act(FEDERATION, federation.pinned)
    assert not is_restored(silo.home) and silo.faults == []
    assert feed_number(silo) >= seen and instant(silo) >= latest
    require_one_record_for_each_slot(federation)
    report = report_of(federation)
    assert report is not None and report.outcome == "published"
    play_until(federation, lambda: next_is_reported(federation), 2)
    require_one_record_for_each_slot(federation)
    # Compression begins anew where the backup is older than what was sent since.
    report = report_of(federation)
    assert report is not None and silo.faults == []
    assert {one.silo: one.outcome for one in report.silos}["silo-a"] == "admitted"


def next_is_reported(federation: SimulatedFederation) -> bool:
    report = report_of(federation)
    return report is not None and report.round == 2


@pytest.fixture
def restored(federation: SimulatedFederation, tmp_path: Path) -> SimulatedSilo:
    """`silo-a`, restored from a backup before the first plan after it had submitted."""
    silo, out = federation.silos["silo-a"], tmp_path / "backup"
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    play_until(federation, lambda: "submission" in silo.kinds())
    shutil.rmtree(silo.home)
    restore_silo(out, silo.home, federation.clock.now())
    return silo


def test_nothing_is_signed_before_storage_has_answered(
    federation: SimulatedFederation, restored: SimulatedSilo
) -> None:
    def away(operation: str, key: str) -> None:
        raise StorageError("storage", expected="an answer", found="none", action="wait")

    inbox = federation.inbox("silo-a")
    before = dict(inbox.objects)
    inbox.before = away
    for _ in range(3):
        with pytest.raises(StorageError):
            poll_once(restored.agent(FEDERATION, federation.pinned))
    assert is_restored(restored.home) and inbox.objects == before
    inbox.before = None
    restored.act(FEDERATION, federation.pinned)
    assert not is_restored(restored.home)


def test_a_feed_that_was_taken_back_is_not_followed(
    federation: SimulatedFederation, restored: SimulatedSilo
) -> None:
    feed = {k: v for k, v in federation.plans.objects.items() if k.startswith("feed/")}
    for key in feed:
        federation.plans.objects.pop(key)
    with pytest.raises(ConsortiaError, match="a feed that ends before it"):
        poll_once(restored.agent(FEDERATION, federation.pinned))
    assert is_restored(restored.home)
    federation.plans.objects.update(feed)
    restored.act(FEDERATION, federation.pinned)
    assert not is_restored(restored.home)


def test_what_others_put_into_its_inbox_raises_nothing(
    federation: SimulatedFederation, restored: SimulatedSilo
) -> None:
    other = next(k for k in federation.inbox("silo-b").objects if "/acceptance/" in k)
    forged = other.replace(f"rounds/{RUN}/0001", f"rounds/{RUN}/0099")
    federation.inbox("silo-a").objects[forged] = federation.inbox("silo-b").objects[other]
    federation.inbox("silo-a").objects[other] = federation.inbox("silo-b").objects[other]
    restored.act(FEDERATION, federation.pinned)
    assert not is_restored(restored.home) and restored.faults == []


def twin_of(silo: SimulatedSilo, home: Path) -> SimulatedSilo:
    """The same key and storage on another machine."""
    shutil.copytree(silo.home, home)
    return SimulatedSilo(
        silo.name, home, silo.key, silo.plans, silo.inbox, silo.clock, silo.contract
    )


def test_the_second_of_two_machines_says_so_and_signs_nothing(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo = federation.silos["silo-a"]
    out = tmp_path / "backup"
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    for home in (tmp_path / "one", tmp_path / "two"):
        restore_silo(out, home, federation.clock.now())
    machines = [
        SimulatedSilo(
            silo.name, tmp_path / home, silo.key, silo.plans, silo.inbox, silo.clock, silo.contract
        )
        for home in ("one", "two")
    ]
    for machine in machines:
        machine.act(FEDERATION, federation.pinned)
    federation.open()
    machines[0].act(FEDERATION, federation.pinned)
    federation.clock.sleep(STEP_SECONDS)
    machines[1].act(FEDERATION, federation.pinned)
    assert "it is on two machines" in machines[1].faults[0]
    assert "silo-agent catch-up" in machines[1].faults[0]
    require_one_record_for_each_slot(federation)


def test_the_machine_that_stays_takes_over_what_the_other_signed(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo = federation.silos["silo-a"]
    twin = twin_of(silo, tmp_path / "twin")
    federation.open()
    silo.act(FEDERATION, federation.pinned)
    federation.clock.sleep(STEP_SECONDS)
    twin.act(FEDERATION, federation.pinned)
    assert len(twin.faults) == 1
    (twin.home / RESTORED_NAME).write_text("{}")
    federation.silos["silo-a"] = twin
    play_until(federation, lambda: report_of(federation) is not None)
    assert len(twin.faults) == 1
    require_one_record_for_each_slot(federation)
    report = report_of(federation)
    assert report is not None and report.outcome == "published"


# Over a home that is there.


def with_configuration(silo: SimulatedSilo) -> SimulatedSilo:
    text = config_text(silo.name, FEDERATION, "http://127.0.0.1:1", "cpu", 1)
    (silo.home / CONFIG_NAME).write_text(text)
    return silo


def test_an_old_backup_lowers_nothing_and_overwrites_nothing(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, out = with_configuration(federation.silos["silo-a"]), tmp_path / "backup"
    play_until(federation, lambda: "acceptance" in silo.kinds())
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    play_until(federation, lambda: report_of(federation) is not None)
    play_until(federation, lambda: next_is_reported(federation), 2)
    silo.act(FEDERATION, federation.pinned)
    seen, latest = feed_number(silo), instant(silo)
    (silo.home / "policy.toml").write_text("take_part = false\n")
    restored = restore_silo(out, silo.home, federation.clock.now())
    assert restored.left == ("policy.toml",) and restored.raised == restored.put_back == ()
    assert (feed_number(silo), instant(silo)) == (seen, latest)
    assert (silo.home / "policy.toml").read_text() == "take_part = false\n"


def test_a_newer_backup_raises_what_an_older_home_has_seen(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, out = with_configuration(federation.silos["silo-a"]), tmp_path / "backup"
    silo.act(FEDERATION, federation.pinned)
    shutil.copytree(silo.home, tmp_path / "old")
    play_until(federation, lambda: "submission" in silo.kinds())
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    seen, latest = feed_number(silo), instant(silo)
    shutil.rmtree(silo.home)
    shutil.copytree(tmp_path / "old", silo.home)
    (silo.home / "policy.toml").unlink()
    restored = restore_silo(out, silo.home, federation.clock.now())
    assert set(restored.raised) == {"feed/feed.json", CLOCK_NAME}
    assert set(restored.put_back) == {"policy.toml", *UNSENT}
    assert (feed_number(silo), instant(silo)) == (seen, latest)


def test_marks_of_two_histories_are_refused(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, out = with_configuration(federation.silos["silo-a"]), tmp_path / "backup"
    play_until(federation, lambda: "acceptance" in silo.kinds())
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    state = silo.home / "feed" / "feed.json"
    changed: dict[str, Any] = {**json.loads(state.read_bytes()), "feed_digest": "0" * 64}
    state.write_text(json.dumps(changed))
    before = {path: path.read_bytes() for path in silo.home.rglob("*") if path.is_file()}
    with pytest.raises(ConsortiaError, match="found two entries 1"):
        restore_silo(out, silo.home, federation.clock.now())
    del before[next(p for p in before if p.name == "feed.json")]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not is_restored(silo.home)


def test_a_directory_of_other_files_is_left_alone(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    out, other = tmp_path / "backup", tmp_path / "other"
    config = config_of(federation, federation.silos["silo-a"])
    back_up_silo(config, out, federation.clock.now())
    other.mkdir()
    (other / "letter").write_text("mine")
    with pytest.raises(ConsortiaError, match="found one with other files"):
        restore_silo(out, other, federation.clock.now())
    assert [path.name for path in other.iterdir()] == ["letter"]


def test_a_home_whose_agent_runs_is_not_restored(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, out = with_configuration(federation.silos["silo-a"]), tmp_path / "backup"
    back_up_silo(config_of(federation, silo), out, federation.clock.now())
    with only_agent(silo.home), pytest.raises(ConsortiaError, match="no other agent"):
        restore_silo(out, silo.home, federation.clock.now())
    assert not is_restored(silo.home)


def test_a_backup_of_another_silo_is_refused(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    out = tmp_path / "backup"
    back_up_silo(config_of(federation, federation.silos["silo-b"]), out, federation.clock.now())
    silo = with_configuration(federation.silos["silo-a"])
    with pytest.raises(ConsortiaError, match="found one of silo-b in simulated"):
        restore_silo(out, silo.home, federation.clock.now())
    assert not is_restored(silo.home)


def test_a_manifest_that_claims_another_silo_than_its_files_is_refused(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, out = with_configuration(federation.silos["silo-a"]), tmp_path / "backup"
    config = config_of(federation, silo).model_copy(update={"silo": "silo-b"})
    back_up_silo(config, out, federation.clock.now())
    with pytest.raises(ConsortiaError, match="found that of silo-a in simulated"):
        restore_silo(out, tmp_path / "new", federation.clock.now())
    assert not (tmp_path / "new").exists()


def test_the_backup_holds_no_outbox_no_data_and_nothing_half_written(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, out = with_configuration(federation.silos["silo-a"]), tmp_path / "backup"
    play_until(federation, lambda: "submission" in silo.kinds())
    (silo.home / "data").mkdir()
    (silo.home / "data" / "records.jsonl").write_text("raw text")
    (silo.home / "STOP").touch()
    backup = back_up_silo(config_of(federation, silo), out, federation.clock.now())
    assert {kept.path for kept in backup.manifest.files} == {
        "feed/feed.json",
        "feed/members/000001.json",
        "STOP",
        CLOCK_NAME,
        "keys/signing-key.pem",
        "policy.toml",
        CONFIG_NAME,
        *UNSENT,
    }
    assert b"raw text" not in out.read_bytes()
