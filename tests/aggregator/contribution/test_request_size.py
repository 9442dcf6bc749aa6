"""A request that does not fit one record is refused before anything is merged or stored."""

from datetime import timedelta

import pytest

from aggregator.attempt import SiloRecords
from aggregator.contribution.closed_round import ClosedRound
from aggregator.contribution.plan import contribution_plan
from aggregator.contribution.silo_request import make_request
from aggregator.evidence.ledger import ErasedAdapterError
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records.close import Admitted
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.trusted_feed import TrustedFeed
from tests.aggregator.federation_samples import COHORT, adapter_ref, digest, federation, key
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

FED = federation()


def closed_with(silos: int) -> ClosedRound:
    """A close that admits so many silos, all of which share and let losses out."""
    names = [f"hospital-{number:04d}" for number in range(silos)]
    admitted = tuple(
        Admitted(
            silo=name,
            submission_digest=digest(name),
            verdict_digest=digest(name),
            adapter=adapter_ref(name),
            weight=1,
        )
        for name in names
    )
    sample = FED.close([FED.silo(silo) for silo in COHORT]).record
    held = tuple(
        EvidenceRef(kind="adapter", silo=a.silo, digest=a.adapter.digest, version="v1")
        for a in admitted
    )
    changes = {"admitted": admitted, "held": held}
    close = seal(sample.model_copy(update=changes), key("coordinator"))
    acceptance = FED.acceptance(COHORT[0], shares_individual_delta=True)
    verdict = FED.verdict(COHORT[0])
    records = [SiloRecords(name, acceptance=acceptance, verdict=verdict) for name in names]
    attempt = FED.attempt(records, close=close)
    feed = TrustedFeed(FED.membership)
    assert feed.add_entry([FED.plan.envelope]) is not None
    return ClosedRound(feed, FED.plan, close, attempt)


def ask(make_federation: MakeFederation, silos: int, minutes: int = 60) -> None:
    """Ask for leave-one-out values; nothing may be in storage afterwards that was not before."""
    made = make_federation(a=Behaviour.HONEST)
    before, closed = made.snapshot(), closed_with(silos)
    wanted = contribution_plan(closed.silos, "leave-one-out", closed.digest)
    try:
        make_request(made.coordinator(), closed, wanted, timedelta(minutes=minutes))
    finally:
        assert made.snapshot() == before


def test_more_silos_than_a_round_takes_are_refused(make_federation: MakeFederation) -> None:
    with pytest.raises(FederationOperatorError, match="1,003 coalitions of 1001 silos: "):
        ask(make_federation, 1001)


def test_a_thousand_silos_fit_and_only_their_adapters_are_missing(
    make_federation: MakeFederation,
) -> None:
    with pytest.raises(ErasedAdapterError, match=r"adapter of hospital-0000.*no object simulated"):
        ask(make_federation, 1000)


def test_no_time_to_answer_is_refused(make_federation: MakeFederation) -> None:
    with pytest.raises(FederationOperatorError, match="expected issued_at < answer_by"):
        ask(make_federation, 3, minutes=0)
