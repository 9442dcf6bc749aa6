"""The files of a report: bundle, page and archive, and how to read a bundle back.

A bundle is one JSON object with the signed report and every evidence envelope as base64, and
nothing else: all that an auditor needs offline. The page embeds the whole bundle, the archive
spells it out as single files. All three are deterministic in the report and its evidence.
"""

import base64
import binascii
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from aggregator.attempt import Attempt
from aggregator.report import evidence_list, settled
from aggregator.report_page import BUNDLE_ELEMENT_ID, render_page
from data_contracts.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_TABLE_BYTES,
    Verified,
    document_digest,
    parse_strict,
    to_base64,
    unverified_record,
)
from data_contracts.errors import UntrustedInputError
from data_contracts.records import RoundReport, Verdict
from infra.durable_files import write_durably

FORMAT = "consortia-report-2"
BUNDLE_NAME = "report.bundle.json"
MAX_BUNDLE_BYTES = 64 * 1024 * 1024
MAX_DOCUMENT_BYTES = MAX_ENVELOPE_BYTES + MAX_TABLE_BYTES
MAX_EVIDENCE = 8000
MAX_MEMBERSHIPS = 10_000
READABLE = 0o644
_EMBEDDED = re.compile(
    rb'<script type="application/json" id="' + BUNDLE_ELEMENT_ID.encode() + rb'">([^<]*)</script>'
)
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """Envelope bytes of the report, of its evidence in the order of the report's list, and of the
    memberships from the founding to the newest that the coordinator knew."""

    report: bytes
    evidence: tuple[bytes, ...]
    memberships: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class ReportFiles:
    """Where `write_report_files` put things."""

    bundle: Path
    page: Path
    archive: Path


def bundle_of(
    report: Verified[RoundReport], attempt: Attempt, memberships: tuple[bytes, ...] = ()
) -> Bundle:
    """The report with exactly the evidence that it lists."""
    listed = {ref.digest for ref in report.record.evidence}
    envelopes = (envelope for _, envelope in evidence_list(settled(attempt)))
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
        raise _malformed(f"format {FORMAT}", ascii(parsed["format"])[:60], "format")
    if not isinstance(parsed, dict) or set(parsed) != {
        "format",
        "report",
        "evidence",
        "memberships",
    }:
        raise _malformed("format, report, evidence and memberships", "other fields", "fields")
    return Bundle(
        _from_base64(parsed["report"]),
        _envelopes(parsed["evidence"], MAX_EVIDENCE),
        _envelopes(parsed["memberships"], MAX_MEMBERSHIPS),
    )


def _envelopes(values: Any, limit: int) -> tuple[bytes, ...]:
    if not isinstance(values, list) or len(values) > limit:
        raise _malformed(f"a list of at most {limit} envelopes", "other", "evidence")
    return tuple(_from_base64(item) for item in values)


def embedded_bundle(page: bytes) -> bytes:
    """Bytes of the bundle inside a report page; raises UntrustedInputError without exactly one."""
    found = _EMBEDDED.findall(page)
    if len(found) != 1:
        raise _malformed("a page with exactly one embedded bundle", f"{len(found)}", "page")
    return bytes(found[0])


def read_bundle(path: Path) -> Bundle:
    """Bundle of a `.json` bundle, an `.html` page or a `.zip` archive, told apart by content."""
    if path.stat().st_size > 2 * MAX_BUNDLE_BYTES:
        raise _malformed(f"at most {2 * MAX_BUNDLE_BYTES} bytes", f"{path.stat().st_size}", "size")
    data = path.read_bytes()
    try:
        if data.startswith(b"PK"):
            data = _archived_bundle(data)
        elif data.lstrip()[:1] == b"<":
            data = embedded_bundle(data)
        return unpack_bundle(data)
    except UntrustedInputError as error:
        raise error.in_file(path) from None


def export_archive(bundle: Bundle, into: Path) -> None:
    """Write a ZIP of single files: envelopes by signer and kind, report, page, bundle, README.

    The archive is the bundle in another form: verify it afterwards like any other. Raises
    UntrustedInputError when the bundle holds no report, or records that the report does not list.
    """
    files = archive_files(bundle)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
            entry.external_attr = READABLE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    write_durably(into, buffer.getvalue(), READABLE)


def archive_files(bundle: Bundle) -> dict[str, bytes]:
    """Name and content of every file in the archive."""
    record = unverified_record(bundle.report, RoundReport)
    files = {
        "README.txt": ARCHIVE_README.encode(),
        "report.html": page_of(bundle),
        "report.json": _readable(record),
        "report.envelope.json": bundle.report,
        BUNDLE_NAME: pack_bundle(bundle),
    }
    refs = {ref.digest: ref for ref in record.evidence}
    for envelope in bundle.evidence:
        ref = refs.get(document_digest(envelope))
        if ref is None:
            raise _malformed("only records that the report lists", "another record", "evidence")
        owner = ref.silo if ref.silo is not None else "coordinator"
        files[f"evidence/{owner}/{ref.kind}-{ref.digest}.json"] = envelope
    for number, envelope in enumerate(bundle.memberships, start=1):
        files[f"memberships/{number:06d}-{document_digest(envelope)}.json"] = envelope
    return files


def page_of(bundle: Bundle) -> bytes:
    """The page that belongs to a bundle."""
    record = unverified_record(bundle.report, RoundReport)
    digest = document_digest(bundle.report)
    return render_page(record, _verdicts(bundle, record), digest, pack_bundle(bundle))


