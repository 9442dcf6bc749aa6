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
from silo_agent.metrics.metrics import Metrics
from silo_agent.metrics.readings import NO_READINGS, Moment, Readings
from silo_agent.release.release import PlanRelease

STATUS_NAME = "status.json"


class StatusReporter:
    """Shows phases at once and steps at most every `status_seconds`; `metrics` see every step."""

    def __init__(
        self,
        release: PlanRelease | None,
        clock: Clock,
        config: SiloConfig,
        plan: Verified[RoundPlan],
        metrics: Metrics | None = None,
    ) -> None:
        self._release = release
        self._clock = clock
        self._config = config
        self._plan = plan
        self._metrics = metrics or Metrics()
        self._phase: Phase | None = None
        self._last_shown = 0.0

    def show(
        self, phase: Phase, *, step: int = 0, steps: int = 0, readings: Readings = NO_READINGS
    ) -> None:
        """Report; a storage fault is no reason to stop training, so it only misses a status."""
        moment = self._moment(phase, step, steps, readings)
        self._metrics.show(moment)
        now = moment.at.timestamp()
        due = phase != self._phase or 0 < steps == step
        if not due and now - self._last_shown < self._config.agent.status_seconds:
            return
        self._phase, self._last_shown = phase, now
        status = self._status(moment)
        self._keep(status)
        if self._release is None:
            return
        try:
            self._release.status(status)
        except StorageError:
            return

    def say_stopped(self) -> None:
        """That the agent ends in the middle of the round; StorageError where it cannot be told."""
        moment = self._moment("stopped", 0, 0, NO_READINGS)
        self._metrics.show(moment)
        status = self._status(moment)
        self._keep(status)
        if self._release is not None:
            self._release.say_stopped(status)

    def _keep(self, status: Status) -> None:
        text = json.dumps(status.model_dump(mode="json", exclude_none=True), indent=1)
        write_durably(self._config.home / STATUS_NAME, text.encode())

    def _moment(self, phase: Phase, step: int, steps: int, readings: Readings) -> Moment:
        plan = self._plan.record
        return Moment(
            at=self._clock.now(),
            run=plan.run,
            round=plan.round,
            attempt=plan.attempt,
            phase=phase,
            step=step,
            steps=steps,
            readings=readings,
        )

    def _status(self, moment: Moment) -> Status:
        # How fast private steps are says how much was drawn.
        readings = NO_READINGS if self._plan.record.privacy else moment.readings
        since = moment.at - self._plan.record.issued_at
        return Status.on(
            self._plan,
            moment.at,
            silo=self._config.silo,
            number=max(1, round(since.total_seconds()) + 1),
            phase=moment.phase,
            step=moment.step,
            steps=moment.steps,
            tokens_per_second=Decimal(f"{max(0.0, readings.tokens_per_second or 0.0):.1f}"),
            eta_seconds=max(0, round(readings.eta_seconds or 0.0)),
            program=program_version(),
            memory_bytes=readings.memory_bytes,
            gpu_memory_bytes=readings.gpu_memory_bytes,
        )
