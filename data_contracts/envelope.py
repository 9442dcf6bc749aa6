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

import base64
import binascii
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from data_contracts.artifact import artifact_of_bytes, digest_of_bytes
from data_contracts.errors import UntrustedInputError
from data_contracts.program_version import is_later, program_version
from data_contracts.records.base import WIRE_VERSION, Record

MAX_ENVELOPE_BYTES = 2 * 1024 * 1024
MAX_TABLE_BYTES = 16 * 1024 * 1024
TABLE = "table"
MAX_SIGNATURES = 32
MAX_DEPTH = 8
REMEMBERED_TABLES = 4
REMEMBERED = 64
"""Documents whose parsed form is kept: a plan is read at every poll. What is kept follows from the
bytes alone; which keys may have signed is asked every time."""
SMALL_BYTES = 16 * 1024
REMEMBERED_SMALL = 512
"""Most records are small, and a coordinator reads those of every silo at every look."""

_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Also one that does not end: nothing after it is outside of a string."""
_BRACKETS = re.compile(rb"[\[\]{}]")
_PAYLOAD_TYPE = re.compile(r"application/vnd\.consortia\.([a-z-]{1,40})\.v([0-9]{1,4})\+json")

_PROGRAM = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}[a-z0-9.+-]{0,20}")

NEWER = "envelope.newer"
"""The rule of what a later release wrote, signed by whom it should be, and this one cannot read."""

RecordT = TypeVar("RecordT", bound=Record)
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def _remembered(
    function: Callable[Concatenate[bytes, _Given], _Result],
) -> Callable[Concatenate[bytes, _Given], _Result]:
    """Keep the last results of a pure function of bytes, many for small ones and few for others."""
    small, large = lru_cache(REMEMBERED_SMALL)(function), lru_cache(REMEMBERED)(function)

    @wraps(function)
    def call(data: bytes, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        return (small if len(data) <= SMALL_BYTES else large)(data, *args, **kwargs)  # type: ignore[arg-type]

    return call


class Signer(Protocol):
    """Holder of an Ed25519 private key."""

    @property
    def public_key_hex(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class Quorum:
    """Public keys (hex) of which so many distinct ones have to sign; 0: any of them may."""

    keys: frozenset[str]
    threshold: int = 1


@dataclass(frozen=True)
class Verified(Generic[RecordT]):
    """A record that passed `verify`, with the bytes it came from: its envelope, and its table.

    `digest` is that of the envelope alone, which names the table's.
    """

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
    """RFC 8785 bytes of what is signed: the record, with a reference in place of its table."""
    unsaid = {name for name in record.added_fields if getattr(record, name) is None}
    fields = record.model_dump(mode="json", exclude=unsaid | set(record.table_fields))
    table = table_bytes(record)
    if table is not None:
        fields[TABLE] = artifact_of_bytes(table).model_dump()
    return rfc8785.dumps(fields)


def table_bytes(record: Record) -> bytes | None:
    """RFC 8785 bytes of the record's table; None for a kind that has none."""
    if not record.table_fields:
        return None
    return rfc8785.dumps(record.model_dump(mode="json", include=set(record.table_fields)))


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
        raise _refused(record.kind, f"at most {limit} bytes", f"{len(payload)}", "size")
    if table is not None and len(table) > MAX_TABLE_BYTES:
        expected = f"a table of at most {MAX_TABLE_BYTES} bytes"
        raise _refused(record.kind, expected, f"{len(table)}", "size")
    message = pre_authentication_encoding(record.payload_type(), payload)
    envelope = rfc8785.dumps(
        {
            "payload": to_base64(payload),
            "payloadType": record.payload_type(),
            "signatures": _in_order([_signature(signer, message) for signer in signers]),
        }
    )
    document = envelope if table is None else envelope + b"\n" + table
    return Verified(record, digest_of_bytes(envelope), document)


def document_digest(document: bytes) -> str:
    """Digest of a record's envelope, as records name it; raises UntrustedInputError for a document
    whose table is not the one that its payload names."""
    envelope, table = _split(document)
    if table is not None:
        _, payload, _ = _opened(envelope)
        _require_named(parse_strict(payload, MAX_ENVELOPE_BYTES), table, "record")
    return digest_of_bytes(envelope)


def countersign(envelope: bytes, signer: Signer) -> bytes:
    """`envelope` with one more signature over the very same payload.

    Whose the others are is not asked here; raises ValueError when this key has signed already.
    """
    parsed = parse_strict(envelope, MAX_ENVELOPE_BYTES)
    payload_type, payload, _ = _envelope_fields(parsed)
    added = _signature(signer, pre_authentication_encoding(payload_type, payload))
    return rfc8785.dumps({**parsed, "signatures": _in_order([*parsed["signatures"], added])})


