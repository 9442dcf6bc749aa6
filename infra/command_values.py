"""Values as people type them, parsed where they enter: parsers for the options of both commands.

Each takes a word of the command line (or a default, which is as it should be already) and gives the
value, or raises `typer.BadParameter`, to which typer adds the name of the option. Nothing is made
or opened for writing. What is clearly meant is taken: spaces around a value, capitals in a key.
The types of records, and pydantic with them, are imported when there is a value: help needs none.
"""

import math
import os
import stat
from pathlib import Path
from typing import Any

import typer

from data_contracts.errors import ConsortiaError
from data_contracts.shown_text import is_visible, quoted

SHORTEST_PASSPHRASE = 12
LONGEST_WAIT_SECONDS = 30 * 86_400
LONGEST_ANSWER_MINUTES = 1_000_000
_KEY_DIGITS = 64
"""Of a public key, and of its fingerprint."""
_NAME = "2 to 24 lower-case letters, digits and -, a letter first"


def trust_mode(text: str) -> str:
    """`auditable` or `confidential`."""
    from data_contracts.protocol.records.round_plan import TrustMode

    return str(parsed(TrustMode, text, "auditable or confidential"))


def federation_id(text: str) -> str:
    """Id of a federation."""
    return _value("FederationId", text, f"{_NAME}, and no -inbox in it")


def run_id(text: str) -> str:
    """Id of a run."""
    return _value("RunId", text, _NAME)


def silo_id(text: str) -> str:
    """Id of a silo."""
    return _value("SiloId", text, f"{_NAME}, and not coordinator")


def role(text: str) -> str:
    """`coordinator`, or the id of a silo."""
    return _value("Name", text, f"coordinator, or the id of a silo: {_NAME}")


def registry_name(text: str) -> str:
    """Name of a registry, of which its files are called."""
    return _value("RuleId", text, "1 to 80 lower-case letters, digits, _, . and -, a letter first")


def line(text: str) -> str:
    """Text for people, which is signed or written into a file that they edit."""
    return _value("Line", text, "1 to 400 visible characters on one line")


def institution_name(text: str) -> str:
    """What an institution is called, in reports."""
    expected = "1 to 100 printable characters with single spaces between words"
    return _value("InstitutionName", text, expected)


def model_name(text: str) -> str:
    """What a base model is called."""
    return _value("BaseModelName", text, "a name of 1 to 400 visible characters, and no path")


def hub_id(text: str) -> str:
    """Where a model lies on a hub."""
    return _value("HubId", text, "organisation/name")


def model_licence(text: str) -> str:
    """An SPDX id, or a LicenseRef-, whose terms are known."""
    from data_contracts.licences.model_licence import judge_model

    licence = _value("LicenceId", text, "an SPDX id such as Apache-2.0")
    if judge_model(licence, "research", None).rule == "model_licence.unknown":
        raise _refused("an SPDX id, or a LicenseRef- of the table in docs/contracts.md", text)
    return licence


def public_key(text: str) -> str:
    """Ed25519 public key in hex, as it is printed by init and new-root-key."""
    key = text.strip().lower()
    expected = "64 hex digits of an Ed25519 public key, copied from where it was printed"
    if len(key) != _KEY_DIGITS:
        raise _refused(expected, text, f"{len(key)} characters")
    return _value("PublicKeyHex", key, expected)


def recipient(text: str) -> str:
    """age X25519 recipient, as it is printed by init and key."""
    expected = "age1 and 58 letters and digits, a recipient copied from where it was printed"
    return _value("Recipient", text.strip().lower(), expected)


def key_or_fingerprint(text: str) -> str:
    """A public key or the fingerprint of one, with or without its spaces."""
    digits = "".join(text.split()).lower()
    if len(digits) != _KEY_DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise _refused("64 hex digits of a public key or of its fingerprint", text)
    return digits


def digest(text: str) -> str:
    """SHA-256 of a record, in hex."""
    return _value("Digest", text.lower(), "64 hex digits of a SHA-256")


def digest_start(text: str) -> str:
    """The first digits of a SHA-256, as pages and messages show them, or all of it."""
    digits = text.strip().lower()
    if not 8 <= len(digits) <= 64 or not set(digits) <= set("0123456789abcdef"):
        raise _refused("8 to 64 hex digits, the first of a SHA-256 or all of it", text)
    return digits


def endpoint_url(text: str) -> str:
    """Address of an S3 endpoint."""
    from infra.addresses import http_address

    return _address(http_address, text)


def require_private(url: str, *, allow_plain_http: bool) -> None:
    """Refuse plain HTTP beyond this machine unless it was allowed in so many words."""
    from infra.addresses import is_plain

    if is_plain(url) and not allow_plain_http:
        why = "what is sent there could be read; --allow-plain-http, if the network encrypts it"
        raise typer.BadParameter(f"expected https:// in --endpoint-url; found {quoted(url)}: {why}")


