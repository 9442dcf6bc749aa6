"""What the demo changes in the settings that every new federation starts with."""

from pathlib import Path

from aggregator.settings.federation import parse_settings
from flows.demo.federation import SILO_SETTINGS
from flows.demo.scenario import THRESHOLD, confidential, without_schedule
from flows.federation.admin import FederationTerms, settings_text
from silo_agent.config import parse_config

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


def test_rounds_make_no_personal_adapter_and_a_command_does() -> None:
    names = 'silo = "north"\nfederation = "demo"\n'
    text = f'{names}[storage]\nendpoint_url = "{TERMS.endpoint_url}"\n{SILO_SETTINGS}'
    personal = parse_config(text.encode(), Path("/home")).personal
    assert (personal.method, personal.every_round) == ("dual", False)


def test_the_confidential_demo_changes_what_its_operator_would() -> None:
    text = confidential(settings_text(TERMS))
    settings = parse_settings(text.encode(), Path())
    assert settings.trust_mode == "confidential"
    assert settings.masking is not None
    assert settings.masking.threshold == THRESHOLD
    assert (settings.merge.rule, settings.merge.compression) == ("average", "none")
    assert confidential(text) == text
