"""A process that dies costs a silo its attempt, with a signed word, and never the agent."""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import pytest

from aggregator.decisions.stage import owing_evaluation
from aggregator.evidence.look import look
from aggregator.federated_round import abort_round, close_round, merge_round
from aggregator.feed.reading import read_federation, read_report
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, Refusal, RoundPlan
from flows.round.watch import view_round
from silo_agent.agent import poll_once
from silo_agent.gate.outcome import GateOutcome
from silo_agent.loop import run_agent
from silo_agent.release.outbox import Released
from silo_agent.restarts import CheckDiedError, ProcessDiedError, described_exit, with_restarts
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import Step
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedTrainer

DETAIL = "signal SIGKILL in /srv/hospital"


def died(kind: type[ProcessDiedError] = ProcessDiedError) -> ProcessDiedError:
    return kind("process", expected="its end", found=DETAIL, action="more memory")


class DyingGate:
    """A gate whose check is always killed; all else is the agent's own."""

    def __init__(self, silo: Silo) -> None:
        self.terms, self.remember = silo.gate.terms, silo.gate.remember
        self.forget_unused = silo.gate.forget_unused

    def check(self, progress: Callable[[int], None]) -> GateOutcome:
        raise died(CheckDiedError)


class DyingEvaluator(SimulatedTrainer):
    """Trains, and dies when it measures."""

    def evaluate(self, *given: object) -> NoReturn:
        raise died()

    def measure(self, *given: object) -> NoReturn:
        raise died()


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)


def agent_c(federation: SimulatedFederation) -> Silo:
    return federation.silos["silo-c"].agent(FEDERATION, federation.pinned)


