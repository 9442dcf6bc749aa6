"""Where a data set lies and what its columns are called; and the error when it cannot be read.

A `DataSource` is what a data contract says. It holds no address and no credential: files are
relative to the silo's data root, and the connection to a database is the silo's own configuration.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from data_contracts.dataset.forms import FORMS
from data_contracts.dataset.forms.form import Form
from data_contracts.errors import DataStewardError
from data_contracts.protocol.wire_types import Part

SourceFormat = Literal["jsonl", "csv", "parquet", "huggingface", "sql", "image-text"]

FIELD_TYPES: dict[str, str] = {
    "id": "string",
    "subject": "string",
    "prompt": "string",
    "answer": "string",
    "messages": "array",
    "text": "string",
    "licence": "string",
    "source": "string",
    "split": "string",
    "label": "string",
    "consent": "boolean",
    "synthetic": "boolean",
    "tdm_reservation": "string",
    "tdm_policy": "string",
    "tdm_checked_at": "string",
    "robots": "string",
    "noai": "boolean",
    "noimageai": "boolean",
    "exif": "string",
    "language": "string",
    "image": "string",
    "nsfw": "string",
    "similarity": "number",
    "punsafe": "number",
    "pwatermark": "number",
}
"""Every canonical field with its logical type of ODCS; `image` is the name of a file."""

_ABOUT_A_RECORD = frozenset({"id", "subject", "source"})
"""What a record cannot do without beside the fields of its form; a picture's name can stand for
it."""

CONTENT_FIELDS = frozenset({"prompt", "answer", "messages", "text", "image"})
"""The fields that tell forms apart."""

LAION_COLUMNS: dict[str, str] = {
    "image": "file_name",
    "answer": "TEXT",
    "id": "URL",
    "source": "URL",
    "licence": "LICENSE",
    "nsfw": "NSFW",
    "similarity": "similarity",
    "punsafe": "punsafe",
    "pwatermark": "pwatermark",
}
"""Column of each field in LAION's metadata (Schuhmann et al., LAION-5B, 2022, appendix)."""

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TableName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$")
]


class FieldMapping(Part):
    """`column` is what the data calls the canonical `field`."""

    field: str
    column: ColumnName


class DataSource(Part):
    """Where the data is. `path` is a file (jsonl, csv, parquet) or a folder, below the data root.

    For sql `path` is empty and `table` is `table` or `schema.table`; rows come in the order of the
    column `order_by`, or of the id. `form` is what a record is, by its name in `FORMS` (None: a
    prompt and its answer, of pictures the caption), and `classes` what each value of the label
    means, of a form with classes. With `fields` given, these are read and no others, and every
    column must be there. Without, each field is read from the column of its own name (image-text:
    of LAION's name), and those that are not required may be absent.
    """

    format: SourceFormat
    path: str = ""
    table: TableName | None = None
    order_by: ColumnName | None = None
    fields: Annotated[tuple[FieldMapping, ...], Field(max_length=len(FIELD_TYPES))] = ()
    form: str | None = None
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def record_form(self) -> Form:
        """The form of its records."""
        return form_named(self.form, self.format)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        is_sql = self.format == "sql"
        if is_sql != (self.table is not None) or is_sql != (self.path == ""):
            raise ValueError("expected a table for sql, and a path for every other format")
        if self.order_by is not None and not is_sql:
            raise ValueError("expected order_by for sql only")
        if not is_sql and not _is_below(self.path):
            raise ValueError("expected a path relative to the data root, without ..")
        if self.form is not None and self.form not in forms_of(self.format):
            raise ValueError("expected a form that this format can hold")
        _refuse_wrong_fields([mapping.field for mapping in self.fields], self)
        return self


def forms_of(source_format: SourceFormat) -> tuple[str, ...]:
    """Names of the forms that this format can hold, the one that it has unasked first."""
    is_special = any(source_format in form.formats for form in FORMS.values())
    return tuple(
        name
        for name, form in FORMS.items()
        if (source_format in form.formats if is_special else not form.formats)
    )


def form_named(name: str | None, source_format: SourceFormat) -> Form:
    """The form of this name, or the one that the format has unasked."""
    return FORMS[name or forms_of(source_format)[0]]


def required_fields(source_format: SourceFormat, form: Form | None = None) -> tuple[str, ...]:
    """Canonical fields that a data set of this format must have, in their usual order."""
    wanted = set((form or form_named(None, source_format)).fields)
    wanted |= set() if source_format == "image-text" else _ABOUT_A_RECORD
    return tuple(name for name in FIELD_TYPES if name in wanted)


def possible_fields(source_format: SourceFormat, form: Form | None = None) -> tuple[str, ...]:
    """Canonical fields that a data set of this format may have, of this form or of any."""
    forms = [form] if form else [FORMS[name] for name in forms_of(source_format)]
    foreign = CONTENT_FIELDS - {field for each in forms for field in each.fields}
    return tuple(name for name in FIELD_TYPES if name not in foreign)


def _is_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    absolute = path.startswith("/")
    return bool(parts) and not absolute and ".." not in parts and path.isprintable()


def _refuse_wrong_fields(names: list[str], source: DataSource) -> None:
    if not names:
        return
    form = source.record_form
    possible, wanted = possible_fields(source.format, form), required_fields(source.format, form)
    if len(set(names)) != len(names) or not set(names) <= set(possible):
        raise ValueError("expected each field once, and fields of this format and form only")
    if not set(wanted) <= set(names):
        raise ValueError(f"expected the fields {', '.join(wanted)} among others")


class DataUnavailableError(DataStewardError):
    """A data set, or the rest of it, cannot be read. For the silo operator only.

    `file` is relative to the data root (or the table), `row` the row at which reading ended when
    that is known. `reason` quotes nothing from the data.
    """

    def __init__(self, file: str, reason: str, *, row: int | None = None) -> None:
        place = f"data set {file}" if row is None else f"data set {file}, row {row}"
        super().__init__(
            place,
            expected="data that can be read as the contract says",
            found=reason,
            action="correct the data or the contract; nothing is trained on until then",
        )
        self.file = file
        self.reason = reason
        self.row = row

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.file, self.reason, self.row))


def _rebuild(file: str, reason: str, row: int | None) -> DataUnavailableError:
    return DataUnavailableError(file, reason, row=row)
