"""As much of CBOR (RFC 8949) as a small map of texts needs, from untrusted bytes."""

from collections.abc import Iterator
from typing import Any

MAX_BYTES, MAX_DEPTH = 64 * 1024, 16
_BREAK = object()


class CborRefusedError(Exception):
    """Bytes that are no CBOR, or more of it than is read."""


def cbor_value(data: bytes) -> Any:
    """The first value in `data`; bytes behind it are padding. Tags are dropped, floats are None."""
    if len(data) > MAX_BYTES:
        raise CborRefusedError
    return _Reader(data).value(MAX_DEPTH)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def value(self, depth: int) -> Any:
        """The value that begins here."""
        if depth == 0:
            raise CborRefusedError
        (first,) = self._take(1)
        major, info = first >> 5, first & 31
        if first == 0xFF:
            return _BREAK
        count = self._count(info, major)
        if major in (0, 1):
            return count if major == 0 else -1 - (count or 0)
        if major in (2, 3):
            data = b"".join(self._pieces(count, depth)) if count is None else self._take(count)
            return data.decode("utf-8", "replace") if major == 3 else data
        if major == 4:
            return list(self._members(count, depth))
        if major == 5:
            members = list(self._members(None if count is None else 2 * count, depth))
            if len(members) % 2 or any(isinstance(key, list | dict) for key in members[::2]):
                raise CborRefusedError
            return dict(zip(members[::2], members[1::2], strict=True))
        if major == 6:
            return self.value(depth - 1)
        return {20: False, 21: True}.get(info)

    def _count(self, info: int, major: int) -> int | None:
        """The number in the head; None for a length that is open."""
        if info < 24:
            return info
        if info <= 27:
            return int.from_bytes(self._take(1 << (info - 24)))
        if info == 31 and major in (2, 3, 4, 5):
            return None
        raise CborRefusedError

    def _members(self, count: int | None, depth: int) -> Iterator[Any]:
        while count is None or count > 0:
            member = self.value(depth - 1)
            if member is _BREAK:
                if count is None:
                    return
                raise CborRefusedError
            yield member
            count = None if count is None else count - 1

    def _pieces(self, count: int | None, depth: int) -> Iterator[bytes]:
        for piece in self._members(count, depth):
            if not isinstance(piece, str | bytes):
                raise CborRefusedError
            yield piece.encode() if isinstance(piece, str) else piece

    def _take(self, size: int) -> bytes:
        taken = self._data[self._place : self._place + size]
        if len(taken) < size:
            raise CborRefusedError
        self._place += size
        return taken
