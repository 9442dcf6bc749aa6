"""From the row of a finding back to its place in the data, for people inside the silo.

The findings hold ids under the silo's key only, so ids are read from the data again, and one counts
only when it has the very digest of the finding: data that changed meanwhile give no name rather
than a wrong one. No text of a record is kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.sources.data_source import DataSource, DataUnavailableError

MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class RowNames:
    """By row (counts from 1): the ids of records, and why rows that are none cannot be read."""

    ids: dict[int, str] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)


def names_of(
    records: Iterable[Example | UnreadableRow], keyed_ids: Mapping[int, str], keyed: Keyed
) -> RowNames:
    """Names of the rows of `keyed_ids`; reads `records` up to the last of them."""
    names = RowNames()
    for record in _up_to(records, max(keyed_ids, default=0)):
        expected = keyed_ids.get(record.row)
        if isinstance(record, UnreadableRow):
            if keyed("row", str(record.row)) == expected:
                names.unreadable[record.row] = record.reason
        elif keyed("id", record.id) == expected:
            names.ids[record.row] = _printable(record.id)
    return names


def meaning_of_row(source: DataSource) -> str:
    """What "row 7" means in data of this kind, as one sentence."""
    match source.format:
        case "jsonl":
            return f"Row 7 is line 7 of {source.path}."
        case "csv":
            return f"Row 7 is the seventh row below the header of {source.path}."
        case "sql":
            ids = [mapping.column for mapping in source.fields if mapping.field == "id"]
            order = source.order_by or (ids[0] if ids else "id")
            return f"Row 7 is the seventh of table {source.table}, in the order of {order}."
        case "huggingface":
            return f"Row 7 is the seventh of the files in {source.path}, one after the other."
        case "image-text":
            return f"Row 7 is the seventh of the metadata in {source.path}."
    return f"Row 7 is the seventh of {source.path}."


def _up_to(
    records: Iterable[Example | UnreadableRow], last: int
) -> Iterator[Example | UnreadableRow]:
    """Records up to the row `last`; data that end early have no more of them."""
    if not last:
        return
    try:
        for record in records:
            if record.row > last:
                return
            yield record
            if record.row == last:
                return
    except DataUnavailableError:
        return


def _printable(text: str) -> str:
    shown = "".join(letter for letter in text if letter.isprintable())
    too_long = len(shown) > MAX_SHOWN_CHARACTERS
    return shown[:MAX_SHOWN_CHARACTERS] + "…" if too_long else shown
