"""Parquet: one file, row group by row group, in batches whose size the page headers decide.

Guaranteed in this order: the columns are there and their names are distinct; no page of them
expands beyond `MAX_PAGE_BYTES`; a batch holds about `BATCH_BYTES` of text, however the pages were
encoded. A column with a dictionary stays one until its cells have been measured, so that few
bytes cannot become many. Of a list of messages the average number in a row decides. A row cannot be
read in part, and how many values it holds is not known before: a row group may have
`MAX_LISTED_VALUES` beyond one a row, about 30 bytes each, so one row of that many costs a quarter
of a GiB and is then found too long. Where values of a list may repeat those before them at no cost,
as in the encoding DELTA_BYTE_ARRAY, all that they could be together has to fit into
`MAX_PAGE_BYTES`. Not bounded before it is read is the text of a single row of many messages where
plain pages follow a dictionary, which most writers do: each may be the longest of the dictionary.
That needs a file that was made for it. Checksums of pages are verified where the file has them.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_contracts.dataset.sources.arrow_rows import arrow_rows, refuse_types
from data_contracts.dataset.sources.columns import Column, present_columns
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.dataset.sources.example_maker import Rows
from data_contracts.dataset.sources.parquet_footer import (
    FooterRefusedError,
    RowGroup,
    row_groups_of,
)
from data_contracts.dataset.sources.parquet_pages import (
    MAX_PAGE_BYTES,
    PageRefusedError,
    PageSizes,
    page_sizes,
)

BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_ROWS = 4096
MAX_LISTED_VALUES = 8 * 1024 * 1024
"""Values of lists in a row group beyond one for each row, all of which one row may hold."""
_METADATA_BYTES = 64 * 1024 * 1024
_READ_BUFFER_BYTES = 1024 * 1024
_INDEX_BYTES = 64
"""Assumed for cells of a dictionary: an index and what measuring it takes."""

_LONGEST_OF_DICTIONARY = 32
"""Where plain pages follow a dictionary, it cannot be kept, and its cells are copied: for them one
in so many bytes of the dictionary is assumed, so that a hostile one costs 32 * BATCH_BYTES."""


class ParquetTable:
    """The rows of one file; `columns` are those of the wanted columns that it has."""

    def __init__(self, path: Path, wanted: Sequence[Column], name: str) -> None:
        self._path = path
        self._name = name
        with self._refusals():
            self._groups = row_groups_of(path)
        with _opened(path) as file:
            self._metadata = file.metadata
            schema = file.schema_arrow
        self.columns = present_columns(wanted, schema.names, name)
        refuse_types(schema, self.columns, name)
        self._names = list(dict.fromkeys(column.name for column in self.columns))

    def count_rows(self) -> int:
        """Rows, as the file's metadata has them."""
        return sum(group.rows for group in self._groups)

    def rows(self) -> Rows:
        """Values of `columns` in every row, in order."""
        first_row = 1
        for position, group in enumerate(self._groups):
            if group.rows == 0:
                continue
            sizes = self._page_sizes(group)
            with _opened(self._path, self._metadata, _with_dictionary(sizes)) as file:
                for batch in file.iter_batches(
                    batch_size=_batch_rows(sizes.values(), group.rows),
                    row_groups=[position],
                    columns=self._names,
                    use_threads=False,
                ):
                    yield from arrow_rows(batch, self.columns, first_row)
                    first_row += batch.num_rows

    def _page_sizes(self, group: RowGroup) -> dict[str, PageSizes]:
        sizes: dict[str, PageSizes] = {}
        with self._path.open("rb") as file:
            for name in self._names:
                with self._refusals(f"column {name}: "):
                    chunks = group.chunks_of(name)
                    if not chunks:
                        raise PageRefusedError("not in every row group")
                    for path, chunk in chunks.items():
                        sizes[path] = page_sizes(file, chunk.start, chunk.length)
                        _refuse_too_many(sizes[path], group.rows, is_list=path != name)
        return sizes

    @contextmanager
    def _refusals(self, place: str = "") -> Iterator[None]:
        try:
            yield
            return
        except (PageRefusedError, FooterRefusedError) as refused:
            reason = f"{place}{refused}"
        raise DataUnavailableError(self._name, reason)


def _opened(path: Path, metadata: Any = None, dictionaries: Sequence[str] = ()) -> Any:
    return pq.ParquetFile(
        path,
        metadata=metadata,
        read_dictionary=list(dictionaries),
        buffer_size=_READ_BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
        thrift_string_size_limit=_METADATA_BYTES,
        thrift_container_size_limit=_METADATA_BYTES // 64,
    )


def _refuse_too_many(size: PageSizes, rows: int, *, is_list: bool) -> None:
    in_one_row = size.values - rows + 1
    if in_one_row > MAX_LISTED_VALUES:
        raise PageRefusedError(
            f"a row group with more than {MAX_LISTED_VALUES:,} values in lists beyond one a row; "
            "write it with smaller row groups"
        )
    if is_list and size.repeats_values and size.largest * in_one_row > MAX_PAGE_BYTES:
        raise PageRefusedError(
            "lists whose values may repeat those before them (DELTA_BYTE_ARRAY), and may be more "
            f"than {MAX_PAGE_BYTES:,} bytes in one row; write it with another encoding"
        )


def _with_dictionary(sizes: dict[str, PageSizes]) -> list[str]:
    return [name for name, size in sizes.items() if size.is_all_dictionary]


def _batch_rows(sizes: Iterable[PageSizes], rows: int) -> int:
    row_bytes = 1.0 + sum(_value_bytes(size) * max(1.0, size.values / rows) for size in sizes)
    return max(1, min(MAX_BATCH_ROWS, int(BATCH_BYTES / row_bytes)))


def _value_bytes(size: PageSizes) -> float:
    """What a cell may take when it is read, for the batch to be made small enough."""
    if size.repeats_values:
        return size.largest
    if size.is_all_dictionary:
        return max(size.per_value, _INDEX_BYTES)
    return max(size.per_value, size.dictionary / _LONGEST_OF_DICTIONARY)
