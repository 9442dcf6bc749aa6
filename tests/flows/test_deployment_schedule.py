"""On a real Prefect server: what is scheduled is what the settings say, and changes are told."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from aggregator.settings.federation import FederationSettings, ScheduleSection
from flows.deployment.deployments import Registration, register
from tests.flows.prefect_client import client as client
from tests.flows.prefect_client import federation as federation

pytestmark = [pytest.mark.long, pytest.mark.stack]

NIGHTLY = ScheduleSection(cron="0 2 * * *")
IN_BERLIN = ScheduleSection(cron="0 2 * * *", timezone="Europe/Berlin")
ON_DEMAND = ScheduleSection()


def test_an_identical_schedule_stays_and_a_changed_one_takes_its_runs_along(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    first = deployed(federation, NIGHTLY)
    assert first.schedule_lines[0].startswith(
        "schedule: none before, every day at 02:00 UTC now; next at 2"
    )
    (before,) = schedules(client, first)
    make_runs(client, first)
    again = deployed(federation, NIGHTLY)
    assert again.schedule_lines[0].startswith("schedule unchanged: every day at 02:00 UTC; next at")
    assert again.id == first.id
    assert [found.id for found in schedules(client, first)] == [before.id]
    make_runs(client, first)
    late = [run for run in runs(client, first) if _start(run) < datetime.now(UTC)]
    assert late, "a runner that was down would do these first"

    moved = deployed(federation, IN_BERLIN)
    assert moved.schedule_lines[0].startswith(
        "schedule: every day at 02:00 UTC before, every day at 02:00 Europe/Berlin now"
    )
    assert any("02:00 does not exist in Europe/Berlin" in line for line in moved.schedule_lines)
    (after,) = schedules(client, first)
    assert after.schedule == CronSchedule(cron="0 2 * * *", timezone="Europe/Berlin")
    assert makers(client, first) <= {after.id}


def test_a_line_that_was_removed_schedules_nothing_any_more(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    first = deployed(federation, NIGHTLY)
    make_runs(client, first)
    asked_for = client.create_flow_run_from_deployment(UUID(first.id))
    told = deployed(federation, ON_DEMAND).schedule_lines
    assert told == ("schedule removed: every day at 02:00 UTC; rounds start on demand only",)
    assert schedules(client, first) == []
    assert [run.id for run in runs(client, first)] == [asked_for.id]
    make_runs(client, first)
    assert [run.id for run in runs(client, first)] == [asked_for.id]
    again = deployed(federation, ON_DEMAND).schedule_lines
    assert again == ("no schedule; rounds start on demand only",)


@pytest.mark.parametrize(
    ("wanted", "slug"), [(NIGHTLY, None), (ON_DEMAND, "mine")], ids=["nightly", "on-demand"]
)
def test_a_schedule_that_was_made_by_hand_goes_and_is_named(
    client: SyncPrefectClient,
    federation: FederationSettings,
    wanted: ScheduleSection,
    slug: str | None,
) -> None:
    first = deployed(federation, wanted)
    before = [found.id for found in schedules(client, first)]
    hourly = IntervalSchedule(interval=timedelta(hours=1))
    by_hand = [DeploymentScheduleCreate(schedule=hourly, slug=slug)]
    client.create_deployment_schedules(UUID(first.id), by_hand)
    make_runs(client, first)
    told = deployed(federation, wanted).schedule_lines
    assert told[0].startswith("schedule removed: ")
    assert "made in Prefect's page" in told[0]
    assert told[1].startswith("schedule unchanged" if wanted.cron else "no schedule")
    assert [found.id for found in schedules(client, first)] == before
    assert makers(client, first) <= set(before)


def test_what_was_paused_by_hand_stays_paused_and_says_so(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    first = deployed(federation, NIGHTLY)
    (own,) = schedules(client, first)
    client.update_deployment_schedule(UUID(first.id), own.id, active=False)
    for wanted in (NIGHTLY, IN_BERLIN):
        registered = deployed(federation, wanted)
        told = registered.schedule_lines
        assert any(line.startswith("the schedule is paused in Prefect's page") for line in told)
        registered.deployment.apply()  # as the runner does once more when it begins to serve
        assert [found.active for found in schedules(client, first)] == [False]
    (own,) = schedules(client, first)
    client.update_deployment_schedule(UUID(first.id), own.id, active=True)
    client.pause_deployment(UUID(first.id))
    told = deployed(federation, IN_BERLIN).schedule_lines
    assert any(line.startswith("the deployment is paused in Prefect's page") for line in told)
    assert client.read_deployment(UUID(first.id)).paused
    client.resume_deployment(UUID(first.id))
    assert not any("paused" in line for line in deployed(federation, IN_BERLIN).schedule_lines)


def deployed(federation: FederationSettings, schedule: ScheduleSection) -> Registration:
    """Register, as `consortia deploy` does, with another schedule in the settings."""
    return register(federation.model_copy(update={"schedule": schedule}))


def schedules(client: SyncPrefectClient, registered: Registration) -> list[DeploymentSchedule]:
    return client.read_deployment_schedules(UUID(registered.id))


def make_runs(client: SyncPrefectClient, registered: Registration) -> None:
    """Have the server make runs now, late ones too, instead of in its next minute."""
    begin = datetime.now(UTC) - timedelta(days=2)
    client.request(
        "POST",
        "/deployments/{id}/schedule",
        path_params={"id": UUID(registered.id)},
        json={"start_time": begin.isoformat(), "min_runs": 5},
    )


def runs(client: SyncPrefectClient, registered: Registration) -> list[FlowRun]:
    these = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(registered.id)]))
    return client.read_flow_runs(deployment_filter=these)


def makers(client: SyncPrefectClient, registered: Registration) -> set[UUID | None]:
    """Schedules that the runs there are from; the server makes new ones whenever it likes."""
    return {run.created_by.id if run.created_by else None for run in runs(client, registered)}


def _start(run: FlowRun) -> datetime:
    assert run.expected_start_time is not None
    return run.expected_start_time
