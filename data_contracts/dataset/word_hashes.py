"""Words of many texts as 64-bit hashes: what every comparison of texts here starts from.

Normalisation (`NORMALISER_VERSION`), in this order: default-ignorable code points are removed (soft
hyphen, zero-width characters, variation selectors), then NFKC, casefold, and NFKC again, as in the
Unicode Standard's compatibility caseless matching (D146, D147). A word is a maximal run of ASCII
letters and digits and of non-ASCII letters, digits and combining marks; everything else separates,
so an apostrophe splits a word whether it is straight or curly. A text in a script without spaces
is split at punctuation only, and so has few, long words.

Guaranteed: equal words have equal hashes wherever they stand; no word spans two texts; words of up
to 8 bytes of UTF-8 never collide. The hash is public: it keeps nothing secret and resists nobody
who looks for collisions.

ASCII texts cost no Python step per word: one table look-up per byte, one gather per 8 bytes of
word.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NORMALISER_VERSION = "nfkc-casefold-words-1"

LANE_BYTES = 8
MAX_LANES = 8
"""Words of more bytes than 8 lanes are hashed one by one, with BLAKE2b."""

_SEPARATOR = b"\n"
_MULTIPLIER = 0x9E3779B97F4A7C15
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]+"
)
_LAST_MARK = 0x20000
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00a0"
"""Separators of otherwise ASCII text; taken out first, they spare most texts the slow path."""


def _byte_table() -> bytes:
    """What each byte of UTF-8 becomes: itself in lower case in a word, 0 between words."""
    return bytes(
        byte if byte >= 0x80 else ord(chr(byte).lower()) if chr(byte).isalnum() else 0
        for byte in range(256)
    )


_TABLE = _byte_table()
_LANE_MASKS = np.array([(1 << (8 * count)) - 1 for count in range(9)], dtype=np.uint64)


@dataclass(frozen=True)
class WordHashes:
    """Hashes of all words of all texts.

    `values` is uint64, one per word, text after text; the words of text i are
    `values[offsets[i]:offsets[i + 1]]`. `offsets` is int64 with one entry more than texts.
    """

    values: NDArray[np.uint64]
    offsets: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of words of each text."""
        counts: NDArray[np.int64] = np.diff(self.offsets)
        return counts

    def windows(self, size: int, stride: int = 1) -> NDArray[np.int64]:
        """First word (an index into `values`) of each run of `size` words that lies in one text.

        Ascending; in each text every `stride`-th run, beginning with its first word.
        """
        counts = np.maximum((self.counts - size) // stride + 1, 0)
        ends = np.cumsum(counts)
        shift = self.offsets[:-1] - stride * (ends - counts)
        steps = np.arange(0, stride * int(counts.sum()), stride, dtype=np.int64)
        windows: NDArray[np.int64] = steps + np.repeat(shift, counts)
        return windows


def text_of(positions: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The text in which each word lies, by its place among all and the offsets of WordHashes."""
    return np.searchsorted(offsets, positions, side="right").astype(np.int64) - 1


def hash_words(texts: Sequence[str]) -> WordHashes:
    """Normalise, split and hash every text, in order. An empty text has no words."""
    pieces = [_normalised_bytes(text) for text in texts]
    lengths = np.fromiter((len(piece) + 1 for piece in pieces), dtype=np.int64, count=len(pieces))
    text_starts = np.concatenate(([1], 1 + np.cumsum(lengths)))
    # A separator stands before the first text, so that every word has an edge on both sides.
    data = b"".join((_SEPARATOR, _SEPARATOR.join(pieces), bytes(1 + LANE_BYTES)))
    data = data.translate(_TABLE)
    is_word = np.frombuffer(data, dtype=np.uint8) != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    offsets = np.searchsorted(starts, text_starts).astype(np.int64)
    return WordHashes(_hashes(data, starts, ends - starts), offsets)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's bijective finaliser (Steele, Lea and Flood 2014), in a new array."""
    values = values.copy()
    values ^= values >> 30
    values *= 0xBF58476D1CE4E5B9
    values ^= values >> 27
    values *= 0x94D049BB133111EB
    values ^= values >> 31
    return values


def _normalised_bytes(text: str) -> bytes:
    """UTF-8 in which every non-ASCII character belongs to a word; the byte table does the rest."""
    if not text.isascii():
        for separator in _TYPOGRAPHIC:
            text = text.replace(separator, " ")
    if text.isascii():
        return text.encode("ascii")
    folded = unicodedata.normalize("NFKC", _IGNORABLE.sub("", text)).casefold()
    return _separators().sub(" ", unicodedata.normalize("NFKC", folded)).encode("utf-8")


@lru_cache(maxsize=1)
def _separators() -> re.Pattern[str]:
    r"""Runs of non-ASCII characters outside words; \w has letters and digits but not marks."""
    points = (chr(point) for point in range(0x80, _LAST_MARK))
    marks = "".join(point for point in points if unicodedata.category(point)[0] == "M")
    return re.compile(rf"[^\x00-\x7f\w{marks}]+")


def _hashes(
    data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint64]:
    lanes = np.ndarray(
        shape=(len(data) - LANE_BYTES + 1,), dtype="<u8", buffer=data, strides=(1,)
    )  # every 8 bytes, at every offset
    hashes = mixed(lanes[starts] & _LANE_MASKS[np.minimum(lengths, LANE_BYTES)])
    for longer, lane in _further_lanes(lengths):
        begin = starts[longer] + lane * LANE_BYTES
        left = np.minimum(lengths[longer] - lane * LANE_BYTES, LANE_BYTES)
        hashes[longer] = mixed(hashes[longer] * _MULTIPLIER + (lanes[begin] & _LANE_MASKS[left]))
    for index in np.flatnonzero(lengths > MAX_LANES * LANE_BYTES):
        word = data[starts[index] : starts[index] + lengths[index]]
        digest = hashlib.blake2b(word, digest_size=8).digest()
        hashes[index] = int.from_bytes(digest, "little")
    return hashes


def _further_lanes(lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
    """For each lane after the first, the words that reach into it and end by the last lane."""
    within = np.flatnonzero((lengths > LANE_BYTES) & (lengths <= MAX_LANES * LANE_BYTES))
    for lane in range(1, MAX_LANES):
        within = within[lengths[within] > lane * LANE_BYTES]
        yield within, lane