def _in_order(signatures: list[dict[str, str]]) -> list[dict[str, str]]:
    """By key id, the only order in which they are read back."""
    if len({signature["keyid"] for signature in signatures}) != len(signatures):
        raise ValueError("expected every key to sign once")
    return sorted(signatures, key=lambda signature: signature["keyid"])


def _signature(signer: Signer, message: bytes) -> dict[str, str]:
    return {"keyid": key_id(signer.public_key_hex), "sig": to_base64(signer.sign(message))}


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
    payload_type, payload, signatures = _opened(envelope)
    _require_type(payload_type, record_type)
    if len(signatures) > record_type.max_signatures:
        limit = f"at most {record_type.max_signatures} signature(s)"
        raise _refused(record_type.kind, limit, f"{len(signatures)}", "envelope")
    _require_canonical(envelope, MAX_ENVELOPE_BYTES, "envelope")
    signed_by = _signers(record_type.kind, payload_type, payload, signatures, quorums)
    for quorum in quorums:
        valid = len(signed_by & {key.lower() for key in quorum.keys})
        if valid < quorum.threshold:
            raise _refused(
                f"signature of {record_type.kind}",
                f"{quorum.threshold} valid signature(s) by pinned keys",
                f"{valid}",
                "signature",
            )
    _require_readable(payload_type, payload, record_type)
    record = _record_of(payload, table, record_type)
    document = envelope if table is None else envelope + b"\n" + table
    return Verified(record, digest_of_bytes(envelope), document)


