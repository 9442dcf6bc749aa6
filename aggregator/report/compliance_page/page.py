"""The report as one self-contained page for a compliance officer, and the digest that is signed.

No script runs and nothing is fetched (the page says so to the browser in its content policy), every
text is escaped, and the same evidence gives the same bytes. The signed report and all evidence are
embedded. The coordinator signs the digest of the page, with the place of the bundle left empty:
the bundle holds the report that holds the digest. So a word that was changed on a page shows.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Template

from aggregator.report.compliance_page.facts import Evidence, PageFacts, page_facts
from aggregator.report.compliance_page.institution import LEAVES
from aggregator.report.compliance_page.loss_change import spreads
from aggregator.report.compliance_page.loss_chart import CHART_LEFT, CHART_WIDTH, loss_chart
from aggregator.report.compliance_page.wording import (
    MERGES,
    counted,
    day,
    duration,
    headline,
    limit,
    moment,
)
from aggregator.report.limits import UNCHECKED, not_covered
from aggregator.report.round_report import outcome_counts
from data_contracts.dataset.suite.rule_sentences import sentence
from data_contracts.errors import UntrustedInputError
from data_contracts.privacy.assumptions import ASSUMPTIONS
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.records import RoundReport
from data_contracts.protocol.records.round_report import PageRef
from infra.page_templates import page_environment

RENDERER = 3
"""Version of words and layout; a change of the template, the words or the facts is the next one,
because a page that was signed can be made again only by the version that made it."""

BUNDLE_ELEMENT_ID = "consortia-report-bundle"
TEMPLATE_NAME = "page.html.j2"
SHORT_DIGEST = 12

_EMBEDDED = re.compile(
    rb'(<script type="application/json" id="' + BUNDLE_ELEMENT_ID.encode() + rb'">)([^<]*)'
    rb"(</script>)"
)


@dataclass(frozen=True)
class Page:
    """A page in two parts: what is shown, with the bundle's place empty, and the bundle."""

    shown: bytes
    bundle: bytes

    @property
    def digest(self) -> str:
        """What the coordinator signs: SHA-256 of what is shown."""
        return digest_of_bytes(self.shown)

    @property
    def whole(self) -> bytes:
        """The file, UTF-8."""
        inside = self.bundle.replace(b"<", b"\\u003c")
        return _EMBEDDED.sub(lambda m: m[1] + inside + m[3], self.shown)


def split_page(data: bytes) -> Page:
    """The parts of a page file; raises UntrustedInputError without exactly one embedded bundle."""
    found = _EMBEDDED.findall(data)
    if len(found) != 1:
        raise UntrustedInputError(
            "report page",
            expected="a page with exactly one embedded bundle",
            found=f"{len(found)}",
            action="ask the federation operator for the page as it was written",
            rule="bundle.page",
        )
    return Page(_EMBEDDED.sub(rb"\1\3", data), found[0][1])


def page_ref(report: RoundReport, evidence: Evidence) -> PageRef:
    """Renderer and digest of the page that belongs to a report, for the coordinator to sign."""
    return PageRef(renderer=RENDERER, digest=digest_of_bytes(render(report, evidence)))


def render(report: RoundReport, evidence: Evidence) -> bytes:
    """What the page shows, with the bundle's place empty; `report.page` plays no part."""
    facts = page_facts(report, evidence)
    return (
        _template()
        .render(
            facts=facts,
            report=report,
            plan=facts.plan,
            headline=headline(report),
            counts=outcome_counts(report),
            licences=_licence_totals(facts),
            chart=loss_chart(facts.losses),
            spreads=spreads(facts.losses),
            chart_left=CHART_LEFT,
            chart_width=CHART_WIDTH,
            leaves=[name for name, _ in LEAVES] + ["adapter"],
            file_name=f"{report_stem(report)}.html",
            unchecked=UNCHECKED,
            not_covered=not_covered(
                report.trust_mode,
                is_encrypted=report.adapter_encryption is not None,
                is_private=facts.plan.privacy is not None,
            ),
            assumptions=ASSUMPTIONS,
            merges=MERGES,
            bundle_element_id=BUNDLE_ELEMENT_ID,
        )
        .encode()
    )


def report_stem(report: RoundReport) -> str:
    """File name without its end: `run-1-round-0001`, with `-attempt-02` for a retry.

    The run is part of it, because every run has a first round, and because files of two runs meet
    where people keep them.
    """
    return f"{report.run}-{former_stem(report)}"


def former_stem(report: RoundReport) -> str:
    """As files were called before the run was part of their names."""
    retry = f"-attempt-{report.attempt:02d}" if report.attempt > 1 else ""
    return f"round-{report.round:04d}{retry}"


@cache
def _template() -> Template:
    """The page's template; parsing it takes longer than filling it in."""
    environment = page_environment(
        Path(__file__).parent, counted, day, duration, limit, moment, sentence
    )
    environment.filters["short"] = lambda digest: digest[:SHORT_DIGEST]
    return environment.get_template(TEMPLATE_NAME)


def _licence_totals(facts: PageFacts) -> list[tuple[str, str]]:
    """Records per licence over the admitted silos; small cells stay withheld."""
    totals: dict[str, tuple[int, bool]] = {}
    for own in facts.institutions:
        counts = own.verdict.licences if own.verdict and own.summary.outcome == "admitted" else ()
        for item in counts:
            known, withheld = totals.get(item.licence, (0, False))
            totals[item.licence] = (known + (item.records or 0), withheld or item.records is None)
    return [(licence, _total(*total)) for licence, total in sorted(totals.items())]


def _total(known: int, withheld: bool) -> str:
    if not withheld:
        return f"{known:,}"
    return f"{known:,} and a number that stays there" if known else "a number that stays there"
