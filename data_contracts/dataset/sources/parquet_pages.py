"""How far the pages of a Parquet file expand, read from the page headers before any page is.

The file's own metadata may lie about sizes, but a reader allocates what a page header says, so
the headers are walked (PageHeader of parquet-format, parquet.thrift). A page that would expand to
more than `MAX_PAGE_BYTES` makes the file unusable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from data_contracts.dataset.sources.thrift_compact import (
    CompactReader,
    Struct,
    ThriftRefusedError,
    Wanted,
)

MAX_PAGE_BYTES = 256 * 1024 * 1024
_HEADER_BYTES = 4096
_MAX_HEADER_BYTES = 4 * 1024 * 1024

_UNCOMPRESSED_SIZE, _COMPRESSED_SIZE = 2, 3
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 5, 7, 8
_HEADER: Wanted = {
    _UNCOMPRESSED_SIZE: {},
    _COMPRESSED_SIZE: {},
    _DATA_PAGE: {1: {}, 2: {}},
    _DICTIONARY_PAGE: {},
    _DATA_PAGE_V2: {1: {}, 4: {}},
}
_INDEX_ENCODINGS = frozenset({2, 8})
_DELTA_BYTE_ARRAY = 7


class PageRefusedError(Exception):
    """Why the pages of a file are not read; quotes nothing from the data."""


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Sizes in bytes when expanded: `per_value` is the highest average of a data page.

    `dictionary` is 0 where there is none; `encodings` are those of the data pages, and `values` how
    many there are in all of them.
    """

    largest: int
    per_value: float
    dictionary: int
    encodings: frozenset[int]
    values: int

    @property
    def is_all_dictionary(self) -> bool:
        """Whether every value is an index into the dictionary."""
        return self.dictionary > 0 and self.encodings <= _INDEX_ENCODINGS

    @property
    def repeats_values(self) -> bool:
        """Whether a value may repeat all of the one before it at no cost."""
        return _DELTA_BYTE_ARRAY in self.encodings


def page_sizes(file: BinaryIO, start: int, length: int) -> PageSizes:
    """Sizes of the pages of one column chunk; raises PageRefusedError."""
    largest, per_value, dictionary, count = 0, 0.0, 0, 0
    encodings: set[int] = set()
    for header in _headers(file, start, start + length):
        size = _size(header, _UNCOMPRESSED_SIZE)
        if size > MAX_PAGE_BYTES:
            raise PageRefusedError(f"a page that expands to more than {MAX_PAGE_BYTES} bytes")
        largest = max(largest, size)
        if _DICTIONARY_PAGE in header:
            dictionary = max(dictionary, size, 1)
            continue
        values, encoding = _data_page(header)
        encodings.add(encoding)
        count += values
        per_value = max(per_value, size / max(values, 1))
    return PageSizes(largest, per_value, dictionary, frozenset(encodings), count)


def _data_page(header: Struct) -> tuple[int, int]:
    """Number of values and encoding, which is field 2 of a data page, and 4 of version 2."""
    for kind, encoding_field in ((_DATA_PAGE, 2), (_DATA_PAGE_V2, 4)):
        details = header.get(kind)
        if isinstance(details, dict):
            return _size(details, 1), _size(details, encoding_field)
    raise PageRefusedError("a page of an unknown kind")


def _headers(file: BinaryIO, position: int, end: int) -> Iterator[Struct]:
    while position < end:
        header, header_size = _header(file, position, end)
        yield header
        position += header_size + _size(header, _COMPRESSED_SIZE)
    if position != end:
        raise PageRefusedError("a page that does not end where its column does")


def _header(file: BinaryIO, position: int, end: int) -> tuple[Struct, int]:
    wanted = _HEADER_BYTES
    while True:
        file.seek(position)
        data = file.read(min(wanted, end - position))
        reader = CompactReader(data)
        try:
            return reader.struct(_HEADER), reader.position
        except ThriftRefusedError:
            break
        except IndexError:
            if len(data) < wanted or wanted >= _MAX_HEADER_BYTES:
                break
            wanted *= 16
    raise PageRefusedError("a damaged page header")


def _size(header: Struct, field: int) -> int:
    size = header.get(field)
    if not isinstance(size, int) or size < 0:
        raise PageRefusedError("a damaged page header")
    return size
