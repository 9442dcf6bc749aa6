"""What the demo changes in the settings that every new federation starts with."""

from pathlib import Path

from aggregator.settings.federation import parse_settings
from flows.demo.federation import without_schedule
from flows.federation.admin import FederationTerms, settings_text

TERMS = FederationTerms(
    federation="demo",
    run="run-1",
    purpose="Testing",
    model_name="tiny",
    model_licence="Apache-2.0",
    model_path=Path("/models/tiny"),
    prefect_api_url="http://127.0.0.1:4200/api",
    endpoint_url="http://127.0.0.1:8333",
)


def test_no_round_begins_by_itself() -> None:
    text = settings_text(TERMS)
    assert parse_settings(text.encode(), Path()).schedule.cron == "0 2 * * *"
    changed = without_schedule(text)
    assert parse_settings(changed.encode(), Path()).schedule.cron is None
    assert without_schedule(changed) == changed
    assert len(text.splitlines()) == len(changed.splitlines()) + 1
