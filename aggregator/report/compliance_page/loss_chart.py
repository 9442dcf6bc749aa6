"""Dot plot of held-out losses on one common axis, as positions in pixels of its own view box."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from aggregator.report.compliance_page.loss_change import LossRow

CHART_LEFT, CHART_WIDTH, CHART_ROW, CHART_TOP = 190, 520, 30, 34
LONGEST_LABEL = 26


@dataclass(frozen=True)
class Mark:
    """A dot of the plot: which loss, where, and its value."""

    series: str
    x: float
    value: Decimal


@dataclass(frozen=True)
class ChartRow:
    """One institution's losses; `y` is the middle of its line in pixels."""

    name: str
    y: float
    marks: tuple[Mark, ...]

    @property
    def label(self) -> str:
        """The name, cut where it would leave the picture."""
        is_long = len(self.name) > LONGEST_LABEL
        return self.name[: LONGEST_LABEL - 1] + "…" if is_long else self.name


@dataclass(frozen=True)
class Chart:
    """The whole plot."""

    rows: tuple[ChartRow, ...]
    ticks: tuple[tuple[float, str], ...]
    height: float


def loss_chart(losses: Sequence[LossRow]) -> Chart | None:
    """Positions of all losses; None when no silo evaluated."""
    values = [value for row in losses for _, value in _series(row)]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = max((high - low) / 10, Decimal("0.01"))
    low, high = low - margin, high + margin

    def x(value: Decimal) -> float:
        return round(CHART_LEFT + CHART_WIDTH * float((value - low) / (high - low)), 2)

    rows = tuple(
        ChartRow(
            row.name,
            CHART_TOP + CHART_ROW * index + CHART_ROW / 2,
            tuple(Mark(series, x(value), value) for series, value in _series(row)),
        )
        for index, row in enumerate(losses)
    )
    ticks = tuple((x(value), f"{value:f}") for value in _round_values(low, high))
    return Chart(rows, ticks, CHART_TOP + CHART_ROW * len(rows) + 26)


def _round_values(low: Decimal, high: Decimal) -> list[Decimal]:
    """Three to six multiples of 1, 2 or 5 times a power of ten between `low` and `high`."""
    power = Decimal(1).scaleb((high - low).adjusted() - 1)
    step = next(power * m for m in (1, 2, 5, 10, 20, 50) if (high - low) / (power * m) <= 6)
    first = (low / step).to_integral_value(ROUND_CEILING)
    count = int((high / step).to_integral_value(ROUND_FLOOR) - first) + 1
    return [(first + index) * step for index in range(count)]


def _series(row: LossRow) -> list[tuple[str, Decimal]]:
    named = [("base", row.base), ("starting", row.starting)]
    named += [("silo-only", row.silo_only)] if row.silo_only is not None else []
    return [*named, ("candidate", row.candidate)]
