"""Where a contract says that the data lies and what its columns are called.

`servers` names one server: files below the silo's data root (type local), or a table of the
database that the silo's own configuration names (type custom). Neither can name an address, a
credential or a path outside the data root. `schema` names one object whose properties are the
canonical fields of a record; `physicalName` says what a column is called in the data.
"""

from pathlib import PurePosixPath
from typing import Any

from data_contracts.dataset.contract.refused_key import KeyRefusedError
from data_contracts.dataset.sources.data_source import (
    FIELD_TYPES,
    REQUIRED_FIELDS,
    DataSource,
    FieldMapping,
    SourceFormat,
    possible_fields,
)

FILE_FORMATS: tuple[SourceFormat, ...] = ("jsonl", "csv", "parquet", "huggingface", "image-text")
SQL_FORMAT = "sql"

_PROMISES = {"quality", "unique", "logicalTypeOptions", "primaryKey", "transformLogic"}
_SERVER_KEYS = {"server", "type", "path", "format", "encoding", "description", "environment"}


def read_source(document: dict[str, Any]) -> DataSource:
    """The data source of an ODCS document; raises KeyRefusedError with the key's path."""
    server = _only(document.get("servers", []), "servers", "server")
    for key in server:
        if key not in _SERVER_KEYS:
            raise KeyRefusedError(f"servers[0].{key}", ", ".join(sorted(_SERVER_KEYS)), "another")
    schema = _only(document.get("schema", []), "schema", "object")
    is_sql = server["type"] == "custom" and server.get("format") == SQL_FORMAT
    kind: SourceFormat = "sql" if is_sql else _file_format(server)
    return DataSource(
        format=kind,
        path="" if is_sql else _path(server),
        table=_table(schema) if is_sql else None,
        fields=_fields(schema.get("properties", []), kind),
    )


def _only(members: list[dict[str, Any]], path: str, what: str) -> dict[str, Any]:
    if len(members) != 1:
        raise KeyRefusedError(path, f"exactly one {what}", f"{len(members)}")
    return members[0]


def _file_format(server: dict[str, Any]) -> SourceFormat:
    if server["type"] != "local":
        expected = "local, or custom with format sql"
        raise KeyRefusedError("servers[0].type", expected, ascii(server["type"])[:40])
    kind = next((name for name in FILE_FORMATS if name == server["format"]), None)
    if kind is None:
        expected = "one of " + ", ".join(FILE_FORMATS)
        raise KeyRefusedError("servers[0].format", expected, ascii(server["format"])[:40])
    if server.get("encoding", "UTF-8") != "UTF-8":
        raise KeyRefusedError("servers[0].encoding", "UTF-8", ascii(server["encoding"])[:40])
    return kind


def _path(server: dict[str, Any]) -> str:
    path: str = server["path"]
    parts = PurePosixPath(path).parts
    escapes = path.startswith("/") or ".." in parts or not parts
    if escapes or len(path) > 400 or not path.isprintable() or set(path) & set("\\:*?[]"):
        expected = "a file relative to the silo's data root, without .. or wildcards"
        raise KeyRefusedError("servers[0].path", expected, ascii(path)[:80])
    return str(PurePosixPath(path))


def _table(schema: dict[str, Any]) -> str:
    table: str = schema.get("physicalName", schema["name"])
    parts = table.split(".")
    usable = (part.isidentifier() and part.isascii() and len(part) <= 63 for part in parts)
    if len(parts) > 2 or not all(usable):
        expected = "a table, or schema.table, each of at most 63 ASCII letters, digits and _"
        raise KeyRefusedError("schema[0].physicalName", expected, ascii(table)[:80])
    return table


def _fields(properties: list[dict[str, Any]], kind: SourceFormat) -> tuple[FieldMapping, ...]:
    mapped: list[FieldMapping] = []
    for position, entry in enumerate(properties):
        path = f"schema[0].properties[{position}]"
        name = entry["name"]
        wanted = FIELD_TYPES.get(name)
        if wanted is None or name not in possible_fields(kind):
            expected = "one of " + ", ".join(possible_fields(kind))
            raise KeyRefusedError(f"{path}.name", expected, name[:60])
        if entry.get("logicalType") != wanted:
            found = ascii(entry.get("logicalType", "nothing"))[:40]
            raise KeyRefusedError(f"{path}.logicalType", wanted, found)
        for key in _PROMISES & set(entry):
            expected = "a rule at schema[0].quality instead: nothing here would check it"
            raise KeyRefusedError(f"{path}.{key}", expected, "a promise")
        mapped.append(FieldMapping(field=name, column=_column(entry, path)))
    _refuse_incomplete([mapping.field for mapping in mapped], kind)
    return tuple(mapped)


def _column(entry: dict[str, Any], path: str) -> str:
    column: str = entry.get("physicalName", entry["name"])
    if not 1 <= len(column) <= 100 or not column.isprintable():
        raise KeyRefusedError(f"{path}.physicalName", "a column's name", ascii(column)[:80])
    return column


def _refuse_incomplete(names: list[str], kind: SourceFormat) -> None:
    required = REQUIRED_FIELDS[kind]
    missing = sorted(required - set(names))
    if missing or len(set(names)) != len(names):
        found = f"no {', '.join(missing)}" if missing else "a field twice"
        expected = f"each field once, among them {', '.join(sorted(required))}"
        raise KeyRefusedError("schema[0].properties", expected, found)
