"""A silo's disk over many rounds, and everything that must not be touched."""

import os
import time
from pathlib import Path

import pytest

from aggregator.decisions.stage import Stage
from aggregator.federated_round import abort_round, advance
from aggregator.settings.merge import MergeSection
from data_contracts.protocol.bucket_layout import blob_key
from data_contracts.protocol.records import Submission
from infra.disk.own_files import remove_all
from silo_agent.agent import poll_once
from silo_agent.config import DiskSection
from silo_agent.home.agent_disk import silo_disk
from silo_agent.home.disk_pruning import SiloDisk, prune_home, surplus
from silo_agent.home.disk_rule import SeenRounds, kept_rounds
from silo_agent.training.run_files import RunFiles
from tests.simulator.disk import files_below, names_in, play_rounds, size_of
from tests.simulator.fake_clock import START
from tests.simulator.federation import FEDERATION, RUN, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedSilo

pytestmark = pytest.mark.long

HONEST = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}
COMPRESSED = MergeSection(rule="stack_truncate", compression="int8")
WHOLE = MergeSection(rule="stack_truncate", compression="none")


def disk_of(federation: SimulatedFederation, name: str = "silo-a") -> SiloDisk:
    agent = federation.silos[name].agent(FEDERATION, federation.pinned)
    return silo_disk(agent, agent.feed.refresh())


def work_of(silo: SimulatedSilo, number: int) -> RunFiles:
    return RunFiles(silo.home / "work" / RUN / f"round-{number:04d}")


@pytest.mark.parametrize("merge", [WHOLE, COMPRESSED], ids=["whole", "compressed"])
def test_twelve_rounds_leave_no_more_than_six(
    make_federation: MakeFederation, merge: MergeSection
) -> None:
    federation = make_federation({"merge": merge}, **HONEST)
    play_rounds(federation, 1, 6)
    after_six = {name: size_of(silo.home) for name, silo in federation.silos.items()}
    play_rounds(federation, 7, 12)
    for name, silo in federation.silos.items():
        assert not silo.faults
        assert abs(size_of(silo.home) - after_six[name]) < 0.03 * after_six[name]


def test_of_every_kind_the_last_rounds_stay(make_federation: MakeFederation) -> None:
    federation = make_federation({"merge": COMPRESSED}, **HONEST)
    play_rounds(federation, 1, 4)
    silo = federation.silos["silo-a"]
    home = silo.home
    assert names_in(home / "outbox" / "rounds" / RUN) == {"0003", "0004"}
    assert len(names_in(home / "outbox" / "blobs")) == 2
    assert names_in(home / "work" / RUN) == {"round-0003", "round-0004"}
    assert names_in(home / "silo-only" / RUN) == {
        "round-0003.safetensors",
        "round-0004.safetensors",
    }
    assert not work_of(silo, 3).checkpoints.exists() and not work_of(silo, 4).checkpoints.exists()
    assert (
        work_of(silo, 4).adapter.exists()
        and (work_of(silo, 3).directory / "log-rank-0.txt").exists()
    )
    # The adapter that round 4 started from, and its candidate.
    assert len(names_in(home / "global-adapters")) == 2


def test_a_running_agent_looks_when_there_may_be_something(
    make_federation: MakeFederation,
) -> None:
    """Not at every poll, of which there are thousands a day; a new process looks at once."""
    federation = make_federation(**HONEST)
    silo = federation.silos["silo-a"]
    agent = silo.agent(FEDERATION, federation.pinned)
    left = silo.home / "global-adapters" / f"{'0' * 64}.safetensors"

    def looks() -> bool:
        left.parent.mkdir(exist_ok=True)
        left.touch()
        poll_once(agent)
        return not left.exists()

    assert looks(), "for the first time"
    assert not looks(), "nothing has happened"
    silo.clock.sleep(86_400)
    assert looks(), "a day later"
    federation.open()
    assert looks(), "a plan is new, which is then accepted"
    assert looks(), "after a step"
    agent = silo.agent(FEDERATION, federation.pinned)
    assert looks(), "in a new process"


