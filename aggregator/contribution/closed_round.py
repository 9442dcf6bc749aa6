"""A round whose contributions can be measured: closed, in the last attempt that was not aborted."""

from dataclasses import dataclass

from aggregator.coordinator import Coordinator
from aggregator.evidence_reader import read_evidence
from aggregator.federation_feed import FederationState, read_federation
from aggregator.planning import abort_of, plans_of_run
from aggregator.report import Evidence
from data_contracts.artifact import digest_of_bytes
from data_contracts.envelope import Verified
from data_contracts.errors import FederationOperatorError
from data_contracts.records import Close, RoundPlan


@dataclass(frozen=True)
class ClosedRound:
    """Plan and close of a round, and the evidence that the close rests on."""

    state: FederationState
    plan: Verified[RoundPlan]
    close: Verified[Close]
    evidence: Evidence

    @property
    def silos(self) -> tuple[str, ...]:
        """The admitted silos, sorted."""
        return tuple(sorted(admitted.silo for admitted in self.close.record.admitted))

    @property
    def digest(self) -> str:
        """Of all that decides the merge of a coalition."""
        return digest_of_bytes(f"{self.plan.digest} {self.close.digest}".encode())


def closed_round(c: Coordinator, round_number: int) -> ClosedRound:
    """The round as it was closed; raises FederationOperatorError when it was not."""
    state = read_federation(c)
    for plan in reversed(plans_of_run(state.feed, c.settings.run)):
        if plan.record.round == round_number and abort_of(state.feed, plan) is None:
            evidence, _ = read_evidence(c, state, plan)
            if evidence.close is not None:
                return ClosedRound(state, plan, evidence.close, evidence)
    raise FederationOperatorError(
        f"contributions to round {round_number}",
        expected="a round that was closed",
        found="none",
        action="name a round that was merged; `consortia round status` shows the newest",
    )
