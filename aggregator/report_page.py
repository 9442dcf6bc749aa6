"""The report as one self-contained page for a compliance officer.

No script runs and nothing is fetched (the page says so to the browser in its content policy), every
text is escaped, and the same report gives the same bytes. The signed report and all evidence are
embedded, so the page can be verified: what it shows is rendered from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from data_contracts.records import RoundReport, Verdict
from data_contracts.records.round_report import SiloSummary

BUNDLE_ELEMENT_ID = "consortia-report-bundle"
TEMPLATE_NAME = "report_page.html.j2"
SHORT_DIGEST = 12

OUTCOMES = {
    "published": "The merged adapter was published.",
    "held": "The merged adapter was held back; the previous one stays in force.",
    "aborted": "The attempt was aborted; no adapter was made.",
}
RULES = {
    "evaluation.not_worse": "On held-out data of the institutions it was not worse than before.",
    "evaluation.quorum": "Too few institutions evaluated it.",
    "evaluation.mean_worse": "On average over the institutions it was worse than before.",
    "evaluation.silo_worse": "For at least one institution it was worse than the plan tolerates.",
    "robust.alarm": "An institution stands out among too few others; a person decides.",
    "quorum.not_reached": "Too few submissions were admitted.",
    "coordinator.revoked": "The coordinator's key was revoked; the round is tried again.",
    "evidence.erased": "What an institution had sent was erased from storage; the round is tried "
    "again.",
    "silo.revoked": "The key of an institution whose submission counted was revoked.",
}
CHART_LEFT, CHART_WIDTH, CHART_ROW, CHART_TOP = 150, 520, 30, 34


@dataclass(frozen=True)
class Mark:
    """A dot of the plot: which loss, where, and its value."""

    series: str
    x: float
    value: Decimal


@dataclass(frozen=True)
class ChartRow:
    """One silo's losses; `y` is the middle of its line in pixels."""

    silo: str
    y: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    """Dot plot of the held-out losses, in pixels of its own view box."""

    rows: tuple[ChartRow, ...]
    ticks: tuple[tuple[float, str], ...]
    height: float


def render_page(
    record: RoundReport, verdicts: Mapping[str, Verdict], report_digest: str, bundle: bytes
) -> bytes:
    """UTF-8 bytes of the page; `verdicts` by silo and the packed `bundle` belong to `record`."""
    page = _template().render(
        report=record,
        report_digest=report_digest,
        verdicts=verdicts,
        headline=OUTCOMES[record.outcome],
        explanation=RULES.get(record.rule, ""),
        counts=_counts(record.silos),
        chart=loss_chart(record.silos),
        chart_left=CHART_LEFT,
        chart_width=CHART_WIDTH,
        licences=_licence_totals(record.silos, verdicts),
        bundle_element_id=BUNDLE_ELEMENT_ID,
        bundle=bundle.decode("ascii").replace("<", "\\u003c"),
    )
    return page.encode()


@cache
def _template() -> Template:
    """The page's template; parsing it takes longer than filling it in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda digest: digest[:SHORT_DIGEST]
    return environment.get_template(TEMPLATE_NAME)


def loss_chart(silos: Sequence[SiloSummary]) -> Chart | None:
    """Positions of all losses on one common axis; None when no silo evaluated."""
    scored = [silo for silo in silos if silo.losses is not None]
    values = [value for silo in scored for _, value in _series(silo)]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = max((high - low) / 10, Decimal("0.01"))
    low, high = low - margin, high + margin

    def x(value: Decimal) -> float:
        return round(CHART_LEFT + CHART_WIDTH * float((value - low) / (high - low)), 2)

    rows = tuple(
        ChartRow(
            silo.silo,
            CHART_TOP + CHART_ROW * index + CHART_ROW / 2,
            tuple(Mark(name, x(value), value) for name, value in _series(silo)),
        )
        for index, silo in enumerate(scored)
    )
    ticks = tuple((x(value), f"{value}") for value in _round_values(low, high))
    return Chart(rows, ticks, CHART_TOP + CHART_ROW * len(rows) + 26)


def _round_values(low: Decimal, high: Decimal) -> list[Decimal]:
    """Three to six multiples of 1, 2 or 5 times a power of ten between `low` and `high`."""
    power = Decimal(1).scaleb((high - low).adjusted() - 1)
    step = next(power * m for m in (1, 2, 5, 10, 20, 50) if (high - low) / (power * m) <= 6)
    first = (low / step).to_integral_value(ROUND_CEILING)
    count = int((high / step).to_integral_value(ROUND_FLOOR) - first) + 1
    return [(first + index) * step for index in range(count)]


def _series(silo: SiloSummary) -> list[tuple[str, Decimal]]:
    if silo.losses is None:
        return []
    losses = silo.losses
    named = [("base", losses.base), ("starting", losses.starting)]
    named += [("silo-only", losses.silo_only)] if losses.silo_only is not None else []
    return [*named, ("candidate", losses.candidate)]


def _counts(silos: Sequence[SiloSummary]) -> dict[str, int]:
    outcomes = ("admitted", "rejected", "refused", "missing")
    return {name: sum(silo.outcome == name for silo in silos) for name in outcomes}


def _licence_totals(
    silos: Sequence[SiloSummary], verdicts: Mapping[str, Verdict]
) -> list[tuple[str, str]]:
    """Records per licence over the admitted silos; small cells stay withheld."""
    totals: dict[str, tuple[int, bool]] = {}
    admitted = [silo.silo for silo in silos if silo.outcome == "admitted"]
    for silo in admitted:
        for item in verdicts[silo].licences if silo in verdicts else ():
            known, withheld = totals.get(item.licence, (0, False))
            totals[item.licence] = (known + (item.records or 0), withheld or item.records is None)
    return [(licence, _total(*total)) for licence, total in sorted(totals.items())]


def _total(known: int, withheld: bool) -> str:
    if not withheld:
        return f"{known:,}"
    few = "fewer than 10 at some institutions"
    return f"{known:,} and {few}" if known else few
