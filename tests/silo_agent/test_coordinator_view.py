"""What the coordinator signed counts for a silo only where it rests on what it should rest on."""

from datetime import timedelta

import pytest

from aggregator.federated_round import close_round, merge_round
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import (
    Candidate,
    Close,
    ContributionRequest,
    Decision,
    RoundPlan,
)
from data_contracts.protocol.records.contribution_request import CoalitionAdapter
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.round_record import RoundRecord
from infra.records.record_store import write_record
from silo_agent.federation.coordinator_view import CoordinatorView, read_coordinator
from silo_agent.federation.feed import refresh_feed
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour


class Round:
    """A round with a candidate, of which single records can be signed anew or taken away."""

    def __init__(self, federation: SimulatedFederation) -> None:
        self.federation = federation
        self.plan: Verified[RoundPlan] = federation.open(1)
        federation.silos_act(3)
        close_round(federation.coordinator(), federation.look(self.plan))
        merge_round(federation.coordinator(), federation.look(self.plan))
        attempt = federation.look(self.plan).attempt
        assert attempt.close is not None and attempt.candidate is not None
        self.close: Verified[Close] = attempt.close
        self.candidate: Verified[Candidate] = attempt.candidate

    def seen(self) -> CoordinatorView:
        silo = self.federation.silos["silo-a"].agent(FEDERATION, self.federation.pinned)
        return read_coordinator(silo, self.plan, refresh_feed(silo))

    def without(self, kind: type[RoundRecord]) -> None:
        slot = round_slot(attempt_of(self.plan), kind.kind)
        for key in [key for key in self.federation.plans.objects if key.startswith(slot)]:
            del self.federation.plans.objects[key]

    def put(self, record: RoundRecord) -> None:
        self.without(type(record))
        sealed = seal(record, self.federation.key)
        write_record(self.federation.plans, round_slot(attempt_of(self.plan), record.kind), sealed)

    def later(self, record: Verified[Close] | Verified[Candidate]) -> None:
        """The same again, a second later: another record of the same kind."""
        at = record.record.issued_at + timedelta(seconds=1)
        self.put(record.record.model_copy(update={"issued_at": at}))

    def decision(self, candidate_digest: str) -> Decision:
        return Decision.on(
            self.plan,
            self.federation.clock.now(),
            candidate_digest=candidate_digest,
            outcome="held",
            rule="evaluation.quorum",
            evaluations=(),
            missing=(),
            starting_mean_loss=None,
            candidate_mean_loss=None,
            published_adapter=None,
        )

    def request(self, close_digest: str, *silos: str) -> ContributionRequest:
        none = CoalitionAdapter(members="0" * len(silos), adapter=None)
        return ContributionRequest.on(
            self.plan,
            self.federation.clock.now(),
            close_digest=close_digest,
            silos=silos,
            coalitions=(none,),
            answer_by=self.federation.clock.now() + timedelta(hours=1),
        )

    def refused(self) -> str:
        with pytest.raises(UntrustedInputError) as caught:
            self.seen()
        assert caught.value.rule == "coordinator.unbound"
        return f"{caught.value.problem}: {caught.value.expected}"


@pytest.fixture
def merged(make_federation: MakeFederation) -> Round:
    return Round(make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.ABSENT))


def test_a_candidate_rests_on_the_close(merged: Round) -> None:
    assert merged.seen().candidate == merged.candidate
    merged.later(merged.close)
    assert "candidate: a record bound to the close record" in merged.refused()
    merged.without(Close)
    assert "candidate: a record bound to the close record" in merged.refused()


def test_a_decision_rests_on_the_candidate(merged: Round) -> None:
    merged.put(merged.decision(merged.candidate.digest))
    assert merged.seen().decision is not None
    merged.put(merged.decision("0" * 64))
    assert "decision: a record bound to the candidate" in merged.refused()
    merged.put(merged.decision(merged.candidate.digest))
    merged.without(Candidate)
    assert "decision: a record bound to the candidate" in merged.refused()


def test_a_request_rests_on_the_close_and_on_whom_it_admits(merged: Round) -> None:
    merged.put(merged.request(merged.close.digest, "silo-a", "silo-b"))
    assert merged.seen().request is not None
    merged.put(merged.request(merged.close.digest, "silo-a", "silo-c"))
    assert "contribution request: a record bound to the admitted silos" in merged.refused()
    merged.put(merged.request("0" * 64, "silo-a", "silo-b"))
    assert "contribution request: a record bound to the close record" in merged.refused()
    merged.without(Candidate)
    merged.without(Close)
    merged.put(merged.request(merged.close.digest, "silo-a", "silo-b"))
    assert "contribution request: a record bound to the close record" in merged.refused()


def test_the_keys_that_a_silo_ever_had_are_of_the_versions_that_name_it(merged: Round) -> None:
    federation = merged.federation
    first = federation.silos["silo-a"].key.public_key_hex
    federation.replace_key("silo-a")
    federation.add_silo("silo-d")
    joined = Member(silo="silo-d", public_key=federation.silos["silo-d"].key.public_key_hex)
    federation.change(silos=(*federation.memberships[-1].record.silos, joined))
    view = refresh_feed(federation.silos["silo-d"].agent(FEDERATION, federation.pinned))
    assert view.ever("silo-d").silo_keys == {joined.public_key}
    second = federation.silos["silo-a"].key.public_key_hex
    assert view.ever("silo-a").silo_keys == {first, second}
    assert first != second
