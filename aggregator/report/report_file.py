"""What one file of a report holds, whatever its form, and the page that was signed of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aggregator.report.bundle import Bundle, listed_evidence, pack_bundle
from aggregator.report.compliance_page.page import RENDERER, Page, render
from data_contracts.protocol.envelope import unverified_record
from data_contracts.protocol.records import RoundReport
from data_contracts.protocol.records.evidence_ref import EvidenceRef


@dataclass(frozen=True)
class ReportFile:
    """What a file of a report holds: the bundle, and the page where there is one."""

    bundle: Bundle
    page: Page | None = None


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
