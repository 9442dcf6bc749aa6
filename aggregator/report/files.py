"""The files of a report: bundle, page and archive, written and read back.

The page embeds the whole bundle, the archive spells it out as single files. All three are
deterministic in the report and its evidence.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aggregator.attempt import Attempt
from aggregator.report.archive import READABLE, export_archive, read_archive
from aggregator.report.bundle import (
    MAX_BUNDLE_BYTES,
    Bundle,
    bundle_of,
    is_whole,
    malformed,
    pack_bundle,
    unpack_bundle,
)
from aggregator.report.compliance_page.page import (
    RENDERER,
    Page,
    former_stem,
    page_ref,
    report_stem,
    split_page,
)
from aggregator.report.report_file import ReportFile, signed_page
from aggregator.report.round_report import build_report
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundReport
from infra.disk.durable_files import write_durably

ERASURE_FILES = "erasure-*.json"
MAX_ERASURES = 1000

log = logging.getLogger("consortia")


@dataclass(frozen=True)
class ReportFiles:
    """Where `write_report_files` put things; no page where another release signed it and it is
    not there any more."""

    bundle: Path
    page: Path | None
    archive: Path


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
        return read_archive(data)
    if data.lstrip()[:1] == b"<":
        found = split_page(data)
        return ReportFile(unpack_bundle(found.bundle), found)
    return ReportFile(unpack_bundle(data))


def erasures_beside(path: Path) -> list[bytes]:
    """Erasures that lie in the folder of a report, as the coordinator puts them there."""
    found = sorted(path.absolute().parent.glob(ERASURE_FILES))[:MAX_ERASURES]
    return [_read_limited(each) for each in found]


def read_bundle(path: Path) -> Bundle:
    """The bundle alone."""
    return read_report_file(path).bundle


def _read_limited(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(2 * MAX_BUNDLE_BYTES + 1)
    if len(data) > 2 * MAX_BUNDLE_BYTES:
        raise malformed(f"at most {2 * MAX_BUNDLE_BYTES} bytes", "more", "size")
    return data


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
    bundle_file, page_file, archive = _paths(directory, report_stem(report.record))
    former_bundle, former_page, _ = _paths(directory, former_stem(report.record))
    if not is_whole(bundle, report):
        kept = _kept_bundle(report, bundle_file) or _kept_bundle(report, former_bundle)
        bundle = kept or bundle
    whole = ReportFile(bundle, _kept_page(report, page_file) or _kept_page(report, former_page))
    shown = signed_page(whole)
    write_durably(bundle_file, pack_bundle(bundle), READABLE)
    if shown is not None:
        write_durably(page_file, shown, READABLE)
    else:
        log.warning("%s cannot be made again; the signed report is in %s", page_file, bundle_file)
    export_archive(whole if shown is None else ReportFile(bundle, split_page(shown)), archive)
    return ReportFiles(bundle_file, page_file if shown else None, archive)


def report_with_page(attempt: Attempt, issued_at: datetime) -> RoundReport:
    """The report of a settled attempt with its page's digest, for the coordinator to sign."""
    report = build_report(attempt, issued_at)
    page = page_ref(report, attempt.settled().evidence())
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
    bundle, page, archive = _paths(directory, report_stem(report.record))
    has_page = page.exists()
    needs_page = report.record.page is not None and report.record.page.renderer == RENDERER
    exist = bundle.exists() and archive.exists() and (has_page or not needs_page)
    if not exist or _kept_bundle(report, bundle) is None:
        return None
    return ReportFiles(bundle, page if has_page else None, archive)


def _kept_bundle(report: Verified[RoundReport], path: Path) -> Bundle | None:
    """The bundle on disk, if it is this report's and has all that it lists."""
    try:
        kept = read_bundle(path)
    except (OSError, UntrustedInputError):
        return None
    return kept if kept.report == report.envelope and is_whole(kept, report) else None


def _paths(directory: Path, stem: str) -> tuple[Path, Path, Path]:
    """Where bundle, page and archive of a report belong."""
    bundle, page, archive = (directory / f"{stem}{suffix}" for suffix in (".json", ".html", ".zip"))
    return bundle, page, archive
