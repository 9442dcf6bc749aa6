"""A file of training records, one JSON object a line, all of them of one form.

The form is that whose fields the first record has, and every record has to have those of no other;
the data gate writes such files, and whoever has a public set to measure on. A field that is null is
none. Messages count records from 1 and never say what is in them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_contracts.dataset.forms import FORMS, TRAINED_FORMS
from data_contracts.dataset.forms.form import Form, LineRefusedError
from data_contracts.errors import DataStewardError


def form_of_file(path: Path) -> Form:
    """The form of the first record; raises DataStewardError where there is none."""
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                return _form_of(_object(path.name, 1, line), path.name, 1)
    raise bad_records(path.name, "an empty file")


def read_lines(path: Path, form: Form) -> Iterator[tuple[Any, int]]:
    """Every record, as `form` reads it, with the bytes of its line; empty lines are none.

    Raises DataStewardError when the file has no records or a line is none of this form.
    """
    number = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                number += 1
                yield record_in(path.name, number, line, form), len(line)
    if not number:
        raise bad_records(path.name, "an empty file")


def bad_records(name: str, found: str) -> DataStewardError:
    """The one message for a file of records that cannot be trained with."""
    fields = (" and ".join(f"`{field}`" for field in FORMS[name].fields) for name in TRAINED_FORMS)
    return DataStewardError(
        f"training records {name}",
        expected=f"one JSON object per line, all of one form and none empty: {'; '.join(fields)}",
        found=found,
        action="correct the data set or the fields that the data contract names for them",
    )


def record_in(name: str, number: int, line: bytes, form: Form) -> Any:
    """The record in a line, the `number`th of the file `name`; raises DataStewardError."""
    record = _object(name, number, line)
    found = _form_of(record, name, number)
    if found is not form:
        raise bad_records(name, f"{found.name} in record {number}, and {form.name} before it")
    try:
        return form.read(record)
    except LineRefusedError as refused:
        raise bad_records(name, f"{refused} in record {number}") from None


def _object(name: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise bad_records(name, f"something else in record {number}")
    return record


def _form_of(record: dict[str, Any], name: str, number: int) -> Form:
    """The only one whose fields it has, but for those whose fields another one has as well."""
    stated = {field for field, value in record.items() if value is not None}
    # Where a field says nothing, its form still knows what to say of that.
    forms = _with_fields(stated) or _with_fields(set(record))
    forms = [form for form in forms if not any(_is_part(form, other) for other in forms)]
    if len(forms) > 1:
        named = " and ".join(form.name for form in forms)
        raise bad_records(name, f"the fields of {named} in record {number}, which may be either")
    if not forms:
        raise bad_records(name, f"something else in record {number}")
    return forms[0]


def _with_fields(fields: set[str]) -> list[Form]:
    return [form for form in map(FORMS.__getitem__, TRAINED_FORMS) if fields >= set(form.fields)]


def _is_part(form: Form, other: Form) -> bool:
    return set(form.fields) < set(other.fields)
