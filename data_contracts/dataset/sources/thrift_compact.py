"""Thrift's compact protocol (Apache Thrift, doc/specs/thrift-compact-protocol.md), read only.

Only the fields that are asked for are kept; the rest is stepped over. Every value takes at least
one byte, and nesting is limited, so that reading ends within the data whatever it claims.
"""

from collections.abc import Mapping

MAX_NESTING = 12
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST = range(1, 10)
_STRUCT = 12

Wanted = Mapping[int, "Wanted"]
"""Ids of the fields to keep, each with those to keep inside of it."""

Struct = dict[int, "int | bytes | list[object] | Struct"]


class ThriftRefusedError(Exception):
    """The data is not what the protocol allows, or ends too early."""


class CompactReader:
    """Reads one struct after another; raises ThriftRefusedError, or IndexError past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, wanted: Wanted, depth: int = 0) -> Struct:
        """The next struct; booleans and floating point numbers are never kept."""
        if depth > MAX_NESTING:
            raise ThriftRefusedError
        fields: Struct = {}
        field = 0
        while head := self._byte():
            kind, step = head & 0x0F, head >> 4
            field = field + step if step else self._zigzag()
            value = self._value(kind, wanted.get(field), depth)
            if value is not None:
                fields[field] = value
        return fields

    def _value(
        self, kind: int, wanted: Wanted | None, depth: int
    ) -> int | bytes | list[object] | Struct | None:
        """The next value, or None when it is not wanted."""
        if kind in (_I16, _I32, _I64):
            number = self._zigzag()
            return None if wanted is None else number
        if kind == _BINARY:
            data = self._skip(self._varint())
            return None if wanted is None else data
        if kind == _STRUCT:
            struct = self.struct(wanted or {}, depth + 1)
            return None if wanted is None else struct
        if kind == _LIST:
            return self._list(wanted, depth)
        if kind in (_BYTE, _DOUBLE):
            self._skip(1 if kind == _BYTE else 8)
        elif kind not in (_TRUE, _FALSE):
            # Neither file metadata nor page headers of Parquet hold sets or maps.
            raise ThriftRefusedError
        return None

    def _list(self, wanted: Wanted | None, depth: int) -> list[object] | None:
        head = self._byte()
        kind, count = head & 0x0F, head >> 4
        count = self._varint() if count == 15 else count
        # Inside a list a boolean is a byte of its own.
        kind = _BYTE if kind in (_TRUE, _FALSE) else kind
        members: list[object] = []
        for _ in range(count):
            member = self._value(kind, wanted, depth + 1)
            if wanted is not None:
                members.append(member)
        return None if wanted is None else members

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise ThriftRefusedError

    def _byte(self) -> int:
        byte = self._data[self.position]
        self.position += 1
        return byte

    def _skip(self, count: int) -> bytes:
        start = self.position
        self.position += count
        if self.position > len(self._data):
            raise IndexError
        return self._data[start : self.position]
