"""The one door: nothing that was altered, misdirected, forged or malformed comes through."""

import base64
import itertools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_bytes, digest_of_bytes
from data_contracts.protocol.dsse import (
    MAX_ENVELOPE_BYTES,
    countersign,
    key_id,
    pre_authentication_encoding,
    to_base64,
)
from data_contracts.protocol.envelope import (
    Quorum,
    document_digest,
    peek_kind,
    seal,
    unverified_record,
    verify,
    verify_quorums,
)
from data_contracts.protocol.payload import canonical_bytes, table_bytes
from data_contracts.protocol.records import (
    RECORD_TYPES,
    Acceptance,
    ContractAgreement,
    Membership,
    Record,
)
from data_contracts.protocol.strict_json import _depth, parse_strict
from infra.signing_keys import SigningKey
from tests.data_contracts.record_samples import SAMPLES

MANY = [SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(33)]
KEYS = MANY[:20]
ACCEPTANCE = SAMPLES["acceptance"]
MEMBERSHIP = SAMPLES["membership"]
PAYLOAD = json.loads(rfc8785.dumps(ACCEPTANCE.model_dump(mode="json")))


def envelope_of(payload: bytes, payload_type: str, *signers: SigningKey) -> bytes:
    """An envelope with valid signatures over any bytes at all."""
    message = pre_authentication_encoding(payload_type, payload)
    signatures = [
        {"keyid": key_id(s.public_key_hex), "sig": base64.b64encode(s.sign(message)).decode()}
        for s in signers
    ]
    content: dict[str, Any] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": signatures,
    }
    return rfc8785.dumps(content)


def refused(envelope: bytes, record_type: type[Record] = Acceptance, threshold: int = 1) -> str:
    """Reason why verify refuses these bytes."""
    with pytest.raises(UntrustedInputError) as caught:
        verify(envelope, record_type, [k.public_key_hex for k in KEYS[:3]], threshold)
    return caught.value.rule


def signed(payload: bytes) -> bytes:
    return envelope_of(payload, Acceptance.payload_type(), KEYS[0])


def test_what_was_sealed_comes_back_with_its_digest() -> None:
    sealed = seal(ACCEPTANCE, KEYS[0])
    verified = verify(sealed.envelope, Acceptance, [KEYS[0].public_key_hex])
    assert verified == sealed
    assert verified.digest == digest_of_bytes(sealed.envelope)
    assert peek_kind(sealed.envelope) == "application/vnd.consortia.acceptance.v2+json"


def test_pae_is_that_of_the_dsse_specification() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == expected


@pytest.mark.parametrize(("one", "other"), itertools.permutations(sorted(RECORD_TYPES), 2))
def test_no_kind_passes_as_another(one: str, other: str) -> None:
    assert refused(seal(SAMPLES[one], KEYS[0]).envelope, RECORD_TYPES[other]) == "envelope.kind"


@pytest.mark.parametrize(("one", "other"), itertools.permutations(sorted(RECORD_TYPES), 2))
def test_no_payload_passes_under_another_kind_s_type(one: str, other: str) -> None:
    """Signed again under the other type, the closed schema still tells them apart."""
    forged = envelope_of(canonical_bytes(SAMPLES[one]), RECORD_TYPES[other].payload_type(), KEYS[0])
    tables = {table_bytes(SAMPLES[one]), table_bytes(SAMPLES[other])} - {None}
    for document in (forged, *(forged + b"\n" + table for table in tables if table)):
        assert refused(document, RECORD_TYPES[other]) in {"envelope.schema", "envelope.table"}


def test_a_key_that_is_not_pinned_does_not_count() -> None:
    assert refused(seal(ACCEPTANCE, KEYS[5]).envelope) == "envelope.signature"


def test_what_was_read_before_is_asked_for_its_signature_again() -> None:
    envelope = seal(ACCEPTANCE, KEYS[0]).envelope
    for _ in range(2):
        assert verify(envelope, Acceptance, [KEYS[0].public_key_hex]).record == ACCEPTANCE
    with pytest.raises(UntrustedInputError, match="valid signature"):
        verify(envelope, Acceptance, [KEYS[1].public_key_hex])
    with pytest.raises(UntrustedInputError, match="payload type"):
        verify(envelope, Membership, [KEYS[0].public_key_hex])