def _verdicts(bundle: Bundle, record: RoundReport) -> dict[str, Verdict]:
    """The silos' verdicts that the report lists; whoever verifies the bundle verifies them too."""
    owners = {ref.digest: ref.silo for ref in record.evidence if ref.kind == Verdict.kind}
    found = {owners.get(document_digest(e)): e for e in bundle.evidence}
    return {silo: unverified_record(e, Verdict) for silo, e in found.items() if silo is not None}


def write_report_files(
    report: Verified[RoundReport],
    attempt: Attempt,
    directory: Path,
    memberships: tuple[bytes, ...] = (),
) -> ReportFiles:
    """Write bundle, page and archive to `directory`; the same memberships give the same bytes.

    Evidence that was erased from storage since is taken from the bundle that is there already.
    """
    bundle = bundle_of(report, attempt, memberships)
    files = report_files(report.record, directory)
    if not _is_whole(bundle, report):
        bundle = _kept_bundle(report, files) or bundle
    write_durably(files.bundle, pack_bundle(bundle), READABLE)
    write_durably(files.page, page_of(bundle), READABLE)
    export_archive(bundle, files.archive)
    return files


def whole_files(report: Verified[RoundReport], directory: Path) -> ReportFiles | None:
    """The files of a report as they were written, with all that it lists; None where one lacks."""
    files = report_files(report.record, directory)
    exist = all(path.exists() for path in (files.bundle, files.page, files.archive))
    return files if exist and _kept_bundle(report, files) is not None else None


def _kept_bundle(report: Verified[RoundReport], files: ReportFiles) -> Bundle | None:
    """The bundle on disk, if it is this report's and has all that it lists."""
    try:
        kept = read_bundle(files.bundle)
    except (OSError, UntrustedInputError):
        return None
    return kept if kept.report == report.envelope and _is_whole(kept, report) else None


def _is_whole(bundle: Bundle, report: Verified[RoundReport]) -> bool:
    present = {document_digest(envelope) for envelope in bundle.evidence}
    return present == {ref.digest for ref in report.record.evidence}


def report_files(record: RoundReport, directory: Path) -> ReportFiles:
    """Where they lie: `round-0001` for a first attempt, `round-0001-attempt-02` for a retry."""
    stem = f"round-{record.round:04d}"
    stem += f"-attempt-{record.attempt:02d}" if record.attempt > 1 else ""
    return ReportFiles(*(directory / f"{stem}{suffix}" for suffix in (".json", ".html", ".zip")))


def _archived_bundle(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            if archive.getinfo(BUNDLE_NAME).file_size > MAX_BUNDLE_BYTES:
                raise _malformed(f"at most {MAX_BUNDLE_BYTES} bytes", "more", "size")
            with archive.open(BUNDLE_NAME) as file:
                return file.read(MAX_BUNDLE_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError) as error:
        raise _malformed(f"a ZIP with {BUNDLE_NAME}", str(error)[:100], "archive") from None


def _readable(report: RoundReport) -> bytes:
    return (json.dumps(report.model_dump(mode="json"), indent=2) + "\n").encode()


def _from_base64(text: Any) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or to_base64(data) != text:
        raise _malformed("envelopes in canonical base64", "another encoding", "base64")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _malformed(f"records of at most {MAX_DOCUMENT_BYTES} bytes", "more", "size")
    return data


def _malformed(expected: str, found: str, rule: str) -> UntrustedInputError:
    return UntrustedInputError(
        "report bundle",
        expected=expected,
        found=found,
        action="ask the federation operator for the bundle, page or archive as it was written",
        rule=f"bundle.{rule}",
    )


ARCHIVE_README = """\
Evidence of one round of federated fine-tuning
==============================================

report.html            the report for people; it also holds the bundle
report.json            the same report as plain JSON (unsigned, for reading)
report.envelope.json   the signed report: a DSSE envelope, signed by the coordinator
report.bundle.json     signed report and all evidence in one file
evidence/              one DSSE envelope per record, by signer; the name ends in the SHA-256
                       of its first line, and the report lists every one of them
memberships/           every version of the membership from the founding on, each signed by the
                       root keys of the version before

Verify everything offline, with the membership file that you were handed, whichever version it is:

    consortia report verify report.bundle.json --trust membership.json

Verify one signature without Consortia (openssl 3, jq, xxd). KEY is the signer's public key in
hex, from the membership file that you trust:

    head -n 1 E.json > envelope.json
    jq -r .payload envelope.json | base64 -d > payload.json
    jq -r '.signatures[0].sig' envelope.json | base64 -d > signature
    TYPE=$(jq -r .payloadType envelope.json)
    printf 'DSSEv1 %d %s %d ' ${#TYPE} "$TYPE" $(wc -c < payload.json) > message
    cat payload.json >> message
    printf '302a300506032b6570032100%s' KEY | xxd -r -p > key.der
    openssl pkey -pubin -inform DER -in key.der -out key.pem
    openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in message -sigfile signature

Then read payload.json: it is exactly what was signed. Each record names the ones it rests on by
the SHA-256 of their first lines (plan_digest, verdict_digest, close_digest, candidate_digest).
Where there is a second line, it is the record's table: its SHA-256 and size are "table" in
payload.json.
"""
