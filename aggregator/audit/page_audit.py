"""Whether the page of a report is the one that its coordinator signed, and says what follows."""

from dataclasses import replace

from jinja2 import TemplateError

from aggregator.attempt import Attempt
from aggregator.audit.claim import Claim
from aggregator.report.compliance_page.page import RENDERER, Page, page_ref
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records import RoundReport

AS_SIGNED, FOLLOWS = "page as signed", "page follows from evidence"


def page_claims(
    report: RoundReport, attempt: Attempt, page: Page | None, *, report_follows: bool
) -> tuple[Claim, Claim]:
    """`attempt` is verified and `page` the file that was given, if it was a page.

    Its bytes are held against the signed digest, whatever version rendered it; the digest against
    the evidence only by that very version, and only of a report that follows from the evidence.
    """
    as_signed = _as_signed(report, page)
    follows = _follows(report, attempt, report_follows=report_follows)
    if as_signed.outcome == "fail" and follows.outcome == "pass":
        # Else an auditor reads that a page that was changed is right.
        said = "the page that was signed follows, made again; this is another one"
        follows = replace(follows, outcome="not checked", detail=said)
    return as_signed, follows


def _as_signed(report: RoundReport, page: Page | None) -> Claim:
    if page is None:
        return Claim(AS_SIGNED, "not checked", "no page was given")
    if report.page is None:
        return Claim(AS_SIGNED, "fail", "the report names no page, so nobody signed one")
    if page.digest != report.page.digest:
        return Claim(AS_SIGNED, "fail", "its words are not those that the coordinator signed")
    return Claim(AS_SIGNED, "pass", "every byte that is shown is as the coordinator signed it")


def _follows(report: RoundReport, attempt: Attempt, *, report_follows: bool) -> Claim:
    if report.page is None:
        return Claim(FOLLOWS, "not checked", "the report names no page")
    if report.page.renderer != RENDERER:
        theirs = f"version {report.page.renderer} of the renderer made it, this is {RENDERER}"
        return Claim(
            FOLLOWS, "not checked", f"{theirs}: read the report itself, or use that release"
        )
    if not report_follows:
        return Claim(FOLLOWS, "not checked", "not made again: the report does not follow")
    try:
        again = page_ref(report, attempt.settled().evidence())
    except (TemplateError, UntrustedInputError, ArithmeticError, LookupError) as error:
        return Claim(FOLLOWS, "fail", f"no page can be made of it: {type(error).__name__}")
    if again != report.page:
        return Claim(FOLLOWS, "fail", "the coordinator signed another page than follows from this")
    return Claim(FOLLOWS, "pass", "made again from the evidence, nothing differs")
