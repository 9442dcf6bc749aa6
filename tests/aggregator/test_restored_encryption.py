"""Homes that are lost in the middle of an encrypted round, and come back with their identities."""

import shutil
from pathlib import Path

import pytest

from aggregator.evidence.attempt_keys import round_keys
from aggregator.federated_round import abort_round
from aggregator.upkeep.backup import back_up_coordinator, restore_coordinator
from data_contracts.errors import FederationOperatorError
from infra.encryption.identities import load_identities, rotate_identity
from silo_agent.home.backup import back_up_silo, restore_silo
from tests.aggregator.test_encrypted_rounds import encrypted, round_of
from tests.silo_agent.test_restored_silo import config_of, play_until
from tests.simulator.federation import RUN, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return encrypted(make_federation, a=Behaviour.HONEST, b=Behaviour.HONEST)


def has_closed(federation: SimulatedFederation) -> bool:
    return any("/close/" in info.key for info in federation.plans.list_keys("rounds/"))


def test_silo_and_coordinator_come_back_and_end_the_round(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo, home = federation.silos["silo-a"], federation.settings.home
    federation.open()
    rotate_identity(silo.identity)
    held = {each.recipient for each in load_identities(silo.identity)}
    back_up_silo(config_of(federation, silo), tmp_path / "silo", federation.clock.now())
    back_up_coordinator(federation.settings, tmp_path / "fed", federation.clock.now())
    play_until(federation, lambda: has_closed(federation))
    shutil.rmtree(silo.home)
    shutil.rmtree(home)
    restore_silo(tmp_path / "silo", silo.home, federation.clock.now())
    restore_coordinator(tmp_path / "fed", home, federation.clock.now())
    assert {each.recipient for each in load_identities(silo.identity)} == held
    assert len(held) == 2
    _, decision = round_of(federation)
    assert decision.outcome == "published" and silo.faults == []


def test_a_home_from_before_the_plan_says_so_and_tries_again(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    home = federation.settings.home
    back_up_coordinator(federation.settings, tmp_path / "fed", federation.clock.now())
    plan = federation.open()
    federation.silos_act(4)
    shutil.rmtree(home)
    restore_coordinator(tmp_path / "fed", home, federation.clock.now())
    with pytest.raises(FederationOperatorError, match=r"identity of the attempt.*round abort"):
        federation.play(plan)
    abort_round(federation.coordinator(), plan, "operator.aborted", "its key is lost")
    federation.play(plan)
    again, decision = round_of(federation)
    assert again.record.attempt == 2 and decision.outcome == "published"
    assert len(list(round_keys(federation.coordinator(), RUN, 1).iterdir())) == 1
