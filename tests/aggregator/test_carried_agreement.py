"""An acceptance counts only with the agreement of both sides to the very contract of the plan."""

from collections.abc import Callable

import pytest

from aggregator.audit.report_audit import audit
from aggregator.decisions.admission import judge
from aggregator.decisions.carried_agreement import is_agreed
from aggregator.feed.reading import read_federation, read_report
from aggregator.report.files import read_report_file
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.protocol.dsse import countersign, to_base64
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Acceptance, Membership
from data_contracts.protocol.records.membership import Revocation
from tests.aggregator.federation_samples import (
    COHORT,
    Federation,
    digest,
    federation,
    key,
    membership,
    minutes,
)
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

SILO = "hospital-b"
BOTH = (key(SILO), key("coordinator"))
FED = federation()


def carried(envelope: bytes | None) -> Verified[Acceptance]:
    return FED.acceptance(SILO, agreement=to_base64(envelope) if envelope else None)


def parties(*known: Membership) -> Parties:
    named = FED.membership.record
    return Parties.at_plan(named, known or (named,), SILO)


def about(**changes: object) -> Callable[[Federation], bytes]:
    return lambda fed: fed.agreement_by(*BOTH, silo=str(changes.pop("silo", SILO)), **changes)


def test_what_both_signed_counts() -> None:
    assert is_agreed(carried(FED.agreement(SILO)), FED.plan.record, parties())


def test_no_acceptance_carries_nothing_wrong() -> None:
    assert is_agreed(None, FED.plan.record, parties())


@pytest.mark.parametrize(
    "make",
    [
        lambda fed: None,
        lambda fed: b"{}",
        lambda fed: fed.agreement_by(key(SILO), silo=SILO),
        lambda fed: fed.agreement_by(key("coordinator"), silo=SILO),
        lambda fed: fed.agreement_by(key(SILO), key("stranger"), silo=SILO),
        lambda fed: fed.agreement_by(key("bank-a"), key("coordinator"), silo=SILO),
        lambda fed: fed.agreement("bank-a"),
        about(contract_digest=digest("an older version")),
        about(federation="cardiology"),
        lambda fed: fed.acceptance(SILO).envelope,
        lambda fed: fed.agreement(SILO)[:-3],
    ],
)
def test_anything_else_does_not(make: Callable[[Federation], bytes | None]) -> None:
    assert not is_agreed(carried(make(FED)), FED.plan.record, parties())


def test_a_key_that_was_rotated_since_counts_and_one_that_was_revoked_does_not() -> None:
    old = key("the coordinator before")
    first = membership(coordinator_key=old.public_key_hex).record
    envelope = countersign(FED.agreement_by(key(SILO), silo=SILO), old)
    accepted, plan = carried(envelope), FED.plan.record
    assert not is_agreed(accepted, plan, parties())
    assert is_agreed(accepted, plan, parties(first, FED.membership.record))
    revoking = FED.membership.record.model_copy(
        update={"revoked": (Revocation(public_key=old.public_key_hex),)}
    )
    at_plan = Parties.at_plan(revoking, (first, revoking), SILO)
    assert not is_agreed(accepted, plan, at_plan)


def test_a_silo_without_it_is_rejected_and_the_others_are_not() -> None:
    others = [FED.silo(silo) for silo in COHORT if silo != SILO]
    close = judge(FED.plan, [*others, FED.silo(SILO, is_agreed=False)], minutes(62))
    assert [(item.silo, item.rule) for item in close.rejected] == [(SILO, "acceptance.not_agreed")]
    assert {item.silo for item in close.admitted} == set(COHORT) - {SILO}


def test_in_a_round_it_is_judged_and_an_auditor_judges_it_again(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    silo = federation.silos["silo-c"]
    # Filed with both signatures at the coordinator; what the silo sends has its own alone.
    agreement = silo.contract.agreement("simulated", federation.clock.now())
    silo.contract.agreed = seal(agreement, silo.key).envelope
    plan = federation.open()
    federation.play(plan)
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    found = {s.silo: (s.outcome, s.rule) for s in report.record.silos}
    assert found["silo-c"] == ("rejected", "acceptance.not_agreed")
    assert found["silo-a"] == ("admitted", None)
    file = read_report_file(federation.settings.home / "reports" / "run-1-round-0001.html")
    claims = {c.name: c for c in audit(file.bundle, federation.pinned, page=file.page)}
    assert [name for name, claim in claims.items() if claim.outcome == "fail"] == []
    assert claims["data contracts agreed"].detail.startswith("2 contracts")


def test_a_coordinator_that_lets_one_in_without_it_is_found() -> None:
    alone = to_base64(FED.agreement_by(key(SILO), silo=SILO))
    silos = [FED.silo("bank-a"), FED.silo(SILO, acceptance=FED.acceptance(SILO, agreement=alone))]
    attempt = FED.finished(silos)
    bundle = FED.bundle(attempt)
    failing = [c.name for c in audit(bundle, FED.membership) if c.outcome == "fail"]
    assert failing == ["data contracts agreed", "admission and weights"]
