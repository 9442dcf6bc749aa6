"""The bytes that are signed for a record, and the record that such bytes hold.

A record with a row for each silo or module keeps those rows in a table, canonical JSON of its own,
which the signed payload names by digest and size.
"""

import json
import re
from functools import lru_cache
from typing import Any

import rfc8785
from pydantic import ValidationError

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_bytes
from data_contracts.protocol.dsse import MAX_ENVELOPE_BYTES
from data_contracts.protocol.program_version import is_later, program_version
from data_contracts.protocol.records.base import Record, RecordT
from data_contracts.protocol.remembered import remembered
from data_contracts.protocol.strict_json import parse_strict, refused, require_canonical

MAX_TABLE_BYTES = 16 * 1024 * 1024
TABLE = "table"
REMEMBERED_TABLES = 4
_PROGRAM = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}[a-z0-9.+-]{0,20}")
NEWER = "envelope.newer"
"""The rule of what a later release wrote, signed by whom it should be, and this one cannot read."""


def canonical_bytes(record: Record) -> bytes:
    """RFC 8785 bytes of what is signed: the record, with a reference in place of its table."""
    unsaid = {name for name in record.added_fields if getattr(record, name) is None}
    fields = record.model_dump(mode="json", exclude=unsaid | set(record.table_fields))
    table = table_bytes(record)
    if table is not None:
        fields[TABLE] = artifact_of_bytes(table).model_dump()
    return rfc8785.dumps(fields)


def table_bytes(record: Record) -> bytes | None:
    """RFC 8785 bytes of the record's table; None for a kind that has none."""
    if not record.table_fields:
        return None
    return rfc8785.dumps(record.model_dump(mode="json", include=set(record.table_fields)))


def _require_no_later(kind: str, payload: bytes, found: str) -> None:
    """Raise with rule NEWER where a later release says that it wrote this payload."""
    program = program_of(payload)
    if program is not None and is_later(program, program_version()):
        raise newer(kind, found, program)


def program_of(payload: bytes) -> str | None:
    """The release that a payload says it was written by, whatever else it says."""
    fields = parse_strict(payload, MAX_ENVELOPE_BYTES)
    program = fields.get("program") if isinstance(fields, dict) else None
    is_one = isinstance(program, str) and _PROGRAM.fullmatch(program) is not None
    return program if is_one else None


def newer(kind: str, found: str, program: str | None) -> UntrustedInputError:
    """What is raised, with rule NEWER, for what a later release has written."""
    by = f", written by {program}" if program else ""
    to = f"to at least {program}" if program else "to the release that the others have"
    return UntrustedInputError(
        kind,
        expected=f"one that version {program_version()} of Consortia reads",
        found=f"{found}{by}",
        action=f"upgrade Consortia on this machine (silo-agent, consortia) {to}; see "
        "docs/upgrade.md",
        rule=NEWER,
    )


def record_of(payload: bytes, table: bytes | None, record_type: type[RecordT]) -> RecordT:
    """The record of a payload and its table; of a kind that has one, neither stands alone."""
    if (table is not None) != bool(record_type.table_fields):
        expected = "a table on a second line" if table is None else "one line"
        raise refused(record_type.kind, expected, "another document", TABLE)
    if len(payload) > record_type.max_payload_bytes:
        expected = f"at most {record_type.max_payload_bytes} bytes"
        raise refused(record_type.kind, expected, f"{len(payload)}", "size")
    record: RecordT = (
        _record_without_table(payload, record_type)
        if table is None
        else _record_with_table(payload, table, record_type)
    )
    return record


@remembered
def _record_without_table(payload: bytes, record_type: type[RecordT]) -> RecordT:
    require_canonical(payload, record_type.max_payload_bytes, "payload")
    return _validated(payload, payload, None, record_type)


@lru_cache(maxsize=REMEMBERED_TABLES)
def _record_with_table(payload: bytes, table: bytes, record_type: type[RecordT]) -> RecordT:
    require_canonical(payload, record_type.max_payload_bytes, "payload")
    fields = parse_strict(payload, record_type.max_payload_bytes)
    require_named(fields, table, record_type.kind)
    rows = parse_strict(table, MAX_TABLE_BYTES)
    if not isinstance(rows, dict) or set(rows) != set(record_type.table_fields):
        raise refused(f"table of {record_type.kind}", "its own lists", "others", "schema")
    whole = {name: value for name, value in fields.items() if name != TABLE} | rows
    return _validated(json.dumps(whole).encode(), payload, table, record_type)


def _validated(
    whole: bytes, payload: bytes, table: bytes | None, record_type: type[RecordT]
) -> RecordT:
    try:
        record = record_type.model_validate_json(whole)
    except ValidationError as error:
        _require_no_later(record_type.kind, payload, "what this release does not know")
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"{where}: {first['msg']}"[:200]
        raise refused(record_type.kind, "its published schema", found, "schema") from None
    if canonical_bytes(record) != payload or table_bytes(record) != table:
        raise refused(record_type.kind, "one spelling of every value", "another", "schema")
    return record


def require_named(fields: Any, table: bytes, kind: str) -> None:
    """Raise UntrustedInputError unless the payload's `fields` name this table."""
    named = fields.get(TABLE) if isinstance(fields, dict) else None
    if named != artifact_of_bytes(table).model_dump():
        raise refused(kind, "the table that its payload names", "another", TABLE)
