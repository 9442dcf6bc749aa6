"""Before its plan, a round says what it waits for and which command comes next."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from aggregator.settings.federation import FederationSettings, load_settings
from flows.commands.next_steps import after_draft, after_init, after_round_start
from flows.deployment.runner import Runner
from flows.federation.admin import FederationTerms, settings_text
from flows.round.waiting import Cohort, waiting_lines
from infra.disk.durable_files import write_durably
from tests.printed_commands import printed_commands, require_pasteable

ENOUGH = Cohort(1, ("a", "b"), {})
AT = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> FederationSettings:
    home = tmp_path / "a home"
    terms = FederationTerms(
        federation="oncology",
        run="run-1",
        purpose="Testing",
        model_name="tiny",
        model_licence="Apache-2.0",
        model_path=home / "model",
        prefect_api_url="http://127.0.0.1:4200/api",
        endpoint_url="http://127.0.0.1:9",
    )
    write_durably(home / "federation.toml", settings_text(terms).encode())
    return load_settings(home)


@pytest.mark.parametrize(
    ("runner", "said", "next_command"),
    [
        (Runner(), "not registered", "deploy"),
        (Runner(registered=True), "Nothing serves", "deploy"),
        (Runner(registered=True, served=True), "Nothing is scheduled", "round start"),
        (Runner(registered=True, served=True, next_run=AT), "2030-01-02 03:04 UTC", "round start"),
        (Runner(registered=True, served=True, running="a-b is running"), "a-b is running", ""),
        (Runner(registered=True, served=True, failed="a-b is failed: no"), "a-b is failed: no", ""),
        (Runner(fault="Prefect at x: expected an answer"), "Prefect at x", ""),
    ],
)
def test_the_runner_is_waited_for(
    settings: FederationSettings, runner: Runner, said: str, next_command: str
) -> None:
    text = "\n".join(waiting_lines(settings, ENOUGH, runner))
    assert "round 1 of run-1 has no plan yet" in text
    assert said in text
    typed = [" ".join(command) for command in printed_commands(text)]
    assert any(command.startswith(f"consortia {next_command}") for command in typed) or (
        not next_command
    )
    require_pasteable(text)


def test_silos_that_are_left_out_are_named_with_the_signature_that_is_missing(
    settings: FederationSettings,
) -> None:
    cohort = Cohort(3, ("a",), {"north": "no contract", "south": "one that has expired"})
    text = "\n".join(waiting_lines(settings, cohort, Runner(registered=True, served=True)))
    assert "contracts in force: a" in text
    assert "left out: south, one that has expired" in text
    assert "A round needs 2 silos" in text
    filed = settings.home / "contracts" / "north.yaml"
    sign = ["consortia", "contract", "sign", str(filed), "--home", str(settings.home)]
    assert [*sign, "--silo", "north"] in printed_commands(text)
    nobody = "\n".join(waiting_lines(settings, Cohort(1, (), {}), Runner()))
    assert "consortia federation add-silo" in nobody


def test_what_comes_next_can_be_pasted_whatever_things_are_called(
    settings: FederationSettings, tmp_path: Path
) -> None:
    home = tmp_path / "it's a $HOME; `really`"
    purpose = 'Coding "assistant", it\'s research'
    for stack in (None, home / "stack"):
        lines = after_init(home, "oncology", purpose, "http://127.0.0.1:9", home / "m", stack)
        commands = [line for line in lines if line.startswith("  ")]
        typed = [c for line in commands for c in printed_commands(line.replace("`", ""))]
        assert len(typed) == len(commands) == 5
        assert any(purpose in command for command in typed)
    assert require_pasteable("\n".join(after_draft(Path("d.json"), "a key", Path("fed")))) == 2
    started = "\n".join(after_round_start(settings, 4, "run-id"))
    assert "http://127.0.0.1:4200/runs/flow-run/run-id" in started
    watch = ["consortia", "round", "watch", "--home", str(settings.home)]
    assert printed_commands(started) == [[*watch, "--round", "4"]]
    unknown = "\n".join(after_round_start(settings, None, "run-id"))
    assert printed_commands(unknown) == [watch]
