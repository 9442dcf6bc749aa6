"""A personal adapter that is asked for: for which adapter, from what, and when there is none."""

from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aggregator.settings.merge import MergeSection
from data_contracts.errors import SiloOperatorError
from silo_agent.cli import app
from silo_agent.loop import only_agent
from silo_agent.personal.kept import PersonalAdapter, PersonalAdapters
from silo_agent.personal.told import status_words
from silo_agent.personal_settings import PersonalSection
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.silo import Silo
from silo_agent.steps.personalise_now import personalise_now
from tests.simulator.disk import files_below, play_rounds
from tests.simulator.federation import FEDERATION, RUN, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedSilo

HONEST = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}
ASKED_FOR = PersonalSection(method="dual", every_round=False)
EVERY_ROUND = PersonalSection(method="dual")


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    made = make_federation({}, **HONEST)
    made.silos["silo-a"].personal = ASKED_FOR
    return made


def agent_of(federation: SimulatedFederation) -> Silo:
    return federation.silos["silo-a"].agent(FEDERATION, federation.pinned)


def kept_by(silo: SimulatedSilo, number: int) -> PersonalAdapter:
    kept = PersonalAdapters(silo.home, RUN).of_round(number)
    assert kept is not None
    return kept


def published_digest(federation: SimulatedFederation, after: int) -> str:
    starting = federation.open(after + 1).record.starting_adapter
    assert starting is not None
    return starting.digest


def test_it_is_for_what_the_newest_round_published(federation: SimulatedFederation) -> None:
    one = federation.silos["silo-a"]
    play_rounds(federation, 1, 2)
    assert one.asked["train_personal"] == 0 and not list(one.home.glob("personal"))
    left = files_below(one.home / "outbox"), [info.key for info in one.inbox.list_keys("")]
    facts, is_new = personalise_now(agent_of(federation), steps=3)
    assert is_new and (facts.round, facts.made_for, facts.steps) == (2, "published", 3)
    assert status_words(facts).startswith(f"round 2 of {RUN}, for what it published: ")
    assert personalise_now(agent_of(federation)) == (facts, False)
    assert one.asked["train_personal"] == 1
    assert left == (files_below(one.home / "outbox"), [i.key for i in one.inbox.list_keys("")])
    assert facts.global_digest == facts.beside_digest == published_digest(federation, after=2)


def test_the_next_round_goes_on_from_it(
    federation: SimulatedFederation, caplog: pytest.LogCaptureFixture
) -> None:
    one = federation.silos["silo-a"]
    play_rounds(federation, 1, 1)
    made, _ = personalise_now(agent_of(federation))
    assert PersonalAdapters(one.home, RUN).newest(before=2) == kept_by(one, 1)
    one.personal = EVERY_ROUND
    play_rounds(federation, 2, 2)
    kept = kept_by(one, 2).facts
    assert kept.made_for == "starting" and kept.global_digest == made.global_digest
    assert "begins anew" not in caplog.text


def test_it_takes_the_place_of_the_one_that_the_round_made(
    federation: SimulatedFederation,
) -> None:
    """Which it goes on from; the agent that runs again afterwards makes no other."""
    one = federation.silos["silo-a"]
    one.personal = EVERY_ROUND
    play_rounds(federation, 1, 2)
    assert kept_by(one, 2).facts.made_for == "starting"
    facts, is_new = personalise_now(agent_of(federation))
    assert is_new and kept_by(one, 2).facts == facts != kept_by(one, 1).facts
    federation.silos_act(3)
    assert one.asked["train_personal"] == 3 and kept_by(one, 2).facts == facts


def test_while_a_round_is_under_way_it_is_for_what_that_starts_from(
    federation: SimulatedFederation,
) -> None:
    """That is the newest published one; the round tells its loss like one that it made itself."""
    one = federation.silos["silo-a"]
    play_rounds(federation, 1, 1)
    plan = federation.open(2)
    federation.silos_act(2)
    facts, _ = personalise_now(agent_of(federation))
    assert plan.record.starting_adapter is not None
    assert (facts.round, facts.made_for) == (2, "starting")
    assert facts.global_digest == plan.record.starting_adapter.digest
    federation.play(plan)
    assert one.faults == [] and kept_by(one, 2).facts.compared is not None


@pytest.mark.parametrize(
    ("rounds", "changes", "found"),
    [
        (1, {"personal": PersonalSection()}, 'found method = "off" under [personal]'),
        (0, {}, "found no round yet"),
        (1, {"behaviour": Behaviour.FAILING_CONTRACT}, "found broken rules: licence.allowed"),
    ],
)
def test_what_is_missing_is_said(
    federation: SimulatedFederation, rounds: int, changes: dict[str, object], found: str
) -> None:
    one = federation.silos["silo-a"]
    if rounds:
        play_rounds(federation, 1, rounds)
    for name, value in changes.items():
        setattr(one, name, value)
    with pytest.raises(SiloOperatorError) as refusal:
        personalise_now(agent_of(federation))
    assert "personal adapter: expected" in str(refusal.value) and found in str(refusal.value)
    assert one.asked["train_personal"] == 0


def test_before_anything_is_published_there_is_nothing_to_stand_by(
    federation: SimulatedFederation,
) -> None:
    federation.open(1)
    with pytest.raises(SiloOperatorError, match="found none yet: round 1 of run-1 is the newest"):
        personalise_now(agent_of(federation))


def test_a_contract_that_is_over_or_unsigned_allows_no_training(
    federation: SimulatedFederation,
) -> None:
    play_rounds(federation, 1, 1)
    contract = federation.silos["silo-a"].contract
    contract.expires_at = federation.clock.now() - timedelta(days=1)
    with pytest.raises(SiloOperatorError, match="signed by both sides; found one that expired on"):
        personalise_now(agent_of(federation))
    contract.agreed_with = ""
    with pytest.raises(SiloOperatorError, match="signed by both sides; found none"):
        personalise_now(agent_of(federation))


def test_where_a_alone_is_shared_there_is_none(make_federation: MakeFederation) -> None:
    merge = MergeSection(rule="shared_a", compression="none")
    federation = make_federation({"merge": merge}, **HONEST)
    federation.silos["silo-a"].personal = ASKED_FOR
    federation.open(1)
    with pytest.raises(SiloOperatorError, match="is not trained in a run with the rule shared_a"):
        personalise_now(agent_of(federation))


CONFIG = """\
silo = "north"
federation = "demo"

[storage]
endpoint_url = "http://127.0.0.1:1"
"""


def test_the_command_waits_for_no_agent_and_heeds_the_switch(tmp_path: Path) -> None:
    (tmp_path / "silo-agent.toml").write_text(CONFIG)
    command = ["personalise", "--home", str(tmp_path)]
    with only_agent(tmp_path):
        ran = CliRunner().invoke(app, command)
    assert "expected an agent that does not run meanwhile" in str(ran.exception)
    KillSwitch(tmp_path).turn_on()
    ran = CliRunner().invoke(app, command)
    assert "kill switch: expected off" in str(ran.exception)
    assert "silo-agent run --clear-stop" in str(ran.exception)
