"""What the agent needs of training and of the data gate, as values and protocols."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_contracts.dataset.contract.agreement import Parties
from data_contracts.protocol.records import RoundPlan, Verdict
from silo_agent.gate.outcome import GateOutcome
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.release.status_reporter import StatusReporter


@dataclass(frozen=True)
class LocalTraining:
    """A local adapter as it left training; losses in nats per token, time in seconds.

    The outbox keeps the file under a second name, so it must not be written again in place.
    """

    adapter: Path
    tokens: int
    steps: int
    first_step_loss: float
    last_step_loss: float
    seconds: float


@dataclass(frozen=True)
class HeldoutLosses:
    """Mean losses on the silo's held-out split in nats per answer token.

    `records` are the records they are means of. The standard errors are those of candidate minus
    starting and of candidate minus base. All three are None where they are withheld, the errors
    also where fewer than two records were measured.
    """

    tokens: int
    base: float
    starting: float
    candidate: float
    silo_only: float | None
    records: int | None
    change_error: float | None
    base_change_error: float | None


@dataclass(frozen=True)
class GlobalAdapter:
    """An adapter of the run with the residual it was published with, both checked.

    `path` None is the base model; both are files of the plan's layouts.
    """

    path: Path | None
    residual: Path | None = None


@dataclass(frozen=True)
class EvaluatedAdapters:
    """The candidate and the adapter the round started from."""

    starting: GlobalAdapter
    candidate: GlobalAdapter


@dataclass(frozen=True)
class AdapterLosses:
    """Mean losses of some adapters on the held-out split, in nats per answer token."""

    tokens: int
    losses: tuple[float, ...]


class Trainer(Protocol):
    """What the agent needs of training; the real one starts DeepSpeed ranks in a child.

    Before `train` the agent has fetched and checked what the plan starts from; a residual lies
    where `GlobalAdapters.kept` says.
    """

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting_adapter: Path | None,
        report: StatusReporter,
    ) -> LocalTraining: ...

    def evaluate(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: EvaluatedAdapters,
        report: StatusReporter,
    ) -> HeldoutLosses: ...

    def measure(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: Sequence[GlobalAdapter],
        report: StatusReporter,
    ) -> AdapterLosses: ...


class DataGate(Protocol):
    """What the agent needs of the data gate."""

    def terms(self, parties: Parties) -> ContractTerms | None: ...

    def check(self, progress: Callable[[int], None]) -> GateOutcome: ...

    def remember(self, findings_digest: str) -> None: ...

    def forget_unused(self) -> None: ...
