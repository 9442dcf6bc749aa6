"""Files with something else in them than a command asks for end in one message that names them."""

from pathlib import Path

import pytest

from data_contracts.errors import StorageError
from flows.federation.admin import init_federation, settings_text
from infra import command_values as values
from infra.disk.durable_files import write_durably
from tests.data_contracts.dataset.contract_samples import CONTRACT
from tests.flows.command_walk import PROGRAMS, Parser, ended, everything_below, one_message
from tests.flows.test_cli import terms
from tests.flows.typed_values import place as place
from tests.flows.typed_values import sound as sound

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
