"""The demo's own flow run: requested through the deployment, followed by its state."""

import time
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from aggregator.settings.federation import FederationSettings
from data_contracts.errors import FederationOperatorError
from flows.deployment.deployments import NotDeployedError, deployment_name, start_rounds
from flows.deployment.prefect_faults import prefect_answers

REGISTRATION_SECONDS = 90.0


@dataclass(frozen=True)
class FlowRun:
    """A flow run by its id, at the federation's Prefect."""

    id: str
    settings: FederationSettings

    @classmethod
    def request(cls, settings: FederationSettings, until_round: int) -> "FlowRun":
        """Wait until the runner has registered the deployment, then ask for the rounds."""
        deadline = time.monotonic() + REGISTRATION_SECONDS
        while True:
            try:
                return cls(start_rounds(settings, until_round), settings)
            except NotDeployedError:
                if time.monotonic() > deadline:
                    raise FederationOperatorError(
                        f"deployment {deployment_name(settings)}",
                        expected=f"its registration within {REGISTRATION_SECONDS:.0f} s",
                        found="none",
                        action="look into the log of the deployment runner",
                    ) from None
                time.sleep(1.0)

    def is_finished(self) -> bool:
        """Whether Prefect calls the run completed, failed, crashed or cancelled."""
        state = self._state()
        return state is not None and state.is_final()

    def require_success(self) -> None:
        """Raise unless the run completed."""
        state = self._state()
        if state is None or not state.is_completed():
            raise FederationOperatorError(
                f"flow run {self.id}",
                expected="Completed",
                found=f"{state.name}: {state.message}" if state else "no state",
                action="look into the log of the deployment runner and run the demo again",
            )

    def _state(self) -> State[object] | None:
        with prefect_answers(self.settings), get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(self.id)).state
