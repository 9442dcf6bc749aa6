"""The members of one JSON array, one after another, without holding the array.

A member that is no object, or too long, is an unreadable row. After one that is no JSON nobody
knows where the next begins, so there the reading ends with an error.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES
from data_contracts.protocol.strict_json import DuplicateNameError

_CHUNK = 64 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")
_TOO_LONG = f"longer than {MAX_EXAMPLE_BYTES} bytes"


class Bytes(Protocol):
    """What is read from."""

    def read(self, size: int, /) -> bytes: ...


class ArrayRefusedError(Exception):
    """Why reading ends; quotes nothing from the data."""


def array_members(file: Bytes, decoder: json.JSONDecoder) -> Iterator[dict[str, Any] | str]:
    """Each member that is an object, or why it is none; `file` stands before the array."""
    text = _Text(file)
    if text.next_sign() != "[":
        raise ArrayRefusedError("not a JSON array")
    sign = text.next_sign()
    while sign != "]":
        text.at -= len(sign)
        yield _member(text, decoder)
        sign = text.next_sign()
        if sign == ",":
            sign = text.next_sign()
        elif sign != "]":
            raise ArrayRefusedError("no comma or end behind a member of the JSON array")
    if text.next_sign():
        raise ArrayRefusedError("something behind the end of the JSON array")


def _member(text: "_Text", decoder: json.JSONDecoder) -> dict[str, Any] | str:
    while True:
        try:
            value, end = decoder.raw_decode(text.held, text.at)
        except DuplicateNameError:
            reason = "with a field twice"
        except json.JSONDecodeError:
            if text.left() <= 2 * MAX_EXAMPLE_BYTES and text.read_more():
                continue
            reason = f"not JSON, or {_TOO_LONG}"
        except (ValueError, RecursionError):
            reason = "not JSON"
        else:
            # A number may go on in what was not read yet.
            if end == len(text.held) and not isinstance(value, dict | list) and text.read_more():
                continue
            member, text.at = text.held[text.at : end], end
            if len(member.encode("utf-8", "surrogatepass")) > MAX_EXAMPLE_BYTES:
                return _TOO_LONG
            return value if isinstance(value, dict) else "not a JSON object"
        raise ArrayRefusedError(f"a member of the JSON array that is {reason}")


class _Text:
    """Characters of a file: those that are `held`, of which those before `at` are used up."""

    def __init__(self, file: Bytes) -> None:
        self.held, self.at = "", 0
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")()

    def left(self) -> int:
        """How many are held and not used up."""
        return len(self.held) - self.at

    def read_more(self) -> bool:
        """Hold more, as much again at least; False at the end."""
        data = self._file.read(max(_CHUNK, self.left()))
        try:
            more = self._decode.decode(data, final=not data)
        except UnicodeDecodeError:
            raise ArrayRefusedError("a JSON array that is not UTF-8") from None
        self.held, self.at = self.held[self.at :] + more, 0
        return bool(data)

    def next_sign(self) -> str:
        """Use up spaces and the character behind them, which is given; empty at the end."""
        while True:
            space = _SPACE.match(self.held, self.at)
            self.at = space.end() if space else self.at
            if self.left():
                self.at += 1
                return self.held[self.at - 1]
            if not self.read_more():
                return ""
