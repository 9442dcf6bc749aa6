"""Where a contract says that the data lies and what its columns are called.

`servers` names one server: files below the silo's data root (type local), or a table of the
database that the silo's own configuration names (type custom). Neither can name an address, a
credential or a path outside the data root. `schema` names one object whose properties are the
canonical fields of a record; `physicalName` says what a column is called in the data. Which fields
are there says what form a record has; where two forms are possible the terms name one.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from data_contracts.dataset.contract.refused_key import KeyRefusedError
from data_contracts.dataset.forms import FORMS
from data_contracts.dataset.forms.form import Form
from data_contracts.dataset.sources.data_source import (
    CONTENT_FIELDS,
    FIELD_TYPES,
    DataSource,
    FieldMapping,
    SourceFormat,
    forms_of,
    possible_fields,
    required_fields,
)

FILE_FORMATS: tuple[SourceFormat, ...] = ("jsonl", "csv", "parquet", "huggingface", "image-text")
SQL_FORMAT = "sql"

_PROMISES = {"quality", "unique", "logicalTypeOptions", "primaryKey", "transformLogic"}
_SERVER_KEYS = {"server", "type", "path", "format", "encoding", "description", "environment"}


def read_source(
    document: dict[str, Any],
    stated_form: str | None = None,
    classes: Mapping[str, str] | None = None,
) -> DataSource:
    """The data source of an ODCS document; raises KeyRefusedError with the key's path.

    `stated_form` and `classes` are what its terms say of records (`fl.form`, `fl.classes`).
    """
    server = _only(document.get("servers", []), "servers", "server")
    for key in server:
        if key not in _SERVER_KEYS:
            raise KeyRefusedError(f"servers[0].{key}", ", ".join(sorted(_SERVER_KEYS)), "another")
    schema = _only(document.get("schema", []), "schema", "object")
    is_sql = server["type"] == "custom" and server.get("format") == SQL_FORMAT
    kind: SourceFormat = "sql" if is_sql else _file_format(server)
    fields = _fields(schema.get("properties", []), kind)
    names = [mapping.field for mapping in fields]
    form = _form(names, kind, stated_form, has_classes=classes is not None)
    _refuse_incomplete(names, required_fields(kind, form))
    return DataSource(
        format=kind,
        path="" if is_sql else _path(server),
        table=_table(schema) if is_sql else None,
        fields=fields,
        form=form.name,
        classes=tuple((classes or {}).items()),
    )


def _form(
    names: Sequence[str], kind: SourceFormat, stated: str | None, *, has_classes: bool
) -> Form:
    """The one form that the mapped fields, the classes and the stated form agree on."""
    possible = [FORMS[name] for name in forms_of(kind)]
    content = CONTENT_FIELDS & set(names)
    # What is missing of a form is said as that; what is too much belongs to another one.
    fitting = [form for form in possible if content <= set(form.fields)]
    if not fitting:
        expected = "the fields of one form: " + _forms_in_words(possible)
        raise KeyRefusedError("schema[0].properties", expected, ", ".join(sorted(content)))
    if has_classes and not any(form.takes_classes for form in fitting):
        expected = "none, or the fields text and label, whose classes they are"
        raise KeyRefusedError("customProperties[fl.classes]", expected, _listed(content))
    fitting = [form for form in fitting if form.takes_classes == has_classes]
    form = fitting[0]
    if stated is not None and stated != form.name:
        expected = f"{form.name}, the form of the mapped fields, or no such term"
        if stated in FORMS and FORMS[stated].takes_classes and not has_classes:
            expected += "; for a form with classes, fl.classes names them"
        raise KeyRefusedError("customProperties[fl.form]", expected, stated)
    if stated is None and form.must_be_named_with & set(names):
        expected = (
            "fl.classes, the classes that the label may have, for texts with their class; or "
            f"fl.form: {form.name}, for plain text whose label only rules look at"
        )
        found = f"{_listed(content)} and {_listed(form.must_be_named_with)}, which may be either"
        raise KeyRefusedError("schema[0].properties", expected, found)
    return form


def _forms_in_words(forms: Sequence[Form]) -> str:
    return "; ".join(f"{' and '.join(form.fields)} ({form.name})" for form in forms)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"


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
        # A list of messages may be written as text.
        types = {wanted, "string"} if wanted == "array" else {wanted}
        if entry.get("logicalType") not in types:
            found = ascii(entry.get("logicalType", "nothing"))[:40]
            raise KeyRefusedError(f"{path}.logicalType", wanted, found)
        for key in _PROMISES & set(entry):
            expected = "a rule at schema[0].quality instead: nothing here would check it"
            raise KeyRefusedError(f"{path}.{key}", expected, "a promise")
        mapped.append(FieldMapping(field=name, column=_column(entry, path)))
    return tuple(mapped)


def _column(entry: dict[str, Any], path: str) -> str:
    column: str = entry.get("physicalName", entry["name"])
    if not 1 <= len(column) <= 100 or not column.isprintable():
        raise KeyRefusedError(f"{path}.physicalName", "a column's name", ascii(column)[:80])
    return column


def _refuse_incomplete(names: Sequence[str], required: Sequence[str]) -> None:
    missing = sorted(set(required) - set(names))
    if missing or len(set(names)) != len(names):
        found = f"no {', '.join(missing)}" if missing else "a field twice"
        expected = f"each field once, among them {', '.join(sorted(required))}"
        raise KeyRefusedError("schema[0].properties", expected, found)
