"""The files of a report: bundle, page and archive, written and read back.

The page embeds the whole bundle, the archive spells it out as single files. All three are
deterministic in the report and its evidence.
"""

import json
import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path

from aggregator.evidence.attempt import Attempt
from aggregator.report.bundle import (
    MAX_BUNDLE_BYTES,
    Bundle,
    bundle_of,
    is_whole,
    listed_evidence,
    malformed,
    pack_bundle,
    unpack_bundle,
)
from aggregator.report.compliance_page.page import (
    RENDERER,
    Page,
    former_stem,
    page_ref,
    render,
    report_stem,
    split_page,
)
from aggregator.report.report import build_report, evidence_list, settled
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import Verified, document_digest, unverified_record
from data_contracts.protocol.records import RoundReport
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from infra.disk.durable_files import write_durably

log = logging.getLogger("consortia")

BUNDLE_NAME = "report.bundle.json"
PAGE_NAME = "report.html"
README = "README.txt"
_NO_ARCHIVE = (RuntimeError, NotImplementedError, OSError, ValueError)
"""What `zipfile` raises for encrypted members, other methods and sizes that are not so."""
READABLE = 0o644
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ReportFiles:
    """Where `write_report_files` put things; no page where another release signed it and it is
    not there any more."""

    bundle: Path
    page: Path | None
    archive: Path


@dataclass(frozen=True)
class ReportFile:
    """What a file of a report holds: the bundle, and the page where there is one."""

    bundle: Bundle
    page: Page | None = None


def read_report_file(path: Path) -> ReportFile:
    """A `.json` bundle, an `.html` page or a `.zip` archive, told apart by content.

    Raises UntrustedInputError; nothing is verified here but the form.
    """
    data = _read_limited(path)
    try:
        return _report_file(data)
    except UntrustedInputError as error:
        raise error.in_file(path) from None


def _report_file(data: bytes) -> ReportFile:
    if data.startswith(b"PK"):
        return _archived(data)
    if data.lstrip()[:1] == b"<":
        found = split_page(data)
        return ReportFile(unpack_bundle(found.bundle), found)
    return ReportFile(unpack_bundle(data))


def read_bundle(path: Path) -> Bundle:
    """The bundle alone."""
    return read_report_file(path).bundle


def _read_limited(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(2 * MAX_BUNDLE_BYTES + 1)
    if len(data) > 2 * MAX_BUNDLE_BYTES:
        raise malformed(f"at most {2 * MAX_BUNDLE_BYTES} bytes", "more", "size")
    return data


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


def signed_page(report: ReportFile) -> bytes | None:
    """The page whose digest the coordinator signed: the one at hand, or made again.

    None where that cannot be: another version rendered it, or a record is not there any more.
    """
    record = unverified_record(report.bundle.report, RoundReport)
    for shown in _candidates(report, record):
        page = Page(shown, pack_bundle(report.bundle))
        if record.page is not None and page.digest == record.page.digest:
            return page.whole
    return None


def _candidates(report: ReportFile, record: RoundReport) -> Iterator[bytes]:
    """What the page may have shown, the cheaper to have first."""
    if report.page is not None:
        yield report.page.shown
    shown = rendered_again(record, listed_evidence(report.bundle, record))
    if shown is not None:
        yield shown


def rendered_again(
    record: RoundReport, evidence: Sequence[tuple[EvidenceRef, bytes]]
) -> bytes | None:
    """What the page shows, by the version that its coordinator had; None without that version or
    without all evidence."""
    same_version = record.page is not None and record.page.renderer == RENDERER
    if not same_version or len(evidence) != len(record.evidence):
        return None
    return render(record, evidence)


def write_report_files(
    report: Verified[RoundReport],
    attempt: Attempt,
    directory: Path,
    memberships: tuple[bytes, ...] = (),
) -> ReportFiles:
    """Write bundle, page and archive to `directory`; the same memberships give the same bytes.

    Evidence that was erased from storage since is taken from the bundle that is there already, also
    from one of a name without the run, which stays as it is.
    """
    bundle = bundle_of(report, attempt, memberships)
    files, former = _named(report.record, directory), _formerly_named(report.record, directory)
    if not is_whole(bundle, report):
        kept = _kept_bundle(report, files.bundle) or _kept_bundle(report, former.bundle)
        bundle = kept or bundle
    page = _kept_page(report, files.page) or _kept_page(report, former.page)
    whole = ReportFile(bundle, page)
    shown = signed_page(whole)
    write_durably(files.bundle, pack_bundle(bundle), READABLE)
    if shown is not None:
        write_durably(files.page, shown, READABLE)
    else:
        log.warning("%s cannot be made again; the signed report is in %s", files.page, files.bundle)
    signed = whole if shown is None else ReportFile(bundle, split_page(shown))
    export_archive(signed, files.archive)
    return ReportFiles(files.bundle, files.page if shown else None, files.archive)


def report_with_page(attempt: Attempt, issued_at: datetime) -> RoundReport:
    """The report of a settled attempt with its page's digest, for the coordinator to sign."""
    report = build_report(attempt, issued_at)
    page = page_ref(report, evidence_list(settled(attempt)))
    return report.model_copy(update={"page": page})


def _kept_page(report: Verified[RoundReport], path: Path) -> Page | None:
    """The page on disk, if it is the one that was signed."""
    try:
        page = split_page(path.read_bytes())
    except (OSError, UntrustedInputError):
        return None
    signed = report.record.page
    return page if signed is not None and page.digest == signed.digest else None


def whole_files(report: Verified[RoundReport], directory: Path) -> ReportFiles | None:
    """The files of a report as they were written, with all that it lists; None where one lacks."""
    named = _named(report.record, directory)
    has_page = named.page.exists()
    needs_page = report.record.page is not None and report.record.page.renderer == RENDERER
    exist = named.bundle.exists() and named.archive.exists() and (has_page or not needs_page)
    if not exist or _kept_bundle(report, named.bundle) is None:
        return None
    return ReportFiles(named.bundle, named.page if has_page else None, named.archive)


def _kept_bundle(report: Verified[RoundReport], path: Path) -> Bundle | None:
    """The bundle on disk, if it is this report's and has all that it lists."""
    try:
        kept = read_bundle(path)
    except (OSError, UntrustedInputError):
        return None
    return kept if kept.report == report.envelope and is_whole(kept, report) else None


@dataclass(frozen=True)
class _Named:
    """Where the files of a report belong."""

    bundle: Path
    page: Path
    archive: Path


def _named(record: RoundReport, directory: Path) -> _Named:
    return _of_stem(directory, report_stem(record))


def _formerly_named(record: RoundReport, directory: Path) -> _Named:
    return _of_stem(directory, former_stem(record))


def _of_stem(directory: Path, stem: str) -> _Named:
    return _Named(*(directory / f"{stem}{suffix}" for suffix in (".json", ".html", ".zip")))


def _archived(data: bytes) -> ReportFile:
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
