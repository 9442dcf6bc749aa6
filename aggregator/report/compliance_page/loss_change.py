"""Better or worse, for whom, and how sure: held-out losses of an attempt as rows with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from statistics import median

from data_contracts.dataset.small_cells import SMALL_CELL
from data_contracts.protocol.records import Evaluation
from data_contracts.protocol.records.evaluation import RightShares

NORMAL_QUANTILE = Decimal("1.959964")
"""Of the standard normal distribution at 97.5 %."""

_DIGITS = 28


@dataclass(frozen=True)
class Error:
    """Standard error of a change in nats per answer token, and its degrees of freedom."""

    size: Decimal
    freedom: Decimal


@dataclass(frozen=True)
class Interval:
    """A difference of mean losses in nats per answer token; negative is better.

    `low` and `high` bound it at 95 % confidence; None where no standard error was signed, or one
    of too few records.
    """

    change: Decimal
    low: Decimal | None = None
    high: Decimal | None = None
    error: Error | None = None

    @property
    def says(self) -> str:
        """In a word; a difference whose interval holds zero is none."""
        if self.low is None or self.high is None:
            return "lower" if self.change < 0 else "higher" if self.change > 0 else "the same"
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "no clear difference"


@dataclass(frozen=True)
class LossRow:
    """One institution's losses, or the plain mean over all; `records` None where it is withheld,
    `right` where the family of the model does not count what a first guess has right."""

    name: str
    base: Decimal
    starting: Decimal
    candidate: Decimal
    silo_only: Decimal | None
    personal: Decimal | None
    change: Interval
    base_change: Interval
    records: int | None
    tokens: int
    right: RightShares | None = None


@dataclass(frozen=True)
class Spread:
    """Losses of one kind of adapter over `institutions`; the worst is the highest."""

    name: str
    institutions: int
    median: Decimal
    worst: Decimal


def loss_row(name: str, evaluation: Evaluation) -> LossRow:
    """As one institution signed it; of fewer than 10 records nothing but the means."""
    records = evaluation.records
    is_small = records is not None and records < SMALL_CELL
    freedom = (records or SMALL_CELL) - 1
    change, base_change = (
        None if is_small else error
        for error in (evaluation.change_error, evaluation.base_change_error)
    )
    candidate = evaluation.candidate_loss
    return LossRow(
        name,
        evaluation.base_loss,
        evaluation.starting_loss,
        candidate,
        evaluation.silo_only_loss,
        evaluation.personal_loss,
        _interval(candidate - evaluation.starting_loss, _error(change, freedom)),
        _interval(candidate - evaluation.base_loss, _error(base_change, freedom)),
        None if is_small else records,
        evaluation.tokens,
        evaluation.right,
    )


def mean_row(rows: Sequence[LossRow]) -> LossRow:
    """The plain mean over institutions, which decides; every one counts alike."""
    base, starting, candidate = (
        _mean([getattr(row, name) for row in rows]) for name in ("base", "starting", "candidate")
    )
    known = [row.records for row in rows if row.records is not None]
    return LossRow(
        "mean over institutions",
        base,
        starting,
        candidate,
        _mean_of_all([row.silo_only for row in rows]),
        _mean_of_all([row.personal for row in rows]),
        _interval(candidate - starting, pooled_error([row.change.error for row in rows])),
        _interval(candidate - base, pooled_error([row.base_change.error for row in rows])),
        sum(known) if len(known) == len(rows) else None,
        sum(row.tokens for row in rows),
        _mean_right([row.right for row in rows]),
    )


def student_quantile(freedom: Decimal) -> Decimal:
    """Student's t at 97.5 % for `freedom` degrees of freedom, from 9 on within a thousandth.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.5.
    """
    z, n = NORMAL_QUANTILE, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def _error(size: Decimal | None, freedom: int) -> Error | None:
    return None if size is None else Error(size, Decimal(freedom))


def _interval(change: Decimal, error: Error | None) -> Interval:
    if error is None:
        return Interval(change)
    with localcontext(prec=_DIGITS):
        half = error.size * student_quantile(error.freedom)
        return Interval(change, change - half, change + half, error)


def spreads(rows: Sequence[LossRow]) -> tuple[Spread, ...]:
    """Of the institutions that told the loss of an adapter of their own; none where nobody did.

    Every spread is over the same institutions, so one that not all of them told is left out.
    """
    told = [row for row in rows if row.personal is not None]
    series: dict[str, list[Decimal | None]] = {
        "The adapter for all": [row.candidate for row in told],
        "Its own adapter": [row.personal for row in told],
        "Own data only": [row.silo_only for row in told],
    }
    return tuple(
        Spread(name, len(known), _median(known), max(known))
        for name, values in series.items()
        if (known := [value for value in values if value is not None]) and len(known) == len(told)
    )


def _median(values: Sequence[Decimal]) -> Decimal:
    with localcontext(prec=_DIGITS):
        return median(values)


def _mean_right(shares: Sequence[RightShares | None]) -> RightShares | None:
    known = [share for share in shares if share is not None]
    if not known or len(known) < len(shares):
        return None
    base, starting, candidate = (
        _mean([getattr(share, name) for share in known])
        for name in ("base", "starting", "candidate")
    )
    return RightShares.model_construct(base=base, starting=starting, candidate=candidate)


def _mean_of_all(values: Sequence[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known and len(known) == len(values) else None


def _mean(values: Sequence[Decimal]) -> Decimal:
    with localcontext(prec=_DIGITS):
        return sum(values, Decimal(0)) / len(values)


def pooled_error(errors: Sequence[Error | None]) -> Error | None:
    """Of the plain mean of differences on different records, whose variances add up.

    Degrees of freedom: Welch, The generalization of Student's problem, Biometrika 34, 1947.
    """
    known = [error for error in errors if error is not None]
    if not known or len(known) < len(errors):
        return None
    with localcontext(prec=_DIGITS):
        variance = sum((error.size**2 for error in known), Decimal(0))
        if not variance:
            return Error(Decimal(0), min(error.freedom for error in known))
        spread = sum((error.size**4 / error.freedom for error in known), Decimal(0))
        return Error(variance.sqrt() / len(known), variance**2 / spread)
