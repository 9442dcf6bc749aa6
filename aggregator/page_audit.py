"""Whether the page of a report is the one that its coordinator signed, and says what follows."""

from aggregator.attempt import Attempt
from aggregator.audit_claim import Claim, Outcome
from aggregator.compliance_page.page import RENDERER, Page, page_ref
from aggregator.report import evidence_list, settled
from data_contracts.records import RoundReport

NAME = "page"


def page_claim(
    report: RoundReport, attempt: Attempt, page: Page | None, *, report_follows: bool
) -> Claim:
    """`attempt` is verified and `page` the file that was given, if it was a page.

    Its bytes are held against the signed digest, whatever version rendered it; the digest against
    the evidence only by that very version, and only of a report that follows from the evidence.
    """
    if report.page is None:
        outcome: Outcome = "not checked" if page is None else "fail"
        return Claim(NAME, outcome, "the report names no page, so nobody signed one")
    if page is not None and page.digest != report.page.digest:
        return Claim(NAME, "fail", "its words are not those that the coordinator signed")
    if report.page.renderer != RENDERER:
        theirs = f"version {report.page.renderer} rendered it, this is version {RENDERER}"
        if page is None:
            return Claim(NAME, "not checked", theirs)
        return Claim(NAME, "pass", f"every word is as signed by the coordinator; {theirs}")
    if not report_follows:
        return Claim(NAME, "not checked", "not made again: the report does not follow")
    if page_ref(report, evidence_list(settled(attempt))) != report.page:
        return Claim(NAME, "fail", "the coordinator signed another page than follows from this")
    if page is None:
        return Claim(NAME, "pass", "rendered again it is the one that the coordinator signed")
    return Claim(NAME, "pass", "every word is as signed, and follows from the evidence")