def test_tampered_payload() -> None:
    content = json.loads(seal(ACCEPTANCE, KEYS[0]).envelope)
    payload = rfc8785.dumps(PAYLOAD | {"silo": "bank-b"})
    content["payload"] = base64.b64encode(payload).decode()
    assert refused(rfc8785.dumps(content)) == "envelope.signature"


@pytest.mark.parametrize(("signers", "threshold", "enough"), [(1, 1, 1), (1, 2, 0), (2, 2, 1)])
def test_threshold(signers: int, threshold: int, enough: int) -> None:
    envelope = seal(MEMBERSHIP, *KEYS[:signers]).envelope
    if enough:
        keys = [k.public_key_hex for k in KEYS[:3]]
        assert verify(envelope, Membership, keys, threshold).record == MEMBERSHIP
    else:
        assert refused(envelope, Membership, threshold) == "envelope.signature"


def test_a_threshold_below_one_is_a_fault() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        verify(seal(ACCEPTANCE, KEYS[0]).envelope, Acceptance, [], 0)


def test_one_key_counts_once_however_it_is_named() -> None:
    assert refused(membership_signed_by(0, 0), Membership, 2) == "envelope.order"
    content = json.loads(membership_signed_by(0, 0))
    content["signatures"][1]["keyid"] = key_id(KEYS[1].public_key_hex)
    content["signatures"].sort(key=lambda signature: signature["keyid"])
    assert refused(rfc8785.dumps(content), Membership, 2) == "envelope.signature"
    spellings = [KEYS[0].public_key_hex, KEYS[0].public_key_hex.upper()]
    with pytest.raises(UntrustedInputError, match="found 1"):
        verify(seal(MEMBERSHIP, KEYS[0]).envelope, Membership, spellings, 2)


def membership_signed_by(*numbers: int) -> bytes:
    """Signatures in the order given, as an envelope can be made without `seal`."""
    payload = canonical_bytes(MEMBERSHIP)
    signers = [KEYS[number] for number in numbers]
    return envelope_of(payload, Membership.payload_type(), *signers)


IN_ORDER = sorted(range(3), key=lambda number: key_id(KEYS[number].public_key_hex))


@pytest.mark.parametrize(
    ("signers", "rule"),
    [
        (IN_ORDER[::-1], "envelope.order"),
        ((*IN_ORDER, IN_ORDER[-1]), "envelope.order"),
        (
            sorted((*IN_ORDER, 5), key=lambda n: key_id(KEYS[n].public_key_hex)),
            "envelope.signature",
        ),
    ],
)
def test_a_signature_that_is_out_of_place_spoils_the_others(
    signers: Sequence[int], rule: str
) -> None:
    """Doubled, reordered or added ones verified once, under another digest each time."""
    whole = membership_signed_by(*IN_ORDER)
    assert verify(whole, Membership, [k.public_key_hex for k in KEYS[:3]], 3).envelope == whole
    assert refused(membership_signed_by(*signers), Membership, 2) == rule


def test_a_junk_signature_under_a_pinned_key_spoils_the_others() -> None:
    content = json.loads(membership_signed_by(*IN_ORDER[:2]))
    junk = {"keyid": key_id(KEYS[IN_ORDER[2]].public_key_hex), "sig": "AAAA"}
    content["signatures"].append(junk)
    assert refused(rfc8785.dumps(content), Membership, 2) == "envelope.signature"


def test_an_added_multiple_of_the_group_order_is_no_second_signature() -> None:
    """RFC 8032, section 5.1.7: S is below the order, or it is refused."""
    content = json.loads(seal(ACCEPTANCE, KEYS[0]).envelope)
    signature = base64.b64decode(content["signatures"][0]["sig"])
    order = 2**252 + 27742317777372353535851937790883648493
    shifted = int.from_bytes(signature[32:], "little") + order
    malleable = signature[:32] + shifted.to_bytes(32, "little")
    content["signatures"][0]["sig"] = base64.b64encode(malleable).decode()
    assert refused(rfc8785.dumps(content)) == "envelope.signature"


def test_two_groups_each_have_to_sign() -> None:
    envelope = seal(MEMBERSHIP, *KEYS[:3]).envelope
    names = [key.public_key_hex for key in KEYS]
    first, second = Quorum(frozenset(names[:2]), 2), Quorum(frozenset(names[1:4]), 2)
    assert verify_quorums(envelope, Membership, [first, second]).record == MEMBERSHIP
    for lacking in (Quorum(frozenset(names[3:5])), Quorum(frozenset(names[1:4]), 3)):
        with pytest.raises(UntrustedInputError, match="by pinned keys"):
            verify_quorums(envelope, Membership, [first, second, lacking])


