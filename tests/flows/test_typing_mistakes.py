"""Every option of every command with what people mistype and what an attacker would type.

An option without a parser fails here, and so does a parser without its mistakes in the table.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from infra import command_values as values
from infra.terminal import run_command_line
from silo_agent import cli as silo_cli
from silo_agent.config import load_config
from silo_agent.first_day.commands import device_name
from tests.data_contracts.dataset.contract_samples import CONTRACT
from tests.flows.command_walk import (
    EVERY,
    PROGRAMS,
    Command,
    Parser,
    ended,
    everything_below,
    one_message,
)
from tests.flows.typed_values import MISTAKES
from tests.flows.typed_values import place as place
from tests.flows.typed_values import sound as sound


@pytest.mark.parametrize("command", EVERY, ids=lambda c: " ".join((c.program, *c.words)))
def test_every_mistake_in_every_option_is_one_message_that_names_it(
    command: Command,
    place: Path,
    sound: dict[Parser | type, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = everything_below(place)
    for one in filter(lambda given: given.takes_a_value, command.given):
        kind = one.info.parser or one.type
        assert kind in MISTAKES, f"{command.words}: {one.name} is a bare {kind}, which takes all"
        for value in {"", "\n", "\udcff", *MISTAKES[kind][-2:]}:
            code, said = ended(PROGRAMS[command.program], command.line(sound, one, value), capsys)
            message = one_message(said)
            assert code == 2 and "Invalid value for" in message, (command.words, value, said)
            assert one.named in message.lower(), (one, value, said)
    assert everything_below(place) == before, "nothing is written"


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_every_mistake_of_a_kind_is_one_message(
    kind: Parser | type, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the table, at one option of the kind: which options are of it is tried above."""
    info = typer.Option(min=1, max=9999) if kind is int else typer.Option(parser=kind)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def probe(given: Annotated[str, info]) -> None:
        raise AssertionError(given)

    probe.__annotations__["given"] = Annotated[int if kind is int else str, info]
    for value in MISTAKES[kind]:
        code, said = ended(get_command(app), [f"--given={value}"], capsys)
        message = one_message(said)
        assert code == 2 and "Invalid value for '--given'" in message, (value, said)
        assert kind is int or ("expected" in message and "found" in message), message
        assert len(message) < 700, "a value of any length is quoted in part"


def test_what_is_clearly_meant_is_taken(sound: dict[Parser | type, str], tmp_path: Path) -> None:
    key = sound[values.public_key]
    assert values.public_key(f" {key.upper()}\n") == key
    fingerprint = " ".join(key[i : i + 4].upper() for i in range(0, 64, 4))
    assert values.key_or_fingerprint(fingerprint) == key
    assert values.digest("AB" * 32) == "ab" * 32
    assert values.silo_id(" north ") == "north"
    assert values.line(' Coding "assistant", research\n') == 'Coding "assistant", research'
    assert values.endpoint_url("https://storage.example:8333/ ") == "https://storage.example:8333"
    assert values.prefect_api_url("http://127.0.0.1:4200/api/") == "http://127.0.0.1:4200/api"
    assert device_name("CUDA") == "cuda"
    odd = tmp_path / "a 'b' \"c\" # [red] h\u00e4uslich"
    assert values.directory(f"{odd}/below") == odd / "below"


SILO = ("init", "--silo", "north", "--federation", "oncology", "--home", "silo")
FEDERATION = (
    *("federation", "init", "--federation", "oncology", "--home", "fed", "--model-name", "tiny"),
    *("--model-licence", "Apache-2.0"),
)


@pytest.mark.parametrize("address", ["http://storage.example:8333", "HTTP://10.0.0.1"])
def test_plain_http_beyond_this_machine_has_to_be_allowed(
    address: str, place: Path, sound: dict[Parser | type, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_below(place)
    model = ("--model", sound[values.model_directory], "--purpose", "Testing")
    for name, words in (("silo-agent", SILO), ("consortia", (*FEDERATION, *model))):
        code, said = ended(PROGRAMS[name], [*words, "--endpoint-url", address], capsys)
        assert code == 2 and "--allow-plain-http" in one_message(said)
    assert everything_below(place) == before
    allowed = [*SILO, "--endpoint-url", address, "--allow-plain-http"]
    CliRunner().invoke(silo_cli.app, allowed, catch_exceptions=False)
    assert load_config(place / "silo").storage.allow_plain_http


def test_a_federation_is_founded_on_one_storage(
    place: Path, sound: dict[Parser | type, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*FEDERATION, "--model", sound[values.model_directory], "--purpose", "Testing"]
    both = ["--stack", str(place), "--endpoint-url", "http://127.0.0.1:9"]
    for storage in ([], both):
        code, said = ended(PROGRAMS["consortia"], [*words, *storage], capsys)
        assert code == 2 and "give either --stack" in one_message(said)
    assert not (place / "fed").exists()


@pytest.mark.parametrize(
    "words",
    [
        (b"federation", b"init", b"--home", b"fed\xff"),
        (b"round", b"status", b"--home", b""),
        (b"contract", b"lint", b"/dev/zero"),
        (b"federation", b"new-root-key", b"/proc/nothing/key.pem"),
        (b"stack", b"start", b"--state", b"/dev/null/state"),
    ],
)
def test_a_real_process_ends_in_one_message(words: tuple[bytes, ...], place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"flows.cli", *words],
        capture_output=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode in (1, 2) and done.stdout == b""
    assert "expected" in one_message(done.stderr.decode()) or b"Missing option" in done.stderr


def test_a_variable_of_the_environment_is_a_value_like_others(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONSORTIA_HOME", "file")
    code, said = ended(PROGRAMS["consortia"], ["round", "status"], capsys)
    assert code == 2 and "CONSORTIA_HOME" in one_message(said)


@pytest.mark.parametrize(
    "name", ["[/x].yaml", "[red]north.yaml", ":smile:.yaml", "a 'b' \"c\".yaml"]
)
def test_a_name_that_looks_like_markup_is_said_as_it_is(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = place / name
    contract.parent.mkdir(exist_ok=True)
    contract.write_text(CONTRACT)
    run_command_line(PROGRAMS["consortia"], ["contract", "lint", name], standalone_mode=False)
    assert name in capsys.readouterr().out
    _, said = ended(PROGRAMS["consortia"], ["contract", "lint", f"absent-{name}"], capsys)
    assert name.split(" ")[0] in one_message(said)


def test_what_the_system_refuses_is_one_message(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "/proc/nothing/key.pem"
    code, said = ended(PROGRAMS["consortia"], ["federation", "new-root-key", key], capsys)
    message = one_message(said)
    assert code == 1 and "/proc/nothing" in message and "To fix it" in message


def test_a_registry_is_not_begun_where_its_terms_are_wrong(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "text.txt").write_text("a text " * 20)
    words = ["registry", "build", "text.txt", "--name", "press", "--federation", "oncology"]
    wrong = (("--days", "0"), ("--days", "36501"), ("--into", "text.txt"), ("--into", ""))
    for option, value in wrong:
        into = [] if option == "--into" else ["--into", "registry"]
        given = [*words, "--rights-holder", 'A "press"', *into, option, value]
        code, said = ended(PROGRAMS["consortia"], given, capsys)
        assert code == 2 and option in one_message(said)
    assert not (place / "registry").exists()
