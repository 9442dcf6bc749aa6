"""The archive of a report: the bundle spelled out as single files in one ZIP, and read back."""

import json
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

from aggregator.report.bundle import MAX_BUNDLE_BYTES, Bundle, malformed, pack_bundle, unpack_bundle
from aggregator.report.compliance_page.page import split_page
from aggregator.report.report_file import ReportFile, signed_page
from data_contracts.protocol.envelope import document_digest, unverified_record
from data_contracts.protocol.records import RoundReport
from infra.disk.durable_files import write_durably

BUNDLE_NAME = "report.bundle.json"
PAGE_NAME = "report.html"
README = "README.txt"
_NO_ARCHIVE = (RuntimeError, NotImplementedError, OSError, ValueError)
"""What `zipfile` raises for encrypted members, other methods and sizes that are not so."""
READABLE = 0o644
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def export_archive(report: ReportFile, into: Path) -> None:
    """Write a ZIP of single files: envelopes by signer and kind, report, page, bundle, README.

    The archive is the bundle in another form: verify it afterwards like any other. Raises
    UntrustedInputError when the bundle holds no report, or records that the report does not list.
    """
    files = archive_files(report.bundle)
    page = signed_page(report)
    if page is not None:
        files[PAGE_NAME] = page
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
            entry.external_attr = READABLE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    write_durably(into, buffer.getvalue(), READABLE)


def archive_files(bundle: Bundle) -> dict[str, bytes]:
    """Name and content of every file in the archive but the page."""
    record = unverified_record(bundle.report, RoundReport)
    files = {
        README: ARCHIVE_README.encode(),
        "report.json": _readable(record),
        "report.envelope.json": bundle.report,
        BUNDLE_NAME: pack_bundle(bundle),
    }
    refs = {ref.digest: ref for ref in record.evidence}
    for envelope in bundle.evidence:
        ref = refs.get(document_digest(envelope))
        if ref is None:
            raise malformed("only records that the report lists", "another record", "evidence")
        owner = ref.silo if ref.silo is not None else "coordinator"
        files[f"evidence/{owner}/{ref.kind}-{ref.digest}.json"] = envelope
    for number, envelope in enumerate(bundle.memberships, start=1):
        files[f"memberships/{number:06d}-{document_digest(envelope)}.json"] = envelope
    return files


def read_archive(data: bytes) -> ReportFile:
    """Bundle and page of an archive whose other files say what the bundle says."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise malformed("every file once", "one of two files of a name", "archive")
            files = {name: _member(archive, name) for name in names}
            bundle = unpack_bundle(files[BUNDLE_NAME])
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError, *_NO_ARCHIVE) as error:
        raise malformed(f"a ZIP with {BUNDLE_NAME}", str(error)[:100], "archive") from None
    page = files.pop(PAGE_NAME, None)
    expected = archive_files(bundle)
    # Its words may be those of another version.
    changed = [
        n for n in expected.keys() | files if n != README and expected.get(n) != files.get(n)
    ]
    if changed:
        found = sorted(changed)[0][:100]
        raise malformed("files that say what the bundle says", found, "archive")
    return ReportFile(bundle, split_page(page) if page else None)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > 2 * MAX_BUNDLE_BYTES:
        raise malformed(f"at most {2 * MAX_BUNDLE_BYTES} bytes", "more", "size")
    with archive.open(name) as file:
        return file.read(2 * MAX_BUNDLE_BYTES + 1)


def _readable(report: RoundReport) -> bytes:
    return (json.dumps(report.model_dump(mode="json"), indent=2) + "\n").encode()


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