def released(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Released:
    return agent_c(federation).release.outbox.released(attempt_of(plan))


def refusal_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Refusal:
    refusal = released(federation, plan).refusal
    assert refusal is not None
    assert DETAIL not in refusal.envelope.decode(), "what happened stays in the silo's log"
    return refusal.record


def next_attempt(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Verified[RoundPlan]:
    abort_round(federation.coordinator(), plan, "operator.abort", "one silo ran out of memory")
    return federation.open()


def dies(kind: type[ProcessDiedError]) -> Callable[[], NoReturn]:
    def die() -> NoReturn:
        raise died(kind)

    return die


@pytest.mark.parametrize(
    ("kind", "rule"),
    [(ProcessDiedError, "training.failed"), (CheckDiedError, "data.check_failed")],
)
def test_training_that_dies_is_refused_and_the_next_attempt_is_taken_part_in(
    federation: SimulatedFederation, kind: type[ProcessDiedError], rule: str
) -> None:
    """Training makes the check again, to write its files from."""
    silo = federation.silos["silo-c"]
    silo.while_training = dies(kind)
    plan = federation.open()
    federation.silos_act(4)
    assert silo.faults == []
    assert silo.kinds() == {"acceptance", "verdict", "refusal"}
    refusal = refusal_of(federation, plan)
    assert refusal.rule == rule
    assert "killed, out of memory, or crashed" in refusal.reason
    close = close_round(federation.coordinator(), federation.look(plan)).record
    assert isinstance(close, Close)
    assert [(each.silo, each.rule) for each in close.refused] == [("silo-c", rule)]
    assert [each.silo for each in close.admitted] == ["silo-a", "silo-b"]
    silo.while_training = lambda: None
    again = next_attempt(federation, plan)
    federation.silos_act(3)
    assert released(federation, again).submission is not None


def test_a_check_that_dies_is_refused_and_the_next_attempt_looks_again(
    federation: SimulatedFederation,
) -> None:
    plan = federation.open()
    federation.silos_act()
    agent = agent_c(federation)
    assert poll_once(replace(agent, gate=DyingGate(agent))) is Step.REFUSED
    assert refusal_of(federation, plan).rule == "data.check_failed"
    assert poll_once(agent) is Step.FINISHED, "of this attempt"
    again = next_attempt(federation, plan)
    federation.silos_act(2)
    verdict = released(federation, again).verdict
    assert verdict is not None
    assert verdict.record.passed


def dying_evaluator(federation: SimulatedFederation) -> Silo:
    silo, agent = federation.silos["silo-c"], agent_c(federation)
    trainer = DyingEvaluator("silo-c", silo.home / "work", silo.behaviour, silo._train)
    return replace(agent, trainer=trainer)


def test_an_evaluation_that_dies_is_waited_for_no_longer_and_the_adapter_counts(
    federation: SimulatedFederation,
) -> None:
    plan = federation.open()
    federation.silos_act(3)
    close_round(federation.coordinator(), federation.look(plan))
    merge_round(federation.coordinator(), federation.look(plan))
    assert poll_once(dying_evaluator(federation)) is Step.REFUSED
    assert refusal_of(federation, plan).rule == "evaluation.failed"
    c = federation.coordinator()
    attempt = look(c, plan).attempt
    assert owing_evaluation(attempt) == ("silo-a", "silo-b")
    assert {view.silo: view.doing for view in view_round(c).silos}["silo-c"] == (
        "refused by evaluation.failed: its adapter counts, its losses do not"
    )
    federation.play(plan)
    assert federation.clock.now() < plan.record.evaluate_by, "nobody waited for it"
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    assert report.record.outcome == "published"
    outcomes = {each.silo: each.outcome for each in report.record.silos}
    assert outcomes == dict.fromkeys(federation.silos, "admitted")


def test_the_loop_lives_through_every_death(federation: SimulatedFederation) -> None:
    """In training first, then in the next attempt's, which an hour later goes well."""
    silo = federation.silos["silo-c"]
    plan = federation.open()
    began, left = federation.clock.now(), iter([ProcessDiedError, CheckDiedError])

    def die_twice() -> None:
        kind = next(left, None)
        if kind is not None:
            raise died(kind)

    class Operator(FakeClock):
        """Opens another attempt while the agent sleeps, and stops it when it has submitted."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            federation.clock.sleep(seconds)
            if "submission" in silo.kinds() or (self.now() - began).total_seconds() > 1500:
                (silo.home / "STOP").touch()
            elif released(federation, plans[-1]).refusal is not None:
                plans.append(next_attempt(federation, plans[-1]))

    plans = [plan]
    silo.while_training = die_twice
    silo.clock = Operator(began)
    run_agent(agent_c(federation))
    assert "submission" in silo.kinds()
    rules = [refusal_of(federation, each).rule for each in plans[:2]]
    assert rules == ["training.failed", "data.check_failed"]


def test_a_configuration_fault_still_ends_the_agent(federation: SimulatedFederation) -> None:
    def no_gpu() -> NoReturn:
        raise SiloOperatorError("GPUs", expected="1", found="0", action="install one")

    federation.silos["silo-c"].while_training = no_gpu
    federation.open()
    with pytest.raises(SiloOperatorError, match="install one"):
        run_agent(agent_c(federation))
    assert "refusal" not in federation.silos["silo-c"].kinds()


@pytest.mark.parametrize(("deaths", "restarts"), [(0, 0), (1, 1), (2, 5)])
def test_what_died_is_started_again(deaths: int, restarts: int) -> None:
    left = iter([died()] * deaths)

    def run() -> str:
        for error in left:
            raise error
        return "done"

    assert with_restarts(run, restarts) == "done"


@pytest.mark.parametrize("restarts", [0, 1, 3])
def test_what_always_dies_is_started_so_often_and_no_more(restarts: int) -> None:
    starts: list[int] = []

    def run() -> NoReturn:
        starts.append(1)
        raise died()

    with pytest.raises(ProcessDiedError):
        with_restarts(run, restarts)
    assert len(starts) == restarts + 1


def test_another_error_is_not_tried_again() -> None:
    starts: list[int] = []

    def run() -> NoReturn:
        starts.append(1)
        raise SiloOperatorError("GPUs", expected="1", found="0", action="install one")

    with pytest.raises(SiloOperatorError, match="GPUs"):
        with_restarts(run, 5)
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [(1, "exit code 1"), (-9, "signal SIGKILL"), (-11, "signal SIGSEGV"), (-40, "signal 40")],
)
def test_an_exit_is_named(code: int, said: str) -> None:
    assert described_exit(code) == said
