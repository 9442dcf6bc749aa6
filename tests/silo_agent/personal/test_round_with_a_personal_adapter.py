"""A personal adapter in simulated rounds: when it is made, what is kept, what is told, what never
leaves."""

import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.envelope import unverified_record
from data_contracts.protocol.records import Evaluation
from infra.storage.object_store import Bucket
from silo_agent.home.backup import kept_files
from silo_agent.personal.kept import PERSONAL, PersonalAdapters, newest_of_all
from silo_agent.personal_settings import PersonalSection
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.processes.launch import TrainingInterruptedError
from silo_agent.watching.agent_view import said_lines, view_agent
from tests.simulator.disk import files_below, play_rounds
from tests.simulator.federation import FEDERATION, RUN, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import BASE_LOSS, Behaviour, SimulatedSilo

HONEST = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}
DUAL = PersonalSection(method="dual")


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    made = make_federation({}, **HONEST)
    made.silos["silo-a"].personal = DUAL
    return made


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> SimulatedFederation:
    """Three rounds, in which one of two silos makes an adapter of its own; nobody changes it."""
    made = SimulatedFederation(tmp_path_factory.mktemp("federation"), tiny_model)
    for name, behaviour in HONEST.items():
        made.add_silo(f"silo-{name}", behaviour)
    made.found()
    made.silos["silo-a"].personal = DUAL
    play_rounds(made, 1, 3)
    return made


def kept_by(silo: SimulatedSilo) -> PersonalAdapters:
    return PersonalAdapters(silo.home, RUN)


def evaluations(silo: SimulatedSilo) -> list[Evaluation]:
    keys = [info.key for info in silo.inbox.list_keys("rounds/") if "/evaluation/" in info.key]
    return [unverified_record(content(silo.inbox, key), Evaluation) for key in sorted(keys)]


def content(bucket: Bucket, key: str) -> bytes:
    data = bucket.get(key, max_bytes=10**9)
    assert data is not None, key
    return data


def test_it_is_made_after_the_submission_and_goes_on_from_round_to_round(
    played: SimulatedFederation,
) -> None:
    one, other = played.silos["silo-a"], played.silos["silo-b"]
    assert not one.faults
    assert one.asked["train_personal"] == 3 and other.asked["train_personal"] == 0
    assert not (other.home / PERSONAL).exists()
    for number in (2, 3):
        found = kept_by(one).of_round(number)
        assert found is not None and found.beside is not None
        assert found.facts.beside_digest == found.facts.global_digest


def test_its_loss_is_told_where_losses_are_and_its_bytes_never_leave(
    played: SimulatedFederation,
) -> None:
    one, plans = played.silos["silo-a"], played.silos["silo-a"].plans
    assert [e.personal_loss for e in evaluations(one)] == [Decimal(str(BASE_LOSS / 2))] * 3
    assert [e.personal_loss for e in evaluations(played.silos["silo-b"])] == [None] * 3
    found = [kept for number in (2, 3) if (kept := kept_by(one).of_round(number))]
    assert len({kept.facts.digest for kept in found}) == 2
    own = [kept.trained.read_bytes() for kept in found]
    digests = [kept.facts.digest for kept in found]
    outbox = one.home / "outbox"
    left = {name: (outbox / name).read_bytes() for name in files_below(outbox)}
    for silo in played.silos.values():
        left |= {i.key: content(silo.inbox, i.key) for i in silo.inbox.list_keys("")}
    left |= {info.key: content(plans, info.key) for info in plans.list_keys("")}
    assert any(name.endswith("evaluation.json") for name in left)
    for name, data in left.items():
        assert data not in own, name
        assert not any(digest in name or digest.encode() in data for digest in digests), name


def test_the_report_tells_worst_and_median(played: SimulatedFederation) -> None:
    pages = list(played.directory.rglob("run-*-round-0003.html"))
    assert pages
    words = pages[0].read_text()
    assert "Its own adapter" in words and "at 1 of 2 institutions" in words


def test_of_old_rounds_nothing_stays(played: SimulatedFederation) -> None:
    suffixes = (".json", ".safetensors", ".beside.safetensors")
    left = files_below(played.silos["silo-a"].home / PERSONAL / RUN)
    assert left == {f"round-000{number}{suffix}" for number in (2, 3) for suffix in suffixes}


