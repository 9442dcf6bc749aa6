"""Whatever people call things, the files that are written for them can be read again."""

import tomllib
from pathlib import Path

import pytest

from aggregator.settings.federation import parse_settings
from flows.federation.admin import FederationTerms, settings_text
from silo_agent.first_day.templates import config_text

TEXTS = ['Coding "assistant"', "C:\\new", "a # b", "line\nbreak", "h\u00e4uslich", "\x7f{x}", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_a_federations_settings_hold_every_text(text: str) -> None:
    terms = FederationTerms("a", "b", text, text, "c", Path("/models") / text, "d", "e")
    written = tomllib.loads(settings_text(terms))
    assert written["purpose"] == written["base_model"]["name"] == text
    assert written["base_model"]["path"] == str(Path("/models") / text)


@pytest.mark.parametrize("hub_id", ["", "organisation/name"])
def test_where_the_base_model_can_be_had_is_written_where_it_is_known(hub_id: str) -> None:
    terms = FederationTerms("a", "b", "c", "d", "e", Path("f"), "g", "h", model_hub_id=hub_id)
    text = settings_text(terms)
    assert tomllib.loads(text)["base_model"].get("hub_id", "") == hub_id
    assert "hub_id = " in text, "its place is shown to whoever edits the file"


def test_a_cron_line_that_is_removed_is_no_schedule(tmp_path: Path) -> None:
    model, api = tmp_path / "model", "http://127.0.0.1:4200/api"
    terms = FederationTerms("oncology", "run-1", "c", "d", "MIT", model, api, "http://127.0.0.1:9")
    text = settings_text(terms)
    assert parse_settings(text.encode(), tmp_path).schedule.cron == "0 2 * * *"
    (line,) = [line for line in text.splitlines(keepends=True) if line.startswith("cron = ")]
    assert parse_settings(text.replace(line, "").encode(), tmp_path).schedule.cron is None
    without = text[: text.index("[schedule]")]
    assert parse_settings(without.encode(), tmp_path).schedule.cron is None


@pytest.mark.parametrize("text", TEXTS)
def test_a_silos_configuration_holds_every_text(text: str) -> None:
    written = tomllib.loads(config_text(text, "b", text, device="cpu", ranks=3))
    assert written["silo"] == written["storage"]["endpoint_url"] == text
    assert written["training"]["ranks"] == 3