def of_version(version: int) -> bytes:
    payload = rfc8785.dumps(PAYLOAD | {"version": version})
    kind = f"application/vnd.consortia.acceptance.v{version}+json"
    return envelope_of(payload, kind, KEYS[0])


def test_an_earlier_version_of_the_wire_is_named() -> None:
    envelope = of_version(1)
    assert refused(envelope) == "envelope.version"
    for read in (lambda: verify(envelope, Acceptance, []), lambda: open_as(envelope)):
        with pytest.raises(UntrustedInputError, match=r"version 2 .*found version 1"):
            read()


@pytest.mark.parametrize("version", [3, 12])
def test_a_later_version_of_the_wire_is_named_where_its_signer_counts(version: int) -> None:
    envelope = of_version(version)
    assert refused(envelope) == "envelope.newer"
    with pytest.raises(UntrustedInputError, match=f"found version {version} of the records"):
        open_as(envelope)
    with pytest.raises(UntrustedInputError, match="valid signatures by pinned keys"):
        verify(envelope, Acceptance, [])


def open_as(envelope: bytes) -> Record:
    return unverified_record(envelope, Acceptance)


def test_a_key_does_not_sign_twice() -> None:
    with pytest.raises(ValueError, match="sign once"):
        seal(MEMBERSHIP, KEYS[0], KEYS[0])
    with pytest.raises(ValueError, match="sign once"):
        countersign(seal(AGREEMENT, KEYS[0]).envelope, KEYS[0])


def test_nobody_can_make_a_second_envelope_of_a_signed_record() -> None:
    """Else anyone who can write to storage could fake a double signature of an honest silo."""
    envelope = seal(ACCEPTANCE, KEYS[0]).envelope
    content = json.loads(envelope)
    assert refused(envelope + b" ") == "envelope.canonical"
    assert refused(json.dumps(content).encode()) == "envelope.canonical"
    assert refused(json.dumps(content, indent=1).encode()) == "envelope.json"
    assert refused(envelope + b"\n") == "envelope.table"
    assert refused(envelope + b"\n{}") == "envelope.table"
    renamed = json.loads(envelope)
    renamed["signatures"][0]["keyid"] = "0" * 16
    assert refused(rfc8785.dumps(renamed)) == "envelope.signature"
    extra = json.loads(envelope)
    extra["signatures"].append({"keyid": "f" * 16, "sig": "AAAA"})
    assert refused(rfc8785.dumps(extra)) == "envelope.envelope"


def test_too_many_signatures() -> None:
    assert refused(seal(MEMBERSHIP, *MANY).envelope, Membership) == "envelope.envelope"
    assert refused(envelope_of(b"{}", Acceptance.payload_type())) == "envelope.envelope"


BAD_PAYLOADS: list[tuple[str, bytes]] = [
    ("envelope.json", b'{"silo":"a","silo":"b"}'),
    ("envelope.json", b'{"round":1.0}'),
    ("envelope.json", b'{"round":1e3}'),
    ("envelope.json", b'{"round":NaN}'),
    ("envelope.json", b'{"round":-Infinity}'),
    ("envelope.json", b'{"round":' + b"9" * 5000 + b"}"),
    ("envelope.json", b"\xff\xfe{}"),
    ("envelope.json", b""),
    ("envelope.depth", b"[" * 9 + b"]" * 9),
    ("envelope.depth", b"[" * 100_000),
    ("envelope.canonical", b'{"a": 1}'),
    ("envelope.canonical", b'{"b":1,"a":1}'),
    ("envelope.canonical", b'{"a":"\\u0041"}'),
    ("envelope.canonical", b'{"a":"\\ud800"}'),
    ("envelope.canonical", b'{"a":9007199254740993}'),
    ("envelope.size", b'{"a":"' + b"x" * 262_144 + b'"}'),
    ("envelope.schema", b"[]"),
    ("envelope.schema", rfc8785.dumps(PAYLOAD | {"more": 1})),
    ("envelope.schema", rfc8785.dumps(PAYLOAD | {"version": 1})),
    ("envelope.schema", rfc8785.dumps(PAYLOAD | {"version": True})),
    ("envelope.schema", rfc8785.dumps(PAYLOAD | {"round": "2"})),
    ("envelope.schema", rfc8785.dumps(PAYLOAD | {"round": True})),
    ("envelope.schema", rfc8785.dumps({k: v for k, v in PAYLOAD.items() if k != "silo"})),
]


