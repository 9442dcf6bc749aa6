"""Which columns of the data are read for which field."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from data_contracts.dataset.sources.data_source import (
    LAION_COLUMNS,
    DataSource,
    DataUnavailableError,
    possible_fields,
    required_fields,
)


@dataclass(frozen=True, slots=True)
class Column:
    """`name` in the data; `is_needed` when the data cannot be read without it."""

    field: str
    name: str
    is_needed: bool

    @property
    def label(self) -> str:
        """How reasons name it: by the field, and by the column where the contract renames it."""
        return self.field if self.field == self.name else f"{self.field} (column {self.name})"


def columns_of(source: DataSource) -> tuple[Column, ...]:
    """The columns to look for, one per field."""
    if source.fields:
        return tuple(Column(mapping.field, mapping.column, True) for mapping in source.fields)
    if source.format == "image-text":
        pairs = tuple(LAION_COLUMNS.items())
    else:
        names = possible_fields(source.format, source.record_form)
        pairs = tuple((field, field) for field in names)
    required = required_fields(source.format, source.record_form)
    return tuple(Column(field, name, field in required) for field, name in pairs)


def present_columns(
    columns: Sequence[Column], names: Collection[str], file: str
) -> tuple[Column, ...]:
    """Those of `columns` that are among the data's `names`; raises DataUnavailableError.

    A name twice is refused, because two readers may then read different columns.
    """
    if len(set(names)) != len(names):
        raise DataUnavailableError(file, "two columns of the same name")
    for column in columns:
        if column.is_needed and column.name not in names:
            raise DataUnavailableError(file, f"column {column.name} missing (field {column.field})")
    return tuple(column for column in columns if column.name in names)
