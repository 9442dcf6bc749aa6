"""What an operator sees of silos that work, are silent or have stopped; how a wait is ended."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from threading import Event

import pytest
from rich.console import Console

from aggregator.decisions.stage import Stage
from aggregator.federated_round import advance
from aggregator.feed.reading import read_federation, read_report
from aggregator.settings.masking import MaskingSection
from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.protocol.records import Status
from data_contracts.protocol.records.status import Phase
from flows.round.operations import stop_waiting
from flows.round.recent_feed import RecentFeed
from flows.round.silo_outcome import silo_outcome
from flows.round.watch import RoundView, render_round, view_round
from silo_agent import loop
from silo_agent.federation.feed import refresh_feed
from silo_agent.loop import run_agent
from silo_agent.metrics.readings import Readings
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.steps.own_attempt import own_attempt
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour

MINUTE = 60.0


def shown(view: RoundView) -> dict[str, list[str]]:
    """The row of each silo, as a person reads it."""
    console = Console(file=StringIO(), width=200)
    console.print(render_round(view))
    assert isinstance(console.file, StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.ABSENT)
    federation.open()
    return federation


def reporter(federation: SimulatedFederation, name: str) -> StatusReporter:
    silo = federation.silos[name].agent(FEDERATION, federation.pinned)
    return own_attempt(silo, refresh_feed(silo), federation.open()).report


def test_a_silo_that_trains_is_shown_with_what_is_left(federation: SimulatedFederation) -> None:
    reporter(federation, "silo-a").show(
        "training", step=2, steps=10, readings=Readings(eta_seconds=86)
    )
    federation.clock.sleep(30)
    rows = shown(view_round(federation.coordinator()))
    assert rows["silo-a"][0] == "training"
    assert rows["silo-a"][-2:] == ["86 s", "30 s ago"]
    assert rows["silo-c"][0] == "waiting"
    assert rows["silo-c"][-1] == "never"


def test_what_ranks_hold_is_shown_where_a_silo_says_it(federation: SimulatedFederation) -> None:
    held = Readings(memory_bytes=1_900_000_000)
    reporter(federation, "silo-a").show("training", step=2, steps=10, readings=held)
    assert len(shown(view_round(federation.coordinator()))["silo-a"]) == 6
    path = federation.silos["silo-a"].home / "policy.toml"
    path.write_text(f"show_memory = true\n{path.read_text()}")
    federation.clock.sleep(30)
    reporter(federation, "silo-a").show("training", step=3, steps=10, readings=held)
    rows = shown(view_round(federation.coordinator()))
    assert rows["silo-a"][-2:] == ["1.9 GB", "0 s ago"]
    assert rows["silo-c"][-2:] == ["", "never"]


@pytest.mark.parametrize(
    ("phase", "step", "steps", "eta", "still", "silent"),
    [
        ("training", 2, 10, 86, 2 * MINUTE, 4 * MINUTE),
        ("training", 9, 10, 600, 29 * MINUTE, 31 * MINUTE),
        ("training", 10, 10, 0, 2 * MINUTE, 4 * MINUTE),
        ("loading_model", 0, 0, 0, 14 * MINUTE, 16 * MINUTE),
        ("checking_data", 4000, 0, 0, 14 * MINUTE, 16 * MINUTE),
        ("waiting_for_gpu", 0, 0, 0, 14 * MINUTE, 16 * MINUTE),
    ],
)
def test_one_that_was_killed_is_silent_and_never_has_seconds_left(
    federation: SimulatedFederation,
    phase: Phase,
    step: int,
    steps: int,
    eta: int,
    still: float,
    silent: float,
) -> None:
    reporter(federation, "silo-a").show(
        phase, step=step, steps=steps, readings=Readings(eta_seconds=eta)
    )
    federation.clock.sleep(still)
    assert shown(view_round(federation.coordinator()))["silo-a"][0] == phase.replace("_", " ")
    federation.clock.sleep(silent - still)
    row = shown(view_round(federation.coordinator()))["silo-a"]
    assert row[0] == f"silent; was {phase.replace('_', ' ')}"
    assert row[1:-1] == [""] * 4
    assert row[-1] == f"{round(silent // MINUTE)} min ago"


def test_a_deliberate_stop_is_a_signed_status(federation: SimulatedFederation) -> None:
    federation.silos_act(2)
    reporter(federation, "silo-a").show(
        "training", step=2, steps=10, readings=Readings(eta_seconds=86)
    )
    federation.clock.sleep(30)
    silo = federation.silos["silo-a"]
    KillSwitch(silo.home).turn_on()
    kinds = silo.kinds()
    run_agent(silo.agent(FEDERATION, federation.pinned))
    row = shown(view_round(federation.coordinator()))["silo-a"]
    assert row[0] == "stopped by its operator or a fault"
    assert row[1:-1] == [""] * 4
    assert silo.kinds() == kinds, "the word that it has stopped is all that leaves"


def test_an_agent_that_ends_on_a_fault_says_so_too(federation: SimulatedFederation) -> None:
    federation.silos_act(2)
    silo = federation.silos["silo-a"]

    def broken() -> None:
        raise SiloOperatorError("model", expected="one", found="none", action="bring it")

    silo.while_training = broken
    with pytest.raises(SiloOperatorError, match="model"):
        run_agent(silo.agent(FEDERATION, federation.pinned))
    row = shown(view_round(federation.coordinator()))["silo-a"]
    assert row[0] == "stopped by its operator or a fault"


def test_a_storage_that_hangs_does_not_hold_up_a_stop(
    federation: SimulatedFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    silo = federation.silos["silo-a"]
    KillSwitch(silo.home).turn_on()
    answers = Event()

    def hang(operation: str, key: str) -> None:
        answers.wait(60)

    federation.plans.before = hang
    monkeypatch.setattr(loop, "FAREWELL_SECONDS", 0.2)
    began = time.monotonic()
    run_agent(silo.agent(FEDERATION, federation.pinned))
    assert time.monotonic() - began < 5
    answers.set()


def test_one_whose_contract_lets_no_status_out_says_nothing(
    federation: SimulatedFederation,
) -> None:
    silo = federation.silos["silo-a"]
    silo.contract.egress = tuple(e for e in silo.contract.egress if e != "status")
    federation.silos_act(2)
    KillSwitch(silo.home).turn_on()
    run_agent(silo.agent(FEDERATION, federation.pinned))
    assert list(silo.inbox.list_keys("status/")) == []


def test_only_that_word_passes_the_switch(federation: SimulatedFederation) -> None:
    silo = federation.silos["silo-a"].agent(FEDERATION, federation.pinned)
    attempt = own_attempt(silo, refresh_feed(silo), federation.open())
    training = Status.on(
        federation.open(),
        federation.clock.now(),
        silo="silo-a",
        number=1,
        phase="training",
        step=1,
        steps=2,
        tokens_per_second=Decimal(1),
        eta_seconds=1,
    )
    with pytest.raises(ValueError, match="stopped"):
        attempt.out.say_stopped(training)


def waits(federation: SimulatedFederation, stage: Stage, then: int = 3) -> None:
    """Play until the coordinator is in this stage; the silos take some steps more."""
    plan = federation.open()
    for _ in range(40):
        federation.silos_act()
        if advance(federation.coordinator(), plan) is stage:
            federation.silos_act(then)
            return
        federation.clock.sleep(20)
    raise AssertionError(f"never {stage}")


def outcome_of(federation: SimulatedFederation, goal: Stage) -> str | None:
    """Why a running flow waits for silo-c no more."""
    recent = RecentFeed(federation.coordinator())
    return silo_outcome(recent, federation.open(), "silo-c", goal)


def test_the_wait_for_mask_keys_too(make_federation: MakeFederation) -> None:
    silos = dict.fromkeys("abd", Behaviour.HONEST)
    fields = {"masking": MaskingSection(threshold=3)}
    federation = make_federation(fields, **silos, c=Behaviour.ABSENT)
    waits(federation, Stage.EXCHANGING)
    assert outcome_of(federation, Stage.RELAYING) is None
    said = stop_waiting(federation.coordinator())
    assert said == "passed on mask keys of round 1 without those of silo-c"
    assert outcome_of(federation, Stage.RELAYING) == "left out of the mask keys"
    plan = federation.open()
    federation.play(plan)
    attempt = federation.look(plan).attempt
    assert attempt.close is not None
    assert len(attempt.close.record.admitted) == 3


def test_the_wait_for_a_silent_silo_can_be_ended(federation: SimulatedFederation) -> None:
    waits(federation, Stage.COLLECTING)
    plan = federation.open()
    assert outcome_of(federation, Stage.CLOSING) is None
    said = stop_waiting(federation.coordinator())
    assert said == "closed round 1 without silo-c"
    assert outcome_of(federation, Stage.CLOSING) == "the round was closed without it"
    before = federation.clock.now()
    federation.play(plan)
    assert federation.clock.now() - before < timedelta(minutes=10)
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    assert report.record.outcome == "published"
    found = {s.silo: s.outcome for s in report.record.silos}
    assert found == {"silo-a": "admitted", "silo-b": "admitted", "silo-c": "missing"}


def test_the_wait_for_an_evaluation_too(make_federation: MakeFederation) -> None:
    federation = make_federation(
        a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.SILENT_EVALUATOR
    )
    waits(federation, Stage.EVALUATING)
    assert outcome_of(federation, Stage.DECIDING) is None
    assert stop_waiting(federation.coordinator()) == "decided round 1 without silo-c"
    assert outcome_of(federation, Stage.DECIDING) == "the round was decided without it"
    assert advance(federation.coordinator(), federation.open()) is Stage.REPORTING


def nothing_yet(federation: SimulatedFederation) -> None:
    federation.open()


def is_reported(federation: SimulatedFederation) -> None:
    federation.play(federation.open())


@pytest.mark.parametrize(
    ("until", "found"),
    [(nothing_yet, "expected 2 submissions"), (is_reported, "found reported")],
)
def test_below_the_quorum_or_afterwards_it_is_refused(
    make_federation: MakeFederation, until: Callable[[SimulatedFederation], None], found: str
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    until(federation)
    before = federation.snapshot()
    with pytest.raises(FederationOperatorError, match=found):
        stop_waiting(federation.coordinator())
    assert federation.snapshot() == before


@pytest.mark.parametrize("stage", [Stage.COLLECTING, Stage.EVALUATING])
def test_one_key_on_two_machines_stalls_nobody_and_is_told(
    make_federation: MakeFederation, tmp_path: Path, stage: Stage
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    plan = federation.open()
    silo = federation.silos["silo-c"]
    if stage is Stage.EVALUATING:
        waits(federation, Stage.MERGING, then=0)
    twin = replace(silo, home=tmp_path / "restored from a backup")
    shutil.copytree(silo.home, twin.home)
    # At the same moment, so that neither sees what the other has signed.
    inbox = federation.inbox("silo-c")
    twin.inbox = InMemoryBucket(inbox.name, dict(inbox.objects))
    for name in (silo, twin):
        for _ in range(6):
            name.act(FEDERATION, federation.pinned)
            federation.clock.sleep(20)
    inbox.objects.update(twin.inbox.objects)
    before = federation.clock.now()
    row = shown(view_round(federation.coordinator()))["silo-c"]
    assert row[0] == "signed two different records: is its key on two machines?"
    federation.play(plan)
    assert federation.clock.now() - before < timedelta(minutes=15)
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    assert report.record.outcome == "published"
    found = {s.silo: (s.outcome, s.rule) for s in report.record.silos}
    twice = ("admitted", None) if stage is Stage.EVALUATING else ("rejected", "silo.equivocation")
    assert found["silo-c"] == twice
