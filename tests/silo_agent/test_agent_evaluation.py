"""What a signed evaluation says of single records, under every contract and number of records."""

from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aggregator.federated_round import close_round, merge_round
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.records import Evaluation, RoundPlan, Verdict
from silo_agent.agent import poll_once
from silo_agent.collaborators import EvaluatedAdapters, HeldoutLosses
from silo_agent.release.status_reporter import StatusReporter
from tests.simulator.federation import FEDERATION
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import (
    CHANGE_ERROR,
    HELDOUT_RECORDS,
    Behaviour,
    SimulatedSilo,
    SimulatedTrainer,
)

NO_COUNTS = ("status", "licence-counts", "local-adapter", "losses")
ERROR = Decimal("0.020000")


@dataclass
class ChangedLosses(SimulatedTrainer):
    """Measures something else than the simulation does."""

    changes: dict[str, Any] | None = None

    def evaluate(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: EvaluatedAdapters,
        report: StatusReporter,
    ) -> HeldoutLosses:
        """As the simulation, with some fields changed."""
        found = super().evaluate(plan, verdict, adapters, report)
        return replace(found, **(self.changes or {}))


def evaluated(
    make_federation: MakeFederation, egress: tuple[str, ...] | None = None, **changes: Any
) -> Evaluation:
    """silo-c's signed evaluation of a first round."""
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    silo = federation.silos["silo-c"]
    if egress is not None:
        silo.contract.egress = egress
    plan = federation.open()
    federation.silos_act(3)
    close_round(federation.coordinator(), federation.look(plan))
    merge_round(federation.coordinator(), federation.look(plan))
    agent = silo.agent(FEDERATION, federation.pinned)
    trainer = ChangedLosses(silo.name, _work(silo), silo.behaviour, lambda: None, changes)
    agent = replace(agent, trainer=trainer)
    poll_once(agent)
    found = agent.release.outbox.released(attempt_of(plan)).evaluation
    assert found is not None
    return found.record


def _work(silo: SimulatedSilo) -> Path:
    return silo.home / "work"


def said(evaluation: Evaluation) -> tuple[int | None, Decimal | None, Decimal | None]:
    """Everything that comes of single records."""
    return evaluation.records, evaluation.change_error, evaluation.base_change_error


def test_records_and_errors_leave_where_counts_may(make_federation: MakeFederation) -> None:
    assert Decimal(str(CHANGE_ERROR)) == ERROR
    assert said(evaluated(make_federation)) == (HELDOUT_RECORDS, ERROR, ERROR)


def test_errors_leave_without_the_number_where_counts_may_not(
    make_federation: MakeFederation,
) -> None:
    assert said(evaluated(make_federation, NO_COUNTS)) == (None, ERROR, ERROR)


@pytest.mark.parametrize(
    ("records", "expected"), [(10, (10, ERROR, ERROR)), (9, (None,) * 3), (1, (None,) * 3)]
)
def test_a_small_cell_leaves_its_losses_alone(
    make_federation: MakeFederation, records: int, expected: tuple[Any, ...]
) -> None:
    found = evaluated(make_federation, records=records)
    assert said(found) == expected
    assert (found.starting_loss, found.candidate_loss) == (Decimal("3"), Decimal("2.9"))


def test_errors_are_stated_to_a_millionth_of_a_nat(make_federation: MakeFederation) -> None:
    found = evaluated(make_federation, change_error=1 / 3, base_change_error=1e-9)
    assert (found.change_error, found.base_change_error) == (Decimal("0.333333"), Decimal(0))
