"""Folders that `save_to_disk` of Hugging Face's `datasets` wrote: a Dataset or a DatasetDict.

A Dataset is a `state.json` that lists Arrow stream files; a DatasetDict is a `dataset_dict.json`
that lists folders of Datasets, whose names state the split (`field_values.SPLITS`). A folder that
is something else, such as the cache of a hub, is refused as what it is. Files are mapped, not
loaded, and every batch is validated before a cell of it is looked at, because an Arrow file is
trusted by whoever reads it otherwise.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.dataset.sources.arrow_rows import arrow_rows, refuse_types
from data_contracts.dataset.sources.columns import Column, present_columns
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.dataset.sources.example_maker import Rows
from data_contracts.dataset.sources.field_values import SPLITS
from data_contracts.dataset.sources.places import DataRoot, file_below, folder_below
from data_contracts.shown_text import quoted

STATE_FILE = "state.json"
DICT_FILE = "dataset_dict.json"
_OTHER_FOLDERS = (
    ("snapshots", "the cache of a hub (blobs, refs, snapshots)"),
    ("dataset_info.json", "the cache of load_dataset"),
    ("README.md", "a copy of a hub's repository"),
    ("data", "a copy of a hub's repository"),
)
"""What lies in a folder that save_to_disk did not write, and what it then is."""
_MAX_JSON_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ArrowPart:
    """One Arrow file of a set; `split` when the folder states it, `name` below the data root."""

    path: Path
    name: str
    split: str | None


class HuggingFaceFolder:
    """The rows of one folder, part after part; `columns` are the wanted ones that all parts have.

    Where folders state the split, it is the last of `columns`.
    """

    def __init__(self, root: DataRoot, relative: str, wanted: Sequence[Column]) -> None:
        folder = folder_below(root, relative)
        self._json_files: list[Path] = []
        _refuse_other_folders(folder, relative)
        if (folder / DICT_FILE).exists():
            self._parts = tuple(self._parts_of_dict(root, relative))
        else:
            self._parts = tuple(self._parts_of(root, relative, None))
        if any(part.split for part in self._parts):
            wanted = _without_split(wanted, relative)
        self.columns = self._common_columns(wanted)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that decides the content."""
        return (*self._json_files, *(part.path for part in self._parts))

    def count_rows(self) -> int:
        """Rows, from the headers of the batches."""
        return sum(batch.num_rows for part in self._parts for batch in _batches(part, ()))

    def rows(self) -> Rows:
        """Values of `columns` in every row, in order."""
        first_row = 1
        stated = [column for column in self.columns if column.field != _STATED.field]
        for part in self._parts:
            plain = self.columns if part.split is None else stated
            for batch in _batches(part, [column.name for column in plain]):
                rows = arrow_rows(_validated(batch), plain, first_row)
                yield from rows if part.split is None else _with_split(rows, part.split)
                first_row += batch.num_rows

    def _parts_of_dict(self, root: DataRoot, relative: str) -> Iterator[ArrowPart]:
        names = _json(self._json_file(root, relative, DICT_FILE), relative).get("splits")
        names = names if isinstance(names, list) else [None]
        for name in names:
            if not isinstance(name, str) or name.lower() not in SPLITS or names.count(name) > 1:
                known = ", ".join(sorted(SPLITS))
                reason = f"splits other than {known}, each once: {quoted(name)}"
                raise DataUnavailableError(f"{relative}/{DICT_FILE}", reason)
        for name in names:
            yield from self._parts_of(root, f"{relative}/{name}", SPLITS[name.lower()])

    def _parts_of(self, root: DataRoot, relative: str, split: str | None) -> Iterator[ArrowPart]:
        state = _json(self._json_file(root, relative, STATE_FILE), relative)
        listed = state.get("_data_files")
        for entry in listed if isinstance(listed, list) else [None]:
            filename = entry.get("filename") if isinstance(entry, dict) else None
            if not isinstance(filename, str) or "/" in filename or not filename.isprintable():
                reason = "no list of files in the same folder"
                raise DataUnavailableError(f"{relative}/{STATE_FILE}", reason)
            name = f"{relative}/{filename}"
            yield ArrowPart(file_below(root, name), name, split)

    def _json_file(self, root: DataRoot, relative: str, filename: str) -> Path:
        path = file_below(root, f"{relative}/{filename}")
        self._json_files.append(path)
        return path

    def _common_columns(self, wanted: Sequence[Column]) -> tuple[Column, ...]:
        """All parts must have the same columns, because one row after another is compared."""
        found: tuple[Column, ...] | None = None
        for part in self._parts:
            schema = _schema(part)
            columns = present_columns(wanted, [str(name) for name in schema.names], part.name)
            refuse_types(schema, columns, part.name)
            if found is not None and columns != found:
                raise DataUnavailableError(part.name, "other columns than the file before it")
            found = columns
        stated = (_STATED,) if any(part.split for part in self._parts) else ()
        return (*(found or ()), *stated)


def _refuse_other_folders(folder: Path, relative: str) -> None:
    if (folder / STATE_FILE).exists() or (folder / DICT_FILE).exists():
        return
    for name, what in _OTHER_FOLDERS:
        if (folder / name).exists():
            reason = (
                f"{what}, where a folder of save_to_disk is expected: write it with"
                " `datasets.load_dataset(...).save_to_disk(...)`, or name one of its files with"
                " format parquet, csv or jsonl"
            )
            raise DataUnavailableError(relative, reason)


_STATED = Column("split", "split", is_needed=False)


def _without_split(wanted: Sequence[Column], relative: str) -> tuple[Column, ...]:
    if any(column.field == "split" and column.is_needed for column in wanted):
        raise DataUnavailableError(relative, "a split stated by folders and by a column")
    return tuple(column for column in wanted if column.field != "split")


def _with_split(rows: Rows, split: str) -> Rows:
    for row in rows:
        yield (row[0], (*row[1], split)) if isinstance(row, tuple) else row


def _json(path: Path, relative: str) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    try:
        value = json.loads(data) if len(data) <= _MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataUnavailableError(f"{relative}/{path.name}", "not a JSON object")
    return value


def _schema(part: ArrowPart) -> Any:
    with pa.memory_map(str(part.path)) as source, pa.ipc.open_stream(source) as reader:
        return reader.schema


def _batches(part: ArrowPart, names: Sequence[str]) -> Iterator[Any]:
    """Batches with only the columns `names`, as they stand in the file: not yet validated."""
    positions = [position for position, name in enumerate(_schema(part).names) if name in names]
    options = pa.ipc.IpcReadOptions(included_fields=positions, use_threads=False)
    with (
        pa.memory_map(str(part.path)) as source,
        pa.ipc.open_stream(source, options=options) as reader,
    ):
        yield from reader


def _validated(batch: Any) -> Any:
    """`batch`, once its offsets and indices are known to stay inside its buffers.

    Text is validated as bytes: a cell that is not UTF-8 concerns its row alone.
    """
    for array in batch.columns:
        if pa.types.is_string(array.type):
            array = array.view(pa.binary())
        elif pa.types.is_large_string(array.type):
            array = array.view(pa.large_binary())
        elif pa.types.is_string_view(array.type):
            array = array.view(pa.binary_view())
        array.validate(full=True)
    return batch
