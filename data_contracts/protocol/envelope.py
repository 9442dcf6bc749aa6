"""The one door between bytes and records.

DSSE v1 (https://github.com/secure-systems-lab/dsse) over RFC 8785 JSON, signed with Ed25519.
Guaranteed, in this order, before a record is handed to anyone: size and nesting are bounded, the
payload type is the expected one in the version of this wire, every signature is by a pinned key
over exactly these payload bytes, no key signed twice, signatures lie in the order of their key ids
and are enough, envelope and payload are canonical JSON without duplicate keys or floats, and the
payload fits the closed schema. The digest of a record is the SHA-256 of its envelope's bytes; since
nothing about an envelope is left open, nobody but its signers can make a second one that verifies.

A record with a row for each silo or module keeps those rows in a table, canonical JSON on a second
line of the same document, which the signed payload names by digest and size.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.dsse import (
    MAX_ENVELOPE_BYTES,
    Signature,
    Signer,
    key_id,
    opened,
    pre_authentication_encoding,
    signed_envelope,
)
from data_contracts.protocol.payload import (
    MAX_TABLE_BYTES,
    canonical_bytes,
    newer,
    program_of,
    record_of,
    require_named,
    table_bytes,
)
from data_contracts.protocol.records.base import WIRE_VERSION, Record, RecordT
from data_contracts.protocol.records.verified import Verified as Verified
from data_contracts.protocol.strict_json import parse_strict, refused, require_canonical

_PAYLOAD_TYPE = re.compile(r"application/vnd\.consortia\.([a-z-]{1,40})\.v([0-9]{1,4})\+json")


@dataclass(frozen=True)
class Quorum:
    """Public keys (hex) of which so many distinct ones have to sign; 0: any of them may."""

    keys: frozenset[str]
    threshold: int = 1


def narrowed(verified: Verified[Any], record_type: type[RecordT]) -> Verified[RecordT] | None:
    """`verified` as a record of one type, or None when it holds another."""
    return verified if isinstance(verified.record, record_type) else None


def max_document_bytes(record_type: type[Record]) -> int:
    """How long the bytes of a record can be: base64 of its payload, its signatures, its table."""
    envelope = record_type.max_payload_bytes * 4 // 3 + record_type.max_signatures * 256 + 4096
    return envelope + (MAX_TABLE_BYTES + 1 if record_type.table_fields else 0)


def seal(record: RecordT, *signers: Signer) -> Verified[RecordT]:
    """Sign `record` with each signer and return it with its envelope and digest.

    Raises ValueError when one key signs twice: nobody would accept that envelope.
    """
    payload, table = canonical_bytes(record), table_bytes(record)
    limit = record.max_payload_bytes
    if len(payload) > limit:
        raise refused(record.kind, f"at most {limit} bytes", f"{len(payload)}", "size")
    if table is not None and len(table) > MAX_TABLE_BYTES:
        expected = f"a table of at most {MAX_TABLE_BYTES} bytes"
        raise refused(record.kind, expected, f"{len(table)}", "size")
    envelope = signed_envelope(record.payload_type(), payload, signers)
    return Verified(record, digest_of_bytes(envelope), _joined(envelope, table))


def document_digest(document: bytes) -> str:
    """Digest of a record's envelope, as records name it; raises UntrustedInputError for a document
    whose table is not the one that its payload names."""
    envelope, table = _split(document)
    if table is not None:
        _, payload, _ = opened(envelope)
        require_named(parse_strict(payload, MAX_ENVELOPE_BYTES), table, "record")
    return digest_of_bytes(envelope)


def verify(
    envelope: bytes, record_type: type[RecordT], keys: Collection[str], threshold: int = 1
) -> Verified[RecordT]:
    """Turn envelope bytes into a record, or raise UntrustedInputError.

    `keys` are the pinned public keys (hex) that may sign; `threshold` counts distinct public keys.
    """
    if threshold < 1:
        raise ValueError("threshold must be at least 1")
    return verify_quorums(envelope, record_type, [Quorum(frozenset(keys), threshold)])


def verify_quorums(
    envelope: bytes, record_type: type[RecordT], quorums: Sequence[Quorum]
) -> Verified[RecordT]:
    """As `verify`, where several groups of keys have to sign, each with a threshold of its own.

    A key of any group may sign, and one that is in two groups counts in both.
    """
    _require_length(envelope, record_type)
    envelope, table = _split(envelope)
    payload_type, payload, signatures = opened(envelope)
    _require_type(payload_type, record_type)
    if len(signatures) > record_type.max_signatures:
        limit = f"at most {record_type.max_signatures} signature(s)"
        raise refused(record_type.kind, limit, f"{len(signatures)}", "envelope")
    require_canonical(envelope, MAX_ENVELOPE_BYTES, "envelope")
    signed_by = _signers(record_type.kind, payload_type, payload, signatures, quorums)
    for quorum in quorums:
        valid = len(signed_by & {key.lower() for key in quorum.keys})
        if valid < quorum.threshold:
            raise refused(
                f"signature of {record_type.kind}",
                f"{quorum.threshold} valid signature(s) by pinned keys",
                f"{valid}",
                "signature",
            )
    _require_readable(payload_type, payload, record_type)
    record = record_of(payload, table, record_type)
    return Verified(record, digest_of_bytes(envelope), _joined(envelope, table))


def _signers(
    kind: str,
    payload_type: str,
    payload: bytes,
    signatures: tuple["Signature", ...],
    quorums: Sequence[Quorum],
) -> frozenset[str]:
    """Who signed, in lower-case hex; one signature that is out of place spoils them all.

    Were it passed over, whoever can write to storage could add it, and so make a second envelope of
    one record.
    """
    pinned = {key_id(key): key.lower() for quorum in quorums for key in quorum.keys}
    ids = [signature.keyid for signature in signatures]
    if ids != sorted(set(ids)):
        expected = "signatures in the order of their key ids, each key once"
        raise refused(f"signatures of {kind}", expected, "another order, or a key twice", "order")
    message = pre_authentication_encoding(payload_type, payload)
    for signature in signatures:
        key = pinned.get(signature.keyid)
        if key is None or not signature.is_valid(bytes.fromhex(key), message):
            raise refused(
                f"signature of {kind}",
                "valid signatures by pinned keys and no others",
                f"one with the key id {signature.keyid[:16]!a} that is not",
                "signature",
            )
    return frozenset(pinned[keyid] for keyid in ids)


def _require_length(document: bytes, record_type: type[Record]) -> None:
    """Before anything of it is parsed."""
    limit = max_document_bytes(record_type)
    if len(document) > limit:
        raise refused(record_type.kind, f"at most {limit} bytes", f"{len(document)}", "size")


def _require_type(payload_type: str, record_type: type[Record]) -> None:
    """The kind, and not an earlier version of the wire; of a later one signatures are looked at
    before it is named, so that nobody but its signers can have it said."""
    if payload_type == record_type.payload_type():
        return
    named = _PAYLOAD_TYPE.fullmatch(payload_type)
    if named is not None and named[1] == record_type.kind and int(named[2]) > WIRE_VERSION:
        return
    if named is not None and named[1] == record_type.kind:
        raise UntrustedInputError(
            record_type.kind,
            expected=f"version {WIRE_VERSION} of the records, which this release writes and reads",
            found=f"version {named[2]}",
            action="use the release of Consortia that the federation was founded with, or found "
            "the federation anew with this one",
            rule="envelope.version",
        )
    raise refused("payload type", record_type.payload_type(), ascii(payload_type)[:100], "kind")


def unverified_record(envelope: bytes, record_type: type[RecordT]) -> RecordT:
    """The record an envelope claims to hold, unverified: only to find the keys that it names."""
    _require_length(envelope, record_type)
    envelope, table = _split(envelope)
    payload_type, payload, _ = opened(envelope)
    _require_type(payload_type, record_type)
    _require_readable(payload_type, payload, record_type)
    return record_of(payload, table, record_type)


def _require_readable(payload_type: str, payload: bytes, record_type: type[Record]) -> None:
    if payload_type != record_type.payload_type():
        named = _PAYLOAD_TYPE.fullmatch(payload_type)
        version = named[2] if named is not None else "?"
        raise newer(record_type.kind, f"version {version} of the records", program_of(payload))


def claims_kind(envelope: bytes, record_type: type[Record]) -> bool:
    """Whether an envelope claims to hold this kind, in any version; unverified, as `peek_kind`."""
    named = _PAYLOAD_TYPE.fullmatch(peek_kind(envelope))
    return named is not None and named[1] == record_type.kind


def peek_kind(envelope: bytes) -> str:
    """Payload type an envelope claims, unverified: only for choosing which type to verify as."""
    payload_type, _, _ = opened(_split(envelope)[0])
    return payload_type


def _joined(envelope: bytes, table: bytes | None) -> bytes:
    return envelope if table is None else envelope + b"\n" + table


def _split(document: bytes) -> tuple[bytes, bytes | None]:
    """Envelope and table; canonical JSON has no line break."""
    envelope, separator, table = document.partition(b"\n")
    return envelope, table if separator else None