def prefect_api_url(text: str) -> str:
    """Address of a Prefect API."""
    from infra.addresses import prefect_api

    return _address(prefect_api, text)


def wait_seconds(text: str | float) -> float:
    """Seconds to wait, from 0 to a month."""
    return _number(text, 0, LONGEST_WAIT_SECONDS)


def answer_minutes(text: str | float) -> float:
    """Minutes in which somebody may answer, at least one."""
    return _number(text, 1, LONGEST_ANSWER_MINUTES)


def directory(text: str | Path) -> Path:
    """A directory that is there, or that can be made."""
    path = _path(text)
    there = next((p for p in (path, *path.absolute().parents) if _mode(p)), None)
    if there is not None and not stat.S_ISDIR(_mode(there)):
        raise _refused("a directory, or a path where one can be made", text, f"{there} is a file")
    return path


def existing_directory(text: str | Path) -> Path:
    """A directory that is there."""
    path = _path(text)
    if not stat.S_ISDIR(_mode(path)):
        raise _refused("a directory that is there", text, _kind(path))
    return path


def existing_file(text: str | Path) -> Path:
    """A regular file that can be read; a pipe could keep a command waiting for ever."""
    path = _path(text)
    if not stat.S_ISREG(_mode(path)):
        raise _refused("a file that is there", text, _kind(path))
    if not os.access(path, os.R_OK):
        raise _refused("a file that can be read", text, "no permission to read it")
    return path


def file_to_write(text: str | Path) -> Path:
    """A file to make or to replace, in a directory that is there or can be made."""
    path = _path(text)
    if _mode(path) and not stat.S_ISREG(_mode(path)):
        raise _refused("the name of a file to write", text, _kind(path))
    directory(path.parent)
    return path


def passphrase(file: Path | None) -> str | None:
    """The first line of a private file, long enough that guessing does not pay; None without."""
    if file is None:
        return None
    if _mode(file) & 0o077:
        raise _refused("a passphrase file that others cannot read (chmod 600)", file)
    line = file.read_text("utf-8", "replace").split("\n")[0].strip()
    if len(line) < SHORTEST_PASSPHRASE:
        raise _refused(
            f"at least {SHORTEST_PASSPHRASE} characters in the first line", file, f"{len(line)}"
        )
    return line


def model_directory(text: str | Path) -> Path:
    """A base model: a directory with config.json and safetensors, and without code."""
    from infra.disk.model_files import model_files
    from infra.disk.model_parts import CONFIG_FILE, PIPELINE_FILE

    path = existing_directory(text)
    try:
        # First, because looking through a directory that is none may take for ever.
        if not any((path / name).is_file() for name in (CONFIG_FILE, PIPELINE_FILE)):
            raise _refused("a directory with config.json and .safetensors files", text)
        model_files(path)
    except ConsortiaError as error:
        raise _refused(error.expected, text, error.found) from None
    except OSError as error:
        raise _refused("a directory that can be read", text, error.strerror or "") from None
    return path


def parsed(kind: Any, text: str, expected: str) -> Any:
    """`text` as a value of the type `kind`, which is `expected` in words."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(text.strip())
    except ValidationError:
        raise _refused(expected, text) from None


def _value(name: str, text: str, expected: str) -> str:
    """`text` as the type of records that has this name."""
    from data_contracts.protocol import wire_types

    return str(parsed(getattr(wire_types, name), text, expected))


def _address(judge: Any, text: str) -> str:
    try:
        return str(judge(text.strip()))
    except ValueError as error:
        raise _refused(str(error).removeprefix("expected "), text) from None


def _number(text: str | float, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise _refused(f"a number from {least:,} to {most:,}", text)
    return value


def _path(text: str | Path) -> Path:
    """Of a name that people can read; what is empty would be the directory one happens to be in."""
    name = str(text)
    if not name.strip() or not is_visible(name):
        raise _refused("a path of visible characters in UTF-8", text)
    try:
        Path(name).stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused("a path that can be looked into", text, error.strerror or "") from None
    return Path(name)


def _mode(path: Path) -> int:
    """What kind of file `path` is, 0 where there is none."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _kind(path: Path) -> str:
    mode = _mode(path)
    if not mode:
        return "nothing of that name"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a file" if stat.S_ISREG(mode) else "a pipe or a device"


def _refused(expected: str, found: object, why: str = "") -> typer.BadParameter:
    shown = quoted(str(found)) + (f", {why}" if why else "")
    return typer.BadParameter(f"expected {expected}; found {shown}. Correct it and run it again.")
