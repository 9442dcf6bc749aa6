"""Records as an earlier or a later release would have signed them."""

import json
from typing import Any

import rfc8785

from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.dsse import key_id, pre_authentication_encoding, to_base64
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Record
from infra.signing_keys import SigningKey


def signed_as(
    record: Record, key: SigningKey, *, wire: int = 2, without: str = "", **fields: Any
) -> tuple[str, bytes]:
    """Digest and envelope of `record` with other fields, in another version of the wire."""
    payload = {**parsed(canonical_bytes(record)), **fields}
    payload.pop(without, None)
    data, kind = rfc8785.dumps(payload), record.payload_type().replace(".v2+", f".v{wire}+")
    signature = to_base64(key.sign(pre_authentication_encoding(kind, data)))
    signatures = [{"keyid": key_id(key.public_key_hex), "sig": signature}]
    envelope = rfc8785.dumps(
        {"payload": to_base64(data), "payloadType": kind, "signatures": signatures}
    )
    return digest_of_bytes(envelope), envelope


def parsed(payload: bytes) -> dict[str, Any]:
    return dict(json.loads(payload))
