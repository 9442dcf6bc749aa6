"""The training and data mining assertion of Content Credentials (C2PA), in a picture's JUMBF box.

CAWG Training and Data Mining Assertion 1.1 (`cawg.training-mining`), and before it C2PA 1.4
(`c2pa.training-mining`): a map of uses, each `allowed`, `notAllowed` or `constrained`, where
`constrained` is to be taken as `notAllowed` unless one asks. The box may hold several manifests, of
the picture and of what it was made from; each counts. Signatures are not checked: whoever states an
opt-out needs no certificate here. What cannot be read of an assertion may be an opt-out.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from data_contracts.dataset.pictures.cbor import CborRefusedError, cbor_value
from data_contracts.protocol.strict_json import distinct_names

_LABELS = ("cawg.training-mining", "c2pa.training-mining")
_TRAINING = ("ai_training", "ai_generative_training", "data_mining")
_AGAINST = ("notAllowed", "constrained")
MAX_DEPTH, MAX_BOXES = 12, 10_000


class _Box(NamedTuple):
    kind: bytes
    body: memoryview


def stated_in_jumbf(data: bytes) -> Iterator[str]:
    """What the assertions in a box speak against training, each as a fixed phrase."""
    left = [MAX_BOXES]
    for label, boxes in _assertions(memoryview(data), MAX_DEPTH, left):
        yield from _of_assertion(label, boxes)
    if left[0] <= 0 and any(label.encode() in data for label in _LABELS):
        yield f"C2PA training-mining {_UNREADABLE}"


_UNREADABLE = "that cannot be read"


def _assertions(
    data: memoryview, depth: int, left: list[int]
) -> Iterator[tuple[str, tuple[_Box, ...]]]:
    """Label and content of every assertion about training among the boxes of `data`."""
    for box in _boxes(data, left):
        if box.kind != b"jumb":
            continue
        inside = tuple(_boxes(box.body, left))
        stated = _label(inside[0].body) if inside and inside[0].kind == b"jumd" else ""
        label = next((known for known in _LABELS if stated.startswith(known)), None)
        if label is not None:
            yield label, inside[1:]
        elif depth > 0:
            yield from _assertions(box.body, depth - 1, left)
        else:
            left[0] = 0


def _boxes(data: memoryview, left: list[int]) -> Iterator[_Box]:
    """ISO boxes: four bytes of length, four of type; length 1 has eight more, 0 is the rest."""
    place = 0
    while place + 8 <= len(data) and left[0] > 0:
        left[0] -= 1
        size, head = int.from_bytes(data[place : place + 4]), 8
        kind = bytes(data[place + 4 : place + 8])
        if size == 1:
            size, head = int.from_bytes(data[place + 8 : place + 16]), 16
        size = size or len(data) - place
        if size < head:
            return
        yield _Box(kind, data[place + head : place + size])
        place += size


def _label(description: memoryview) -> str:
    """Sixteen bytes of a type, one of flags, then the label up to a NUL, where flags say so."""
    if len(description) < 17 or not description[16] & 2:
        return ""
    return bytes(description[17:]).partition(b"\0")[0].decode("utf-8", "replace")


def _of_assertion(label: str, boxes: tuple[_Box, ...]) -> Iterator[str]:
    is_read = False
    for box in boxes:
        if box.kind not in (b"cbor", b"json"):
            continue
        entries = _entries(box)
        if entries is None:
            break
        is_read = True
        for name, entry in entries.items():
            use = entry.get("use") if isinstance(entry, dict) else None
            known = next((each for each in _TRAINING if str(name).endswith(f".{each}")), None)
            if known is not None and use != "allowed":
                yield f"C2PA {label} {known} {use if use in _AGAINST else _UNREADABLE}"
    if not is_read:
        yield f"C2PA {label} {_UNREADABLE}"


def _entries(box: _Box) -> dict[Any, Any] | None:
    """The map of uses, which some writers have left out around it."""
    try:
        data = bytes(box.body)
        value = (
            cbor_value(data)
            if box.kind == b"cbor"
            else json.loads(data, object_pairs_hook=distinct_names)
        )
    except (CborRefusedError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    entries = value.get("entries", value)
    return entries if isinstance(entries, dict) else None