@pytest.mark.parametrize(("rule", "payload"), BAD_PAYLOADS)
def test_payloads_that_only_look_like_a_record(rule: str, payload: bytes) -> None:
    assert refused(signed(payload)) == rule


BAD_ENVELOPES: list[tuple[str, bytes]] = [
    ("envelope.json", b"no json"),
    ("envelope.envelope", b"[]"),
    ("envelope.envelope", b"{}"),
    ("envelope.depth", b"[" * 300_000),
    ("envelope.size", b" " * (MAX_ENVELOPE_BYTES + 1)),
]


@pytest.mark.parametrize(("rule", "envelope"), BAD_ENVELOPES)
def test_bytes_that_are_no_envelope(rule: str, envelope: bytes) -> None:
    assert refused(envelope) == rule


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"payload": 3},
        {"payload": "e30"},
        {"payload": "e30=\n"},
        {"payloadType": None},
        {"signatures": {}},
        {"signatures": [1]},
        {"signatures": [{"sig": "AAAA"}]},
        {"signatures": [{"sig": 4, "keyid": "a"}]},
        {"signatures": [{"sig": "AAAA", "keyid": 7}]},
        {"signatures": [{"sig": "AAAA", "keyid": "a", "cert": "b"}]},
    ],
)
def test_fields_of_the_wrong_form(changes: dict[str, Any]) -> None:
    content = json.loads(seal(ACCEPTANCE, KEYS[0]).envelope) | changes
    assert refused(rfc8785.dumps(content)) in {"envelope.envelope", "envelope.kind"}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_ever_verifies(data: st.DataObject) -> None:
    changed = bytearray(seal(ACCEPTANCE, KEYS[0]).envelope)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    assert refused(bytes(changed)).startswith("envelope.")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_and_never_crashes(noise: bytes) -> None:
    assert refused(noise).startswith("envelope.")
    assert refused(signed(noise)).startswith("envelope.")


@pytest.mark.long
def test_a_record_too_large_to_be_read_is_not_sealed() -> None:
    big = ACCEPTANCE.model_copy(update={"federation": "x" * 262_144})
    with pytest.raises(UntrustedInputError, match="at most 262144 bytes"):
        seal(big, KEYS[0])
    report = SAMPLES["round-report"]
    rows = {"evidence": report.evidence * 80_000}  # type: ignore[attr-defined]
    with pytest.raises(UntrustedInputError, match="a table of at most 16777216 bytes"):
        seal(report.model_copy(update=rows), KEYS[0])


class TestTables:
    """Rows for each silo travel beside the envelope, and nobody can exchange them."""

    close = SAMPLES["close"]
    kind = RECORD_TYPES["close"]

    def parts(self) -> tuple[bytes, bytes]:
        envelope, _, table = seal(self.close, KEYS[0]).envelope.partition(b"\n")
        return envelope, table

    def test_the_payload_does_not_grow_with_the_rows(self) -> None:
        rows = {"missing": tuple(f"silo-{number:04d}" for number in range(1000))}
        many = self.close.model_copy(update=rows)
        assert len(canonical_bytes(many)) < len(canonical_bytes(self.close)) + 8
        sealed = seal(many, KEYS[0])
        assert verify(sealed.envelope, self.kind, [KEYS[0].public_key_hex]) == sealed

    def test_a_record_is_named_by_its_envelope(self) -> None:
        envelope, _ = self.parts()
        assert seal(self.close, KEYS[0]).digest == digest_of_bytes(envelope)
        assert document_digest(seal(self.close, KEYS[0]).envelope) == digest_of_bytes(envelope)

    @pytest.mark.parametrize(
        "change",
        [
            lambda table: table.replace(b"bank-d", b"bank-e"),
            lambda table: table + b" ",
            lambda table: b"{}",
            lambda table: b"",
            lambda table: table + b"\n" + table,
        ],
    )
    def test_another_table_is_refused(self, change: Callable[[bytes], bytes]) -> None:
        envelope, table = self.parts()
        document = envelope + b"\n" + change(table)
        assert refused(document, self.kind) == "envelope.table"
        with pytest.raises(UntrustedInputError):
            document_digest(document)

    def test_without_its_table_it_is_no_record(self) -> None:
        envelope, _ = self.parts()
        assert refused(envelope, self.kind) == "envelope.table"

    @pytest.mark.parametrize(
        "table", [b"[]", b"{}", b'{"admitted":[],"missing":[],"refused":[],"rejected":[],"x":[]}']
    )
    def test_a_signed_table_of_other_lists_is_refused(self, table: bytes) -> None:
        fields = json.loads(canonical_bytes(self.close))
        fields["table"] = artifact_of_bytes(table).model_dump()
        envelope = envelope_of(rfc8785.dumps(fields), self.kind.payload_type(), KEYS[0])
        assert refused(envelope + b"\n" + table, self.kind) == "envelope.schema"

    def test_a_list_in_both_places_is_refused(self) -> None:
        _, table = self.parts()
        fields = json.loads(canonical_bytes(self.close)) | {"missing": ["bank-z"]}
        envelope = envelope_of(rfc8785.dumps(fields), self.kind.payload_type(), KEYS[0])
        assert refused(envelope + b"\n" + table, self.kind) == "envelope.schema"


