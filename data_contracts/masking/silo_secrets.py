"""The secrets of one silo in one attempt; none serves twice.

They mask one payload. Whoever masked another one with them would give away the difference of the
two, so what was masked is written before anything leaves, and a retry sends those very bytes.
"""

import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from data_contracts.errors import SiloOperatorError
from data_contracts.masking.derivation import (
    KEY_BYTES,
    commitment,
    derived_key,
    public_bytes,
)

SEED_BYTES = 16
"""As many as the field of the shares has."""
MAGIC = b"consortia mask secrets 1\n"


@dataclass(frozen=True)
class AdvertisedKeys:
    """What a silo shows of its secrets first: two X25519 public keys, 32 bytes each."""

    silo: str
    mask_key: bytes
    sealing_key: bytes


@dataclass(frozen=True)
class SiloSecrets:
    """`mask_seed` and `self_seed` (16 bytes) are shared out; `sealing_key` (32) never leaves."""

    mask_seed: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)
    sealing_key: bytes = field(repr=False)

    @classmethod
    def drawn(cls) -> "SiloSecrets":
        """New ones from the system's generator."""
        draw = secrets.token_bytes
        return cls(draw(SEED_BYTES), draw(SEED_BYTES), draw(KEY_BYTES))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "SiloSecrets":
        """What `to_bytes` wrote; raises SiloOperatorError for anything else."""
        size = len(MAGIC) + 2 * SEED_BYTES + KEY_BYTES
        if len(raw) != size or not raw.startswith(MAGIC):
            raise SiloOperatorError(
                "secrets of a confidential round",
                expected=f"a file of {size} bytes as this agent writes it",
                found=f"another one, of {len(raw)} bytes",
                action="remove it below masking/ in the home and start the agent again: it "
                "leaves this attempt, and the next has new ones",
            )
        start = len(MAGIC)
        middle, end = start + SEED_BYTES, start + 2 * SEED_BYTES
        return cls(raw[start:middle], raw[middle:end], raw[end:])

    def to_bytes(self) -> bytes:
        """All three in one value, for a file that nobody else may read."""
        return MAGIC + self.mask_seed + self.self_seed + self.sealing_key

    @property
    def private_sealing_key(self) -> X25519PrivateKey:
        """The key under which shares come to this silo."""
        return X25519PrivateKey.from_private_bytes(self.sealing_key)

    def advertised(self, binding: bytes, silo: str) -> AdvertisedKeys:
        """The public keys of both."""
        key = mask_key(self.mask_seed, binding, silo)
        return AdvertisedKeys(silo, public_bytes(key), public_bytes(self.private_sealing_key))

    def rounding_key(self, binding: bytes, silo: str) -> bytes:
        """Key of the bits that decide how numbers are rounded.

        From the secret that nobody ever rebuilds, so that not even who has the sum knows them.
        """
        return derived_key(self.sealing_key, "rounding", binding, silo.encode())


def mask_key(mask_seed: bytes, binding: bytes, silo: str) -> X25519PrivateKey:
    """The key from which the pads of `silo` with every other follow.

    It follows from 16 bytes, so that one share of 16 bytes is enough for it.
    """
    private = derived_key(mask_seed, "mask key", binding, silo.encode())
    return X25519PrivateKey.from_private_bytes(private)


def self_seed_commitment(self_seed: bytes, binding: bytes, silo: str) -> str:
    """Shown with the shares, so that a rebuilt seed can be told from another."""
    return commitment("self seed", binding, silo.encode(), self_seed)
