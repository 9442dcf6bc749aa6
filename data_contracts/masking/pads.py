"""Pads: streams of uint32 that a silo adds to its numbers, and that somebody can take away again.

A pad is the keystream of AES-256 in counter mode under a key of its own, from a counter of zero,
read as little-endian uint32: entry k is bytes 4k to 4k + 3. So any part of it can be made alone, in
any order and by any number of threads. A key serves for one pad only, and no position of a pad is
used twice, because its payload is masked once (`silo_secrets`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from data_contracts.errors import FederationOperatorError
from data_contracts.masking.derivation import derived_key, exchanged
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.silo_secrets import AdvertisedKeys, SiloSecrets, mask_key

UInt32Array = npt.NDArray[np.uint32]

ENTRY_BYTES = 4
BLOCK_BYTES = 16
PIECE_ENTRIES = 1 << 18
"""Made at a time: 1 MiB, so that numbers and pad stay in the cache."""
MOST_ENTRIES = (1 << 34) * BLOCK_BYTES // ENTRY_BYTES
"""256 GiB. Blocks of one key never repeat, and those of chance do; over 2^34 blocks of 128 bits
that tells a pad from chance with a probability of 2^-61."""

_ZEROS = bytes(PIECE_ENTRIES * ENTRY_BYTES)


@dataclass(frozen=True)
class Pad:
    """The key of a pad (32 bytes), and whether it is subtracted."""

    key: bytes = field(repr=False)
    is_subtracted: bool = False

    @property
    def opposite(self) -> "Pad":
        """What takes it away again."""
        return replace(self, is_subtracted=not self.is_subtracted)


def self_pad(self_seed: bytes, binding: bytes, silo: str) -> Pad:
    """What `silo` adds that follows from its own seed alone."""
    return Pad(derived_key(self_seed, "self pad", binding, silo.encode()))


def pair_pad(
    key: X25519PrivateKey, own: AdvertisedKeys, peer: AdvertisedKeys, binding: bytes
) -> Pad:
    """What `own` adds for itself and `peer`; `key` is the private mask key of `own`.

    The silo with the lower id adds and the other subtracts. Both public keys are a part of what the
    pad is bound to, so that two who mean different keys never have one pad.
    """
    first, second = sorted((own, peer), key=lambda keys: keys.silo)
    fields = (first.silo.encode(), second.silo.encode(), first.mask_key, second.mask_key)
    shared = exchanged(key, peer.mask_key, peer.silo)
    pair_key = derived_key(shared, "pair pad", binding, *fields)
    return Pad(pair_key, is_subtracted=own.silo != first.silo)


def pads_of(
    secrets: SiloSecrets, group: MaskGroup, silo: str, sharing: Iterable[str]
) -> tuple[Pad, ...]:
    """All that `silo` adds: its self pad, and one for each other of `sharing`.

    `sharing`: the silos of the group that shared their secrets out. With any other its pad could
    not be rebuilt.
    """
    own, key = group.keys_of(silo), mask_key(secrets.mask_seed, group.binding, silo)
    peers = [group.keys_of(peer) for peer in sorted(set(sharing)) if peer != silo]
    pairs = (pair_pad(key, own, peer, group.binding) for peer in peers)
    return (self_pad(secrets.self_seed, group.binding, silo), *pairs)


def add_pads(values: UInt32Array, first: int, pads: Iterable[Pad]) -> None:
    """Add `pads` modulo 2^32, in place, to `values`: entries `first` and on of a payload."""
    pads = tuple(pads)
    scratch: UInt32Array = np.empty(PIECE_ENTRIES, dtype="<u4")
    for start, end in _pieces(first, len(values)):
        view, stream = values[start - first : end - first], scratch[: end - start]
        for pad in pads:
            _keystream_into(stream, pad.key, start)
            (np.subtract if pad.is_subtracted else np.add)(view, stream, out=view)


def keystream(key: bytes, first: int, count: int) -> UInt32Array:
    """Entries `first` to `first + count` of the pad of this key."""
    values: UInt32Array = np.empty(count, dtype="<u4")
    for start, end in _pieces(first, count):
        _keystream_into(values[start - first : end - first], key, start)
    return values


def _pieces(first: int, count: int) -> Iterable[tuple[int, int]]:
    """Start and end of the parts of [first, first + count) between multiples of a piece."""
    if first < 0 or first + count > MOST_ENTRIES:
        raise FederationOperatorError(
            "payload of a confidential round",
            expected=f"at most {MOST_ENTRIES} numbers, for which a pad looks random",
            found=f"{first + count}",
            action="plan a smaller adapter",
        )
    while count > 0:
        size = min(count, PIECE_ENTRIES - first % PIECE_ENTRIES)
        yield first, first + size
        first, count = first + size, count - size


def _keystream_into(out: UInt32Array, key: bytes, first: int) -> None:
    """Fill `out`, which lies within one piece."""
    block, skipped = divmod(first * ENTRY_BYTES, BLOCK_BYTES)
    encryptor = Cipher(AES256(key), CTR(block.to_bytes(BLOCK_BYTES, "big"))).encryptor()
    encryptor.update(_ZEROS[:skipped])
    encryptor.update_into(memoryview(_ZEROS)[: out.nbytes], out.data.cast("B"))