def test_depth_counts_brackets_outside_strings_only() -> None:
    assert parse_strict(b'{"a":"[[[[[[[[[[[[\\"[["}', 100) == {"a": '[[[[[[[[[[[["[['}
    assert parse_strict(b"[[[[[[[[]]]]]]]]", 100) == [[[[[[[[]]]]]]]]


def counted_depth(data: bytes) -> int:
    """Byte by byte, as the definition says."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if escaped:
            escaped = False
        elif byte == ord('"'):
            in_string = not in_string
        elif in_string:
            escaped = byte == ord("\\")
        else:
            depth += (byte in b"[{") - (byte in b"]}")
            deepest = max(deepest, depth)
    return deepest


@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"{", b"]", b"}", b"a", b"\n"])))
def test_depth_is_that_of_a_count_byte_by_byte(parts: list[bytes]) -> None:
    assert _depth(b"".join(parts)) == counted_depth(b"".join(parts))


@pytest.mark.parametrize("part", [b"\\", b'"', b"a", b"["])
def test_depth_of_the_longest_bytes_is_found_in_time(part: bytes) -> None:
    began = time.process_time()
    _depth(b'"' + part * MAX_ENVELOPE_BYTES)
    assert time.process_time() - began < 3


def test_what_was_verified_once_is_still_refused_for_other_keys_and_bytes() -> None:
    first = seal(AGREEMENT, KEYS[0])
    for _ in range(2):
        verify(first.envelope, ContractAgreement, [KEYS[0].public_key_hex])
        with pytest.raises(UntrustedInputError, match="valid signatures by pinned keys"):
            verify(first.envelope, ContractAgreement, [KEYS[1].public_key_hex])
        forged = json.loads(first.envelope)
        forged["signatures"][0]["sig"] = to_base64(bytes(64))
        with pytest.raises(UntrustedInputError, match="valid signatures by pinned keys"):
            verify(rfc8785.dumps(forged), ContractAgreement, [KEYS[0].public_key_hex])


def test_a_value_has_one_spelling_on_the_wire() -> None:
    wire = json.loads(rfc8785.dumps(SAMPLES["evaluation"].model_dump(mode="json")))
    payload = rfc8785.dumps(wire | {"base_loss": "00002.5"})
    kind = RECORD_TYPES["evaluation"]
    assert refused(envelope_of(payload, kind.payload_type(), KEYS[0]), kind) == "envelope.schema"


AGREEMENT = SAMPLES["contract-agreement"]


def test_a_countersigned_envelope_is_the_one_that_both_would_have_sealed() -> None:
    first = seal(AGREEMENT, KEYS[0])
    both = countersign(first.envelope, KEYS[1])
    assert both == seal(AGREEMENT, KEYS[0], KEYS[1]).envelope
    keys = [k.public_key_hex for k in KEYS[:2]]
    assert verify(both, ContractAgreement, keys, threshold=2).record == AGREEMENT
    assert refused(first.envelope, ContractAgreement, 2) == "envelope.signature"


def test_a_kind_with_one_signer_cannot_be_countersigned_into_a_second_envelope() -> None:
    assert refused(countersign(seal(ACCEPTANCE, KEYS[0]).envelope, KEYS[1])) == "envelope.envelope"
    full = countersign(seal(AGREEMENT, KEYS[0]).envelope, KEYS[1])
    assert refused(countersign(full, KEYS[2]), ContractAgreement) == "envelope.envelope"