def test_what_nobody_may_remove_stays(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    home = federation.silos["silo-a"].home
    for name in ("work/gate/0123/outcome.json", "work/splits/train.jsonl", "contract.yaml"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"kept")
    goes = ("outbox/", "work/run-1/", "silo-only/", "global-adapters/", "error-feedback/")
    before = {name for name in files_below(home) if not name.startswith(goes)}
    play_rounds(federation, 2, 5)
    assert before <= files_below(home)
    assert {"latest-instant", "feed/feed.json", "policy.toml"} <= before


def test_a_write_of_tokens_that_was_killed_is_finished_with(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(**HONEST)
    shards = federation.silos["silo-a"].home / "work/splits/shards"
    shards.mkdir(parents=True)
    left, tokens = shards / ".train-01.tokens.12-34.part", shards / "train-01.tokens"
    for path in (left, tokens):
        path.write_bytes(b"tokens")
        os.utime(path, (1, 1))
    play_rounds(federation, 1, 1)
    assert tokens.exists() and not left.exists()


def test_a_round_under_way_keeps_what_it_needs(make_federation: MakeFederation) -> None:
    """In front of every single step of a round nothing of it goes."""
    federation = make_federation({"merge": COMPRESSED}, **HONEST)
    play_rounds(federation, 1, 2)
    plan, silo = federation.open(3), federation.silos["silo-a"]
    while advance(federation.coordinator(), plan) is not Stage.REPORTED:
        outbox = files_below(silo.home / "outbox" / "rounds" / RUN / "0003")
        federation.silos_act()
        assert outbox <= files_below(silo.home / "outbox" / "rounds" / RUN / "0003")
        if silo.trainings == 3 and not any("evaluation" in name for name in outbox):
            assert work_of(silo, 3).checkpoints.exists()
        federation.clock.sleep(20)
    assert silo.trainings == 3 and not silo.faults


def test_another_attempt_at_the_round_finds_what_was_trained(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    first, silo = federation.open(2), federation.silos["silo-a"]
    federation.silos_act(4)
    abort_round(federation.coordinator(), first, "operator.abort", "to try again")
    federation.silos_act()
    second = federation.open(2)
    federation.silos_act()
    assert second.record.attempt == 2
    assert work_of(silo, 2).checkpoints.exists() and work_of(silo, 2).adapter.exists()
    # What was submitted in the first attempt is still there to be sent, and its adapter.
    submissions = list((silo.home / "outbox").rglob(f"{Submission.kind}.json"))
    assert {path.parts[-3] for path in submissions} == {"0001", "0002"}
    federation.play(second)
    assert not silo.faults


def test_an_absent_silo_keeps_its_last_rounds(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    play_rounds(federation, 1, 2)
    silo = federation.silos["silo-c"]
    silo.behaviour = Behaviour.ABSENT
    play_rounds(federation, 3, 6)
    silo.behaviour = Behaviour.HONEST
    federation.silos_act()
    assert names_in(silo.home / "work" / RUN) == {"round-0002"}
    play_rounds(federation, 7, 7)
    assert names_in(silo.home / "work" / RUN) == {"round-0002", "round-0007"}
    assert not silo.faults


@pytest.mark.parametrize(
    ("present", "newest", "keep", "kept"),
    [
        ({1, 2, 3}, 3, 1, {2, 3}),
        ({1, 2}, 3, 1, {2}),
        ({5, 6}, 1000, 1, {6}),
        ({6, 7, 1000}, 8, 1, {7, 1000}),
        ({1, 2, 3, 4}, 4, 3, {1, 2, 3, 4}),
        (set(), 9, 1, set()),
    ],
)
def test_rounds_that_are_there_count_and_not_their_numbers(
    present: set[int], newest: int, keep: int, kept: set[int]
) -> None:
    assert kept_rounds(present, newest, keep) == kept


def test_another_run_stays_for_its_days(make_federation: MakeFederation) -> None:
    federation = make_federation({"merge": COMPRESSED}, **HONEST)
    play_rounds(federation, 1, 2)
    federation.settings = federation.settings.model_copy(update={"run": "run-2"})
    play_rounds(federation, 1, 1)
    home = federation.silos["silo-a"].home
    assert names_in(home / "work" / RUN) == {"round-0001", "round-0002"}
    assert names_in(home / "error-feedback" / RUN)
    federation.clock.sleep((DiskSection().keep_other_runs_days + 1) * 86_400)
    federation.silos_act()
    for directory in ("work", "silo-only", "error-feedback", "outbox/rounds"):
        assert not names_in(home / directory / RUN)
        assert names_in(home / directory / "run-2")
    assert len(names_in(home / "outbox" / "blobs")) == 1
    # Back to the first run: it goes on without what compression had left unsent.
    federation.settings = federation.settings.model_copy(update={"run": RUN})
    play_rounds(federation, 3, 3)
    assert not federation.silos["silo-a"].faults


def test_what_a_person_put_there_stays(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    home = federation.silos["silo-a"].home
    strange = [
        home / "work" / RUN / "round-0001-my-notes" / "notes.txt",
        home / "work" / "run-nobody-knows" / "round-0001" / "adapter.safetensors",
        home / "work" / "notes.txt",
        home / "outbox" / "rounds" / RUN / "README",
        home / "outbox" / "blobs" / "copy.safetensors",
        home / "global-adapters" / "copy-of-mine.safetensors",
        home / "silo-only" / RUN / "round-0001.safetensors.bak",
    ]
    for path in strange:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    play_rounds(federation, 2, 4)
    assert all(path.read_bytes() == b"mine" for path in strange)
    assert names_in(home / "outbox" / "rounds" / RUN) == {"0003", "0004", "README"}


@pytest.mark.parametrize("linked", ["work", "work/run-1", "outbox", "outbox/rounds", "silo-only"])
def test_no_link_is_followed(make_federation: MakeFederation, tmp_path: Path, linked: str) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)
    home = federation.silos["silo-a"].home
    elsewhere = tmp_path / "elsewhere"
    (home / linked).rename(elsewhere)
    (home / linked).symlink_to(elsewhere)
    before = files_below(elsewhere)
    play_rounds(federation, 3, 5)
    assert before <= files_below(elsewhere)
    assert not federation.silos["silo-a"].faults


def test_a_link_in_the_place_of_a_round_stays(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)
    home, target = federation.silos["silo-a"].home, tmp_path / "target"
    target.mkdir()
    (target / "adapter.safetensors").write_bytes(b"of somebody else")
    link = home / "work" / RUN / "round-0000"
    link.symlink_to(target)
    inside = home / "work" / RUN / "round-0001" / "link"
    inside.symlink_to(target)
    play_rounds(federation, 3, 5)
    assert link.is_symlink() and not inside.is_symlink()
    assert (target / "adapter.safetensors").read_bytes() == b"of somebody else"


def test_a_removal_that_was_killed_is_finished(make_federation: MakeFederation) -> None:
    """After each prefix of what is to be removed, the next time comes to the same."""
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 3)
    federation.open(4)
    disk = disk_of(federation)
    due = surplus(disk)
    assert len(due) >= 4
    for path in due:
        remove_all([path])
        assert not federation.silos["silo-a"].faults
        assert _no_record_lacks_its_adapter(disk.home)
    assert surplus(disk_of(federation)) == []


def test_a_directory_half_removed_is_finished(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 3)
    home = federation.silos["silo-a"].home
    half = home / "work" / RUN / ".round-0001.removing"
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(b"half")
    part = home / "global-adapters" / f".{'0' * 64}.safetensors.1-2.part"
    part.write_bytes(b"half")
    fresh = home / "global-adapters" / f".{'1' * 64}.safetensors.1-2.part"
    fresh.write_bytes(b"half")
    # The simulated clock is years away from that of the machine.
    now = federation.clock.now().timestamp()
    os.utime(part, (now - 90_000, now - 90_000))
    os.utime(fresh, (now, now))
    federation.silos_act()
    assert not half.exists() and not part.exists() and fresh.exists()


def test_a_submission_that_cannot_be_read_keeps_every_adapter(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 2)
    outbox = federation.silos["silo-a"].home / "outbox"
    (path,) = outbox.glob(f"rounds/{RUN}/0001/*/{Submission.kind}.json")
    path.write_bytes(b"{")
    nobody_names = outbox / blob_key("0" * 64)
    nobody_names.write_bytes(b"x")
    assert nobody_names not in surplus(disk_of(federation))


def test_what_the_system_refuses_is_said_and_the_rest_goes(tmp_path: Path) -> None:
    """A name that is too long once it is put aside stands for every refusal."""
    kept, gone = tmp_path / ("n" * 250), tmp_path / "gone"
    kept.mkdir()
    gone.mkdir()
    (gone / "file").write_bytes(b"1234")
    removed = remove_all([kept, gone])
    assert removed.refused == (f"{kept}: File name too long",)
    assert (removed.usage.files, removed.usage.size) == (1, 4)
    assert kept.exists() and not gone.exists()


def test_a_key_that_was_replaced_midway_stops_nothing(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 1)
    plan, silo = federation.open(2), federation.silos["silo-a"]
    federation.silos_act(3)
    checkpoints = work_of(silo, 2).checkpoints
    assert checkpoints.exists()
    federation.replace_key("silo-a")
    federation.play(plan)
    assert not silo.faults and checkpoints.exists()
    federation.sign_contract("silo-a")
    play_rounds(federation, 3, 3)
    assert not silo.faults and not checkpoints.exists()


def test_without_a_plan_nothing_goes(tmp_path: Path) -> None:
    (tmp_path / "work" / RUN / "round-0001").mkdir(parents=True)
    seen = SeenRounds({}, None)
    assert prune_home(SiloDisk(tmp_path, seen, DiskSection(), START)).usage.files == 0
    assert (tmp_path / "work" / RUN / "round-0001").exists()


def test_pruning_costs_little(make_federation: MakeFederation) -> None:
    federation = make_federation(**HONEST)
    play_rounds(federation, 1, 3)
    disk = disk_of(federation)
    start = time.perf_counter()
    for _ in range(20):
        prune_home(disk)
    assert time.perf_counter() - start < 1.0


def _no_record_lacks_its_adapter(home: Path) -> bool:
    submissions = list((home / "outbox").rglob(f"{Submission.kind}.json"))
    return len(names_in(home / "outbox" / "blobs")) >= len(submissions)
