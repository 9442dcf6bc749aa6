"""Mutated records before the one door: envelopes that were tampered with, and payloads that their
rightful signer signed although they are wrong.

Of the first none may come through but the original, byte for byte. Of the second only what says the
same to any reader of JSON: the payload is the record's one spelling, value by value.
"""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.dsse import key_id, pre_authentication_encoding
from data_contracts.protocol.envelope import seal, verify
from data_contracts.protocol.payload import canonical_bytes, table_bytes
from data_contracts.protocol.records import RECORD_TYPES, Record
from infra.signing_keys import SigningKey
from tests.chaos.adapters import Counts, Pairs, Spelt, spell
from tests.chaos.hangs import no_hang
from tests.data_contracts.record_samples import SAMPLES

KEYS = [SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2)]
PINNED = frozenset({KEYS[0].public_key_hex})

ODD: list[Any] = [
    Spelt(text)
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "1.0",
        "1e2",
        "NaN",
        "Infinity",
        "9007199254740992",
        "-9007199254740993",
        "99999999999999999999",
        "[]",
        "{}",
        "[null]",
        '{"a":1}',
        "[[[[[[[[[[1]]]]]]]]]]",
    ]
] + [
    "",
    " ",
    "\u2028",
    "\u0000",
    "\ud800",
    "../..",
    "NaN",
    "1e5",
    "-0",
    "0.10",
    "2026-02-30T00:00:00Z",
    "2026-03-02T09:00:00+00:00",
    "0" * 64,
    "A" * 64,
    "0" * 63,
    "x" * 401,
    "b\u0430nk-a",
    "coordinator",
]


@dataclass(frozen=True)
class Sealed:
    """A record of one kind with its document, and its payload as pairs."""

    record: Record
    document: bytes
    payload: bytes
    table: bytes | None


def sealed() -> list[Sealed]:
    """One of every kind, signed by the pinned key."""
    return [
        Sealed(record, seal(record, KEYS[0]).envelope, canonical_bytes(record), table_bytes(record))
        for record in SAMPLES.values()
    ]


Mutator = Callable[[random.Random, Sealed, Sequence[Sealed]], bytes]


def flipped(rng: random.Random, sample: Sealed, _: Sequence[Sealed]) -> bytes:
    """Some bits of the document."""
    document = bytearray(sample.document)
    for _number in range(rng.choice((1, 1, 2, 5))):
        document[rng.randrange(len(document))] ^= 1 << rng.randrange(8)
    return bytes(document)


def cut_or_grown(rng: random.Random, sample: Sealed, _: Sequence[Sealed]) -> bytes:
    """A piece removed, doubled or put in."""
    document = sample.document
    start, end = sorted(rng.randrange(len(document) + 1) for _number in range(2))
    at = rng.randrange(len(document) + 1)
    return rng.choice(
        (
            document[:end],
            document[:start] + document[end:],
            document[:at] + document[start:end] + document[at:],
            document + rng.choice((b"\n", b" ", b"\n{}", b"\0", b"\n" + (sample.table or b"{}"))),
            document[:at] + rng.randbytes(3) + document[at:],
        )
    )


def other_envelope(rng: random.Random, sample: Sealed, all_of_them: Sequence[Sealed]) -> bytes:
    """Fields of the envelope changed, swapped with another record's, or written otherwise."""
    first, separator, table = sample.document.partition(b"\n")
    envelope, other = json.loads(first), json.loads(_first_line(rng.choice(all_of_them)))
    signature = envelope["signatures"][0]
    kind = rng.randrange(9)
    if kind == 0:
        field = rng.choice(("payload", "payloadType", "signatures"))
        envelope[field] = other[field]
    elif kind == 1:
        envelope["signatures"] = rng.choice(([], [signature, signature], [signature] * 40))
    elif kind == 2:
        signature["keyid"] = rng.choice(
            (key_id(KEYS[1].public_key_hex), "", signature["keyid"][:-1])
        )
    elif kind == 3:
        signature["sig"] = _other_base64(rng, signature["sig"])
    elif kind == 4:
        envelope["payload"] = _other_base64(rng, envelope["payload"])
    elif kind == 5:
        envelope[rng.choice(("x", "payload", "keyid"))] = "x"
    elif kind == 6:
        del envelope[rng.choice(list(envelope))]
    elif kind == 7:
        envelope["payloadType"] = rng.choice(
            (
                envelope["payloadType"].replace("v2", "v1"),
                envelope["payloadType"].replace("v2", "v02"),
                envelope["payloadType"].replace("v2", "v3"),
                envelope["payloadType"].upper(),
            )
        )
    else:
        envelope["signatures"] = rng.choice((signature, "x", None, [signature, "x"]))
    spelt = rng.choice((rfc8785.dumps, _plain, _indented))(envelope)
    return spelt + separator + table


