"""DSSE v1 (https://github.com/secure-systems-lab/dsse) with Ed25519: an envelope and who signed it.

What the payload holds is not looked at here; `data_contracts.protocol.envelope` is the door.
"""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.remembered import remembered
from data_contracts.protocol.strict_json import parse_strict, refused

MAX_ENVELOPE_BYTES = 2 * 1024 * 1024
MAX_SIGNATURES = 32


class Signer(Protocol):
    """Holder of an Ed25519 private key."""

    @property
    def public_key_hex(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: what is signed, so that type and payload cannot be shifted into each other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def signed_envelope(payload_type: str, payload: bytes, signers: Sequence[Signer]) -> bytes:
    """A payload in an envelope that each of `signers` has signed; ValueError where one is twice."""
    message = pre_authentication_encoding(payload_type, payload)
    return rfc8785.dumps(
        {
            "payload": to_base64(payload),
            "payloadType": payload_type,
            "signatures": _in_order([_signature_by(signer, message) for signer in signers]),
        }
    )


def countersign(envelope: bytes, signer: Signer) -> bytes:
    """`envelope` with one more signature over the very same payload.

    Whose the others are is not asked here; raises ValueError when this key has signed already.
    """
    parsed = parse_strict(envelope, MAX_ENVELOPE_BYTES)
    payload_type, payload, _ = _envelope_fields(parsed)
    added = _signature_by(signer, pre_authentication_encoding(payload_type, payload))
    return rfc8785.dumps({**parsed, "signatures": _in_order([*parsed["signatures"], added])})


def _in_order(signatures: list[dict[str, str]]) -> list[dict[str, str]]:
    """By key id, the only order in which they are read back."""
    if len({signature["keyid"] for signature in signatures}) != len(signatures):
        raise ValueError("expected every key to sign once")
    return sorted(signatures, key=lambda signature: signature["keyid"])


def _signature_by(signer: Signer, message: bytes) -> dict[str, str]:
    return {"keyid": key_id(signer.public_key_hex), "sig": to_base64(signer.sign(message))}


def signing_keys(envelope: bytes, keys: Collection[str]) -> frozenset[str]:
    """Which of `keys` have a valid signature on an envelope, however many others it lacks."""
    payload_type, payload, signatures = opened(envelope)
    message = pre_authentication_encoding(payload_type, payload)
    return frozenset(
        key for key in keys if any(s.is_valid(bytes.fromhex(key), message) for s in signatures)
    )


def key_id(public_key_hex: str) -> str:
    """Hint for people: first 16 hex digits of the SHA-256 of the raw public key."""
    return digest_of_bytes(bytes.fromhex(public_key_hex))[:16]


def fingerprint(public_key_hex: str) -> str:
    """SHA-256 of the raw public key in groups of four, to be compared over the telephone."""
    digest = digest_of_bytes(bytes.fromhex(public_key_hex))
    return " ".join(digest[i : i + 4] for i in range(0, 64, 4))


@remembered
def opened(envelope: bytes) -> tuple[str, bytes, tuple["Signature", ...]]:
    """Payload type, payload and signatures of an envelope, none of them verified."""
    return _envelope_fields(parse_strict(envelope, MAX_ENVELOPE_BYTES))


def _envelope_fields(parsed: Any) -> tuple[str, bytes, tuple["Signature", ...]]:
    if not isinstance(parsed, dict) or set(parsed) != {"payload", "payloadType", "signatures"}:
        raise refused("envelope", "payload, payloadType and signatures", "other fields", "envelope")
    payload_type, signatures = parsed["payloadType"], parsed["signatures"]
    if not isinstance(payload_type, str) or not isinstance(signatures, list):
        raise refused("envelope", "a string type and a list of signatures", "other", "envelope")
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        found = str(len(signatures))
        raise refused("envelope", f"1 to {MAX_SIGNATURES} signatures", found, "envelope")
    values = []
    for signature in signatures:
        if not isinstance(signature, dict) or set(signature) != {"keyid", "sig"}:
            raise refused("signature", "keyid and sig", "other fields", "envelope")
        if not isinstance(signature["keyid"], str):
            raise refused("signature", "a string keyid", "other", "envelope")
        values.append(Signature(signature["keyid"], from_base64(signature["sig"])))
    return payload_type, from_base64(parsed["payload"]), tuple(values)


@dataclass(frozen=True)
class Signature:
    """One signature as it lies in an envelope."""

    keyid: str
    value: bytes

    def is_valid(self, public_key: bytes, message: bytes) -> bool:
        """The key id must be the key's own: it adds nothing to trust, but must not be malleable."""
        if self.keyid != key_id(public_key.hex()):
            return False
        return _is_signed(message, public_key, self.value)


@remembered
def _is_signed(message: bytes, public_key: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def to_base64(data: bytes) -> str:
    """Standard base64 with padding; the only spelling that is read back."""
    return base64.b64encode(data).decode()


def from_base64(text: Any) -> bytes:
    """What `to_base64` made; raises UntrustedInputError for any other spelling."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise refused("envelope", "canonical base64", "another encoding", "envelope")
    return data
