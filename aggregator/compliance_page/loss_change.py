"""Better or worse, for whom, and how sure: held-out losses of an attempt as rows with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from data_contracts.dataset.small_cells import SMALL_CELL
from data_contracts.records import Evaluation

NORMAL_QUANTILE = Decimal("1.959964")
"""Of the standard normal distribution at 97.5 %."""

_DIGITS = 28


@dataclass(frozen=True)
class Interval:
    """A difference of mean losses in nats per answer token; negative is better.

    `low` and `high` bound it at 95 % confidence; None where no standard error was signed, or one
    of too few records.
    """

    change: Decimal
    low: Decimal | None = None
    high: Decimal | None = None

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
    """One institution's losses, or the plain mean over all; `records` None where it is withheld."""

    name: str
    base: Decimal
    starting: Decimal
    candidate: Decimal
    silo_only: Decimal | None
    change: Interval
    base_change: Interval
    records: int | None
    tokens: int


def loss_row(name: str, evaluation: Evaluation) -> LossRow:
    """As one institution signed it."""
    records = evaluation.records
    candidate = evaluation.candidate_loss
    return LossRow(
        name,
        evaluation.base_loss,
        evaluation.starting_loss,
        candidate,
        evaluation.silo_only_loss,
        _interval(candidate - evaluation.starting_loss, evaluation.change_error, records),
        _interval(candidate - evaluation.base_loss, evaluation.base_change_error, records),
        records,
        evaluation.tokens,
    )


def mean_row(evaluations: Sequence[Evaluation]) -> LossRow:
    """The plain mean over institutions, which decides; every one counts alike.

    The institutions' held-out records are different ones, so the variances of their changes add up.
    """
    silo_only = [e.silo_only_loss for e in evaluations if e.silo_only_loss is not None]
    base, starting, candidate = (
        _mean([getattr(e, name) for e in evaluations])
        for name in ("base_loss", "starting_loss", "candidate_loss")
    )
    records = [e.records for e in evaluations]
    known = [count for count in records if count is not None]
    return LossRow(
        "mean over institutions",
        base,
        starting,
        candidate,
        _mean(silo_only) if len(silo_only) == len(evaluations) else None,
        _interval(candidate - starting, _pooled([e.change_error for e in evaluations])),
        _interval(candidate - base, _pooled([e.base_change_error for e in evaluations])),
        sum(known) if len(known) == len(records) else None,
        sum(e.tokens for e in evaluations),
    )


def student_quantile(freedom: int) -> Decimal:
    """Student's t at 97.5 % for `freedom` degrees of freedom, from 9 on within a thousandth.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.5.
    """
    z, n = NORMAL_QUANTILE, Decimal(freedom)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def _interval(change: Decimal, error: Decimal | None, records: int | None = None) -> Interval:
    if error is None or (records is not None and records < SMALL_CELL):
        return Interval(change)
    with localcontext(prec=_DIGITS):
        half = error * (student_quantile(records - 1) if records else NORMAL_QUANTILE)
        return Interval(change, change - half, change + half)


def _mean(values: Sequence[Decimal]) -> Decimal:
    with localcontext(prec=_DIGITS):
        return sum(values, Decimal(0)) / len(values)


def _pooled(errors: Sequence[Decimal | None]) -> Decimal | None:
    """Standard error of the plain mean of independent differences."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    with localcontext(prec=_DIGITS):
        return sum((error**2 for error in known), Decimal(0)).sqrt() / len(known)