def signed_again(rng: random.Random, sample: Sealed, _: Sequence[Sealed]) -> bytes:
    """A wrong payload, or table, under a right signature."""
    payload = json.loads(sample.payload, object_pairs_hook=Pairs)
    text = sample.payload
    kind = rng.randrange(6)
    if kind < 4:
        text = spell(_changed(rng, payload)).encode("utf-8", "surrogatepass")
    elif kind == 4:
        text = rng.choice((_plain, _indented))(json.loads(sample.payload))
    table = sample.table
    if table is not None and rng.random() < 0.3:
        rows = json.loads(table, object_pairs_hook=Pairs)
        table = spell(_changed(rng, rows)).encode("utf-8", "surrogatepass")
    return signed(text, sample.record.payload_type(), table)


def signed(payload: bytes, payload_type: str, table: bytes | None) -> bytes:
    """An envelope of the pinned key over any payload."""
    signature = KEYS[0].sign(pre_authentication_encoding(payload_type, payload))
    envelope = rfc8785.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {
                    "keyid": key_id(KEYS[0].public_key_hex),
                    "sig": base64.b64encode(signature).decode(),
                }
            ],
        }
    )
    return envelope if table is None else envelope + b"\n" + table


def _changed(rng: random.Random, value: Any) -> Any:
    """One change somewhere in a tree of pairs and lists."""
    if not isinstance(value, list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)
    at, kind = rng.randrange(len(value)), rng.randrange(8)
    changed = type(value)(value)
    if kind == 0:
        changed.pop(at)
    elif kind == 1:
        changed.insert(at, changed[at])
    elif kind == 2 and isinstance(changed[at], tuple):
        changed[at] = (rng.choice(("x", "", changed[at][0] + " ", "version")), changed[at][1])
    elif kind == 3:
        rng.shuffle(changed)
    elif isinstance(changed[at], tuple):
        changed[at] = (changed[at][0], _changed(rng, changed[at][1]))
    else:
        changed[at] = _changed(rng, changed[at])
    return changed


def _first_line(sample: Sealed) -> bytes:
    return sample.document.partition(b"\n")[0]


def _other_base64(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    changes = (
        text.rstrip("="),
        text + "=",
        text.replace("+", "-").replace("/", "_"),
        text[:at] + "\n" + text[at:],
        text[:at] + rng.choice("ABCxyz019+/=") + text[at + 1 :],
        _with_spare_bits(text),
    )
    return rng.choice(changes)


def _with_spare_bits(text: str) -> str:
    """The same bytes: bits that padding leaves over are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stem = text.rstrip("=")
    if stem == text:
        return text
    return stem[:-1] + alphabet[alphabet.index(stem[-1]) | 1] + "=" * (len(text) - len(stem))


def _plain(value: Any) -> bytes:
    return json.dumps(value).encode()


def _indented(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")


MUTATORS: tuple[tuple[Mutator, int], ...] = (
    (flipped, 3),
    (cut_or_grown, 2),
    (other_envelope, 4),
    (signed_again, 6),
)


def run(cases: int, seed: int) -> Counts:
    """That many mutants; raises AssertionError with the case for a crash or a wrong acceptance."""
    found, counts = sealed(), Counts(0, {})
    mutators, weights = zip(*MUTATORS, strict=True)
    for number in range(cases):
        rng = random.Random(f"{seed}/{number}")
        sample = rng.choice(found)
        mutate = rng.choices(mutators, weights)[0]
        with no_hang(f"record {number} of seed {seed} ({sample.record.kind})"):
            document = mutate(rng, sample, found)
            rule = judged(document, sample, is_signed=mutate is signed_again)
        if rule is None:
            counts.accepted += 1
        else:
            counts.refused[rule] = counts.refused.get(rule, 0) + 1
    return counts


def judged(document: bytes, sample: Sealed, *, is_signed: bool) -> str | None:
    """The rule that refuses the document; None where it is let through, rightly."""
    try:
        verified = verify(document, RECORD_TYPES[sample.record.kind], PINNED)
    except UntrustedInputError as error:
        assert error.rule.startswith("envelope."), error.rule
        return error.rule
    assert verified.envelope == document, "what was let through is not what came"
    if document != sample.document:
        assert is_signed, "a document that its signer did not make was let through"
        _require_same(document, verified.record)
    return None


def _require_same(document: bytes, record: Record) -> None:
    """Every reader of JSON reads what the record says; what is not written is None."""
    first, _, table = document.partition(b"\n")
    payload = json.loads(base64.b64decode(json.loads(first)["payload"]))
    payload.pop("table", None)
    said = payload | (json.loads(table) if table else {})
    means = record.model_dump(mode="json")
    assert {name: value for name, value in means.items() if name in said} == said
    assert all(means[name] is None for name in means.keys() - said.keys())
