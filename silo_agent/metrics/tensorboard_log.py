"""Scalars for TensorBoard: a folder of event files for each attempt of a round.

Written here, because what writes them elsewhere comes with PyTorch, TensorFlow or protocol buffers,
and is a few lines: an event file is TFRecords (length, its checksum, data, its checksum) of `Event`
messages. Sources: tensorflow/core/lib/io/record_writer.cc and tensorflow/core/util/event.proto.
"""

import errno
import os
import struct
import time
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

from silo_agent.metrics.readings import Moment

FILE_VERSION = b"brain.Event:2"


class TensorBoardLog:
    """Appends to `folder/<run>/round-NNNN-attempt-N/`; the steps of a chart are those of its part.

    A new file for each start of the agent, as TensorBoard expects of a writer that comes back.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place: Path | None = None
        self._file: FileIO | None = None

    def write(self, moments: Sequence[Moment]) -> None:
        """Raises OSError when the folder cannot be written; then the next moment begins a file, as
        nothing is read of one after half a record."""
        try:
            for moment in moments:
                _append(self._file_of(moment), _event(moment))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = self._place = None

    def _file_of(self, moment: Moment) -> FileIO:
        attempt = f"round-{moment.round:04d}-attempt-{moment.attempt}"
        place = self._folder / moment.run / attempt
        if self._file is None or place != self._place:
            self.close()
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self._folder, place.parent, place):
                folder.mkdir(exist_ok=True, mode=0o700)
            name = f"events.out.tfevents.{time.time():.6f}.silo-agent.{os.getpid()}"
            self._file, self._place = FileIO(place / name, "x"), place
            _append(self._file, _double(1, time.time()) + _bytes(3, FILE_VERSION))
        return self._file


def _event(moment: Moment) -> bytes:
    """`Event`: wall_time = 1, step = 2, summary = 5; its values = 1 have tag = 1 and float = 2."""
    values = (
        _bytes(1, _bytes(1, name.encode()) + _float(2, value))
        for name, value in moment.measured.items()
    )
    step = b"\x10" + _varint(moment.step)
    return _double(1, moment.at.timestamp()) + step + _bytes(5, b"".join(values))


def _append(file: FileIO, data: bytes) -> None:
    """A TFRecord, in one write that no buffer holds back."""
    length = struct.pack("<Q", len(data))
    record = length + _checksum(length) + data + _checksum(data)
    if file.write(record) != len(record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as TFRecord has it, so that a checksum of checksums is no weak one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_table() -> Iterator[int]:
    """Of the Castagnoli polynomial, reflected (RFC 3720, B.4)."""
    for entry in range(256):
        for _ in range(8):
            entry = (entry >> 1) ^ (0x82F63B78 if entry & 1 else 0)
        yield entry


_CRC_TABLE = tuple(_crc_table())


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _bytes(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return bytes([field << 3 | 5]) + struct.pack("<f", value)
