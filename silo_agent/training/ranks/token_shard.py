"""A file with the tokens of every conversation of a records file, which is mapped and never read
as a whole.

Its layout, little-endian: a header (what it is, the key that it was made for, the SHA-256 of its
index, how many conversations and tokens it holds); the tokens of all conversations one after the
other, four bytes each, of which the highest bit says that the token carries loss; the index, which
tells of each conversation where its tokens end, their CRC-32, and its flags. It holds no pickle.
Conversations are those of the records in their order; of some records there are several.

A file is whole or absent. Header, length and index are checked when it is opened, the tokens of a
conversation when they are used.
"""

import hashlib
import struct
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import SiloOperatorError
from infra.disk.durable_files import private_file
from silo_agent.training.ranks.conversation import IGNORED, Conversation, Refusal

_HEADER = struct.Struct("<8s32s32sQQ8x")
_MAGIC = b"tokens 1"
_INDEX = np.dtype([("end", "<u8"), ("crc", "<u4"), ("flags", "u1")])
_WORD = np.dtype("<u4")
_COUNTS = 1 << 31
SPELLS, UNTOLD, CONTINUES, APART = 1, 2, 4, 8
REFUSALS: dict[Refusal, int] = {"template": 16, "border": 32, "length": 64}
"""Flags of a conversation: its texts spell control tokens, which were taken as text; nothing of it
can be learned; it is of the record of the one before it; it is one answer of several, told apart;
and why it was refused."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """How conversations fit into a number of tokens; an array of one value for each of them.

    `sizes` in tokens, after those that are too long were cut (`is_cut`). Not `is_usable` is what
    has no token with loss then, or no tokens at all. `flags` as above.
    """

    sizes: Places
    is_usable: NDArray[np.bool_]
    is_cut: NDArray[np.bool_]
    flags: NDArray[np.uint8]


class TokenShard:
    """An open one; `records` is the file that it was made of."""

    def __init__(self, path: Path, records: Path, mapped: NDArray[np.uint8], tokens: int) -> None:
        self.path, self.records = path, records
        border = _HEADER.size + tokens * _WORD.itemsize
        self._words = mapped[_HEADER.size : border].view(_WORD)
        self._index = mapped[border:].view(_INDEX)

    def __len__(self) -> int:
        return len(self._index)

    def fit(self, places: Places, room: int) -> Fit:
        """How the conversations at `places`, counted from 0, fit into `room` tokens."""
        index = self._index[places]
        ends, starts = index["end"].astype(np.int64), self._starts(places)
        sizes = np.minimum(ends - starts, room)
        is_cut = ends - starts > room
        is_usable = (index["flags"] & UNTOLD) == 0
        # Whole ones have a token with loss. Only of others is a page with tokens touched, the last
        # before the cut first: where that has loss, as in most, the rest need not be asked.
        cut = np.flatnonzero(is_cut)
        counts = self._words[starts[cut] + room - 1] >= _COUNTS
        for place in np.flatnonzero(~counts):
            begin = starts[cut[place]]
            counts[place] = (self._words[begin : begin + room] >= _COUNTS).any()
        is_usable[cut] &= counts
        return Fit(sizes, is_usable, is_cut, index["flags"])

    def records_of(self, places: Places) -> Places:
        """The record that each conversation is of, counted from 0 as conversations are."""
        is_first = (self._index["flags"] & CONTINUES) == 0
        records: Places = np.cumsum(is_first)[places] - 1
        return records

    def in_file(self, place: int) -> int:
        """Where the conversation at a place is among all of the records file."""
        return place

    def cut(self, place: int, room: int) -> tuple[list[int], list[int]]:
        """Token ids and labels of one conversation, the first `room` at most.

        Raises SiloOperatorError, and removes the file, when they are not what was written.
        """
        start = int(self._starts(np.array([place]))[0])
        words = self._words[start : int(self._index["end"][place])]
        if zlib.crc32(words.tobytes()) != int(self._index["crc"][place]):
            self.path.unlink(missing_ok=True)
            raise SiloOperatorError(
                f"tokenised records {self.path}",
                expected="the tokens that were written",
                found=f"others in record {place + 1}; the file was removed",
                action="look into the disk's health and start the agent again, which writes it "
                "anew",
            )
        ids = (words[:room] & (_COUNTS - 1)).astype(np.int64)
        return ids.tolist(), np.where(words[:room] >= _COUNTS, ids, IGNORED).tolist()

    def _starts(self, places: Places) -> Places:
        """Each conversation begins where the one before it ends."""
        ends = self._index["end"][np.maximum(places - 1, 0)].astype(np.int64)
        starts: Places = np.where(places == 0, 0, ends)
        return starts


def open_shard(path: Path, key: bytes, records: Path) -> TokenShard | None:
    """None where there is no file, one of another key, or one that is not whole."""
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    if mapped.size < _HEADER.size:
        return None
    magic, of_key, of_index, count, tokens = _HEADER.unpack(mapped[: _HEADER.size].tobytes())
    border = _HEADER.size + tokens * _WORD.itemsize
    if (magic, of_key) != (_MAGIC, key) or mapped.size != border + count * _INDEX.itemsize:
        return None
    if hashlib.sha256(mapped[border:].data).digest() != of_index:
        return None
    return TokenShard(path, records, mapped, tokens)


def write_shard(path: Path, key: bytes, conversations: Iterable[Conversation | None]) -> None:
    """Write one, mode 0600; of the conversations only the index is held in memory.

    None stands for one that cannot be told to the model. Raises what `conversations` raises, and
    OSError where the disk refuses.
    """
    ends, crcs, flags = array("Q"), array("I"), array("B")
    total = 0
    with private_file(path) as file:
        file.write(bytes(_HEADER.size))
        for conversation in conversations:
            words = _words(conversation).tobytes()
            file.write(words)
            total += len(words) // _WORD.itemsize
            ends.append(total)
            crcs.append(zlib.crc32(words))
            flags.append(_flags(conversation))
        index = np.empty(len(ends), _INDEX)
        index["end"], index["crc"], index["flags"] = ends, crcs, flags
        packed = index.tobytes()
        file.write(packed)
        file.seek(0)
        of_index = hashlib.sha256(packed).digest()
        file.write(_HEADER.pack(_MAGIC, key, of_index, len(ends), total))


def _words(conversation: Conversation | None) -> NDArray[np.uint32]:
    if conversation is None:
        return np.empty(0, _WORD)
    ids = np.array(conversation.token_ids, _WORD)
    counts = np.array(conversation.labels, np.int64) != IGNORED
    words: NDArray[np.uint32] = ids | (counts.astype(_WORD) << 31)
    return words


def _flags(conversation: Conversation | None) -> int:
    if conversation is None:
        return UNTOLD
    of_record = CONTINUES * conversation.continues | APART * conversation.apart
    if not any(label != IGNORED for label in conversation.labels):
        refusal = REFUSALS[conversation.refused] if conversation.refused else 0
        return UNTOLD | of_record | refusal
    return of_record | SPELLS * conversation.spells_controls
