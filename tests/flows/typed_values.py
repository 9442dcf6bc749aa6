"""Of each kind of value, what is right and what people mistype or an attacker would type."""

import os
from pathlib import Path

import pytest

from infra import command_values as values
from infra.encryption.identities import new_identity
from infra.signing_keys import create_key
from silo_agent.first_day.commands import device_name
from tests.data_contracts.dataset.contract_samples import CONTRACT
from tests.flows.command_walk import Parser

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
    values.federation_id: (*NOT_A_NAME, "a-inbox", "a-inbox-b"),
    values.run_id: NOT_A_NAME,
    values.silo_id: (*NOT_A_NAME, "coordinator"),
    values.role: NOT_A_NAME,
    values.registry_name: (*HOSTILE, TRAVERSAL, "Press", "a b", "a/b", ".a", "a" * 81),
    values.line: (*HOSTILE, "x" * 401),
    values.institution_name: (*HOSTILE, "two  spaces", "x" * 101),
    values.model_name: (*HOSTILE, TRAVERSAL, "/models/tiny", "~/tiny", "C:\\tiny", "x" * 401),
    values.hub_id: (*HOSTILE, TRAVERSAL, "no-organisation", "a/b/c", "/b", "a/", "a b/c", ".a/b"),
    values.model_licence: (*HOSTILE, "Apache 2.0", "Apache2.0", "none", 'MIT"', "x" * 81),
    values.public_key: (*NOT_HEX, "00" * 32, "ff" * 32, "02" + "00" * 31),
    values.recipient: (
        *NOT_HEX,
        "age1" + "q" * 58,
        f"age1{'q' * 52}5cu47z",
        "AGE-SECRET-KEY-1" + "Q" * 58,
    ),
    values.key_or_fingerprint: NOT_HEX,
    values.digest: NOT_HEX,
    values.digest_start: (*HOSTILE, "ab" * 33, "abcdef0", "zz" * 32, "0x" + "ab" * 31),
    values.endpoint_url: NO_ADDRESS,
    values.prefect_api_url: (*NO_ADDRESS, "http://127.0.0.1:4200", "http://127.0.0.1:4200/apis"),
    values.wait_seconds: (*(n for n in NO_NUMBER if n not in ("1.5", "1e3")), "-0.1", "1e9"),
    values.answer_minutes: (*(n for n in NO_NUMBER if n not in ("1.5", "1e3")), "0", "0.9", "1e9"),
    values.directory: NO_DIRECTORY,
    values.existing_directory: (*NO_DIRECTORY, "absent", TRAVERSAL),
    values.existing_file: NO_FILE,
    values.file_to_write: (*HOSTILE, "directory", "pipe", "/dev/null", "file/below"),
    values.model_directory: (*NO_DIRECTORY, "absent", "directory", "pickled", "/"),
    values.trust_mode: (*HOSTILE, "open", "Auditable", "auditable,confidential", "0"),
    device_name: (*HOSTILE, "gpu", "cuda:0", "cpu,cuda", "0"),
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
        values.institution_name: "Hospital of the Holy Ghost",
        values.model_name: "tiny",
        values.hub_id: "organisation/model",
        values.model_licence: "Apache-2.0",
        values.public_key: key,
        values.recipient: new_identity().recipient,
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