def test_a_backup_holds_it(played: SimulatedFederation) -> None:
    one = played.silos["silo-a"]
    kept = kept_files(one.agent(FEDERATION, played.pinned).config).paths
    below = one.home / PERSONAL
    found = {str(path.relative_to(below)) for path in kept if path.is_relative_to(below)}
    assert found == files_below(below)


@pytest.mark.parametrize("name", ["round-0003.safetensors", "round-0003.beside.safetensors"])
def test_half_of_one_does_not_count(played: SimulatedFederation, tmp_path: Path, name: str) -> None:
    shutil.copytree(played.silos["silo-a"].home / PERSONAL, tmp_path / PERSONAL)
    (tmp_path / PERSONAL / RUN / name).write_bytes(b"other bytes")
    newest = newest_of_all(tmp_path)
    assert newest is not None and newest.facts.round == 2


def test_another_method_begins_anew_and_the_loss_can_stay_at_home(
    federation: SimulatedFederation, caplog: pytest.LogCaptureFixture
) -> None:
    one = federation.silos["silo-a"]
    play_rounds(federation, 1, 1)
    one.personal = PersonalSection(method="ditto", share_loss=False)
    with caplog.at_level("INFO"):
        play_rounds(federation, 2, 2)
    assert "the personal adapter begins anew: in round 1 the method was dual" in caplog.text
    assert "1.5000 nats per token with the personal adapter" in caplog.text
    found = kept_by(one).of_round(2)
    assert found is not None and found.facts.method == "ditto" and found.facts.compared is not None
    assert [e.personal_loss is None for e in evaluations(one)] == [False, True]
    own = [line for line in said_lines(view_agent(one.home)) if line.startswith("own ")]
    assert own and "1.5000 nats per token with the personal adapter" in own[0]


def test_what_goes_wrong_costs_the_personal_adapter_and_no_round(
    federation: SimulatedFederation, caplog: pytest.LogCaptureFixture
) -> None:
    """A death, faults of the machine and of numbers that nobody foresaw, and a stop, after which
    the agent makes it after all."""
    died = ProcessDiedError("a rank", expected="an end", found="killed", action="look")
    full = SiloOperatorError("disk", expected="room", found="none", action="free some")
    raw = OSError(28, "No space left on device")
    beyond = ValueError("rank beyond 1024\nfor further information visit a page")
    stop = TrainingInterruptedError("training", expected="no stop", found="one", action="go on")
    # Each look of a simulated agent is that of one that was started anew, and tries again.
    faults: list[Exception] = []
    one = federation.silos["silo-a"]

    def fail() -> None:
        if faults:
            raise faults.pop()

    one.while_personal = fail
    for number, fault, times in (
        (1, died, 9),
        (2, full, 9),
        (3, raw, 9),
        (4, beyond, 9),
        (5, stop, 1),
    ):
        faults[:] = [fault] * times
        play_rounds(federation, number, number)
    assert "round 1: no personal adapter: a rank" in caplog.text
    assert "round 2: no personal adapter: disk" in caplog.text
    assert "round 3: no personal adapter: [Errno 28] No space left on device" in caplog.text
    assert "round 4: no personal adapter: rank beyond 1024\n" in caplog.text
    assert one.faults == ["training: expected no stop; found one. To fix it: go on"]
    assert [kept_by(one).of_round(number) is None for number in range(1, 6)] == [True] * 4 + [False]
    assert [e.personal_loss for e in evaluations(one)] == [None] * 5


def test_the_newest_is_that_of_the_latest_plan_whatever_times_the_files_have(
    played: SimulatedFederation, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(played.silos["silo-a"].home / PERSONAL, home / PERSONAL)
    found = newest_of_all(home)
    assert found is not None
    older = found.facts.model_copy(
        update={"run": "run-0", "issued_at": found.facts.issued_at - timedelta(days=1)}
    )
    PersonalAdapters(home, "run-0").keep(older, found.trained, found.beside)
    again = newest_of_all(home)
    assert again is not None and again.facts.run == found.facts.run
