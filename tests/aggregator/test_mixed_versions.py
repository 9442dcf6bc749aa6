"""Silos and coordinator of different releases in one round: told, and never silent."""

import io
from typing import Any

import pytest
from rich.console import Console

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, feed_slot, record_key, round_slot
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import Acceptance
from flows.round.watch import NEWER_SILO, render_round, view_round
from flows.round.wording import versions_line
from silo_agent.agent import poll_once
from silo_agent.release.release import Release
from tests.silo_agent.test_restored_silo import report_of
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.other_releases import signed_as
from tests.simulator.silo import Behaviour


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)


def shown(federation: SimulatedFederation) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(render_round(view_round(federation.coordinator())))
    return out.getvalue()


def accepted(federation: SimulatedFederation, silo: str) -> Acceptance:
    """What `silo` accepts with, taken out of its inbox."""
    plan = federation.open()
    member = federation.silos[silo]
    member.act(FEDERATION, federation.pinned)
    release: Release = member.agent(FEDERATION, federation.pinned).release
    found = release.outbox.released(attempt_of(plan)).acceptance
    assert found is not None
    slot = round_slot(attempt_of(plan), Acceptance.kind)
    federation.inbox(silo).objects.pop(record_key(slot, found.digest))
    return found.record


def accepts_as(federation: SimulatedFederation, silo: str, **release: Any) -> None:
    """`silo` accepts the open plan as the agent of another release would."""
    slot = round_slot(attempt_of(federation.open()), Acceptance.kind)
    digest, envelope = signed_as(accepted(federation, silo), federation.silos[silo].key, **release)
    federation.inbox(silo).objects[record_key(slot, digest)] = envelope


def outcomes(federation: SimulatedFederation) -> dict[str, str]:
    """What the round's report says of every silo."""
    federation.play(federation.open())
    report = report_of(federation)
    assert report is not None and report.outcome == "published"
    return {silo.silo: silo.outcome for silo in report.silos}


def test_plans_acceptances_and_statuses_say_the_version(federation: SimulatedFederation) -> None:
    assert federation.open().record.program == program_version()
    assert accepted(federation, "silo-a").program == program_version()
    federation.silos_act(2)
    assert f"version {program_version()}" in shown(federation)


@pytest.mark.parametrize("program", ["0.0.9", "9.1"])
def test_a_mix_that_can_be_read_is_told_and_goes_on(
    federation: SimulatedFederation, program: str
) -> None:
    accepts_as(federation, "silo-a", program=program)
    assert f"coordinator {program_version()}, silo-a {program}" in shown(federation)
    assert outcomes(federation) == dict.fromkeys(federation.silos, "admitted")


def test_a_silo_of_an_earlier_release_takes_part(federation: SimulatedFederation) -> None:
    accepts_as(federation, "silo-a", without="program")
    assert outcomes(federation) == dict.fromkeys(federation.silos, "admitted")


def test_a_silo_that_cannot_be_read_is_named(federation: SimulatedFederation) -> None:
    accepts_as(federation, "silo-a", program="9.1", colour="red")
    assert NEWER_SILO in shown(federation)


@pytest.mark.parametrize("wire", [2, 3])
def test_a_plan_that_a_silo_cannot_read_is_not_passed_over(
    federation: SimulatedFederation, wire: int
) -> None:
    plan, silo = federation.open(), federation.silos["silo-a"]
    slot = feed_slot(plan.record.feed_number)
    federation.plans.objects.pop(record_key(slot, plan.digest))
    digest, envelope = signed_as(
        plan.record, federation.key, wire=wire, program="9.1", colour="red"
    )
    federation.plans.objects[record_key(slot, digest)] = envelope
    with pytest.raises(UntrustedInputError, match=r"upgrade Consortia.*to at least 9\.1"):
        poll_once(silo.agent(FEDERATION, federation.pinned))
    assert not silo.inbox.list_keys("rounds/")


def test_what_nobody_signed_stops_no_feed(federation: SimulatedFederation) -> None:
    plan = federation.open()
    slot = feed_slot(plan.record.feed_number)
    digest, forged = signed_as(plan.record, federation.silos["silo-b"].key, wire=3, program="9.1")
    federation.plans.objects[record_key(slot, digest)] = forged
    assert outcomes(federation) == dict.fromkeys(federation.silos, "admitted")


def test_the_line_about_versions() -> None:
    silos = [("north", "0.2.0"), ("south", None)]
    assert versions_line("0.2.0", silos) == "version 0.2.0"
    assert versions_line(None, []) == ""
    said = versions_line("0.3.0", silos)
    assert said == "versions differ: coordinator 0.3.0, north 0.2.0; see docs/upgrade.md"
