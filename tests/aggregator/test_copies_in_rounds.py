"""Free riders in whole rounds: both are left out, a person decides, and everybody can read it."""

import pytest

from aggregator.federated_round import close_round, report_round
from aggregator.settings.federation import CopiesSection
from aggregator.settings.merge import MergeSection
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Abort, Close, RoundPlan
from data_contracts.protocol.records.round_plan import Compression
from flows.round.wording import closed
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

COPIED = ("rejected", "free_rider.copied")
ADMITTED = ("admitted", None)
HONEST = dict.fromkeys("abc", Behaviour.HONEST)


def outcomes(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> dict[str, tuple[str, str | None]]:
    federation.play(plan)
    report, _ = report_round(federation.coordinator(), federation.look(plan))
    assert report.record.outcome == "published"
    return {silo.silo: (silo.outcome, silo.rule) for silo in report.record.silos}


def decided(*silos: str) -> CopiesSection:
    return CopiesSection(counted=dict.fromkeys(silos, "A. Person saw its training logs"))


@pytest.mark.parametrize("compression", ["none", "int8", "int4"])
@pytest.mark.parametrize("behaviour", [Behaviour.COPYING, Behaviour.REWRITING])
def test_silos_that_submit_the_same_change_are_both_left_out(
    make_federation: MakeFederation, behaviour: Behaviour, compression: Compression
) -> None:
    merge = MergeSection(compression=compression)
    federation = make_federation({"merge": merge}, **HONEST, x=behaviour)
    for number in (1, 2):
        found = outcomes(federation, federation.open(number))
        assert found["silo-a"] == found["silo-x"] == COPIED, number
        assert found["silo-b"] == found["silo-c"] == ADMITTED, number


def test_whom_a_person_named_counts_from_the_next_plan_on_and_the_page_says_so(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({}, **HONEST, x=Behaviour.REWRITING)
    first = federation.open(1)
    assert outcomes(federation, first)["silo-a"] == COPIED
    page = page_of(federation, first)
    assert "silo-a: its change is that of silo-x (cosine 0.999" in page
    assert "by decision of the operator" not in page
    federation.settings = federation.settings.model_copy(update={"copies": decided("silo-a")})
    second = federation.open(2)
    found = outcomes(federation, second)
    assert (found["silo-a"], found["silo-x"]) == (ADMITTED, COPIED)
    said = "It counts by decision of the operator: A. Person saw its training logs"
    assert said in page_of(federation, second)


def page_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> str:
    _, files = report_round(federation.coordinator(), federation.look(plan))
    assert files.page is not None
    return files.page.read_text()


def closed_with_copies(federation: SimulatedFederation) -> Verified[Close] | Verified[Abort]:
    plan = federation.open(1)
    federation.silos_act(6)
    return close_round(federation.coordinator(), federation.look(plan))


def test_the_log_of_a_round_says_who_is_alike_and_what_to_do(
    make_federation: MakeFederation,
) -> None:
    close = closed_with_copies(make_federation({}, **HONEST, x=Behaviour.REWRITING))
    assert isinstance(close.record, Close)
    said = closed(close.record, close.digest)
    assert "silo-a is like silo-x (cosine 0.999" in said
    assert "[copies.counted] in federation.toml" in said
    alone = close.record.model_copy(update={"alike": None})
    assert "alike" not in closed(alone, close.digest) and "copies" not in closed(alone, "d" * 64)


def test_an_attempt_that_ends_for_want_of_the_copies_says_so(
    make_federation: MakeFederation,
) -> None:
    honest = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}
    federation = make_federation({"quorum": 2}, **honest, x=Behaviour.COPYING)
    abort = closed_with_copies(federation)
    assert isinstance(abort.record, Abort)
    assert abort.record.reason == (
        "1 of 2 needed submissions were admitted. Left out as copies, until a person names the one "
        "that counts: silo-a, silo-x."
    )


def test_a_decision_about_a_silo_that_is_not_asked_is_no_part_of_the_plan(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({"copies": decided("silo-a", "silo-z")}, **HONEST)
    counted = federation.open(1).record.counted_copies
    assert counted is not None and [entry.silo for entry in counted] == ["silo-a"]


def test_no_plan_goes_back_to_a_round_before(make_federation: MakeFederation) -> None:
    federation = make_federation({}, **HONEST)
    for number in (1, 2):
        federation.play(federation.open(number))
    with pytest.raises(FederationOperatorError, match="round 2 or a later one"):
        federation.open(1)
