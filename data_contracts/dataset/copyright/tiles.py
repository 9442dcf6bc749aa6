"""Keyed hashes of runs of 13 words: what a registry stores and what a silo looks up.

The hash of a run is SipHash-2-4 (Aumasson and Bernstein 2012) of a multilinear hash modulo 2**64
(Lemire and Kaser 2014) of its word hashes, all keys derived from one secret with HMAC-SHA-512: a
universal hash, then a pseudo-random function (Carter and Wegman 1981).

What the key protects: whoever has a filter but not the key cannot test a passage against it, nor
tell which filters have a passage in common. What it does not: a holder of the key, and every silo
that looks anything up is one, can test any passage of 13 words that it can guess; the size of a
filter tells roughly how many tiles are in it; and since word hashes are public, somebody who
looks for it can make other words that hash alike, which yields false alarms and never hides a copy.
The multilinear hash joins two runs of independently mixed word hashes with a chance of about
2**-59; that is negligible beside the error rate of the filter, and not a cryptographic bound.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.word_hashes import WordHashes
from data_contracts.errors import DataStewardError

WORDS_PER_TILE = 13
REGISTRY_STRIDE = 13
HASH_SCHEME_VERSION = "multilinear64-siphash24-1"
MIN_KEY_BYTES = 16

_CHUNK = 8192
"""Hashes in work at a time: their intermediate values stay in the processor's cache."""

_SIPHASH_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_SIPHASH_LENGTH = 8 << 56
"""Last block of an 8-byte message: its length in the top byte."""


@dataclass(frozen=True)
class TileKey:
    """Sub-keys of one secret, and the id by which the secret may be named in public."""

    id: str
    multipliers: tuple[int, ...] = field(repr=False)
    offset: int = field(repr=False)
    siphash: tuple[int, int] = field(repr=False)


def derive_tile_key(secret: bytes) -> TileKey:
    """Sub-keys of `secret`: 16 random bytes or more, never a passphrase.

    The id is an HMAC under the secret, 64 hex digits: it says nothing about a random secret.
    """
    if len(secret) < MIN_KEY_BYTES:
        raise DataStewardError(
            "key of a copyright registry",
            expected=f"{MIN_KEY_BYTES} random bytes or more",
            found=f"{len(secret)} bytes",
            action="use the key file as the rights holder handed it over",
        )
    needed = WORDS_PER_TILE + 3
    stream = b"".join(
        hmac.digest(secret, b"consortia copyright sub-key %d" % block, "sha512")
        for block in range(-(-needed // 8))
    )
    numbers = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(needed)]
    key_id = hmac.new(secret, b"consortia copyright key id", hashlib.sha256).hexdigest()
    return TileKey(
        id=key_id,
        multipliers=tuple(numbers[:WORDS_PER_TILE]),
        offset=numbers[-3],
        siphash=(numbers[-2], numbers[-1]),
    )


def registry_tiles(words: WordHashes, key: TileKey) -> NDArray[np.uint64]:
    """Hashes of the runs that start at words 0, 13, 26 ... of each text and lie in it."""
    starts = words.windows(WORDS_PER_TILE, REGISTRY_STRIDE)
    return siphash(_multilinear(words.values, key)[starts], key.siphash)


def probe_tiles(words: WordHashes, key: TileKey) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """First word and hash of every run of 13 words that lies in one text, ascending."""
    starts = words.windows(WORDS_PER_TILE)
    return starts, siphash(_multilinear(words.values, key)[starts], key.siphash)


def siphash(messages: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """SipHash-2-4 of each 8-byte message (as a little-endian integer), in a new array."""
    result = np.empty_like(messages)
    for begin in range(0, len(messages), _CHUNK):
        result[begin : begin + _CHUNK] = _siphash_chunk(messages[begin : begin + _CHUNK], key)
    return result


def _multilinear(values: NDArray[np.uint64], key: TileKey) -> NDArray[np.uint64]:
    """offset + sum of multiplier times word hash, for the run from each word on; ends ignored."""
    count = max(len(values) - WORDS_PER_TILE + 1, 0)
    result = np.empty(count, dtype=np.uint64)
    product = np.empty(min(count, _CHUNK), dtype=np.uint64)
    for begin in range(0, count, _CHUNK):
        total = result[begin : begin + _CHUNK]
        total.fill(key.offset)
        for index, multiplier in enumerate(key.multipliers):
            part = values[begin + index : begin + index + len(total)]
            total += np.multiply(part, multiplier, out=product[: len(total)])
    return result


def _siphash_chunk(messages: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    state = [
        np.full(len(messages), start ^ key[index % 2], dtype=np.uint64)
        for index, start in enumerate(_SIPHASH_START)
    ]
    scratch = np.empty_like(messages)
    for block in (messages, _SIPHASH_LENGTH):
        state[3] ^= block
        _sip_rounds(state, 2, scratch)
        state[0] ^= block
    state[2] ^= 0xFF
    _sip_rounds(state, 4, scratch)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _sip_rounds(state: list[NDArray[np.uint64]], rounds: int, scratch: NDArray[np.uint64]) -> None:
    """SipRound of the paper's figure 2.1, in place."""
    v0, v1, v2, v3 = state
    for _ in range(rounds):
        for left, right, bits in ((v0, v1, 13), (v2, v3, 16)):
            _half(left, right, bits, scratch)
        _rotate(v0, 32, scratch)
        for left, right, bits in ((v2, v1, 17), (v0, v3, 21)):
            _half(left, right, bits, scratch)
        _rotate(v2, 32, scratch)


def _half(
    left: NDArray[np.uint64], right: NDArray[np.uint64], bits: int, scratch: NDArray[np.uint64]
) -> None:
    left += right
    _rotate(right, bits, scratch)
    right ^= left


def _rotate(values: NDArray[np.uint64], bits: int, scratch: NDArray[np.uint64]) -> None:
    np.left_shift(values, bits, out=scratch)
    np.right_shift(values, 64 - bits, out=values)
    np.bitwise_or(values, scratch, out=values)
