"""A report with everything that it lists, as one value and as one file of JSON.

A bundle is one JSON object with the signed report and every evidence envelope as base64, and
nothing else: all that an auditor needs offline.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from aggregator.attempt import Attempt
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.dsse import MAX_ENVELOPE_BYTES, to_base64
from data_contracts.protocol.envelope import Verified, document_digest
from data_contracts.protocol.payload import MAX_TABLE_BYTES
from data_contracts.protocol.records import RoundReport
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.strict_json import parse_strict

FORMAT = "consortia-report-2"
MAX_BUNDLE_BYTES = 64 * 1024 * 1024
MAX_DOCUMENT_BYTES = MAX_ENVELOPE_BYTES + MAX_TABLE_BYTES
MAX_EVIDENCE = 8000
MAX_MEMBERSHIPS = 10_000


@dataclass(frozen=True)
class Bundle:
    """Envelope bytes of the report, of its evidence in the order of the report's list, and of the
    memberships from the founding to the newest that the coordinator knew."""

    report: bytes
    evidence: tuple[bytes, ...]
    memberships: tuple[bytes, ...] = ()


def bundle_of(
    report: Verified[RoundReport], attempt: Attempt, memberships: tuple[bytes, ...] = ()
) -> Bundle:
    """The report with exactly the evidence that it lists."""
    listed = {ref.digest for ref in report.record.evidence}
    envelopes = (envelope for _, envelope in attempt.settled().evidence())
    used = tuple(e for e in envelopes if document_digest(e) in listed)
    return Bundle(report.envelope, used, memberships)


def pack_bundle(bundle: Bundle) -> bytes:
    """Canonical bytes of a bundle: sorted keys, no spaces, one line."""
    content = {
        "evidence": [to_base64(envelope) for envelope in bundle.evidence],
        "format": FORMAT,
        "memberships": [to_base64(envelope) for envelope in bundle.memberships],
        "report": to_base64(bundle.report),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def unpack_bundle(data: bytes) -> Bundle:
    """Read a bundle; raises UntrustedInputError. Nothing is verified here but the form."""
    parsed = parse_strict(data, MAX_BUNDLE_BYTES)
    if isinstance(parsed, dict) and parsed.get("format", FORMAT) != FORMAT:
        raise malformed(f"format {FORMAT}", ascii(parsed["format"])[:60], "format")
    if not isinstance(parsed, dict) or set(parsed) != {
        "format",
        "report",
        "evidence",
        "memberships",
    }:
        raise malformed("format, report, evidence and memberships", "other fields", "fields")
    return Bundle(
        _from_base64(parsed["report"]),
        _envelopes(parsed["evidence"], MAX_EVIDENCE),
        _envelopes(parsed["memberships"], MAX_MEMBERSHIPS),
    )


def _envelopes(values: Any, limit: int) -> tuple[bytes, ...]:
    if not isinstance(values, list) or len(values) > limit:
        raise malformed(f"a list of at most {limit} envelopes", "other", "evidence")
    return tuple(_from_base64(item) for item in values)


def listed_evidence(bundle: Bundle, record: RoundReport) -> list[tuple[EvidenceRef, bytes]]:
    """What the report lists, as far as the bundle has it."""
    present = {document_digest(envelope): envelope for envelope in bundle.evidence}
    return [(ref, present[ref.digest]) for ref in record.evidence if ref.digest in present]


def is_whole(bundle: Bundle, report: Verified[RoundReport]) -> bool:
    present = {document_digest(envelope) for envelope in bundle.evidence}
    return present == {ref.digest for ref in report.record.evidence}


def _from_base64(text: Any) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise malformed("envelopes in canonical base64", "another encoding", "base64")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise malformed(f"records of at most {MAX_DOCUMENT_BYTES} bytes", "more", "size")
    return data


def malformed(expected: str, found: str, rule: str) -> UntrustedInputError:
    return UntrustedInputError(
        "report bundle",
        expected=expected,
        found=found,
        action="ask the federation operator for the bundle, page or archive as it was written",
        rule=f"bundle.{rule}",
    )
