"""What a year needs besides a simulated federation: clocks, losses, kills and outages."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from data_contracts.protocol.records import RoundPlan, Verdict
from infra.storage.object_store import StorageUnavailableError
from silo_agent.collaborators import EvaluatedAdapters, HeldoutLosses
from silo_agent.gate.outcome import GateOutcome
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.silo import Silo
from tests.simulator.fake_clock import FakeClock
from tests.simulator.silo import (
    BASE_LOSS,
    CHANGE_ERROR,
    HELDOUT_RECORDS,
    SimulatedGate,
    SimulatedTrainer,
)

COORDINATOR = "coordinator"
CANARY = "Patient 4711 of ward 3"
"""What only a silo and its own log may know."""


class KilledError(BaseException):
    """A process that is gone at once: nobody catches it but the year."""


class SiloClock(FakeClock):
    """A silo's own clock: the federation's, and what it is wrong by."""

    def __init__(self, true: FakeClock) -> None:
        super().__init__()
        self._true = true
        self.wrong_by = timedelta(0)

    def now(self) -> datetime:
        """What this machine shows."""
        return self._true.now() + self.wrong_by

    def sleep(self, seconds: float) -> None:
        """Time passes for everybody."""
        self._true.sleep(seconds)


@dataclass
class YearlongTrainer(SimulatedTrainer):
    """Losses that fall for longer than a year."""

    def evaluate(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: EvaluatedAdapters,
        report: StatusReporter,
    ) -> HeldoutLosses:
        """Every round improves by less than the one before."""
        starting = BASE_LOSS * 0.995 ** (plan.round - 1)
        return HeldoutLosses(
            tokens=100,
            base=BASE_LOSS,
            starting=starting,
            candidate=starting * 0.995,
            silo_only=None,
            records=HELDOUT_RECORDS,
            change_error=CHANGE_ERROR,
            base_change_error=CHANGE_ERROR,
        )


@dataclass
class YearlongGate(SimulatedGate):
    """A gate that tells its operator about a record, in words that must not leave."""

    def check(self, progress: Callable[[int], None] = lambda records: None) -> GateOutcome:
        """As simulated, with a note."""
        return super().check(progress).model_copy(update={"operator_notes": (CANARY,)})


def yearlong(agent: Silo) -> Silo:
    """A simulated agent with trainer and gate that last for a year."""
    trainer, gate = agent.trainer, agent.gate
    if not isinstance(trainer, SimulatedTrainer) or not isinstance(gate, SimulatedGate):
        raise TypeError("expected a simulated agent")
    return replace(
        agent,
        trainer=YearlongTrainer(
            trainer.silo, trainer.directory, trainer.behaviour, trainer.while_training
        ),
        gate=YearlongGate(gate.contract, gate.behaviour, gate.expires_at, gate.remembered),
    )


@dataclass
class Weather:
    """What every request to storage goes through: who asks, outages, and a process that is killed.

    `requests` counts what each party has asked since the count was cleared.
    """

    clock: FakeClock
    away_until: datetime | None = None
    party: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    _kill: dict[str, int] = field(default_factory=dict)

    def __call__(self, _operation: str, key: str) -> None:
        """A bucket's `before` hook."""
        if not self.party:
            return
        self.requests[self.party] += 1
        if self._is_killed():
            raise KilledError(self.party)
        if self.is_away():
            raise StorageUnavailableError(
                f"object {key}", expected="an answer", found="none", action="wait"
            )

    def is_away(self) -> bool:
        """Whether storage is away now."""
        return self.away_until is not None and self.clock.now() < self.away_until

    def kill(self, party: str, after: int) -> None:
        """Let a process die at one of its next requests."""
        self._kill[party] = after

    @contextmanager
    def asked_by(self, party: str) -> Iterator[None]:
        """What is asked in here is asked by this party."""
        before, self.party = self.party, party
        try:
            yield
        finally:
            self.party = before

    def _is_killed(self) -> bool:
        left = self._kill.get(self.party)
        if left is None:
            return False
        self._kill[self.party] = left - 1
        if left > 0:
            return False
        del self._kill[self.party]
        return True
