"""Progress for people: a local file, and a signed status in storage where that may leave."""

import json
from decimal import Decimal

from data_contracts.errors import StorageError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import RoundPlan, Status
from data_contracts.protocol.records.status import Phase
from infra.clock import Clock
from infra.disk.durable_files import write_durably
from silo_agent.config import SiloConfig
from silo_agent.release.release import PlanRelease

STATUS_NAME = "status.json"


class StatusReporter:
    """Shows phases at once and steps at most every `status_seconds`."""

    def __init__(
        self,
        release: PlanRelease | None,
        clock: Clock,
        config: SiloConfig,
        plan: Verified[RoundPlan],
    ) -> None:
        self._release = release
        self._clock = clock
        self._config = config
        self._plan = plan
        self._phase: Phase | None = None
        self._last_shown = 0.0

    def show(
        self,
        phase: Phase,
        *,
        step: int = 0,
        steps: int = 0,
        tokens_per_second: float = 0.0,
        eta_seconds: float = 0.0,
    ) -> None:
        """Report; a storage fault is no reason to stop training, so it only misses a status."""
        now = self._clock.now().timestamp()
        due = phase != self._phase or 0 < steps == step
        if not due and now - self._last_shown < self._config.agent.status_seconds:
            return
        self._phase, self._last_shown = phase, now
        status = self._status(phase, step, steps, tokens_per_second, eta_seconds)
        self._keep(status)
        if self._release is None:
            return
        try:
            self._release.status(status)
        except StorageError:
            return

    def say_stopped(self) -> None:
        """That the agent ends in the middle of the round; StorageError where it cannot be told."""
        status = self._status("stopped", 0, 0, 0.0, 0.0)
        self._keep(status)
        if self._release is not None:
            self._release.say_stopped(status)

    def _keep(self, status: Status) -> None:
        text = json.dumps(status.model_dump(mode="json"), indent=1)
        write_durably(self._config.home / STATUS_NAME, text.encode())

    def _status(
        self, phase: Phase, step: int, steps: int, tokens_per_second: float, eta_seconds: float
    ) -> Status:
        plan = self._plan.record
        now = self._clock.now()
        return Status.on(
            self._plan,
            now,
            silo=self._config.silo,
            number=max(1, round(now.timestamp() - plan.issued_at.timestamp()) + 1),
            phase=phase,
            step=step,
            steps=steps,
            tokens_per_second=Decimal(f"{max(0.0, tokens_per_second):.1f}"),
            eta_seconds=max(0, round(eta_seconds)),
            program=program_version(),
        )
