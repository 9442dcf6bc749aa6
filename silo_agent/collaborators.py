"""What the agent needs of training and of the data gate, as values and protocols."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from data_contracts.protocol.records import RoundPlan, Verdict
from silo_agent.gate.outcome import GateOutcome
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import Loss
from silo_agent.training.results import TrainingResult


@dataclass(frozen=True)
class HeldoutLosses:
    """Mean losses on the silo's held-out split in nats per answer token, or of what else the family
    of the model predicts; `right` where it counts that.

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
    right: "Right | None" = None


@dataclass(frozen=True)
class Right:
    """Which share of what is asked the first guess has right with each adapter."""

    base: float
    starting: float
    candidate: float


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
class PersonalWork:
    """The training of a personal adapter beside or from `starting`, on the records that the data
    gate's `findings` (a digest) allow.

    `make` makes its job of that of the round, and of the moment by which the last step has to be
    over; all of it, measuring included, is done in `seconds`.
    """

    starting: GlobalAdapter
    findings: str
    seconds: int
    make: Callable[[TrainingJob, datetime], TrainingJob]


class Trainer(Protocol):
    """What the agent needs of training; the real one starts DeepSpeed ranks in a child.

    The agent has fetched and checked every adapter that it hands in. `measure` gives one loss for
    each adapter, in their order. What stays in memory between two calls is given back by
    `give_back_idle`, which the agent calls often, when it was long enough or is needed elsewhere,
    and by `close` in any case.
    """

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting: GlobalAdapter,
        report: StatusReporter,
    ) -> TrainingResult: ...

    def train_personal(
        self,
        plan: RoundPlan,
        work: PersonalWork,
        report: StatusReporter,
    ) -> TrainingResult: ...

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
    ) -> tuple[Loss, ...]: ...

    def give_back_idle(self) -> None: ...

    def close(self) -> None: ...


class DataGate(Protocol):
    """What the agent needs of the data gate."""

    def check(self, progress: Callable[[int], None]) -> GateOutcome: ...

    def remember(self, findings_digest: str) -> None: ...

    def forget_unused(self) -> None: ...
