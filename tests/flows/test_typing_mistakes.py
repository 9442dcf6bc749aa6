"""Every option of every command with what people mistype and what an attacker would type.

The commands are found by walking both programs, so that one that is added later is covered: an
option without a parser fails here, and so does a parser without its mistakes in the table below.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.main import get_command
from typer.models import ArgumentInfo, OptionInfo
from typer.testing import CliRunner

from data_contracts.errors import StorageError
from flows.cli import app as consortia_app
from flows.federation_admin import init_federation, settings_text
from infra import command_values as values
from infra.durable_files import write_durably
from infra.signing_keys import create_key
from infra.terminal import run_command_line
from silo_agent import cli as silo_cli
from silo_agent.config import load_config
from tests.data_contracts.dataset.contract_samples import CONTRACT
from tests.flows.test_cli import terms

APPS = {"consortia": consortia_app, "silo-agent": silo_cli.app}
PROGRAMS = {name: get_command(app) for name, app in APPS.items()}
Parser = Callable[..., Any]


@dataclass(frozen=True)
class Given:
    """An option or argument of a command, and what it takes."""

    name: str
    is_argument: bool
    is_required: bool
    info: OptionInfo | ArgumentInfo
    type: Any

    @property
    def takes_a_value(self) -> bool:
        return self.type is not bool

    @property
    def named(self) -> str:
        """As a message names it, in lower case."""
        return self.name.lstrip("-").replace("-", "_") if self.is_argument else self.name

    def words(self, value: str) -> list[str]:
        return [value] if self.is_argument else [f"{self.name}={value}"]


@dataclass(frozen=True)
class Command:
    """A command by the words that name it."""

    program: str
    words: tuple[str, ...]
    given: tuple[Given, ...]

    def line(self, sound: dict[Parser | type, str], wrong: Given, value: str) -> list[str]:
        """A command line in which only the value of `wrong` is a mistake."""
        arguments: list[str] = []
        options: list[str] = []
        for one in self.given:
            if one is wrong or one.is_required:
                text = value if one is wrong else sound[one.info.parser or one.type]
                (arguments if one.is_argument else options).extend(one.words(text))
        return [*self.words, *options, "--", *arguments]


def commands(program: str, app: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[Command]:
    for found in app.registered_commands:
        assert found.callback is not None
        name = found.name or found.callback.__name__.replace("_", "-")
        yield Command(program, (*words, name), tuple(_given(found.callback)))
    for group in app.registered_groups:
        assert group.typer_instance is not None and group.name is not None
        yield from commands(program, group.typer_instance, (*words, group.name))


def _given(callback: Callable[..., Any]) -> Iterator[Given]:
    required = callback.__code__.co_argcount - len(callback.__defaults__ or ())
    for position, (name, hint) in enumerate(_hints(callback)):
        assert get_origin(hint) is Annotated, f"{callback.__name__}: {name} has no help"
        type_, info = get_args(hint)
        names = [word for word in getattr(info, "param_decls", None) or () if word[:2] == "--"]
        yield Given(
            (names or [f"--{name.replace('_', '-')}"])[0],
            isinstance(info, ArgumentInfo),
            position < required,
            info,
            _plain(type_),
        )


def _hints(callback: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(callback, include_extras=True).items():
        if name != "return":
            yield name, hint


def _plain(hint: Any) -> Any:
    """The type of one value: without "or None" and without the list around it."""
    for inner in get_args(hint):
        if inner is not type(None):
            return _plain(inner)
    return hint


EVERY = tuple(command for name, app in APPS.items() for command in commands(name, app))
HOSTILE = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\0",
        "a\0b",
        "a\nb",
        "\x1b[31mred",
        "\x7f",
        "\x9b2J",
        "\udcff",
        "\u202e",
    ),
    *("x" * 5000, "a/" * 3000, "\ud800"),
)
TRAVERSAL = "../../etc/passwd"
NOT_A_NAME = (
    *HOSTILE,
    TRAVERSAL,
    "North",
    "n",
    "-north",
    "north-",
    "no rth",
    "north'",
    'no"rth',
    "n" * 25,
)
NOT_HEX = (*HOSTILE, "ab" * 31, "ab" * 31 + "c", "ab" * 33, "zz" * 32, "0x" + "ab" * 31)
NO_FILE = (
    *HOSTILE,
    TRAVERSAL,
    "absent",
    "directory",
    "pipe",
    "file/below",
    "/dev/zero",
    "/dev/null",
    "loop",
)
NO_DIRECTORY = (*HOSTILE, "file", "file/below", "pipe", "loop")
NO_NUMBER = (*HOSTILE, "two", "1.5", "nan", "inf", "-1", "1e3", "9" * 30, "9" * 5000, "0x10", "1 2")
NO_ADDRESS = (
    *HOSTILE,
    *("storage.example", "storage.example:8333", "//storage.example", "ftp://storage.example"),
    *("https://", "https:storage.example", "https://:8333", "https://h:", "https://h:99999"),
    *("https://h:0", "https://h:x", "https://[::1", "https://h h", "https://a@h", "https://h?a=b"),
    *("https://-h", "https://h#a", "https://\u00e4.example", "https://" + "h" * 300, "http://h\nb"),
)
MISTAKES: dict[Parser | type, tuple[str, ...]] = {
    values.federation_id: NOT_A_NAME,
    values.run_id: NOT_A_NAME,
    values.silo_id: (*NOT_A_NAME, "coordinator"),
    values.role: NOT_A_NAME,
    values.registry_name: (*HOSTILE, TRAVERSAL, "Press", "a b", "a/b", ".a", "a" * 81),
    values.line: (*HOSTILE, "x" * 401),
    values.model_licence: (*HOSTILE, "Apache 2.0", "Apache2.0", "none", 'MIT"', "x" * 81),
    values.public_key: (*NOT_HEX, "00" * 32, "ff" * 32, "02" + "00" * 31),
    values.key_or_fingerprint: NOT_HEX,
    values.digest: NOT_HEX,
    values.endpoint_url: NO_ADDRESS,
    values.prefect_api_url: (*NO_ADDRESS, "http://127.0.0.1:4200", "http://127.0.0.1:4200/apis"),
    values.wait_seconds: (*(n for n in NO_NUMBER if n not in ("1.5", "1e3")), "-0.1", "1e9"),
    values.answer_minutes: (*(n for n in NO_NUMBER if n not in ("1.5", "1e3")), "0", "0.9", "1e9"),
    values.directory: NO_DIRECTORY,
    values.existing_directory: (*NO_DIRECTORY, "absent", TRAVERSAL),
    values.existing_file: NO_FILE,
    values.file_to_write: (*HOSTILE, "directory", "pipe", "/dev/null", "file/below"),
    values.model_directory: (*NO_DIRECTORY, "absent", "directory", "pickled", "/"),
    silo_cli.device_name: (*HOSTILE, "gpu", "cuda:0", "cpu,cuda", "0"),
    int: (*NO_NUMBER, "99999999999999999999"),
}
"""Of each kind, values that a command must refuse; files and directories are those of `place`."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[Parser | type, str]:
    """For each kind a value that is right, for the options that are not being tried."""
    place = tmp_path_factory.mktemp("sound")
    key = create_key(place / "key.pem").public_key_hex
    (place / "contract.yaml").write_text(CONTRACT)
    model = place / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    return {
        values.federation_id: "oncology",
        values.run_id: "run-1",
        values.silo_id: "north",
        values.role: "north",
        values.registry_name: "press",
        values.line: "Testing",
        values.model_licence: "Apache-2.0",
        values.public_key: key,
        values.endpoint_url: "http://127.0.0.1:9",
        values.directory: str(place / "nothing-there"),
        values.existing_directory: str(place),
        values.existing_file: str(place / "contract.yaml"),
        values.file_to_write: str(place / "written"),
        values.model_directory: str(model),
        int: "1",
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that commands run in, with files of every wrong kind."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"\xff\x00")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "pickled").mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        (tmp_path / "pickled" / name).write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    for name in ("CONSORTIA_HOME", "SILO_AGENT_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def everything_below(directory: Path) -> set[tuple[str, int]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in directory.rglob("*")}


def ended(program: Parser, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what was said, on the way that both programs go."""
    with pytest.raises(SystemExit) as end:
        run_command_line(program, words)
    said = capsys.readouterr()
    assert said.out == ""
    code = end.value.code
    assert isinstance(code, int)
    return code, said.err


def one_message(said: str) -> str:
    """What was said without the frame that typer draws around it."""
    assert "Traceback" not in said
    assert not any(c < " " and c != "\n" for c in said), "what a terminal would obey"
    return " ".join(said.replace("│", " ").split())


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
    assert silo_cli.device_name("CUDA") == "cuda"
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


CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 20,
    "not UTF-8": b"a: \xff\xfe\n",
    "cut": CONTRACT[: len(CONTRACT) // 2].encode(),
    "nested": b"[" * 100_000,
    "braces": b'{"a":' * 50_000,
    "huge": b"a" * 2_000_000,
    "list": b"[]",
    "text": b"'",
    "zip": b"PK\x03\x04" + bytes(40),
    "page": b"<html>" + b"<script>" * 1000,
    "number": b"9" * 5000,
}
READERS = {
    "lint": ("contract", "lint", "{}"),
    "diff": ("contract", "diff", "{}", "{}"),
    "sign": ("contract", "sign", "{}", "--home", "{home}", "--silo", "north"),
    "add-silo": (
        *("federation", "add-silo", "--home", "{home}", "--silo", "north", "--public-key", "{key}"),
        *("--contract", "{}"),
    ),
    "verify": ("report", "verify", "{}", "--trust", "{home}/membership.json"),
    "trust": ("report", "verify", "{}", "--trust", "{}"),
    "export": ("report", "export", "{}", "--into", "written.zip"),
    "draft": (
        *("federation", "sign", "{}", "--root-key", "{home}/keys/root-key.pem"),
        *("--trust", "{home}/membership.json"),
    ),
    "key": (
        *("federation", "sign", "{home}/membership.json", "--root-key", "{}"),
        *("--trust", "{home}/membership.json"),
    ),
    "membership": (
        *("federation", "sign", "{home}/membership.json", "--trust", "{}"),
        *("--root-key", "{home}/keys/root-key.pem"),
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A founded federation whose storage is away."""
    home = tmp_path_factory.mktemp("founded") / "fed"
    credentials = b'access_key = "a"\nsecret_key = "b"\n'
    write_durably(home / "keys" / "storage-credentials.toml", credentials)
    found = terms("http://127.0.0.1:9", home)
    with pytest.raises(StorageError):
        init_federation(home, found, None)
    write_durably(home / "federation.toml", settings_text(found).encode())
    return home


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_with_something_else_in_it_is_one_message(
    reader: str,
    content: str,
    home: Path,
    place: Path,
    sound: dict[Parser | type, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "given").write_bytes(CONTENTS[content])
    (place / "given").chmod(0o600)
    before, own = everything_below(place), everything_below(home)
    named = {"home": home, "key": sound[values.public_key]}
    words = [word.format("given", **named) for word in READERS[reader]]
    code, said = ended(PROGRAMS["consortia"], words, capsys)
    message = one_message(said)
    assert code == 1 and message.startswith("error: "), said
    assert "given" in message, message
    assert all(word in message for word in ("expected", "found", "To fix it")), message
    assert everything_below(place) == before and everything_below(home) == own


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
