"""The one door between bytes and records.

DSSE v1 (https://github.com/secure-systems-lab/dsse) over RFC 8785 JSON, signed with Ed25519.
Guaranteed, in this order, before a record is handed to anyone: size and nesting are bounded, the
payload type is the expected one, enough distinct pinned keys signed exactly these payload bytes,
envelope and payload are canonical JSON without duplicate keys or floats, and the payload fits the
closed schema. The digest of a record is the SHA-256 of its envelope's bytes; since the envelope is
canonical and its key ids are checked, nobody but the signer can make a second one that verifies.
"""

import base64
import binascii
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from data_contracts.artifact import digest_of_bytes
from data_contracts.errors import UntrustedInputError
from data_contracts.records.base import Record

MAX_ENVELOPE_BYTES = 512 * 1024
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_SIGNATURES = 16
MAX_DEPTH = 8
REMEMBERED = 64
"""Documents whose parsed form is kept: a plan is read at every poll. What is kept follows from the
bytes alone; signatures are checked every time, against the keys of that time."""

RecordT = TypeVar("RecordT", bound=Record)


class Signer(Protocol):
    """Holder of an Ed25519 private key."""

    @property
    def public_key_hex(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class Verified(Generic[RecordT]):
    """A record whose envelope passed `verify`, with the bytes it came from."""

    record: RecordT
    digest: str
    envelope: bytes


def narrowed(verified: Verified[Any], record_type: type[RecordT]) -> Verified[RecordT] | None:
    """`verified` as a record of one type, or None when it holds another."""
    if isinstance(verified.record, record_type):
        return Verified(verified.record, verified.digest, verified.envelope)
    return None


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE: what is signed, so that type and payload cannot be shifted into each other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def canonical_bytes(record: Record) -> bytes:
    """RFC 8785 bytes of a record."""
    return rfc8785.dumps(record.model_dump(mode="json"))


def seal(record: RecordT, *signers: Signer) -> Verified[RecordT]:
    """Sign `record` with each signer and return it with its envelope and digest."""
    payload = canonical_bytes(record)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _refused("record", f"at most {MAX_PAYLOAD_BYTES} bytes", f"{len(payload)}", "size")
    message = pre_authentication_encoding(record.payload_type(), payload)
    envelope = rfc8785.dumps(
        {
            "payload": to_base64(payload),
            "payloadType": record.payload_type(),
            "signatures": [_signature(signer, message) for signer in signers],
        }
    )
    return Verified(record, digest_of_bytes(envelope), envelope)


def countersign(verified: Verified[Any], signer: Signer) -> bytes:
    """The envelope of `verified` with one more signature over the very same payload."""
    parsed = parse_strict(verified.envelope, MAX_ENVELOPE_BYTES)
    payload_type, payload, _ = _envelope_fields(parsed)
    added = _signature(signer, pre_authentication_encoding(payload_type, payload))
    return rfc8785.dumps({**parsed, "signatures": [*parsed["signatures"], added]})


def _signature(signer: Signer, message: bytes) -> dict[str, str]:
    return {"keyid": key_id(signer.public_key_hex), "sig": to_base64(signer.sign(message))}


def verify(
    envelope: bytes, record_type: type[RecordT], keys: Collection[str], threshold: int = 1
) -> Verified[RecordT]:
    """Turn envelope bytes into a record, or raise UntrustedInputError.

    `keys` are the pinned public keys (hex) that may sign; `threshold` counts distinct public keys,
    never key ids, so one key under two ids counts once.
    """
    if threshold < 1:
        raise ValueError("threshold must be at least 1")
    payload_type, payload, signatures = _opened(envelope)
    if payload_type != record_type.payload_type():
        raise _refused("payload type", record_type.payload_type(), payload_type, "kind")
    if len(signatures) > record_type.max_signatures:
        limit = f"at most {record_type.max_signatures} signature(s)"
        raise _refused(record_type.kind, limit, f"{len(signatures)}", "envelope")
    _require_canonical(envelope, MAX_ENVELOPE_BYTES, "envelope")
    message = pre_authentication_encoding(payload_type, payload)
    distinct = {bytes.fromhex(key) for key in keys}
    signed_by = {key for key in distinct if any(s.is_valid(key, message) for s in signatures)}
    if len(signed_by) < threshold:
        raise _refused(
            f"signature of {record_type.kind}",
            f"{threshold} valid signature(s) by pinned keys",
            f"{len(signed_by)}",
            "signature",
        )
    record = _record_from_payload(payload, record_type)
    return Verified(record, digest_of_bytes(envelope), envelope)


def unverified_record(envelope: bytes, record_type: type[RecordT]) -> RecordT:
    """The record an envelope claims to hold, unverified: only to find the keys that it names."""
    _, payload, _ = _opened(envelope)
    record: RecordT = _record_from_payload(payload, record_type)
    return record


def peek_kind(envelope: bytes) -> str:
    """Payload type an envelope claims, unverified: only for choosing which type to verify as."""
    payload_type, _, _ = _opened(envelope)
    return payload_type


def key_id(public_key_hex: str) -> str:
    """Hint for people: first 16 hex digits of the SHA-256 of the raw public key."""
    return digest_of_bytes(bytes.fromhex(public_key_hex))[:16]


def fingerprint(public_key_hex: str) -> str:
    """SHA-256 of the raw public key in groups of four, to be compared over the telephone."""
    digest = digest_of_bytes(bytes.fromhex(public_key_hex))
    return " ".join(digest[i : i + 4] for i in range(0, 64, 4))


def parse_strict(data: bytes, max_bytes: int) -> Any:
    """JSON without duplicate keys, floats, NaN or deep nesting; raises UntrustedInputError."""
    if len(data) > max_bytes:
        raise _refused("JSON document", f"at most {max_bytes} bytes", f"{len(data)}", "size")
    if _depth(data) > MAX_DEPTH:
        raise _refused("JSON document", f"nesting of at most {MAX_DEPTH}", "deeper", "depth")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise _refused("JSON document", "strict JSON", str(error)[:200], "json") from None


@lru_cache(maxsize=REMEMBERED)
def _opened(envelope: bytes) -> tuple[str, bytes, tuple["_Signature", ...]]:
    """Payload type, payload and signatures of an envelope, none of them verified."""
    return _envelope_fields(parse_strict(envelope, MAX_ENVELOPE_BYTES))


@lru_cache(maxsize=REMEMBERED)
def _require_canonical(data: bytes, max_bytes: int, what: str) -> None:
    if _canonical(parse_strict(data, max_bytes), what) != data:
        raise _refused(what, "RFC 8785 canonical bytes", "another encoding", "canonical")


@lru_cache(maxsize=REMEMBERED)
def _record_from_payload(payload: bytes, record_type: type[RecordT]) -> RecordT:
    _require_canonical(payload, MAX_PAYLOAD_BYTES, "payload")
    try:
        record = record_type.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"{where}: {first['msg']}"[:200]
        raise _refused(record_type.kind, "its published schema", found, "schema") from None
    if canonical_bytes(record) != payload:
        raise _refused(record_type.kind, "one spelling of every value", "another", "schema")
    return record


def _canonical(parsed: Any, what: str) -> bytes:
    try:
        return rfc8785.dumps(parsed)
    except rfc8785.CanonicalizationError as error:
        raise _refused(what, "RFC 8785 JSON", str(error)[:200], "canonical") from None


def _envelope_fields(parsed: Any) -> tuple[str, bytes, tuple["_Signature", ...]]:
    if not isinstance(parsed, dict) or set(parsed) != {"payload", "payloadType", "signatures"}:
        raise _refused(
            "envelope", "payload, payloadType and signatures", "other fields", "envelope"
        )
    payload_type, signatures = parsed["payloadType"], parsed["signatures"]
    if not isinstance(payload_type, str) or not isinstance(signatures, list):
        raise _refused("envelope", "a string type and a list of signatures", "other", "envelope")
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        found = str(len(signatures))
        raise _refused("envelope", f"1 to {MAX_SIGNATURES} signatures", found, "envelope")
    values = []
    for signature in signatures:
        if not isinstance(signature, dict) or set(signature) != {"keyid", "sig"}:
            raise _refused("signature", "keyid and sig", "other fields", "envelope")
        if not isinstance(signature["keyid"], str):
            raise _refused("signature", "a string keyid", "other", "envelope")
        values.append(_Signature(signature["keyid"], _from_base64(signature["sig"])))
    return payload_type, _from_base64(parsed["payload"]), tuple(values)


@dataclass(frozen=True)
class _Signature:
    keyid: str
    value: bytes

    def is_valid(self, public_key: bytes, message: bytes) -> bool:
        """The key id must be the key's own: it adds nothing to trust, but must not be malleable."""
        if self.keyid != key_id(public_key.hex()):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.value, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def _depth(data: bytes) -> int:
    """Deepest bracket nesting outside strings, found without recursion."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x5D, 0x7D):
            depth -= 1
    return deepest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key in an object")
    return result


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not allowed: decimals travel as strings")


def to_base64(data: bytes) -> str:
    """Standard base64 with padding; the only spelling that is read back."""
    return base64.b64encode(data).decode()


def _from_base64(text: Any) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise _refused("envelope", "canonical base64", "another encoding", "envelope")
    return data


def _refused(problem: str, expected: str, found: str, reason: str) -> UntrustedInputError:
    return UntrustedInputError(
        problem,
        expected=expected,
        found=found,
        action="do not use these bytes; ask their sender for the original",
        reason=f"envelope.{reason}",
    )