def _signers(
    kind: str,
    payload_type: str,
    payload: bytes,
    signatures: tuple["_Signature", ...],
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
        raise _refused(f"signatures of {kind}", expected, "another order, or a key twice", "order")
    message = pre_authentication_encoding(payload_type, payload)
    for signature in signatures:
        key = pinned.get(signature.keyid)
        if key is None or not signature.is_valid(bytes.fromhex(key), message):
            raise _refused(
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
        raise _refused(record_type.kind, f"at most {limit} bytes", f"{len(document)}", "size")


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
    raise _refused("payload type", record_type.payload_type(), ascii(payload_type)[:100], "kind")


def unverified_record(envelope: bytes, record_type: type[RecordT]) -> RecordT:
    """The record an envelope claims to hold, unverified: only to find the keys that it names."""
    _require_length(envelope, record_type)
    envelope, table = _split(envelope)
    payload_type, payload, _ = _opened(envelope)
    _require_type(payload_type, record_type)
    _require_readable(payload_type, payload, record_type)
    return _record_of(payload, table, record_type)


def signing_keys(envelope: bytes, keys: Collection[str]) -> frozenset[str]:
    """Which of `keys` have a valid signature on an envelope, however many others it lacks."""
    payload_type, payload, signatures = _opened(envelope)
    message = pre_authentication_encoding(payload_type, payload)
    return frozenset(
        key for key in keys if any(s.is_valid(bytes.fromhex(key), message) for s in signatures)
    )


def _require_readable(payload_type: str, payload: bytes, record_type: type[Record]) -> None:
    if payload_type != record_type.payload_type():
        named = _PAYLOAD_TYPE.fullmatch(payload_type)
        version = named[2] if named is not None else "?"
        raise _newer(record_type.kind, f"version {version} of the records", _program_of(payload))


def _require_no_later(kind: str, payload: bytes, found: str) -> None:
    """Raise with rule NEWER where a later release says that it wrote this payload."""
    program = _program_of(payload)
    if program is not None and is_later(program, program_version()):
        raise _newer(kind, found, program)


def _program_of(payload: bytes) -> str | None:
    """The release that a payload says it was written by, whatever else it says."""
    fields = parse_strict(payload, MAX_ENVELOPE_BYTES)
    program = fields.get("program") if isinstance(fields, dict) else None
    is_one = isinstance(program, str) and _PROGRAM.fullmatch(program) is not None
    return program if is_one else None


def _newer(kind: str, found: str, program: str | None) -> UntrustedInputError:
    by = f", written by {program}" if program else ""
    to = f"to at least {program}" if program else "to the release that the others have"
    return UntrustedInputError(
        kind,
        expected=f"one that version {program_version()} of Consortia reads",
        found=f"{found}{by}",
        action=f"upgrade Consortia on this machine (silo-agent, consortia) {to}; see "
        "docs/upgrade.md",
        rule=NEWER,
    )


def claims_kind(envelope: bytes, record_type: type[Record]) -> bool:
    """Whether an envelope claims to hold this kind, in any version; unverified, as `peek_kind`."""
    named = _PAYLOAD_TYPE.fullmatch(peek_kind(envelope))
    return named is not None and named[1] == record_type.kind


def peek_kind(envelope: bytes) -> str:
    """Payload type an envelope claims, unverified: only for choosing which type to verify as."""
    payload_type, _, _ = _opened(_split(envelope)[0])
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


@_remembered
def _opened(envelope: bytes) -> tuple[str, bytes, tuple["_Signature", ...]]:
    """Payload type, payload and signatures of an envelope, none of them verified."""
    return _envelope_fields(parse_strict(envelope, MAX_ENVELOPE_BYTES))


@_remembered
def _require_canonical(data: bytes, max_bytes: int, what: str) -> None:
    if _canonical(parse_strict(data, max_bytes), what) != data:
        raise _refused(what, "RFC 8785 canonical bytes", "another encoding", "canonical")


def _record_of(payload: bytes, table: bytes | None, record_type: type[RecordT]) -> RecordT:
    """The record of a payload and its table; of a kind that has one, neither stands alone."""
    if (table is not None) != bool(record_type.table_fields):
        expected = "a table on a second line" if table is None else "one line"
        raise _refused(record_type.kind, expected, "another document", TABLE)
    if len(payload) > record_type.max_payload_bytes:
        expected = f"at most {record_type.max_payload_bytes} bytes"
        raise _refused(record_type.kind, expected, f"{len(payload)}", "size")
    record: RecordT = (
        _record_without_table(payload, record_type)
        if table is None
        else _record_with_table(payload, table, record_type)
    )
    return record


@_remembered
def _record_without_table(payload: bytes, record_type: type[RecordT]) -> RecordT:
    _require_canonical(payload, record_type.max_payload_bytes, "payload")
    return _validated(payload, payload, None, record_type)


@lru_cache(maxsize=REMEMBERED_TABLES)
def _record_with_table(payload: bytes, table: bytes, record_type: type[RecordT]) -> RecordT:
    _require_canonical(payload, record_type.max_payload_bytes, "payload")
    fields = parse_strict(payload, record_type.max_payload_bytes)
    _require_named(fields, table, record_type.kind)
    rows = parse_strict(table, MAX_TABLE_BYTES)
    if not isinstance(rows, dict) or set(rows) != set(record_type.table_fields):
        raise _refused(f"table of {record_type.kind}", "its own lists", "others", "schema")
    whole = {name: value for name, value in fields.items() if name != TABLE} | rows
    return _validated(json.dumps(whole).encode(), payload, table, record_type)


def _validated(
    whole: bytes, payload: bytes, table: bytes | None, record_type: type[RecordT]
) -> RecordT:
    try:
        record = record_type.model_validate_json(whole)
    except ValidationError as error:
        _require_no_later(record_type.kind, payload, "what this release does not know")
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"{where}: {first['msg']}"[:200]
        raise _refused(record_type.kind, "its published schema", found, "schema") from None
    if canonical_bytes(record) != payload or table_bytes(record) != table:
        raise _refused(record_type.kind, "one spelling of every value", "another", "schema")
    return record


def _require_named(fields: Any, table: bytes, kind: str) -> None:
    named = fields.get(TABLE) if isinstance(fields, dict) else None
    if named != artifact_of_bytes(table).model_dump():
        raise _refused(kind, "the table that its payload names", "another", TABLE)


def _split(document: bytes) -> tuple[bytes, bytes | None]:
    """Envelope and table; canonical JSON has no line break."""
    envelope, separator, table = document.partition(b"\n")
    return envelope, table if separator else None


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
        values.append(_Signature(signature["keyid"], from_base64(signature["sig"])))
    return payload_type, from_base64(parsed["payload"]), tuple(values)


@dataclass(frozen=True)
class _Signature:
    keyid: str
    value: bytes

    def is_valid(self, public_key: bytes, message: bytes) -> bool:
        """The key id must be the key's own: it adds nothing to trust, but must not be malleable."""
        if self.keyid != key_id(public_key.hex()):
            return False
        return _is_signed(message, public_key, self.value)


@_remembered
def _is_signed(message: bytes, public_key: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _depth(data: bytes) -> int:
    """Deepest bracket nesting outside strings, found without recursion."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
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


def from_base64(text: Any) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise _refused("envelope", "canonical base64", "another encoding", "envelope")
    return data


def _refused(problem: str, expected: str, found: str, rule: str) -> UntrustedInputError:
    return UntrustedInputError(
        problem,
        expected=expected,
        found=found,
        action="do not use these bytes; ask their sender for the original",
        rule=f"envelope.{rule}",
    )
