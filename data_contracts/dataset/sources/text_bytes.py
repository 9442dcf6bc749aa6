"""Lines of text in a file: as they stand, behind a byte order mark, or compressed with gzip.

What is plainly another kind of file is refused with its name, once, instead of row by row. Memory
does not depend on how far a file expands: whoever reads asks for a bounded number of bytes.
"""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from data_contracts.dataset.sources.data_source import DataUnavailableError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (b"BZh", "a file compressed with bzip2"),
    (b"\xfd7zXZ\x00", "a file compressed with xz"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file"),
    (b"%PDF-", "a PDF file"),
)
_SAMPLE_BYTES = 1024 * 1024


@contextmanager
def opened_text(path: Path, name: str) -> Iterator[BinaryIO]:
    """The bytes of the text behind a byte order mark; raises DataUnavailableError or OSError."""
    with path.open("rb") as raw:
        begin = raw.read(16)
        raw.seek(0)
        file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if begin.startswith(_GZIP) else raw
        if file is not raw:
            begin = file.read(16)
            file.seek(0)
        for magic, what in _OTHERS:
            if begin.startswith(magic):
                reason = f"{what}, where UTF-8 text is expected, as it is or compressed with gzip"
                raise DataUnavailableError(name, reason)
        if begin.startswith(BYTE_ORDER_MARK):
            file.read(len(BYTE_ORDER_MARK))
        yield file


def estimated_lines(path: Path, name: str) -> int:
    """Lines of a file, exact up to `_SAMPLE_BYTES` and from the average length beyond them."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        is_compressed = raw.read(2) == _GZIP
    with opened_text(path, name) as file:
        sample = file.read(_SAMPLE_BYTES)
        is_whole = len(sample) < _SAMPLE_BYTES or not file.read(1)
        read = cast("gzip.GzipFile", file).fileobj.tell() if is_compressed else len(sample)  # type: ignore[union-attr]
    lines = sample.count(b"\n") + (not sample.endswith(b"\n") and bool(sample))
    return lines if is_whole else max(lines, lines * size // max(read, 1))
