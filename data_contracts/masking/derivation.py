"""From a secret to keys, and from values to commitments: each for one purpose in one attempt.

What goes in is written with the length of every field, so no two different lists of fields are the
same bytes. `binding` stands for what ties a value to one attempt (federation, run, round, attempt,
plan); whatever differs in it has keys and commitments that are unrelated.

HKDF-SHA256 without salt (RFC 5869): secrets here are uniform, or the result of X25519, which
RFC 7748 asks to be hashed.
"""

import hashlib
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from data_contracts.errors import UntrustedInputError

Purpose = Literal[
    "mask key",
    "pair pad",
    "self pad",
    "rounding",
    "sealing",
    "share",
    "self seed",
    "masked file",
]
KEY_BYTES = 32
FIELD = 2**255 - 19
VERSION = b"consortia masked sums 1"
_ANY_KEY = X25519PrivateKey.from_private_bytes(b"\x01" * KEY_BYTES)


def described(purpose: Purpose, binding: bytes, *fields: bytes) -> bytes:
    """Purpose, binding and fields as one string of bytes, each with its length before it."""
    # OpenSSL takes at most 1,024 bytes for what a key is bound to, and a binding may be longer.
    bound = hashlib.sha256(binding).digest()
    parts = (VERSION, purpose.encode(), bound, *fields)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def derived_key(secret: bytes, purpose: Purpose, binding: bytes, *fields: bytes) -> bytes:
    """32 bytes that say nothing of `secret`, or of what it gives for anything else."""
    info = described(purpose, binding, *fields)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def commitment(purpose: Purpose, binding: bytes, *fields: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits.

    It hides a field that nobody can guess, such as 16 random bytes, and no other.
    """
    return hashlib.sha256(described(purpose, binding, *fields)).hexdigest()


def public_bytes(key: X25519PrivateKey) -> bytes:
    """The public part of a key, 32 bytes."""
    return key.public_key().public_bytes_raw()


def exchanged(own: X25519PrivateKey, peer: bytes, silo: str) -> bytes:
    """X25519 of an own key and the public key of `silo`, 32 bytes.

    Raises UntrustedInputError for a key of small order, with which the result is zero whoever owns
    the other one (RFC 7748, section 6.1), and for one that is not 32 bytes or in a second spelling.
    """
    try:
        if int.from_bytes(peer, "little") >= FIELD:
            raise ValueError
        return own.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise unfit(
            f"public key of {silo}",
            "an X25519 key of 32 bytes in its one spelling, not of small order",
            "another",
            "bad_key",
        ) from None


def require_usable(peer: bytes, silo: str) -> None:
    """Raises UntrustedInputError unless `peer` is a key that `exchanged` takes."""
    # A private key is a multiple of 8, the order of every small subgroup: any key tells.
    exchanged(_ANY_KEY, peer, silo)


def unfit(problem: str, expected: str, found: str, rule: str) -> UntrustedInputError:
    """The error for what another party said about masks, with the rule to reject it by."""
    return UntrustedInputError(
        problem,
        expected=expected,
        found=found,
        action="do not use it; end this attempt, and ask the party named what happened",
        rule=f"masking.{rule}",
    )
