"""Reading a data set, whatever its format.

`read_source` goes: find the files below the data root, open them, look up the columns, then one
row after another. A row that is wrong is an `UnreadableRow`; a set that is wrong, or whose rest
cannot be read, raises `DataUnavailableError`. No other exception leaves this module, and none
carries a value of the data: what a library raises is replaced, not wrapped. An empty set has no
rows and raises nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.sources.columns import Column, columns_of
from data_contracts.dataset.sources.csv_file import CsvFile
from data_contracts.dataset.sources.data_source import (
    DataSource,
    DataUnavailableError,
    SourceFormat,
)
from data_contracts.dataset.sources.example_maker import ExampleMaker, Rows
from data_contracts.dataset.sources.image_text import files_beside, metadata_of, stated_beside
from data_contracts.dataset.sources.jsonl import JsonlFile
from data_contracts.dataset.sources.places import (
    DataRoot,
    data_root,
    described_fault,
    file_below,
    folder_below,
)
from data_contracts.licences.stated_of_pictures import NOTHING_STATED, StatedOfPictures


class _Table(Protocol):
    """What every format offers; `count_rows` may be an estimate."""

    columns: tuple[Column, ...]

    def count_rows(self) -> int: ...

    def rows(self) -> Rows: ...


def read_source(
    source: DataSource, root: Path | DataRoot, connection: str | None = None
) -> Iterator[Example | UnreadableRow]:
    """Every row in order, as a stream: memory does not depend on the number of rows.

    `connection` is the database URL of the silo's configuration (sql only). Raises
    DataUnavailableError, before the first row or after some.
    """
    name = _name(source)
    row = 0
    examples = _examples(source, data_root(root), connection)
    while True:
        try:
            example = next(examples)
        except StopIteration:
            return
        except Exception as error:  # a library's exception of any class may quote a value
            fault = described_fault(error, name)
            break
        row = example.row
        yield example
    raise DataUnavailableError(*fault, row=row + 1 if row else None)


def source_files(source: DataSource, root: Path | DataRoot) -> tuple[Path, ...]:
    """Every file whose bytes decide the content: resolved, inside the data root, sorted.

    For image-text that is the metadata, the images of readable rows and what beside them may say
    their licence; for sql there is none.
    Raises DataUnavailableError.
    """
    if source.format == "sql":
        return ()
    try:
        return tuple(sorted(set(_files(source, data_root(root)))))
    except Exception as error:  # as in read_source
        fault = described_fault(error, _name(source))
    raise DataUnavailableError(*fault)


def count_hint(
    source: DataSource, root: Path | DataRoot, connection: str | None = None
) -> int | None:
    """About how many rows there are, for an estimate of the time left; None when unknown.

    Exact for parquet, huggingface and sql; from the average length of a line for jsonl and csv.
    """
    try:
        return _table(source, data_root(root), connection)[0].count_rows()
    except Exception:  # the reader of the rows says what is wrong
        return None


def stated_licence(source: DataSource, root: Path | DataRoot) -> StatedOfPictures:
    """What lies beside a set of pictures and says under which licence they are; raises
    DataUnavailableError."""
    if source.format != "image-text":
        return NOTHING_STATED
    try:
        return stated_beside(data_root(root), source.path)
    except Exception as error:  # as in read_source
        fault = described_fault(error, _name(source))
    raise DataUnavailableError(*fault)


def _examples(
    source: DataSource, root: DataRoot, connection: str | None
) -> Iterator[Example | UnreadableRow]:
    table, file_format = _table(source, root, connection)
    is_image_text = source.format == "image-text"
    below = folder_below(root, source.path) if is_image_text else None
    folder = None if below is None else DataRoot(below, root.hard_links)
    yield from ExampleMaker(source, table.columns, file_format, folder).examples(table.rows())


def _table(
    source: DataSource, root: DataRoot, connection: str | None
) -> tuple[_Table, SourceFormat]:
    wanted = columns_of(source)
    if source.format == "sql":
        # Each library is imported when a set needs it: they take a good part of a second.
        from data_contracts.dataset.sources.sql import SqlTable

        return SqlTable(_name(source), wanted, source.order_by, connection), source.format
    if source.format == "huggingface":
        from data_contracts.dataset.sources.huggingface import HuggingFaceFolder

        return HuggingFaceFolder(root, source.path, wanted), source.format
    if source.format == "image-text":
        name, file_format = metadata_of(root, source.path)
        return _file_table(file_format, root, name, wanted), file_format
    return _file_table(source.format, root, source.path, wanted), source.format


def _file_table(
    file_format: SourceFormat, root: DataRoot, name: str, wanted: tuple[Column, ...]
) -> _Table:
    path = file_below(root, name)
    if file_format == "parquet":
        from data_contracts.dataset.sources.parquet import ParquetTable

        return ParquetTable(path, wanted, name)
    text_file = CsvFile if file_format == "csv" else JsonlFile
    return text_file(path, wanted, name)


def _files(source: DataSource, root: DataRoot) -> Iterator[Path]:
    if source.format == "huggingface":
        from data_contracts.dataset.sources.huggingface import HuggingFaceFolder

        yield from HuggingFaceFolder(root, source.path, columns_of(source)).files
    elif source.format == "image-text":
        yield file_below(root, metadata_of(root, source.path)[0])
        yield from files_beside(root, source.path)
        for example in read_source(source, root):
            if isinstance(example, Example) and example.image is not None:
                yield example.image
    else:
        yield file_below(root, source.path)


def _name(source: DataSource) -> str:
    return source.path if source.table is None else source.table
