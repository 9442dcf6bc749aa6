"""TOML files as people edit them: what is wrong with one is said by setting, value and file."""

import errno
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from data_contracts.shown_text import quoted

MAX_TOML_BYTES = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""A rhythm: up to a day."""


class TomlTable(BaseModel):
    """A table of a settings file: without names that nobody reads, and every whole number, float
    and truth value of TOML's own type, so that neither `true` nor "2" is a number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _is_of_its_type(cls, value: object, info: ValidationInfo) -> object:
        asked = _types_in(cls.model_fields[info.field_name or ""].annotation)
        wants_number = bool(asked & {int, float})
        if wants_number and isinstance(value, bool) and bool not in asked:
            raise ValueError("expected a number")
        if wants_number and isinstance(value, str) and str not in asked:
            raise ValueError("expected a number, without quotes")
        if int in asked and float not in asked and isinstance(value, float):
            raise ValueError("expected a whole number")
        if bool in asked and type(value) in (int, float) and not wants_number:
            raise ValueError("expected true or false")
        if bool in asked and isinstance(value, str) and str not in asked:
            raise ValueError("expected true or false, without quotes")
        return value


def _types_in(annotation: Any) -> set[type]:
    """The types that a value may have; of a Literal those of its values, of a union all."""
    parts = get_args(annotation)
    if not parts:
        return {annotation if isinstance(annotation, type) else type(annotation)}
    return set().union(*map(_types_in, parts))


def read_toml(path: Path) -> dict[str, Any]:
    """What the file says; raises OSError, or ValueError that says what is wrong in words."""
    return parse_toml(read_limited(path, MAX_TOML_BYTES))


def read_limited(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of a regular file and one more if there are more; raises OSError."""
    if path.exists() and not path.is_file():
        # Opening a pipe would wait for whoever writes into it.
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as file:
        return file.read(limit + 1)


def parse_toml(data: bytes) -> dict[str, Any]:
    """What the bytes of a file say; raises ValueError that says what is wrong in words."""
    if len(data) > MAX_TOML_BYTES:
        raise ValueError(f"more than {MAX_TOML_BYTES:,} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None


def setting_fault(error: ValidationError) -> tuple[str, str, str]:
    """The first wrong setting of a file: its dotted name, what was expected, what was found."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    if first["type"] == "missing":
        return where, "a value", "none"
    if first["type"] == "extra_forbidden":
        return where, "no setting of that name", quoted(first["input"])
    if first["type"] == "too_short":
        return where, f"at least {first['ctx']['min_length']} value", "none"
    if first["type"] == "path_type":
        return where, "a path, in quotes", quoted(first["input"])
    found = "these together" if isinstance(first["input"], dict) else quoted(first["input"])
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return where, expected.removeprefix("expected "), found
